"""The web side: page, REST, WebSocket, metrics. `serve` is what `reverie play` calls,
`serve_settings` what `reverie serve` does, `create_app` what tests and hosts do.

Each is imported when it is asked for: `reverie --help` reaches this package, but no web server.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reverie.server.app import create_app
    from reverie.server.fleet import EngineSpec
    from reverie.server.limits import SocketLimits
    from reverie.server.serving import serve, serve_settings

__all__ = ["EngineSpec", "SocketLimits", "create_app", "serve", "serve_settings"]

_HOMES = {
    "EngineSpec": "fleet",
    "SocketLimits": "limits",
    "create_app": "app",
    "serve": "serving",
    "serve_settings": "serving",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"reverie.server.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'reverie.server' has no attribute {name!r}")
