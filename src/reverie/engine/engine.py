"""The running machine: one thread per device that does schedule -> run -> publish -> commit.

A player's way through it: `open` gives a `Handle`, if there is room. Its slot is filled with the
start's frames bit by bit in spare time, or with what was saved (warming), then a frame is drawn at
every tick of a grid of exactly 1/fps on the monotonic clock (playing). Between the engine's thread
and everybody else there are only mailboxes with one element: the newest action goes in, the newest
frame comes out.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from reverie.core import Deadline, Frame, ReverieError
from reverie.engine.cache_pool import Slots
from reverie.engine.handle import Handle, Prompted
from reverie.engine.replay import ActionLog, Replay
from reverie.engine.runtime import Batch, Runtime
from reverie.engine.saves import SavedSession
from reverie.scheduler import (
    IDLE_EVERY,
    Costs,
    Demand,
    Ladder,
    Plan,
    Task,
    capacity,
    granted,
    has_room,
    load,
    next_tick,
    schedule,
    spend,
)
from reverie.session import ActionMailbox, FullError, Reading, Session, SessionState
from reverie.world import Start, World

PATIENCE_S = 0.25
"""A session that is warming gets its turn after this long, even if somebody's frame is late."""
IDLE_S = 30.0
"""A session that nobody steered for so long is drawn less often."""
SMOOTHING = 0.1
"""Part of a session's `change` that is its newest frame's."""

_DRAWN = (SessionState.PLAYING, SessionState.IDLE)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """level: of quality, 0 is best; num_levels: that there are. load: part of every period that the
    device is busy, at the 99th percentile. slowdown: of the device against its cost table.
    capacity: sessions that it can have. has_room: for one more.
    """

    level: int = 0
    num_levels: int = 1
    load: float = 0.0
    slowdown: float = 1.0
    capacity: int = 0
    num_active: int = 0
    has_room: bool = False


