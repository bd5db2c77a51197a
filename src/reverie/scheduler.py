"""Who runs now: deadlines, batches, admission, the quality ladder, and where spare time goes.

Pure policy: values and a clock reading in, values out. Every session of an engine shares one grid
of 1/fps, so that frames which can be drawn together are due together. Tick i opens at i/fps and its
picture is due one period later. Costs come from the runtime's measured table, in milliseconds by
(batch size, denoising steps), where 0 steps is the commit that follows a picture.

What is promised to whoever is admitted: of the cheapest way to draw all of them, pictures are there
after less than (1 - GUARD) / (1 + BATCH_GAIN) of a period at the 99th percentile, and all of it is
done after that at the 90th: a commit may run into the next period, but not often. On a machine that
is always the same, no frame is late.
"""

from __future__ import annotations

import heapq
import math
import statistics
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from reverie.core import Deadline

GUARD = 0.1
"""Part of every period that is never promised to anybody."""
HYSTERESIS = 0.1
"""How much lighter the load must be before quality goes up again."""
BATCH_GAIN = 0.05
"""A larger batch must save at least this much, or the first picture just waits."""
LEAST_SLOWDOWN = 0.5
"""However fast frames were, the table is not believed to be wrong by more than this."""
WINDOW = 400
"""Periods of the past that percentiles are taken of."""
LEAST_WINDOW = 40
"""Periods that the 90th is taken of at least: what was not measured counts as the table says."""
NEWEST = 9
"""Of these, whose median is believed at once if it is worse than the 90th percentile of all."""
WINDOW_S = 20.0
"""What was measured longer ago than this says nothing about the machine as it is now."""
HALF = 0.5
"""Of a period: how late a tick may be before it is skipped, and the least time between frames."""
DWELL_S = 2.0
"""There must have been room for better quality for this long before it is given."""
LONGEST_DWELL_S = 64.0
"""As above, when every try so far had to be taken back."""
REACH = 2.0
"""Until it has been seen with them, a machine may be so many times as slow with more sessions."""
NEW_FRAMES = 10
"""What a session does to the machine is seen after so many."""
IDLE_EVERY = (2, 4)
"""A session that nobody steers is drawn every second tick; every fourth, when time is short."""


