"""The fast runtime for CPUs: ONNX Runtime over the world's three graphs, caches read in place.

`onnxruntime` reads every input from memory that stays where it is: a slot's cache is bound once,
straight from the `CachePool`, and a pass copies nothing but the frame it has just made. What the
graphs must look like is checked when they are loaded (`GraphShape`).
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from reverie.core import ReverieError
from reverie.engine.cache_pool import CachePool, CacheShape
from reverie.engine.runtime import COMMIT_STREAM, SAMPLE_STREAM, Batch, CostTable, noise
from reverie.engine.snapshot import pack, unpack
from reverie.world import World

MAX_THREADS = 4
NUM_TIMED = 5
SNAPSHOT_KIND = "slot"

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class GraphShape:
    """Sizes that the graphs of a world agree on. n tokens of c channels, action_width A."""

    num_tokens: int
    num_channels: int
    action_width: int
    num_phases: int
    cache: CacheShape


@dataclass(slots=True)
class _Pending:
    """A frame that was drawn but is not in the cache yet."""

    latents: Floats
    action: Floats
    frame_index: int
    seed: int


class _Pass:
    """The denoiser's inputs and outputs for a batch, in memory that its binding points to."""

    def __init__(self, session: Any, shape: GraphShape, k: list[Floats], v: list[Floats]) -> None:
        b, n = len(k[0]), shape.num_tokens
        cache = shape.cache
        entries = (b, cache.num_heads, n, cache.head_width)
        self.noisy = np.zeros((b, n, shape.num_channels), np.float32)
        self.signal = np.zeros(b, np.float32)
        self.step_size = np.zeros(b, np.float32)
        self.action = np.zeros((b, shape.action_width), np.float32)
        self.time_cos = np.zeros((b, shape.num_phases), np.float32)
        self.time_sin = np.zeros((b, shape.num_phases), np.float32)
        self.clean = np.zeros_like(self.noisy)
        self.new_k = [np.zeros(entries, np.float32) for _ in range(cache.num_layers)]
        self.new_v = [np.zeros(entries, np.float32) for _ in range(cache.num_layers)]
        self._caches = (k, v)  # bound by address: must outlive the binding
        self._session = session
        self._binding = session.io_binding()
        for name in ("noisy", "signal", "step_size", "action", "time_cos", "time_sin"):
            _bind(self._binding.bind_input, name, getattr(self, name))
        _bind(self._binding.bind_output, "clean", self.clean)
        for i in range(cache.num_layers):
            _bind(self._binding.bind_input, f"cache_k.{i}", k[i])
            _bind(self._binding.bind_input, f"cache_v.{i}", v[i])
            _bind(self._binding.bind_output, f"new_k.{i}", self.new_k[i])
            _bind(self._binding.bind_output, f"new_v.{i}", self.new_v[i])

    def run(self, signal: float, step_size: float) -> None:
        self.signal.fill(signal)
        self.step_size.fill(step_size)
        self._session.run_with_iobinding(self._binding)


