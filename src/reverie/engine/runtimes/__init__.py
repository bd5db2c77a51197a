"""One file per kind of hardware. Nothing here is imported before it is asked for."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from reverie import world as worlds
from reverie.core import ReverieError
from reverie.engine.engine import Engine
from reverie.engine.runtime import Runtime
from reverie.engine.runtimes.graphs import Graphs
from reverie.world import OWN_FORMAT, World

RUNTIMES = ("openvino", "onnx", "torch")


def load_runtime(
    world: World, runtime: str | None = None, num_threads: int | None = None
) -> Runtime:
    """The networks of a world, ready to allocate.

    runtime: "openvino" or "onnx", for worlds of our own format, or "torch"; the first of them that
    can if not given. num_threads: of one pass; as many as the machine has cores, up to 4, if not
    given. Raises ReverieError on an unknown runtime or a world that does not run.
    """
    runtime = pick_runtime(world, runtime)
    if runtime == "torch":
        from reverie.engine.runtimes.torch import TorchRuntime  # pyright: ignore

        return TorchRuntime(world)
    from reverie.engine.runtimes.cpu import CpuRuntime

    return CpuRuntime(world, _library(runtime), num_threads)


def pick_runtime(world: World, runtime: str | None = None) -> str:
    """The name of the runtime that `load_runtime` opens. Raises ReverieError as it does."""
    own = world.config.format == OWN_FORMAT
    if runtime is None:
        return ("openvino" if find_spec("openvino") else "onnx") if own else "torch"
    if runtime not in RUNTIMES:
        raise ReverieError(f"no runtime {runtime!r}; expected one of {', '.join(RUNTIMES)}")
    if runtime != "torch" and not own:
        raise ReverieError(
            f"runtime {runtime!r} plays no world of the format {world.config.format!r}; use 'torch'"
        )
    return runtime


def _library(name: str) -> type[Graphs]:
    if name == "onnx":
        from reverie.engine.runtimes.onnx import OnnxGraphs

        return OnnxGraphs
    if not find_spec("openvino"):
        raise ReverieError(
            "runtime 'openvino' needs a package that is not installed: "
            "pip install 'reverie-worlds[openvino]'"
        )
    from reverie.engine.runtimes.openvino import OpenVinoGraphs

    return OpenVinoGraphs


def load_engine(
    world: World | str | Path,
    runtime: str | None = None,
    num_slots: int = 4,
    num_threads: int | None = None,
) -> Engine:
    """An engine for a world, by name, path or hf:// address; not started yet."""
    if not isinstance(world, World):
        world = worlds.load(world)
    return Engine(world, load_runtime(world, runtime, num_threads), num_slots)
