"""Any hour that players and machines can have, on a clock that passes only as work is done: who is
admitted is in time for as long as the machine could do it, nobody starves, quality does not swing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reverie.core import Action
from reverie.engine import Batch, CostTable, Engine, Handle
from reverie.scheduler import GUARD
from reverie.session import SessionState
from tests.fakes import SPACE, FakeClock, FakeRuntime, fake_world

FPS = 20
PERIOD_S = 1 / FPS
LEARNING_S = 1.0
"""After the machine became slower, until the engine must have seen it."""
FEASIBLE = 1 - GUARD + 1e-6
SLACK_S = 1e-4  # the clock of these tests passes a little for every wait


class Device(FakeRuntime):
    """A device that needs b ** power as long for b sessions as for one, times `factor`."""

    def __init__(self, clock: FakeClock, step_ms: float, commit_ms: float, power: float) -> None:
        super().__init__(fake_world(), clock, 0.0, 0.0, 0.5)
        self.one, self.own_commit_ms, self.power, self.factor = step_ms, commit_ms, power, 1.0

    def step(self, batch: Batch) -> np.ndarray:
        pictures = super().step(batch)
        self._work(self.factor * self._ms(len(batch.slots), batch.num_steps))
        return pictures

    def commit(self, slots: Sequence[int]) -> None:
        owed = [slot for slot in slots if self._pending[slot] is not None]
        super().commit(slots)
        if owed:
            self._work(self.factor * self._ms(len(owed), 0))

    def cost_table(self) -> CostTable:
        sizes = range(1, self.num_slots + 1)
        return {(b, k): self._ms(b, k) for b in sizes for k in (0, 1, 2, 4)}

    def _ms(self, b: int, num_steps: int) -> float:
        return (self.one * num_steps if num_steps else self.own_commit_ms) * b**self.power


@dataclass
class Hour:
    """A simulation, and what was seen in it."""

    random: Random
    device: Device
    engine: Engine
    clock: FakeClock
    excused_until_s: float = 0.0
    drawn: int = 0
    late: list[str] = field(default_factory=list)
    newest_s: dict[str, float] = field(default_factory=dict)
    longest_gap_s: float = 0.0
    levels: list[tuple[float, int]] = field(default_factory=list)
    handles: list[Handle] = field(default_factory=list)
    seq: int = 0

    def run(self, seconds: float) -> None:
        until_s = self.clock() + seconds
        while self.clock() < until_s:
            self._look_ahead()
            wait_s = self.engine.tick()
            self._collect()
            if wait_s != 0:
                left_s = until_s - self.clock()
                self.clock.advance(max(min(left_s, wait_s or left_s), 0) + 1e-6)

    def _look_ahead(self) -> None:
        """What cannot be in time is excused: the machine is too slow for who is there."""
        playing = [h for h in self.handles if h.state in (SessionState.PLAYING, SessionState.IDLE)]
        if not playing and self.clock() < self.excused_until_s:
            self.excused_until_s = self.clock() + LEARNING_S  # there is nothing to learn from
        sizes = [self.device._ms(b, 1) + self.device._ms(b, 0) for b in range(1, len(playing) + 1)]
        least = [0.0]
        for n in range(1, len(playing) + 1):
            least.append(min(sizes[b - 1] + least[n - b] for b in range(1, n + 1)))
        if least[-1] * self.device.factor > FEASIBLE * PERIOD_S * 1000:
            self.excused_until_s = self.clock() + LEARNING_S

    def _collect(self) -> None:
        now_s, origin_s = self.clock(), self.engine._origin_s
        level = self.engine.status.level
        if not self.levels or self.levels[-1][1] != level:
            self.levels.append((now_s, level))
        for handle in self.handles:
            frame = handle.take()
            if handle.state is not SessionState.PLAYING:
                self.newest_s.pop(handle.session_id, None)
                continue
            if frame is None or frame.finished_s == 0.0:
                continue
            self.drawn += 1
            tick = math.floor((frame.started_s - origin_s) * FPS + 1e-6)
            lateness_s = frame.finished_s - origin_s - (tick + 1) * PERIOD_S
            before_s = self.newest_s.get(handle.session_id, frame.started_s)
            gap_s = frame.started_s - before_s
            self.newest_s[handle.session_id] = frame.started_s
            self.longest_gap_s = max(self.longest_gap_s, gap_s)
            missed = gap_s > 1.99 * PERIOD_S
            if (lateness_s > SLACK_S or missed) and now_s > self.excused_until_s:
                self.late.append(f"{handle.session_id} at {now_s - origin_s:.3f}: {lateness_s}")

    def disturb(self, may_slow_down: bool) -> None:
        """One of all the things that happen."""
        doing = self.random.choice(["join", "join", "leave", "pause", "steer", "steps", "machine"])
        anybody = self.random.choice(self.handles) if self.handles else None
        if doing == "join" and self.engine.has_room:
            num_steps = self.random.choice([1, 2, 4])
            self.handles.append(self.engine.open(num_steps=num_steps))
        elif doing == "machine" and may_slow_down:
            if self.random.random() < 0.5:
                self.clock.advance(self.random.uniform(0, 1))  # a stall
                self.newest_s.clear()
            else:
                self.device.factor = self.random.choice([1.0, 1.0, 1.2, 1.6])
            self.excused_until_s = self.clock() + LEARNING_S
        elif anybody is None:
            return
        elif doing == "leave":
            self.handles.remove(anybody)
            anybody.close()
        elif doing == "pause":
            (anybody.pause if self.random.random() < 0.5 else anybody.resume)()
        elif doing == "steps":
            anybody.set_steps(self.random.choice([1, 2, 4]))
        elif doing == "steer":
            self.seq += 1
            keys = [k for k in SPACE.keys if self.random.random() < 0.3]
            anybody.act(SPACE.encode(Action(keys)), self.seq, self.clock())


def an_hour(seed: int, step_ms: float, commit_ms: float, power: float) -> Hour:
    clock = FakeClock()
    device = Device(clock, step_ms, commit_ms, power)
    engine = Engine(device.world, device, 12, clock)
    engine.prepare()
    return Hour(Random(seed), device, engine, clock)


machines = st.tuples(st.floats(0.5, 15), st.floats(0.1, 8), st.floats(0.3, 1.0))


@settings(deadline=None, max_examples=40)
@example(26340602, (5.0, 1.0, 1.0), True)  # it became slow while nobody played
@given(st.integers(0, 2**32), machines, st.booleans())
def test_nobody_who_was_admitted_is_late_while_it_can_be_done(
    seed: int, machine: tuple[float, float, float], may_slow_down: bool
) -> None:
    hour = an_hour(seed, *machine)
    for _ in range(30):
        hour.disturb(may_slow_down)
        hour.run(hour.random.uniform(0, 1.0))
    assert not hour.late
    assert hour.drawn or not hour.handles
    if not may_slow_down:
        assert hour.excused_until_s == 0.0  # admission never let in more than can be drawn


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32), machines, st.floats(2, 8))
def test_nobody_starves_on_a_machine_that_became_far_too_slow(
    seed: int, machine: tuple[float, float, float], factor: float
) -> None:
    hour = an_hour(seed, *machine)
    while hour.engine.has_room:
        hour.handles.append(hour.engine.open(num_steps=hour.random.choice([1, 2, 4])))
        hour.run(0.3)
    hour.device.factor = factor
    hour.run(2.0)
    hour.newest_s.clear()
    hour.longest_gap_s = 0.0
    hour.run(6.0)
    assert len(hour.newest_s) == len(hour.handles)
    alone_ms = sum(hour.device._ms(1, k) for k in (0, 1)) * factor
    assert hour.longest_gap_s <= 2 * PERIOD_S + 2 * len(hour.handles) * alone_ms / 1000


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32), machines)
def test_quality_does_not_swing_with_a_machine_that_is_never_the_same(
    seed: int, machine: tuple[float, float, float]
) -> None:
    hour = an_hour(seed, *machine)
    for _ in range(3):
        if hour.engine.has_room:
            hour.handles.append(hour.engine.open(num_steps=4))
    for _ in range(300):  # another speed five times a second
        hour.device.factor = hour.random.uniform(0.7, 1.3)
        hour.run(0.2)
    late_changes = [when for when, _ in hour.levels if when > hour.clock() - 30]
    assert len(late_changes) <= 4
