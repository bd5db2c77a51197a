"""The file of keys: written whole, read again when it changes, and checked like anything from
outside.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from reverie.core import ReverieError
from reverie.server import keys
from reverie.server.access import Access
from reverie.server.keys import KeyFile, add_key, read_keys, remove_key, write_secret


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_file_that_was_moved_away_and_back_is_read_again(file: Path):
    key = add_key(file, "shop")
    known, away = KeyFile(file), file.with_name("away")
    file.rename(away)
    assert known.find(key) is None
    away.rename(file)  # neither its time nor its size has changed
    found = known.find(key)
    assert found is not None
    assert found.name == "shop"


def test_a_change_that_cannot_be_read_is_said_once(file: Path, caplog: pytest.LogCaptureFixture):
    key = add_key(file, "shop")
    known, whole = KeyFile(file), file.read_text()
    file.write_text(whole[:-20])
    with caplog.at_level(logging.ERROR):
        assert known.find(key) is not None
        assert known.find(key) is not None
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{file} is not a file of keys, or it is damaged; keys stay as they were"
    )
    file.write_text(json.dumps({"version": 1, "keys": []}))
    assert known.find(key) is None


def test_a_file_that_may_not_be_read_for_a_while_is_read_after_it(
    file: Path, monkeypatch: pytest.MonkeyPatch
):
    key = add_key(file, "shop")
    known = KeyFile(file)
    remove_key(file, "shop")

    def refuse(*_: Any) -> str:
        raise PermissionError(13, "Permission denied", str(file))

    with monkeypatch.context() as patched:  # a mode would not stop root
        patched.setattr(Path, "read_text", refuse)
        assert known.find(key) is not None
    time.sleep(0.01)
    file.chmod(0o640)  # changes neither its time nor its size
    assert known.find(key) is None


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "é" * 64},
        {"sha256": "abc"},
        {"sha256": None},
        {"name": "a b"},
        {"name": 7},
        {"worlds": "meadow"},
        {"worlds": [7]},
        {"concurrency": 0},
        {"concurrency": True},
        {"concurrency": 1.5},
        {"is_admin": 1},
        {"created": None},
        {"more": 1},
    ],
)
def test_what_cannot_be_a_key_is_one_line(file: Path, change: dict[str, Any]):
    add_key(file, "shop", worlds=("meadow",), concurrency=2)
    assert len(read_keys(file)) == 1
    data = json.loads(file.read_text())
    data["keys"][0] |= change
    file.write_text(json.dumps(data))
    with pytest.raises(ReverieError, match="is not a file of keys, or it is damaged"):
        read_keys(file)


@pytest.mark.parametrize("text", ["[]", "null", "7", '{"version": 1}', "[" * 100_000, "\0"])
def test_what_is_no_file_of_keys_is_one_line(file: Path, text: str):
    file.write_text(text)
    with pytest.raises(ReverieError, match="is not a file of keys, or it is damaged"):
        read_keys(file)


def test_a_write_that_fails_leaves_everything_as_it_was(
    file: Path, monkeypatch: pytest.MonkeyPatch
):
    add_key(file, "shop")
    before = file.read_bytes()

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        add_key(file, "other")
    assert file.read_bytes() == before
    assert {path.name for path in file.parent.iterdir()} == {"keys.json", ".keys.json.lock"}


def test_a_file_that_is_written_anew_keeps_its_owner(file: Path, monkeypatch: pytest.MonkeyPatch):
    owned: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: owned.append((uid, gid)))
    add_key(file, "shop")
    assert owned == []
    add_key(file, "other")
    assert owned == [(file.stat().st_uid, file.stat().st_gid)]


def test_whoever_could_read_the_file_cannot_any_more(file: Path):
    file.write_text(json.dumps({"version": 1, "keys": []}))
    file.chmod(0o644)
    add_key(file, "shop")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_servers_that_start_together_make_one_signing_key(
    file: Path, monkeypatch: pytest.MonkeyPatch
):
    add_key(file, "shop")
    made: list[Access] = []
    num_written = 0

    def slow(path: Path, content: bytes) -> None:
        nonlocal num_written
        num_written += 1
        time.sleep(0.05)
        write_secret(path, content)

    monkeypatch.setattr(os, "fsync", lambda _: time.sleep(0.05))
    monkeypatch.setattr("reverie.server.access.write_secret", slow)
    threads = [threading.Thread(target=lambda: made.append(Access(file))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert num_written == 1
    assert len({access._verifier.public_bytes_raw() for access in made}) == 1
    assert len(made) == 4


def test_the_file_never_has_the_key(file: Path):
    text = add_key(file, "shop")
    assert len(text) >= len(keys.PREFIX) + 43  # 256 bits
    assert not any(text[len(keys.PREFIX) :] in path.read_text() for path in file.parent.iterdir())
