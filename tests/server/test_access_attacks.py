"""What somebody tries who should not get in, should not stay, or should not learn a secret."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519, rsa
from jwt.algorithms import OKPAlgorithm
from websockets.exceptions import InvalidStatus

from reverie.server.keys import add_key, remove_key
from reverie.server.protocol import CloseCode, ProtocolError
from tests.server.player_client import player
from tests.server.test_access import Door, guarded, offered, request


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


def test_a_token_dies_with_its_key_also_where_another_has_its_name(door: Door):
    token = door.token()  # by a thief, say
    remove_key(door.file, "shop")
    door.key = add_key(door.file, "shop")
    assert door.refused(token) is CloseCode.UNAUTHORIZED
    assert door.access.of_request(request(door.token())).who == "shop"


def test_a_key_that_may_less_now_has_tokens_that_may_less(door: Door):
    token = door.token()
    text = door.file.read_text()
    door.file.write_text(text.replace('"worlds": null', '"worlds": ["meadow"]', 1))
    assert door.refused(token, "doom") is CloseCode.FORBIDDEN
    assert door.access.of_request(request(token), "meadow").who == "shop"


@pytest.mark.parametrize("name", ["of another server", "Ed448", "RSA"])
def test_another_signer_is_refused(door: Door, name: str):
    claims = jwt.decode(door.token(), options={"verify_signature": False})
    signer: Any = {
        "of another server": ed25519.Ed25519PrivateKey.generate,
        "Ed448": ed448.Ed448PrivateKey.generate,
        "RSA": lambda: rsa.generate_private_key(65537, 2048),
    }[name]()
    algorithm = "RS256" if name == "RSA" else "EdDSA"
    assert door.refused(jwt.encode(claims, signer, algorithm=algorithm)) is CloseCode.UNAUTHORIZED


def test_a_key_in_the_header_of_a_token_is_not_believed(door: Door):
    claims = jwt.decode(door.token(), options={"verify_signature": False})
    mine = ed25519.Ed25519PrivateKey.generate()
    jwk = OKPAlgorithm.to_jwk(mine.public_key(), as_dict=True)
    headers = {"jwk": jwk, "kid": "x", "jku": "http://evil.example"}
    forged = jwt.encode(claims, mine, algorithm="EdDSA", headers=headers)
    assert door.refused(forged) is CloseCode.UNAUTHORIZED


@pytest.mark.parametrize("claim", ["iss", "aud", "sub", "key", "exp", "iat", "jti", "world"])
def test_a_token_says_everything(door: Door, claim: str):
    claims = jwt.decode(door.token(), options={"verify_signature": False})
    del claims[claim]
    token = jwt.encode(claims, door.access._signer, algorithm="EdDSA")
    assert door.refused(token) is CloseCode.UNAUTHORIZED


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "*",
        "game.example",
        "https://",
        "https://game.example/",
        "https://game.example/path",
        "https://Game.example",
        "https://game.example:443",
        "http://game.example:80",
        "https://me@game.example",
        "https://*.example",
        "https://game.example ",
        "https://a.example https://b.example",
    ],
)
def test_an_origin_that_no_page_has_or_that_any_page_has_makes_no_token(door: Door, origin: str):
    with pytest.raises(ProtocolError, match="expected it as browsers say it") as caught:
        door.token(origin=origin)
    assert caught.value.code is CloseCode.MALFORMED


@pytest.mark.parametrize(
    "origin",
    [
        "https://game.example",
        "http://game.example:8080",
        "http://localhost:5173",
        "http://[::1]:5173",
        "https://xn--bcher-kva.example",
        "capacitor://localhost",
        "chrome-extension://abcdefgh",
    ],
)
def test_an_origin_as_browsers_say_it_makes_one(door: Door, origin: str):
    token = door.token(origin=origin)
    assert door.access.of_request(request(token, origin=origin)).origin == origin


def test_only_guesses_lock_an_address_out(door: Door):
    """Nobody guesses who comes without a token, with an old one, or from another page."""
    old, withdrawn = door.token(duration_s=1), door.token(door.narrow)
    remove_key(door.file, "narrow")
    door.wall.advance(60)
    for _ in range(20):
        assert door.refused("") is CloseCode.UNAUTHORIZED
        assert door.refused(old) is CloseCode.UNAUTHORIZED
        assert door.refused(withdrawn) is CloseCode.UNAUTHORIZED
        assert door.refused(door.key, origin="https://evil.example") is CloseCode.FORBIDDEN
    assert door.access.of_request(request(door.key)).who == "shop"
    for guess in (f"rv_{number}" for number in range(10)):
        assert door.refused(guess) is CloseCode.UNAUTHORIZED
    assert door.refused(door.key) is CloseCode.FLOODING


def test_one_customer_of_ipv6_cannot_guess_from_many_addresses(door: Door):
    for number in range(10):
        with pytest.raises(ProtocolError):
            door.access.of_request(request("rv_guess", address=f"2001:db8::{number}"))
    with pytest.raises(ProtocolError) as caught:
        door.access.of_request(request(door.key, address="2001:db8::ffff"))
    assert caught.value.code is CloseCode.FLOODING
    door.access.of_request(request(door.key, address="2001:db8:0:1::1"))


def test_an_expired_token_begins_nothing(tmp_path: Path):
    with guarded(tmp_path) as (url, door):
        old = door.token(duration_s=0.001)
        wall_s = door.access._wall()
        door.access._wall = lambda: wall_s + 60
        for query in ("", "?resume=", "?resume=&resume=", "?resume=x&resume="):
            with pytest.raises(InvalidStatus), player(url, query, **offered(old)):
                pass
        with player(url, "?resume=x", **offered(old)) as client:
            assert client.until_closed() == CloseCode.UNKNOWN
        assert client.hello == {}


def test_a_proxy_on_this_machine_has_a_name_of_its_own(tmp_path: Path):
    """TLS ends there: the server listens on loopback, and is asked for by the public name."""
    with guarded(tmp_path) as (url, door):
        headers = {
            "authorization": f"Bearer {door.admin}",
            "host": "play.example",
            "origin": "https://play.example",
        }
        assert httpx.get(f"{url}/api/usage", headers=headers).status_code == 200
        headers["host"] = "elsewhere.example"
        assert httpx.get(f"{url}/api/usage", headers=headers).status_code == 403


def test_no_secret_reaches_a_log(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for name in ("httpx", "httpcore", "websockets.client"):  # of this test, not of the server
        caplog.set_level(logging.WARNING, name)
    caplog.set_level(logging.DEBUG)
    with guarded(tmp_path) as (url, door):
        token, guess = door.token(), "e30.guessed.e30"
        with player(url, **offered(token)) as client:
            client.frame()
        with pytest.raises(InvalidStatus), player(url, **offered(guess)):
            pass
        for secret in (door.key, token, guess, "rv_guessed"):
            for path in ("/api/worlds", "/api/status", "/api/tokens"):
                answer = httpx.get(url + path, headers={"authorization": f"Bearer {secret}"})
                assert secret not in answer.text
        logging.getLogger("reverie.server").debug("something")  # so that there is a log at all
    assert "something" in caplog.text
    for secret in (door.key, door.admin, token, guess, "rv_guessed"):
        assert secret not in caplog.text
