"""The REST part as an OpenAPI 3.1 document, and the bodies that it takes. A test holds the routes
of the app against it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NotRequired, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from reverie import __version__
from reverie.core import ReverieError
from reverie.server.messages import ErrorBody, WorldBody
from reverie.server.status import StatusBody
from reverie.server.usage import LedgerBody

_REF = "#/components/schemas/{model}"
_DESCRIPTION = (
    "Worlds, sessions that are brought or fetched, tokens and figures. Play itself goes over a "
    'WebSocket at /ws, which docs/protocol.md describes. Errors are JSON, {"error": one line for a '
    "person}. A server that was started without access control asks for no key and no token."
)

Model = TypeVar("Model", bound=BaseModel)


class TokenRequest(BaseModel):
    """What a token is to allow. world: only that one; null for every one that the key may. origin:
    of the page that may use it ("https://play.example"); null for pages of this server. duration_s:
    until the token is no longer taken. play_s: of play, for one session; null for as long as the
    server allows. concurrency: sessions with it at the same time.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    world: str | None = Field(default=None, max_length=200)
    origin: str | None = Field(default=None, max_length=300)
    duration_s: float = Field(default=300.0, gt=0, le=86_400)
    play_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    concurrency: int = Field(default=1, ge=1, le=1000)


class ReplayRequest(BaseModel):
    """replay: a link that ANSWER gave to the command "share"."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    replay: str


class TokenBody(TypedDict):
    """token: a signed JWT; a page gets it in the fragment of its address, /#token=JWT."""

    token: str
    expires_s: float


class SessionBody(TypedDict):
    """resume: what a socket is opened with, /ws?resume=TOKEN, within resume_s."""

    resume: str
    resume_s: float


class HealthBody(TypedDict):
    """state: warming, ready, failed or closing. error: why it failed."""

    state: str
    error: NotRequired[str]


_BODIES = (
    ErrorBody,
    WorldBody,
    TokenRequest,
    TokenBody,
    ReplayRequest,
    SessionBody,
    HealthBody,
    StatusBody,
    LedgerBody,
)


def read(model: type[Model], body: bytes) -> Model:
    """A request's body. Raises ReverieError: one line that names the value and what is expected."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    known = ", ".join(model.model_fields)
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "json_invalid":
        raise ReverieError(f"the body is not JSON; expected an object with {known}")
    if not name:
        raise ReverieError(f"the body is no object; expected one with {known}")
    if first["type"] == "extra_forbidden":
        raise ReverieError(f"unknown {name!r:.60}; expected {known}")
    if first["type"] == "missing":
        raise ReverieError(f"{name} is missing; expected {known}")
    what = first["msg"][0].lower() + first["msg"][1:]
    raise ReverieError(f"{name} is {first['input']!r:.60}: {what}")


@functools.cache
def document() -> dict[str, Any]:
    """The whole document, as JSON. Made once: it takes as long as a frame."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Reverie",
            "version": __version__,
            "summary": "Neural worlds, served to many players.",
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {**_worlds(), **_sessions(), **_figures(), **_machinery()},
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key, of a server that asks for them.",
                },
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "What POST /api/tokens gave: short-lived, for players.",
                },
            },
        },
    }


def _worlds() -> dict[str, Any]:
    jpeg = {"image/jpeg": {"schema": {"type": "string", "contentMediaType": "image/jpeg"}}}
    return {
        "/api/worlds": {
            "get": _operation(
                "list_worlds",
                "The worlds that can be played",
                {"200": _json("Their descriptions", {"type": "array", "items": _ref(WorldBody)})},
                errors=(401, 403, 503),
            )
        },
        "/api/worlds/{world}": {
            "get": _operation(
                "get_world",
                "One world",
                {"200": _json("Its description", _ref(WorldBody))},
                parameters=("world",),
                errors=(401, 403, 404, 503),
            )
        },
        "/api/worlds/{world}/starts/{start}.jpg": {
            "get": _operation(
                "get_start",
                "What one sees when play begins there",
                {"200": {"description": "The picture", "content": jpeg}},
                parameters=("world", "start"),
                errors=(401, 403, 404, 503),
            )
        },
    }


