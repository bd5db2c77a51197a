"""Worlds of every format in PyTorch, on a GPU where there is one. Needs `torch`.

Ours play from the same weights as in the CPU runtime and are held against it, those of others
through adapters.

All that a frame needs lies at fixed addresses: rings, what is drawn but not remembered yet, and for
every size of batch (powers of two, filled up with a slot that nobody plays) what goes in and comes
out. On a GPU a step and a commit of each size are recorded once and then only played back (CUDA
graphs), in bfloat16: sessions come and go without recording anew, and one session's frames do not
depend on who fills the rest of its batch.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reverie.core import ReverieError
from reverie.engine.runtime import COMMIT_STREAM, SAMPLE_STREAM, Batch, CostTable, check_clip, noise
from reverie.engine.runtimes.device_noise import device_noise
from reverie.engine.snapshot import check_pending, pack, unpack
from reverie.model.autoencoder import Autoencoder, to_frames, to_pixels
from reverie.model.sampler import CausalModel, Pictures, Sampler
from reverie.model.weights import load_model
from reverie.world import World, WorldConfig

NUM_TIMED = 3
MAX_CPU_BATCH = 4
REMEMBER = 0
"""In place of a number of denoising steps: a commit."""


@dataclass(slots=True)
class _Owed:
    """What the host knows of a frame that was drawn but is not in the cache yet."""

    frame_index: int
    seed: int
    told: NDArray[np.float32]
    shown: NDArray[np.float32]


class _Desk:
    """What goes into a batch of `size` sessions and comes out, at fixed addresses; on a GPU, copied
    from and to pinned memory of the host.
    """

    def __init__(self, size: int, config: WorldConfig, device: torch.device) -> None:
        space = config.action_space
        self.size, self._is_cuda = size, device.type == "cuda"
        self._numbers = torch.zeros((3, size), dtype=torch.int64, pin_memory=self._is_cuda)
        num_values = space.width - space.attribute_columns.start
        widths = [space.told_width, num_values, 3]
        self._given = torch.zeros((size, sum(widths)), pin_memory=self._is_cuda)
        self._frames = torch.zeros(
            (size, *config.frame_shape), dtype=torch.uint8, pin_memory=self._is_cuda
        )
        self.numbers, self._joined = self._numbers.to(device), self._given.to(device)
        self.told, self.shown, self.turn = self._joined.split(widths, 1)
        self.frames = self._frames.to(device)
        self._copied = torch.cuda.Event() if self._is_cuda else None
        self.slots, self.seeds, self.indices = self.numbers

    def fill(
        self,
        slots: Sequence[int],
        seeds: Sequence[int],
        indices: Sequence[int],
        given: Sequence[NDArray[np.float32]] = (),
        *,
        nobody: int,
    ) -> None:
        """given: what the model is told, attributes to show and turns of the camera, one row each.
        nobody: the slot of what the batch does not fill.
        """
        if self._copied:
            self._copied.synchronize()  # of the last batch, long ago
        b = len(slots)
        numbers = self._numbers.numpy()
        numbers[:, b:] = ((nobody,), (0,), (0,))
        numbers[0, :b], numbers[2, :b] = slots, indices
        numbers[1, :b] = np.array(seeds, np.uint64).view(np.int64)
        if given:
            self._given[:b] = torch.from_numpy(np.concatenate(given, 1))
        self.numbers.copy_(self._numbers, non_blocking=True)
        self._joined.copy_(self._given, non_blocking=True)
        if self._copied:
            self._copied.record()

    def read(self, count: int) -> NDArray[np.uint8]:
        """The pictures, when they are there."""
        self._frames.copy_(self.frames, non_blocking=True)
        if self._is_cuda:
            torch.cuda.current_stream().synchronize()
        return self._frames[:count].numpy().copy()


class TorchRuntime:
    """See `engine.runtime.Runtime`. device: "cpu" or "cuda"; if not given, the model's, or CUDA
    where there is one. model: what plays the world; read from its files if not given
    (docs/adapters.md).
    """

    def __init__(
        self,
        world: World,
        device: str | None = None,
        model: tuple[CausalModel, Pictures] | None = None,
    ) -> None:
        self._world = world
        found = "cuda" if torch.cuda.is_available() else "cpu"
        self._device = torch.device(device or (model[0].device if model else found))
        self._is_cuda = self._device.type == "cuda"
        self._model, self._pictures = model or load_model(world, self._device)
        self._sampler: Sampler | None = None
        self._desks: dict[tuple[bool, int], _Desk] = {}
        self._recorded: dict[tuple[int, int], Any] = {}
        self._pool: Any = None
        self._owed: list[_Owed | None] = []
        self._latents, self._told = torch.zeros(0), torch.zeros(0)  # of every slot's owed frame
        self._changes = torch.zeros(0)  # of its latents, against the frame before
        self._shown_last = torch.zeros(0)  # of every slot, where pictures are refined
        self._pitch_deg = np.zeros(0)
        self._shown = np.zeros((0, 0), np.float32)
        self._cost_table: dict[tuple[int, int], float] = {}

    @property
    def world(self) -> World:
        return self._world

    @property
    def num_slots(self) -> int:
        return len(self._owed)

    def allocate(self, num_slots: int) -> None:
        """Fixed memory for that many sessions and one that nobody plays. Once only."""
        if self._sampler is not None:
            raise RuntimeError(f"{self.num_slots} slots are allocated already")
        config, count = self._world.config, num_slots + 1
        dtype = torch.bfloat16 if self._is_cuda else torch.float32
        self._sampler = Sampler(self._model, count, dtype)
        self._owed.extend([None] * num_slots)
        self._pitch_deg = np.zeros(num_slots)
        usual = config.action_space.encode_attributes({})
        self._shown = np.tile(usual, (num_slots, 1))
        told_width = config.action_space.told_width
        self._latents = torch.zeros((count, *self._model.latent_shape), device=self._device)
        self._told = torch.zeros((count, told_width), device=self._device)
        self._changes = torch.zeros(count, device=self._device)
        shape = (count, *config.frame_shape) if self._refines else (count, 0)
        self._shown_last = torch.zeros(shape, dtype=torch.uint8, device=self._device)
        for size in _sizes(num_slots):
            for keeps in (False, True):
                desk = _Desk(size, config, self._device)
                desk.fill((), (), (), nobody=num_slots)
                self._desks[keeps, size] = desk
            for num_steps in (*config.denoising_steps, REMEMBER) if self._is_cuda else ():
                self._recorded[num_steps, size] = self._record(num_steps, size)

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
        self._owed[slot] = None
        for i, picture in enumerate(pixels):
            told, index = self._tell(slot, actions[i]), first + i
            with self._precision():
                # A start out of one picture stands still: encode it once.
                if latents is None or not np.array_equal(frames[i], frames[i - 1]):
                    latents = self._pictures.encode(picture[None]).float()
                drawn = self._draw_noise(self._seeds([seed]), self._tensor([index]), COMMIT_STREAM)
                self._memory.commit([slot], latents, drawn, self._tensor(told[None]), [index])
            self._look(slot, told, actions[i, config.action_space.attribute_columns])
        if self._refines:
            self._shown_last[slot] = self._tensor(frames[-1])

    @torch.no_grad()
    def step(self, batch: Batch) -> NDArray[np.uint8]:
        """See `Runtime.step`."""
        self.commit(batch.slots)
        config, pairs = self._world.config, list(zip(batch.slots, batch.actions, strict=True))
        told = np.stack([self._tell(slot, action) for slot, action in pairs])
        fade = config.action_space.fade
        shown = np.stack(
            [fade(self._shown[slot], action, 1 / config.fps) for slot, action in pairs]
        )
        desk = self._desk(False, len(batch.slots))
        places = zip(told, self._pitch_deg[list(batch.slots)], strict=True)
        turns = np.stack([config.action_space.turn(*place) for place in places])
        given = (told, shown, turns)
        desk.fill(batch.slots, batch.seeds, batch.frame_indices, given, nobody=self.num_slots)
        self._run(batch.num_steps, desk)
        rows = zip(batch.slots, batch.frame_indices, batch.seeds, told, shown, strict=True)
        for slot, index, seed, heard, seen in rows:
            self._owed[slot] = _Owed(index, seed, heard, seen)
        return desk.read(len(batch.slots))

    @torch.no_grad()
    def commit(self, slots: Sequence[int]) -> None:
        """See `Runtime.commit`."""
        owed = {slot: frame for slot in slots if (frame := self._owed[slot]) is not None}
        if not owed:
            return
        desk, frames = self._desk(True, len(owed)), owed.values()
        seeds, indices = [f.seed for f in frames], [f.frame_index for f in frames]
        desk.fill(list(owed), seeds, indices, nobody=self.num_slots)
        self._run(REMEMBER, desk)
        for slot, frame in owed.items():
            self._look(slot, frame.told, frame.shown)
            self._owed[slot] = None

    def changes(self, slots: Sequence[int]) -> Sequence[float]:
        """See `Runtime.changes`."""
        return self._changes[list(slots)].tolist()

    def snapshot(self, slot: int) -> bytes:
        """See `Runtime.snapshot`."""
        arrays = {name: _array(part) for name, part in self._slot_tensors(slot).items()}
        arrays["pitch_deg"] = self._pitch_deg[slot : slot + 1]
        arrays["shown"] = self._shown[slot]
        values: dict[str, int | float | str] = {}
        owed = self._owed[slot]
        if owed is not None:
            arrays |= {"latents": _array(self._latents[slot]), "told": owed.told}
            arrays["now"] = owed.shown
            values = {"frame_index": owed.frame_index, "seed": owed.seed}
        return pack(self.kind, self._world.fingerprint, arrays, values)

    def restore(self, slot: int, snapshot: bytes) -> None:
        """See `Runtime.restore`."""
        arrays, values = unpack(self.kind, self._world.fingerprint, snapshot)
        memory = self._slot_tensors(slot)
        for name, place in memory.items():
            if name not in arrays or arrays[name].shape != tuple(place.shape):
                raise ReverieError(f"the saved session has no {name} of shape {tuple(place.shape)}")
        beside = {"pitch_deg": (1,), "shown": self._shown[slot].shape}
        for name, shape in beside.items():
            if name not in arrays or arrays[name].shape != shape:
                raise ReverieError(f"the saved session has no {name} of shape {shape}")
        if values:
            shapes = {
                "latents": tuple(self._latents[slot].shape),
                "told": tuple(self._told[slot].shape),
                "now": self._shown[slot].shape,
            }
            check_pending(arrays, values, shapes)
        for name, place in memory.items():
            place.copy_(torch.from_numpy(arrays[name]).view(place.dtype))
        self._pitch_deg[slot], self._shown[slot] = arrays["pitch_deg"][0], arrays["shown"]
        self._memory.num_frames[slot] = self._world.config.context
        self._owed[slot] = None
        if values:
            self._latents[slot] = self._tensor(arrays["latents"])
            self._told[slot] = self._tensor(arrays["told"])
            drawn = (arrays["told"], arrays["now"])
            self._owed[slot] = _Owed(values["frame_index"], values["seed"], *drawn)

    def cost_table(self) -> CostTable:
        """Medians of a few whole steps of every size of batch, and what its commit takes."""
        config = self._world.config
        smaller = 0
        for size in () if self._cost_table else _sizes(self.num_slots):
            if size > MAX_CPU_BATCH and not self._is_cuda:
                break
            slots = tuple(range(size))
            actions = np.zeros((size, config.action_space.width), np.float32)
            for num_steps in config.denoising_steps:
                batch = Batch(slots, actions, (0,) * size, (0,) * size, num_steps)
                steps, commits = [], []
                for _ in range(NUM_TIMED):
                    steps.append(self._elapsed_ms(lambda: self.step(batch)))  # noqa: B023
                    commits.append(self._elapsed_ms(lambda: self.commit(slots)))  # noqa: B023
                for b in range(smaller + 1, size + 1):
                    self._cost_table[b, num_steps] = statistics.median(steps)
                    self._cost_table[b, 0] = statistics.median(commits)
            smaller = size
        return self._cost_table

    @property
    def device(self) -> str:
        """That networks run on: "cpu" or "cuda"."""
        return self._device.type

    @property
    def precision(self) -> str:
        """That networks multiply in."""
        return "bfloat16" if self._is_cuda else "float32"

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
        shown = self._tensor(self._shown[:1])
        turn = torch.zeros(1, 3, device=self._device)
        slot = index = torch.zeros(1, dtype=torch.int64, device=self._device)
        works: dict[str, Callable[[], object]] = {
            "denoise": lambda: memory.draw(slot, latents, told, index, 1),
            "commit": lambda: memory.remember(slot, latents, latents, told, index),
            "decode": lambda: self._decode(latents, shown, slot, turn).cpu(),
        }

        @torch.no_grad()
        def finished(work: Callable[[], object]) -> float:
            with self._precision():
                return self._elapsed_ms(work)

        return {name: partial(finished, work) for name, work in works.items()}

    @property
    def _refines(self) -> bool:
        pictures = self._pictures
        return isinstance(pictures, Autoencoder) and bool(pictures.config.refiner)

    @property
    def kind(self) -> str:
        return "torch slot" if self._device.type == "cpu" else f"torch {self._device.type} slot"

    @property
    def _memory(self) -> Sampler:
        if self._sampler is None:
            raise RuntimeError("no slots; call allocate first")
        return self._sampler

    def _slot_tensors(self, slot: int) -> dict[str, Tensor]:
        memory = self._memory
        own = {"state": memory.state[slot]}
        if self._refines:
            own["picture"] = self._shown_last[slot]
        return {**{name: ring[slot] for name, ring in memory.rings.items()}, **own}

    def _desk(self, keeps: bool, count: int) -> _Desk:
        """The smallest that holds a batch of this size. Commits have their own: nobody waits for
        them, so theirs may still be read when the next step is written.
        """
        return self._desks[keeps, next(s for s in _sizes(self.num_slots) if s >= count)]

    def _run(self, num_steps: int, desk: _Desk) -> None:
        """Draw the frames of a batch, or remember them."""
        recorded = self._recorded.get((num_steps, desk.size))
        if recorded is None:
            self._work(num_steps, desk)
        else:
            recorded.replay()

    def _work(self, num_steps: int, desk: _Desk) -> None:
        slots, indices = desk.slots, desk.indices
        with self._precision():
            if num_steps == REMEMBER:
                drawn = self._draw_noise(desk.seeds, indices, COMMIT_STREAM)
                given = (self._latents[slots], drawn, self._told[slots], indices)
                self._memory.remember(slots, *given)
                return
            drawn = self._draw_noise(desk.seeds, indices, SAMPLE_STREAM)
            start = drawn * self._world.config.noise_scale
            latents = self._memory.draw(slots, start, desk.told, indices, num_steps).float()
            desk.frames.copy_(self._decode(latents, desk.shown, slots, desk.turn))
        if self._refines:
            self._shown_last[slots] = desk.frames
        change = (latents - self._latents[slots]).square().flatten(1).mean(1).sqrt()
        self._changes[slots] = change
        self._latents[slots], self._told[slots] = latents, desk.told

    def _decode(self, latents: Tensor, shown: Tensor, slots: Tensor, turn: Tensor) -> Tensor:
        """Frames of these slots that show these attributes, which only our own worlds have."""
        if not isinstance(self._pictures, Autoencoder):
            return to_frames(self._pictures.decode(latents).float())
        before = to_pixels(self._shown_last[slots]) if self._refines else None
        return to_frames(self._pictures.decode(latents, shown, before, turn).float())

    def _record(self, num_steps: int, size: int) -> Any:
        """The work of a batch as a CUDA graph. Recorded on the slot that nobody plays."""
        desk = self._desks[num_steps == REMEMBER, size]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), torch.no_grad():
            for _ in range(2):  # libraries choose and allocate in their first calls
                self._work(num_steps, desk)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # One pool for all: none runs beside another, and what they leave lies outside of it.
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        with torch.no_grad(), torch.cuda.graph(graph, pool=self._pool):
            self._work(num_steps, desk)
        return graph

    def _precision(self) -> AbstractContextManager[Any]:
        # Without its cache: what it casts while a graph is recorded would be gone in the next one.
        return torch.autocast(
            self._device.type, torch.bfloat16, enabled=self._is_cuda, cache_enabled=False
        )

    def _tell(self, slot: int, action: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the denoiser is told of a slot's next frame, [told_width]."""
        space = self._world.config.action_space
        return space.tell(action, space.pitch_after(float(self._pitch_deg[slot]), action))

    def _look(self, slot: int, told: NDArray[np.float32], shown: NDArray[np.float32]) -> None:
        """Where a slot's camera looks after a frame, and what it showed."""
        self._shown[slot] = shown
        if limit := self._world.config.action_space.camera_limit:
            self._pitch_deg[slot] = float(told[-1]) * limit

    def _tensor(self, values: Any) -> Tensor:
        return torch.from_numpy(np.array(values)).to(self._device)

    def _seeds(self, seeds: Sequence[int]) -> Tensor:
        """Of 64 bits, which PyTorch has with a sign only."""
        return self._tensor(np.array(seeds, np.uint64).view(np.int64))

    def _draw_noise(self, seeds: Tensor, indices: Tensor, stream: int) -> Tensor:
        """[b, *latent_shape]. On a CPU that of every other runtime for CPUs."""
        shape = self._model.latent_shape
        if self._is_cuda:
            return device_noise(seeds, indices, stream, shape)
        pairs = zip(seeds.numpy().view(np.uint64).tolist(), indices.tolist(), strict=True)
        return torch.from_numpy(np.stack([noise(*pair, stream, shape) for pair in pairs]))

    def _elapsed_ms(self, run: Callable[[], object]) -> float:
        started_s = time.perf_counter()
        run()
        if self._is_cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - started_s) * 1000


def _sizes(num_slots: int) -> list[int]:
    """Of batches: powers of two, and all slots together."""
    return sorted({*(2**i for i in range(num_slots.bit_length())), num_slots} - {0})


def _array(tensor: Tensor) -> NDArray[Any]:
    """Numpy has no bfloat16: its bits."""
    tensor = tensor.cpu()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
