"""Memory across frames: keys and values of every session, allocated once.

Each session owns one slot: for every cached layer an array [heads, context * n, dh] of keys and one
of values. It is a ring over frames: the frame with index t owns places (t % context) * n and the
n - 1 after it, so remembering a frame overwrites the oldest one in place and memory never grows.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverie.engine.runtime import ring_position


class Slots:
    """Which of a fixed number of slots are taken. Gives out the lowest free one.

    Low numbers first keeps the slots in use next to each other, and memory that was never needed
    untouched.
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


class CachePool:
    """Keys and values of `num_slots` sessions, in memory that is allocated here, once.

    cache_type: of their numbers, as the library reads them that runs the networks.
    `k[i]` and `v[i]` are the whole arrays of cached layer i, [num_slots, heads, context * n, dh].
    """

    def __init__(
        self, num_slots: int, shape: CacheShape, cache_type: type[np.generic] = np.float32
    ) -> None:
        self.num_slots, self.shape, self.cache_type = num_slots, shape, cache_type
        layers = range(shape.num_layers)
        self.k = [np.zeros((num_slots, *shape.slot), cache_type) for _ in layers]
        self.v = [np.zeros((num_slots, *shape.slot), cache_type) for _ in layers]

    def write(
        self,
        slot: int,
        frame_index: int,
        new_k: Sequence[NDArray[Any]],
        new_v: Sequence[NDArray[Any]],
    ) -> None:
        """Remember one frame: for every cached layer its entries, [heads, n, dh], in place."""
        n = self.shape.num_tokens
        first = ring_position(frame_index, self.shape.context) * n
        for cache, new in zip((*self.k, *self.v), (*new_k, *new_v), strict=True):
            cache[slot, :, first : first + n] = new

    def slot_arrays(self, slot: int | slice) -> dict[str, NDArray[Any]]:
        """Everything of one slot by name, as views: reading copies it out, writing restores it. Of
        several slots with their axis first.
        """
        names = {f"cache_k.{i}": k[slot] for i, k in enumerate(self.k)}
        return names | {f"cache_v.{i}": v[slot] for i, v in enumerate(self.v)}