class OnnxRuntime:
    """See `engine.runtime.Runtime`.

    num_threads: of one pass; the machine's cores, up to 4, if not given. max_batch: sessions in one
    pass. 1 by default: on a CPU a pass over two sessions costs as much as two passes
    (docs/log.md), and a session's frames then never depend, not even in the last bit, on who else
    plays. Raises ReverieError on graphs that do not fit the world's config or cannot be run.
    """

    def __init__(
        self,
        world: World,
        num_threads: int | None = None,
        max_batch: int = 1,
        allow_spinning: bool = False,
    ) -> None:
        self._world = world
        options = _session_options(num_threads, allow_spinning)
        self._encoder = _load_graph(world.path / "encoder.onnx", options)
        self._decoder = _load_graph(world.path / "decoder.onnx", options)
        self._denoiser = _load_graph(world.path / "denoiser.onnx", options)
        self.shape = _check_graphs(world, self._encoder, self._decoder, self._denoiser)
        denoiser = world.config.denoiser
        self._frequencies = np.array(denoiser["time_frequencies"], np.float64)
        self._finest = float(denoiser["min_step_size"])
        self._max_batch = max_batch
        self._pool: CachePool | None = None
        self._pending: list[_Pending | None] = []
        self._passes: dict[tuple[int, ...], _Pass] = {}
        self._cost_table: dict[tuple[int, int], float] = {}

    @property
    def world(self) -> World:
        return self._world

    @property
    def num_slots(self) -> int:
        return 0 if self._pool is None else self._pool.num_slots

    def allocate(self, num_slots: int) -> None:
        """Fixed memory for that many sessions, and one pass through everything. Once only."""
        if self._pool is not None:
            raise RuntimeError(f"{self.num_slots} slots are allocated already")
        self._max_batch = min(self._max_batch, num_slots)
        self._pool = CachePool(num_slots, self.shape.cache, self._max_batch)
        self._pending = [None] * num_slots
        config = self._world.config
        blank = np.zeros((1, *config.frame_shape), np.uint8)
        idle = np.zeros((1, config.action_space.width), np.float32)
        self.prefill(0, blank, idle, 0)
        self.step(Batch((0,), idle, (0,), (0,), 1))
        self.commit([0])

    def prefill(
        self,
        slot: int,
        frames: NDArray[np.uint8],
        actions: NDArray[np.float32],
        seed: int,
        first_index: int | None = None,
    ) -> None:
        """See `Runtime.prefill`. One commit pass per frame."""
        self._check_clip(frames, actions)
        self._pending[slot] = None
        first = -len(frames) if first_index is None else first_index
        for i, (frame, action) in enumerate(zip(frames, actions, strict=True)):
            inputs = {"frames": np.ascontiguousarray(frame[None])}
            (latents,) = self._encoder.run(["latents"], inputs)
            self._pending[slot] = _Pending(latents[0], action, first + i, seed)
            self.commit([slot])

    def step(self, batch: Batch) -> NDArray[np.uint8]:
        """See `Runtime.step`."""
        self.commit(batch.slots)
        pictures = np.empty((len(batch.slots), *self._world.config.frame_shape), np.uint8)
        for part in self._parts(range(len(batch.slots))):
            latents = self._sample(batch, part)
            pictures[part] = self._decoder.run(["frames"], {"latents": latents})[0]
            for row, i in enumerate(range(part.start, part.stop)):
                self._pending[batch.slots[i]] = _Pending(
                    latents[row].copy(),
                    np.array(batch.actions[i], np.float32),
                    batch.frame_indices[i],
                    batch.seeds[i],
                )
        return pictures

    def commit(self, slots: Sequence[int]) -> None:
        """See `Runtime.commit`."""
        owed = [slot for slot in slots if self._pending[slot] is not None]
        for part in self._parts(owed):
            self._commit(owed[part])

    def snapshot(self, slot: int) -> bytes:
        """See `Runtime.snapshot`."""
        arrays: dict[str, NDArray[Any]] = dict(self._memory.slot_arrays(slot))
        values: dict[str, int | float | str] = {}
        pending = self._pending[slot]
        if pending is not None:
            arrays |= {"latents": pending.latents, "action": pending.action}
            values = {"frame_index": pending.frame_index, "seed": pending.seed}
        return pack(SNAPSHOT_KIND, self._world.fingerprint, arrays, values)

    def restore(self, slot: int, snapshot: bytes) -> None:
        """See `Runtime.restore`."""
        arrays, values = unpack(SNAPSHOT_KIND, self._world.fingerprint, snapshot)
        memory = self._memory.slot_arrays(slot)
        for name, place in memory.items():
            if name not in arrays or arrays[name].shape != place.shape:
                raise ReverieError(f"the saved session has no {name} of shape {place.shape}")
        for name, place in memory.items():
            place[:] = arrays[name]
        self._pending[slot] = None
        if "frame_index" in values:
            self._pending[slot] = _Pending(arrays["latents"], arrays["action"], **values)

    def cost_table(self) -> CostTable:
        """Medians of a few runs of each part, added up: a `step` is passes and one decoding.

        Up to `max_batch` measured, up to four slots as so many passes after each other.
        """
        if not self._cost_table:
            steps = self._world.config.denoising_steps
            largest = min(self.num_slots, max(4, self._max_batch))
            measured = {b: self._measure(b) for b in range(1, self._max_batch + 1)}
            for b in range(1, largest + 1):
                parts = [p.stop - p.start for p in self._parts(range(b))]
                once, decode = (sum(measured[p][i] for p in parts) for i in range(2))
                self._cost_table[b, 0] = once
                for num_steps in steps:
                    self._cost_table[b, num_steps] = num_steps * once + decode
        return self._cost_table

    # Parts.

    @property
    def _memory(self) -> CachePool:
        if self._pool is None:
            raise RuntimeError("no slots; call allocate first")
        return self._pool

    def _parts(self, items: Sequence[int]) -> list[slice]:
        size = self._max_batch
        return [slice(i, min(i + size, len(items))) for i in range(0, len(items), size)]

    def _pass(self, slots: Sequence[int], actions: Floats, frame_indices: Sequence[int]) -> _Pass:
        """The bound buffers for these slots, with everything in them but what is denoised."""
        pool = self._memory
        contiguous = pool.is_contiguous(slots)
        k, v = pool.view(slots)  # gathers slots that are not neighbours, anew each time
        key = tuple(slots) if contiguous else (-1, len(slots))
        found = self._passes.get(key)
        if found is None:
            found = self._passes[key] = _Pass(self._denoiser, self.shape, k, v)
        found.action[:] = actions
        # In float64: after hours of play, float32 would blur the phases of neighbouring frames.
        phases = np.array(frame_indices, np.float64)[:, None] * self._frequencies
        found.time_cos[:], found.time_sin[:] = np.cos(phases), np.sin(phases)
        return found

    def _sample(self, batch: Batch, part: slice) -> Floats:
        """The sampler's loop, Euler steps from noise to clean latents: float32 [b, n, c]."""
        indices, seeds = batch.frame_indices[part], batch.seeds[part]
        run = self._pass(batch.slots[part], batch.actions[part], indices)
        z = self._noise(seeds, indices, SAMPLE_STREAM)
        step_size = 1 / batch.num_steps
        for k in range(batch.num_steps):
            signal = k * step_size
            run.noisy[:] = z
            run.run(signal, step_size)
            z = z + (run.clean - z) * np.float32(step_size / (1 - signal))
        return z

    def _commit(self, slots: Sequence[int]) -> None:
        """One pass over nearly clean latents, whose keys and values go into the ring."""
        frames = [frame for frame in (self._pending[slot] for slot in slots) if frame is not None]
        indices = [frame.frame_index for frame in frames]
        run = self._pass(slots, np.stack([frame.action for frame in frames]), indices)
        signal = np.float32(self._world.config.context_signal)
        clean = _normalise(np.stack([frame.latents for frame in frames]))
        drawn = self._noise([frame.seed for frame in frames], indices, COMMIT_STREAM)
        run.noisy[:] = signal * clean + (1 - signal) * drawn
        run.run(float(signal), self._finest)
        for row, slot in enumerate(slots):
            new_k, new_v = ([layer[row] for layer in new] for new in (run.new_k, run.new_v))
            self._memory.write(slot, indices[row], new_k, new_v)
            self._pending[slot] = None

    def _noise(self, seeds: Sequence[int], frame_indices: Sequence[int], stream: int) -> Floats:
        shape = (self.shape.num_tokens, self.shape.num_channels)
        pairs = zip(seeds, frame_indices, strict=True)
        return np.stack([noise(seed, index, stream, shape) for seed, index in pairs])

    def _measure(self, b: int) -> tuple[float, float]:
        """Milliseconds of one denoising pass and of one decoding of b sessions."""
        slots = list(range(b))
        actions = np.zeros((b, self.shape.action_width), np.float32)
        run = self._pass(slots, actions, [0] * b)
        once = _median_ms(lambda: run.run(0.0, 1.0))
        inputs = {"latents": np.zeros_like(run.noisy)}
        return once, _median_ms(lambda: self._decoder.run(["frames"], inputs))

    def _check_clip(self, frames: NDArray[np.uint8], actions: NDArray[np.float32]) -> None:
        config = self._world.config
        expected = (len(actions), *config.frame_shape)
        if frames.dtype != np.uint8 or frames.shape != expected:
            raise ReverieError(
                f"frames are {frames.dtype} {frames.shape}; expected uint8 {expected}"
            )
        if actions.shape != (len(frames), config.action_space.width):
            raise ReverieError(
                f"actions have shape {actions.shape}; "
                f"expected {(len(frames), config.action_space.width)}"
            )


