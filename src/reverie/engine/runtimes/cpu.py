"""The fast runtime for CPUs: a world's graphs in ONNX Runtime or OpenVINO, caches read in place.

A slot's cache is bound to the denoiser once, by address, straight from the `CachePool`: a pass
copies nothing but the frame it has just made. One session alone runs on all threads; several are
dealt out to the threads, and each thread passes over its share at once. That is faster than one
pass over all of them on all threads, and a session's frames do not depend, not even in the last
bit, on who else plays (docs/log.md).
"""

from __future__ import annotations

import math
import os
import statistics
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
from reverie.engine.runtimes.sharing import GROUPS, share_out
from reverie.engine.snapshot import check_pending, pack, unpack
from reverie.world import World

MAX_THREADS = 4
MAX_BATCH = 8
MOST_REST_S = 0.03
"""Before each frame that is measured, at most: start-up shall stay short."""
NUM_TIMED = 4

Floats = NDArray[np.float32]
Slots = Sequence[int]
"""That follow each other, such as 3, 4, 5."""


@dataclass(slots=True)
class _Pending:
    """A frame that was drawn but is not in the cache yet."""

    latents: Floats
    told: Floats
    shown: Floats
    frame_index: int
    seed: int


class _Pass:
    """What the denoiser reads and writes for b slots that follow each other, at addresses that
    bindings point to.
    """

    def __init__(self, shape: GraphShape, pool: CachePool, slots: slice) -> None:
        b, n, cache = slots.stop - slots.start, shape.num_tokens, shape.cache
        layers, entries = range(cache.num_layers), (b, cache.num_heads, n, cache.head_width)
        self.inputs: dict[str, NDArray[Any]] = {
            "noisy": np.zeros((b, n, shape.num_channels), np.float32),
            "signal": np.zeros(b, np.float32),
            "step_size": np.zeros(b, np.float32),
            "action": np.zeros((b, shape.action_width), np.float32),
            "phase_cos": np.zeros((b, shape.num_phases), np.float32),
            "phase_sin": np.zeros((b, shape.num_phases), np.float32),
        }
        self.caches: Arrays = pool.slot_arrays(slots)
        self.clean = np.zeros_like(self.inputs["noisy"])
        self.new_k = [np.zeros(entries, pool.cache_type) for _ in layers]
        self.new_v = [np.zeros(entries, pool.cache_type) for _ in layers]
        self._drawn: Arrays = {"clean": self.clean}
        self._entries: Arrays = {f"new_k.{i}": array for i, array in enumerate(self.new_k)}
        self._entries |= {f"new_v.{i}": array for i, array in enumerate(self.new_v)}
        self._bound: dict[tuple[int, int], Callable[[], None]] = {}

    def set(self, told: Floats, phases: NDArray[np.float64]) -> None:
        """What stays the same in all passes over one frame."""
        self.inputs["action"][:] = told
        self.inputs["phase_cos"][:], self.inputs["phase_sin"][:] = np.cos(phases), np.sin(phases)

    def draw(self, graphs: Graphs, noisy: Floats, signal: float, step_size: float) -> Floats:
        """One pass over latents [b, n, c]; returns clean ones, which the next overwrites."""
        self._fill(noisy, signal, step_size)
        self._run(graphs, self._drawn)
        return self.clean

    def remember(self, graphs: Graphs, noisy: Floats, signal: float, step_size: float) -> None:
        """One pass for its keys and values."""
        self._fill(noisy, signal, step_size)
        self._run(graphs, self._entries)

    def remember_early(
        self, graphs: Graphs, noisy: Floats, signal: float, step_size: float, num_entries: int
    ) -> None:
        """The same with only the first entries of the cache."""
        self._fill(noisy, signal, step_size)
        part = {name: cache[:, :, :num_entries].copy() for name, cache in self.caches.items()}
        graphs.bind(self.inputs | part, self._entries)()

    def _run(self, graphs: Graphs, outputs: Arrays) -> None:
        key = id(graphs), id(outputs)
        if key not in self._bound:
            self._bound[key] = graphs.bind(self.inputs | self.caches, outputs)
        self._bound[key]()

    def _fill(self, noisy: Floats, signal: float, step_size: float) -> None:
        self.inputs["noisy"][:] = noisy
        self.inputs["signal"][:] = signal
        self.inputs["step_size"][:] = step_size


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
        self._wide = library(world, self._num_threads)
        self._narrow = self._wide  # one thread each, for several sessions
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
        self._latents = np.zeros((0, 0, 0), np.float32)  # of every slot: drawn last
        self._changes = np.zeros(0)
        self._pool: CachePool | None = None
        self._passes: dict[tuple[int, int], _Pass] = {}
        self._pending: list[_Pending | None] = []
        self._lanes: ThreadPoolExecutor | None = None
        self._cost_table: dict[tuple[int, int], float] = {}

    @property
    def world(self) -> World:
        return self._world

    @property
    def num_slots(self) -> int:
        return len(self._pending)

    def allocate(self, num_slots: int) -> None:
        """Fixed memory for that many sessions, and one pass through everything. Once only."""
        if self._pool is not None:
            raise RuntimeError(f"{self.num_slots} slots are allocated already")
        self._pool = CachePool(num_slots, self.shape.cache, self._wide.cache_type)
        self._pending = [None] * num_slots
        self._camera = np.zeros((num_slots, 2))
        usual = self._world.config.action_space.encode_attributes({})
        self._shown = np.tile(usual, (num_slots, 1))
        self._pictures = np.zeros((num_slots, *self._world.config.frame_shape), np.uint8)
        latent_shape = (self.shape.num_tokens, self.shape.num_channels)
        self._latents = np.zeros((num_slots, *latent_shape), np.float32)
        self._changes = np.zeros(num_slots)
        if num_slots > 1:
            share = -(-num_slots // self._num_threads)
            sizes = [size for size in GROUPS if size <= share]
            self._narrow = self._library(self._world, 1, self._num_threads, sizes)
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
            self._commit((slot,), [pending], self._wide)
            self._pictures[slot] = frame

    def step(self, batch: Batch) -> NDArray[np.uint8]:
        """See `Runtime.step`."""
        self.commit(batch.slots)

        row_of = {slot: row for row, slot in enumerate(batch.slots)}
        space, fade_s = self._world.config.action_space, 1 / self._world.config.fps

        def draw(slots: Slots, graphs: Graphs) -> None:
            rows = [row_of[slot] for slot in slots]
            actions = batch.actions[rows]
            indices = [batch.frame_indices[row] for row in rows]
            seeds = [batch.seeds[row] for row in rows]
            told = np.stack([self._tell(*pair) for pair in zip(slots, actions, strict=True)])
            shown = np.stack(
                [space.fade(self._shown[s], a, fade_s) for s, a in zip(slots, actions, strict=True)]
            )
            latents = self._sample(slots, told, indices, seeds, batch.num_steps, graphs)
            self._pictures[list(slots)] = self._decode(slots, latents, told, shown, graphs)
            change = np.square(latents - self._latents[list(slots)]).mean((1, 2))
            self._changes[list(slots)] = np.sqrt(change)
            self._latents[list(slots)] = latents
            for frame in zip(slots, latents, told, shown, indices, seeds, strict=True):
                self._pending[frame[0]] = _Pending(*frame[1:])

        self._beside(draw, batch.slots)
        return self._pictures[list(batch.slots)]

    def commit(self, slots: Sequence[int]) -> None:
        """See `Runtime.commit`."""

        def remember(slots: Slots, graphs: Graphs) -> None:
            frames = [frame for slot in slots if (frame := self._pending[slot]) is not None]
            self._commit(slots, frames, graphs)
            for slot in slots:
                self._pending[slot] = None

        self._beside(remember, [slot for slot in slots if self._pending[slot] is not None])

    def changes(self, slots: Sequence[int]) -> Sequence[float]:
        """See `Runtime.changes`."""
        return self._changes[list(slots)].tolist()

    def snapshot(self, slot: int) -> bytes:
        """See `Runtime.snapshot`."""
        arrays: dict[str, NDArray[Any]] = dict(self._slot_arrays(slot))
        values: dict[str, int | float | str] = {}
        pending = self._pending[slot]
        if pending is not None:
            arrays |= {"latents": pending.latents, "told": pending.told, "now": pending.shown}
            values = {"frame_index": pending.frame_index, "seed": pending.seed}
        return pack(self.kind, self._world.fingerprint, arrays, values)

    def restore(self, slot: int, snapshot: bytes) -> None:
        """See `Runtime.restore`."""
        arrays, values = unpack(self.kind, self._world.fingerprint, snapshot)
        memory = self._slot_arrays(slot)
        for name, place in memory.items():
            if name not in arrays or arrays[name].shape != place.shape:
                raise ReverieError(f"the saved session has no {name} of shape {place.shape}")
        if values:
            latents = (self.shape.num_tokens, self.shape.num_channels)
            shapes = {"told": (self.shape.action_width,), "now": self._shown[slot].shape}
            check_pending(arrays, values, {"latents": latents, **shapes})
        for name, place in memory.items():
            place[:] = arrays[name]
        self._pending[slot] = None
        if values:
            now = arrays["now"]
            self._pending[slot] = _Pending(arrays["latents"], arrays["told"], now, **values)

    def cost_table(self) -> CostTable:
        """The better half of a few frames of every size of batch, up to 8 sessions, as play is: one
        in a period, since cores that slept are slow to wake. What the machine does besides only
        adds time, so a batch costs no more than a larger one.
        """
        if not self._cost_table:
            least = (math.inf,) * 3
            for b in range(min(self.num_slots, MAX_BATCH), 0, -1):
                least = tuple(map(min, self._measure(b), least))
                frame_ms, commit_ms, pass_ms = least
                self._cost_table[b, 0] = commit_ms
                for num_steps in self._world.config.denoising_steps:
                    self._cost_table[b, num_steps] = frame_ms + (num_steps - 1) * pass_ms
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
        latents = np.zeros((1, self.shape.num_tokens, self.shape.num_channels), np.float32)
        told = np.zeros((1, self.shape.action_width), np.float32)
        shown = self._shown[:1]
        run, frame = self._pass((0,)), _Pending(latents[0], told[0], shown[0], 0, 0)
        new_k, new_v = ([layer[0] for layer in new] for new in (run.new_k, run.new_v))
        return {
            "denoise": lambda: run.draw(self._wide, latents, 0.0, 1.0),
            "commit": lambda: self._commit((0,), [frame], self._wide),
            "copy": lambda: self._memory.write(0, 0, new_k, new_v),
            "decode": lambda: self._decode((0,), latents, told, shown, self._wide),
        }

    @property
    def _has_halves(self) -> bool:
        return self._wide.cache_type != np.float32

    @property
    def kind(self) -> str:
        return f"{self._wide.name} slot" + (" in bfloat16" if self._has_halves else "")

    @property
    def _memory(self) -> CachePool:
        if self._pool is None:
            raise RuntimeError("no slots; call allocate first")
        return self._pool

    def _pass(self, slots: Slots) -> _Pass:
        """What was bound for these slots, or will be from now on."""
        key = slots[0], slots[-1] + 1
        if key not in self._passes:
            self._passes[key] = _Pass(self.shape, self._memory, slice(*key))
        return self._passes[key]

    def _beside(self, work: Callable[[Slots, Graphs], None], slots: Sequence[int]) -> None:
        """Do work for all slots: one alone on all threads, several in groups, one to a thread."""
        if len(slots) == 1 or self._lanes is None:
            for slot in slots:
                work((slot,), self._wide)
            return
        groups = share_out(sorted(slots), self._num_threads)
        for _ in self._lanes.map(lambda group: work(group, self._narrow), groups):
            pass  # raises what the work raised

    def _sample(
        self,
        slots: Slots,
        told: Floats,
        indices: Sequence[int],
        seeds: Sequence[int],
        num_steps: int,
        graphs: Graphs,
    ) -> Floats:
        """The sampler's loop, Euler steps from noise to clean latents: float32 [b, n, c]."""
        run = self._pass(slots)
        run.set(told, self._phases(slots, told, indices))
        drawn = (self._noise(s, i, SAMPLE_STREAM) for s, i in zip(seeds, indices, strict=True))
        z = np.stack(list(drawn)) * np.float32(self._world.config.noise_scale)
        step_size = 1 / num_steps
        for k in range(num_steps):
            signal = k * step_size
            clean = run.draw(graphs, z, signal, step_size)
            z = np.asarray(z + (clean - z) * (step_size / (1 - signal)), np.float32)
        return z

    def _decode(
        self, slots: Slots, latents: Floats, told: Floats, shown: Floats, graphs: Graphs
    ) -> NDArray[np.uint8]:
        """The slots' next frames, [b, h, w, 3], after those they showed last."""
        given: Arrays = {"latents": latents, "attributes": shown}
        if self._refines:
            space = self._world.config.action_space
            given["before"] = self._pictures[list(slots)]
            turns = zip(told, self._camera[list(slots), 0].tolist(), strict=True)
            given["turn"] = np.stack([space.turn(*turn) for turn in turns])
        return graphs.decode({name: given[name] for name in self.shape.decodes})

    def _commit(self, slots: Slots, frames: Sequence[_Pending], graphs: Graphs) -> None:
        """One pass over nearly clean latents, whose keys and values go into the rings."""
        run = self._pass(slots)
        signal = float(self._world.config.context_signal)
        drawn = np.stack([self._noise(f.seed, f.frame_index, COMMIT_STREAM) for f in frames])
        clean = _normalise(np.stack([frame.latents for frame in frames]))
        noisy = np.asarray(signal * clean + (1 - signal) * drawn, np.float32)
        first = min(frame.frame_index for frame in frames)
        place = first + self._world.config.context
        if place < 0:
            raise ReverieError(
                f"frame {first} lies before the context of {self._world.config.context} frames"
            )
        told = np.stack([frame.told for frame in frames])
        run.set(told, self._phases(slots, told, [frame.frame_index for frame in frames]))
        if self.shape.has_open_past and first < 0:  # a start, which is prefilled alone
            num_entries = place * self.shape.num_tokens
            run.remember_early(graphs, noisy, signal, self._finest, num_entries)
        else:
            run.remember(graphs, noisy, signal, self._finest)
        limit = self._world.config.action_space.camera_limit
        for i, (slot, frame) in enumerate(zip(slots, frames, strict=True)):
            new_k, new_v = ([layer[i] for layer in new] for new in (run.new_k, run.new_v))
            self._memory.write(slot, frame.frame_index, new_k, new_v)
            self._shown[slot] = frame.shown
            self._camera[slot, 1] += self._turn(frame.told)
            if self._has_camera:
                self._camera[slot, 0] = float(frame.told[-1]) * limit

    def _forget(self, slot: int, pitch_deg: float) -> None:
        """A session begins: nothing of the slot's last one may be left."""
        for array in self._slot_arrays(slot).values():
            array[:] = 0
        self._camera[slot, 0] = pitch_deg

    def _phases(self, slots: Slots, told: Floats, indices: Sequence[int]) -> NDArray[np.float64]:
        """Rotary phases of the slots' next frames, [b, p]. In float64: after hours of play, float32
        would blur those of neighbouring frames. One by one: no bit may depend on the others.
        """
        phases = []
        for slot, said, index in zip(slots, told, indices, strict=True):
            row = float(said[-1]) * self._camera_tokens if self._has_camera else 0.0
            column = self._camera[slot, 1] + self._turn(said)
            phases.append(np.array([row, column, index]) @ self._frequencies)
        return np.stack(phases)

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

    def _measure(self, b: int) -> tuple[float, float, float]:
        """Milliseconds of one frame in one pass, of remembering it, and of one more pass, for b
        sessions.
        """
        slots = tuple(range(b))
        latents = np.zeros((b, self.shape.num_tokens, self.shape.num_channels), np.float32)
        idle = np.zeros((b, self._world.config.action_space.width), np.float32)
        batch = Batch(slots, idle, (0,) * b, (0,) * b, 1)

        def draw(slots: Slots, graphs: Graphs) -> None:
            self._pass(slots).draw(graphs, latents[: len(slots)], 0.0, 1.0)

        works = (
            lambda: self.step(batch),
            lambda: self.commit(slots),
            lambda: self._beside(draw, slots),
        )
        period_s = 1 / self._world.config.fps
        times_ms: list[list[float]] = [[], [], []]
        for i in range(NUM_TIMED + 1):
            took_s = times_ms[0][-1] / 1000 if i else period_s  # the first one is no measurement
            time.sleep(min(max(period_s - took_s, 0.0), MOST_REST_S))
            for work, times in zip(works, times_ms, strict=True):
                started_s = time.perf_counter()
                work()
                times.append((time.perf_counter() - started_s) * 1000)
        better = (sorted(times[1:])[: NUM_TIMED // 2] for times in times_ms)
        frame_ms, commit_ms, pass_ms = map(statistics.mean, better)
        return frame_ms, commit_ms, pass_ms


def _normalise(latents: Floats) -> Floats:
    """Every token to mean 0 and variance 1 over its channels, as the encoder leaves them."""
    centred = latents - latents.mean(-1, keepdims=True)
    variance = np.square(centred).mean(-1, keepdims=True, dtype=np.float32)
    return centred / np.sqrt(variance + np.float32(1e-6))
