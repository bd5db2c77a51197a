"""Lines that machines and people can read, without secrets, whatever becomes of who reads them."""

from __future__ import annotations

import io
import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reverie.server import logs
from reverie.server.logs import setup_logging, without_secrets

logger = logging.getLogger("reverie.tests")
JWT = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl_-x"


@pytest.fixture(autouse=True)
def _own_root() -> Iterator[None]:
    """What the tests set up is gone afterwards."""
    root = logging.getLogger()
    handlers, level = [*root.handlers], root.level
    root.handlers.clear()
    yield
    for handler in [*root.handlers]:
        root.removeHandler(handler)
        handler.close()
    root.handlers, root.level = handlers, level


def logged(form: Any, *arguments: Any, **options: Any) -> str:
    stream = io.StringIO()
    setup_logging(form, stream)
    logger.warning(*arguments, **options)
    logging.getLogger().handlers[0].flush()
    return stream.getvalue()


def test_a_line_of_json_has_everything():
    line = json.loads(logged("json", "engine %s died", "meadow/0", extra={"restarts": 2}))
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "reverie.tests",
        "message": "engine meadow/0 died",
        "restarts": 2,
    }


def test_what_json_does_not_know_is_told_as_text():
    line = json.loads(logged("json", "see", extra={"path": Path("a")}))
    assert line["path"] == "a"


@pytest.mark.parametrize("form", ["json", "text"])
def test_an_error_has_its_traceback(form: str):
    try:
        raise RuntimeError("burst")
    except RuntimeError:
        said = logged(form, "it failed", exc_info=True)
    assert "RuntimeError: burst" in said
    assert "it failed" in said


def test_text_is_one_line_whatever_a_client_said():
    said = logged("text", "refused %s", "x\n2030-01-01 ERROR root: all is lost", extra={"n": 1})
    assert said.count("\n") == 1
    assert said.endswith("all is lost n=1\n")


@pytest.mark.parametrize(
    ("said", "left"),
    [
        (f"token {JWT} is old", "token [cut] is old"),
        (f"Authorization: Bearer {JWT}", "Authorization: Bearer [cut]"),
        ("authorization: bearer abcdefghijkl=", "authorization: bearer [cut]"),
        ("GET /ws?resume=AAAAbbbbCCCCdddd&start=x", "GET /ws?resume=[cut]&start=x"),
        ("key rv_aBc-123_x was used", "key [cut] was used"),
        ("/api/saves/AAAAbbbbCCCCdddd", "/api/saves/[cut]"),
        (f"subprotocol 'token.{JWT}'", "subprotocol 'token.[cut]'"),
        ("a session lost its engine", "a session lost its engine"),
        ("host 'evil.example' is not one of", "host 'evil.example' is not one of"),
    ],
)
def test_secrets_are_cut_out(said: str, left: str):
    assert without_secrets(said) == left


def test_secrets_in_extras_and_tracebacks_are_cut_out_too():
    try:
        raise RuntimeError(f"bad {JWT}")
    except RuntimeError:
        said = logged("json", "x", exc_info=True, extra={"seen": f"Bearer {JWT}"})
    assert "eyJ" not in said


def test_it_can_be_set_up_again():
    logged("text", "first")
    assert logged("text", "second").count("\n") == 1


def test_values_are_told_as_they_were():
    stream, values = io.StringIO(), [1]
    setup_logging("text", stream)
    logger.warning("values %s", values)
    values.append(2)
    logging.getLogger().handlers[0].flush()
    assert "values [1]" in stream.getvalue()


class Broken(io.StringIO):
    """Takes nothing."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def write(self, text: str) -> int:
        raise self._error


@pytest.mark.parametrize(
    "error",
    [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left"), ValueError("closed file")],
)
def test_a_stream_that_takes_nothing_hurts_nobody(
    error: Exception, capfd: pytest.CaptureFixture[str]
):
    setup_logging("text", Broken(error))
    for _ in range(3):
        logger.warning("anybody?")
    logging.getLogger().handlers[0].flush()
    assert capfd.readouterr().err == ""


def test_a_message_that_cannot_be_made_hurts_nobody():
    assert logged("json", "%d", "no number") == ""


def test_a_reader_that_does_not_read_holds_nobody_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logs, "FLUSH_WITHIN_S", 0.05)
    reading = threading.Event()

    class Stuck(io.StringIO):
        def write(self, text: str) -> int:
            reading.wait(5)
            return len(text)

    setup_logging("text", Stuck())
    began_s = time.monotonic()
    for number in range(3 * logs.MAX_PENDING):
        logger.warning("line %d", number)
    assert time.monotonic() - began_s < 2
    reading.set()
