"""From a command to a page that answers: bind, listen, announce, load the world, serve."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette

from reverie.core import ReverieError
from reverie.server.app import create_app
from reverie.server.engine_host import EngineHost, HostState
from reverie.server.guard import LOOPBACK_HOSTS
from reverie.server.limits import SocketLimits

if TYPE_CHECKING:
    from reverie.engine import Engine

DEFAULT_PORT = 8137
_PORTS_TRIED = 10
_FAILURE_SHOWN_S = 1.0
"""How long the page gets to fetch the line that says why the world did not load."""


def serve(
    load: Callable[[], Engine],
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    limits: SocketLimits | None = None,
    announce: Callable[[str], None] = print,
) -> None:
    """Serves one engine until Ctrl-C. The socket listens before the world is read, so the page is
    there at once.

    load: makes the engine; called on a thread; what it raises ends the server and is raised here.
    port: None for the first free one from 8137, 0 for any. announce: receives the address once it
    listens. Raises ReverieError when the port is taken or the address is not ours, and
    KeyboardInterrupt at Ctrl-C, when everything has been shut down.
    """
    listener = listen(host, port)
    url = address(listener, host)
    failure: list[BaseException] = []

    def on_loaded(engine_host: EngineHost) -> None:
        if engine_host.state is HostState.FAILED and engine_host.failure is not None:
            failure.append(engine_host.failure)
            asyncio.get_running_loop().call_later(_FAILURE_SHOWN_S, _stop, server)

    allowed_hosts = LOOPBACK_HOSTS | {host} if _is_loopback(host) else None
    app = create_app(load, allowed_hosts=allowed_hosts, limits=limits, on_loaded=on_loaded)
    server = make_server(app)
    with listener:
        announce(url)
        server.run(sockets=[listener])  # at Ctrl-C it shuts everything down, then passes it on
    if failure:
        raise failure[0]


def make_server(app: Starlette) -> uvicorn.Server:
    """uvicorn as frames need it: no compression of what is compressed already, pings that find a
    dead client in 15 s.

    asyncio sets TCP_NODELAY on every connection by itself. The hard wall for a message is far above
    the protocol's own limit, so that a client that sends too much reads why.
    """
    return uvicorn.Server(
        uvicorn.Config(
            app,
            ws="websockets-sansio",
            ws_per_message_deflate=False,
            ws_max_size=1 << 20,
            ws_ping_interval=5.0,
            ws_ping_timeout=10.0,
            timeout_graceful_shutdown=2,
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
    )


def listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens on host and port (see `serve`). Raises ReverieError with the line for
    whoever asked.
    """
    ports = [port] if port is not None else range(DEFAULT_PORT, DEFAULT_PORT + _PORTS_TRIED)
    if not 0 <= ports[0] <= 65535:  # the system would take the rest of a division
        raise ReverieError(f"port {port} is not a port; expected 0 to 65535")
    for candidate in ports:
        try:
            return _bind(host, candidate)
        except socket.gaierror:
            raise ReverieError(f"host {host!r} has no address; try --host 127.0.0.1") from None
        except PermissionError:
            raise ReverieError(
                f"port {candidate} needs more rights; choose one above 1023 with --port"
            ) from None
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise ReverieError(
                    f"host {host!r} is not an address of this machine; try --host 127.0.0.1"
                ) from None
            if error.errno != errno.EADDRINUSE:
                raise
    if port is not None:
        raise ReverieError(f"port {port} on {host} is in use; choose another with --port")
    raise ReverieError(f"ports {ports[0]} to {ports[-1]} are all in use; choose one with --port")


def _bind(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    # Without this, "::" is every address but those of IPv4.
    dualstack = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    listener = socket.create_server(address[:2], family=family, dualstack_ipv6=dualstack)
    listener.setblocking(False)
    return listener


def address(listener: socket.socket, host: str) -> str:
    """The address to open on this machine."""
    port = listener.getsockname()[1]
    if host == "0.0.0.0" or (host == "::" and socket.has_dualstack_ipv6()):
        return f"http://127.0.0.1:{port}"
    if host == "::":
        return f"http://[::1]:{port}"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _stop(server: uvicorn.Server) -> None:
    server.should_exit = True
