"""The player's end of a session: newest action in, newest frame out."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reverie.core import Frame, ReverieError
from reverie.engine.opening import drawn_seed, find_start, known_steps
from reverie.engine.replay import ActionLog, Replay
from reverie.engine.saves import SavedSession
from reverie.session import Reading, Session, SessionState
from reverie.world import Start

if TYPE_CHECKING:
    from reverie.engine.engine import Engine

DRAWN = (SessionState.PLAYING, SessionState.IDLE)
"""States of a session that frames are drawn for."""
HISTORY_S = 10
"""How far back a player can go: one moment is kept for each of these seconds."""
_PATIENCE_S = 0.1
"""Whoever asks for a snapshot gets it after this long, even if somebody's frame is late."""
_KEEP_S = 0.5
_KEEP_BUSY_S = 0.85
"""A moment is kept after this much play when there is time; after that much, even if there is none.
So what would be lost with the engine is less than a second.
"""
_NOWHERE = Start("", "", np.zeros((0, 0, 0, 3), np.uint8), np.zeros((0, 0), np.float32))
"""Where a session that ended began: the clip may have been the player's own."""

logger = logging.getLogger(__name__)


class Prompted(NamedTuple):
    """What a prompt did: the attributes it set, and the index of the first frame to show them."""

    attributes: dict[str, str]
    frame_index: int


