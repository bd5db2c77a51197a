"""Clients that do what they may not, in a process of their own. Bounded in number and in time."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.serve_load.player import Player
from reverie.server import protocol
from reverie.server.protocol import ActionMessage

PAUSE_S = 0.2
"""Between two tries of one abuser."""
NUM_PREPARED = 2000
"""Messages that a flooder has ready; as many a second would be ten times what is allowed."""
FLOOD_S = 5.0
HANDSHAKES = 64
"""Connections at a time that never ask for anything."""
NICE = 10
"""Abusers elsewhere would not compete for this machine's processor; here they wait for it."""


@dataclass(slots=True)
class Abuse:
    """What came of one kind. ends: how often each end came: a close code, "http 400", "still open".
    num_frames: that these got.
    """

    tries: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    num_frames: int = 0
    num_messages: int = 0


Kind = Callable[["Abuser"], Awaitable[None]]


class Abuser:
    """One of a kind: tries again and again until `end_s`."""

    def __init__(self, port: int, seed: int, end_s: float, abuse: Abuse) -> None:
        self.port, self.end_s, self.abuse = port, end_s, abuse
        self.ws = f"ws://127.0.0.1:{port}/ws"
        self.random = random.Random(seed)

    async def run(self, kind: Kind) -> None:
        while time.monotonic() < self.end_s:
            self.abuse.tries += 1
            try:
                await kind(self)
            except (OSError, asyncio.IncompleteReadError):
                self.abuse.ends["connection reset"] += 1
            await asyncio.sleep(PAUSE_S)

    @property
    def rest_s(self) -> float:
        return max(self.end_s - time.monotonic(), 0.0)

    async def play(self, query: str = "", **options: object) -> Player:
        """A player whose hands lie still, with a place if there is one at once."""
        player = Player(self.ws + query, None, **options)  # pyright: ignore[reportArgumentType]
        await player.open()
        await player.until_playing(min(self.rest_s, 2.0))
        return player

    async def finish(self, player: Player, patience_s: float) -> None:
        """Waits for the end that the server makes of it, and writes it down."""
        had_time = self.rest_s > patience_s
        ended = await player.until(lambda: player.is_closed, min(patience_s, self.rest_s))
        visit = player.visit
        stayed = "still open" if had_time else "time was over"
        code = visit.close_code or ("reset" if ended else stayed)
        self.abuse.ends[str(code) if visit.status == 101 else f"http {visit.status}"] += 1
        self.abuse.num_frames += visit.num_frames
        if player.wire is not None:
            player.wire.abort()
            await player.wire.closed


# The kinds. Each makes one try.


async def slow_reader(abuser: Abuser) -> None:
    """Takes five frames a second."""
    player = await abuser.play(ack_s=0.4)  # two may be on their way
    await abuser.finish(player, abuser.rest_s)


async def mute(abuser: Abuser) -> None:
    """Stops reading in the middle of play."""
    player = await abuser.play()
    if player.wire is not None and not player.is_closed:
        player.wire.go_deaf()
    await asyncio.sleep(min(3.0, abuser.rest_s))
    await abuser.finish(player, 0.0)


async def action_flood(abuser: Abuser) -> None:
    """Actions as fast as the wire takes them."""
    actions = [ActionMessage(seq, 1, 1.0, 0.0, 1, 0.0) for seq in range(1, NUM_PREPARED)]
    await _flood(abuser, [protocol.pack_action(action) for action in actions])


async def command_flood(abuser: Abuser) -> None:
    """What costs the server most to do."""
    commands = ("restart", "save", "fork", "share", "prompt", "rewind")
    details = {"prompt": {"text": "a dark night"}, "rewind": {"seconds": 1}}
    chosen = abuser.random.choices(commands, k=NUM_PREPARED)
    await _flood(abuser, [protocol.pack_command(c, **details.get(c, {})) for c in chosen])


async def picture_flood(abuser: Abuser) -> None:
    """Pictures to begin from, as large as they may be."""
    picture = b"\xff\xd8\xff\xe0" + abuser.random.randbytes(200_000)
    await _flood(abuser, [protocol.pack_picture(picture)] * 8)


async def _flood(abuser: Abuser, messages: list[bytes]) -> None:
    """Again and again, deaf to what the server says, until the connection is gone."""
    player = await abuser.play()
    prepared = b"".join(map(_frame, messages))  # once: abusers elsewhere cost nothing here
    end_s = time.monotonic() + min(FLOOD_S, abuser.rest_s)
    while player.wire is not None and not player.is_closed and time.monotonic() < end_s:
        if player.wire.transport.get_write_buffer_size() < len(prepared):
            player.wire.send_raw(prepared)
            abuser.abuse.num_messages += len(messages)
        await asyncio.sleep(0.002)
    await abuser.finish(player, 1.0)


def _frame(message: bytes) -> bytes:
    """A whole WebSocket frame of a client, masked with zeros."""
    length = len(message)
    if length < 126:
        head = struct.pack(">BB", 0x82, 0x80 | length)
    else:
        head = struct.pack(">BBQ", 0x82, 0xFF, length)
    return head + bytes(4) + message


