"""A server with access on: no frame, and nothing else of a world, leaves it without a valid token.

Tries every route with no credentials, wrong ones and expired ones; and then a right one. Each try
comes from an address of its own: from one address, the server stops listening after a few.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.serve_load.fake_server import fake_command
from benchmarks.serve_load.findings import Outcome
from benchmarks.serve_load.player import Player
from benchmarks.serve_load.running import RunningServer, running

SHORT_S = 1.0
EXPIRED_AFTER_S = 7.0
"""A clock may be off by a little: tokens are good for a few seconds longer than they say."""
PATIENCE_S = 2.0
WITHDRAWN_WITHIN_S = 10.0
ORIGIN = "https://game.example"
ROUTES = (
    ("GET", "/api/worlds"),
    ("GET", "/api/worlds/fake"),
    ("GET", "/api/worlds/fake/starts/start.jpg"),
    ("POST", "/api/worlds/fake/sessions"),
    ("POST", "/api/tokens"),
    ("GET", "/api/status"),
    ("GET", "/api/usage"),
    ("GET", "/api/usage.csv"),
    ("GET", "/metrics"),
)


@dataclass(frozen=True, slots=True)
class Try:
    """A socket: query, subprotocols, and the page's origin."""

    name: str
    protocols: tuple[str, ...]
    query: str = ""
    origin: str | None = None


def access() -> Outcome:
    outcome = Outcome("access")
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys.json"
        key, other = make_key(keys, "player"), make_key(keys, "other")
        settings = {"engines": [{"standby": False}], "access": {"keys": str(keys)}}
        with running(fake_command(num_slots=4, fps=20), settings) as server:
            asyncio.run(_sockets(outcome, server, key, other))
            _rest(outcome, server, key)
            asyncio.run(_withdrawal(outcome, server, keys, key))
            outcome.must("alive", server.is_alive, "server lives")
    return outcome


def make_key(file: Path, name: str, *flags: str) -> str:
    """A new API key, by `reverie key`."""
    command = [sys.executable, "-m", "reverie", "key", name, "--file", str(file), *flags]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"rv_\S+", shown)
    assert found, f"reverie key showed no key: {shown!r}"
    return found[0]


def mint(server: RunningServer, key: str, **wanted: Any) -> str:
    """A token. Raises RuntimeError where the server makes none."""
    headers = {"Authorization": f"Bearer {key}"}
    code, body = server.request("POST", "/api/tokens", wanted, headers)
    if code != 201:
        raise RuntimeError(f"POST /api/tokens answers {code}: {body[:200]!r}")
    return json.loads(body)["token"]


def with_token(token: str) -> tuple[str, ...]:
    """Subprotocols that carry it."""
    return ("reverie", f"token.{token}")


async def _sockets(outcome: Outcome, server: RunningServer, key: str, other: str) -> None:
    good = mint(server, key)
    expired = mint(server, key, duration_s=SHORT_S)
    playing = Player(server.ws, 1, with_token(good))
    await playing.open()
    plays = await playing.until_playing(PATIENCE_S)
    outcome.must("plays", plays, "a right token plays", playing.visit.error)
    resume = playing.hello.get("resume", "")
    bound = mint(server, key, origin=ORIGIN)
    tries = [
        Try("no subprotocol", ()),
        Try("no token", ("reverie",)),
        Try("no token, a token in the query", ("reverie",), f"?token={good}"),
        Try("another's session", ("reverie",), f"?resume={resume}"),
        Try(
            "another's session, by another key",
            with_token(mint(server, other)),
            f"?resume={resume}",
        ),
        Try("not a token", with_token("x")),
        Try("random bytes", with_token(secrets.token_urlsafe(200))),
        Try("very long", with_token("a" * 6000)),
        *(Try(name, with_token(token)) for name, token in forged(good).items()),
        Try("for another world", with_token(mint(server, key, world="elsewhere"))),
        Try("for another origin", with_token(bound), origin="https://evil.example"),
        Try("in use already", with_token(good)),
    ]
    await asyncio.sleep(EXPIRED_AFTER_S)
    tries += [
        Try("expired", with_token(expired)),
        Try("expired, as if to come back", with_token(expired), "?resume="),
        Try("expired, to come back to nothing", with_token(expired), "?resume=x"),
    ]
    leaks, ends = [], []
    for number, attempt in enumerate(tries):
        frames, end = await _try(server, attempt, f"127.0.1.{number + 1}")
        ends.append(f"{attempt.name}: {end}")
        if frames:
            leaks.append(attempt.name)
    outcome.note("socket_tries", len(tries), "sockets without a right token")
    outcome.at_most(
        "leaks", len(leaks), 0, f"of them got anything of a world {leaks or ''}".strip()
    )
    outcome.say("how they ended", "; ".join(ends))
    still = await playing.until_playing(PATIENCE_S)
    outcome.must("goes_on", still, "who plays goes on meanwhile", playing.visit.error)
    await playing.leave("end")
    right = Player(server.ws, 1, with_token(bound), ORIGIN)
    await right.open()
    plays = await right.until_playing(PATIENCE_S)
    outcome.must("origin", plays, "a token of an origin plays there", right.visit.error)
    await right.leave("end")


