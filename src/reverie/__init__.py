"""Reverie: neural worlds that answer your keys.

    import reverie

    world = reverie.load("meadow")
    session = world.start(seed=0)
    frame = session.step(reverie.Action(keys={"w"}, mouse=(4, 0)))    # uint8 [h, w, 3]

Everything is imported when it is first used, so `import reverie` itself takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from reverie.registration import register_when_gymnasium_is_there

if TYPE_CHECKING:
    from reverie.client import LocalSession, LocalWorld, load
    from reverie.core import Action, ActionSpace, Controls, Frame, Keymap, ReverieError
    from reverie.generate import generate, read_script
    from reverie.world import World, WorldConfig, bundled

__all__ = [
    "Action",
    "ActionSpace",
    "Controls",
    "Frame",
    "Keymap",
    "LocalSession",
    "LocalWorld",
    "ReverieError",
    "World",
    "WorldConfig",
    "bundled",
    "generate",
    "load",
    "read_script",
]

_HOMES = {
    "reverie.client": ("LocalSession", "LocalWorld", "load"),
    "reverie.core": ("Action", "ActionSpace", "Controls", "Frame", "Keymap", "ReverieError"),
    "reverie.generate": ("generate", "read_script"),
    "reverie.world": ("World", "WorldConfig", "bundled"),
}

register_when_gymnasium_is_there()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("reverie-worlds")
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'reverie' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
