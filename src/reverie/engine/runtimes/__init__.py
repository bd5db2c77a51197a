"""One file per kind of hardware. Nothing here is imported before it is asked for."""

from __future__ import annotations

from pathlib import Path

from reverie import world as worlds
from reverie.core import ReverieError
from reverie.engine.engine import Engine
from reverie.engine.runtime import Runtime
from reverie.world import OWN_FORMAT, World

RUNTIMES = ("onnx", "torch")


def load_runtime(
    world: World, runtime: str | None = None, num_threads: int | None = None
) -> Runtime:
    """The networks of a world, ready to allocate.

    runtime: "onnx", for worlds of our own format, or "torch"; the first that can if not given.
    num_threads: of one pass; as many as the machine has cores, up to 4, if not given. Raises
    ReverieError on an unknown runtime or a world that does not run.
    """
    own = world.config.format == OWN_FORMAT
    if runtime is None:
        runtime = "onnx" if own else "torch"
    if runtime == "onnx":
        if not own:
            raise ReverieError(
                f"runtime 'onnx' plays no world of the format {world.config.format!r}; use 'torch'"
            )
        from reverie.engine.runtimes.onnx import OnnxRuntime

        return OnnxRuntime(world, num_threads)
    if runtime == "torch":
        from reverie.engine.runtimes.torch import TorchRuntime  # pyright: ignore

        return TorchRuntime(world)
    raise ReverieError(f"no runtime {runtime!r}; expected one of {', '.join(RUNTIMES)}")


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
