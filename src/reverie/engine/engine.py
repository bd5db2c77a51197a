"""The running machine: one thread per device that does schedule -> run -> publish -> commit.

A player's way through it: `open` gives a `Handle`. The session waits for a slot (queued), its slot
is filled with the start's frames bit by bit in spare time (warming), then a frame is drawn at every
tick of a grid of exactly 1/fps on the monotonic clock (playing). Between the engine's thread and
everybody else there are only mailboxes with one element: the newest action goes in, the newest
frame comes out.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import count

import numpy as np

from reverie.core import Deadline, Frame, ReverieError
from reverie.engine.cache_pool import Slots
from reverie.engine.handle import Handle, Prompted
from reverie.engine.runtime import Batch, Runtime
from reverie.scheduler import Costs, Plan, Task, capacity, ladder, next_tick, rung, schedule
from reverie.session import ActionMailbox, Reading, Session, SessionState
from reverie.world import Start, World

MAX_WAITING = 64
PATIENCE_S = 0.25
"""A session that is warming gets its turn after this long, even if somebody's frame is late."""
RECHECK_S = 0.5
"""How often the engine looks whether there is room for those who wait, while nobody plays."""

logger = logging.getLogger(__name__)


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
        self._observed_s = 0.0  # up to when the costs have learned or rested
        self._limit = max(world.config.denoising_steps)
        self._wake = threading.Condition()
        self._called = False
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._ids = count(1)
        self._active: list[Handle] = []
        self._waiting: deque[Handle] = deque()
        self._uncommitted: list[int] = []

    # Life.

    def prepare(self) -> None:
        """Memory, warm-up and the cost table; `start` does it. A test then calls `tick` itself."""
        if self.runtime.num_slots == 0:
            self.runtime.allocate(self._num_slots)
        with self._wake:
            self.costs = Costs(self.runtime.cost_table())
            self._origin_s = self._observed_s = self._clock()

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
        self._end([*self._active, *self._waiting], "the engine stopped")

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
    def num_waiting(self) -> int:
        return len(self._waiting)

    def open(
        self,
        start: str | Start | None = None,
        seed: int | None = None,
        num_steps: int | None = None,
    ) -> Handle:
        """A new session, which waits in the queue if there is no room.

        start: name of one of the world's starts, or a clip of one's own; the first one without.
        seed: decides all chance in the session; drawn if not given. num_steps: denoising steps per
        frame; the fewest the world knows if not given. Raises ReverieError on a start or number of
        steps that the world does not have, and when the queue is full.
        """
        config = self.world.config
        steps = self._known_steps(min(config.denoising_steps) if num_steps is None else num_steps)
        session = Session(
            f"{next(self._ids):06d}", _seed(seed), steps, ActionMailbox(config.action_space)
        )
        handle = Handle(self, session, self._find_start(start))
        self._forget_prompts(handle)
        with self._wake:
            if self._stopping:
                raise ReverieError("the engine has stopped")
            if len(self._waiting) >= MAX_WAITING:
                raise ReverieError(f"{MAX_WAITING} players are waiting already; try again later")
            self._waiting.append(handle)
            self._admit()
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
            self._rest(now_s)
            changed = self._admit()
            tasks = self._tasks()
        _notify(changed)
        plan = schedule(tasks, now_s, self.costs)
        opens_s = min((task.opens_s for task in tasks), default=math.inf)
        if plan is not None:
            # While a frame is due, this warms only whoever waited for longer than PATIENCE_S.
            if not self._warm(now_s, opens_s):
                self._play(plan)
        elif self._uncommitted:
            self._commit(self._uncommitted)
        elif not self._warm(now_s, opens_s):
            if opens_s < math.inf:
                return max(opens_s - self._clock(), 0.0)
            return RECHECK_S if self._waiting and self.costs.slowdown > 1 else None
        return 0.0

    def _run(self) -> None:
        while not self._stopping:
            try:
                wait_s = self.tick()
            except Exception as error:  # a bug outside of any one session
                logger.exception("the engine failed")
                self._end([*self._active, *self._waiting], f"the engine failed: {_line(error)}")
                wait_s = 0.1
            if wait_s == 0.0:
                continue
            with self._wake:
                if not (self._called or self._stopping):
                    self._wake.wait(wait_s)
                self._called = False

    def _rest(self, now_s: float) -> None:
        """While nobody plays nothing is measured, and an old slowdown must not keep players out."""
        assert self.costs is not None
        if not any(handle.state is SessionState.PLAYING for handle in self._active):
            self.costs.rest(now_s - self._observed_s)
            self._observed_s = now_s

    def _tasks(self) -> list[Task]:
        """The next frame of every session that plays."""
        assert self.costs is not None
        playing = [h._session for h in self._active if h.state is SessionState.PLAYING]
        requested = [session.num_steps for session in playing]
        self._limit = ladder(requested, self._limit, self._fps, self.costs)
        tasks = []
        for session in playing:
            opens_s = self._origin_s + session.tick / self._fps
            deadline = Deadline(self._origin_s + (session.tick + 1) / self._fps, session.session_id)
            tasks.append(Task(deadline, opens_s, rung(session.num_steps, self._limit, self.costs)))
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
        self._publish(handles, frames)
        self.costs.observe(len(handles), plan.num_steps, (finished_s - started_s) * 1000)
        self._observed_s = finished_s

    def _read(
        self, handles: Sequence[Handle], num_steps: int
    ) -> tuple[list[Handle], Batch | None, list[Reading]]:
        """The batch with the newest actions, of those handles that still play."""
        with self._wake:
            handles = [h for h in handles if h.state is SessionState.PLAYING]
            if not handles:
                return [], None, []
            sessions = [handle._session for handle in handles]
            readings = [session.mailbox.read() for session in sessions]
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

    def _publish(self, handles: Sequence[Handle], frames: Sequence[Frame]) -> None:
        published = []
        with self._wake:
            for handle, frame in zip(handles, frames, strict=True):
                session = handle._session
                session.is_drawn = False
                if session.state not in (SessionState.PLAYING, SessionState.PAUSED):
                    continue  # ended or restarted while its frame was drawn
                session.frame_index += 1
                started_s, finished_s = (
                    t - self._origin_s for t in (frame.started_s, frame.finished_s)
                )
                tick = next_tick(session.tick, started_s, finished_s, self._fps)
                session.num_skipped += tick - session.tick - 1
                session.tick = tick
                handle._frame = frame
                published.append(handle)
        _notify(published)

    def _commit(self, slots: Sequence[int]) -> None:
        slots = tuple(slots)
        self._uncommitted = [slot for slot in self._uncommitted if slot not in slots]
        try:
            self.runtime.commit(slots)
        except Exception as error:
            logger.exception("a commit failed")
            failed = [h for h in self._active if h._session.slot in slots]
            self._end(failed, f"remembering a frame failed: {_line(error)}")

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
            epoch, slot, seed = handle._epoch, _slot(handle), session.seed
        frame, action = clip.frames[i : i + 1], clip.actions[i : i + 1]
        try:
            first = i - len(clip.frames)
            self.runtime.prefill(slot, frame, action, seed, first, clip.pitch_deg)
        except Exception as error:
            logger.exception("a prefill failed")
            self._end([handle], f"preparing the start failed: {_line(error)}")
            return True
        with self._wake:
            handle._warmed_s = self._clock()
            if session.state is not SessionState.WARMING or handle._epoch != epoch:
                return True  # closed or restarted meanwhile
            handle._num_warmed += 1
            if handle._num_warmed < len(clip.frames):
                return True
            session.become(SessionState.PAUSED if handle._wants_pause else SessionState.PLAYING)
            self._join_grid(session)
        handle._notify()
        return True

    # What handles ask for. All under the lock; callbacks after it.

    def _pause(self, handle: Handle, wants_pause: bool) -> None:
        old, new = SessionState.PLAYING, SessionState.PAUSED
        if not wants_pause:
            old, new = new, old
        with self._wake:
            handle._wants_pause = wants_pause
            if handle.state is not old:
                return
            handle._session.become(new)
            handle._session.mailbox.clear()
            self._join_grid(handle._session)
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
            if session.state is not SessionState.QUEUED:
                self._begin_warming(handle)
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

    def _begin_warming(self, handle: Handle) -> None:
        session = handle._session
        if session.state is not SessionState.WARMING:
            session.become(SessionState.WARMING)
        session.mailbox.clear()
        session.frame_index, session.is_drawn = 0, False
        handle._frame, handle._num_warmed = None, 0
        handle._warmed_s = self._clock()
        handle._epoch += 1

    def _end(self, handles: Sequence[Handle], reason: str) -> None:
        ended = []
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
                with contextlib.suppress(ValueError):
                    self._waiting.remove(handle)
                ended.append(handle)
            changed = [*self._waiting, *self._admit()]  # others moved up
            self._call()
        _notify([*ended, *changed])

    def _admit(self) -> list[Handle]:
        """Give free slots to those who wait longest. Returns whose state or position changed."""
        if not self._waiting or not self._slots.can_allocate():
            return []
        before = len(self._waiting)
        changed = list(self._waiting)
        room = self.capacity
        while self._waiting and len(self._active) < room and self._slots.can_allocate():
            handle = self._waiting.popleft()
            handle._session.slot = self._slots.allocate()
            self._active.append(handle)
            self._begin_warming(handle)
        return changed if len(self._waiting) < before else []

    def _join_grid(self, session: Session) -> None:
        elapsed_s = self._clock() - self._origin_s
        session.tick = math.ceil(elapsed_s * self._fps)

    def _call(self) -> None:
        self._called = True
        self._wake.notify_all()

    def _position(self, handle: Handle) -> int | None:
        with self._wake:
            if handle not in self._waiting:
                return None
            return self._waiting.index(handle) + 1

    def _find_start(self, start: str | Start | None) -> Start:
        return start if isinstance(start, Start) else self.world.find_start(start)

    def _known_steps(self, num_steps: int) -> int:
        known = self.world.config.denoising_steps
        if num_steps not in known:
            raise ReverieError(
                f"{num_steps!r} denoising steps; this world was trained for {list(known)}"
            )
        return num_steps


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