class Engine:
    """Plays one world for several sessions on one device. Use `with`, or `start` and `stop`.

    num_slots: sessions that may hold a place at the same time, at most; fewer when the measured
    costs say so. clock: monotonic seconds.
    """

    def __init__(
        self,
        world: World,
        runtime: Runtime,
        num_slots: int = 4,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.world = world
        self.runtime = runtime
        self.costs: Costs | None = None
        self._num_slots = num_slots
        self._slots = Slots(num_slots)
        self._clock = clock
        self._fps = float(world.config.fps)
        self._origin_s = 0.0
        self._ladder = Ladder()
        self._status = EngineStatus()
        self._period = -1  # of the grid, that the ladder was asked for last
        self._spent: object = None  # for what time was spent last
        self._busy_until_s = 0.0
        self._wake = threading.Condition()
        self._called = False
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._ids = count(1)
        self._active: list[Handle] = []
        self._uncommitted: list[int] = []

    # Life.

    def prepare(self) -> None:
        """Memory, warm-up and the cost table; `start` does it. A test then calls `tick` itself."""
        if self.runtime.num_slots == 0:
            self.runtime.allocate(self._num_slots)
        with self._wake:
            self.costs = Costs(self.runtime.cost_table())
            self._origin_s = self._busy_until_s = self._clock()

    def start(self) -> None:
        """Prepare, then play on a thread of its own until `stop`."""
        if self._thread is not None:
            raise RuntimeError("the engine is running already")
        self.prepare()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End every session and the thread. A second time does nothing."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._thread = None
        self._end([*self._active], "the engine stopped")

    def __enter__(self) -> Engine:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def capacity(self) -> int:
        """Sessions that may hold a slot now; the others wait. 0 before `prepare`."""
        return 0 if self.costs is None else capacity(self._fps, self.costs, self._num_slots)

    @property
    def num_active(self) -> int:
        return len(self._active)

    @property
    def has_room(self) -> bool:
        """Whether `open` would give a place now: a slot is free, and every deadline still holds."""
        if self.costs is None or self._stopping or not self._slots.can_allocate():
            return False
        holders = [self._demand(handle) for handle in self._active]
        newcomer = Demand(min(self.world.config.denoising_steps))
        return has_room(holders, newcomer, self._fps, self.costs)

    @property
    def status(self) -> EngineStatus:
        """As it was at the newest tick, with the places as they are now."""
        with self._wake:
            places = (self.capacity, len(self._active), self.has_room)
            now = self._status
        return EngineStatus(now.level, now.num_levels, now.load, now.slowdown, *places)

    def open(
        self,
        start: str | Start | None = None,
        seed: int | None = None,
        num_steps: int | None = None,
        saved: SavedSession | None = None,
        replay: Replay | None = None,
    ) -> Handle:
        """A new session, in a place of its own.

        start: name of one of the world's starts, or a clip of one's own; the first one without.
        seed: decides all chance in the session; drawn if not given. num_steps: denoising steps per
        frame; the fewest the world knows if not given. saved: go on from there instead. replay:
        play this first, frame by frame, then the player. Raises FullError when there is no room,
        and ReverieError on a start, number of steps or replay that the world does not have.
        """
        config = self.world.config
        if saved is not None:
            seed, num_steps, replay = saved.seed, saved.num_steps, None
            start = saved.replay.start if saved.replay else start
        if replay is not None:
            check_replay(self.world, replay)
            start, seed = replay.start, replay.seed
        steps = self._known_steps(min(config.denoising_steps) if num_steps is None else num_steps)
        session = Session(
            f"{next(self._ids):06d}", _seed(seed), steps, ActionMailbox(config.action_space)
        )
        handle = Handle(self, session, self._find_start(start))
        self._forget_prompts(handle)
        with self._wake:
            if self._stopping:
                raise ReverieError("the engine has stopped")
            if not self.has_room:
                raise FullError("every place is taken")
            session.slot = self._slots.allocate()
            self._active.append(handle)
            self._begin(handle, saved, replay)
            self._call()
        return handle  # nobody listens yet, so nobody is told

    # One unit of work: schedule -> run -> publish; commits and warming fill the time between.

    def tick(self) -> float | None:
        """Do the most urgent thing there is, if any.

        Returns seconds until there is something to do again: 0 when this did something, None when
        nothing will ever be due unless somebody calls.
        """
        assert self.costs is not None, "prepare the engine first"
        with self._wake:
            now_s = self._clock()
            changed = self._begin_period(now_s)
            tasks = self._tasks()
        _notify(changed)
        plan = schedule(tasks, now_s, self.costs)
        opens_s = min((task.opens_s for task in tasks), default=math.inf)
        if plan is not None:
            # While a frame is due, these serve only whoever waited for longer than PATIENCE_S.
            if not (self._keep(now_s, is_busy=True) or self._warm(now_s, opens_s)):
                self._play(plan)
        elif self._uncommitted:
            self._commit(self._uncommitted)
        elif not (self._keep(now_s) or self._warm(now_s, opens_s)):
            return max(opens_s - self._clock(), 0.0) if opens_s < math.inf else None
        return 0.0

    def _run(self) -> None:
        while not self._stopping:
            try:
                wait_s = self.tick()
            except Exception as error:  # a bug outside of any one session
                logger.exception("the engine failed")
                self._end([*self._active], f"the engine failed: {_line(error)}")
                wait_s = 0.1
            if wait_s == 0.0:
                continue
            with self._wake:
                if not (self._called or self._stopping):
                    self._wake.wait(wait_s)
                self._called = False

    def _begin_period(self, now_s: float) -> list[Handle]:
        """Once per tick of the grid: learn from the last one, see who is idle, and decide what
        quality there is time for. Returns whose state changed.
        """
        assert self.costs is not None
        period = int((now_s - self._origin_s) * self._fps)
        if period == self._period:
            return []
        self._period = period
        self.costs.end_period(now_s)
        drawn = [handle for handle in self._active if handle.state in _DRAWN]
        idle = [h for h in drawn if self._is_forgotten(h, now_s)]
        for handle in idle:
            handle._session.become(SessionState.IDLE)
            offsets = [h._session.offset for h in drawn if h.state is SessionState.IDLE]
            handle._session.offset = min(range(IDLE_EVERY[-1]), key=offsets.count)
        demands = [self._demand(handle) for handle in drawn]
        rung = self._ladder.update(demands, now_s, self._fps, self.costs)
        wanted = (rung, tuple(demands), tuple(drawn), period // round(self._fps))
        if wanted != self._spent:
            self._spent = wanted
            changes = [handle._session.change for handle in drawn]
            steps = [granted(demand, rung, self.costs) for demand in demands]
            if self._ladder.is_settled(now_s):
                held = [handle._session.num_granted for handle in drawn]
                steps = spend(demands, changes, held, rung, self._fps, self.costs)
            for handle, num_steps in zip(drawn, steps, strict=True):
                handle._session.num_granted = num_steps
        for handle in drawn:
            is_idle = handle.state is SessionState.IDLE
            handle._session.every = rung.idle_every if is_idle else 1
        busy = load(demands, rung, self._fps, self.costs)
        levels = len(self.costs.steps) + 1
        self._status = EngineStatus(self._ladder.level, levels, busy, self.costs.slowdown)
        return idle

    def _is_forgotten(self, handle: Handle, now_s: float) -> bool:
        session = handle._session
        if session.state is not SessionState.PLAYING or handle._script:
            return False
        return now_s - session.steered_s > IDLE_S and not session.mailbox.is_held

    def _demand(self, handle: Handle) -> Demand:
        session = handle._session
        if handle._script:
            return Demand(handle._script[0][1], exact=True)
        return Demand(
            session.num_steps, idle=session.state is SessionState.IDLE, offset=session.offset
        )

    def _tasks(self) -> list[Task]:
        """The next frame of every session that plays."""
        tasks = []
        for handle in self._active:
            if handle.state not in _DRAWN:
                continue
            session = handle._session
            opens_s = self._origin_s + session.tick / self._fps
            deadline = Deadline(self._origin_s + (session.tick + 1) / self._fps, session.session_id)
            if handle._script:
                tasks.append(Task(deadline, opens_s, handle._script[0][1], exact=True))
            else:
                tasks.append(Task(deadline, opens_s, session.num_granted))
        return tasks

    def _play(self, plan: Plan) -> None:
        """One frame for every session of the plan. The actions are read at the last moment."""
        assert self.costs is not None
        handles = [h for h in self._active if h.session_id in plan.session_ids]
        handles.sort(key=_slot)  # neighbours in memory are neighbours in the batch
        owed = [_slot(handle) for handle in handles if _slot(handle) in self._uncommitted]
        if owed:
            self._commit(owed)
        handles, batch, readings = self._read(handles, plan.num_steps)
        if batch is None:
            return
        started_s = self._clock()
        opened_s = self._origin_s + handles[0]._session.tick / self._fps
        began_s = min(max(opened_s, self._busy_until_s), started_s)  # when it could have started
        try:
            pictures = self.runtime.step(batch)
        except Exception as error:
            logger.exception("a step failed")
            self._end(handles, f"drawing a frame failed: {_line(error)}")
            return
        finished_s = self._clock()
        self._uncommitted.extend(batch.slots)
        frames = [
            Frame(pixels, i, reading.seq, reading.time_s, started_s, finished_s, plan.num_steps)
            for pixels, i, reading in zip(pictures, batch.frame_indices, readings, strict=True)
        ]
        changes = self.runtime.changes(batch.slots)
        self._publish(handles, frames, batch, changes)
        self.costs.observe(len(handles), plan.num_steps, (finished_s - began_s) * 1000)
        self._busy_until_s = finished_s

    def _read(
        self, handles: Sequence[Handle], num_steps: int
    ) -> tuple[list[Handle], Batch | None, list[Reading]]:
        """The batch with the newest actions, of those handles that still play."""
        with self._wake:
            handles = [h for h in handles if h.state in _DRAWN and h._fits(num_steps)]
            if not handles:
                return [], None, []
            sessions = [handle._session for handle in handles]
            readings = [handle._read() for handle in handles]
            for session in sessions:
                session.is_drawn = True
            batch = Batch(
                tuple(_slot(handle) for handle in handles),
                np.stack([reading.vector for reading in readings]),
                tuple(session.seed for session in sessions),
                tuple(session.frame_index for session in sessions),
                num_steps,
            )
        return handles, batch, readings

    def _publish(
        self,
        handles: Sequence[Handle],
        frames: Sequence[Frame],
        batch: Batch,
        changes: Sequence[float],
    ) -> None:
        published = []
        with self._wake:
            for i, (handle, frame) in enumerate(zip(handles, frames, strict=True)):
                session = handle._session
                session.is_drawn = False
                if session.state not in (*_DRAWN, SessionState.PAUSED):
                    continue  # ended or restarted while its frame was drawn
                session.frame_index += 1
                session.change += SMOOTHING * (changes[i] - session.change)
                started_s, finished_s = (
                    t - self._origin_s for t in (frame.started_s, frame.finished_s)
                )
                own = (session.every, session.offset)
                tick = next_tick(session.tick, started_s, finished_s, self._fps, *own)
                session.num_skipped += (tick - session.tick - 1) // session.every
                session.tick = tick
                handle._publish(frame, batch.actions[i])
                published.append(handle)
        _notify(published)

    def _commit(self, slots: Sequence[int]) -> None:
        slots = tuple(slots)
        self._uncommitted = [slot for slot in self._uncommitted if slot not in slots]
        began_s = self._clock()
        try:
            self.runtime.commit(slots)
        except Exception as error:
            logger.exception("a commit failed")
            failed = [h for h in self._active if h._session.slot in slots]
            self._end(failed, f"remembering a frame failed: {_line(error)}")
        self._busy_until_s = self._clock()
        assert self.costs is not None
        self.costs.observe(len(slots), 0, (self._busy_until_s - began_s) * 1000)

    def _keep(self, now_s: float, is_busy: bool = False) -> bool:
        """Take the snapshot that somebody asked for, or that a second of play is remembered by."""
        with self._wake:
            asked = [h for h in self._active if h._is_kept(self._fps, now_s, is_busy)]
            if not asked:
                return False
            handle = asked[0]
            slot, epoch = _slot(handle), handle._epoch
        try:
            snapshot = self.runtime.snapshot(slot)
        except Exception as error:
            logger.exception("a snapshot failed")
            self._end([handle], f"remembering the session failed: {_line(error)}")
            return True
        with self._wake:
            answers = handle._remember(snapshot) if handle._epoch == epoch else []
            self._busy_until_s = self._clock()
        for answer in answers:
            answer()
        return True

    def _warm(self, now_s: float, opens_s: float) -> bool:
        """Prefill one frame of a session that is warming, if there is time before the next tick."""
        assert self.costs is not None
        with self._wake:
            warming = [h for h in self._active if h.state is SessionState.WARMING]
            if not warming:
                return False
            handle = min(warming, key=lambda h: h._warmed_s)
            needed_s = self.costs.frame_ms(1, self.costs.steps[0]) / 1000
            if opens_s - now_s < needed_s and now_s - handle._warmed_s < PATIENCE_S:
                return False
            session, clip, i = handle._session, handle._start, handle._num_warmed
            epoch, slot, seed, saved = handle._epoch, _slot(handle), session.seed, handle._saved
        frame, action = clip.frames[i : i + 1], clip.actions[i : i + 1]
        try:
            if saved is not None:
                self.runtime.restore(slot, saved.snapshot)
            else:
                first = i - len(clip.frames)
                self.runtime.prefill(slot, frame, action, seed, first, clip.pitch_deg)
        except Exception as error:
            logger.exception("a prefill failed")
            self._end([handle], f"preparing the start failed: {_line(error)}")
            return True
        with self._wake:
            handle._warmed_s = self._busy_until_s = self._clock()
            if session.state is not SessionState.WARMING or handle._epoch != epoch:
                return True  # closed or restarted meanwhile
            handle._num_warmed += 1
            if saved is None and handle._num_warmed < len(clip.frames):
                return True
            handle._saved = None
            session.become(SessionState.PAUSED if handle._wants_pause else SessionState.PLAYING)
            self._join_grid(session)
        handle._notify()
        return True

    # What handles ask for. All under the lock; callbacks after it.

    def _pause(self, handle: Handle, wants_pause: bool) -> None:
        old, new = _DRAWN, SessionState.PAUSED
        if not wants_pause:
            old, new = (SessionState.PAUSED,), SessionState.PLAYING
        with self._wake:
            handle._wants_pause = wants_pause
            if handle.state not in old:
                return
            session = handle._session
            session.become(new)
            session.mailbox.clear()
            session.steered_s, session.every = self._clock(), 1
            self._join_grid(session)
            self._call()
        handle._notify()

    def _restart(self, handle: Handle, start: str | Start | None, seed: int | None) -> None:
        clip = handle._start if start is None else self._find_start(start)
        with self._wake:
            session = handle._session
            if session.state is SessionState.ENDED:
                return
            handle._start, session.seed = clip, _seed(seed)
            self._forget_prompts(handle)
            self._begin(handle)
            self._call()
        handle._notify()

    def _forget_prompts(self, handle: Handle) -> None:
        """The world is as it is in the start's last frame."""
        columns = self.world.config.action_space.attribute_columns
        handle._session.mailbox.tell(handle._start.actions[-1, columns])

    def _prompt(self, handle: Handle, text: str) -> Prompted:
        wished = self.world.understand(text)
        with self._wake:
            session, space = handle._session, self.world.config.action_space
            if session.state is SessionState.ENDED:
                raise ReverieError("the session has ended; start another")
            now = space.decode_attributes(session.mailbox.attributes) | wished
            session.mailbox.tell(space.encode_attributes(now))
            return Prompted(wished, session.frame_index + session.is_drawn)

    def _steer(self, handle: Handle, action: NDArray[np.floating], seq: int, time_s: float) -> None:
        with self._wake:
            session = handle._session
            if not session.mailbox.put(action, seq, time_s):
                return
            session.steered_s = self._clock()
            if session.state is not SessionState.IDLE:
                return
            session.become(SessionState.PLAYING)
            session.every = 1
            self._join_grid(session)
            self._call()
        handle._notify()

    def _rewind(self, handle: Handle, seconds: float) -> None:
        with self._wake:
            if handle.state not in (*_DRAWN, SessionState.PAUSED):
                return
            saved = handle._moment(handle._session.frame_index - round(seconds * self._fps))
            if saved is None:
                return
            self._begin(handle, saved)
            self._call()
        handle._notify()

    def _save(self, handle: Handle, answer: Callable[[SavedSession | None], None]) -> None:
        with self._wake:
            is_there = handle.state in (*_DRAWN, SessionState.PAUSED) or handle._saved is not None
            if is_there:
                handle._answers.append(answer)
                handle._asked_s = self._clock()
                self._call()
        if not is_there:
            answer(None)

    def _begin(
        self, handle: Handle, saved: SavedSession | None = None, replay: Replay | None = None
    ) -> None:
        """Warm its slot: from the start, or from what was saved."""
        session = handle._session
        if session.state is not SessionState.WARMING:
            session.become(SessionState.WARMING)
        session.mailbox.clear()
        session.frame_index, session.is_drawn, session.every = 0, False, 1
        handle._frame, handle._num_warmed, handle._saved = None, 0, saved
        handle._warmed_s = session.steered_s = self._clock()
        handle._epoch += 1
        handle._script.clear()
        if saved is not None:
            space = self.world.config.action_space
            session.frame_index = saved.frame_index
            session.mailbox.tell(space.encode_attributes(saved.attributes))
            handle._go_on_from(saved)
            return
        handle._newest, handle._log = None, ActionLog()
        handle._moments.clear()
        if replay is not None:
            handle._script.extend(replay.log)

    def _end(self, handles: Sequence[Handle], reason: str) -> None:
        ended, answers = [], []
        with self._wake:
            for handle in handles:
                session = handle._session
                if session.state is SessionState.ENDED:
                    continue
                session.become(SessionState.ENDED, reason)
                if session.slot is not None:
                    self._slots.deallocate(session.slot)
                    session.slot = None
                with contextlib.suppress(ValueError):
                    self._active.remove(handle)
                answers += handle._forget()
                ended.append(handle)
            self._spent = None  # it knows who played
            self._call()
        for answer in answers:
            answer(None)
        _notify(ended)

    def _join_grid(self, session: Session) -> None:
        elapsed_s = self._clock() - self._origin_s
        session.tick = math.ceil(elapsed_s * self._fps)

    def _call(self) -> None:
        self._called = True
        self._wake.notify_all()

    def _find_start(self, start: str | Start | None) -> Start:
        return start if isinstance(start, Start) else self.world.find_start(start)

    def _known_steps(self, num_steps: int) -> int:
        known = self.world.config.denoising_steps
        if num_steps not in known:
            raise ReverieError(
                f"{num_steps!r} denoising steps; this world was trained for {list(known)}"
            )
        return num_steps


def check_replay(world: World, replay: Replay) -> None:
    """Raises ReverieError unless the replay is one of this world."""
    config = world.config
    if replay.fingerprint != world.fingerprint[: len(replay.fingerprint)] or not replay.fingerprint:
        raise ReverieError(
            f"the replay is of another world, or of other weights of it: {replay.world!r:.60}; "
            f"this one is {config.name!r}"
        )
    if replay.width != config.action_space.width:
        raise ReverieError(
            f"the replay has actions of width {replay.width}; expected {config.action_space.width}"
        )
    unknown = {k for _, k in replay.log} - set(config.denoising_steps)
    if unknown:
        raise ReverieError(
            f"the replay has {sorted(unknown)} denoising steps; {config.name} has "
            f"{list(config.denoising_steps)}"
        )


def _slot(handle: Handle) -> int:
    slot = handle._session.slot
    return -1 if slot is None else slot


def _notify(handles: Iterable[Handle]) -> None:
    for handle in handles:
        handle._notify()


def _seed(seed: int | None) -> int:
    if seed is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if not 0 <= seed < 2**64:
        raise ReverieError(f"seed is {seed}; expected a whole number from 0 to 2**64 - 1")
    return int(seed)


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
