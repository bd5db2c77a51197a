"""Which pages and names come through, as values: the middleware around an app that answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from reverie.server.guard import LOOPBACK_HOSTS, HostGuard


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    else:
        await PlainTextResponse("played")(scope, receive, send)


def ask(guard: HostGuard, kind: str = "http", method: str = "GET", **headers: str) -> Message:
    """What begins the answer; its headers by name."""
    path = headers.pop("path", "/api/worlds")
    scope: Scope = {
        "type": kind,
        "method": method,
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": f"{kind}.disconnect"}

    asyncio.run(guard(scope, receive, send))
    first = dict(sent[0])
    first["headers"] = {k.decode(): v.decode() for k, v in first.get("headers", [])}
    return first


LOCAL = HostGuard(_app, LOOPBACK_HOSTS)
PUBLIC = HostGuard(_app, None)
WITH_TOKENS = HostGuard(_app, LOOPBACK_HOSTS, foreign_pages=True)


@pytest.mark.parametrize(
    ("guard", "headers", "status"),
    [
        (LOCAL, {"host": "localhost:8137"}, 200),
        (LOCAL, {"host": "[::1]:8137"}, 200),
        (LOCAL, {"host": "evil.example"}, 403),
        (LOCAL, {"host": "["}, 403),
        (LOCAL, {}, 403),
        (LOCAL, {"host": "localhost:8137", "origin": "http://localhost:8137"}, 200),
        (LOCAL, {"host": "localhost:8137", "origin": "http://localhost:1"}, 403),
        (PUBLIC, {"host": "play.example", "origin": "https://play.example"}, 200),  # behind TLS
        (PUBLIC, {"host": "play.example", "origin": "https://evil.example"}, 403),
        (PUBLIC, {"host": "play.example", "origin": "null"}, 403),
        (PUBLIC, {"host": "play.example", "origin": "http://["}, 403),
        # With tokens, `Access` looks at origins; and a proxy on this machine has a name of its own.
        (WITH_TOKENS, {"host": "play.example", "origin": "https://game.example"}, 200),
        (WITH_TOKENS, {"host": "play.example"}, 200),
    ],
)
def test_who_comes_through(guard: HostGuard, headers: dict[str, str], status: int):
    assert ask(guard, **headers)["status"] == status
    opened = ask(guard, "websocket", path="/ws", **headers)["type"]
    assert opened == ("websocket.accept" if status == 200 else "websocket.close")


def test_a_page_from_elsewhere_may_read_what_its_token_opens():
    asked = {"host": "play.example", "origin": "https://game.example"}
    answer = ask(WITH_TOKENS, **asked)["headers"]
    assert answer["access-control-allow-origin"] == "https://game.example"
    assert answer["vary"] == "origin"
    # What a browser adds by itself must open nothing, so it is never asked to add it.
    assert "access-control-allow-credentials" not in answer
    before: Any = ask(WITH_TOKENS, method="OPTIONS", **asked)
    assert before["status"] == 204
    assert "authorization" in before["headers"]["access-control-allow-headers"]


@pytest.mark.parametrize(
    ("guard", "path"), [(LOCAL, "/api/worlds"), (WITH_TOKENS, "/"), (WITH_TOKENS, "/admin")]
)
def test_nothing_else_is_shared(guard: HostGuard, path: str):
    host = "localhost:8137"
    answer = ask(guard, path=path, host=host, origin=f"http://{host}")["headers"]
    assert not [name for name in answer if name.startswith("access-control")]
    assert "frame-ancestors 'none'" in answer["content-security-policy"]
