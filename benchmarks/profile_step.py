"""What the host waits for while a GPU draws a frame: a profile of steps and commits.

    python benchmarks/profile_step.py --world meadow --sessions 8 --trace trace.json

A step may wait once, at its end, for its pictures; inside of it nothing may. Without a GPU there
is nothing to wait for: the profile then shows the operations, and says so.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from reverie import world as worlds
from reverie.bench.device import open_device
from reverie.bench.measure import machine_name
from reverie.engine.runtime import Batch

NUM_FRAMES = 20
WAITS = ("cudaDeviceSynchronize", "cudaStreamSynchronize", "cudaEventSynchronize", "cudaMemcpy")
EXPECTED_WAITS = 1


def main() -> int:
    parser = argparse.ArgumentParser(description="Host synchronisations of a frame on a GPU.")
    parser.add_argument("--world", default="meadow")
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--trace", type=Path, help="where to write it for chrome://tracing")
    options = parser.parse_args()
    world = worlds.load(options.world)
    device, action = open_device(world, "torch", options.sessions)
    sessions = tuple(range(options.sessions))
    actions = action.repeat(options.sessions, axis=0)

    def frame(index: int) -> None:
        indices = (index,) * options.sessions
        num_steps = min(world.config.denoising_steps)
        device.step(Batch(sessions, actions, sessions, indices, num_steps))
        device.commit(sessions)

    for index in range(3):
        frame(index)
    has_gpu = device.device == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if has_gpu else [])]
    with profile(activities=kinds) as profiled:
        for index in range(3, 3 + NUM_FRAMES):
            frame(index)
    if options.trace:
        profiled.export_chrome_trace(str(options.trace))
    calls = Counter(event.name for event in profiled.events() or ())
    graphs = calls["cudaGraphLaunch"] / NUM_FRAMES
    waits = {name: calls[name] / NUM_FRAMES for name in WAITS if calls[name]}
    print(profiled.key_averages().table(sort_by="self_cpu_time_total", row_limit=12))
    if has_gpu:
        print(f"A frame launches {graphs:g} graphs; the host waits for: {waits}")
    else:
        print("No GPU here: graphs and waits are not yet measured.")
    figures = {"sessions": options.sessions, "graphs_per_frame": graphs, "waits_per_frame": waits}
    measured = figures if has_gpu else {"sessions": options.sessions}
    machine = machine_name(device.device)
    print(json.dumps({"world": world.config.name, "machine": machine, **measured}))
    # An event of a copy of the frame before is long past: asking for it is no wait.
    inside = sum(share for name, share in waits.items() if name != "cudaEventSynchronize")
    return 0 if inside <= EXPECTED_WAITS + 1 / NUM_FRAMES else 1  # the profiler's own, at its end


if __name__ == "__main__":
    raise SystemExit(main())
