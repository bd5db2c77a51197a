"""The web application: the page, the REST part, the socket, metrics. One app serves one fleet."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from reverie.codec import JpegCodec
from reverie.core import ReverieError
from reverie.server.access import Access
from reverie.server.fleet import EngineSpec, Fleet, HostState
from reverie.server.guard import HostGuard
from reverie.server.limits import SocketLimits
from reverie.server.lobby import Lobby
from reverie.server.metrics import Metrics
from reverie.server.player import Player
from reverie.server.protocol import SUBPROTOCOL, ProtocolError
from reverie.server.rest import Rest
from reverie.server.usage import UsageLedger

STATIC_DIR = Path(__file__).parent / "static"


def create_app(
    specs: Sequence[EngineSpec],
    *,
    allowed_hosts: frozenset[str] | None = None,
    limits: SocketLimits | None = None,
    access: Access | None = None,
    ledger: UsageLedger | None = None,
    quality: int = 90,
    on_loaded: Callable[[Fleet], Any] | None = None,
) -> Starlette:
    """The ASGI app around some engines; `app.state` has its fleet, lobby and metrics.

    allowed_hosts: names that the Host header may carry (None: any). access: who may play (None:
    everybody). on_loaded: called with the fleet on the event loop
    when an engine came up, or failed to for good.
    """
    from reverie.engine.handle import HISTORY_S

    codec, access, ledger = JpegCodec(quality), access or Access(), ledger or UsageLedger()
    fleet, metrics = Fleet(specs, on_loaded), Metrics()
    lobby = Lobby(limits or SocketLimits(), metrics, ledger)
    lobby.rewind_s = HISTORY_S
    metrics.watch(fleet, lobby, ledger)
    rest = Rest(fleet, lobby, access, codec, metrics, ledger)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        fleet.start()
        try:
            yield
        finally:
            lobby.close()
            await fleet.stop()
            await asyncio.to_thread(ledger.close)

    async def play(websocket: WebSocket) -> None:
        try:
            access.admit_socket(websocket)
        except ProtocolError as error:  # before it costs anything
            metrics.refusals.labels(error.code.name.lower()).inc()
            await websocket.close(error.code, str(error)[:120])
            return
        offered = websocket.scope.get("subprotocols", [])
        await websocket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
        await Player(websocket, fleet, lobby, access, metrics, codec).run()

    app = Starlette(
        routes=[
            WebSocketRoute("/ws", play),
            Mount("/api", routes=rest.routes),
            Route("/healthz", _health(fleet)),
            Route("/readyz", _readiness(fleet, lobby)),
            Route("/metrics", rest.metrics),
            Route("/admin", _admin),
            Mount("/", _PageFiles(directory=STATIC_DIR, html=True)),
        ],
        middleware=[Middleware(HostGuard, allowed_hosts=allowed_hosts, foreign_pages=access.is_on)],
        exception_handlers={HTTPException: _error_line, ReverieError: _error_line},
        lifespan=lifespan,
    )
    app.state.fleet, app.state.lobby, app.state.metrics = fleet, lobby, metrics
    return app


class _PageFiles(StaticFiles):
    """The built page. Its files keep their names from build to build, so a browser asks each time
    whether they changed.
    """

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "no-cache"
        return response


async def _admin(request: Request) -> Response:
    """The dashboard's page; what it shows wants a key of its own (`/api/status`)."""
    page = (STATIC_DIR / "admin.html").read_bytes()
    return Response(page, media_type="text/html", headers={"cache-control": "no-cache"})


def _health(fleet: Fleet) -> Callable[[Request], Any]:
    """Whether the process lives: only a fleet that can never play is not well."""

    async def health(request: Request) -> Response:
        failed = fleet.state is HostState.FAILED
        body = {"state": fleet.state.value} | ({"error": str(fleet.failure)} if failed else {})
        return JSONResponse(body, status_code=503 if failed else 200)

    return health


def _readiness(fleet: Fleet, lobby: Lobby) -> Callable[[Request], Any]:
    """Whether newcomers should be sent here."""

    async def readiness(request: Request) -> Response:
        state = "closing" if lobby.draining else fleet.state.value
        return JSONResponse({"state": state}, status_code=200 if state == "ready" else 503)

    return readiness


async def _error_line(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)
    status = error.code % 1000 if isinstance(error, ProtocolError) else 400
    headers = {401: {"www-authenticate": "Bearer"}, 429: {"retry-after": "10"}}.get(status)
    return JSONResponse({"error": str(error)}, status, headers)
