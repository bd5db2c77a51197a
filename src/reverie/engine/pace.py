"""The engine's use of the scheduler: once per tick of the grid, what quality there is time for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from reverie.core import Deadline
from reverie.engine.handle import DRAWN, Handle
from reverie.engine.stages import Histogram
from reverie.scheduler import (
    IDLE_EVERY,
    NEW_FRAMES,
    Costs,
    Demand,
    Ladder,
    Task,
    granted,
    load,
    spend,
)
from reverie.session import SessionState

IDLE_S = 30.0
"""A session that nobody steered for so long is drawn less often."""


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """level: of quality, 0 is best; num_levels: that there are. load: part of every period that
    these sessions need (`scheduler.load`). slowdown: of the device against its cost table.
    capacity: sessions that it can have. has_room: for one more. granted: sessions by the denoising
    steps that they get. busy_s: the device's so far; stages: histograms of what it did
    (`STAGE_BUCKETS_MS`). num_frames, num_late: drawn so far, and after their deadlines.
    memory_bytes: of its process.
    """

    level: int = 0
    num_levels: int = 1
    load: float = 0.0
    slowdown: float = 1.0
    capacity: int = 0
    num_active: int = 0
    has_room: bool = False
    granted: Mapping[int, int] = field(default_factory=dict)
    busy_s: float = 0.0
    stages: Mapping[str, Histogram] = field(default_factory=dict)
    num_frames: int = 0
    num_late: int = 0
    memory_bytes: int = 0


class Pace:
    """Decides, for the sessions that hold places, how good their next frames are and when they are
    due. Under the engine's lock. origin_s: when tick 0 opened.
    """

    def __init__(self, fps: float, costs: Costs, origin_s: float) -> None:
        self.status = EngineStatus()
        self._fps, self._costs, self._origin_s = fps, costs, origin_s
        self._ladder = Ladder()
        self._period = -1  # of the grid, that the ladder was asked for last
        self._spent: object = None  # for what time was spent last

    def begin_period(self, handles: Sequence[Handle], now_s: float) -> list[Handle]:
        """Once per tick of the grid: learn from the last one, see who is idle, and decide what
        quality there is time for. Returns whose state changed.
        """
        period = int((now_s - self._origin_s) * self._fps)
        if period == self._period:
            return []
        self._period = period
        self._costs.end_period(now_s)
        drawn = [handle for handle in handles if handle.state in DRAWN]
        idle = [h for h in drawn if _is_forgotten(h, now_s)]
        for handle in idle:
            handle._session.become(SessionState.IDLE)
            offsets = [h._session.offset for h in drawn if h.state is SessionState.IDLE]
            handle._session.offset = min(range(IDLE_EVERY[-1]), key=offsets.count)
        demands = [demand(handle) for handle in drawn]
        rung = self._ladder.update(demands, now_s, self._fps, self._costs)
        wanted = (
            rung,
            tuple(demands),
            tuple(h.session_id for h in drawn),
            period // round(self._fps),
        )
        if wanted != self._spent:
            self._spent = wanted
            changes = [handle._session.change for handle in drawn]
            steps = [granted(demand, rung, self._costs) for demand in demands]
            if self._ladder.is_settled(now_s):
                held = [handle._session.num_granted for handle in drawn]
                steps = spend(demands, changes, held, rung, self._fps, self._costs)
            for handle, num_steps in zip(drawn, steps, strict=True):
                handle._session.num_granted = num_steps
        for handle in drawn:
            is_idle = handle.state is SessionState.IDLE
            handle._session.every = rung.idle_every if is_idle else 1
        busy = load(demands, rung, self._fps, self._costs)
        levels = len(self._costs.steps) + 1
        self.status = EngineStatus(self._ladder.level, levels, busy, self._costs.slowdown)
        return idle

    def tasks(self, handles: Sequence[Handle]) -> list[Task]:
        """The next frame of every session that plays."""
        tasks = []
        for handle in handles:
            if handle.state not in DRAWN:
                continue
            session = handle._session
            opens_s = self._origin_s + session.tick / self._fps
            deadline = Deadline(self._origin_s + (session.tick + 1) / self._fps, session.session_id)
            if handle._script:
                tasks.append(Task(deadline, opens_s, handle._script[0][1], exact=True))
            else:
                tasks.append(Task(deadline, opens_s, session.num_granted))
        return tasks


def demand(handle: Handle) -> Demand:
    """What a session asks of every period."""
    session = handle._session
    is_new = handle.num_frames < NEW_FRAMES
    if handle._script:
        return Demand(handle._script[0][1], exact=True, is_new=is_new)
    idle = session.state is SessionState.IDLE
    return Demand(session.num_steps, idle=idle, offset=session.offset, is_new=is_new)


def _is_forgotten(handle: Handle, now_s: float) -> bool:
    session = handle._session
    if session.state is not SessionState.PLAYING or handle._script:
        return False
    return now_s - session.steered_s > IDLE_S and not session.mailbox.is_held
