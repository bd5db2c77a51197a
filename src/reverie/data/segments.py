"""Segments: fixed-length slices of episodes, and batches of them, for training.

Works over any arrays with one row per frame: memory-mapped frames [N, h, w, 3], latents [N, n, c],
actions [N, A]. Row i of the actions is the action that led INTO frame i (the log's action i - 1);
an episode's first frame has the idle action.

    segments = Segments({"frames": frames, "actions": actions}, boundaries, length=16)
    for batch in segments.batches(batch_size=8, seed=0):
        batch["frames"]                                                     # uint8 [8, 16, h, w, 3]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverie.core import ReverieError

Batch = dict[str, NDArray[Any]]


class Segments(Sequence[Batch]):
    """Every slice of `length` frames that stays inside one episode, numbered 0 .. len - 1.

    arrays: name -> array [N, ...]. boundaries: [e + 1] rising row numbers; episode k is rows
    boundaries[k] .. boundaries[k + 1]. Raises ReverieError where an array is shorter than the
    episodes, or no episode is long enough.
    """

    def __init__(
        self,
        arrays: Mapping[str, NDArray[Any]],
        boundaries: Sequence[int] | NDArray[np.integer],
        length: int,
    ) -> None:
        self.arrays = dict(arrays)
        self.boundaries = np.asarray(boundaries, np.int64)
        self.length = length
        if length < 1:
            raise ReverieError(f"segment length is {length}; expected at least 1")
        if (
            len(self.boundaries) < 2
            or (np.diff(self.boundaries) < 0).any()
            or self.boundaries[0] < 0
        ):
            raise ReverieError(
                "episode boundaries must be rising row numbers, one more than episodes"
            )
        for name, array in self.arrays.items():
            if len(array) < self.boundaries[-1]:
                raise ReverieError(
                    f"array {name!r} has {len(array)} rows; its episodes end at"
                    f" {self.boundaries[-1]}"
                )
        counts = np.maximum(np.diff(self.boundaries) - length + 1, 0)
        self._ends = np.cumsum(counts)
        if self._ends[-1] == 0:
            longest = int(np.diff(self.boundaries).max())
            raise ReverieError(
                f"no episode has {length} frames; the longest has {longest}: use shorter segments"
            )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def first_rows(self, numbers: NDArray[np.integer]) -> NDArray[np.int64]:
        """The row at which each numbered segment begins."""
        episodes = np.searchsorted(self._ends, numbers, side="right")
        before = np.where(episodes > 0, self._ends[episodes - 1], 0)
        return self.boundaries[episodes] + (numbers - before)

    def __getitem__(self, number: int) -> Batch:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Segment `number`: name -> array [length, ...]."""
        if not -len(self) <= number < len(self):
            raise IndexError(f"segment {number} of {len(self)}")
        row = int(self.first_rows(np.array([number % len(self)]))[0])
        return {
            name: np.asarray(array[row : row + self.length]) for name, array in self.arrays.items()
        }

    def gather(self, numbers: NDArray[np.integer]) -> Batch:
        """Several segments as one batch: name -> array [b, length, ...], copied."""
        rows = self.first_rows(np.asarray(numbers, np.int64))
        # Slices, not one fancy index: a memory map then reads each segment in one piece.
        return {
            name: np.stack([array[row : row + self.length] for row in rows])
            for name, array in self.arrays.items()
        }

    def draw(self, batch_size: int, seed: int, step: int) -> Batch:
        """The batch of training step `step`: a pure function of (seed, step), so a resumed run
        continues where it was.
        """
        generator = np.random.Generator(np.random.Philox(key=[seed, step]))
        return self.gather(generator.integers(0, len(self), batch_size))

    def batches(self, batch_size: int, seed: int, first_step: int = 0) -> Iterator[Batch]:
        """Batches without end, name -> array [b, length, ...], from training step `first_step`."""
        step = first_step
        while True:
            yield self.draw(batch_size, seed, step)
            step += 1

    def in_order(self, batch_size: int, stride: int | None = None) -> Iterator[Batch]:
        """Each part of each episode once, for evaluation; begins `stride` frames apart (default:
        length). Last batch may be smaller.
        """
        stride = stride or self.length
        numbers = [
            first + offset
            for first, count in zip(
                np.r_[0, self._ends[:-1]], np.diff(np.r_[0, self._ends]), strict=True
            )
            for offset in range(0, int(count), stride)
        ]
        for start in range(0, len(numbers), batch_size):
            yield self.gather(np.array(numbers[start : start + batch_size]))
