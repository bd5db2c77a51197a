"""A world's graphs in ONNX Runtime: float32, on every CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from reverie.engine.runtimes.graphs import GRAPHS, Arrays, Shapes, cannot_run
from reverie.world import World


class OnnxGraphs:
    """See `Graphs`. Passes beside each other and batches of any size need nothing more."""

    name = "onnx"
    cache_type: type[np.generic] = np.float32

    def __init__(
        self, world: World, num_threads: int, num_beside: int = 1, sizes: Sequence[int] = (1,)
    ) -> None:
        del num_beside, sizes
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # it warns about what it leaves unoptimised
        # Threads that wait in a loop are no faster on an idle machine, and on a busy one passes
        # take three times as long (docs/log.md).
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        sessions = [_load(world.path / f"{name}.onnx", options) for name in GRAPHS]
        self._encoder, self._decoder, self._denoiser = sessions
        self.shapes: Shapes = {
            name: {item.name: item.shape for item in (*s.get_inputs(), *s.get_outputs())}
            for name, s in zip(GRAPHS, sessions, strict=True)
        }

    def encode(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Graphs`."""
        return self._encoder.run(["latents"], {"frames": frames})[0]

    def decode(self, inputs: Arrays) -> NDArray[np.uint8]:
        """See `Graphs`."""
        return self._decoder.run(["frames"], inputs)[0]

    def bind(self, inputs: Arrays, outputs: Arrays) -> Callable[[], None]:
        """See `Graphs`."""
        binding = self._denoiser.io_binding()
        for name, array in inputs.items():
            _bind(binding.bind_input, name, array)
        for name, array in outputs.items():
            _bind(binding.bind_output, name, array)
        return lambda: self._denoiser.run_with_iobinding(binding)


def _load(file: Path, options: Any) -> Any:
    with cannot_run(file):
        return onnxruntime.InferenceSession(
            str(file), sess_options=options, providers=["CPUExecutionProvider"]
        )


def _bind(bind: Any, name: str, array: NDArray[Any]) -> None:
    if not array.flags.c_contiguous:
        raise ValueError(f"{name} is not contiguous; it would be bound to the wrong numbers")
    bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
