"""The running machine. `Engine` is its front door; `load_engine` makes one for a world."""

from reverie.engine.engine import Engine
from reverie.engine.handle import Handle
from reverie.engine.runtime import Batch, CostTable, Runtime
from reverie.engine.runtimes import load_engine, load_runtime

__all__ = ["Batch", "CostTable", "Engine", "Handle", "Runtime", "load_engine", "load_runtime"]
