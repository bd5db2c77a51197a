"""What computes here."""

from __future__ import annotations

from pathlib import Path

import pytest

from reverie.engine import machine


def test_memory_is_read_where_the_system_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert machine.resident_bytes() > 2**20
    statm = tmp_path / "statm"
    monkeypatch.setattr(machine, "STATM", statm)
    assert machine.resident_bytes() == 0
    statm.write_text("nonsense")
    assert machine.resident_bytes() == 0
    statm.write_text("5000 100 30 1 0 900 0\n")
    assert machine.resident_bytes() > 0
    assert machine.resident_bytes() % 100 == 0
