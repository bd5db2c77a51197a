"""Worlds and sessions in the caller's own thread: no engine, no clock, a frame whenever asked.

    world = reverie.load("meadow")
    with world.start(seed=0) as session:
        for _ in range(100):
            frame = session.step(reverie.Action(keys={"w"}))
        session.save("here.reverie")

Same seed, start and actions, same frames, bit for bit, however often a session is saved, forked or
rewound in between. One world and its sessions belong to one thread at a time.
"""

from __future__ import annotations

import copy
import weakref
from collections import deque
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reverie import world as worlds
from reverie.core import Action, Pixels, ReverieError
from reverie.engine.cache_pool import Slots
from reverie.engine.opening import START_SEED
from reverie.engine.runtime import Batch, Runtime
from reverie.engine.runtimes import load_runtime
from reverie.engine.saves import SavedSession
from reverie.world import Start, World, start_from_image

HISTORY_S = 10.0


class _Seats:
    """The loaded networks of a world, and which of their slots are taken."""

    def __init__(self, runtime: Runtime, num_slots: int) -> None:
        runtime.allocate(num_slots)
        self.runtime = runtime
        self.slots = Slots(num_slots)


@dataclass(frozen=True)
class LocalWorld(World):
    """A world that can be played here. Its networks are loaded with the first session.

    num_sessions: that may be open at the same time. runtime: as in `load_runtime`, or
    one that has no slots yet. num_threads: as in `load_runtime`.
    """

    num_sessions: int = 8
    runtime: str | Runtime | None = None
    num_threads: int | None = None

    def start(
        self,
        seed: int = 0,
        start: str | None = None,
        image: NDArray[np.uint8] | None = None,
        steps: int | None = None,
        history_s: float = HISTORY_S,
        prompt: str | None = None,
    ) -> LocalSession:
        """A new session.

        seed: decides all chance in it. start: name of one of the world's starts, the first one if
        not given; or image: a picture uint8 [h, w, 3], at least as large as the world's, to begin
        in. prompt: what the world shall be like, in words (`LocalSession.prompt`). steps: denoising
        steps per frame, the fewest the world knows if not given. history_s: how far back `rewind`
        can go; costs a copy of the session's memory per second.
        Raises ReverieError.
        """
        if start is not None and image is not None:
            raise ReverieError(f"start {start!r} and an image are given; expected one of them")
        config = self.config
        clip = self.find_start(start) if image is None else start_from_image(config, image)
        num_steps = min(config.denoising_steps) if steps is None else steps
        if num_steps not in config.denoising_steps:
            raise ReverieError(
                f"{num_steps!r} denoising steps; "
                f"this world was trained for {list(config.denoising_steps)}"
            )
        if not 0 <= seed < 2**64:
            raise ReverieError(f"seed is {seed}; expected a whole number from 0 to 2**64 - 1")
        wished = {} if prompt is None else self.understand(prompt)
        session = LocalSession(self, int(seed), num_steps, history_s)
        session._begin(clip)
        session.attributes = {**session.attributes, **wished}
        return session

    def resume(self, path: str | Path, history_s: float = HISTORY_S) -> LocalSession:
        """Go on where `LocalSession.save` stopped. Raises ReverieError on a file of another world,
        or one that is damaged.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise ReverieError(f"cannot read {path}: {error.strerror}") from None
        try:
            saved = SavedSession.from_bytes(self, data)
            session = LocalSession(self, saved.seed, saved.num_steps, history_s)
            session._continue(saved)
        except ReverieError as error:
            raise ReverieError(f"{path}: {error}") from None
        return session

    @cached_property
    def _seats(self) -> _Seats:
        runtime = self.runtime
        if runtime is None or isinstance(runtime, str):
            runtime = load_runtime(self, runtime, self.num_threads)
        return _Seats(runtime, self.num_sessions)


@dataclass(frozen=True, slots=True)
class _Moment:
    """A session's whole state before frame `frame_index` was drawn; `frame` is the one before."""

    frame_index: int
    frame: Pixels
    attributes: dict[str, str]
    snapshot: bytes


