"""How many sessions a device plays, and what one costs: the curve over the batch."""

from __future__ import annotations

import resource
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reverie.bench.measure import EnergyMeter, percentile, times_ms
from reverie.bench.report import Report
from reverie.engine.runtime import Batch, Runtime
from reverie.engine.runtimes import load_runtime
from reverie.world import World

TICKS = 100
COLUMNS = (
    "sessions",
    "FPS each",
    "gap p50 ms",
    "p95",
    "p99",
    "share late",
    "J/frame",
    "$/session-hour",
)


@dataclass(frozen=True)
class Point:
    """Of the curve. gaps_ms: from a session's frame to its next. joules: of a frame, if known."""

    sessions: int
    gaps_ms: list[float]
    joules: float | None


def bench_sessions(
    world: World,
    runtime: str | None = None,
    num_steps: int = 1,
    sizes: Sequence[int] = (1, 2, 4, 8, 16),
    price: float = 1.0,
) -> Report:
    """All sessions draw in step, as fast as the device can: frames per second of each, gaps between
    frames, memory, energy and price. price: of an hour of the device, dollars.
    """
    device = load_runtime(world, runtime)
    before_mb = _memory_mb()
    device.allocate(max(sizes))
    start = world.starts[0]
    for slot in range(max(sizes)):
        device.prefill(slot, start.frames, start.actions, slot, pitch_deg=start.pitch_deg)
    each_mb = (_memory_mb() - before_mb) / max(sizes)
    meter = EnergyMeter()
    points = [_measure(device, b, num_steps, meter) for b in sorted(sizes)]
    fps = world.config.fps
    curve = [_figures(point, 1000 / fps, price) for point in points]
    most = max((c["sessions"] for c in curve if c["gap_p99_ms"] <= 1000 / fps), default=0)
    figures = {
        "world": world.config.name,
        "denoising_steps": num_steps,
        "mb_per_session": round(each_mb, 1),
        "most_sessions_in_time": most,
        "dollars_per_device_hour": price,
        "curve": curve,
    }
    rows = [tuple("-" if value is None else f"{value:g}" for value in c.values()) for c in curve]
    energy = f"Energy by {meter.source}." if meter.source else "No energy meter on this machine."
    note = (
        f"At most {most} of these sessions have every frame in time ({fps} a second) at the 99th "
        f"percentile. {each_mb:.0f} MB a session. ${price:g} an hour of the device. {energy}"
    )
    return Report(f"reverie bench sessions {world.config.name}", COLUMNS, rows, figures, (note,))


def _figures(point: Point, due_ms: float, price: float) -> dict[str, Any]:
    gaps = point.gaps_ms
    joules = point.joules
    return {
        "sessions": point.sessions,
        "fps_each": round(1000 / statistics.mean(gaps), 1),
        **{f"gap_p{p}_ms": round(percentile(gaps, p / 100), 2) for p in (50, 95, 99)},
        "late": round(sum(gap > due_ms for gap in gaps) / len(gaps), 3),
        "joules_per_frame": None if joules is None else round(joules, 3),
        "dollars_per_session_hour": round(price / point.sessions, 4),
    }


def _measure(device: Runtime, b: int, num_steps: int, meter: EnergyMeter) -> Point:
    slots, seeds = tuple(range(b)), tuple(range(b))
    generator = np.random.default_rng(0)
    starts = np.stack([device.world.starts[0].actions[-1]] * b)
    index = iter(range(10**9))

    def tick() -> None:
        columns = device.world.config.action_space.camera_columns
        actions = starts.copy()
        turns = actions[:, columns]
        turns[:] = generator.uniform(-0.3, 0.3, turns.shape)
        i = next(index)
        device.step(Batch(slots, actions, seeds, (i,) * b, num_steps))
        device.commit(slots)

    for _ in range(3):
        tick()
    before = meter.joules()
    gaps = times_ms(tick, TICKS, 0)
    after = meter.joules()
    joules = None
    if before is not None and after is not None:
        joules = (after - before) / (TICKS * b)
    return Point(b, gaps, joules)


def _memory_mb() -> float:
    """The most that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
