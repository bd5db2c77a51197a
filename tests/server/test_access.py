"""Keys, tokens, origins, limits; and a whole server from which nothing comes without a token."""

from __future__ import annotations

import base64
import json
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from websockets.exceptions import InvalidStatus

from reverie.core import ReverieError
from reverie.server.access import Access, Grant, address_of, must_refuse_start
from reverie.server.keys import add_key, read_keys, remove_key
from reverie.server.limits import RateLimiter, SocketLimits
from reverie.server.openapi import TokenRequest
from reverie.server.protocol import CloseCode, ProtocolError
from tests.fakes import FakeClock
from tests.server.live import landscape_engine, running_server
from tests.server.player_client import player


def request(secret: str = "", address: str = "203.0.113.5", **headers: str) -> Request:
    said = {"host": "play.example", **headers}
    if secret:
        said["authorization"] = f"Bearer {secret}"
    raw = [(name.encode(), value.encode()) for name, value in said.items()]
    return Request({"type": "http", "headers": raw, "client": (address, 1), "query_string": b""})


class Door:
    """Access with a key each for players, for one world, and for an admin."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "keys.json"
        self.key = add_key(self.file, "shop", concurrency=3)
        self.narrow = add_key(self.file, "narrow", worlds=("meadow",))
        self.admin = add_key(self.file, "boss", is_admin=True)
        self.wall, self.clock = FakeClock(1.8e9), FakeClock()
        self.access = Access(self.file, wall=self.wall, clock=self.clock)

    def token(self, key: str = "", **wanted: Any) -> str:
        return self.access.mint(request(key or self.key), TokenRequest(**wanted))["token"]

    def refused(self, secret: str, world: str | None = None, **headers: str) -> CloseCode:
        with pytest.raises(ProtocolError) as caught:
            self.access.of_request(request(secret, **headers), world)
        assert secret not in str(caught.value) or not secret
        return caught.value.code


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


# Keys.


def test_a_key_is_shown_once_and_stored_nowhere(door: Door):
    assert door.key.startswith("rv_")
    assert door.key.removeprefix("rv_") not in door.file.read_text()
    assert stat.S_IMODE(door.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(door.file.with_suffix(".pem").stat().st_mode) == 0o600
    assert door.access.of_request(request(door.key)).who == "shop"
    assert [key.name for key in read_keys(door.file)] == ["shop", "narrow", "boss"]


def test_a_removed_key_is_not_good_any_more_and_neither_are_its_tokens(door: Door):
    token = door.token()
    grant = door.access.of_request(request(token))
    assert door.access.is_valid(grant)
    remove_key(door.file, "shop")
    assert not door.access.is_valid(grant)
    assert door.refused(door.key) is CloseCode.UNAUTHORIZED
    assert door.refused(token) is CloseCode.UNAUTHORIZED
    add_key(door.file, "shop")  # another key of that name
    assert not door.access.is_valid(grant)


def test_a_file_that_breaks_while_it_is_used_changes_nothing(door: Door):
    door.file.write_text("{")
    assert door.access.of_request(request(door.key)).who == "shop"
    door.file.unlink()
    assert door.refused(door.key) is CloseCode.UNAUTHORIZED


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (None, "is not there; make it with: reverie key NAME"),
        ("{", "is not a file of keys, or it is damaged"),
        ('{"version": 9, "keys": []}', "has version 9; expected 1"),
        ('{"version": 1, "keys": [{"name": "x"}]}', "is not a file of keys"),
    ],
)
def test_a_file_of_keys_that_is_none_is_one_line(tmp_path: Path, text: str | None, line: str):
    file = tmp_path / "keys.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ReverieError, match=line):
        Access(file)


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "=cmd()", "../x"])
def test_a_name_that_cannot_be_is_one_line(tmp_path: Path, name: str):
    with pytest.raises(ReverieError, match="expected up to 64 letters"):
        add_key(tmp_path / "keys.json", name)


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path):
    file = tmp_path / "keys.json"
    threads = [threading.Thread(target=add_key, args=(file, f"k{i}")) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_keys(file)) == 12


def test_two_servers_share_a_signing_key(door: Door):
    other = Access(door.file, wall=door.wall)
    assert other.of_request(request(door.token())).who == "shop"


# Tokens.


def test_a_token_grants_what_it_says(door: Door):
    token = door.token(world="meadow", origin="https://a.example", play_s=60, concurrency=2)
    grant = door.access.of_request(request(token))
    assert (grant.who, grant.world, grant.origin) == ("shop", "meadow", "https://a.example")
    assert (grant.play_s, grant.concurrency, grant.is_admin) == (60, 2, False)
    assert door.refused(token, "doom") is CloseCode.FORBIDDEN


def test_a_token_is_never_wider_than_its_key(door: Door):
    with pytest.raises(ProtocolError, match="not good for world 'doom'"):
        door.token(door.narrow, world="doom")
    with pytest.raises(ProtocolError, match="this key is good for 3"):
        door.token(concurrency=4)
    assert door.refused(door.token(door.narrow), "doom") is CloseCode.FORBIDDEN
    with pytest.raises(ProtocolError, match="a token makes no tokens"):
        door.access.mint(request(door.token()), TokenRequest())


def forged(token: str, header: dict[str, str], key: Any, algorithm: str | None) -> str:
    claims = jwt.decode(token, options={"verify_signature": False})
    return jwt.encode(claims, key, algorithm=algorithm, headers=header)


def test_forged_tokens_are_refused(door: Door):
    token = door.token()
    public = door.access._verifier.public_bytes_raw()
    head, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    wider = base64.urlsafe_b64encode(json.dumps({**claims, "sub": "boss"}).encode()).decode()
    for forgery in (
        jwt.encode(claims, "", algorithm="none"),
        jwt.encode(claims, public, algorithm="HS256"),
        f"{head}.{wider.rstrip('=')}.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}",
        token[:-4] + "AAAA",
        "x",
        "é",
    ):
        door.clock.advance(60)  # so that it is refused for what it is
        assert door.refused(forgery) is CloseCode.UNAUTHORIZED


@pytest.mark.parametrize(
    "change",
    [{"aud": "other"}, {"iss": "other"}, {"jti": None}, {"exp": None}, {"iat": 1.8e9 + 600}],
)
def test_tokens_for_others_or_of_another_time_are_refused(door: Door, change: dict[str, Any]):
    claims = jwt.decode(door.token(), options={"verify_signature": False}) | change
    claims = {name: value for name, value in claims.items() if value is not None}
    token = jwt.encode(claims, door.access._signer, algorithm="EdDSA")
    assert door.refused(token) is CloseCode.UNAUTHORIZED


def test_a_token_expires(door: Door):
    token = door.token(duration_s=300)
    door.wall.advance(299)
    door.access.of_request(request(token))
    door.wall.advance(10)
    assert door.refused(token) is CloseCode.UNAUTHORIZED


@pytest.mark.parametrize(
    ("named", "origin", "is_good"),
    [
        (None, None, True),
        (None, "http://play.example", True),
        (None, "https://play.example", True),
        (None, "https://evil.example", False),
        ("https://a.example", "https://a.example", True),
        ("https://a.example", "https://b.example", False),
        ("https://a.example", "https://play.example", False),
        ("https://a.example", None, True),
        (None, "null", False),
        (None, "http://[", False),
    ],
)
def test_a_page_is_of_this_server_or_of_the_origin_that_its_token_names(
    door: Door, named: str | None, origin: str | None, is_good: bool
):
    headers = {} if origin is None else {"origin": origin}
    token = door.token(origin=named)
    if is_good:
        door.access.of_request(request(token, **headers))
    else:
        assert door.refused(token, **headers) is CloseCode.FORBIDDEN


def test_figures_are_for_admins(door: Door):
    assert door.access.of_admin(request(door.admin)).who == "boss"
    for secret in (door.key, door.token()):
        with pytest.raises(ProtocolError) as caught:
            door.access.of_admin(request(secret))
        assert caught.value.code is CloseCode.FORBIDDEN


# Limits.


def test_so_many_at_a_time_in_every_way_of_leaving(door: Door):
    grant = door.access.of_request(request(door.token(concurrency=2)))
    with door.access.playing(grant):
        with pytest.raises(RuntimeError), door.access.playing(grant):  # noqa: PT012
            with (
                pytest.raises(ProtocolError, match="good for 2 at a time"),
                door.access.playing(grant),
            ):
                pass
            raise RuntimeError
        other = door.access.of_request(request(door.token(concurrency=2)))
        with (
            door.access.playing(grant),
            door.access.playing(other),
            pytest.raises(ProtocolError, match="this key is good for 3"),
            door.access.playing(other),
        ):
            pass
    assert not door.access._sockets


def test_after_wrong_secrets_right_ones_wait_too(door: Door):
    for _ in range(10):
        assert door.refused("rv_guess") is CloseCode.UNAUTHORIZED
    assert door.refused(door.key) is CloseCode.FLOODING
    door.access.of_request(request(door.key, address="203.0.113.6"))  # another one does not
    door.clock.advance(10)
    assert door.access.of_request(request(door.key)).who == "shop"


def test_a_key_is_limited_from_however_many_addresses(door: Door):
    token = door.token()
    for number in range(499):
        door.access.of_request(request(token, address=f"203.0.113.{number % 250}"))
    with pytest.raises(ProtocolError, match="too many requests with this key") as caught:
        door.access.of_request(request(door.key, address="198.51.100.1"))
    assert caught.value.code is CloseCode.FLOODING
    door.access.of_request(request(door.narrow, address="198.51.100.1"))  # another's is not
    door.clock.advance(1)
    assert door.access.of_request(request(token)).who == "shop"


@given(st.lists(st.floats(0, 5), max_size=80), st.floats(0.1, 50), st.floats(1, 20))
def test_never_more_than_the_burst_and_the_rate(gaps: list[float], rate: float, burst: float):
    clock = FakeClock()
    limiter = RateLimiter(rate, burst, clock)
    num_spent, began_s = 0, clock()
    for gap in gaps:
        clock.advance(gap)
        had_room = limiter.has_room("a")
        try:
            limiter.spend("a", "no")
        except ProtocolError:
            assert not had_room
        else:
            num_spent += 1
        assert num_spent <= burst + rate * (clock() - began_s) + 1e-6


def test_a_flood_of_addresses_fills_no_memory():
    limiter = RateLimiter(1, 2, max_names=100)
    for number in range(100_000):
        limiter.spend(str(number), "no")
    assert len(limiter) == 100


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("testclient", "testclient"),
    ],
)
def test_an_address_is_counted_as_its_customer(address: str, counted: str):
    assert address_of(request(address=address)) == counted


@pytest.mark.parametrize(
    ("host", "has_keys", "is_open", "starts"),
    [
        ("127.0.0.1", False, False, True),
        ("localhost", False, False, True),
        ("::1", False, False, True),
        ("0.0.0.0", False, False, False),
        ("192.0.2.7", False, False, False),
        ("::", False, False, False),
        ("0.0.0.0", True, False, True),
        ("0.0.0.0", False, True, True),
    ],
)
def test_a_server_does_not_start_open_by_accident(
    host: str, has_keys: bool, is_open: bool, starts: bool
):
    assert (must_refuse_start(host, has_keys, is_open) is None) == starts


# A whole server.


@contextmanager
def guarded(folder: Path, **options: Any) -> Iterator[tuple[str, Door]]:
    door = Door(folder)
    door.access = Access(door.file)
    with running_server(lambda: landscape_engine(2), access=door.access, **options) as url:
        yield url, door


def offered(token: str) -> dict[str, Any]:
    return {"subprotocols": ["reverie", f"token.{token}"]}


def test_nothing_comes_out_without_a_token(tmp_path: Path):
    with guarded(tmp_path) as (url, door):
        with player(url, **offered(door.token())) as client:
            client.frame()
        bad: list[dict[str, Any]] = [
            {},
            {"subprotocols": ["reverie"]},
            offered("guess"),
            offered(door.key),
            {"subprotocols": ["reverie", f"token.{door.token()}", f"token.{door.token()}"]},
            {**offered(door.token()), "origin": "https://evil.example"},
        ]
        for options in bad:
            with pytest.raises(InvalidStatus) as caught, player(url, **options):
                pass
            assert caught.value.response.status_code == 403
        for path in (
            "/api/worlds",
            "/api/worlds/landscape",
            "/api/worlds/landscape/starts/ridge.jpg",
            "/api/status",
            "/api/usage",
            "/api/usage.csv",
            "/metrics",
        ):
            answer = httpx.get(url + path)
            assert answer.status_code in (401, 429)
            assert "world" not in answer.json()
        assert httpx.post(f"{url}/api/tokens", json={}).status_code in (401, 429)
        sessions = f"{url}/api/worlds/landscape/sessions"
        assert httpx.post(sessions, json={"replay": "x"}).status_code in (401, 429)


def test_with_a_token_a_page_from_elsewhere_plays(tmp_path: Path):
    with guarded(tmp_path) as (url, door):
        origin = "https://game.example"
        key = {"authorization": f"Bearer {door.key}"}
        asked = {"world": "landscape", "origin": origin, "play_s": 600}
        answer = httpx.post(f"{url}/api/tokens", json=asked, headers=key)
        assert answer.status_code == 201
        token = answer.json()["token"]
        with player(url, origin=origin, **offered(token)) as client:
            assert client.socket.subprotocol == "reverie"
            client.frame()
            assert client.hello["time_limit_s"] == 600
        headers = {"authorization": f"Bearer {token}", "origin": origin}
        answer = httpx.get(f"{url}/api/worlds", headers=headers)
        assert answer.json()[0]["world"] == "landscape"
        assert answer.headers["access-control-allow-origin"] == origin
        asks = httpx.options(f"{url}/api/worlds", headers={"origin": origin})
        assert asks.status_code == 204
        assert "authorization" in asks.headers["access-control-allow-headers"]
        admin = {"authorization": f"Bearer {door.admin}"}
        usage = httpx.get(f"{url}/api/usage", headers=admin).json()
        assert usage["rows"][0]["who"] == "shop"
        assert httpx.get(f"{url}/api/status", headers=key).status_code == 403


def test_a_token_for_one_socket_can_take_its_own_session_over(tmp_path: Path):
    with guarded(tmp_path) as (url, door):
        token = door.token(concurrency=1)
        with player(url, **offered(token)) as old:
            old.frame()
            resume = f"?resume={old.hello['resume']}"
            with player(url, **offered(token)) as another:
                assert another.until_closed() == CloseCode.BUSY
            with player(url, resume, **offered(token)) as new:
                new.frame()
                assert old.until_closed() == CloseCode.ELSEWHERE


def test_a_token_for_another_world_opens_nothing(tmp_path: Path):
    with (
        guarded(tmp_path) as (url, door),
        player(url, **offered(door.token(door.narrow))) as client,
    ):
        assert client.until_closed() == CloseCode.FORBIDDEN
    assert client.hello == {}


def test_who_plays_with_a_withdrawn_key_is_shown_the_door(tmp_path: Path):
    with guarded(tmp_path) as (url, door), player(url, **offered(door.token())) as client:
        client.frame()
        remove_key(door.file, "shop")
        assert client.until_closed(acknowledge=True) == CloseCode.UNAUTHORIZED


def test_an_expired_token_still_comes_back_to_its_own_session(tmp_path: Path):
    with guarded(tmp_path, limits=SocketLimits(resume_s=10)) as (url, door):
        wall = FakeClock(door.access._wall())
        door.access._wall = wall
        token = door.token(duration_s=60)
        with player(url, **offered(token)) as client:
            client.frame()
            resume = f"?resume={client.hello['resume']}"
        wall.advance(600)
        with player(url, resume, **offered(token)) as client:
            client.frame()
            resume = f"?resume={client.hello['resume']}"
        with pytest.raises(InvalidStatus), player(url, **offered(token)):
            pass
        wall.now_s -= 600
        other = door.token(duration_s=60)
        wall.advance(600)
        with player(url, resume, **offered(other)) as client:
            assert client.until_closed() == CloseCode.UNKNOWN


def test_a_grant_of_a_server_without_keys_may_do_everything():
    access = Access()
    grant = access.of_admin(request())
    assert grant == Grant(is_admin=True)
    assert access.is_valid(grant)
