"""One player's world, as values: the state machine, the action mailbox, and what the engine must
remember about a session between two frames. No networks, no sockets, no clock of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reverie.core import Action, ActionSpace, ReverieError

MAX_CARRIED_FRAMES = 6
"""A flick of the mouse may take this many frames to play out; what is beyond is dropped."""


class SessionState(Enum):
    """Where a session is in its life."""

    QUEUED = "queued"  # waits for a place
    WARMING = "warming"  # its slot is being filled with the start's frames, or with what was saved
    PLAYING = "playing"
    PAUSED = "paused"
    IDLE = "idle"  # plays, but nobody has steered it for a while: drawn less often
    LOST = "lost"  # nobody is there; kept for a while without a slot
    ENDED = "ended"


_ANYWHERE = {SessionState.QUEUED, SessionState.WARMING, SessionState.LOST, SessionState.ENDED}
"""Whoever holds a slot can lose the engine under it, start again, vanish, and leave."""
_NEXT = {
    SessionState.QUEUED: {SessionState.WARMING, SessionState.LOST, SessionState.ENDED},
    SessionState.WARMING: _ANYWHERE | {SessionState.PLAYING, SessionState.PAUSED},
    SessionState.PLAYING: _ANYWHERE | {SessionState.PAUSED, SessionState.IDLE},
    SessionState.PAUSED: _ANYWHERE | {SessionState.PLAYING},
    SessionState.IDLE: _ANYWHERE | {SessionState.PLAYING, SessionState.PAUSED},
    SessionState.LOST: {SessionState.QUEUED, SessionState.ENDED},
    SessionState.ENDED: set(),
}


class StateError(RuntimeError):
    """A session was asked to go where it cannot go from here."""


class FullError(ReverieError):
    """There is no room for another session now; ask again when one has ended."""


def transition(state: SessionState, new: SessionState) -> SessionState:
    """`new`, if a session may go there from `state`. Raises StateError that names both."""
    if new not in _NEXT[state]:
        raise StateError(f"a session that is {state.value} cannot become {new.value}")
    return new


class Reading(NamedTuple):
    """What a session does in one frame: float32 [A], and the newest action that it comes from."""

    vector: NDArray[np.float32]
    seq: int
    time_s: float


def check_action(vector: NDArray[np.floating], space: ActionSpace) -> None:
    """Raises ValueError on another shape than [A] and on numbers that are not finite."""
    if vector.shape != (space.width,):
        raise ValueError(f"action has shape {vector.shape}; expected ({space.width},)")
    if not np.isfinite(vector).all():
        raise ValueError("action has numbers that are not finite")


class ActionMailbox:
    """The newest action of one player. Nothing queues: a reading answers everything sent before it.

    Keys and slot are the newest ones, and a key that was tapped between two readings, pressed and
    released again, still counts as held in one of them. Camera turns are distances, so they add up
    until they are read; what exceeds the limit of one frame is carried to the next ones, up to
    `MAX_CARRIED_FRAMES` of them. Not thread-safe: the engine's lock guards it.
    """

    def __init__(self, space: ActionSpace) -> None:
        self._space = space
        self._keys = slice(0, len(space.keys))
        self._camera, self._attributes = space.camera_columns, space.attribute_columns
        self._newest = space.encode(Action())
        self._turn = np.zeros(self._camera.stop - self._camera.start, np.float64)
        self._tapped = np.zeros(len(space.keys), bool)
        self._held = np.zeros(len(space.keys), bool)
        self._seq = 0
        self._time_s = 0.0

    def put(self, vector: NDArray[np.floating], seq: int, time_s: float) -> bool:
        """An encoded action, [A]; its camera part may exceed the limit of one frame (1.0). What it
        says of attributes is left to `tell`. True where somebody steers: it differs from what was
        there before, or holds keys.

        Raises ValueError on another shape and on numbers that are not finite.
        """
        check_action(vector, self._space)
        attributes, before = self._newest[self._attributes], self._newest
        self._newest = vector.astype(np.float32)
        self._newest[self._attributes] = attributes
        self._tapped |= (self._newest[self._keys] > 0.5) & ~self._held
        limit = 1.0 + MAX_CARRIED_FRAMES
        self._turn = np.clip(self._turn + vector[self._camera], -limit, limit)
        self._seq, self._time_s = seq, time_s
        turned = bool(vector[self._camera].any())
        return turned or self.is_held or not np.array_equal(before, self._newest)

    @property
    def is_held(self) -> bool:
        """Whether any key is."""
        return bool((self._newest[self._keys] > 0.5).any())

    def tell(self, attributes: NDArray[np.float32]) -> None:
        """Attributes of all frames from now on, [k], as `ActionSpace.encode_attributes` gives."""
        self._newest[self._attributes] = attributes

    @property
    def attributes(self) -> NDArray[np.float32]:
        """As they are now, [k]."""
        return self._newest[self._attributes].copy()

    def read(self) -> Reading:
        """What to do in the next frame."""
        vector = self._newest.copy()
        self._held = vector[self._keys] > 0.5
        vector[self._keys][self._tapped] = 1.0
        self._tapped[:] = False
        turn = np.clip(self._turn, -1.0, 1.0)
        self._turn = self._turn - turn
        vector[self._camera] = turn
        return Reading(vector, self._seq, self._time_s)

    def clear(self) -> None:
        """Let go of everything, as a player does who pauses or starts again; seq, slot and
        attributes stay.
        """
        fresh = ActionMailbox(self._space)
        fresh._seq, fresh._time_s = self._seq, self._time_s
        fresh._newest[self._camera.stop :] = self._newest[self._camera.stop :]
        self.__dict__.update(fresh.__dict__)


@dataclass(slots=True)
class Session:
    """One player's world. Owned by the engine, changed under its lock.

    frame_index: of the next frame. slot: place in the runtime memory, None without. num_steps:
    denoising steps that the player asked for; num_granted: that it gets now. tick: position of the
    next frame on the engine's grid of 1/fps; every, offset: which ticks are its own (`next_tick`).
    is_drawn: its next frame is being drawn, by an action that was read already. steered_s: when
    somebody last did. change: how much the picture changed from frame to frame, of late.
    num_skipped: ticks that were left out because the engine was late.
    """

    session_id: str
    seed: int
    num_steps: int
    mailbox: ActionMailbox
    state: SessionState = SessionState.QUEUED
    reason: str = ""
    slot: int | None = None
    frame_index: int = 0
    num_granted: int = 1
    tick: int = 0
    every: int = 1
    offset: int = 0
    steered_s: float = 0.0
    change: float = 0.0
    num_skipped: int = 0
    is_drawn: bool = False

    def become(self, new: SessionState, reason: str = "") -> None:
        """Go to another state. Raises StateError if that is not possible from here."""
        self.state = transition(self.state, new)
        self.reason = reason
