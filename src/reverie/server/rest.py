"""What is asked for over plain HTTP: worlds, sessions that are brought or fetched, tokens, figures.
`openapi` describes it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from reverie.codec import JpegCodec
from reverie.core import ReverieError
from reverie.server import openapi
from reverie.server.access import Access, address_of
from reverie.server.fleet import Fleet, Pool, describe
from reverie.server.keeping import bring_back
from reverie.server.limits import RateLimiter
from reverie.server.lobby import OFFER_S, Lobby
from reverie.server.metrics import CONTENT_TYPE, Metrics
from reverie.server.status import snapshot
from reverie.server.usage import UsageLedger

if TYPE_CHECKING:
    from reverie.world import World

BRINGS_PER_S, BRINGS_AT_ONCE = 0.2, 10.0
"""Sessions that one token, or one address without, may bring: each takes memory for a minute."""


class Rest:
    """The routes under /api, and /metrics."""

    def __init__(
        self,
        fleet: Fleet,
        lobby: Lobby,
        access: Access,
        codec: JpegCodec,
        metrics: Metrics,
        ledger: UsageLedger,
    ) -> None:
        self._fleet, self._lobby, self._access = fleet, lobby, access
        self._codec, self._metrics, self._ledger = codec, metrics, ledger
        self._brings = RateLimiter(BRINGS_PER_S, BRINGS_AT_ONCE)

    @property
    def routes(self) -> list[Route]:
        return [
            Route("/worlds", self.worlds),
            Route("/worlds/{world}", self.world),
            Route("/worlds/{world}/starts/{start}.jpg", self.thumbnail),
            Route("/worlds/{world}/sessions", self.bring, methods=["POST"]),
            Route("/saves/{id}", self.fetch),
            Route("/tokens", self.mint, methods=["POST"]),
            Route("/status", self.status),
            Route("/usage", self.usage),
            Route("/usage.csv", self.usage_csv),
            Route("/openapi.json", self.document),
        ]

    async def worlds(self, request: Request) -> Response:
        grant = self._access.of_request(request)
        if not (worlds := self._fleet.worlds):
            raise HTTPException(503, "the world is still warming up; ask again in a second")
        seen = [world for world in worlds if grant.allows(world.config.name)]
        return JSONResponse([describe(world) for world in seen])

    async def world(self, request: Request) -> Response:
        self._access.of_request(request, request.path_params["world"])
        return JSONResponse(describe(self._find(request)[1]))

    async def thumbnail(self, request: Request) -> Response:
        """What one sees when play begins there: the last frame of the start's clip."""
        self._access.of_request(request, request.path_params["world"])
        starts = self._find(request)[1].starts
        for start in starts:
            if start.name == request.path_params["start"]:
                picture = self._codec.encode_pixels(start.frames[-1])
                headers = {"cache-control": "no-cache"}
                return Response(picture, media_type="image/jpeg", headers=headers)
        names = ", ".join(start.name for start in starts) or "none"
        raise HTTPException(
            404, f"no start {request.path_params['start']!r}; this world has {names}"
        )

    async def bring(self, request: Request) -> Response:
        """A session that a player comes for with the token in the answer."""
        grant = self._access.of_request(request, request.path_params["world"])
        pool, world = self._find(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        if kind not in ("application/octet-stream", "application/json"):
            raise HTTPException(
                415,
                f"content-type {kind!r:.60}; expected application/octet-stream for a saved "
                "session, or application/json for a replay",
            )
        self._brings.spend(grant.token_id or address_of(request), "too many sessions are brought")
        body = await _body(request, int(self._lobby.limits.max_saved_bytes))
        beginning = await bring_back(world, body, kind == "application/octet-stream")
        seat = self._lobby.offer(pool, grant, beginning)
        return JSONResponse({"resume": seat.token, "resume_s": OFFER_S}, 201)

    async def fetch(self, request: Request) -> Response:
        """The id is the secret: a browser's download carries no token."""
        file = self._lobby.take_file(request.path_params["id"])
        if file is None:
            raise HTTPException(404, "this file was fetched already, or waited for too long")
        name, content = file
        headers = {
            "content-disposition": f'attachment; filename="{name}"',
            "cache-control": "no-store",
        }
        return Response(content, media_type="application/octet-stream", headers=headers)

    async def mint(self, request: Request) -> Response:
        wanted = openapi.read(openapi.TokenRequest, await _body(request, 4096))
        return JSONResponse(self._access.mint(request, wanted), 201)

    async def status(self, request: Request) -> Response:
        self._access.of_admin(request)
        report = snapshot(self._fleet, self._lobby, self._metrics, self._ledger)
        return JSONResponse(report)

    async def usage(self, request: Request) -> Response:
        self._access.of_admin(request)
        return JSONResponse(self._ledger.to_json())

    async def usage_csv(self, request: Request) -> Response:
        self._access.of_admin(request)
        return Response(self._ledger.to_csv(), media_type="text/csv")

    async def document(self, request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(openapi.document))

    async def metrics(self, request: Request) -> Response:
        self._access.of_admin(request)
        return Response(await self._metrics.render_aside(), headers={"content-type": CONTENT_TYPE})

    def _find(self, request: Request) -> tuple[Pool, World]:
        try:
            pool = self._fleet.pool(request.path_params["world"])
        except ReverieError as error:
            raise HTTPException(404, str(error)) from None
        if pool.world is None:
            raise HTTPException(503, "the world is still warming up; ask again in a second")
        return self._fleet.pool(request.path_params["world"]), pool.world


async def _body(request: Request, limit: int) -> bytes:
    """The body, as long as it is not too long. Raises HTTPException."""
    too_long = HTTPException(413, f"the body is longer than {limit} bytes")
    if int(request.headers.get("content-length") or 0) > limit:
        raise too_long
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise too_long
    return bytes(body)
