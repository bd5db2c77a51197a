"""What travels between the server and an engine's process, and the box in which it waits.

Nothing piles up: while the other side does not read, actions of a session become one, and frames
and moments replace each other before they are packed.
"""

from __future__ import annotations

import pickle
import threading
from collections import deque
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reverie.core import ActionSpace, Frame
from reverie.engine.pace import EngineStatus
from reverie.engine.replay import ActionLog, LogGrowth
from reverie.engine.saves import SavedSession
from reverie.session import MAX_CARRIED_FRAMES, SessionState
from reverie.world import World


class Ready(NamedTuple):
    """The engine is loaded."""

    world: World
    kind: str
    status: EngineStatus


class Failed(NamedTuple):
    """It never will be, and why."""

    line: str


class SessionNews(NamedTuple):
    """What became of a session, all as it is now. frame: the newest that was not sent yet.
    num_begun: restarts so far, so that what is from before one is recognised. kept: only of a
    session that has ended; see `Moment`.
    """

    number: int
    num_begun: int
    state: SessionState
    reason: str
    refused: bool = False
    num_skipped: int = 0
    num_frames: int = 0
    device_s: float = 0.0
    frame: Frame | None = None
    kept: SavedSession | None = None


class News(NamedTuple):
    """Of sessions, answers by the number of who asked, and the engine itself. num_moves: sessions
    opened and closed that `status` knows of.
    """

    sessions: list[SessionNews]
    answers: list[tuple[int, Any]]
    status: EngineStatus | None
    num_moves: int


@dataclass(frozen=True, slots=True)
class Moment:
    """The newest moment of a session. Of its log, which is the whole session, only what is new
    since the moment that was sent before: see `ActionLog.since`.
    """

    number: int
    num_begun: int
    saved: SavedSession
    growth: LogGrowth | None

    @classmethod
    def after(cls, log: ActionLog, number: int, num_begun: int, saved: SavedSession) -> Moment:
        """log: of the moment before, or an empty one."""
        if saved.replay is None:
            return cls(number, num_begun, saved, None)
        bare = replace(saved, replay=replace(saved.replay, log=ActionLog()))
        return cls(number, num_begun, bare, saved.replay.log.since(log))

    def whole(self, log: ActionLog) -> SavedSession:
        """The moment with its log. log: as it was for `after`."""
        if self.growth is None or self.saved.replay is None:
            return self.saved
        replay = replace(self.saved.replay, log=log.grown(self.growth))
        return replace(self.saved, replay=replay)


def log_of(saved: SavedSession) -> ActionLog:
    """Of a moment; empty where it has none."""
    return ActionLog() if saved.replay is None else saved.replay.log


def pack(message: object) -> bytes:
    """For the other side. Protocol 5 copies arrays once."""
    return pickle.dumps(message, protocol=5)


@dataclass(slots=True)
class Act:
    """One or more actions of a session on their way: `ActionMailbox` takes from it what it would
    have taken from all of them. vector: the newest, its turns those of all. pressed: keys that any
    of the others held, [keys] of zeros and ones; None without others.
    """

    number: int
    vector: NDArray[np.float32]
    seq: int
    time_s: float
    pressed: NDArray[np.float32] | None = None

    def merge(self, newer: Act, space: ActionSpace) -> None:
        """Become this and a newer one."""
        keys, camera = slice(0, len(space.keys)), space.camera_columns
        held, most = self.vector[keys], 1.0 + MAX_CARRIED_FRAMES
        self.pressed = held if self.pressed is None else np.maximum(self.pressed, held)
        turn = np.clip(self.vector[camera] + newer.vector[camera], -most, most)
        self.vector, self.seq, self.time_s = newer.vector, newer.seq, newer.time_s
        self.vector[camera] = turn

    def vectors(self, space: ActionSpace) -> list[NDArray[np.float32]]:
        """What to give to the mailbox, one after another."""
        if self.pressed is None:
            return [self.vector]
        tapped = self.vector.copy()
        tapped[: len(space.keys)], tapped[space.camera_columns] = self.pressed, 0.0
        return [tapped, self.vector]


class Outbox:
    """Messages that wait to be sent, each a tuple or an `Act`. Putting one in never blocks."""

    def __init__(self, space: ActionSpace) -> None:
        self._space = space
        self._messages: deque[object] = deque()
        self._acts: dict[int, Act] = {}  # by session: the newest message to it, where it is one
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, name: str, number: int, *arguments: object) -> None:
        """For this session: what it does now comes after what it did so far."""
        with self._changed:
            self._acts.pop(number, None)
            self._append((name, number, *arguments))

    def act(self, act: Act) -> None:
        """Joins an action of the same session that has not been sent yet."""
        with self._changed:
            if (unsent := self._acts.get(act.number)) is not None:
                unsent.merge(act, self._space)
                return
            self._acts[act.number] = act
            self._append(act)

    def close(self, *last: object) -> None:
        """Nothing comes after these."""
        with self._changed:
            for message in last:
                self._append(message)
            self._closed = True
            self._changed.notify_all()

    def take(self) -> list[object]:
        """All of them, as soon as there are any; empty when it was closed."""
        with self._changed:
            while not (self._messages or self._closed):
                self._changed.wait()
            messages = list(self._messages)
            self._messages.clear()
            self._acts.clear()
        return messages

    def _append(self, message: object) -> None:
        if not self._closed:
            self._messages.append(message)
            self._changed.notify()
