"""What the dashboard is told: how it is now, and how it went lately."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from reverie.core import ReverieError
from reverie.engine import EngineStatus
from reverie.engine.stages import STAGE_BUCKETS_MS
from reverie.server.metrics import Metrics
from reverie.server.status import (
    percentiles,
    snapshot,
    stage_figures,
)
from reverie.session import SessionState
from tests.fakes import FakeClock
from tests.server.fake_fleet import FakeFleet, FakeHost, FakeLobby, FakeMeter, fake_ledger

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
)


class Server:
    """Something to look at."""

    def __init__(self, *hosts: FakeHost, **options: Any) -> None:
        self.clock = FakeClock()
        self.fleet, self.lobby = FakeFleet(*hosts, num_waiting=2), FakeLobby()
        self.metrics, self.meter = Metrics(self.clock), FakeMeter()
        self.options = options

    def look(self) -> dict[str, Any]:
        told = snapshot(
            self.fleet,  # type: ignore[arg-type]
            self.lobby,  # type: ignore[arg-type]
            self.metrics,
            fake_ledger(self.meter, **self.options),
            now_s=self.clock(),
        )
        return json.loads(json.dumps(told, allow_nan=False))


def stages(draw: dict[int, int], sum_ms: float) -> dict[str, tuple[tuple[int, ...], float]]:
    """draw: bucket -> count."""
    counts = tuple(draw.get(bucket, 0) for bucket in range(len(STAGE_BUCKETS_MS) + 1))
    return {"draw": (counts, sum_ms)}


def test_a_server_that_just_began_knows_nothing_and_says_so():
    told = Server(FakeHost()).look()
    assert told["engines"][0]["state"] == "warming"
    assert told["engines"][0]["figures"] is None
    assert told["frames"] == {"fps": None, "num_sent": 0, "num_late": 0, "gap_ms": None}
    assert told["power"] == dict.fromkeys(("watts", "joules", "joules_per_frame")) | {"of": []}
    assert told["dollars_per_session_hour"] is None


def test_an_engine_is_told_of():
    (engine,) = Server(FakeHost(status=BUSY, num_restarts=2, has_standby=True)).look()["engines"]
    expected = {"name": "meadow/0", "world": "meadow", "device": "cpu", "state": "ready"}
    assert engine.items() >= expected.items()
    assert (engine["restarts"], engine["standby"]) == (2, True)
    figures = engine["figures"]
    assert (figures["level"], figures["num_levels"], figures["load"]) == (1, 4, 0.7)
    assert figures["granted"] == {"1": 1, "2": 3}
    assert figures["memory_bytes"] == 2**28


def test_an_engine_that_failed_says_why():
    (engine,) = Server(FakeHost(failure=ReverieError("no weights"))).look()["engines"]
    assert (engine["state"], engine["error"]) == ("failed", "no weights")


def test_sessions_are_counted_by_world_and_state():
    server = Server(FakeHost(status=BUSY), FakeHost("cave/0", BUSY, "cave"))
    for world, state in [
        ("meadow", SessionState.PLAYING),
        ("meadow", SessionState.PLAYING),
        ("cave", SessionState.PLAYING),
        ("cave", SessionState.LOST),
        ("cave", SessionState.ENDED),
    ]:
        server.lobby.seats.append(server.fleet.seat(world, state))
    told = server.look()
    meadow, cave = told["worlds"]
    assert (meadow["world"], meadow["sessions"]["playing"], meadow["waiting"]) == ("meadow", 2, 2)
    assert (cave["sessions"]["playing"], cave["sessions"]["lost"]) == (1, 1)
    assert (told["sessions"]["playing"], told["waiting"]) == (3, 4)
    assert "ended" not in told["sessions"]


def test_rates_are_of_the_last_seconds():
    host = FakeHost(status=BUSY)
    server = Server(host)
    server.look()
    server.clock.advance(5.0)
    host.status = replace(BUSY, num_frames=1400, num_late=14)
    server.metrics.num_frames = 380
    told = server.look()
    (engine,) = told["engines"]
    assert engine["figures"]["fps"] == 80
    assert engine["figures"]["hit_rate"] == 0.99
    assert told["frames"]["fps"] == 76
    server.clock.advance(60.0)
    assert server.look()["frames"]["fps"] is None  # nobody looked lately


def test_who_looks_often_compares_with_the_same_moment():
    host = FakeHost(status=BUSY)
    server = Server(host)
    told = []
    for tenth in range(100):
        server.clock.advance(0.1)
        host.status = replace(BUSY, num_frames=1000 + 8 * tenth)
        told.append(server.look()["engines"][0]["figures"]["fps"])
    assert told[-1] == pytest.approx(80)
    assert len(server.metrics.past) <= 22


def test_an_engine_that_was_started_again_counts_from_its_beginning():
    host = FakeHost(status=BUSY)
    server = Server(host)
    server.look()
    server.clock.advance(5.0)
    host.status = replace(BUSY, num_frames=50, num_late=0)
    (engine,) = server.look()["engines"]
    assert engine["figures"]["fps"] is None
    assert engine["figures"]["hit_rate"] == 1.0


def test_stages_are_of_the_last_seconds():
    host = FakeHost(status=replace(BUSY, stages=stages({0: 1000}, 100.0)))
    server = Server(host)
    server.look()
    server.clock.advance(5.0)
    host.status = replace(BUSY, num_frames=1100, stages=stages({0: 1000, 4: 100}, 700.0))
    draw = server.look()["engines"][0]["figures"]["stages_ms"]["draw"]
    assert draw["mean"] == 6.0
    assert draw["share"] == 0.12
    assert STAGE_BUCKETS_MS[3] < draw["p50"] <= draw["p99"] <= STAGE_BUCKETS_MS[4]


def test_power_and_price_are_shared_by_who_plays():
    server = Server(
        FakeHost(status=BUSY), FakeHost("meadow/1", BUSY, device="cuda:0"), price_per_hour=2.0
    )
    server.meter.power, server.meter.sources = 40.0, ["package-0"]
    server.look()
    server.clock.advance(5.0)
    server.metrics.num_frames = 400
    told = server.look()
    assert told["power"]["joules_per_frame"] == 0.5
    assert told["dollars_per_session_hour"] == 2 * 2.0 / 8


def test_percentiles_are_values_that_were_there():
    assert percentiles([]) is None
    assert percentiles([5.0]) == {"p50": 5, "p95": 5, "p99": 5}
    assert percentiles([float(n) for n in range(100)]) == {"p50": 50, "p95": 95, "p99": 99}


def test_percentiles_of_a_histogram_lie_in_its_buckets():
    assert stage_figures([0, 0, 0], 0.0, [1.0, 2.0]) is None
    told = stage_figures([100, 100, 0], 200.0, [10.0, 20.0])
    assert told == {"mean": 1.0, "share": None, "p50": 10.0, "p95": 19.0, "p99": 19.8}
    beyond = stage_figures([0, 0, 7], 700.0, [10.0, 20.0])
    assert beyond is not None
    assert beyond["p99"] == 20.0  # at least: nobody knows how much
