"""The web application: the page, a little REST, the socket, metrics. One app serves one engine."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from reverie.codec import JpegCodec
from reverie.server.engine_host import EngineHost, HostState, describe
from reverie.server.guard import HostGuard
from reverie.server.limits import SocketLimits
from reverie.server.metrics import CONTENT_TYPE, Metrics
from reverie.server.player import Player

if TYPE_CHECKING:
    from reverie.engine import Engine

STATIC_DIR = Path(__file__).parent / "static"


def create_app(
    load: Callable[[], Engine],
    *,
    allowed_hosts: frozenset[str] | None = None,
    limits: SocketLimits | None = None,
    quality: int = 90,
    on_loaded: Callable[[EngineHost], Any] | None = None,
) -> Starlette:
    """The ASGI app around one engine.

    load: makes the engine; called on a thread once the app runs, and may raise. allowed_hosts:
    names that the Host header may carry (None: any). on_loaded: called with the host on the event
    loop when loading has ended, well or badly.
    """
    host = EngineHost(load, on_loaded)
    metrics, codec, limits = Metrics(), JpegCodec(quality), limits or SocketLimits()

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        host.start()
        try:
            yield
        finally:
            await host.stop()

    async def play(websocket: WebSocket) -> None:
        await websocket.accept()
        await Player(websocket, host, metrics, codec, limits).run()

    async def metrics_page(request: Request) -> Response:
        return Response(metrics.render(), headers={"content-type": CONTENT_TYPE})

    app = Starlette(
        routes=[
            WebSocketRoute("/ws", play),
            Mount("/api", routes=_world_routes(host, codec)),
            Route("/healthz", _health(host)),
            Route("/metrics", metrics_page),
            Mount("/", _PageFiles(directory=STATIC_DIR, html=True)),
        ],
        middleware=[Middleware(HostGuard, allowed_hosts=allowed_hosts)],
        exception_handlers={HTTPException: _error_line},
        lifespan=lifespan,
    )
    app.state.host, app.state.metrics = host, metrics
    return app


class _PageFiles(StaticFiles):
    """The built page. Its files keep their names from build to build, so a browser asks each time
    whether they changed.
    """

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "no-cache"
        return response


def _world_routes(host: EngineHost, codec: JpegCodec) -> list[Route]:
    def engine(request: Request) -> Engine:
        if host.engine is None:
            raise HTTPException(503, "the world is still warming up; ask again in a second")
        name = request.path_params.get("world")
        if name not in (None, host.engine.world.config.name):
            raise HTTPException(
                404, f"no world {name!r}; this server plays {host.engine.world.config.name}"
            )
        return host.engine

    async def worlds(request: Request) -> Response:
        return JSONResponse([describe(engine(request).world)])

    async def world(request: Request) -> Response:
        return JSONResponse(describe(engine(request).world))

    async def thumbnail(request: Request) -> Response:
        """What one sees when play begins there: the last frame of the start's clip."""
        starts = engine(request).world.starts
        for start in starts:
            if start.name == request.path_params["start"]:
                picture = codec.encode_pixels(start.frames[-1])
                return Response(
                    picture, media_type="image/jpeg", headers={"cache-control": "no-cache"}
                )
        names = ", ".join(start.name for start in starts) or "none"
        raise HTTPException(
            404, f"no start {request.path_params['start']!r}; this world has {names}"
        )

    return [
        Route("/worlds", worlds),
        Route("/worlds/{world}", world),
        Route("/worlds/{world}/starts/{start}.jpg", thumbnail),
    ]


def _health(host: EngineHost) -> Callable[[Request], Any]:
    async def health(request: Request) -> Response:
        failed = host.state is HostState.FAILED
        body = {"state": host.state.value} | ({"error": str(host.failure)} if failed else {})
        return JSONResponse(body, status_code=503 if failed else 200)

    return health


async def _error_line(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)