async def garbage(abuser: Abuser) -> None:
    """Messages that are none: random, cut short, of no type, too long, not finite."""
    action = protocol.pack_action(ActionMessage(1, 1, 1.0, 0.0, 1, 0.0))
    nan = struct.pack("<f", float("nan"))
    message = abuser.random.choice(
        [
            abuser.random.randbytes(abuser.random.randint(1, 64)),
            action[: abuser.random.randint(1, len(action) - 1)],
            action[:12] + nan + action[16:],
            b"\x00",
            b"\x03" + b"[" * 4000,
            b"\x03" + abuser.random.randbytes(4000),
            b"\x02" + bytes(100_000),
            bytes([protocol.ClientMessage.PICTURE]) + bytes(900_000),
            bytes(2_000_000),
        ]
    )
    player = await abuser.play()
    if player.wire is not None:
        player.wire.send(message)
    await abuser.finish(player, 2.0)


async def broken_frames(abuser: Abuser) -> None:
    """Bytes on an open WebSocket that are not WebSocket."""
    player = await abuser.play()
    if player.wire is not None and not player.is_closed:
        player.wire.send_raw(b"\xff" + abuser.random.randbytes(2000))  # bits that nobody may set
    await abuser.finish(player, 2.0)


async def odd_upgrades(abuser: Abuser) -> None:
    """Subprotocols, queries and tokens that nobody has."""
    query, protocols = abuser.random.choice(
        [
            ("", ("mqtt",)),
            ("", ("reverie", f"token.{'x' * 5000}")),
            ("?world=../../etc/passwd", ()),
            ("?seed=-1", ()),
            ("?steps=999999999999999999999", ()),
            ("?resume=" + "a" * 4000, ()),
            ("?start=%00", ()),
        ]
    )
    player = await abuser.play(query, subprotocols=protocols)
    await abuser.finish(player, 1.0)


async def bad_http(abuser: Abuser) -> None:
    """Requests that are none."""
    request = abuser.random.choice(
        [
            abuser.random.randbytes(500) + b"\r\n\r\n",
            b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: " + b"a" * 100_000 + b"\r\n\r\n",
            b"POST /api/worlds/fake/sessions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Content-Type: application/octet-stream\r\nContent-Length: 2000\r\n\r\n"
            + abuser.random.randbytes(2000),
            b"POST /api/worlds/fake/sessions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Content-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n{",
            b"GET /api/saves/../../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n",
        ]
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", abuser.port)
    try:
        writer.write(request)
        with suppress(TimeoutError):
            answer = await asyncio.wait_for(reader.read(64), min(2.0, abuser.rest_s))
            abuser.abuse.ends[_http(answer)] += 1
            return
        abuser.abuse.ends["still open"] += 1
    finally:
        writer.transport.abort()


def _http(answer: bytes) -> str:
    parts = answer.split(b" ")
    return f"http {parts[1].decode()}" if len(parts) > 1 and parts[1].isdigit() else "closed"


async def half_open(abuser: Abuser) -> None:
    """Connections that never ask for anything, and some that begin to."""
    writers: list[asyncio.StreamWriter] = []
    try:
        for i in range(HANDSHAKES):
            _, writer = await asyncio.open_connection("127.0.0.1", abuser.port)
            writers.append(writer)
            if i % 2:
                writer.write(b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
        await asyncio.sleep(abuser.rest_s)
        abuser.abuse.ends["still open"] += len(writers)
    finally:
        for writer in writers:
            writer.transport.abort()


KINDS: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        slow_reader,
        mute,
        action_flood,
        command_flood,
        picture_flood,
        garbage,
        broken_frames,
        odd_upgrades,
        bad_http,
        half_open,
    )
}


@contextmanager
def abusers(
    port: int, duration_s: float, each: int = 1
) -> Iterator[Callable[[float], dict[str, Abuse]]]:
    """All kinds at once, `each` of every kind. Gives a call that waits at most so many seconds for
    what came of them, by kind; of nothing where they did not end. They are gone at the end.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(theirs, port, duration_s, each), daemon=True)
    process.start()
    theirs.close()
    try:
        yield lambda patience_s: ours.recv() if ours.poll(patience_s) else {}
    finally:
        process.join(1)
        if process.is_alive():
            process.kill()
            process.join(5)


def _run(pipe: Connection, port: int, duration_s: float, each: int) -> None:
    os.setsid()  # niceness counts inside a session only, where Linux groups processes by it
    os.nice(NICE)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICE))
    pipe.send(asyncio.run(_abuse(port, duration_s, each)))
    pipe.close()


async def _abuse(port: int, duration_s: float, each: int) -> dict[str, Abuse]:
    told = {name: Abuse() for name in KINDS}
    end_s = time.monotonic() + duration_s
    async with asyncio.TaskGroup() as group:
        for i in range(each):
            for j, (name, kind) in enumerate(KINDS.items()):
                abuser = Abuser(port, 100 * i + j, end_s, told[name])
                group.create_task(abuser.run(kind))
    return told
