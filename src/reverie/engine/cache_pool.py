"""Memory across frames: keys and values of every session, allocated once.

Each session owns one slot: for every cached layer an array [heads, context * n, dh] of keys and one
of values. It is a ring over frames: the frame with index t owns places (t % context) * n and the
n - 1 after it, so remembering a frame overwrites the oldest one in place and memory never grows.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reverie.engine.runtime import ring_position


class Slots:
    """Which of a fixed number of slots are taken. Gives out the lowest free one.

    Low numbers first keeps the slots in use next to each other, so that a batch of them is one
    stretch of memory.
    """

    def __init__(self, num_slots: int) -> None:
        if num_slots < 1:
            raise ValueError(f"num_slots is {num_slots}; expected 1 or more")
        self.num_slots = num_slots
        self._free = list(range(num_slots))

    @property
    def num_free(self) -> int:
        return len(self._free)

    def can_allocate(self) -> bool:
        return bool(self._free)

    def allocate(self) -> int:
        """A slot of one's own. Raises RuntimeError when all are taken."""
        if not self._free:
            raise RuntimeError(f"all {self.num_slots} slots are taken")
        return heapq.heappop(self._free)

    def deallocate(self, slot: int) -> None:
        """Give a slot back. Raises ValueError if it does not exist or is free already."""
        if not 0 <= slot < self.num_slots:
            raise ValueError(f"slot {slot} is not one of 0..{self.num_slots - 1}")
        if slot in self._free:
            raise ValueError(f"slot {slot} is free already")
        heapq.heappush(self._free, slot)


@dataclass(frozen=True, slots=True)
class CacheShape:
    """num_layers: that have a cache. context: frames. num_tokens: of one frame. head_width: dh."""

    num_layers: int
    num_heads: int
    context: int
    num_tokens: int
    head_width: int

    @property
    def slot(self) -> tuple[int, int, int]:
        return (self.num_heads, self.context * self.num_tokens, self.head_width)

    @property
    def slot_bytes(self) -> int:
        """Of one session: keys and values of all layers."""
        return 2 * self.num_layers * int(np.prod(self.slot)) * 4


class CachePool:
    """Keys and values of `num_slots` sessions, float32, in memory that is allocated here, once.

    `k[i]` and `v[i]` are the whole arrays of cached layer i, [num_slots, heads, context * n, dh].
    """

    def __init__(self, num_slots: int, shape: CacheShape, max_batch: int = 1) -> None:
        self.num_slots, self.shape = num_slots, shape
        layers = range(shape.num_layers)
        self.k = [np.zeros((num_slots, *shape.slot), np.float32) for _ in layers]
        self.v = [np.zeros((num_slots, *shape.slot), np.float32) for _ in layers]
        # Only batches of slots that are not neighbours pass through here; np.zeros takes no memory
        # until then.
        staging = (max_batch if max_batch > 1 else 0, *shape.slot)
        self._staging = [np.zeros(staging, np.float32) for _ in range(2 * shape.num_layers)]

    @property
    def num_bytes(self) -> int:
        """Of the slots; the staging buffers come on top."""
        return self.num_slots * self.shape.slot_bytes

    def write(
        self,
        slot: int,
        frame_index: int,
        new_k: Sequence[NDArray[np.float32]],
        new_v: Sequence[NDArray[np.float32]],
    ) -> None:
        """Remember one frame: for every cached layer its entries, [heads, n, dh], in place."""
        n = self.shape.num_tokens
        first = ring_position(frame_index, self.shape.context) * n
        for cache, new in zip((*self.k, *self.v), (*new_k, *new_v), strict=True):
            cache[slot, :, first : first + n] = new

    def is_contiguous(self, slots: Sequence[int]) -> bool:
        """Whether these slots lie next to each other in this order, so that a view will do."""
        return list(slots) == list(range(slots[0], slots[0] + len(slots)))

    def view(
        self, slots: Sequence[int]
    ) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
        """Keys and values of a batch, per cached layer [b, heads, context * n, dh].

        Neighbouring slots are seen in place. Others are copied together into a buffer that the next
        such call overwrites.
        """
        if self.is_contiguous(slots):
            part = slice(slots[0], slots[0] + len(slots))
            return [k[part] for k in self.k], [v[part] for v in self.v]
        gathered = []
        for cache, staging in zip((*self.k, *self.v), self._staging, strict=True):
            batch = staging[: len(slots)]
            np.take(cache, slots, axis=0, out=batch)
            gathered.append(batch)
        return gathered[: self.shape.num_layers], gathered[self.shape.num_layers :]

    def slot_arrays(self, slot: int) -> dict[str, NDArray[np.float32]]:
        """Everything of one slot by name, as views: reading copies it out, writing restores it."""
        names = {f"cache_k.{i}": k[slot] for i, k in enumerate(self.k)}
        return names | {f"cache_v.{i}": v[slot] for i, v in enumerate(self.v)}
