"""The player's end of a session that plays in another process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reverie.core import Frame, ReverieError
from reverie.engine.handle import Prompted
from reverie.engine.mail import Act, Moment, SessionNews, log_of
from reverie.engine.opening import drawn_seed, find_start, known_steps
from reverie.engine.replay import ActionLog
from reverie.engine.saves import SavedSession
from reverie.session import SessionState, check_action
from reverie.world import Start, World

if TYPE_CHECKING:
    from reverie.engine.process import EngineProcess

logger = logging.getLogger(__name__)


class RemoteHandle:
    """What a `Handle` in an engine's process looks like from here. Its state is what the process
    said last, but for what was decided here: an end, a restart.

    kept: outlives the process, too.
    """

    def __init__(self, engine: EngineProcess, number: int, seed: int) -> None:
        self.state = SessionState.WARMING
        self.reason = ""
        self.refused = False
        self.seed = seed
        self.num_skipped = 0
        self.num_frames = 0
        self.device_s = 0.0
        self.kept: SavedSession | None = None
        self._engine = engine
        self._number = number
        self._num_begun = 0
        self._frame: Frame | None = None
        self._log = ActionLog()  # of the newest moment that was sent
        self._callbacks: list[Callable[[], None]] = []

    @property
    def session_id(self) -> str:
        return f"{self._number:06d}"

    def act(self, action: NDArray[np.floating], seq: int, time_s: float) -> None:
        """See `Handle.act`."""
        check_action(action, self._engine.world.config.action_space)
        if self.state is not SessionState.ENDED:
            self._engine._act(Act(self._number, action.astype(np.float32), seq, time_s))

    def take(self) -> Frame | None:
        """See `Handle.take`."""
        with self._engine._lock:
            frame, self._frame = self._frame, None
        return frame

    def on_frame(self, callback: Callable[[], None]) -> None:
        """See `Handle.on_frame`; called on the thread that reads from the process."""
        self._callbacks.append(callback)

    def set_steps(self, num_steps: int) -> None:
        """See `Handle.set_steps`."""
        self._send("set_steps", known_steps(self._engine.world, num_steps))

    def prompt(self, text: str, answer: Callable[[Prompted], None]) -> None:
        """See `Handle.prompt`. There is no answer where the session ends before it is known."""
        self._engine.world.understand(text)
        if self.state is SessionState.ENDED:
            raise ReverieError("the session has ended; start another")

        def tell(done: Prompted | None) -> None:
            if done is not None:
                answer(done)

        self._engine._ask(self, "prompt", tell, text)

    def save(self, answer: Callable[[SavedSession | None], None]) -> None:
        """See `Handle.save`."""
        self._engine._ask(self, "save", answer)

    def pause(self) -> None:
        """See `Handle.pause`."""
        self._send("pause")

    def resume(self) -> None:
        """See `Handle.resume`."""
        self._send("resume")

    def rewind(self, seconds: float) -> None:
        """See `Handle.rewind`."""
        self._send("rewind", seconds)

    def restart(self, start: str | Start | None = None, seed: int | None = None) -> None:
        """See `Handle.restart`."""
        world = self._engine.world
        start = None if start is None else portable(world, find_start(world, start))
        seed = drawn_seed(seed)
        with self._engine._lock:
            if self.state is SessionState.ENDED:
                return
            self.seed, self.state = seed, SessionState.WARMING
            self.kept = self._frame = None
            self._num_begun += 1
        self._send("restart", start, seed)
        self._notify()

    def close(self, reason: str = "closed") -> None:
        """See `Handle.close`."""
        self._engine._close(self, reason)
        with self._engine._lock:
            self.kept, self._log = None, ActionLog()

    def _send(self, name: str, *arguments: Any) -> None:
        if self.state is not SessionState.ENDED:
            self._engine._send(name, self._number, *arguments)

    # The process said something. All under the engine's lock.

    def _update(self, news: SessionNews) -> None:
        self.num_skipped, self.num_frames = news.num_skipped, news.num_frames
        self.device_s, self.refused = news.device_s, news.refused
        is_now = news.num_begun == self._num_begun
        if is_now:
            self._frame = news.frame or self._frame
            self.kept = news.kept or self.kept
        if is_now or news.state is SessionState.ENDED:
            self.state, self.reason = news.state, news.reason

    def _remember(self, moment: Moment) -> None:
        saved = moment.whole(self._log)
        self._log = log_of(saved)
        if moment.num_begun == self._num_begun:
            self.kept = saved

    def _end(self, reason: str) -> None:
        self.state, self.reason = SessionState.ENDED, reason
        self._frame = None

    def _notify(self) -> None:
        for callback in self._callbacks:
            try:
                callback()
            except Exception:  # a player's end that fails must not stop the others
                logger.exception("a callback of session %s failed", self.session_id)


def portable(world: World, start: Start) -> str | Start:
    """A start as it is told to another process: by name, where it is one of the world's."""
    return start.name if any(own is start for own in world.starts) else start
