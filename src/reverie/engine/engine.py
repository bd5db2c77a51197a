"""The running machine: one thread per device that does schedule -> run -> publish -> commit.

A player's way through it: `open` gives a `Handle`, if there is room. Its slot is filled (warming):
with what was saved, or with the start's frames bit by bit in spare time, which is done once for a
start of the world's and remembered. Then a frame is drawn at every tick of a grid of exactly 1/fps
on the monotonic clock (playing). Between the engine's thread and everybody else there are only
mailboxes with one element: the newest action goes in, the newest frame comes out.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import count

import numpy as np

from reverie.core import Frame
from reverie.engine.cache_pool import Slots
from reverie.engine.handle import DRAWN, Handle
from reverie.engine.machine import resident_bytes
from reverie.engine.opening import START_SEED, check_opening
from reverie.engine.pace import EngineStatus, Pace, demand
from reverie.engine.replay import Replay
from reverie.engine.runtime import Batch, Runtime
from reverie.engine.saves import SavedSession
from reverie.engine.stages import StageTimes
from reverie.scheduler import Costs, Demand, Plan, capacity, has_room, next_tick, schedule
from reverie.session import ActionMailbox, FullError, Reading, Session, SessionState
from reverie.world import Start, World

PATIENCE_S = 0.25
"""A session that is warming gets its turn after this long, even if somebody's frame is late."""
SMOOTHING = 0.1
"""Part of a session's `change` that is its newest frame's."""

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
        self.on_death: Callable[[str], None] | None = None
        """As behind a process (`EngineProcess`); a thread does not die."""
        self.on_room: Callable[[], None] | None = None
        self.loads_quietly = False
        self.pid: int | None = None
        self.costs: Costs | None = None
        self._num_slots = num_slots
        self._slots = Slots(num_slots)
        self._clock = clock
        self._fps = float(world.config.fps)
        self._origin_s = 0.0
        self._pace: Pace | None = None
        self._busy_until_s = self._occupied_until_s = 0.0
        self._wake = threading.Condition()
        self._called = False
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._ids = count(1)
        self._active: list[Handle] = []
        self._uncommitted: list[int] = []
        self._remembered: dict[str, bytes] = {}  # snapshots of the world's starts, by name
        self._times = StageTimes()
        self._num_frames = 0
        self._num_late = 0

    # Life.

    def prepare(self) -> None:
        """Memory, warm-up and the cost table; `start` does it. A test then calls `tick` itself."""
        if self.runtime.num_slots == 0:
            self.runtime.allocate(self._num_slots)
        _ = self.world.fingerprint  # of every byte of the weights: not in the middle of play
        with self._wake:
            self.costs = Costs(self.runtime.cost_table())
            self._origin_s = self._busy_until_s = self._clock()
            self._pace = Pace(self._fps, self.costs, self._origin_s)

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
    def kind(self) -> str:
        """Of its runtime."""
        return self.runtime.kind

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
        holders = [demand(handle) for handle in self._active]
        newcomer = Demand(min(self.world.config.denoising_steps))
        return has_room(holders, newcomer, self._fps, self.costs)

    @property
    def status(self) -> EngineStatus:
        """As it was at the newest tick, with the places as they are now."""
        with self._wake:
            places = (self.capacity, len(self._active), self.has_room)
            now = EngineStatus() if self._pace is None else self._pace.status
            granted = Counter(
                handle._session.num_granted for handle in self._active if handle.state in DRAWN
            )
        return replace(
            now,
            capacity=places[0],
            num_active=places[1],
            has_room=places[2],
            granted=dict(granted),
            busy_s=self._times.busy_s,
            stages=self._times.histograms(),
            num_frames=self._num_frames,
            num_late=self._num_late,
            memory_bytes=resident_bytes(),
        )

    def open(
        self,
        start: str | Start | None = None,
        seed: int | None = None,
        num_steps: int | None = None,
        saved: SavedSession | None = None,
        replay: Replay | None = None,
        paused: bool = False,
        admitted: bool = False,
    ) -> Handle:
        """A new session, in a place of its own.

        start: name of one of the world's starts, or a clip of one's own; the first one without.
        seed: decides all chance in the session; drawn if not given. num_steps: denoising steps per
        frame; the fewest the world knows if not given. saved: go on from there instead. replay:
        play this first, frame by frame, then the player. paused: before the first frame. admitted:
        by an engine that died: a free slot is enough, whatever the costs say, which were measured
        while others played. Raises FullError when there is no room, and ReverieError on a start,
        number of steps or replay that the world does not have.
        """
        opening = check_opening(self.world, start, seed, num_steps, saved, replay)
        mailbox = ActionMailbox(self.world.config.action_space)
        session = Session(f"{next(self._ids):06d}", opening.seed, opening.num_steps, mailbox)
        handle = Handle(self, session, opening.start)
        handle._wants_pause = paused
        handle._forget_prompts()
        with self._wake:
            if self._stopping:
                raise FullError("the engine has stopped")
            if not (self.has_room or (admitted and self._slots.can_allocate())):
                raise FullError("every place is taken")
            session.slot = self._slots.allocate()
            self._active.append(handle)
            handle._begin(opening.saved, opening.replay)
        return handle  # nobody listens yet, so nobody is told

    # One unit of work: schedule -> run -> publish; commits and warming fill the time between.

    def tick(self) -> float | None:
        """Do the most urgent thing there is, if any.

        Returns seconds until there is something to do again: 0 when this did something, None when
        nothing will ever be due unless somebody calls.
        """
        assert self.costs is not None, "prepare the engine first"
        assert self._pace is not None
        with self._wake:
            now_s = self._clock()
            changed = self._pace.begin_period(self._active, now_s)
            tasks = self._pace.tasks(self._active)
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
        finished_s = self._spend("draw", started_s, handles)
        self._uncommitted.extend(batch.slots)
        frames = [
            Frame(pixels, i, reading.seq, reading.time_s, started_s, finished_s, plan.num_steps)
            for pixels, i, reading in zip(pictures, batch.frame_indices, readings, strict=True)
        ]
        changes = self.runtime.changes(batch.slots)
        self._publish(handles, frames, batch, changes)
        self.costs.observe(len(handles), plan.num_steps, (finished_s - began_s) * 1000)
        self._occupy(began_s)

    def _read(
        self, handles: Sequence[Handle], num_steps: int
    ) -> tuple[list[Handle], Batch | None, list[Reading]]:
        """The batch with the newest actions, of those handles that still play."""
        with self._wake:
            handles = [h for h in handles if h.state in DRAWN and h._fits(num_steps)]
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
                if session.state not in (*DRAWN, SessionState.PAUSED):
                    continue  # ended or restarted while its frame was drawn
                session.frame_index += 1
                self._count(handle, frame)
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

    def _count(self, handle: Handle, frame: Frame) -> None:
        handle.num_frames += 1
        self._num_frames += 1
        due_s = self._origin_s + (handle._session.tick + 1) / self._fps
        self._num_late += frame.finished_s > due_s

    def _spend(self, stage: str, began_s: float, handles: Sequence[Handle]) -> float:
        """The device was busy with this for these sessions, until now. Returns now."""
        self._busy_until_s = now_s = self._clock()
        self._times.observe(stage, now_s - began_s)
        for handle in handles:
            handle.device_s += (now_s - began_s) / len(handles)
        return now_s

    def _occupy(self, began_s: float) -> None:
        """From then on until now nothing else could be done, as far as that is not said yet."""
        assert self.costs is not None
        now_s = self._clock()
        self.costs.occupy((now_s - max(began_s, self._occupied_until_s)) * 1000)
        self._occupied_until_s = now_s

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
        sharing = [handle for handle in [*self._active] if handle._session.slot in slots]
        finished_s = self._spend("commit", began_s, sharing)
        assert self.costs is not None
        self.costs.observe(len(slots), 0, (finished_s - began_s) * 1000)
        self._occupy(began_s)

    def _keep(self, now_s: float, is_busy: bool = False) -> bool:
        """Take the snapshot that has been wanted for longest: because somebody asked for it, or so
        that no more than a second of play can be lost.
        """
        with self._wake:
            asked = [h for h in self._active if h._is_kept(self._fps, now_s, is_busy)]
            if not asked:
                return False
            handle = min(asked, key=lambda handle: handle._waits_s)
            slot, epoch = _slot(handle), handle._epoch
        began_s = self._clock()
        try:
            snapshot = self.runtime.snapshot(slot)
        except Exception as error:
            logger.exception("a snapshot failed")
            self._end([handle], f"remembering the session failed: {_line(error)}")
            return True
        with self._wake:
            answers = handle._remember(snapshot) if handle._epoch == epoch else []
            self._spend("snapshot", began_s, [handle])
        handle._notify(handle._on_kept)
        for answer in answers:
            answer()
        self._occupy(began_s)
        return True

    def _warm(self, now_s: float, opens_s: float) -> bool:
        """Restore what a session that is warming begins with, or prefill one frame of it, if there
        is time before the next tick.
        """
        assert self.costs is not None
        with self._wake:
            warming = [h for h in self._active if h.state is SessionState.WARMING]
            if not warming:
                return False
            handle = min(warming, key=lambda h: h._warmed_s)
            clip, ready = handle._start, self._ready(handle)
            is_remembered = ready is not None and handle._saved is None
            frame_ms = 0.0 if is_remembered else self.costs.frame_ms(1, self.costs.steps[0])
            if opens_s - now_s < frame_ms / 1000 and now_s - handle._warmed_s < PATIENCE_S:
                return False
            session, i = handle._session, handle._num_warmed
            epoch, slot = handle._epoch, _slot(handle)
        frame, action = clip.frames[i : i + 1], clip.actions[i : i + 1]
        began_s = self._clock()
        try:
            if ready is not None:
                self.runtime.restore(slot, ready)
            else:
                first = i - len(clip.frames)
                self.runtime.prefill(slot, frame, action, START_SEED, first, clip.pitch_deg)
                if first == -1 and self._is_own(clip):
                    self._remembered[clip.name] = self.runtime.snapshot(slot)
        except Exception as error:
            logger.exception("a prefill failed")
            self._end([handle], f"preparing the start failed: {_line(error)}")
            return True
        with self._wake:
            handle._warmed_s = self._spend("warm", began_s, [handle])
            if session.state is not SessionState.WARMING or handle._epoch != epoch:
                return True  # closed or restarted meanwhile
            handle._num_warmed += 1
            if ready is None and handle._num_warmed < len(clip.frames):
                return True
            handle._saved = None
            session.become(SessionState.PAUSED if handle._wants_pause else SessionState.PLAYING)
            handle._join_grid()
        handle._notify()
        return True

    def _ready(self, handle: Handle) -> bytes | None:
        """The snapshot that the session begins with, where there is one."""
        if handle._saved is not None:
            return handle._saved.snapshot
        clip = handle._start
        return self._remembered.get(clip.name) if self._is_own(clip) else None

    def _is_own(self, clip: Start) -> bool:
        return any(clip is start for start in self.world.starts)

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
            self._call()
        for answer in answers:
            answer(None)
        _notify(ended)

    def _next_tick(self) -> int:
        """Of the grid, that is not open yet."""
        return math.ceil((self._clock() - self._origin_s) * self._fps)

    def _call(self) -> None:
        self._called = True
        self._wake.notify_all()


def _slot(handle: Handle) -> int:
    slot = handle._session.slot
    return -1 if slot is None else slot


def _notify(handles: Iterable[Handle]) -> None:
    for handle in handles:
        handle._notify()


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
