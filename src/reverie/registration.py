"""Makes Reverie's environments known to Gymnasium, whichever of the two is imported first.

    import reverie
    import gymnasium
    gymnasium.make("reverie/World-v0", world="meadow")

Importing Reverie must not import Gymnasium, and Gymnasium no longer looks for plugins by itself
(since 1.3). So a finder waits in `sys.meta_path` and registers right after Gymnasium has been
loaded, if it ever is. Registering only names the classes; they are imported when they are made.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

GYMNASIUM = "gymnasium"


def register_environments() -> None:
    """Tell Gymnasium of every environment that Reverie brings. A second time does nothing."""
    registration = importlib.import_module("gymnasium.envs.registration")
    if "reverie/World-v0" not in registration.registry:
        registration.register("reverie/World-v0", entry_point="reverie.client.environment:WorldEnv")
    importlib.import_module("reverie.envs")  # registers its own


def register_when_gymnasium_is_there() -> None:
    """Register now if Gymnasium is loaded, else as soon as it will be."""
    if GYMNASIUM in sys.modules:
        register_environments()
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds Gymnasium where it is, and hands out a loader that registers afterwards."""

    def __init__(self) -> None:
        self._is_asking = False

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname != GYMNASIUM or self._is_asking:
            return None
        self._is_asking = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._is_asking = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self)
        return spec


class _Loader(Loader):
    def __init__(self, loader: Loader, finder: _Finder) -> None:
        self._loader, self._finder = loader, finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self._loader
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        self._loader.exec_module(module)
        register_environments()
