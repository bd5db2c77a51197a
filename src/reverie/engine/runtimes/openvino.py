"""A world's graphs in OpenVINO: in bfloat16, caches included, where the CPU multiplies that.

Half the time of ONNX Runtime on such a CPU, and half the memory of a session. Needs `openvino`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino.preprocess import PrePostProcessor

from reverie.engine.runtimes.graphs import GRAPHS, Arrays, Shapes, cannot_run
from reverie.world import World

DRAW, REMEMBER, EARLY = "clean", "new", "new early"
"""Parts of the denoiser, after what they put out; the last on a memory that is not full yet."""


class OpenVinoGraphs:
    """See `Graphs`. Numpy has no bfloat16: caches hold its bits, as uint16."""

    name = "openvino"

    def __init__(
        self, world: World, num_threads: int, num_beside: int = 1, sizes: Sequence[int] = (1,)
    ) -> None:
        self._core = ov.Core()
        halves = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.cache_type: type[np.generic] = np.uint16 if halves else np.float32
        self._settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if halves else "f32",
            "INFERENCE_NUM_THREADS": num_threads * num_beside,
            "NUM_STREAMS": num_beside,
            # Pinned, the threads of two engines on one machine would share the first cores.
            "ENABLE_CPU_PINNING": False,
        }
        self._context = world.config.context
        self._folder = world.path
        self.shapes: Shapes = {}
        self._compiled: dict[tuple[str, int], Any] = {}
        for name in GRAPHS:
            # A size that is left open would be computed by other kernels, whose last bits differ.
            for size in (1,) if name == "encoder" else sizes:
                with cannot_run(self._file(name)):
                    model = self._read(name, size)
                    self.shapes[name] = _shapes(model)
                    for part, cut in _parts(name, model, self._context).items():
                        self._compiled[part, size] = self._compile(cut)
        self._own = threading.local()  # requests hold their inputs, so every thread has its own

    def encode(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Graphs`."""
        return self._run("encoder", {"frames": frames}, "latents")

    def decode(self, inputs: Arrays) -> NDArray[np.uint8]:
        """See `Graphs`."""
        return self._run("decoder", inputs, "frames")

    def bind(self, inputs: Arrays, outputs: Arrays) -> Callable[[], None]:
        """See `Graphs`."""
        size, n, _ = inputs["noisy"].shape
        part = DRAW if DRAW in outputs else REMEMBER
        if inputs["cache_k.0"].shape[2] < self._context * n:
            part = EARLY
            if (EARLY, size) not in self._compiled:  # by those who prefill, nobody else
                with cannot_run(self._file("denoiser")):
                    model = _without(self._read("denoiser", size), DRAW)
                    self._compiled[EARLY, size] = self._compile(model)
        request = self._compiled[part, size].create_infer_request()
        for name, array in (inputs | outputs).items():
            request.set_tensor(name, _tensor(array))
        arrays = (inputs, outputs)  # the request knows only where they are
        return partial(_infer, request, arrays)

    def _file(self, graph: str) -> Path:
        return self._folder / f"{graph}.onnx"

    def _read(self, graph: str, size: int) -> Any:
        """For so many sessions at a time."""
        model = self._core.read_model(self._file(graph))
        shapes = {}
        for item in model.inputs:
            shape = item.partial_shape
            if shape[0].is_dynamic:
                shape[0] = size
            shapes[item.any_name] = shape
        model.reshape(shapes)
        keeps_halves = graph == "denoiser" and self.cache_type is not np.float32
        return _keep_halves(model) if keeps_halves else model

    def _compile(self, model: Any) -> Any:
        return self._core.compile_model(model, "CPU", self._settings)

    def _run(self, graph: str, given: Arrays, wanted: str) -> Any:
        size = len(next(iter(given.values())))
        request = getattr(self._own, f"{graph}_{size}", None)
        if request is None:
            request = self._compiled[graph, size].create_infer_request()
            setattr(self._own, f"{graph}_{size}", request)
        # The request holds no reference to an array: they must live on here.
        arrays = {name: np.require(a, requirements=("C", "W")) for name, a in given.items()}
        for name, array in arrays.items():
            request.set_tensor(name, _tensor(array))
        request.infer()
        return request.get_tensor(wanted).data.copy()


def _infer(request: Any, arrays: tuple[Arrays, Arrays]) -> None:
    del arrays
    request.infer()


def _shapes(model: Any) -> dict[str, list[Any]]:
    return {
        item.any_name: ["?" if d.is_dynamic else d.get_length() for d in item.partial_shape]
        for item in (*model.inputs, *model.outputs)
    }


def _parts(name: str, model: Any, context: int) -> dict[str, Any]:
    """What is compiled of a graph. The denoiser in parts, each without what only the others'
    outputs need: a commit ends with the last layer's keys and values. A memory of a size that is
    known, a full one, is a twentieth faster to attend to.
    """
    if name != "denoiser":
        return {name: model}
    n = model.input("noisy").get_shape()[1]
    pasts = [item for item in model.inputs if item.any_name.startswith("cache_")]
    model.reshape({i.any_name: _with_past(i.partial_shape, context * n) for i in pasts})
    drawn = model.clone()
    for output in drawn.outputs:
        if output.any_name != DRAW:
            drawn.remove_result(output.node)
    return {DRAW: drawn, REMEMBER: _without(model, DRAW)}


def _without(model: Any, name: str) -> Any:
    """It no longer puts that out, nor computes what only that needs."""
    model.remove_result(model.output(name).node)
    return model


def _with_past(shape: Any, num_entries: int) -> Any:
    shape[2] = num_entries
    return shape


def _keep_halves(model: Any) -> Any:
    """Caches are read and written in bfloat16, as the network multiplies them."""
    steps = PrePostProcessor(model)
    for item in model.inputs:
        if item.any_name.startswith("cache_"):
            steps.input(item.any_name).tensor().set_element_type(ov.Type.bf16)
    for item in model.outputs:
        if item.any_name.startswith("new_"):
            steps.output(item.any_name).tensor().set_element_type(ov.Type.bf16)
    return steps.build()


def _tensor(array: NDArray[Any]) -> Any:
    """The array itself, not a copy."""
    if array.dtype == np.uint16:
        return ov.Tensor(array, ov.Shape(array.shape), ov.Type.bf16)
    return ov.Tensor(array, shared_memory=True)