class Handle:
    """One session, for whoever holds the player's end. Every method returns at once, any thread."""

    def __init__(self, engine: Engine, session: Session, start: Start) -> None:
        self._engine = engine
        self._session = session
        self._start = start
        self._frame: Frame | None = None
        self._callbacks: list[Callable[[], None]] = []
        self._wants_pause = False
        self._num_warmed = 0  # frames of the start that are in the slot already
        self._warmed_s = 0.0  # when the last of them was put there
        self._epoch = 0  # counts beginnings, so that work for an older one is recognised
        self._saved: SavedSession | None = None  # to be restored, instead of the start
        self._script: deque[tuple[NDArray[np.float32], int]] = deque()  # of a replay, yet to come
        self._log = ActionLog()
        self._moments: deque[SavedSession] = deque(maxlen=HISTORY_S + 1)
        self._newest: Frame | None = None
        self._answers: list[Callable[[SavedSession | None], None]] = []  # who asked for a snapshot
        self._asked_s = 0.0
        self._kept: SavedSession | None = None
        self._unkept_s: float | None = None  # when the first frame was drawn that is not in it
        self._on_kept: list[Callable[[], None]] = []
        self.num_frames = 0
        """Drawn for this session so far."""
        self.device_s = 0.0
        """Its share of the device's time: of a batch of b, a b-th part."""
        self.refused = False
        """Ended before it began, because the place was gone; only behind a process."""

    @property
    def state(self) -> SessionState:
        return self._session.state

    @property
    def reason(self) -> str:
        """Why the session ended; empty while it goes on."""
        return self._session.reason

    @property
    def session_id(self) -> str:
        return self._session.session_id

    @property
    def seed(self) -> int:
        return self._session.seed

    @property
    def num_skipped(self) -> int:
        """Frames that were left out because the engine was late."""
        return self._session.num_skipped

    @property
    def kept(self) -> SavedSession | None:
        """The newest moment, less than a second of play old. Still there after an end that nobody
        asked for, so that the session can go on elsewhere.
        """
        return self._kept

    def act(self, action: NDArray[np.floating], seq: int, time_s: float) -> None:
        """The player's newest action: an encoded vector [A] whose camera part may exceed 1.

        seq: of the action, echoed by the frame that answers it. time_s: monotonic, of its arrival.
        Raises ValueError on another shape and on numbers that are not finite.
        """
        engine, session = self._engine, self._session
        with engine._wake:
            if not session.mailbox.put(action, seq, time_s):
                return
            session.steered_s = engine._clock()
            if session.state is not SessionState.IDLE:
                return
            session.become(SessionState.PLAYING)
            self._join_grid()
        self._notify()

    def take(self) -> Frame | None:
        """The newest frame that nobody took yet; older ones are gone."""
        with self._engine._wake:
            frame, self._frame = self._frame, None
        return frame

    def on_frame(self, callback: Callable[[], None]) -> None:
        """Call this when there is something new: a frame to take, another state or position.

        It is called on the engine's thread, or on the thread that changed the state: be quick.
        """
        self._callbacks.append(callback)

    def on_kept(self, callback: Callable[[], None]) -> None:
        """Call this when `kept` is another moment; on the engine's thread: be quick."""
        self._on_kept.append(callback)

    def set_steps(self, num_steps: int) -> None:
        """Denoising steps per frame, one of the world's. Raises ReverieError on another number."""
        self._session.num_steps = known_steps(self._engine.world, num_steps)

    def prompt(self, text: str, answer: Callable[[Prompted], None]) -> None:
        """Have the world be as the text says, from the next frame on; what it does not name stays.

        answer: called with what that did, on whatever thread knows. Raises ReverieError, with what
        can be wished for, where it asks for nothing the world knows, and where the session has
        ended.
        """
        engine, session = self._engine, self._session
        wished, space = engine.world.understand(text), engine.world.config.action_space
        with engine._wake:
            if session.state is SessionState.ENDED:
                raise ReverieError("the session has ended; start another")
            now = space.decode_attributes(session.mailbox.attributes) | wished
            session.mailbox.tell(space.encode_attributes(now))
            done = Prompted(wished, session.frame_index + session.is_drawn)
        answer(done)

    def pause(self) -> None:
        """Stand still, keeping the slot. A session that is not playing yet pauses when it would."""
        self._pause(True)

    def resume(self) -> None:
        self._pause(False)

    def restart(self, start: str | Start | None = None, seed: int | None = None) -> None:
        """Begin again, from another start if given. Raises ReverieError if there is none such."""
        clip = self._start if start is None else find_start(self._engine.world, start)
        with self._engine._wake:
            if self.state is SessionState.ENDED:
                return
            self._start, self._session.seed = clip, drawn_seed(seed)
            self._forget_prompts()
            self._begin()
        self._notify()

    def rewind(self, seconds: float) -> None:
        """Go back by this long, as far as is remembered, to the nearest second before."""
        engine = self._engine
        with engine._wake:
            if self.state not in (*DRAWN, SessionState.PAUSED):
                return
            fps = engine.world.config.fps
            saved = self._moment(self._session.frame_index - round(seconds * fps))
            if saved is None:
                return
            self._begin(saved)
        self._notify()

    def save(self, answer: Callable[[SavedSession | None], None]) -> None:
        """Have `answer` called with the session as it is, on the engine's thread; with None if it
        has drawn nothing yet, or has ended.
        """
        engine = self._engine
        with engine._wake:
            is_there = self._newest is not None
            if is_there:
                if not self._answers:  # who asks again and again is not served later for it
                    self._asked_s = engine._clock()
                self._answers.append(answer)
                engine._call()
        if not is_there:
            answer(None)

    def close(self, reason: str = "closed") -> None:
        """Give the slot to others, and drop everything. A second time does nothing."""
        self._engine._end([self], reason)
        self._kept = None

    def _notify(self, callbacks: Sequence[Callable[[], None]] | None = None) -> None:
        for callback in self._callbacks if callbacks is None else callbacks:
            try:
                callback()
            except Exception:  # a player's end that fails must not stop the others
                logger.exception("a callback of session %s failed", self.session_id)

    def _pause(self, wants_pause: bool) -> None:
        old, new = DRAWN, SessionState.PAUSED
        if not wants_pause:
            old, new = (SessionState.PAUSED,), SessionState.PLAYING
        engine, session = self._engine, self._session
        with engine._wake:
            self._wants_pause = wants_pause
            if session.state not in old:
                return
            session.become(new)
            session.mailbox.clear()
            session.steered_s = engine._clock()
            self._join_grid()
        self._notify()

    # The engine's side. All under its lock.

    def _begin(self, saved: SavedSession | None = None, replay: Replay | None = None) -> None:
        """Have the slot warmed: from the start, or from what was saved."""
        session = self._session
        if session.state is not SessionState.WARMING:
            session.become(SessionState.WARMING)
        session.mailbox.clear()
        session.frame_index, session.is_drawn = 0, False
        self._frame, self._num_warmed, self._saved = None, 0, saved
        self._warmed_s = session.steered_s = self._engine._clock()
        self._epoch += 1
        self._script.clear()
        self._kept = self._unkept_s = None
        if saved is None:
            self._newest, self._log = None, ActionLog()
            self._moments.clear()
            self._script.extend(replay.log if replay else ())
        else:
            space = self._engine.world.config.action_space
            session.frame_index = saved.frame_index
            session.mailbox.tell(space.encode_attributes(saved.attributes))
            self._go_on_from(saved)
            # A moment of the history has no log: it would be copied once a second.
            self._kept = saved if saved.replay else replace(saved, replay=self._replay())
        self._engine._call()

    def _join_grid(self) -> None:
        """From the next tick on."""
        self._session.every, self._session.tick = 1, self._engine._next_tick()
        self._engine._call()

    def _forget_prompts(self) -> None:
        """The world is as it is in the start's last frame."""
        columns = self._engine.world.config.action_space.attribute_columns
        self._session.mailbox.tell(self._start.actions[-1, columns])

    def _publish(self, frame: Frame, vector: NDArray[np.float32]) -> None:
        self._frame = self._newest = frame
        if self._unkept_s is None:
            self._unkept_s = frame.finished_s
        self._log.append(vector, frame.num_steps)

    def _fits(self, num_steps: int) -> bool:
        """Whether it may be drawn in so many steps: a replay, only in as many as it was."""
        return not self._script or self._script[0][1] == num_steps

    def _read(self) -> Reading:
        reading = self._session.mailbox.read()
        if not self._script:
            return reading
        vector, _ = self._script.popleft()
        if not self._script:  # the world stays as it is, and the player goes on
            columns = self._engine.world.config.action_space.attribute_columns
            self._session.mailbox.clear()
            self._session.mailbox.tell(vector[columns])
        return reading._replace(vector=vector)

    def _is_kept(self, fps: float, now_s: float, is_busy: bool) -> bool:
        """Whether a snapshot is due, for whoever asked or for the moment of a second."""
        session = self._session
        if session.state is SessionState.WARMING or self._newest is None or session.is_drawn:
            return False
        if self._answers:
            return not is_busy or now_s - self._asked_s > _PATIENCE_S
        if self._unkept_s is None:
            return False
        last = self._moments[-1].frame_index if self._moments else -fps
        if not is_busy and session.frame_index - last >= fps:
            return True
        return now_s - self._unkept_s >= (_KEEP_BUSY_S if is_busy else _KEEP_S)

    @property
    def _waits_s(self) -> float:
        """Since when a snapshot is wanted."""
        return self._asked_s if self._answers else self._unkept_s or 0.0

    def _moment(self, frame_index: int) -> SavedSession | None:
        """The newest moment that is not after this frame, or else the oldest."""
        before = [saved for saved in self._moments if saved.frame_index <= frame_index]
        return before[-1] if before else self._moments[0] if self._moments else None

    def _go_on_from(self, saved: SavedSession) -> None:
        """What follows it is forgotten; what came before it stays, where it was here."""
        if saved in self._moments:
            self._log.truncate(saved.frame_index)
        else:
            self._log = saved.replay.log.copy() if saved.replay else ActionLog()
            self._log.whole &= len(self._log) == saved.frame_index
        while self._moments and self._moments[-1].frame_index > saved.frame_index:
            self._moments.pop()
        if saved.frame_index:
            self._newest = self._frame = Frame(saved.frame, saved.frame_index - 1)

    def _forget(self) -> list[Callable[[SavedSession | None], None]]:
        """Drop everything of the player but `kept`. Returns who still waits for a snapshot."""
        self._newest = self._frame = self._saved = self._unkept_s = None
        self._start = _NOWHERE
        self._log = ActionLog()
        self._moments.clear()
        self._script.clear()
        answers, self._answers = self._answers, []
        return answers

    def _replay(self) -> Replay | None:
        """What was done so far; None where that does not tell the whole session: one that began in
        a picture, or lasted too long.
        """
        world = self._engine.world
        if not self._log.whole or self._start not in world.starts:
            return None
        return Replay(
            world.config.name,
            world.fingerprint[:16],
            self._engine.runtime.kind,
            self._start.name,
            self._session.seed,
            world.config.action_space.width,
            self._log.copy(),
        )

    def _remember(self, snapshot: bytes) -> list[Callable[[], None]]:
        """Keep the moment. Returns the calls that answer who asked."""
        session = self._session
        if self._newest is None or session.state is SessionState.ENDED:
            return []
        columns = self._engine.world.config.action_space
        saved = SavedSession(
            session.seed,
            session.num_steps,
            session.frame_index,
            columns.decode_attributes(session.mailbox.attributes),
            self._newest.pixels,
            snapshot,
        )
        last = self._moments[-1].frame_index if self._moments else -math.inf
        if session.frame_index - last >= self._engine.world.config.fps:
            self._moments.append(saved)
        self._kept, self._unkept_s = replace(saved, replay=self._replay()), None
        answers, self._answers = self._answers, []
        return [partial(answer, self._kept) for answer in answers]
