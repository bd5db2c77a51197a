"""What an accelerator must offer to play worlds, and nothing more.

A `Runtime` owns everything that depends on the hardware: networks, caches, the sampler's loop. A
new chip is one file in `runtimes/` with a class of this shape. A runtime is used from one thread at
a time.

The life of a frame: `step` samples the next latents and returns pictures at once; the pass that
writes what was drawn into the cache (`commit`) happens after the pictures are on their way, and at
the latest before the same slot's next `step`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reverie.core import ReverieError
from reverie.world import World, WorldConfig

CostTable = Mapping[tuple[int, int], float]
"""Milliseconds by (batch size, denoising steps): a `step` of that size, and with 0 steps the
`commit` that follows it.
"""

SAMPLE_STREAM = 0
COMMIT_STREAM = 1


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One frame for each of several sessions.

    slots: the sessions' places in the runtime's memory, no slot twice. actions: float32 [b, A],
    encoded by the world's `ActionSpace`. seeds: of the sessions, 0 <= seed < 2**64. frame_indices:
    of the frames to draw, from 0. num_steps: denoising steps, the same for all of them.
    """

    slots: tuple[int, ...]
    actions: NDArray[np.float32]
    seeds: tuple[int, ...]
    frame_indices: tuple[int, ...]
    num_steps: int

    def __post_init__(self) -> None:
        b = len(self.slots)
        if b == 0 or len(set(self.slots)) != b:
            raise ValueError(f"batch of slots {self.slots}; expected at least one, and none twice")
        if len(self.seeds) != b or len(self.frame_indices) != b or len(self.actions) != b:
            raise ValueError(
                f"batch of {b} slots with {len(self.actions)} actions, {len(self.seeds)} seeds "
                f"and {len(self.frame_indices)} frame indices; expected one of each per slot"
            )
        if self.num_steps < 1:
            raise ValueError(f"num_steps is {self.num_steps}; expected 1 or more")


class Runtime(Protocol):
    """One device. See the module's docstring for the life of a frame."""

    @property
    def world(self) -> World: ...

    @property
    def kind(self) -> str:
        """Which hardware and numbers: the same kind draws the same bits, and reads snapshots."""
        ...

    @property
    def num_slots(self) -> int:
        """Sessions that fit; 0 before `allocate`."""
        ...

    def allocate(self, num_slots: int) -> None:
        """Fixed memory for that many sessions, once, and warm-up: the first step is a fast one."""
        ...

    def prefill(
        self,
        slot: int,
        frames: NDArray[np.uint8],
        actions: NDArray[np.float32],
        seed: int,
        first_index: int | None = None,
        pitch_deg: float = 0.0,
    ) -> None:
        """Make a slot remember real frames, uint8 [t, h, w, 3], and what led into each, [t, A].

        A context clip has frame indices -context..-1. It may come in parts, so that warming one
        player does not delay another: `first_index` is then the frame index of the part's first
        frame; without it the frames are the last ones before 0. The frame at index -context begins
        a session: it forgets whatever the slot held, a pending commit included, and before its
        action the camera looked `pitch_deg` degrees down. Raises ReverieError on frames or actions
        of another shape.
        """
        ...

    def step(self, batch: Batch) -> NDArray[np.uint8]:
        """Draw one frame for every session of the batch: uint8 [b, h, w, 3]. Commits wait."""
        ...

    def commit(self, slots: Sequence[int]) -> None:
        """Write pending frames of these slots into their caches; others are left alone."""
        ...

    def changes(self, slots: Sequence[int]) -> Sequence[float]:
        """How far each slot's newest latents are from those before, root mean square: how much
        there is to draw. 0 where nothing tells.
        """
        ...

    def snapshot(self, slot: int) -> bytes:
        """The whole state of a slot, pending commit included. Restored, it goes on bit for bit."""
        ...

    def restore(self, slot: int, snapshot: bytes) -> None:
        """The opposite of `snapshot`. Raises ReverieError on one of another world or format."""
        ...

    def cost_table(self) -> CostTable:
        """Measured once, after `allocate` and before the first session."""
        ...


def check_clip(
    config: WorldConfig, frames: NDArray[np.uint8], actions: NDArray[np.float32]
) -> None:
    """Raises ReverieError unless these are frames [t, h, w, 3] of the world's size and as many
    actions [t, A].
    """
    expected = (len(actions), *config.frame_shape)
    if frames.dtype != np.uint8 or frames.shape != expected:
        raise ReverieError(f"frames are {frames.dtype} {frames.shape}; expected uint8 {expected}")
    wanted = (len(frames), config.action_space.width)
    if actions.shape != wanted:
        raise ReverieError(f"actions have shape {actions.shape}; expected {wanted}")


def noise(seed: int, frame_index: int, stream: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Standard normal noise, a pure function of (seed, frame index, stream).

    So a replay or a fork draws the same. Philox with the frame index in the counter's *second*
    word: the first counts the blocks drawn, so there the noise of one frame would be the noise of
    the next one shifted by seven numbers.
    """
    key = np.array([seed, stream], np.uint64)
    counter = np.array([0, frame_index % 2**64, 0, 0], np.uint64)
    generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
    return generator.standard_normal(shape, np.float32)


def ring_position(frame_index: int, context: int) -> int:
    """The place in a slot's ring of the frame with this index; context frames are negative."""
    return frame_index % context
