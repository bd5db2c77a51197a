"""Worlds of every format in PyTorch: ours, from the same weights as the ONNX runtime and held
against it, and those of others, through their adapters.

Where a GPU is used when there is one. Needs `torch`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reverie.core import ReverieError
from reverie.engine.runtime import COMMIT_STREAM, SAMPLE_STREAM, Batch, CostTable, check_clip, noise
from reverie.engine.snapshot import pack, unpack
from reverie.model.autoencoder import to_frames, to_pixels
from reverie.model.sampler import CausalModel, Pictures, Sampler
from reverie.model.weights import load_model
from reverie.world import World

SNAPSHOT_KIND = "torch slot"
NUM_TIMED = 3


@dataclass(slots=True)
class _Pending:
    """A frame that was drawn but is not in the cache yet."""

    latents: Tensor
    told: Tensor
    frame_index: int
    seed: int


class TorchRuntime:
    """See `engine.runtime.Runtime`. device: "cpu", "cuda", or None for CUDA where there is one.
    model: what plays the world; read from its files if not given (docs/adapters.md).
    """

    def __init__(
        self,
        world: World,
        device: str | None = None,
        model: tuple[CausalModel, Pictures] | None = None,
    ) -> None:
        self._world = world
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._model, self._pictures = model or load_model(world, self._device)
        self._sampler: Sampler | None = None
        self._pending: list[_Pending | None] = []
        self._pitch_deg = torch.zeros(0, dtype=torch.float64)
        self._cost_table: dict[tuple[int, int], float] = {}

    @property
    def world(self) -> World:
        return self._world

    @property
    def num_slots(self) -> int:
        return len(self._pending)

    def allocate(self, num_slots: int) -> None:
        """Fixed memory for that many sessions. Once only."""
        if self._sampler is not None:
            raise RuntimeError(f"{self.num_slots} slots are allocated already")
        self._sampler = Sampler(self._model, num_slots)
        self._pending = [None] * num_slots
        self._pitch_deg = torch.zeros(num_slots, dtype=torch.float64)

    @torch.no_grad()
    def prefill(
        self,
        slot: int,
        frames: NDArray[np.uint8],
        actions: NDArray[np.float32],
        seed: int,
        first_index: int | None = None,
        pitch_deg: float = 0.0,
    ) -> None:
        """See `Runtime.prefill`."""
        config = self._world.config
        check_clip(config, frames, actions)
        first = -len(frames) if first_index is None else first_index
        if first == -config.context:
            self._memory.forget(slot)
            self._pitch_deg[slot] = pitch_deg
        pixels = to_pixels(torch.from_numpy(np.ascontiguousarray(frames)).to(self._device))
        latents = None
        for i, picture in enumerate(pixels):
            # A start out of one picture stands still: encode it once.
            if latents is None or not np.array_equal(frames[i], frames[i - 1]):
                latents = self._pictures.encode(picture[None])[0]
            told = self._tell(slot, actions[i])
            self._pending[slot] = _Pending(latents, told, first + i, seed)
            self.commit([slot])

    @torch.no_grad()
    def step(self, batch: Batch) -> NDArray[np.uint8]:
        """See `Runtime.step`."""
        self.commit(batch.slots)
        drawn = self._noise(batch.seeds, batch.frame_indices, SAMPLE_STREAM)
        drawn = drawn * self._world.config.noise_scale
        pairs = zip(batch.slots, batch.actions, strict=True)
        told = torch.stack([self._tell(slot, action) for slot, action in pairs])
        latents = self._memory.sample(
            batch.slots, drawn, told, batch.frame_indices, batch.num_steps
        )
        for i, slot in enumerate(batch.slots):
            index, seed = batch.frame_indices[i], batch.seeds[i]
            self._pending[slot] = _Pending(latents[i], told[i], index, seed)
        return to_frames(self._pictures.decode(latents)).cpu().numpy()

    def commit(self, slots: Sequence[int]) -> None:
        """See `Runtime.commit`."""
        found = [(slot, self._pending[slot]) for slot in slots]
        owed = [(slot, frame) for slot, frame in found if frame is not None]
        if not owed:
            return
        frames = [frame for _, frame in owed]
        indices = [frame.frame_index for frame in frames]
        self._memory.commit(
            [slot for slot, _ in owed],
            torch.stack([frame.latents for frame in frames]),
            self._noise([frame.seed for frame in frames], indices, COMMIT_STREAM),
            torch.stack([frame.told for frame in frames]),
            indices,
        )
        space = self._world.config.action_space
        for slot, frame in owed if space.camera_limit else []:
            self._pitch_deg[slot] = float(frame.told[-1]) * space.camera_limit
        for slot, _ in owed:
            self._pending[slot] = None

    def snapshot(self, slot: int) -> bytes:
        """See `Runtime.snapshot`."""
        arrays = {name: part.cpu().numpy() for name, part in self._slot_tensors(slot).items()}
        values: dict[str, int | float | str] = {}
        pending = self._pending[slot]
        if pending is not None:
            arrays |= {"latents": pending.latents.cpu().numpy()}
            arrays |= {"told": pending.told.cpu().numpy()}
            values = {"frame_index": pending.frame_index, "seed": pending.seed}
        return pack(SNAPSHOT_KIND, self._world.fingerprint, arrays, values)

    def restore(self, slot: int, snapshot: bytes) -> None:
        """See `Runtime.restore`."""
        arrays, values = unpack(SNAPSHOT_KIND, self._world.fingerprint, snapshot)
        memory = self._slot_tensors(slot)
        for name, place in memory.items():
            if name not in arrays or arrays[name].shape != tuple(place.shape):
                raise ReverieError(f"the saved session has no {name} of shape {tuple(place.shape)}")
        for name, place in memory.items():
            place.copy_(self._tensor(arrays[name]))
        self._memory.num_frames[slot] = self._world.config.context
        self._pending[slot] = None
        if "frame_index" in values:
            latents, told = self._tensor(arrays["latents"]), self._tensor(arrays["told"])
            self._pending[slot] = _Pending(latents, told, **values)  # pyright: ignore[reportArgumentType]

    def cost_table(self) -> CostTable:
        """Medians of a few whole steps of one to four sessions."""
        if not self._cost_table:
            config = self._world.config
            blank = np.zeros((config.context, *config.frame_shape), np.uint8)
            idle = np.zeros((config.context, config.action_space.width), np.float32)
            for slot in range(min(self.num_slots, 4)):
                self.prefill(slot, blank, idle, 0)
            for b in range(1, min(self.num_slots, 4) + 1):
                actions = np.zeros((b, config.action_space.width), np.float32)
                slots = tuple(range(b))
                for num_steps in config.denoising_steps:
                    batch = Batch(slots, actions, (0,) * b, (0,) * b, num_steps)
                    steps, commits = [], []
                    for _ in range(NUM_TIMED):
                        steps.append(_elapsed_ms(lambda: self.step(batch)))  # noqa: B023
                        commits.append(_elapsed_ms(lambda: self.commit(slots)))  # noqa: B023
                    self._cost_table[b, num_steps] = statistics.median(steps)
                    self._cost_table[b, 0] = statistics.median(commits)
        return self._cost_table

    @property
    def device(self) -> str:
        """That networks run on: "cpu" or "cuda"."""
        return self._device.type

    @property
    def precision(self) -> str:
        """That networks multiply in."""
        return "float32"

    @property
    def num_threads(self) -> int:
        """That work at the same time, on a CPU."""
        return torch.get_num_threads()

    @property
    def slot_bytes(self) -> int:
        """What one session remembers."""
        return sum(tensor.nbytes for tensor in self._slot_tensors(0).values())

    def stages(self) -> dict[str, Callable[[], object]]:
        """Of a frame of slot 0, each to be measured alone; after `allocate`."""
        space, memory = self._world.config.action_space, self._memory
        told = torch.zeros(1, space.told_width, device=self._device)
        latents = torch.zeros(1, *self._model.latent_shape, device=self._device)
        works: dict[str, Callable[[], object]] = {
            "denoise": lambda: memory.sample([0], latents, told, [0], 1),
            "commit": lambda: memory.commit([0], latents, latents, told, [0]),
            "decode": lambda: to_frames(self._pictures.decode(latents)).cpu(),
        }
        return {name: lambda work=work: _elapsed_ms(work) for name, work in works.items()}

    @property
    def _memory(self) -> Sampler:
        if self._sampler is None:
            raise RuntimeError("no slots; call allocate first")
        return self._sampler

    def _slot_tensors(self, slot: int) -> dict[str, Tensor]:
        memory = self._memory
        return {
            **{name: ring[slot] for name, ring in memory.rings.items()},
            "state": memory.state[slot],
            "pitch_deg": self._pitch_deg[slot : slot + 1],
        }

    def _tell(self, slot: int, action: NDArray[np.float32]) -> Tensor:
        """What the denoiser is told of a slot's next frame, [told_width]."""
        space = self._world.config.action_space
        told = space.tell(action, space.pitch_after(self._pitch_deg[slot].item(), action))
        return torch.from_numpy(told).to(self._device)

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.array(array)).to(self._device)

    def _noise(self, seeds: Sequence[int], frame_indices: Sequence[int], stream: int) -> Tensor:
        shape = self._model.latent_shape
        pairs = zip(seeds, frame_indices, strict=True)
        drawn = np.stack([noise(seed, index, stream, shape) for seed, index in pairs])
        return torch.from_numpy(drawn).to(self._device)


def _elapsed_ms(run: Any) -> float:
    started_s = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - started_s) * 1000
