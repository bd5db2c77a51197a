"""What Prometheus is told of engines, sessions, energy and money: read when it asks, so that no
frame pays for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from reverie.engine.machine import resident_bytes
from reverie.server.status import count_sessions, dollars_per_session_hour

if TYPE_CHECKING:
    from reverie.engine import EngineStatus
    from reverie.server.fleet import EngineHost, Fleet
    from reverie.server.lobby import Lobby
    from reverie.server.metrics import Metrics
    from reverie.server.usage import UsageLedger

Samples = Iterable[tuple[Mapping[str, str], float | None]]
"""Labels and value; no sample where it is not known."""


class FleetCollector(Collector):
    """Tells of everything that a server has beside its sockets."""

    def __init__(self, fleet: Fleet, lobby: Lobby, metrics: Metrics, ledger: UsageLedger) -> None:
        self._fleet, self._lobby, self._metrics = fleet, lobby, metrics
        self._ledger = ledger

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is depends on the engines."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All that is known now."""
        yield from self._sessions()
        yield from self._engines()
        yield from self._energy_and_money()
        yield from self._usage()

    def _sessions(self) -> Iterator[Metric]:
        pools = self._fleet.pools.values()
        yield _gauge(
            "sessions",
            "Sessions by state; those without a socket too",
            (
                ({"world": world, "state": state}, n)
                for world, states in count_sessions(self._fleet, self._lobby).items()
                for state, n in states.items()
            ),
        )
        waiting = [({"world": pool.title}, pool.room.num_waiting) for pool in pools]
        yield _gauge("waiting", "Players who wait for a place", waiting)
        yield _counter(
            "recovered_sessions",
            "Times that a session lost its engine and was carried on",
            [({}, self._lobby.num_recovered)],
        )

    def _engines(self) -> Iterator[Metric]:
        hosts = self._fleet.hosts
        up = [(_labels(host), float(host.engine is not None)) for host in hosts]
        yield _gauge("engine_up", "Whether the engine plays", up)
        restarts = [(_labels(host), host.num_restarts) for host in hosts]
        yield _counter("engine_restarts", "Times that an engine's process died", restarts)
        found = [(_labels(host), host.engine.status) for host in hosts if host.engine is not None]
        for name, what, attribute in _GAUGES:
            values = [(labels, getattr(status, attribute)) for labels, status in found]
            yield _gauge(f"engine_{name}", what, values)
        for name, what, attribute in _COUNTERS:
            values = [(labels, getattr(status, attribute)) for labels, status in found]
            yield _counter(f"engine_{name}", what, values)
        yield _gauge(
            "engine_granted_sessions",
            "Sessions by the passes that their next frame gets",
            (
                (labels | {"steps": str(steps)}, n)
                for labels, status in found
                for steps, n in status.granted.items()
            ),
        )
        yield _stages(found)
        memory = [(labels, status.memory_bytes or None) for labels, status in found]
        yield _gauge("engine_memory_bytes", "Memory of the engine's process", memory)
        yield _gauge(
            "server_memory_bytes", "Memory of this process", [({}, resident_bytes() or None)]
        )

    def _energy_and_money(self) -> Iterator[Metric]:
        meter = self._ledger.meter
        watts = meter.watts()
        yield _gauge("power_watts", "What the machine draws, as far as it tells", [({}, watts)])
        yield _counter("energy_joules", "What it drew since it began", [({}, meter.joules())])
        fps = self._metrics.recent_fps()
        per_frame = watts / fps if watts is not None and fps else None
        yield _gauge("joules_per_frame", "Power over frames in the last seconds", [({}, per_frame)])
        dollars = dollars_per_session_hour(self._fleet, self._ledger.price_per_hour)
        yield _gauge("dollars_per_session_hour", "Price of an hour of play now", [({}, dollars)])

    def _usage(self) -> Iterator[Metric]:
        rows = [({"who": who, "world": world}, used) for who, world, used in self._ledger.rows()]
        for name, what, attribute in _USAGE:
            values = [(labels, getattr(used, attribute)) for labels, used in rows]
            yield _counter(f"usage_{name}", what, values)


_GAUGES = (
    ("level", "Quality level: 0 is best, every further one is worse", "level"),
    ("levels", "Quality levels that there are", "num_levels"),
    ("load", "Part of every period that its sessions need", "load"),
    ("slowdown", "Of the device, against its cost table", "slowdown"),
    ("capacity", "Sessions that it can have", "capacity"),
    ("sessions", "Sessions that have a place", "num_active"),
)
_COUNTERS = (
    ("frames", "Frames drawn", "num_frames"),
    ("late_frames", "Frames drawn after their deadline", "num_late"),
    ("busy_s", "Device time, seconds", "busy_s"),
)
_USAGE = (
    ("sessions", "Sessions that played, by key and world", "sessions"),
    ("play_s", "Seconds with a place", "seconds"),
    ("frames", "Frames drawn", "frames"),
    ("device_s", "Device time, seconds", "device_s"),
    ("joules", "Energy of that device time", "joules"),
    ("dollars", "Price of that device time", "dollars"),
)


def _labels(host: EngineHost) -> dict[str, str]:
    return {"engine": host.name, "world": host.world_name, "device": host.device}


def _stages(found: Iterable[tuple[Mapping[str, str], EngineStatus]]) -> Metric:
    from reverie.engine.stages import STAGE_BUCKETS_MS

    names = ["engine", "world", "device", "stage"]
    family = HistogramMetricFamily("reverie_stage_ms", "A step by stage", labels=names)
    bounds = [*(str(float(bound)) for bound in STAGE_BUCKETS_MS), "+Inf"]
    for labels, status in found:
        for stage, (counts, sum_ms) in status.stages.items():
            buckets = list(zip(bounds, accumulate(counts), strict=True))
            family.add_metric([*labels.values(), stage], buckets, sum_ms)
    return family


def _gauge(name: str, what: str, samples: Samples) -> Metric:
    return _filled(GaugeMetricFamily(f"reverie_{name}", what), "", samples)


def _counter(name: str, what: str, samples: Samples) -> Metric:
    return _filled(CounterMetricFamily(f"reverie_{name}", what), "_total", samples)


def _filled(family: Metric, suffix: str, samples: Samples) -> Metric:
    for labels, value in samples:
        if value is not None:
            family.add_sample(f"{family.name}{suffix}", dict(labels), value)
    return family
