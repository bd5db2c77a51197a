"""The running machine. `Engine` is its front door; `load_engine` makes one for a world."""

from reverie.engine.engine import Engine, EngineStatus
from reverie.engine.handle import Handle
from reverie.engine.process import EngineProcess
from reverie.engine.remote import RemoteHandle
from reverie.engine.replay import Replay
from reverie.engine.runtime import Batch, CostTable, Runtime
from reverie.engine.runtimes import load_engine, load_runtime
from reverie.engine.saves import SavedSession

__all__ = [
    "Batch",
    "CostTable",
    "Engine",
    "EngineProcess",
    "EngineStatus",
    "Handle",
    "RemoteHandle",
    "Replay",
    "Runtime",
    "SavedSession",
    "load_engine",
    "load_runtime",
]
