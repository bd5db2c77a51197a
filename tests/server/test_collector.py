"""What Prometheus reads of engines, sessions, energy and money, in its own words."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from reverie.core import Frame
from reverie.engine import EngineStatus
from reverie.engine.stages import STAGE_BUCKETS_MS
from reverie.server.metrics import Metrics
from reverie.session import SessionState
from tests.server.fake_fleet import FakeFleet, FakeHost, FakeLobby, FakeMeter, fake_ledger

GRAFANA = Path(__file__).resolve().parents[2] / "docs" / "serving" / "grafana.json"
BUCKETS = tuple(range(len(STAGE_BUCKETS_MS) + 1))
BUSY = EngineStatus(
    level=1,
    num_levels=4,
    load=0.7,
    capacity=5,
    num_active=4,
    num_frames=1000,
    num_late=10,
    granted={2: 3, 1: 1},
    busy_s=30.0,
    memory_bytes=2**28,
    stages={"draw": (BUCKETS, 800.0)},
)
ENGINE = {"engine": "meadow/0", "world": "meadow", "device": "cpu"}


class Watched:
    """Metrics that watch something."""

    def __init__(self, *hosts: FakeHost, price_per_hour: float | None = None) -> None:
        self.fleet, self.lobby = FakeFleet(*hosts, num_waiting=2), FakeLobby(num_recovered=3)
        self.metrics, self.meter = Metrics(), FakeMeter()
        self.ledger = fake_ledger(self.meter, price_per_hour=price_per_hour)
        watch: Any = self.metrics.watch
        watch(self.fleet, self.lobby, self.ledger)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"reverie_{name}", labels)

    def names(self) -> set[str]:
        text = self.metrics.render().decode()
        families = text_string_to_metric_families(text)
        return {sample.name for family in families for sample in family.samples}


def test_sessions_of_every_state_are_told_even_when_there_are_none():
    watched = Watched(FakeHost(status=BUSY))
    watched.lobby.seats = [watched.fleet.seat("meadow", SessionState.PLAYING)] * 2
    assert watched.value("sessions", world="meadow", state="playing") == 2
    assert watched.value("sessions", world="meadow", state="lost") == 0
    assert watched.value("waiting", world="meadow") == 2
    assert watched.value("recovered_sessions_total") == 3


def test_engines_are_told_of():
    watched = Watched(FakeHost(status=BUSY, num_restarts=1), FakeHost("cave/0", None, "cave"))
    assert watched.value("engine_up", **ENGINE) == 1
    assert watched.value("engine_up", engine="cave/0", world="cave", device="cpu") == 0
    assert watched.value("engine_restarts_total", **ENGINE) == 1
    assert watched.value("engine_level", **ENGINE) == 1
    assert watched.value("engine_load", **ENGINE) == 0.7
    assert watched.value("engine_late_frames_total", **ENGINE) == 10
    assert watched.value("engine_granted_sessions", **ENGINE, steps="2") == 3
    assert watched.value("engine_memory_bytes", **ENGINE) == 2**28
    assert watched.value("engine_level", engine="cave/0", world="cave", device="cpu") is None


def test_stages_are_a_histogram():
    watched = Watched(FakeHost(status=BUSY))
    draw = {**ENGINE, "stage": "draw"}
    assert watched.value("stage_ms_count", **draw) == sum(BUCKETS)
    assert watched.value("stage_ms_sum", **draw) == 800
    first, second = (str(float(bound)) for bound in STAGE_BUCKETS_MS[:2])
    assert watched.value("stage_ms_bucket", **draw, le=first) == 0
    assert watched.value("stage_ms_bucket", **draw, le=second) == 1  # counts add up
    assert watched.value("stage_ms_bucket", **draw, le="+Inf") == sum(BUCKETS)


def test_what_is_not_known_is_not_told():
    watched = Watched(FakeHost(status=replace(BUSY, num_active=0)))
    unknown = ("power_watts", "energy_joules_total", "joules_per_frame", "dollars_per_session_hour")
    assert [watched.value(name) for name in unknown] == [None] * 4
    assert watched.value("server_memory_bytes") is None or watched.value("server_memory_bytes")


def test_energy_and_money():
    watched = Watched(FakeHost(status=BUSY), price_per_hour=2.0)
    watched.meter.power, watched.meter.energy = 30.0, 1234.0
    assert watched.value("power_watts") == 30
    assert watched.value("energy_joules_total") == 1234
    assert watched.value("dollars_per_session_hour") == 0.5


def test_usage_is_told_by_key_and_world():
    watched = Watched(FakeHost(status=BUSY), price_per_hour=3.6)
    account = watched.ledger.open("arcade", "meadow")
    account.charge(seconds=2, frames=40, device_s=1.0)
    arcade = {"who": "arcade", "world": "meadow"}
    assert watched.value("usage_sessions_total", **arcade) == 1
    assert watched.value("usage_play_s_total", **arcade) == 2
    assert watched.value("usage_dollars_total", **arcade) == pytest.approx(0.001)
    assert watched.value("usage_joules_total", **arcade) is None


def test_a_name_cannot_break_the_page():
    watched = Watched(FakeHost(status=BUSY))
    watched.ledger.charge('a"} 1\nb', "meadow", seconds=1, frames=1, device_s=0)
    assert "reverie_usage_frames_total" in watched.names()


def test_the_grafana_dashboard_asks_for_what_there_is():
    watched = Watched(FakeHost(status=BUSY), price_per_hour=1.0)
    watched.meter.power = watched.meter.energy = 1.0
    watched.ledger.open("arcade", "meadow").charge(seconds=1, frames=1, device_s=1.0)
    watched.metrics.refusals.labels("flooding").inc()
    pixels, now_s = np.zeros((1, 1, 3), np.uint8), time.monotonic()
    first, second = (Frame(pixels, index, finished_s=now_s) for index in range(2))
    watched.metrics.observe_frame(second, first, now_s, fps=20)
    dashboard = json.loads(GRAFANA.read_text(encoding="utf-8"))
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
        for name in re.findall(r"reverie_\w+", target["expr"])
    }
    assert len(asked) > 20
    assert asked - watched.names() == set()


def test_the_grafana_dashboard_can_be_imported():
    """It names no data source of one installation, and no two panels lie on each other."""
    dashboard = json.loads(GRAFANA.read_text(encoding="utf-8"))
    (source,) = [v for v in dashboard["templating"]["list"] if v["type"] == "datasource"]
    assert source["query"] == "prometheus"
    assert dashboard["id"] is None
    ids, taken = set(), set()
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == f"${{{source['name']}}}"
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        ids.add(panel["id"])
    assert len(ids) == len(dashboard["panels"])
