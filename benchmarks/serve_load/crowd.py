"""Many players in a process of their own, so that neither the server nor whoever watches shares a
Python interpreter with them.

Each chair is one player after the other: somebody comes, waits if there is a queue, stays for a
while, leaves, and the next one comes. So load stays what it is while people come and go.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from benchmarks.serve_load.player import Player, Visit

LEAVING_S = 20.0
"""How long the last ones may take to leave, then the process is ended."""
LAG_CHECK_S = 0.02


@dataclass(frozen=True, slots=True)
class Chair:
    """begin_s, end_s: since the crowd was let in. stay_s: shortest and longest, from the first
    frame on; a player whose stay is over leaves in one of these `ways` (see `Player.leave`).
    visits: at most so many. patience_s: in the queue.
    """

    seed: int
    begin_s: float
    end_s: float
    stay_s: tuple[float, float]
    ways: tuple[str, ...] = ("close", "end", "abort")
    visits: int = 1_000_000
    patience_s: float = 1e9
    query: str = ""
    subprotocols: tuple[str, ...] = ()


@dataclass(slots=True)
class Second:
    """What all players saw in one second of the clock. playing, queued: players at its begin.
    steps: frames by denoising steps.
    """

    due: int = 0
    hits: int = 0
    steps: Counter[int] = field(default_factory=Counter)
    playing: int = 0
    queued: int = 0


@dataclass(slots=True)
class Story:
    """What a crowd went through. seconds: by whole second since it was let in. lag_ms: how late the
    clients' own process was, 99th percentile and worst: nothing below it says anything about the
    server. cpu_s: that the clients used.
    """

    began_s: float = 0.0
    visits: list[Visit] = field(default_factory=list)
    seconds: dict[int, Second] = field(default_factory=dict)
    lag_ms: tuple[float, float] = (0.0, 0.0)
    cpu_s: float = 0.0
    duration_s: float = 0.0

    def between(self, from_s: float, until_s: float) -> list[Second]:
        """Those seconds."""
        return [second for t, second in self.seconds.items() if from_s <= t < until_s]


class Crowd:
    """Players in a process of their own: `join` gives what they saw."""

    def __init__(self, address: str, chairs: Sequence[Chair], nice: int = 0) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.end_s = max(chair.end_s for chair in chairs)
        self.process: BaseProcess = context.Process(
            target=_run, args=(theirs, address, tuple(chairs), nice), daemon=True
        )
        self.process.start()
        theirs.close()
        self.began_s: float = self._pipe.recv()

    def join(self) -> Story:
        """Waits for the end. Raises RuntimeError when the process died or hung."""
        rest_s = self.began_s + self.end_s + LEAVING_S - time.monotonic()
        try:
            if not self._pipe.poll(max(rest_s, 1.0)):
                raise RuntimeError("the crowd did not leave in time")
            return self._pipe.recv()
        except EOFError:
            raise RuntimeError("the process of the crowd died") from None
        finally:
            self.stop()

    def stop(self) -> None:
        self.process.join(0.5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join(5)


@contextmanager
def crowd(address: str, chairs: Sequence[Chair], nice: int = 0) -> Iterator[Crowd]:
    """address: "ws://127.0.0.1:PORT/ws". The crowd is let in at once, and is gone at the end."""
    people = Crowd(address, chairs, nice)
    try:
        yield people
    finally:
        people.stop()


def _run(pipe: Connection, address: str, chairs: Sequence[Chair], nice: int) -> None:
    if nice:
        os.nice(nice)
    story = Story(began_s=time.monotonic())
    pipe.send(story.began_s)
    asyncio.run(_play_all(story, address, chairs))
    story.cpu_s = time.process_time()
    story.duration_s = time.monotonic() - story.began_s
    pipe.send(story)
    pipe.close()


async def _play_all(story: Story, address: str, chairs: Sequence[Chair]) -> None:
    here: set[Player] = set()
    watch = asyncio.ensure_future(_watch(story, here))
    try:
        async with asyncio.TaskGroup() as group:
            for chair in chairs:
                group.create_task(_sit(story, here, address, chair))
    finally:
        watch.cancel()


async def _sit(story: Story, here: set[Player], address: str, chair: Chair) -> None:
    chance = random.Random(chair.seed)
    end_s = story.began_s + chair.end_s
    await asyncio.sleep(story.began_s + chair.begin_s - time.monotonic())

    def on_due(now_s: float, due: int, hits: int, num_steps: int) -> None:
        second = _second(story, now_s)
        second.due += due
        second.hits += hits
        second.steps[num_steps] += 1

    for _ in range(chair.visits):
        if time.monotonic() >= end_s:
            return
        seed = chance.getrandbits(32)
        player = Player(address + chair.query, seed, chair.subprotocols, on_due=on_due)
        story.visits.append(player.visit)
        here.add(player)
        try:
            if await player.open():
                await _stay(player, chair, chance, end_s)
            if not player.is_closed:
                await player.leave(chance.choice(chair.ways))
        finally:
            here.discard(player)
        if player.visit.num_frames == 0:
            await asyncio.sleep(
                min(0.5, max(end_s - time.monotonic(), 0.0))
            )  # refused: not at once


async def _stay(player: Player, chair: Chair, chance: random.Random, end_s: float) -> None:
    rest_s = min(end_s - time.monotonic(), chair.patience_s)
    if await player.until_playing(rest_s):
        stay_s = min(chance.uniform(*chair.stay_s), end_s - time.monotonic())
        await player.until(lambda: player.is_closed, stay_s)


async def _watch(story: Story, here: set[Player]) -> None:
    """Counts once a second who is where, and how late this process is."""
    lags: list[float] = []
    counted = -1
    try:
        while True:
            before_s = time.monotonic()
            await asyncio.sleep(LAG_CHECK_S)
            now_s = time.monotonic()
            lags.append(1000 * (now_s - before_s - LAG_CHECK_S))
            if int(now_s - story.began_s) != counted:
                counted = int(now_s - story.began_s)
                second = _second(story, now_s)
                states = [player.visit.state for player in here]
                second.playing = sum(state in ("playing", "idle") for state in states)
                second.queued = states.count("queued")
    finally:
        lags.sort()
        if lags:
            story.lag_ms = (lags[int(0.99 * len(lags))], lags[-1])


def _second(story: Story, now_s: float) -> Second:
    return story.seconds.setdefault(int(now_s - story.began_s), Second())
