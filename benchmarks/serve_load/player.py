"""One player at a socket: plays as people do, and writes down what came when.

What a browser does, this does: it acknowledges every frame at once and answers it with an action
(the keys that are held, the mouse since the last one), sends a key that goes down or up at once,
and repeats itself when no frames come. It does not decode the pictures.

Whether a frame was in time is said here once. From a session's first frame on, a frame is due every
1/fps. One that comes within 1.5/fps of the one before is a hit. One that comes later is a miss, and
so is every whole frame time of waiting for it beyond the first. A session that loses its place
without having asked for it goes on being owed frames. Idle and paused sessions are owed none.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.serve_load.hands import Hands
from benchmarks.serve_load.wire import Wire, connect
from reverie.server import protocol
from reverie.server.protocol import ActionMessage, FrameMessage, ServerMessage

LATE_FACTOR = 1.5
REPEAT_S = 0.4
"""Without frames, held keys are said again after this long."""


@dataclass(slots=True)
class Visit:
    """What one socket saw. All times are monotonic seconds, 0 for what did not happen.

    queued_s: seconds in the queue, all stays together. placed_s: when it first had a place. due,
    hits: see the module. gap_ms: between frames that were due. key_ms: from a key that went down or
    up to the frame that answers it. num_jumps: frames whose index does not follow the one before.
    num_lost_places: times that a place was lost without being asked for. steps: frames by denoising
    steps. status: of the HTTP answer.
    """

    seed: int = 0
    opened_s: float = 0.0
    hello_s: float = 0.0
    placed_s: float = 0.0
    queued_s: float = 0.0
    first_frame_s: float = 0.0
    last_frame_s: float = 0.0
    closed_s: float = 0.0
    num_frames: int = 0
    due: int = 0
    hits: int = 0
    gap_ms: array[float] = field(default_factory=lambda: array("f"))
    key_ms: array[float] = field(default_factory=lambda: array("f"))
    num_jumps: int = 0
    num_lost_places: int = 0
    steps: Counter[int] = field(default_factory=Counter)
    first_index: int = -1
    last_index: int = -1
    state: str = ""
    position: int = 0
    error: str = ""
    status: int = 0
    close_code: int | None = None
    left: bool = False
    """It went by itself."""


def frames_due(gap_s: float, fps: float) -> tuple[int, int]:
    """How many frames were due with one that came so long after the one before, and how many of
    them were in time.
    """
    in_time = gap_s <= LATE_FACTOR / fps
    return (1, 1) if in_time else (int(gap_s * fps + 1e-6), 0)


class Player:
    """address: "ws://127.0.0.1:PORT/ws?...". seed: None for one whose hands lie still. source:
    address to come from. ack_s: least time between two acknowledgements, for those who read slowly.
    on_due: called with now, frames due, hits, and the denoising steps of the frame.
    """

    def __init__(
        self,
        address: str,
        seed: int | None = 0,
        subprotocols: Sequence[str] = (),
        origin: str | None = None,
        source: str | None = None,
        ack_s: float = 0.0,
        on_due: Callable[[float, int, int, int], None] | None = None,
    ) -> None:
        self.visit = Visit(seed or 0)
        self.hello: dict[str, Any] = {}
        self.answers: list[dict[str, Any]] = []
        self.wire: Wire | None = None
        self._address = address
        self._options = {"subprotocols": subprotocols, "origin": origin, "source": source}
        self._seed, self._ack_s, self._on_due = seed, ack_s, on_due
        self._hands: Hands | None = None
        self._seq = 0
        self._sent_s = 0.0
        self._since_s = 0.0  # when the state was told
        self._keys_sent: deque[tuple[int, float]] = deque()
        self._ack_timer: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waits: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    # What whoever drives it calls.

    async def open(self) -> bool:
        """Whether it became a WebSocket; False too where nobody listens."""
        self.visit.opened_s = time.monotonic()
        try:
            self.wire = await connect(self._address, self._received, **self._options)
        except OSError:
            self.visit.closed_s = time.monotonic()
            return False
        is_open = await self.wire.opened
        self.visit.status = self.wire.status
        self.wire.closed.add_done_callback(self._gone)
        return is_open

    async def until(self, happened: Callable[[], bool], timeout_s: float) -> bool:
        """Whether it happened: looks after every message, and when the socket closes."""
        if happened():
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waits.append((happened, future))
        try:
            await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            return happened()
        finally:
            self._waits = [wait for wait in self._waits if wait[1] is not future]
        return happened()

    async def until_playing(self, timeout_s: float) -> bool:
        """Whether a frame came."""
        num_frames = self.visit.num_frames
        return await self.until(lambda: self.visit.num_frames > num_frames, timeout_s)

    def command(self, command: str, **arguments: Any) -> None:
        if self.wire is not None:
            self.wire.send(protocol.pack_command(command, **arguments))

    async def leave(self, how: str = "close") -> None:
        """end: for good. close: the tab. abort: the connection is reset. deaf: it is there, but
        nobody is behind it; that one stays open.
        """
        self.visit.left = True
        self._cancel_timers()
        wire = self.wire
        if wire is None or wire.closed.done():
            return
        if how == "deaf":
            wire.go_deaf()
            return
        if how == "end":
            self.command("end")
        elif how == "close":
            wire.close(1001)
        else:
            wire.abort()
        try:
            await asyncio.wait_for(asyncio.shield(wire.closed), 2.0)
        except TimeoutError:
            wire.abort()
            await wire.closed

    @property
    def is_closed(self) -> bool:
        return self.visit.closed_s > 0

    # What comes.

    def _received(self, data: bytes) -> None:
        message = protocol.parse_server(data)
        if isinstance(message, FrameMessage):
            self._frame(message)
        else:
            self._said(*message)
        for happened, future in self._waits:
            if not future.done() and happened():
                future.set_result(None)

    def _frame(self, frame: FrameMessage) -> None:
        now_s, visit = time.monotonic(), self.visit
        if visit.num_frames == 0:
            visit.first_frame_s, visit.first_index = now_s, frame.frame_index
            self._begin_to_play(now_s)
        else:
            visit.num_jumps += frame.frame_index != visit.last_index + 1
            if visit.last_frame_s:
                gap_s = now_s - visit.last_frame_s
                due, hits = frames_due(gap_s, self.hello["fps"])
                visit.due, visit.hits = visit.due + due, visit.hits + hits
                visit.gap_ms.append(1000 * gap_s)
                if self._on_due is not None:
                    self._on_due(now_s, due, hits, frame.num_steps)
        visit.num_frames += 1
        visit.last_frame_s, visit.last_index = now_s, frame.frame_index
        visit.steps[frame.num_steps] += 1
        while self._keys_sent and self._keys_sent[0][0] <= frame.action_seq:
            visit.key_ms.append(1000 * (now_s - self._keys_sent.popleft()[1]))
        self._acknowledge(now_s, frame.frame_index)

    def _acknowledge(self, now_s: float, frame_index: int) -> None:
        ack = protocol.pack_ack(frame_index)
        if self._ack_s:
            loop = asyncio.get_running_loop()
            self._ack_timer = loop.call_later(self._ack_s, self._send, now_s, ack)
        elif self._hands is None:
            self._send(now_s, ack)
        else:
            self._send(now_s, ack, self._action(now_s))

    def _said(self, kind: ServerMessage, body: dict[str, Any]) -> None:
        now_s, visit = time.monotonic(), self.visit
        if kind is ServerMessage.HELLO:
            self.hello, visit.hello_s = body, now_s
        elif kind is ServerMessage.STATE:
            self._state(now_s, body)
        elif kind is ServerMessage.ERROR:
            visit.error = body["error"]
        elif kind is ServerMessage.ANSWER:
            self.answers.append(body)

    def _state(self, now_s: float, body: dict[str, Any]) -> None:
        visit, state = self.visit, body["state"]
        if state != visit.state:
            if visit.state == "queued":
                visit.queued_s += now_s - self._since_s
            if state in ("queued", "warming") and visit.placed_s:
                visit.num_lost_places += visit.state in ("playing", "idle")
            if state in ("idle", "paused"):
                visit.last_frame_s = 0.0  # owed nothing until it plays again
            self._since_s = now_s
        has_place = state in ("playing", "idle", "paused") or (state == "warming" and self.hello)
        if has_place and not visit.placed_s:
            visit.placed_s = now_s
        visit.state, visit.position = state, body.get("position", 0)

    def _gone(self, closed: asyncio.Future[None]) -> None:
        visit, now_s = self.visit, time.monotonic()
        self._cancel_timers()
        if visit.state == "queued":
            visit.queued_s += now_s - self._since_s
        visit.closed_s = now_s
        visit.close_code = self.wire.close_code if self.wire is not None else None
        for _, future in self._waits:
            if not future.done():
                future.set_result(None)

    # What goes.

    def _begin_to_play(self, now_s: float) -> None:
        if self._seed is None:
            return
        keys = tuple(self.hello["action_space"]["keys"])
        self._hands = Hands(self._seed, keys, now_s)
        self._tick()

    def _tick(self) -> None:
        """A key goes down or up, or held ones are repeated where no frames come."""
        assert self._hands is not None
        now_s = time.monotonic()
        if now_s >= self._hands.next_s:
            pressed = self._hands.move(now_s) != 0
            action = self._action(now_s)
            # A tap's release goes unmeasured: the next frame shows the press.
            if pressed or not self._keys_sent:
                self._keys_sent.append((self._seq, now_s))
            self._send(now_s, action)
        elif now_s - self._sent_s >= REPEAT_S and self.visit.state != "queued":
            self._send(now_s, self._action(now_s))
        delay_s = min(self._hands.next_s - now_s, REPEAT_S)
        self._timer = asyncio.get_running_loop().call_later(max(delay_s, 0.001), self._tick)

    def _action(self, now_s: float) -> bytes:
        assert self._hands is not None
        self._seq += 1
        keys, yaw, pitch = self._hands.read(now_s)
        return protocol.pack_action(ActionMessage(self._seq, keys, yaw, pitch, 1, 1000 * now_s))

    def _send(self, now_s: float, *messages: bytes) -> None:
        if self.wire is not None:
            self.wire.send(*messages)
        self._sent_s = now_s

    def _cancel_timers(self) -> None:
        for timer in (self._timer, self._ack_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._ack_timer = None
