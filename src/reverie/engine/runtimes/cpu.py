"""The fast runtime for CPUs: a world's graphs in ONNX Runtime or OpenVINO, caches read in place.

A slot's cache is bound to the denoiser once, by address, straight from the `CachePool`: a pass
copies nothing but the frame it has just made. One session at a time runs on all threads; several
run beside each other, each on one thread. That is faster than one pass over a batch of them, and a
session's frames do not depend, not even in the last bit, on who else plays (docs/log.md).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverie.core import ReverieError
from reverie.engine.cache_pool import CachePool
from reverie.engine.runtime import COMMIT_STREAM, SAMPLE_STREAM, Batch, CostTable, check_clip, noise
from reverie.engine.runtimes.graphs import Arrays, Graphs, GraphShape, check_graphs
from reverie.engine.snapshot import pack, unpack
from reverie.world import World

MAX_THREADS = 4
MAX_BATCH = 4
NUM_TIMED = 5

Floats = NDArray[np.float32]


@dataclass(slots=True)
class _Pending:
    """A frame that was drawn but is not in the cache yet."""

    latents: Floats
    told: Floats
    shown: Floats
    frame_index: int
    seed: int


class _Pass:
    """What the denoiser reads and writes for one slot, at addresses that bindings point to."""

    def __init__(self, shape: GraphShape, pool: CachePool, slot: int) -> None:
        n, cache = shape.num_tokens, shape.cache
        layers, entries = range(cache.num_layers), (1, cache.num_heads, n, cache.head_width)
        self.inputs: dict[str, NDArray[Any]] = {
            "noisy": np.zeros((1, n, shape.num_channels), np.float32),
            "signal": np.zeros(1, np.float32),
            "step_size": np.zeros(1, np.float32),
            "action": np.zeros((1, shape.action_width), np.float32),
            "phase_cos": np.zeros((1, shape.num_phases), np.float32),
            "phase_sin": np.zeros((1, shape.num_phases), np.float32),
        }
        self.caches: Arrays = {name: array[None] for name, array in pool.slot_arrays(slot).items()}
        self.clean = np.zeros_like(self.inputs["noisy"])
        self.new_k = [np.zeros(entries, pool.cache_type) for _ in layers]
        self.new_v = [np.zeros(entries, pool.cache_type) for _ in layers]
        self._outputs: Arrays = {"clean": self.clean}
        self._outputs |= {f"new_k.{i}": array for i, array in enumerate(self.new_k)}
        self._outputs |= {f"new_v.{i}": array for i, array in enumerate(self.new_v)}
        self._bound: dict[int, Callable[[], None]] = {}

    def set(self, told: Floats, phases: NDArray[np.float64]) -> None:
        """What stays the same in all passes over one frame."""
        self.inputs["action"][0] = told
        self.inputs["phase_cos"][0], self.inputs["phase_sin"][0] = np.cos(phases), np.sin(phases)

    def run(self, graphs: Graphs, noisy: Floats, signal: float, step_size: float) -> Floats:
        """One pass over latents [n, c]; returns the clean ones, which the next pass overwrites."""
        self._fill(noisy, signal, step_size)
        if id(graphs) not in self._bound:
            self._bound[id(graphs)] = graphs.bind(self.inputs | self.caches, self._outputs)
        self._bound[id(graphs)]()
        return self.clean[0]

    def run_on_part(
        self, graphs: Graphs, noisy: Floats, signal: float, step_size: float, num_entries: int
    ) -> None:
        """One pass that sees only the first entries of the cache."""
        self._fill(noisy, signal, step_size)
        part = {name: cache[:, :, :num_entries].copy() for name, cache in self.caches.items()}
        graphs.bind(self.inputs | part, self._outputs)()

    def _fill(self, noisy: Floats, signal: float, step_size: float) -> None:
        self.inputs["noisy"][0] = noisy
        self.inputs["signal"][0] = signal
        self.inputs["step_size"][0] = step_size


class CpuRuntime:
    """See `engine.runtime.Runtime`.

    library: what runs the graphs. num_threads: that work at the same time; as many as the machine
    has cores, up to 4, if not given. Raises ReverieError on graphs that do not fit the world's
    config or cannot be run.
    """

    def __init__(
        self,
        world: World,
        library: type[Graphs],
        num_threads: int | None = None,
    ) -> None:
        self._world = world
        self._num_threads = num_threads or min(os.cpu_count() or 1, MAX_THREADS)
        self._library = library
        self._wide = library(world, self._num_threads, 1)
        self._narrow = self._wide  # one thread each, for sessions beside each other
        self.shape = check_graphs(world, self._wide.shapes)
        denoiser = world.config.denoiser
        self._frequencies = np.array(denoiser["frequencies"], np.float64)
        self._has_camera = denoiser["camera_column"] is not None
        self._camera_column = int(denoiser["camera_column"] or 0)
        self._camera_tokens = float(denoiser["camera_tokens"])
        self._finest = float(denoiser["min_step_size"])
        self._camera = np.zeros((0, 2))  # of every slot: degrees down, columns right
        self._shown: Floats = np.zeros((0, 0), np.float32)  # of every slot: attributes
        self._refines = "before" in self.shape.decodes
        self._pictures = np.zeros((0, 0, 0, 3), np.uint8)  # of every slot: shown last
        self._pool: CachePool | None = None
        self._passes: list[_Pass] = []
        self._pending: list[_Pending | None] = []
        self._lanes: ThreadPoolExecutor | None = None
        self._cost_table: dict[tuple[int, int], float] = {}

    @property
    def world(self) -> World:
        return self._world

    @property
    def num_slots(self) -> int:
        return len(self._passes)

    def allocate(self, num_slots: int) -> None:
        """Fixed memory for that many sessions, and one pass through everything. Once only."""
        if self._pool is not None:
            raise RuntimeError(f"{self.num_slots} slots are allocated already")
        self._pool = CachePool(num_slots, self.shape.cache, self._wide.cache_type)
        self._passes = [_Pass(self.shape, self._pool, slot) for slot in range(num_slots)]
        self._pending = [None] * num_slots
        self._camera = np.zeros((num_slots, 2))
        usual = self._world.config.action_space.encode_attributes({})
        self._shown = np.tile(usual, (num_slots, 1))
        self._pictures = np.zeros((num_slots, *self._world.config.frame_shape), np.uint8)
        if num_slots > 1 and self._num_threads > 1:
            self._narrow = self._library(self._world, 1, self._num_threads)
            self._lanes = ThreadPoolExecutor(self._num_threads, "networks")
        config = self._world.config
        blank = np.zeros((1, *config.frame_shape), np.uint8)
        idle = np.zeros((num_slots, config.action_space.width), np.float32)
        self.prefill(0, blank, idle[:1], 0)
        for b in sorted({1, num_slots}):
            slots = tuple(range(b))
            self.step(Batch(slots, idle[:b], (0,) * b, (0,) * b, 1))
            self.commit(slots)

    def prefill(
        self,
        slot: int,
        frames: NDArray[np.uint8],
        actions: NDArray[np.float32],
        seed: int,
        first_index: int | None = None,
        pitch_deg: float = 0.0,
    ) -> None:
        """See `Runtime.prefill`. One commit pass per frame."""
        check_clip(self._world.config, frames, actions)
        first = -len(frames) if first_index is None else first_index
        for i, (frame, action) in enumerate(zip(frames, actions, strict=True)):
            latents = self._wide.encode(np.ascontiguousarray(frame[None]))
            self._pending[slot] = None
            if first + i == -self._world.config.context:
                self._forget(slot, pitch_deg)
            said = action[self._world.config.action_space.attribute_columns]
            pending = _Pending(latents[0], self._tell(slot, action), said, first + i, seed)
            self._commit(slot, pending, self._wide)
            self._pictures[slot] = frame

    def step(self, batch: Batch) -> NDArray[np.uint8]:
        """See `Runtime.step`."""
        self.commit(batch.slots)

        def draw(row: int, graphs: Graphs) -> None:
            slot, index, seed = batch.slots[row], batch.frame_indices[row], batch.seeds[row]
            told = self._tell(slot, batch.actions[row])
            latents = self._sample(slot, told, index, seed, batch.num_steps, graphs)
            config = self._world.config
            shown = config.action_space.fade(self._shown[slot], batch.actions[row], 1 / config.fps)
            self._pictures[slot] = self._decode(slot, latents, told, shown, graphs)
            self._pending[slot] = _Pending(latents, told, shown, index, seed)

        self._beside(draw, range(len(batch.slots)))
        return self._pictures[list(batch.slots)]

    def commit(self, slots: Sequence[int]) -> None:
        """See `Runtime.commit`."""

        def remember(slot: int, graphs: Graphs) -> None:
            pending = self._pending[slot]
            if pending is not None:
                self._commit(slot, pending, graphs)
                self._pending[slot] = None

        self._beside(remember, [slot for slot in slots if self._pending[slot] is not None])

    def snapshot(self, slot: int) -> bytes:
        """See `Runtime.snapshot`."""
        arrays: dict[str, NDArray[Any]] = dict(self._slot_arrays(slot))
        values: dict[str, int | float | str] = {}
        pending = self._pending[slot]
        if pending is not None:
            arrays |= {"latents": pending.latents, "told": pending.told, "now": pending.shown}
            values = {"frame_index": pending.frame_index, "seed": pending.seed}
        return pack(self._snapshot_kind, self._world.fingerprint, arrays, values)

    def restore(self, slot: int, snapshot: bytes) -> None:
        """See `Runtime.restore`."""
        arrays, values = unpack(self._snapshot_kind, self._world.fingerprint, snapshot)
        memory = self._slot_arrays(slot)
        for name, place in memory.items():
            if name not in arrays or arrays[name].shape != place.shape:
                raise ReverieError(f"the saved session has no {name} of shape {place.shape}")
        for name, place in memory.items():
            place[:] = arrays[name]
        self._pending[slot] = None
        if "frame_index" in values:
            drawn = (arrays["latents"], arrays["told"], arrays["now"])
            self._pending[slot] = _Pending(*drawn, **values)

    def cost_table(self) -> CostTable:
        """Medians of a few runs of each part, for up to 4 sessions, added up to whole steps."""
        for b in range(1, min(self.num_slots, MAX_BATCH) + 1):
            if (b, 0) in self._cost_table:
                continue
            once_ms, decode_ms = self._measure(b)
            self._cost_table[b, 0] = once_ms
            for num_steps in self._world.config.denoising_steps:
                self._cost_table[b, num_steps] = num_steps * once_ms + decode_ms
        return self._cost_table

    @property
    def device(self) -> str:
        """That networks run on."""
        return "cpu"

    @property
    def precision(self) -> str:
        """That networks multiply in."""
        return "bfloat16" if self._has_halves else "float32"

    @property
    def num_threads(self) -> int:
        """That work at the same time."""
        return self._num_threads

    @property
    def slot_bytes(self) -> int:
        """What one session remembers."""
        return sum(array.nbytes for array in self._slot_arrays(0).values())

    def stages(self) -> dict[str, Callable[[], object]]:
        """Of a frame of slot 0, each to be measured alone; after `allocate`. copy: what commit does
        beside its pass.
        """
        latents = np.zeros((self.shape.num_tokens, self.shape.num_channels), np.float32)
        told = np.zeros(self.shape.action_width, np.float32)
        shown = self._shown[0]
        run, frame = self._passes[0], _Pending(latents, told, shown, 0, 0)
        new_k, new_v = ([layer[0] for layer in new] for new in (run.new_k, run.new_v))
        return {
            "denoise": lambda: run.run(self._wide, latents, 0.0, 1.0),
            "commit": lambda: self._commit(0, frame, self._wide),
            "copy": lambda: self._memory.write(0, 0, new_k, new_v),
            "decode": lambda: self._decode(0, latents, told, shown, self._wide),
        }

    @property
    def _has_halves(self) -> bool:
        return self._wide.cache_type != np.float32

    @property
    def _snapshot_kind(self) -> str:
        return f"{self._wide.name} slot" + (" in bfloat16" if self._has_halves else "")

    @property
    def _memory(self) -> CachePool:
        if self._pool is None:
            raise RuntimeError("no slots; call allocate first")
        return self._pool

    def _beside(self, work: Callable[[int, Graphs], None], items: Sequence[int]) -> None:
        """Do work for every item: one on all threads, several beside each other."""
        if len(items) > 1 and self._lanes is not None:
            for _ in self._lanes.map(lambda item: work(item, self._narrow), items):
                pass  # raises what the work raised
        else:
            for item in items:
                work(item, self._wide)

    def _sample(
        self, slot: int, told: Floats, index: int, seed: int, num_steps: int, graphs: Graphs
    ) -> Floats:
        """The sampler's loop, Euler steps from noise to clean latents: float32 [n, c]."""
        run = self._passes[slot]
        run.set(told, self._phases(slot, told, index))
        z = self._noise(seed, index, SAMPLE_STREAM) * np.float32(self._world.config.noise_scale)
        step_size = 1 / num_steps
        for k in range(num_steps):
            signal = k * step_size
            clean = run.run(graphs, z, signal, step_size)
            z = np.asarray(z + (clean - z) * (step_size / (1 - signal)), np.float32)
        return z

    def _decode(
        self, slot: int, latents: Floats, told: Floats, shown: Floats, graphs: Graphs
    ) -> NDArray[np.uint8]:
        """A slot's next frame, [h, w, 3], after the one it showed last."""
        given: Arrays = {"latents": latents[None], "attributes": shown[None]}
        if self._refines:
            space = self._world.config.action_space
            given["before"] = self._pictures[slot][None]
            given["turn"] = space.turn(told, float(self._camera[slot, 0]))[None]
        return graphs.decode({name: given[name] for name in self.shape.decodes})[0]

    def _commit(self, slot: int, frame: _Pending, graphs: Graphs) -> None:
        """One pass over nearly clean latents, whose keys and values go into the ring."""
        run = self._passes[slot]
        signal = float(self._world.config.context_signal)
        drawn = self._noise(frame.seed, frame.frame_index, COMMIT_STREAM)
        noisy = np.asarray(signal * _normalise(frame.latents) + (1 - signal) * drawn, np.float32)
        place = frame.frame_index + self._world.config.context
        if place < 0:
            raise ReverieError(
                f"frame {frame.frame_index} lies before the context of "
                f"{self._world.config.context} frames"
            )
        run.set(frame.told, self._phases(slot, frame.told, frame.frame_index))
        if self.shape.has_open_past and frame.frame_index < 0:
            num_entries = place * self.shape.num_tokens
            run.run_on_part(graphs, noisy, signal, self._finest, num_entries)
        else:
            run.run(graphs, noisy, signal, self._finest)
        new_k, new_v = ([layer[0] for layer in new] for new in (run.new_k, run.new_v))
        self._memory.write(slot, frame.frame_index, new_k, new_v)
        self._shown[slot] = frame.shown
        self._camera[slot, 1] += self._turn(frame.told)
        if self._has_camera:
            limit = self._world.config.action_space.camera_limit
            self._camera[slot, 0] = float(frame.told[-1]) * limit

    def _forget(self, slot: int, pitch_deg: float) -> None:
        """A session begins: nothing of the slot's last one may be left."""
        for array in self._slot_arrays(slot).values():
            array[:] = 0
        self._camera[slot, 0] = pitch_deg

    def _phases(self, slot: int, told: Floats, frame_index: int) -> NDArray[np.float64]:
        """Rotary phases of a slot's next frame. In float64: after hours of play, float32 would blur
        those of neighbouring frames.
        """
        row = float(told[-1]) * self._camera_tokens if self._has_camera else 0.0
        column = self._camera[slot, 1] + self._turn(told)
        return np.array([row, column, frame_index]) @ self._frequencies

    def _turn(self, told: Floats) -> float:
        """Columns by which an action turns the camera right."""
        return float(told[self._camera_column]) * self._camera_tokens if self._has_camera else 0.0

    def _tell(self, slot: int, action: Floats) -> Floats:
        """What the denoiser is told of a slot's next frame, [told_width]."""
        space = self._world.config.action_space
        return space.tell(action, space.pitch_after(float(self._camera[slot, 0]), action))

    def _slot_arrays(self, slot: int) -> dict[str, NDArray[Any]]:
        """Everything that a slot remembers, in place."""
        own = {"camera": self._camera[slot], "shown": self._shown[slot]}
        if self._refines:
            own["picture"] = self._pictures[slot]
        return {**self._memory.slot_arrays(slot), **own}

    def _noise(self, seed: int, frame_index: int, stream: int) -> Floats:
        return noise(seed, frame_index, stream, (self.shape.num_tokens, self.shape.num_channels))

    def _measure(self, b: int) -> tuple[float, float]:
        """Milliseconds of one denoising pass and of one decoding for each of b sessions."""
        latents = np.zeros((self.shape.num_tokens, self.shape.num_channels), np.float32)

        def denoise(slot: int, graphs: Graphs) -> None:
            self._passes[slot].run(graphs, latents, 0.0, 1.0)

        told = np.zeros(self.shape.action_width, np.float32)

        def decode(slot: int, graphs: Graphs) -> None:
            self._decode(slot, latents, told, self._shown[slot], graphs)

        return self._least_ms(denoise, b), self._least_ms(decode, b)

    def _least_ms(self, work: Callable[[int, Graphs], None], b: int) -> float:
        # Whatever else the machine does now only adds time; the engine learns the rest as it plays.
        times = []
        for _ in range(NUM_TIMED + 1):
            started_s = time.perf_counter()
            self._beside(work, range(b))
            times.append((time.perf_counter() - started_s) * 1000)
        return min(times[1:])


def _normalise(latents: Floats) -> Floats:
    """Every token to mean 0 and variance 1 over its channels, as the encoder leaves them."""
    centred = latents - latents.mean(-1, keepdims=True)
    variance = np.square(centred).mean(-1, keepdims=True, dtype=np.float32)
    return centred / np.sqrt(variance + np.float32(1e-6))
