"""The player's end of a session: newest action in, newest frame out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reverie.core import Frame
from reverie.session import Session, SessionState
from reverie.world import Start

if TYPE_CHECKING:
    from reverie.engine.engine import Engine

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
    def position(self) -> int | None:
        """Place in the waiting queue, from 1; None once the session has a slot."""
        return self._engine._position(self)

    def act(self, action: NDArray[np.floating], seq: int, time_s: float) -> None:
        """The player's newest action: an encoded vector [A] whose camera part may exceed 1.

        seq: of the action, echoed by the frame that answers it. time_s: monotonic, of its arrival.
        Raises ValueError on another shape and on numbers that are not finite.
        """
        with self._engine._wake:
            self._session.mailbox.put(action, seq, time_s)

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

    def set_steps(self, num_steps: int) -> None:
        """Denoising steps per frame, one of the world's. Raises ReverieError on another number."""
        self._session.num_steps = self._engine._known_steps(num_steps)

    def prompt(self, text: str) -> Prompted:
        """Have the world be as the text says, from the next frame on; what it does not name stays.

        Raises ReverieError, with what can be wished for, where it asks for nothing the world knows,
        and where the session has ended.
        """
        return self._engine._prompt(self, text)

    def pause(self) -> None:
        """Stand still, keeping the slot. A session that is not playing yet pauses when it would."""
        self._engine._pause(self, True)

    def resume(self) -> None:
        self._engine._pause(self, False)

    def restart(self, start: str | Start | None = None, seed: int | None = None) -> None:
        """Begin again, from another start if given. Raises ReverieError if there is none such."""
        self._engine._restart(self, start, seed)

    def close(self, reason: str = "closed") -> None:
        """Give the slot to the next in the queue. A second time does nothing."""
        self._engine._end([self], reason)

    def _notify(self) -> None:
        for callback in self._callbacks:
            try:
                callback()
            except Exception:  # a player's end that fails must not stop the others
                logger.exception("a callback of session %s failed", self.session_id)
