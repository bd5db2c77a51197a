"""The document of the REST part: what it says is what there is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter
from starlette.routing import BaseRoute, Mount, Route

from reverie.core import ReverieError
from reverie.server import EngineSpec, create_app, openapi
from reverie.server.fleet import describe
from reverie.server.messages import WorldBody
from reverie.server.openapi import ReplayRequest, TokenRequest, document, read
from scripts import protocol_types
from tests.server.live import landscape_engine


def routes(found: list[BaseRoute], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Path and method of everything but files and the socket."""
    for route in found:
        if isinstance(route, Mount):
            yield from routes(route.routes or [], prefix + route.path)
        elif isinstance(route, Route):
            for method in sorted(route.methods or ()):
                if method != "HEAD":
                    yield prefix + route.path, method.lower()


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (path, method): operation
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
    }


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_route_is_described_and_nothing_else():
    app = create_app([EngineSpec(landscape_engine)])
    assert sorted(routes(app.routes)) == sorted(operations())


def test_the_written_document_is_current():
    written = protocol_types.OPENAPI_FILE.read_text(encoding="utf-8")
    assert json.loads(written) == json.loads(json.dumps(document())), "run `make docs`"


def test_the_document_is_whole():
    whole = document()
    assert whole["openapi"] == "3.1.0"
    assert {"title", "version"} <= set(whole["info"])
    schemas, schemes = (whole["components"][name] for name in ("schemas", "securitySchemes"))
    asked = {reference.rpartition("/")[2] for reference in references(whole)}
    assert asked == set(schemas)
    names = [operation["operationId"] for operation in operations().values()]
    assert len(set(names)) == len(names)
    for (path, _), operation in operations().items():
        parameters = {parameter["name"] for parameter in operation.get("parameters", ())}
        assert parameters == set(re.findall(r"\{(\w+)\}", path))
        assert operation["responses"]
        for code, response in operation["responses"].items():
            assert re.fullmatch(r"[2-5]\d\d", code)
            assert response["description"]
        assert {name for need in operation["security"] for name in need} <= set(schemes)


def test_only_what_is_public_needs_no_key():
    public = {path for (path, _), operation in operations().items() if not operation["security"]}
    assert public == {"/api/saves/{id}", "/api/openapi.json", "/healthz", "/readyz", "/admin"}


def test_a_world_is_described_as_the_document_says():
    described = json.loads(json.dumps(describe(landscape_engine().world)))
    TypeAdapter(WorldBody).validate_python(described, strict=True)
    assert set(described) == set(document()["components"]["schemas"]["WorldBody"]["required"])


def test_a_token_request_has_defaults():
    assert read(TokenRequest, b"{}") == TokenRequest()
    wanted = read(TokenRequest, b'{"world":"meadow","duration_s":60,"concurrency":2}')
    assert (wanted.world, wanted.duration_s, wanted.play_s) == ("meadow", 60, None)


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b"", "the body is not JSON; expected an object with world, origin, duration_s"),
        (b"\xff", "the body is not JSON"),
        (b"[]", "the body is no object; expected one with world"),
        (b'{"word":1}', "unknown 'word'; expected world, origin"),
        (b'{"world":1}', "world is 1: input should be a valid string"),
        (b'{"duration_s":0}', "duration_s is 0: input should be greater than 0"),
        (b'{"duration_s":1e9}', "input should be less than or equal to 86400"),
        (b'{"duration_s":NaN}', "duration_s is nan: input should be less"),
        (b'{"play_s":"5"}', "play_s is '5': input should be a valid number"),
        (b'{"concurrency":1.5}', "concurrency is 1.5: input should be a valid integer"),
        (b"[" * 100_000, "the body is not JSON"),
    ],
)
def test_what_is_no_token_request_is_refused_in_one_line(body: bytes, line: str):
    with pytest.raises(ReverieError) as caught:
        read(TokenRequest, body)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_body_that_misses_something_is_refused():
    with pytest.raises(ReverieError, match="replay is missing; expected replay"):
        read(ReplayRequest, b"{}")


def test_the_document_says_what_the_dashboard_is_told():
    assert openapi.StatusBody.__required_keys__ == set(
        document()["components"]["schemas"]["StatusBody"]["required"]
    )
