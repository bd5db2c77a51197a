"""How many sessions a device plays, and what one costs: the curve over the batch."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from reverie.bench.device import Measurable, open_device
from reverie.bench.measure import EnergyMeter, percentile, times_ms
from reverie.bench.report import Report
from reverie.bench.step import least_ms
from reverie.engine.runtime import Batch
from reverie.world import World

TICKS = 300
HOPELESS = 0.25
"""The curve ends where a session gets less of its frames than this."""
COLUMNS = (
    "sessions",
    "FPS each",
    "gap p50 ms",
    "p95",
    "p99",
    "share late",
    "over floor",
    "J/frame",
    "$/session-hour",
)


def bench_sessions(
    world: World,
    runtime: str | None = None,
    num_steps: int = 1,
    sizes: Sequence[int] = (1, 2, 4, 8, 16),
    price: float = 1.0,
) -> Report:
    """All sessions draw in step, as fast as the device can: frames per second of each, gaps between
    frames, how far that is from the device's arithmetic, memory, energy, and the price where every
    frame is in time. price: of an hour of the device, dollars.
    """
    sizes = sorted(set(sizes))
    device, action = open_device(world, runtime, max(sizes))
    meter = EnergyMeter(device.device)
    fps = world.config.fps
    floor_ms = least_ms(device, num_steps)
    curve: list[dict[str, Any]] = []
    for b in sizes:
        curve.append(_measure(device, action, b, num_steps, floor_ms, meter, price))
        if curve[-1]["fps_each"] < HOPELESS * fps:
            break
    most = 0
    for point in curve:
        if point["dollars_per_session_hour"] is None:
            break
        most = point["sessions"]
    slot_mb = device.slot_bytes / 1e6
    figures = {
        "world": world.config.name,
        "device": device.device,
        "threads": device.num_threads,
        "denoising_steps": num_steps,
        "floor_ms": floor_ms,
        "mb_per_session": round(slot_mb, 2),
        "most_sessions_in_time": most,
        "dollars_per_device_hour": price,
        "curve": curve,
    }
    rows = [tuple("-" if value is None else f"{value:g}" for value in p.values()) for p in curve]
    energy = f"Energy by {meter.source}." if meter.source else "No energy meter on this machine."
    floor = (
        "No floor without PyTorch."
        if floor_ms is None
        else f"Over floor: a frame's share of the gap, in times {floor_ms:.2f} ms, which its "
        "arithmetic takes at best (`reverie bench step`)."
    )
    note = (
        f"At most {most} of these numbers of sessions have every frame in time ({fps} a second) at "
        f"the 99th percentile of {TICKS} frames. {slot_mb:.1f} MB of memory a session. ${price:g} "
        f"an hour of the device. {floor} Networks only: no JPEG, no sockets. {energy}"
    )
    command = (
        f"reverie bench sessions --world {world.config.name} --steps {num_steps} "
        f"--sessions {','.join(map(str, sizes))} --price {price:g}"
    )
    return Report(command, COLUMNS, rows, figures, (note,), device.device)


def _measure(
    device: Measurable,
    action: np.ndarray,
    b: int,
    num_steps: int,
    floor_ms: float | None,
    meter: EnergyMeter,
    price: float,
) -> dict[str, Any]:
    """The point of the curve for b sessions."""
    sessions = tuple(range(b))
    generator = np.random.default_rng(0)
    space = device.world.config.action_space
    index = iter(range(10**9))

    def tick() -> None:
        actions = np.repeat(action, b, axis=0)
        turns = actions[:, space.camera_columns]
        turns[:] = generator.uniform(-0.3, 0.3, turns.shape)
        device.step(Batch(sessions, actions, sessions, (next(index),) * b, num_steps))
        device.commit(sessions)

    for _ in range(3):
        tick()
    before = meter.joules()
    gaps = times_ms(tick, TICKS, 0)
    after = meter.joules()
    due_ms = 1000 / device.world.config.fps
    p50, p95, p99 = (round(percentile(gaps, share), 2) for share in (0.5, 0.95, 0.99))
    joules = None
    if before is not None and after is not None and after >= before:  # counters begin anew
        joules = round((after - before) / (TICKS * b), 4)
    return {
        "sessions": b,
        "fps_each": round(1000 / statistics.mean(gaps), 1),
        "gap_p50_ms": p50,
        "gap_p95_ms": p95,
        "gap_p99_ms": p99,
        "late": round(sum(gap > due_ms for gap in gaps) / len(gaps), 3),
        "over_floor": round(p50 / b / floor_ms, 2) if floor_ms else None,
        "joules_per_frame": joules,
        "dollars_per_session_hour": round(price / b, 4) if p99 <= due_ms else None,
    }