@dataclass(frozen=True, slots=True)
class Task:
    """One session's next frame: not before `opens_s`, wanted by `deadline`, in so many steps.

    exact: in no fewer steps, however late it is, because a replay must give the same bits.
    """

    deadline: Deadline
    opens_s: float
    num_steps: int
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run now: these sessions in one batch, with this number of denoising steps."""

    session_ids: tuple[str, ...]
    num_steps: int


class Demand(NamedTuple):
    """What a session that holds a place asks of every period.

    num_steps: the most it wants, or exactly as many. idle: nobody steers it, so it is not drawn at
    every tick; offset: of the ticks that are its own then. is_new: fewer than NEW_FRAMES of it were
    drawn.
    """

    num_steps: int
    exact: bool = False
    idle: bool = False
    offset: int = 0
    is_new: bool = False


class Rung(NamedTuple):
    """A level of quality: the most denoising steps, and idle sessions drawn every so many ticks."""

    num_steps: int
    idle_every: int


class Split(NamedTuple):
    """How so many sessions are dealt out to batches. weighed_ms: what decides, with a batch of
    several dearer by BATCH_GAIN. whole_ms, drawn_ms: by the table, with and without the commits.
    first: the size of the first batch.
    """

    weighed_ms: float
    whole_ms: float
    drawn_ms: float
    first: int


class Seen(NamedTuple):
    """A period of the past: when it ended, how much longer than the table says its drawing and
    commits took, and all of it.
    """

    when_s: float
    ratio: float
    whole: float


class Costs:
    """The measured table, and how much slower the machine is now than when it was measured.

    table: milliseconds by (batch size, denoising steps), with (b, 0) the commit.
    """

    def __init__(self, table: Mapping[tuple[int, int], float]) -> None:
        self.table = table
        self.steps = tuple(sorted({k for _, k in table if k > 0}))
        self.max_batch = max((b for b, _ in table), default=0)
        if not self.steps:
            raise ValueError("the cost table is empty; expected milliseconds by (batch, steps)")
        self.slowdown = 1.0
        """99th percentile of what drawing and commits took in a period of late, over what the table
        says; below 1 where that was measured on a machine that was busy with something else."""
        self.usual = 1.0
        """90th percentile of the same with what comes on top: pictures are sent, moments are kept.
        The median of the last few periods where that is more."""
        self._seen: deque[Seen] = deque(maxlen=WINDOW)
        self._expected_ms = self._measured_ms = self._busy_ms = 0.0  # of the current period
        self._splits: dict[int, list[Split]] = {}

    def step_ms(self, batch: int, num_steps: int) -> float:
        """Until the pictures of such a batch are there."""
        return self.table[batch, num_steps] * self.slowdown

    def frame_ms(self, batch: int, num_steps: int) -> float:
        """Until the device is free again: pictures and commit."""
        return self.step_ms(batch, num_steps) + self.table.get((batch, 0), 0.0) * self.slowdown

    def period_ms(self, counts: Mapping[int, int]) -> float:
        """What it takes of a period to draw one frame of each of so many sessions, by their
        denoising steps, in the batches that suit best: until the last picture is there, at the 99th
        percentile, or until the device is free again, at the 90th; whichever is more.
        """
        splits = [self._split(count, num_steps) for num_steps, count in counts.items()]
        drawn_ms = sum(split.drawn_ms for split in splits) * self.slowdown
        return max(drawn_ms, sum(split.whole_ms for split in splits) * self.usual)

    def batch(self, count: int, num_steps: int, left_ms: float) -> int:
        """How many of so many sessions to draw first: as all of them are drawn soonest, unless that
        batch is late and a smaller one is not.
        """
        size = self._split(count, num_steps).first
        if self.step_ms(size, num_steps) <= left_ms:
            return size
        smaller = [b for b in range(1, size) if (b, num_steps) in self.table]
        in_time = [b for b in smaller if self.step_ms(b, num_steps) <= left_ms]
        return min(in_time, key=lambda b: self.frame_ms(b, num_steps) / b, default=size)

    def _split(self, count: int, num_steps: int) -> Split:
        splits = self._splits.setdefault(num_steps, [Split(0.0, 0.0, 0.0, 0)])
        sizes = [b for b in range(1, self.max_batch + 1) if (b, num_steps) in self.table]
        for n in range(len(splits), count + 1):
            options = []
            for b in sizes:
                if b <= n:
                    rest, drawn_ms = splits[n - b], self.table[b, num_steps]
                    whole_ms = drawn_ms + self.table.get((b, 0), 0.0)
                    options.append(
                        Split(
                            rest.weighed_ms + whole_ms * (1 + BATCH_GAIN * (b > 1)),
                            rest.whole_ms + whole_ms,
                            rest.drawn_ms + drawn_ms,
                            b,
                        )
                    )
            splits.append(min(options))
        return splits[count]

    def observe(self, batch: int, num_steps: int, measured_ms: float) -> None:
        """Something of this period took so long: a step, or with 0 steps a commit."""
        expected = self.table.get((batch, num_steps), 0.0)
        if expected > 0:
            self._measured_ms += measured_ms
            self._expected_ms += expected

    def occupy(self, busy_ms: float) -> None:
        """The engine could do nothing else for so long, what is observed included."""
        self._busy_ms += busy_ms

    def end_period(self, now_s: float) -> None:
        """Learn from what was observed in it, and forget what is too long ago.

        What was not measured counts as the table says: two stalls are not yet a slow machine.
        """
        if self._expected_ms > 0:
            whole_ms = max(self._busy_ms, self._measured_ms)
            ratios = (min(ms / self._expected_ms, 10.0) for ms in (self._measured_ms, whole_ms))
            self._seen.append(Seen(now_s, *ratios))
        self._expected_ms = self._measured_ms = self._busy_ms = 0.0
        while self._seen and self._seen[0].when_s < now_s - WINDOW_S:
            self._seen.popleft()
        beyond = WINDOW // 100
        slowest = heapq.nlargest(beyond, (seen.ratio for seen in self._seen))
        unmeasured = [1.0] * min(beyond, WINDOW - len(self._seen))
        self.slowdown = max(LEAST_SLOWDOWN, heapq.nlargest(beyond, slowest + unmeasured)[-1])
        wholes = [1.0] * (LEAST_WINDOW - len(self._seen)) + [seen.whole for seen in self._seen]
        ninth_of_ten = sorted(wholes)[len(wholes) * 9 // 10]
        self.usual = max(LEAST_SLOWDOWN, ninth_of_ten, statistics.median(wholes[-NEWEST:]))


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
    num_steps = first.num_steps
    if not first.exact:
        num_steps = _affordable(num_steps, left_ms, costs)
    mates = [t for t in due if (t.num_steps, t.exact) == (first.num_steps, first.exact)]
    size = costs.batch(len(mates), num_steps, left_ms)
    return Plan(tuple(t.deadline.session_id for t in mates[:size]), num_steps)


def _affordable(num_steps: int, left_ms: float, costs: Costs) -> int:
    """The most steps, up to `num_steps`, that one session has time for; the fewest if none."""
    options = [k for k in costs.steps if k <= num_steps] or [costs.steps[0]]
    return max((k for k in options if costs.step_ms(1, k) <= left_ms), default=options[0])


def load(demands: Sequence[Demand], rung: Rung, fps: float, costs: Costs) -> float:
    """Part of the busiest period that these sessions need (`Costs.period_ms`); above 1 they do not
    fit.
    """
    steps = [granted(demand, rung, costs) for demand in demands]
    every = rung.idle_every if any(demand.idle for demand in demands) else 1
    busiest_ms = 0.0
    for phase in range(every):
        drawn = Counter(
            k
            for k, demand in zip(steps, demands, strict=True)
            if not demand.idle or demand.offset % every == phase
        )
        busiest_ms = max(busiest_ms, costs.period_ms(drawn))
    return busiest_ms / 1000 * fps


def granted(demand: Demand, rung: Rung, costs: Costs) -> int:
    """The denoising steps a session gets on this rung."""
    if demand.exact:
        return demand.num_steps
    most = min(demand.num_steps, rung.num_steps)
    return max((k for k in costs.steps if k <= most), default=costs.steps[0])


def rungs(costs: Costs) -> list[Rung]:
    """All of the ladder, best first: fewer steps, then idle sessions slower. After the last one
    newcomers wait.
    """
    by_steps = [Rung(k, IDLE_EVERY[0]) for k in reversed(costs.steps)]
    return [*by_steps, Rung(costs.steps[0], IDLE_EVERY[1])]


@dataclass(slots=True)
class Ladder:
    """How good the pictures may be now, so that all deadlines hold.

    Goes down as soon as the guard band is touched. Goes up a rung at a time, when there was room to
    spare for a while, and for twice as long each time that quality could not be kept: one that
    changes all the time is worse than a lower one.
    """

    level: int = 0
    """Place in `rungs`, 0 is best."""
    _roomy_s: float = math.inf  # since when there has been room for better
    _dwell_s: float = DWELL_S
    _rose_s: float = -math.inf
    _fell_s: float = -math.inf

    def update(self, demands: Sequence[Demand], now_s: float, fps: float, costs: Costs) -> Rung:
        """The rung for these sessions from now on."""
        ladder = rungs(costs)
        held = self.level
        while self.level < len(ladder) - 1 and (
            load(demands, ladder[self.level], fps, costs) > 1 - GUARD
        ):
            self.level += 1
        if self.level > held:
            self._fell_s, relapsed = now_s, now_s - self._rose_s < LONGEST_DWELL_S
            self._dwell_s = min(2 * self._dwell_s, LONGEST_DWELL_S) if relapsed else DWELL_S
        room = 1 - GUARD - HYSTERESIS
        better = ladder[self.level - 1] if self.level else None
        if better is None or load(demands, better, fps, costs) > room:
            self._roomy_s = math.inf
        else:
            self._roomy_s = min(self._roomy_s, now_s)
            if now_s - self._roomy_s >= self._dwell_s:
                self.level -= 1
                self._rose_s, self._roomy_s = now_s, math.inf
        return ladder[self.level]

    def is_settled(self, now_s: float) -> bool:
        """Whether it is long enough ago that time ran short to spend what is left of it."""
        return now_s - self._fell_s >= self._dwell_s


def spend(
    demands: Sequence[Demand],
    changes: Sequence[float],
    held: Sequence[int],
    rung: Rung,
    fps: float,
    costs: Costs,
) -> list[int]:
    """Denoising steps of each session when the time that `rung` leaves is spent where the picture
    changes most: one more step up for as many as there is room for.

    changes: how much each session's picture changes from frame to frame. held: the steps that each
    had so far: as many sessions as had more may keep what others need room to spare for.
    """
    steps = [granted(demand, rung, costs) for demand in demands]
    counts = Counter(steps)
    order = [c * (1 + HYSTERESIS * (h > k)) for c, h, k in zip(changes, held, steps, strict=True)]
    num_held = sum(h > k for h, k in zip(held, steps, strict=True))
    for i in sorted(range(len(steps)), key=lambda i: -order[i]):
        more = min((k for k in costs.steps if steps[i] < k <= demands[i].num_steps), default=None)
        if more is None or demands[i].exact or demands[i].idle:
            continue
        tried = counts + Counter({more: 1})
        tried[steps[i]] -= 1
        if costs.period_ms(tried) / 1000 * fps > 1 - GUARD - HYSTERESIS * (num_held <= 0):
            continue
        counts, steps[i], num_held = tried, more, num_held - 1
    return steps


def has_room(holders: Sequence[Demand], newcomer: Demand, fps: float, costs: Costs) -> bool:
    """Whether all deadlines still hold if one more session is given a place, all of them steered
    and with the fewest steps. One may always play. Where that is only known if the machine is not
    REACH times as slow with them as it was so far, no more may be new than are not.
    """
    if not holders:
        return True
    everybody = [demand._replace(idle=False) for demand in (*holders, newcomer)]
    busy = load(everybody, Rung(costs.steps[0], 1), fps, costs)
    num_new = sum(demand.is_new for demand in holders)
    is_seen = num_new < max(len(holders) - num_new, 1)
    return busy <= (1 - GUARD) / (1 if is_seen else REACH)


def capacity(fps: float, costs: Costs, num_slots: int) -> int:
    """Sessions whose deadlines all hold at the fewest steps, with the guard band; at least 1."""
    fewest = costs.steps[0]
    fits = 1
    while fits < num_slots and costs.period_ms({fewest: fits + 1}) / 1000 * fps <= 1 - GUARD:
        fits += 1
    return min(fits, num_slots)


def next_tick(
    tick: int, started_s: float, finished_s: float, fps: float, every: int = 1, offset: int = 0
) -> int:
    """The tick that follows `tick`, whose frame was drawn between these times since tick 0 opened.

    every, offset: a session that is not drawn at each tick has those with tick % every == offset %
    every. After a late frame ticks are skipped, never caught up with: the next one begins no sooner
    than half a period after this one did, and belongs to no tick that is over by more than half a
    period.
    """
    following = tick + 1
    if finished_s * fps > following:
        earliest = max(started_s * fps + HALF, finished_s * fps - HALF)
        following = max(following, math.ceil(earliest))
    return following + (offset - following) % every
