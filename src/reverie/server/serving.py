"""From a command to a page that answers: bind, listen, announce, load the world, serve."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import signal
import socket
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

import uvicorn
from starlette.applications import Starlette

from reverie.core import ReverieError
from reverie.server.access import Access, must_refuse_start
from reverie.server.app import create_app
from reverie.server.fleet import EngineSpec, Fleet
from reverie.server.guard import LOOPBACK_HOSTS
from reverie.server.limits import SocketLimits
from reverie.server.lobby import Lobby
from reverie.server.power import PowerMeter
from reverie.server.socket_protocol import PlayerSocketProtocol
from reverie.server.usage import UsageLedger

if TYPE_CHECKING:
    from reverie.engine import Engine, EngineProcess
    from reverie.server.settings import EngineSettings, Settings

DEFAULT_PORT = 8137
_PORTS_TRIED = 10
MOST_THREADS = 4
"""Of one pass, unless the settings say so; as `load_runtime` has it."""
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
    """Serves one engine, on a thread of this process, until Ctrl-C. The socket listens before the
    world is read, so the page is there at once.

    load: makes the engine; called on a thread; what it raises ends the server and is raised here.
    port: None for the first free one from 8137, 0 for any. announce: receives the address once it
    listens. Raises ReverieError when the port is taken or the address is not ours, and
    KeyboardInterrupt at Ctrl-C, when everything has been shut down.
    """
    listener = listen(host, port)
    _run(listener, host, announce, 0.0, [EngineSpec(load)], limits=limits)


def serve_settings(settings: Settings, announce: Callable[[str], None] = print) -> None:
    """Serves everything that the settings name, each engine in a process of its own, until SIGTERM
    (players may go on for a while) or Ctrl-C (at once). Raises ReverieError as `serve` does, where
    a world is not whole, and where anybody could play who should not.
    """
    from reverie.server.logs import setup_logging

    access = open_access(settings)
    specs = [engine_spec(engine, settings.log) for engine in settings.engines]
    setup_logging(settings.log)
    devices = {engine.device for engine in settings.engines}
    ledger = UsageLedger(
        settings.price_per_hour,
        settings.usage_file,
        meter=PowerMeter(tuple(devices)),
        num_devices=len(devices),
    )
    listener = listen(settings.host, settings.port)
    _run(
        listener,
        settings.host,
        announce,
        settings.sessions.drain_s,
        specs,
        limits=settings.sessions.limits(),
        access=access,
        ledger=ledger,
        quality=settings.quality,
        trusted_proxies=settings.trusted_proxies,
    )


def open_access(settings: Settings) -> Access:
    """Who may play. Raises ReverieError where everybody on a network could, and nobody said so."""
    wanted = settings.access
    if (line := must_refuse_start(settings.host, wanted.keys is not None, wanted.open)) is not None:
        raise ReverieError(line)
    return Access(wanted.keys, wanted.signing_key)


def engine_spec(engine: EngineSettings, log: Literal["text", "json"]) -> EngineSpec:
    """How to make that engine. Raises ReverieError where its world is not whole."""
    from reverie import world as worlds

    path = worlds.find(engine.world)
    name = worlds.load(path).config.name
    load = partial(load_engine_from, path, engine.runtime, engine.players, engine.threads, log)

    def make() -> EngineProcess:
        from reverie.engine import EngineProcess

        return EngineProcess(load, name, engine.device)

    return EngineSpec(make, name, engine.device, engine.standby)


def load_engine_from(
    path: Path,
    runtime: str | None,
    players: int,
    threads: int | None,
    log: Literal["text", "json"],
) -> Engine:
    """In the engine's process: what `reverie.engine.load_engine` gives."""
    from reverie.engine import load_engine
    from reverie.server.logs import setup_logging

    setup_logging(log)
    if threads is None and hasattr(os, "sched_getaffinity"):  # the device may be some cores only
        threads = min(len(os.sched_getaffinity(0)), MOST_THREADS)
    return load_engine(path, runtime, players, threads)


def _run(
    listener: socket.socket,
    host: str,
    announce: Callable[[str], None],
    drain_s: float,
    specs: Sequence[EngineSpec],
    *,
    trusted_proxies: Sequence[str] = (),
    **options: Any,
) -> None:
    failure: list[BaseException] = []

    def on_loaded(fleet: Fleet) -> None:
        if fleet.failure is not None and not failure:
            failure.append(fleet.failure)
            asyncio.get_running_loop().call_later(_FAILURE_SHOWN_S, server.stop)

    allowed_hosts = LOOPBACK_HOSTS | {host} if is_loopback(host) else None
    app = create_app(specs, allowed_hosts=allowed_hosts, on_loaded=on_loaded, **options)
    server = make_server(app, drain_s, trusted_proxies)
    with listener:
        announce(address(listener, host))
        server.run(sockets=[listener])  # at Ctrl-C it shuts everything down, then passes it on
    if failure:
        raise failure[0]


class Server(uvicorn.Server):
    """uvicorn that lets players go on for a while after SIGTERM."""

    def __init__(self, config: uvicorn.Config, app: Starlette, drain_s: float) -> None:
        super().__init__(config)
        self._app, self._drain_s = app, drain_s
        self._drain: asyncio.Task[None] | None = None

    def stop(self) -> None:
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called between two steps of the event loop."""
        if sig == signal.SIGTERM and self._drain is None and self._drain_s > 0 and self.started:
            self._drain = asyncio.ensure_future(self._let_go_on(), loop=self._loop)
        else:
            super().handle_exit(sig, frame)

    async def _let_go_on(self) -> None:
        lobby: Lobby = self._app.state.lobby
        await lobby.drain(self._drain_s)
        self.stop()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)


def make_server(
    app: Starlette, drain_s: float = 0.0, trusted_proxies: Sequence[str] = ()
) -> Server:
    """uvicorn as frames need it: no compression of what is compressed already, pings that find a
    dead client in 15 s.

    asyncio sets TCP_NODELAY on every connection by itself. The hard wall for a message is far above
    the protocol's own limit, so that a client that sends too much reads why.
    """
    config = uvicorn.Config(
        app,
        ws=PlayerSocketProtocol,
        ws_per_message_deflate=False,
        ws_max_size=1 << 20,
        ws_ping_interval=5.0,
        ws_ping_timeout=10.0,
        timeout_graceful_shutdown=2,
        lifespan="on",
        log_level="error",  # not a line for each request that is no HTTP
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=list(trusted_proxies),
    )
    return Server(config, app, drain_s)


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


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
