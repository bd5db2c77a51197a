"""How fast Meadow runs on one core: pictures, ticks without a picture, worlds, edits.

    python benchmarks/bench_meadow.py               160 x 96 and 320 x 192
    python benchmarks/bench_meadow.py --frames 2000 longer

Time is the process's own processor time, so that a busy machine disturbs the figures less. The
player runs and turns through eight worlds, which is dearer than standing still.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from reverie.core import Action
from reverie.envs.meadow import MEADOW_ACTIONS, Meadow

SIZES = ((160, 96), (320, 192))
NUM_WORLDS = 8
RUN = MEADOW_ACTIONS.encode(Action({"forward", "sprint"}, (3.0, 0.0)))
DIG = MEADOW_ACTIONS.encode(Action({"break"}, (0.0, 15.0)))


def main() -> int:
    parser = argparse.ArgumentParser(description="Speed of the Meadow simulator on one core.")
    parser.add_argument("--frames", type=int, default=400, help="pictures for each size")
    num_frames = parser.parse_args().frames
    warm()
    rows: list[tuple[str, float, str]] = []
    for width, height in SIZES:
        worlds = [Meadow(seed, width, height) for seed in range(NUM_WORLDS)]
        times_s = [
            seconds(lambda world=world: world.step(RUN))
            for world in worlds * (num_frames // NUM_WORLDS)
        ]
        rows.append((f"pictures {width} x {height}", 1.0 / float(np.mean(times_s)), "1/s"))
        rows.append(
            (f"slowest 1% of {width} x {height}", 1e3 * float(np.quantile(times_s, 0.99)), "ms")
        )
    world = Meadow(1)
    rows.append(("ticks without a picture", 1.0 / mean_s(lambda: world.advance(RUN), 5000), "1/s"))
    rows.append(("info", 1e6 * mean_s(world.info, 2000), "us"))
    rows.append(("clone", 1e3 * mean_s(world.clone, 50), "ms"))
    rows.append(
        ("new world", 1e3 * mean_s(lambda: Meadow(int(time.monotonic_ns() % 9999)), 20), "ms")
    )
    digger = Meadow(2)
    rows.append(("a tick of digging down", 1e3 * mean_s(lambda: digger.advance(DIG), 90), "ms"))
    for name, value, unit in rows:
        print(f"{name:28} {value:12.2f} {unit}")
    machine = {"machine": platform.machine(), "processor": processor(), "cores": os.cpu_count()}
    print(json.dumps({"benchmark": "meadow", **machine, **{n: round(v, 3) for n, v, _ in rows}}))
    return 0


def warm() -> None:
    """Compile, or load what was compiled before."""
    meadow = Meadow(0)
    meadow.step(RUN)
    for _ in range(12):
        meadow.advance(DIG)
    meadow.clone()


def seconds(call: Callable[[], object]) -> float:
    started_s = time.process_time()
    call()
    return time.process_time() - started_s


def mean_s(call: Callable[[], object], times: int) -> float:
    return seconds(lambda: [call() for _ in range(times)]) / times


def processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    raise SystemExit(main())