def _sessions() -> dict[str, Any]:
    file = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    link = {"application/json": {"schema": _ref(ReplayRequest)}}
    return {
        "/api/worlds/{world}/sessions": {
            "post": _operation(
                "bring_session",
                "A session that goes on from a saved one, or plays a replay first",
                {"201": _json("What to open a socket with", _ref(SessionBody))},
                parameters=("world",),
                body={"required": True, "content": {**file, **link}},
                errors=(400, 401, 403, 404, 413, 415, 429, 503),
            )
        },
        "/api/saves/{id}": {
            "get": _operation(
                "fetch_save",
                "A saved session as a file: once, within a minute. The id is the secret",
                {"200": {"description": "A .reverie file", "content": file}},
                parameters=("id",),
                errors=(404,),
                security=None,
            )
        },
        "/api/tokens": {
            "post": _operation(
                "mint_token",
                "A short-lived token for a player",
                {"201": _json("The token", _ref(TokenBody))},
                body={
                    "required": True,
                    "content": {"application/json": {"schema": _ref(TokenRequest)}},
                },
                errors=(400, 401, 403, 413, 429),
                security=("key",),
            )
        },
    }


def _figures() -> dict[str, Any]:
    def admin(operation_id: str, what: str, answer: dict[str, Any]) -> dict[str, Any]:
        operation = _operation(
            operation_id, what, {"200": answer}, errors=(401, 403), security=("key",)
        )
        return {"get": operation}

    return {
        "/api/status": admin(
            "get_status", "How the server is", _json("Everything", _ref(StatusBody))
        ),
        "/api/usage": admin(
            "get_usage", "Who used how much", _json("By key and world", _ref(LedgerBody))
        ),
        "/api/usage.csv": admin(
            "get_usage_csv", "The same, as a table", _text("CSV with a header", "text/csv")
        ),
        "/metrics": admin("get_metrics", "For Prometheus", _text("Its text format", "text/plain")),
    }


def _machinery() -> dict[str, Any]:
    health = _json("It is so", _ref(HealthBody))
    bad = _json("It is not", _ref(HealthBody))

    def public(operation_id: str, what: str, answers: dict[str, Any]) -> dict[str, Any]:
        return {"get": _operation(operation_id, what, answers, security=None)}

    return {
        "/healthz": public("get_health", "Whether the process lives", {"200": health, "503": bad}),
        "/readyz": public("get_readiness", "Whether it takes players", {"200": health, "503": bad}),
        "/admin": public(
            "get_dashboard", "The dashboard's page", {"200": _text("A page", "text/html")}
        ),
        "/api/openapi.json": public(
            "get_openapi",
            "This document",
            {"200": _json("OpenAPI 3.1", {"type": "object"})},
        ),
    }


_ERRORS = {
    400: "The body is not what was expected",
    401: "No key or token, or one that is not taken",
    403: "The key or token does not allow it",
    404: "There is no such thing",
    413: "The body is too long",
    415: "A content type that is not expected",
    429: "Too often; retry-after says when to try again",
    503: "Not now: the world is still loading, or the server is closing",
}
_PARAMETERS = {
    "world": "Name of a world",
    "start": "Name of one of its starts",
    "id": 'From the ANSWER to the command "save"',
}


def _operation(
    operation_id: str,
    summary: str,
    answers: Mapping[str, Any],
    *,
    parameters: tuple[str, ...] = (),
    body: Mapping[str, Any] | None = None,
    errors: tuple[int, ...] = (),
    security: tuple[str, ...] | None = ("token", "key"),
) -> dict[str, Any]:
    """security: any of these will do; None for nothing."""
    operation: dict[str, Any] = {
        "operationId": operation_id,
        "summary": summary,
        "security": [] if security is None else [{scheme: []} for scheme in security],
        "responses": {
            **answers,
            **{str(code): _json(_ERRORS[code], _ref(ErrorBody)) for code in errors},
        },
    }
    if parameters:
        operation["parameters"] = [
            {
                "name": name,
                "in": "path",
                "required": True,
                "description": _PARAMETERS[name],
                "schema": {"type": "string"},
            }
            for name in parameters
        ]
    if body is not None:
        operation["requestBody"] = dict(body)
    return operation


def _schemas() -> dict[str, Any]:
    """Of all bodies, and of what is in them, by their names in Python."""
    _, found = TypeAdapter.json_schemas(
        [(body.__name__, "serialization", TypeAdapter(body)) for body in _BODIES],
        ref_template=_REF,
    )
    return found["$defs"]


def _ref(body: type) -> dict[str, str]:
    return {"$ref": _REF.format(model=body.__name__)}


def _json(description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _text(description: str, kind: str) -> dict[str, Any]:
    return {"description": description, "content": {kind: {"schema": {"type": "string"}}}}
