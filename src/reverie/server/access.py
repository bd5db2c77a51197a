"""Who may play, and see figures.

Without a file of keys, everybody. With one, a key makes tokens (`mint`), and a token opens sockets:
signed with Ed25519, good for a few minutes, for one world, one origin and so many sessions, as far
as it says so, and never for more than its key. No key or token is ever logged or said back.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.requests import HTTPConnection, Request
from starlette.websockets import WebSocket

from reverie.core import ReverieError
from reverie.server.keys import PREFIX, Key, KeyFile, locked, write_secret
from reverie.server.limits import RateLimiter
from reverie.server.openapi import TokenBody, TokenRequest
from reverie.server.protocol import CloseCode, ProtocolError

ISSUER = AUDIENCE = "reverie"
TOKEN_PREFIX = "token."
"""Of the subprotocol that carries a token."""
LEEWAY_S = 5.0
"""Clocks of two servers may differ by this."""
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9_.-]+(:\d+)?|[a-z]+://\[[0-9a-f:]+\](:\d+)?")
"""As browsers say it; never "null", which every page says that hides where it is from."""
_DEFAULT_PORTS = (("http:", ":80"), ("https:", ":443"))


@dataclass(frozen=True, slots=True)
class Grant:
    """What somebody may do. who: name of the key. world, origin: only that one; None for any.
    play_s: of one session, in all. concurrency: sockets with this token; key_concurrency: with all
    tokens of the key. key_sha256: which key of that name. is_expired: good for coming back only.
    """

    who: str = "everybody"
    world: str | None = None
    worlds: tuple[str, ...] | None = None
    origin: str | None = None
    play_s: float | None = None
    concurrency: int | None = None
    key_concurrency: int | None = None
    token_id: str = ""
    key_sha256: str = ""
    is_admin: bool = False
    is_expired: bool = False

    def allows(self, world: str) -> bool:
        return self.world in (None, world) and (self.worlds is None or world in self.worlds)


EVERYBODY = Grant(is_admin=True)
"""On a server without keys."""


class Access:
    """keys: file of keys; None lets everybody in. signing_key: PEM file of an Ed25519 key, beside
    the keys if not given, made if it is not there. Raises ReverieError where either cannot be read.
    """

    def __init__(
        self,
        keys: Path | None = None,
        signing_key: Path | None = None,
        *,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._keys: KeyFile | None = None
        if keys is not None:
            self._keys = KeyFile(keys)
            self._signer = _signer(signing_key or keys.with_suffix(".pem"))
            self._verifier = self._signer.public_key()
        self._sockets: Counter[str] = Counter()
        self._openings = RateLimiter(20.0, 500.0, clock)
        self._requests = RateLimiter(50.0, 500.0, clock)
        self._mints = RateLimiter(20.0, 200.0, clock)
        self._guesses = RateLimiter(0.2, 10.0, clock)

    @property
    def is_on(self) -> bool:
        """Whether anybody needs a token."""
        return self._keys is not None

    # Sockets.

    def admit_socket(self, websocket: WebSocket) -> None:
        """Before the handshake is answered. Raises ProtocolError."""
        address = address_of(websocket)
        if self.is_on or not _is_loopback(address):
            self._openings.spend(address, "sockets are opened too fast from this address")
        websocket.state.grant = EVERYBODY
        if self.is_on:
            self._check_guesses(address)
            offered = websocket.scope.get("subprotocols", [])
            tokens = [name for name in offered if name.startswith(TOKEN_PREFIX)]
            if len(tokens) != 1:
                raise _unauthorized("this server wants a token")
            is_back = bool(websocket.query_params.get("resume"))  # an empty one is a newcomer's
            with self._counting_guesses(address):
                grant = self._verify(tokens[0].removeprefix(TOKEN_PREFIX), may_be_old=is_back)
            _check_origin(websocket, grant)
            self._openings.spend(f"key {grant.who}", "sockets are opened too fast with this key")
            websocket.state.grant = grant

    def of_socket(self, websocket: WebSocket, world: str) -> Grant:
        """Of a socket that was admitted. Raises ProtocolError where it is for another world."""
        grant: Grant = websocket.state.grant
        if not grant.allows(world):
            raise ProtocolError(CloseCode.FORBIDDEN, f"this token is not good for world {world!r}")
        return grant

    @contextlib.contextmanager
    def playing(self, grant: Grant) -> Iterator[None]:
        """While a socket is open. Raises ProtocolError where too many of its token or key are."""
        counted = [(grant.token_id, grant.concurrency, "token")]
        counted.append((f"key {grant.who}", grant.key_concurrency, "key"))
        for name, limit, what in counted:
            if limit is not None and self._sockets[name] >= limit:
                line = f"this {what} is good for {limit} at a time; close another one first"
                raise ProtocolError(CloseCode.BUSY, line)
        self._sockets.update(name for name, _, _ in counted)
        try:
            yield
        finally:
            self._sockets.subtract(name for name, _, _ in counted)
            for name, _, _ in counted:
                if not self._sockets[name]:
                    del self._sockets[name]

    def is_valid(self, grant: Grant) -> bool:
        """Whether its key is still in the file."""
        if self._keys is None:
            return True
        key = self._keys.named(grant.who)
        return key is not None and key.sha256 == grant.key_sha256

    # Requests.

    def of_request(self, request: Request, world: str | None = None) -> Grant:
        """By a key or a token. Raises ProtocolError; `app` makes an answer of it."""
        address = address_of(request)
        if self.is_on or not _is_loopback(address):
            self._requests.spend(address, "too many requests from this address")
        if self._keys is None:
            return EVERYBODY
        self._check_guesses(address)
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secret:
            raise _unauthorized("this wants an Authorization: Bearer header")
        with self._counting_guesses(address):
            if secret.startswith(PREFIX):
                key = self._keys.find(secret)
                if key is None:
                    raise _GuessError("this key is not known, or was withdrawn")
                grant = _grant_of(key)
            else:
                grant = self._verify(secret)
        _check_origin(request, grant)
        self._requests.spend(f"key {grant.who}", "too many requests with this key")
        if world is not None and not grant.allows(world):
            raise ProtocolError(CloseCode.FORBIDDEN, f"not good for world {world!r:.60}")
        return grant

    def of_admin(self, request: Request) -> Grant:
        """Raises ProtocolError for all but keys of admins."""
        grant = self.of_request(request)
        if not grant.is_admin:
            raise ProtocolError(CloseCode.FORBIDDEN, "this wants the key of an admin")
        return grant

    def mint(self, request: Request, wanted: TokenRequest) -> TokenBody:
        """A token for a player, by a key. Raises ProtocolError where the key is not good for it."""
        grant = self.of_request(request)
        if self._keys is None:
            raise ProtocolError(CloseCode.UNKNOWN, "this server has no keys: nobody needs a token")
        if grant.token_id:
            raise ProtocolError(CloseCode.FORBIDDEN, "a token makes no tokens; use a key")
        self._mints.spend(grant.who, "too many tokens are made with this key")
        if wanted.world is not None and not grant.allows(wanted.world):
            line = f"this key is not good for world {wanted.world!r:.60}"
            raise ProtocolError(CloseCode.FORBIDDEN, line)
        if grant.key_concurrency is not None and wanted.concurrency > grant.key_concurrency:
            line = f"concurrency {wanted.concurrency}; this key is good for {grant.key_concurrency}"
            raise ProtocolError(CloseCode.FORBIDDEN, line)
        _check_named(wanted.origin)
        now_s = self._wall()
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": grant.who,
            "key": _fingerprint(grant.key_sha256),
            "iat": now_s,
            "exp": now_s + wanted.duration_s,
            "jti": secrets.token_urlsafe(12),
            "world": wanted.world,
            "origin": wanted.origin,
            "play_s": wanted.play_s,
            "concurrency": wanted.concurrency,
        }
        token = jwt.encode(claims, self._signer, algorithm="EdDSA")
        return {"token": token, "expires_s": wanted.duration_s}

    # Inside.

    def _verify(self, token: str, may_be_old: bool = False) -> Grant:
        claims = self._claims(token)
        now_s = self._wall()
        is_expired = claims["exp"] < now_s - LEEWAY_S
        if claims["iat"] > now_s + LEEWAY_S:
            raise _unauthorized("this token is not good yet")
        if is_expired and not may_be_old:
            raise _unauthorized("this token has expired; get another one")
        assert self._keys is not None
        key = self._keys.named(claims["sub"])
        if key is None or _fingerprint(key.sha256) != claims["key"]:  # or is another of that name
            raise _unauthorized("the key of this token was withdrawn")
        return Grant(
            key.name,
            claims["world"],
            key.worlds,
            claims["origin"],
            claims["play_s"],
            claims["concurrency"],
            key.concurrency,
            claims["jti"],
            key.sha256,
            is_expired=is_expired,
        )

    def _claims(self, token: str) -> dict[str, Any]:
        """Whole and ours, whenever that was. Times are held against the clock of this object."""
        required = ["iss", "aud", "sub", "key", "exp", "iat", "jti"]
        options: Any = {"require": required, "verify_exp": False, "verify_iat": False}
        try:
            claims = jwt.decode(
                token,
                self._verifier,
                algorithms=["EdDSA"],
                issuer=ISSUER,
                audience=AUDIENCE,
                options=options,
            )
            names = ("world", "origin", "play_s", "concurrency")
            return {name: claims[name] for name in (*required, *names)}
        except (jwt.InvalidTokenError, KeyError, ValueError):
            raise _GuessError("this token is not one of this server, or is damaged") from None

    def _check_guesses(self, address: str) -> None:
        if not self._guesses.has_room(address):
            line = "too many wrong keys or tokens from this address; wait a minute"
            raise ProtocolError(CloseCode.FLOODING, line)

    @contextlib.contextmanager
    def _counting_guesses(self, address: str) -> Iterator[None]:
        """Only what was never good: a page that comes back with an old token guesses nothing, and
        must not lock out whoever shares its address.
        """
        try:
            yield
        except _GuessError:
            with contextlib.suppress(ProtocolError):
                self._guesses.spend(address, "")
            raise


def must_refuse_start(host: str, has_keys: bool, is_open: bool) -> str | None:
    """The line of a server that would let everybody on a network in although nobody said so."""
    if has_keys or is_open or _is_loopback(host) or host == "localhost":
        return None
    return (
        f"host {host} can be reached by others: give --keys FILE (made by: reverie key NAME --file "
        "FILE), or --open to let anybody play"
    )


def address_of(connection: HTTPConnection) -> str:
    """Whom limits count: an address, of IPv6 the network that one customer has."""
    host = connection.client.host if connection.client is not None else "unknown"
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        if isinstance(address, ipaddress.IPv6Address):
            if address.ipv4_mapped is not None:
                return str(address.ipv4_mapped)
            return str(ipaddress.ip_network((address, 64), strict=False))
    return host


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_network(host, strict=False).network_address
    except ValueError:
        return False
    return address.is_loopback or host == "::/64"


def _check_origin(connection: HTTPConnection, grant: Grant) -> None:
    """A page's origin must be this server's own, or the one that the token names. What is no page
    names none.
    """
    origin = connection.headers.get("origin")
    if origin is None:
        return
    try:
        is_own = urlsplit(origin).netloc == connection.headers.get("host", "")
    except ValueError:
        is_own = False
    if grant.origin not in (None, origin) or not (is_own or grant.origin == origin):
        line = f"origin {origin!r:.80} is not the one that this token is for"
        raise ProtocolError(CloseCode.FORBIDDEN, line)


def _check_named(origin: str | None) -> None:
    """Raises ProtocolError on an origin that no page will ever have, or that any page can."""
    good = origin is None or (
        _ORIGIN.fullmatch(origin)
        and not any(origin.startswith(a) and origin.endswith(b) for a, b in _DEFAULT_PORTS)
    )
    if not good:
        raise ProtocolError(
            CloseCode.MALFORMED,
            f"origin {origin!r:.80}; expected it as browsers say it, such as https://play.example",
        )


def _fingerprint(sha256: str) -> str:
    """Tells the keys of a name from each other; players see it in their tokens."""
    return sha256[:16]


def _grant_of(key: Key) -> Grant:
    return Grant(
        key.name,
        worlds=key.worlds,
        key_concurrency=key.concurrency,
        key_sha256=key.sha256,
        is_admin=key.is_admin,
    )


def _signer(path: Path) -> Ed25519PrivateKey:
    """The signing key of the file, made if there is none; of two who make it, one does."""
    try:
        if not path.exists():
            with locked(path):
                if not path.exists():
                    write_secret(path, _new_pem())
    except OSError as error:
        raise ReverieError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ReverieError(f"{path} is not a PEM file of an Ed25519 key")
    return key


def _new_pem() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


class _GuessError(ProtocolError):
    """A key or token that was never one of this server."""

    def __init__(self, line: str) -> None:
        super().__init__(CloseCode.UNAUTHORIZED, line)


def _unauthorized(line: str) -> ProtocolError:
    return ProtocolError(CloseCode.UNAUTHORIZED, line)
