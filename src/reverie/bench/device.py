"""A runtime that can be looked into, with one session that plays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, cast

import numpy as np

from reverie.engine.runtime import Runtime
from reverie.engine.runtimes import load_runtime
from reverie.world import Start, World, start_from_image


class Measurable(Runtime, Protocol):
    """A runtime that says what it works with, and can run the stages of a frame alone."""

    @property
    def device(self) -> str: ...

    @property
    def precision(self) -> str:
        """That networks multiply in, by PyTorch's name."""
        ...

    @property
    def num_threads(self) -> int: ...

    @property
    def slot_bytes(self) -> int: ...

    def stages(self) -> Mapping[str, Callable[[], object]]:
        """Of a frame of slot 0, by name; after `allocate`."""
        ...


def open_device(
    world: World, runtime: str | None, num_slots: int = 1
) -> tuple[Measurable, np.ndarray]:
    """A runtime whose slots all remember the world's first start, or a black picture; and an action
    [1, A] that does nothing new.
    """
    device = cast("Measurable", load_runtime(world, runtime))
    device.allocate(num_slots)
    start = world.starts[0] if world.starts else _black(world)
    for slot in range(num_slots):
        device.prefill(slot, start.frames, start.actions, slot, pitch_deg=start.pitch_deg)
    return device, start.actions[-1:]


def _black(world: World) -> Start:
    return start_from_image(world.config, np.zeros(world.config.frame_shape, np.uint8))
