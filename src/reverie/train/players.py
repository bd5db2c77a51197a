"""Who can play on from a moment of recorded play: a world, or the simulator it was learned from.

Measures see a `Player` and cannot tell which of them it is, so each is tested on the simulator's
own frames and on faults planted in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reverie.core import ActionSpace, ReverieError
from reverie.data.environment import Simulator, fingerprint, same_scene
from reverie.data.episode import Dataset
from reverie.data.render import Rendered, open_simulator
from reverie.engine.runtime import Batch, Runtime

Frames = NDArray[np.uint8]
Actions = NDArray[np.float32]

KEPT_MOMENTS = 8
"""Copies of the simulator: a world each."""


@dataclass(frozen=True)
class Clip:
    """A moment to play on from: real frames [t, h, w, 3] and the actions that led into them [t, A];
    the first `context` are what a session remembers, the rest is what was recorded next.

    episode: of the test split; first: its frame that is this clip's first. pitch_deg: of the camera
    before that frame's action.
    """

    frames: Frames
    actions: Actions
    context: int
    episode: int = 0
    first: int = 0
    pitch_deg: float = 0.0

    @property
    def last(self) -> Frames:
        """The frame that play goes on from: [1, h, w, 3]."""
        return self.frames[self.context - 1 : self.context]

    @property
    def seed(self) -> int:
        """Another one for every moment: what is measured is not the luck of a few."""
        return (self.episode << 32) + self.first


class Player(Protocol):
    """Plays on from clips."""

    def stream(self, clips: Sequence[Clip], actions: Sequence[Actions]) -> Iterator[Frames]:
        """Side by side, one session for each clip with its actions [t, A], all of one length:
        yields the pictures after each action, uint8 [b, h, w, 3]. All chance in a session
        comes from its clip's seed.
        """
        ...


class WorldPlayer:
    """A world, played by the runtime that players get, at a number of denoising steps."""

    def __init__(self, runtime: Runtime, num_steps: int) -> None:
        self.runtime = runtime
        self.num_steps = num_steps

    def stream(self, clips: Sequence[Clip], actions: Sequence[Actions]) -> Iterator[Frames]:
        """As in `Player`; for at most as many clips as the runtime has slots."""
        slots = tuple(range(len(clips)))
        seeds = tuple(clip.seed for clip in clips)
        for slot, clip in enumerate(clips):
            memory = slice(0, clip.context)
            self.runtime.prefill(
                slot,
                clip.frames[memory],
                clip.actions[memory],
                seeds[slot],
                pitch_deg=clip.pitch_deg,
            )
        for index, acted in enumerate(zip(*actions, strict=True)):
            indices = (index,) * len(slots)
            yield self.runtime.step(Batch(slots, np.stack(acted), seeds, indices, self.num_steps))


class Replay:
    """The simulator, brought to the moment of any clip: what would it have shown?

    Moments are kept where the environment can be copied, so that many answers cost one replay.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._moments: dict[tuple[int, int], Simulator] = {}

    def stream(self, clips: Sequence[Clip], actions: Sequence[Actions]) -> Iterator[Frames]:
        """As in `Player`; there is no chance in it."""
        used: list[Simulator] = []
        ended: set[int] = set()  # an episode that is over stands still
        try:
            used.extend(self._brought_to(clip) for clip in clips)
            for acted in zip(*actions, strict=True):
                for i, (simulator, vector) in enumerate(zip(used, acted, strict=True)):
                    if i not in ended and simulator.step(vector)[1]:
                        ended.add(i)
                yield np.stack([simulator.picture() for simulator in used])
        finally:
            for simulator in used:
                simulator.close()

    def _brought_to(self, clip: Clip) -> Simulator:
        moment = clip.episode, clip.first + clip.context
        if moment in self._moments:
            simulator = self._moments[moment].clone()
            assert simulator is not None  # only what can be copied is kept
            return simulator
        episode = self.dataset.split("test")[clip.episode]
        simulator = open_simulator(self.dataset)
        simulator.reset(episode.seed, episode.options)
        for vector in self.dataset.actions(episode)[: moment[1] - 1]:
            simulator.step(vector)
        if not same_scene(fingerprint(simulator.picture()), fingerprint(clip.last[0])):
            simulator.close()
            raise ReverieError(
                f"{self.dataset.config.env_id} no longer shows what was recorded in "
                f"{self.dataset.path}; record it again"
            )
        copy = simulator.clone()
        if copy is not None:
            while len(self._moments) >= KEPT_MOMENTS:
                self._moments.pop(next(iter(self._moments))).close()
            self._moments[moment] = copy
        return simulator

    def close(self) -> None:
        """Release what is kept."""
        while self._moments:
            self._moments.popitem()[1].close()


def play(player: Player, clip: Clip, actions: Actions) -> Frames:
    """One session: the frames after these actions, uint8 [t, h, w, 3]."""
    return np.concatenate(list(player.stream([clip], [actions])))


def draw_clips(
    rendered: Rendered, space: ActionSpace, context: int, count: int, ahead: int = 1
) -> list[Clip]:
    """Moments of held-out episodes, evenly spread, each with so many recorded frames ahead."""
    segments = rendered.segments(context + ahead)
    numbers = np.linspace(0, len(segments) - 1, count).astype(int)
    return clips_at(rendered, space, context, segments.first_rows(numbers))


def clips_at(
    rendered: Rendered, space: ActionSpace, context: int, rows: NDArray[np.integer]
) -> list[Clip]:
    """Clips that begin at these rows, each to the end of its episode."""
    pitches = rendered.pitches(space)
    clips = []
    for row in rows.tolist():
        episode = int(np.searchsorted(rendered.boundaries, row, side="right")) - 1
        first = row - int(rendered.boundaries[episode])
        end = int(rendered.boundaries[episode + 1])
        pitch_deg = float(pitches[row - 1]) if first else 0.0
        clips.append(
            Clip(
                rendered.frames[row:end],
                rendered.actions[row:end],
                context,
                episode,
                first,
                pitch_deg,
            )
        )
    return clips


def course(rendered: Rendered, clip: Clip, length: int) -> Actions:
    """What was done after a clip's context and, when its episode ends, in the episodes after it,
    from the first again: [length, A].
    """
    row = int(rendered.boundaries[clip.episode]) + clip.first + clip.context
    rows = np.arange(row, row + length) % len(rendered.actions)
    return rendered.actions[rows]