def _normalise(latents: Floats) -> Floats:
    """Every token to mean 0 and variance 1 over its channels, as the encoder leaves them."""
    centred = latents - latents.mean(-1, keepdims=True)
    variance = np.square(centred).mean(-1, keepdims=True, dtype=np.float32)
    return centred / np.sqrt(variance + np.float32(1e-6))


def _median_ms(run: Any) -> float:
    times = []
    for _ in range(NUM_TIMED + 1):
        started_s = time.perf_counter()
        run()
        times.append((time.perf_counter() - started_s) * 1000)
    return statistics.median(times[1:])


def _session_options(num_threads: int | None, allow_spinning: bool) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads or min(os.cpu_count() or 1, MAX_THREADS)
    options.inter_op_num_threads = 1
    # A pool that spins while it waits keeps the browser on the same cores from drawing.
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "1" if allow_spinning else "0"
    )
    options.log_severity_level = 3
    return options


def _load_graph(file: Path, options: Any) -> Any:
    try:
        return onnxruntime.InferenceSession(
            str(file), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime has many kinds and no common one
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ReverieError(f"{file} cannot be run: {reason}") from None


def _check_graphs(world: World, encoder: Any, decoder: Any, denoiser: Any) -> GraphShape:
    """The sizes in the denoiser's graph, if all graphs and the config agree with them."""
    config = world.config
    inputs = {item.name: item.shape for item in denoiser.get_inputs()}
    num_layers = sum(name.startswith("cache_k.") for name in inputs)
    try:
        _, num_tokens, num_channels = inputs["noisy"]
        (_, action_width), (_, num_phases) = inputs["action"], inputs["time_cos"]
        _, num_heads, num_entries, head_width = inputs["cache_k.0"]
        encoded = encoder.get_inputs()[0], encoder.get_outputs()[0]
        decoded = decoder.get_inputs()[0], decoder.get_outputs()[0]
    except (KeyError, ValueError, IndexError):
        raise ReverieError(
            f"{world.path / 'denoiser.onnx'} has inputs {sorted(inputs)}; expected noisy, action, "
            "time_cos, time_sin, cache_k.0, ...: export the world again"
        ) from None
    frequencies = config.denoiser.get("time_frequencies", ())
    n = num_tokens
    expected = [
        ("action width", [action_width], [config.action_space.width]),
        ("time frequencies", [num_phases], [len(frequencies)]),
        ("cache entries", [num_entries], [config.context * n]),
        ("encoder frames", encoded[0].shape[1:], list(config.frame_shape)),
        ("encoder latents", encoded[1].shape[1:], [n, num_channels]),
        ("decoder latents", decoded[0].shape[1:], [n, num_channels]),
        ("decoder frames", decoded[1].shape[1:], list(config.frame_shape)),
    ]
    for what, found, wanted in expected:
        # A graph may leave the size of an output open; then it is a name.
        if len(found) != len(wanted) or any(
            isinstance(size, int) and size != want for size, want in zip(found, wanted, strict=True)
        ):
            raise ReverieError(
                f"{world.path}: the graphs have {what} {found}, the config wants {wanted}; "
                "they belong to different exports: export the world again"
            )
    if "min_step_size" not in config.denoiser:
        raise ReverieError(f"{world.path}: config.json has no denoiser.min_step_size")
    cache = CacheShape(num_layers, num_heads, config.context, n, head_width)
    return GraphShape(n, num_channels, action_width, num_phases, cache)


def _bind(bind: Any, name: str, array: NDArray[Any]) -> None:
    if not array.flags.c_contiguous:
        raise ValueError(f"{name} is not contiguous; it would be bound to the wrong numbers")
    bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