async def _try(server: RunningServer, attempt: Try, source: str) -> tuple[int, str]:
    """Frames and descriptions of a world that it got; how it ended."""
    player = Player(server.ws + attempt.query, 1, attempt.protocols, attempt.origin, source)
    await player.open()
    await player.until(lambda: player.is_closed or player.visit.num_frames > 0, PATIENCE_S)
    visit = player.visit
    got = visit.num_frames + bool(player.hello)
    closed = visit.close_code if visit.status == 101 else f"http {visit.status}"
    if not player.is_closed:
        await player.leave("end")
        closed = closed or "open"
    return got, str(closed)


def forged(token: str) -> dict[str, str]:
    """Tokens that say the same, or more, without the server having signed it."""
    import jwt
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    header, payload, signature = token.split(".")
    claims = json.loads(_decoded(payload))
    longer = {**claims, "exp": claims.get("exp", 0) + 3600}
    flipped = ("A" if signature[0] != "A" else "B") + signature[1:]
    head = jwt.get_unverified_header(token)
    return {
        "of another signer": jwt.encode(
            claims,
            Ed25519PrivateKey.generate(),
            "EdDSA",
            {k: v for k, v in head.items() if k != "alg"},
        ),
        "by a shared secret": jwt.encode(claims, "s" * 32, "HS256"),
        "of no signer": f"{_encoded({'alg': 'none', 'typ': 'JWT'})}.{payload}.",
        "signature cut off": f"{header}.{payload}.",
        "signature changed": f"{header}.{payload}.{flipped}",
        "payload changed": f"{header}.{_encoded(longer)}.{signature}",
    }


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _encoded(claims: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()


def _rest(outcome: Outcome, server: RunningServer, key: str) -> None:
    """Every route, with nothing, with a made-up key, and with a made-up token."""
    wrong = []
    credentials = (
        {},
        {"Authorization": "Bearer rv_" + "a" * 40},
        {"Authorization": "Bearer a.b.c"},
    )
    for i, (method, path) in enumerate(ROUTES):
        body = {} if method == "POST" else None
        for headers in credentials:
            code, _ = server.request(method, path, body, headers, f"127.0.2.{i + 1}")
            if code not in (401, 403):
                wrong.append(f"{method} {path}: {code}")
    total = len(ROUTES) * len(credentials)
    outcome.must("rest", not wrong, f"{total} requests without a right key are refused",
                 "; ".join(wrong)[:300])  # fmt: skip
    code, _ = server.request("GET", "/api/status", headers={"Authorization": f"Bearer {key}"})
    outcome.must(
        "admin", code in (401, 403), "a player's key does not open the dashboard", str(code)
    )
    code, _ = server.request("GET", "/healthz")
    outcome.must("health", code == 200, "/healthz needs no key")


async def _withdrawal(outcome: Outcome, server: RunningServer, keys: Path, key: str) -> None:
    """The key is taken out of the file: what is played with it ends."""
    player = Player(server.ws, 1, with_token(await asyncio.to_thread(mint, server, key)))
    await player.open()
    await player.until_playing(PATIENCE_S)
    fresh = keys.with_name("fresh.json")
    await asyncio.to_thread(make_key, fresh, "somebody")
    fresh.replace(keys)
    ended = await player.until(lambda: player.is_closed, WITHDRAWN_WITHIN_S)
    said = f"{player.visit.close_code} {player.visit.error}"
    outcome.must("withdrawn", ended, "a withdrawn key ends its sessions", said)
    if not ended:
        await player.leave("end")
