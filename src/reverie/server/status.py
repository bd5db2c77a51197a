"""What the dashboard shows (`/api/status`): how everything is now, and how it went in the last
seconds.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from reverie import __version__
from reverie.engine.machine import resident_bytes
from reverie.server.usage import UsageBody
from reverie.session import SessionState

if TYPE_CHECKING:
    from reverie.engine import EngineStatus
    from reverie.server.fleet import EngineHost, Fleet
    from reverie.server.lobby import Lobby
    from reverie.server.metrics import Metrics
    from reverie.server.usage import UsageLedger

WINDOW_S = 10.0
_SHORTEST_S = 0.5
STATES = tuple(state.value for state in SessionState if state is not SessionState.ENDED)


class Percentiles(TypedDict):
    """In milliseconds."""

    p50: float
    p95: float
    p99: float


class StageFigures(Percentiles):
    """mean: in milliseconds, too. share: of the device's time, lately; null where nobody looked
    just before.
    """

    mean: float
    share: float | None


class EngineFigures(TypedDict):
    """level: of quality, 0 is best. load: part of every period that its sessions
    need. slowdown: against its cost table. granted: sessions by the passes that they get. hit_rate:
    part of the frames that were drawn before their deadline. busy_s, num_frames, num_late: since
    the process began. stages_ms: null where nothing of it happened lately.
    """

    level: int
    num_levels: int
    load: float
    slowdown: float
    capacity: int
    num_active: int
    granted: dict[str, int]
    fps: float | None
    hit_rate: float | None
    num_frames: int
    num_late: int
    busy_s: float
    stages_ms: dict[str, StageFigures | None]
    memory_bytes: int


class EngineBody(TypedDict):
    """An engine. error: why it never came up. pid: of its process, null where it shares the
    server's. figures: while it is ready.
    """

    name: str
    world: str
    device: str
    state: str
    error: str | None
    restarts: int
    standby: bool
    pid: int | None
    figures: EngineFigures | None


class WorldSessions(TypedDict):
    """Sessions of a world by state. expected_wait_s: of who came now; null where nobody knows."""

    world: str
    sessions: dict[str, int]
    waiting: int
    expected_wait_s: float | None


class FrameFigures(TypedDict):
    """Frames at the sockets, of all sessions. num_late: more than half a frame time too late."""

    fps: float | None
    num_sent: int
    num_late: int
    gap_ms: Percentiles | None


class PowerFigures(TypedDict):
    """of: what is measured; nothing is where that is empty. joules: since the server began."""

    of: list[str]
    watts: float | None
    joules: float | None
    joules_per_frame: float | None


class StatusBody(TypedDict):
    """Everything about a server. state: warming, ready, failed or closing. recovered: times that a
    session lost its engine and was carried on. queue_ms: of who got a place in the last minutes.
    price_per_hour: dollars, of one device. memory_bytes: of the server's own process.
    """

    version: str
    state: str
    uptime_s: float
    sessions: dict[str, int]
    waiting: int
    recovered: int
    worlds: list[WorldSessions]
    engines: list[EngineBody]
    frames: FrameFigures
    queue_ms: Percentiles | None
    power: PowerFigures
    price_per_hour: float | None
    dollars_per_session_hour: float | None
    memory_bytes: int | None
    usage: UsageBody


class Past(NamedTuple):
    """How far everything had come when somebody asked."""

    time_s: float
    engines: Mapping[str, EngineStatus]
    num_frames: int
    num_late: int


def snapshot(
    fleet: Fleet,
    lobby: Lobby,
    metrics: Metrics,
    ledger: UsageLedger,
    now_s: float | None = None,
) -> StatusBody:
    """Everything, as JSON. Rates and percentiles are of the last seconds in which somebody asked;
    None where nothing is known yet.
    """
    now_s = time.monotonic() if now_s is None else now_s
    engines = {host.name: host.engine.status for host in fleet.hosts if host.engine is not None}
    now = Past(now_s, engines, metrics.num_frames, metrics.num_late)
    past = _remember(metrics.past, now)
    counted = count_sessions(fleet, lobby)
    total = Counter[str]()
    for states in counted.values():
        total.update(states)
    fps = None if past is None else (now.num_frames - past.num_frames) / (now_s - past.time_s)
    watts, joules = ledger.meter.watts(), ledger.meter.joules()
    return {
        "version": __version__,
        "state": "closing" if lobby.draining else fleet.state.value,
        "uptime_s": round(now_s - metrics.began_s, 2),
        "sessions": {state: total[state] for state in STATES},
        "waiting": sum(pool.room.num_waiting for pool in fleet.pools.values()),
        "recovered": lobby.num_recovered,
        "worlds": [
            {
                "world": pool.title,
                "sessions": counted[pool.title],
                "waiting": pool.room.num_waiting,
                "expected_wait_s": _rounded(pool.room.expected_wait_s(pool.room.num_waiting + 1)),
            }
            for pool in fleet.pools.values()
        ],
        "engines": [_engine(host, engines.get(host.name), now, past) for host in fleet.hosts],
        "frames": {
            "fps": _rounded(fps),
            "num_sent": now.num_frames,
            "num_late": now.num_late,
            "gap_ms": percentiles(metrics.recent_gaps_ms()),
        },
        "queue_ms": percentiles(metrics.recent_waits_ms()),
        "power": {
            "of": ledger.meter.sources,
            "watts": _rounded(watts),
            "joules": _rounded(joules),
            "joules_per_frame": _rounded(watts / fps, 4) if watts and fps else None,
        },
        "price_per_hour": ledger.price_per_hour,
        "dollars_per_session_hour": _rounded(
            dollars_per_session_hour(fleet, ledger.price_per_hour), 5
        ),
        "memory_bytes": resident_bytes() or None,
        "usage": ledger.total.to_json(),
    }


def count_sessions(fleet: Fleet, lobby: Lobby) -> dict[str, dict[str, int]]:
    """How many, by world and state; those without a socket too."""
    counted = {pool.title: dict.fromkeys(STATES, 0) for pool in fleet.pools.values()}
    for seat in lobby.seats:
        states = counted.setdefault(seat.pool.title, dict.fromkeys(STATES, 0))
        if seat.state is not SessionState.ENDED:
            states[seat.state.value] += 1
    return counted


def dollars_per_session_hour(fleet: Fleet, price_per_hour: float | None) -> float | None:
    """What an hour of play costs at the moment: the price of all devices, spread over who has a
    place. None without a price, and without players.
    """
    engines = [host.engine for host in fleet.hosts if host.engine is not None]
    num_playing = sum(engine.num_active for engine in engines)
    if price_per_hour is None or not num_playing:
        return None
    return price_per_hour * len({host.device for host in fleet.hosts}) / num_playing


def percentiles(values: Sequence[float]) -> Percentiles | None:
    """None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    p50, p95, p99 = (
        round(ordered[min(p * len(ordered) // 100, len(ordered) - 1)], 2) for p in (50, 95, 99)
    )
    return {"p50": p50, "p95": p95, "p99": p99}


def stage_figures(
    counts: Sequence[int], sum_ms: float, bounds_ms: Sequence[float], elapsed_s: float | None = None
) -> StageFigures | None:
    """From a histogram. counts: in each bucket; the last has no bound, and counts as its lower one.
    None of nothing.
    """
    num = sum(counts)
    if not num:
        return None

    def at(part: float) -> float:
        rest, below_ms = part * num, 0.0
        for count, bound_ms in zip(counts, [*bounds_ms, bounds_ms[-1]], strict=True):
            if count and rest <= count:
                return round(below_ms + rest / count * (bound_ms - below_ms), 2)
            rest, below_ms = rest - count, bound_ms
        return below_ms

    return {
        "p50": at(0.5),
        "p95": at(0.95),
        "p99": at(0.99),
        "mean": round(sum_ms / num, 2),
        "share": round(sum_ms / 1e3 / elapsed_s, 4) if elapsed_s else None,
    }


def _remember(past: list[Past], now: Past) -> Past | None:
    """What to compare with: the oldest that is not too old. Keeps what later ones may need."""
    while past and now.time_s - past[0].time_s > WINDOW_S:
        past.pop(0)
    found = past[0] if past and now.time_s - past[0].time_s >= _SHORTEST_S else None
    if not past or now.time_s - past[-1].time_s >= _SHORTEST_S:
        past.append(now)
    return found


def _engine(
    host: EngineHost, status: EngineStatus | None, now: Past, past: Past | None
) -> EngineBody:
    return {
        "name": host.name,
        "world": host.world_name,
        "device": host.device,
        "state": host.state.value,
        "error": None if host.failure is None else str(host.failure),
        "restarts": host.num_restarts,
        "standby": host.has_standby,
        "pid": None if host.engine is None else host.engine.pid,
        "figures": None if status is None else _figures(host.name, status, now, past),
    }


def _figures(name: str, status: EngineStatus, now: Past, past: Past | None) -> EngineFigures:
    before = None if past is None else past.engines.get(name)
    if before is not None and before.num_frames > status.num_frames:
        before = None  # another process has taken its place
    elapsed_s = None if past is None or before is None else now.time_s - past.time_s
    frames = status.num_frames - (before.num_frames if before else 0)
    late = status.num_late - (before.num_late if before else 0)
    return {
        "level": status.level,
        "num_levels": status.num_levels,
        "load": round(status.load, 3),
        "slowdown": round(status.slowdown, 3),
        "capacity": status.capacity,
        "num_active": status.num_active,
        "granted": {str(steps): n for steps, n in sorted(status.granted.items())},
        "fps": _rounded(frames / elapsed_s) if elapsed_s else None,
        "hit_rate": round(1 - late / frames, 4) if frames else None,
        "num_frames": status.num_frames,
        "num_late": status.num_late,
        "busy_s": round(status.busy_s, 2),
        "stages_ms": _stages(status, before, elapsed_s),
        "memory_bytes": status.memory_bytes,
    }


def _stages(
    status: EngineStatus, before: EngineStatus | None, elapsed_s: float | None
) -> dict[str, StageFigures | None]:
    from reverie.engine.stages import STAGE_BUCKETS_MS

    told: dict[str, StageFigures | None] = {}
    for name, (counts, sum_ms) in status.stages.items():
        old, old_sum_ms = ((0,) * len(counts), 0.0)
        if before is not None and name in before.stages:
            old, old_sum_ms = before.stages[name]
        new = [count - was for count, was in zip(counts, old, strict=True)]
        told[name] = stage_figures(new, sum_ms - old_sum_ms, STAGE_BUCKETS_MS, elapsed_s)
    return told


def _rounded(value: float | None, digits: int = 2) -> float | None:
    return None if value is None else round(value, digits)
