"""Who runs now: deadlines, batches, admission, and the quality ladder.

Pure policy: values and a clock reading in, values out. Every session of an engine shares one grid
of 1/fps, so that frames which can be drawn together are due together. Tick i opens at i/fps and its
picture is due one period later. Costs come from the runtime's measured table, in milliseconds by
(batch size, denoising steps), where 0 steps is the commit that follows a picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from reverie.core import Deadline

GUARD = 0.1
"""Part of every period that is never promised to anybody."""
HYSTERESIS = 0.1
"""How much lighter the load must be before quality goes up again."""
BATCH_GAIN = 0.05
"""A larger batch must save at least this much per session, or the first picture just waits."""
LEAST_SLOWDOWN = 0.5
"""However fast a few frames were, the table is not believed to be wrong by more than this."""
REST_S = 10.0
"""A slowdown that nobody measures any more fades by this time constant."""
HALF = 0.5
"""Of a period: how late a tick may be before it is skipped, and the least time between frames."""


@dataclass(frozen=True, slots=True)
class Task:
    """One session's next frame: not before `opens_s`, wanted by `deadline`, in so many steps."""

    deadline: Deadline
    opens_s: float
    num_steps: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run now: these sessions in one batch, with this number of denoising steps."""

    session_ids: tuple[str, ...]
    num_steps: int


@dataclass(slots=True)
class Costs:
    """The measured table, and how much slower the machine is now than when it was measured.

    table: milliseconds by (batch size, denoising steps), with (b, 0) the commit. slowdown: below 1
    where the table was measured while the machine was busy with something else.
    """

    table: Mapping[tuple[int, int], float]
    slowdown: float = 1.0
    steps: tuple[int, ...] = field(init=False)
    max_batch: int = field(init=False)

    def __post_init__(self) -> None:
        self.steps = tuple(sorted({k for _, k in self.table if k > 0}))
        self.max_batch = max((b for b, _ in self.table), default=0)
        if not self.steps:
            raise ValueError("the cost table is empty; expected milliseconds by (batch, steps)")

    def step_ms(self, batch: int, num_steps: int) -> float:
        """Until the pictures of such a batch are there."""
        return self.table[batch, num_steps] * self.slowdown

    def frame_ms(self, batch: int, num_steps: int) -> float:
        """Until the device is free again: pictures and commit."""
        return self.step_ms(batch, num_steps) + self.table.get((batch, 0), 0.0) * self.slowdown

    def observe(self, batch: int, num_steps: int, measured_ms: float) -> None:
        """Learn from a step that just ran."""
        expected = self.table.get((batch, num_steps), 0.0)
        if expected > 0:
            ratio = min(measured_ms / expected, 10.0)
            learned = self.slowdown + 0.05 * (ratio - self.slowdown)
            self.slowdown = max(LEAST_SLOWDOWN, learned)

    def rest(self, elapsed_s: float) -> None:
        """Forget, while nothing runs that could be observed: the table is believed again."""
        excess = (self.slowdown - 1) * math.exp(-elapsed_s / REST_S)
        self.slowdown = 1 + excess if abs(excess) > 0.01 else 1.0


def schedule(tasks: Iterable[Task], now_s: float, costs: Costs) -> Plan | None:
    """Earliest deadline first over the tasks that are open; None when nothing is.

    The most urgent session runs, with others of the same number of steps for as long as its
    deadline holds and they make the batch worth it. When not even it alone can make its deadline,
    it runs with fewer steps.
    """
    due = sorted((t for t in tasks if t.opens_s <= now_s), key=lambda t: t.deadline)
    if not due:
        return None
    first = due[0]
    left_ms = (first.deadline.deadline_s - now_s) * 1000
    num_steps = _affordable(first.num_steps, left_ms, costs)
    mates = [t for t in due if t.num_steps == first.num_steps]
    size = _batch_size(min(len(mates), costs.max_batch), num_steps, left_ms, costs)
    return Plan(tuple(t.deadline.session_id for t in mates[:size]), num_steps)


def _affordable(num_steps: int, left_ms: float, costs: Costs) -> int:
    """The most steps, up to `num_steps`, that one session has time for; the fewest if none."""
    options = [k for k in costs.steps if k <= num_steps] or [costs.steps[0]]
    return max((k for k in options if costs.step_ms(1, k) <= left_ms), default=options[0])


def _batch_size(limit: int, num_steps: int, left_ms: float, costs: Costs) -> int:
    """The batch up to `limit` that is best per session, and the smallest among near equals."""
    sizes = [b for b in range(1, limit + 1) if (b, num_steps) in costs.table]
    in_time = [b for b in sizes if costs.step_ms(b, num_steps) <= left_ms]
    each = {b: costs.frame_ms(b, num_steps) / b for b in in_time or sizes}
    best = min(each.values())
    return min(b for b, ms in each.items() if ms <= best * (1 + BATCH_GAIN))


def load(requested: Sequence[int], limit: int, fps: float, costs: Costs) -> float:
    """Part of every period that these sessions keep the device busy; above 1 they do not fit.

    requested: the denoising steps that each session asked for. limit: the most that any may have.
    """
    busy_ms = 0.0
    for num_steps in costs.steps:
        count = sum(rung(wanted, limit, costs) == num_steps for wanted in requested)
        while count > 0:
            size = _batch_size(min(count, costs.max_batch), num_steps, math.inf, costs)
            busy_ms += costs.frame_ms(size, num_steps)
            count -= size
    return busy_ms / 1000 * fps


def rung(wanted: int, limit: int, costs: Costs) -> int:
    """The number of steps a session gets that asked for `wanted` while `limit` is the most."""
    return max((k for k in costs.steps if k <= min(wanted, limit)), default=costs.steps[0])


def ladder(requested: Sequence[int], current: int, fps: float, costs: Costs) -> int:
    """The most denoising steps that sessions may have now, so that all their deadlines hold.

    Goes down as soon as the guard band is touched, and up only when there is room to spare: a
    quality that changes all the time is worse than a lower one.
    """
    for limit in reversed(costs.steps):
        room = 1 - GUARD - (HYSTERESIS if limit > current else 0)
        if load(requested, limit, fps, costs) <= room:
            return limit
    return costs.steps[0]


def capacity(fps: float, costs: Costs, num_slots: int) -> int:
    """Sessions whose deadlines all hold at the fewest steps, with the guard band; at least 1."""
    fewest = costs.steps[0]
    fits = 1
    while fits < num_slots and load([fewest] * (fits + 1), fewest, fps, costs) <= 1 - GUARD:
        fits += 1
    return min(fits, num_slots)


def next_tick(tick: int, started_s: float, finished_s: float, fps: float) -> int:
    """The tick that follows `tick`, whose frame was drawn between these times since tick 0 opened.

    Late ticks are skipped, never caught up with: the next frame begins no sooner than half a period
    after this one did, and belongs to no tick that is over by more than half a period already.
    """
    earliest = max(started_s * fps + HALF, finished_s * fps - HALF)
    return max(tick + 1, math.ceil(earliest))
