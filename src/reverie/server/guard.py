"""Who may talk to the server: pages that the server itself gave out.

A page from elsewhere can open a WebSocket to localhost, so the browser's Origin must name the host
that was asked. And a name on the internet can be made to point at 127.0.0.1, so a server on a
loopback address answers only to loopback names.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})

# Nothing but our own files runs in the page. The two Cross-Origin lines isolate it, which gives its
# clock 5 instead of 100 microseconds: the latency that it shows is measured with that clock.
_PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' blob: data:; "
        "object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_SHARED_HEADERS = {
    "access-control-allow-headers": "authorization, content-type",
    "access-control-allow-methods": "GET, POST",
    "access-control-max-age": "600",
    "vary": "origin",
}


class HostGuard:
    """ASGI middleware. allowed_hosts: names that the Host header may carry; None for any.
    foreign_pages: pages from elsewhere, and names that a proxy in front of this server has, are let
    through to where their token is looked at (`Access`): what a browser adds to a request by itself
    opens nothing there.
    """

    def __init__(
        self, app: ASGIApp, allowed_hosts: frozenset[str] | None, foreign_pages: bool = False
    ) -> None:
        self._app = app
        self._allowed_hosts = allowed_hosts
        self._foreign_pages = foreign_pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        line = self._refusal(Headers(scope=scope))
        if line is not None:
            # For a socket the server turns this into an answer to the handshake, where it can.
            if scope["type"] == "websocket" and "websocket.http.response" not in scope.get(
                "extensions", {}
            ):
                await send({"type": "websocket.close", "code": 1008, "reason": line})
                return
            await JSONResponse({"error": line}, status_code=403)(scope, receive, send)
            return

        headers = Headers(scope=scope)
        shared = {}
        if self._foreign_pages and "origin" in headers and scope["path"].startswith("/api/"):
            shared = {**_SHARED_HEADERS, "access-control-allow-origin": headers["origin"]}

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update({**_PAGE_HEADERS, **shared})
            await send(message)

        if shared and scope.get("method") == "OPTIONS":  # a browser asks before it asks
            await Response(status_code=204)(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)

    def _refusal(self, headers: Headers) -> str | None:
        if self._foreign_pages:
            return None
        host = headers.get("host", "")
        if self._allowed_hosts is not None and _hostname(host) not in self._allowed_hosts:
            return f"host {host!r} is not one of {', '.join(sorted(self._allowed_hosts))}"
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != host:
            return f"origin {origin!r} is not this server, {host!r}"
        return None


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
