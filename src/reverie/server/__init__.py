"""The web side: page, REST, WebSocket, metrics. `serve` is what `reverie play` calls,
`serve_settings` what `reverie serve` does, `create_app` what tests and hosts do.
"""

from reverie.server.app import create_app
from reverie.server.fleet import EngineSpec
from reverie.server.limits import SocketLimits
from reverie.server.serving import serve, serve_settings

__all__ = ["EngineSpec", "SocketLimits", "create_app", "serve", "serve_settings"]
