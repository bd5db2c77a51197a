"""Energy is what the counters say, over their end and beginning; without counters it is unknown."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from reverie.server.power import PowerMeter
from tests.fakes import FakeClock

RANGE_UJ = 1_000_000_000


def zone(folder: Path, name: str, called: str, energy_uj: int = 0) -> Path:
    path = folder / name
    path.mkdir(parents=True)
    (path / "name").write_text(f"{called}\n")
    (path / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    (path / "energy_uj").write_text(f"{energy_uj}\n")
    return path / "energy_uj"


class FakeNvml:
    """Of GPUs that each have used so many millijoules."""

    def __init__(self, *energy_mj: int) -> None:
        self.energy_mj = list(energy_mj)

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return range(len(self.energy_mj))[index]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:  # noqa: N802
        return self.energy_mj[handle]


def test_watts_are_joules_over_time(tmp_path: Path):
    clock = FakeClock()
    energy = zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    meter = PowerMeter(powercap=tmp_path, clock=clock)
    assert meter.watts() is None  # not yet: nothing has been measured over any time
    clock.advance(2.0)
    energy.write_text("65000000")
    assert meter.watts() == pytest.approx(30.0)
    assert meter.joules() == pytest.approx(60.0)


def test_what_is_asked_twice_at_once_is_read_once(tmp_path: Path):
    clock = FakeClock()
    energy = zone(tmp_path, "intel-rapl:0", "package-0")
    meter = PowerMeter(powercap=tmp_path, clock=clock)
    clock.advance(1.0)
    energy.write_text("10000000")
    assert meter.watts() == pytest.approx(10.0)
    clock.advance(0.01)
    energy.write_text("90000000")
    assert meter.watts() == pytest.approx(10.0)


def test_a_counter_begins_again_when_it_is_full(tmp_path: Path):
    clock = FakeClock()
    energy = zone(tmp_path, "intel-rapl:0", "package-0", RANGE_UJ - 1_000_000)
    meter = PowerMeter(powercap=tmp_path, clock=clock)
    for reading in ("2000000", "7000000"):
        clock.advance(1.0)
        energy.write_text(reading)
        meter.joules()
    assert meter.joules() == pytest.approx(1 + 2 + 5)


def test_nothing_is_counted_twice(tmp_path: Path):
    for name, called in [
        ("intel-rapl:0", "package-0"),
        ("intel-rapl:0:0", "core"),
        ("intel-rapl:0:1", "dram"),
        ("intel-rapl:1", "psys"),
        ("intel-rapl-mmio:0", "package-0"),
    ]:
        zone(tmp_path, name, called)
    assert PowerMeter(powercap=tmp_path).sources == ["dram", "package-0"]


def test_gpus_that_are_served_from_count(tmp_path: Path):
    clock, nvml = FakeClock(), FakeNvml(1000, 2000, 3000)
    meter = PowerMeter(["cpu", "cuda:2", "cuda"], powercap=tmp_path, nvml=nvml, clock=clock)
    assert meter.sources == ["cuda:0", "cuda:2"]
    clock.advance(1.0)
    nvml.energy_mj = [101_000, 900_000, 203_000]
    assert meter.watts() == pytest.approx(300.0)


@pytest.mark.parametrize("nvml", [FakeNvml(), SimpleNamespace()], ids=["no such GPU", "no driver"])
def test_without_counters_nothing_is_guessed(tmp_path: Path, nvml: object):
    clock = FakeClock()
    meter = PowerMeter(["cuda:0"], powercap=tmp_path / "none", nvml=nvml, clock=clock)
    clock.advance(5.0)
    assert (meter.sources, meter.watts(), meter.joules()) == ([], None, None)


def test_a_counter_that_nobody_may_read_is_left_out(tmp_path: Path):
    zone(tmp_path, "intel-rapl:0", "package-0").unlink()
    assert PowerMeter(powercap=tmp_path).sources == []


def test_a_counter_that_goes_away_stops_counting(tmp_path: Path):
    clock = FakeClock()
    energy = zone(tmp_path, "intel-rapl:0", "package-0")
    meter = PowerMeter(powercap=tmp_path, clock=clock)
    energy.unlink()
    clock.advance(1.0)
    assert meter.watts() is None
    assert meter.sources == []
