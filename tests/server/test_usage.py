"""Sums that add up, files that a spreadsheet can open, and a disk that is full."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reverie.core import ReverieError
from reverie.server import usage, usage_file
from reverie.server.usage import UsageLedger
from reverie.server.usage_file import UsageFile

FULL = Path("/dev/full")
needs_full_disk = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")


class FakeMeter:
    """Draws this many watts."""

    sources = ("package-0",)

    def __init__(self, watts: float | None) -> None:
        self._watts = watts

    def watts(self) -> float | None:
        return self._watts


def ledger(watts: float | None = None, **options: object) -> UsageLedger:
    return UsageLedger(meter=FakeMeter(watts), wall=lambda: 0.0, **options)  # type: ignore[arg-type]


def until(what: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 5
    while not what():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_charges_add_up_by_name_and_world():
    books = ledger(price_per_hour=3.6)
    for who, world, seconds in [("ann", "meadow", 1), ("ann", "meadow", 2), ("bob", "cave", 4)]:
        books.charge(who, world, seconds=seconds, frames=20 * seconds, device_s=0.1 * seconds)
    rows = {(who, world): used for who, world, used in books.rows()}
    assert rows["ann", "meadow"].seconds == 3
    assert rows["bob", "cave"].frames == 80
    assert rows["ann", "meadow"].dollars == pytest.approx(0.3 * 3.6 / 3600)
    assert books.total.seconds == 7
    assert books.total.device_s == pytest.approx(0.7)


def test_energy_is_the_share_of_the_devices_time():
    books = ledger(60.0, num_devices=2)
    used = books.charge("ann", "meadow", seconds=1, frames=20, device_s=0.5)
    assert used.joules == pytest.approx(15)


def test_without_meter_and_price_both_are_unknown_not_nothing():
    books = ledger()
    books.charge("ann", "meadow", seconds=1, frames=20, device_s=0.5)
    assert (books.total.joules, books.total.dollars) == (None, None)
    assert books.to_json()["total"]["joules"] is None
    assert next(csv.DictReader(io.StringIO(books.to_csv())))["joules"] == ""


def test_a_session_counts_once_and_only_if_it_played():
    books = ledger()
    account, unused = books.open("ann", "meadow"), books.open("ann", "meadow")
    account.charge(seconds=1, frames=20, device_s=0.1)
    account.charge(seconds=1, frames=20, device_s=0.1)
    account.close()
    unused.close()
    assert books.total.sessions == 1
    assert books.total.frames == 40


def test_a_crowd_of_names_is_counted_together(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(usage, "MAX_ROWS", 2)
    books = ledger()
    for who in ("a", "b", "c", "d", "a"):
        books.charge(who, "meadow", seconds=1, frames=1, device_s=0)
    seconds = {who: used.seconds for who, _, used in books.rows()}
    assert seconds == {"a": 2, "b": 1, usage.OTHERS: 2}


@pytest.mark.parametrize("name", ["=cmd()", "+1", "-1", "@x", "\tx", "\rx"])
def test_a_name_is_no_formula(name: str):
    books = ledger()
    books.charge(name, "meadow", seconds=1, frames=1, device_s=0)
    (row,) = csv.DictReader(io.StringIO(books.to_csv(), newline=""))
    assert row["who"] == f"'{name}"


def test_a_name_with_commas_and_quotes_is_one_cell():
    books = ledger()
    books.charge('a,"b"\n', "meadow", seconds=1, frames=1, device_s=0)
    (row,) = csv.DictReader(io.StringIO(books.to_csv(), newline=""))
    assert row["who"] == 'a,"b"\n'
    assert row["seconds"] == "1"


def test_each_session_that_ended_has_a_line(tmp_path: Path):
    file = tmp_path / "usage.jsonl"
    books = ledger(price_per_hour=3.6, file=file)
    for who in ("ann", "bob"):
        account = books.open(who, "meadow")
        account.charge(seconds=2, frames=40, device_s=0.5)
        account.close()
        account.close()
    books.close()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["who"] for line in lines] == ["ann", "bob"]
    assert lines[0] == {
        "ended": "1970-01-01T00:00:00Z",
        **{"who": "ann", "world": "meadow", "sessions": 1, "seconds": 2.0, "frames": 40},
        **{"device_s": 0.5, "joules": None, "dollars": 0.0005},
    }


def test_a_folder_that_is_not_there_is_said_at_once(tmp_path: Path):
    with pytest.raises(ReverieError, match="there is no folder"):
        ledger(file=tmp_path / "none" / "usage.jsonl")


@needs_full_disk
def test_a_full_disk_costs_nothing_but_patience(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "usage.jsonl"
    path.symlink_to(FULL)
    file = UsageFile(path, retry_s=0.01)
    for number in range(3):
        file.append(f"line {number}")
    until(lambda: bool(caplog.records))
    time.sleep(0.05)  # it tries again and again, and says so once
    (record,) = caplog.records
    assert "No space left on device" in record.getMessage()
    path.unlink()  # room again
    until(lambda: file.num_pending == 0)
    file.close()
    assert path.read_text() == "line 0\nline 1\nline 2\n"


@needs_full_disk
def test_what_waits_for_a_disk_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(usage_file, "MAX_PENDING", 2)
    monkeypatch.setattr(usage_file, "CLOSE_WITHIN_S", 0.1)
    file = UsageFile(FULL, retry_s=0.01)
    for number in range(9):
        file.append(f"line {number}")
    assert file.num_pending == 2
    file.close()


def test_half_a_line_is_finished_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, write, calls = tmp_path / "usage.jsonl", usage_file.os.write, []

    def write_little(file: int, data: bytes) -> int:
        calls.append(data)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return write(file, data[:3])

    monkeypatch.setattr(usage_file.os, "write", write_little)
    file = UsageFile(path, retry_s=0.01)
    file.append("abcdefgh")
    until(lambda: file.num_pending == 0)
    file.close()
    assert path.read_text() == "abcdefgh\n"