class LocalSession:
    """One walk through a world. `LocalWorld.start` and `resume` make them.

    frame: uint8 [h, w, 3], the newest picture. frame_index: of the next one. num_steps: denoising
    steps per frame; may be set between frames. attributes: what the world is like now, as prompts
    and actions said it, name -> value.
    """

    def __init__(self, world: LocalWorld, seed: int, num_steps: int, history_s: float) -> None:
        seats = world._seats
        if not seats.slots.can_allocate():
            raise ReverieError(
                f"{world.num_sessions} sessions of this world are open; close one, "
                "or load the world with a larger num_sessions"
            )
        self.world = world
        self.seed = seed
        self.num_steps = num_steps
        self.frame_index = 0
        self.attributes: dict[str, str] = {}
        self._shown = self.attributes  # in the newest frame; a wish shows in the next one
        self.frame: Pixels = np.zeros(world.config.frame_shape, np.uint8)
        self._runtime = seats.runtime
        self._slot = seats.slots.allocate()
        self._release = weakref.finalize(self, seats.slots.deallocate, self._slot)
        self._history_s = history_s
        fps = world.config.fps
        # A moment every second, and one more so that the oldest second is whole; between moments
        # the actions are enough, because replaying them gives the same frames.
        self._moments: deque[_Moment] = deque(maxlen=int(np.ceil(history_s)) + 1)
        self._actions: deque[tuple[NDArray[np.float32], int]] = deque(
            maxlen=fps * (int(np.ceil(history_s)) + 1)
        )

    def step(self, action: Action | NDArray[np.floating]) -> Pixels:
        """The next frame, uint8 [h, w, 3], after this action or encoded action [A]. Attributes that
        an Action does not name stay as they are; an encoded one says all.

        Raises ValueError on keys or slots that the world does not know, and after `close`.
        """
        self._check_open()
        space = self.world.config.action_space
        if isinstance(action, Action):
            said = {**self.attributes, **action.attributes}
            vector = space.encode(Action(action.keys, action.mouse, action.slot, said))
        else:
            vector = np.asarray(action, np.float32)
            if vector.shape != (space.width,) or not np.isfinite(vector).all():
                raise ReverieError(
                    f"encoded action has shape {vector.shape}; expected ({space.width},), finite"
                )
        self._remember_moment()
        self.attributes = self._shown = space.decode_attributes(vector[space.attribute_columns])
        if self._history_s > 0:
            self._actions.append((vector, self.num_steps))
        return self._draw(vector, self.num_steps)

    def prompt(self, text: str) -> dict[str, str]:
        """Have the world be as the text says, from the next frame on; what it does not name stays.

        Returns the attributes that it set. Raises ReverieError, with what can be wished for, where
        it asks for nothing that the world knows.
        """
        self._check_open()
        wished = self.world.understand(text)
        self.attributes = {**self.attributes, **wished}
        return wished

    def rewind(self, seconds: float) -> Pixels:
        """Go back in time, at most as far as `history_s`; returns the picture that was seen then.

        Raises ReverieError that says how far back is possible.
        """
        self._check_open()
        num_frames = round(seconds * self.world.config.fps)
        target = self.frame_index - num_frames
        oldest = self._moments[0].frame_index if self._moments else self.frame_index
        if num_frames < 0 or target < oldest:
            possible = (self.frame_index - oldest) / self.world.config.fps
            raise ReverieError(
                f"cannot rewind {seconds} s; expected 0 to {possible:.2f} s, what is remembered"
            )
        if num_frames == 0:
            return self.frame
        while self._moments[-1].frame_index > target:
            self._moments.pop()
        moment = self._moments[-1]
        since = self.frame_index - moment.frame_index
        replayed = list(self._actions)[len(self._actions) - since :][: target - moment.frame_index]
        for _ in range(num_frames):
            self._actions.pop()
        self._runtime.restore(self._slot, moment.snapshot)
        self.frame_index, self.frame = moment.frame_index, moment.frame
        self.attributes = self._shown = moment.attributes
        space = self.world.config.action_space
        for vector, num_steps in replayed:
            self.attributes = self._shown = space.decode_attributes(vector[space.attribute_columns])
            self._draw(vector, num_steps)
        return self.frame

    def fork(self) -> LocalSession:
        """Another session that is where this one is, with the same past, seed and future."""
        self._check_open()
        other = LocalSession(self.world, self.seed, self.num_steps, self._history_s)
        self._runtime.restore(other._slot, self._runtime.snapshot(self._slot))
        other.frame_index, other.frame = self.frame_index, self.frame
        other.attributes, other._shown = self.attributes, self._shown
        other._moments, other._actions = copy.copy(self._moments), copy.copy(self._actions)
        return other

    def save(self, path: str | Path) -> None:
        """Write the session to a file; `LocalWorld.resume` goes on from there, bit for bit.

        The history for `rewind` is not saved. Raises ReverieError if it cannot be written.
        """
        self._check_open()
        place = (self.seed, self.num_steps, self.frame_index, self.attributes, self.frame)
        saved = SavedSession(*place, self._runtime.snapshot(self._slot))
        data = saved.to_bytes(self.world)
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        try:
            partial.write_bytes(data)
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise ReverieError(f"cannot write {path}: {error.strerror}") from None

    def close(self) -> None:
        """Free the session's memory for another. A second time does nothing."""
        self._release()
        self._moments.clear()

    def __enter__(self) -> LocalSession:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _begin(self, clip: Start) -> None:
        slot, pitch_deg = self._slot, clip.pitch_deg
        self._runtime.prefill(slot, clip.frames, clip.actions, START_SEED, pitch_deg=pitch_deg)
        self.frame = clip.frames[-1].copy()
        space = self.world.config.action_space
        now = clip.actions[-1, space.attribute_columns]
        self.attributes = self._shown = space.decode_attributes(now)

    def _continue(self, saved: SavedSession) -> None:
        self._runtime.restore(self._slot, saved.snapshot)
        self.frame, self.frame_index = saved.frame, saved.frame_index
        self.attributes = self._shown = saved.attributes

    def _draw(self, vector: NDArray[np.float32], num_steps: int) -> Pixels:
        batch = Batch((self._slot,), vector[None], (self.seed,), (self.frame_index,), num_steps)
        self.frame = self._runtime.step(batch)[0]
        self.frame_index += 1
        return self.frame

    def _remember_moment(self) -> None:
        fps = self.world.config.fps
        due = not self._moments or self.frame_index >= self._moments[-1].frame_index + fps
        if self._history_s > 0 and due:
            snapshot = self._runtime.snapshot(self._slot)
            now = (self.frame_index, self.frame.copy(), self._shown)
            self._moments.append(_Moment(*now, snapshot))

    def _check_open(self) -> None:
        if not self._release.alive:
            raise ReverieError("this session is closed; start another")


def load(
    name: str | Path,
    num_sessions: int = 8,
    runtime: str | None = None,
    num_threads: int | None = None,
) -> LocalWorld:
    """A world to play from Python: a bundled name, a folder, or "hf://user/world".

    Raises ReverieError, one line, if there is no such world or it is not whole.
    """
    found = worlds.load(name)
    parts = (found.path, found.config, found.starts, found.prompter)
    return LocalWorld(*parts, num_sessions, runtime, num_threads)
