"""A world whose pictures cost nothing, drawn by a device that takes 1 ms for one denoising step of
a few sessions at once, and leaves the processor alone meanwhile, as an accelerator does.

What is left is what serving costs: sockets, queue, pipes, JPEGs. `FakeDevice` is a value, so that
it can be sent to the process that the engine runs in.
"""

from __future__ import annotations

import pickle
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reverie.core import Action, ActionSpace
from reverie.engine import Batch, CostTable, Engine
from reverie.world import Start, World, WorldConfig

SPACE = ActionSpace(
    keys=("forward", "back", "left", "right", "jump", "sprint", "break", "use"),
    camera_limit=15.0,
    num_slots=6,
    keymap={"w": "forward", "s": "back", "a": "left", "d": "right", "space": "jump"},
)
NUM_PICTURES = 64


@dataclass(frozen=True, slots=True)
class FakeDevice:
    """name: of its world. batch: sessions that one step draws at the same price. num_slots:
    sessions, at most.
    """

    name: str = "fake"
    fps: int = 20
    step_ms: float = 1.0
    batch: int = 2
    num_slots: int = 4
    width: int = 64
    height: int = 40

    def world(self) -> World:
        config = WorldConfig(
            *(self.name, self.width, self.height, self.fps, SPACE, (1, 2, 4), 1, 1.0),
            denoiser={"kind": "fake"},
        )
        idle = SPACE.encode(Action())[None]
        picture = np.zeros((1, *config.frame_shape), np.uint8)
        return World(Path(), config, (Start("start", "Start", picture, idle),))

    def engine(self) -> Engine:
        """Not started yet."""
        world = self.world()
        return Engine(world, FakeRuntime(world, self), self.num_slots)


class FakeRuntime:
    """A `Runtime`; a slot remembers how many frames it has drawn."""

    def __init__(self, world: World, device: FakeDevice) -> None:
        self._world, self._device = world, device
        self._drawn: list[int] = []
        h, w, _ = world.config.frame_shape
        ramp = np.arange(w)[None, :, None] + 2 * np.arange(h)[:, None, None] + 40 * np.arange(3)
        steps = 4 * np.arange(NUM_PICTURES)[:, None, None, None]
        self._pictures = ((ramp[None] + steps) % 256).astype(np.uint8)

    @property
    def world(self) -> World:
        return self._world

    @property
    def kind(self) -> str:
        return "fake"

    @property
    def num_slots(self) -> int:
        return len(self._drawn)

    def allocate(self, num_slots: int) -> None:
        self._drawn = [0] * num_slots

    def prefill(
        self,
        slot: int,
        frames: NDArray[np.uint8],
        actions: NDArray[np.float32],
        seed: int,
        first_index: int | None = None,
        pitch_deg: float = 0.0,
    ) -> None:
        self._drawn[slot] = seed % NUM_PICTURES

    def step(self, batch: Batch) -> NDArray[np.uint8]:
        time.sleep(self._device.step_ms * batch.num_steps / 1000)
        for slot in batch.slots:
            self._drawn[slot] += 1
        return self._pictures[[self._drawn[slot] % NUM_PICTURES for slot in batch.slots]]

    def commit(self, slots: Sequence[int]) -> None:
        """Nothing has to be remembered beyond `step`."""

    def changes(self, slots: Sequence[int]) -> Sequence[float]:
        return [0.0] * len(slots)

    def snapshot(self, slot: int) -> bytes:
        return pickle.dumps(self._drawn[slot])

    def restore(self, slot: int, snapshot: bytes) -> None:
        self._drawn[slot] = pickle.loads(snapshot)

    def cost_table(self) -> CostTable:
        """Measured, as a real one: a sleep is longer than what was asked for."""
        steps = self._world.config.denoising_steps
        costs = {k: statistics.median(self._step_ms(k) for _ in range(20)) for k in steps}
        sizes = range(1, min(self._device.batch, self.num_slots) + 1)
        return {(b, k): costs[k] for b in sizes for k in steps}

    def _step_ms(self, num_steps: int) -> float:
        began_s = time.perf_counter()
        time.sleep(self._device.step_ms * num_steps / 1000)
        return 1000 * (time.perf_counter() - began_s)
