"""The web side: page, REST, WebSocket, metrics. `serve` is what the command line calls,
`create_app` what tests and hosts do.
"""

from reverie.server.app import create_app
from reverie.server.limits import SocketLimits
from reverie.server.serving import serve

__all__ = ["SocketLimits", "create_app", "serve"]
