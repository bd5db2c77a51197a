"""Where a frame's time goes, stage by stage, and how far that is from the machine's arithmetic."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, cast

import numpy as np

from reverie.bench.measure import percentile, times_ms
from reverie.bench.report import Report
from reverie.codec.jpeg import JpegCodec
from reverie.engine.runtime import Batch, Runtime
from reverie.engine.runtimes import load_runtime
from reverie.world import World

NUM_TIMED = 100
GEMM_SIDE = 1024
COPIED_BYTES = 64 * 2**20


class Divisible(Runtime, Protocol):
    """A runtime that can run the stages of a frame alone."""

    def stages(self) -> Mapping[str, Callable[[], object]]:
        """Of a frame of slot 0, by name; after `allocate`."""
        ...


def bench_step(world: World, runtime: str | None = None, num_steps: int = 1) -> Report:
    """Medians and 95th percentiles of a frame's stages, one session; FLOPs of the networks against
    what this machine multiplies and copies.
    """
    device = cast("Divisible", load_runtime(world, runtime))
    device.allocate(1)
    start = world.starts[0]
    device.prefill(0, start.frames, start.actions, 0, pitch_deg=start.pitch_deg)
    action = start.actions[-1:]
    picture = device.step(Batch((0,), action, (0,), (0,), num_steps))[0]
    codec = JpegCodec()
    index = iter(range(1, 10**9))

    def whole() -> None:
        drawn = device.step(Batch((0,), action, (0,), (next(index),), num_steps))
        device.commit((0,))
        codec.encode_pixels(drawn[0])

    encode = partial(codec.encode_pixels, picture)
    stages = {**device.stages(), "encode": encode, "whole frame": whole}
    timed = {name: times_ms(work, NUM_TIMED, 3) for name, work in stages.items()}
    median = {name: statistics.median(times) for name, times in timed.items()}
    figures: dict[str, Any] = {
        "world": world.config.name,
        "denoising_steps": num_steps,
        **{f"{name.replace(' ', '_')}_ms": round(ms, 3) for name, ms in median.items()},
        **_ceilings(),
    }
    rows = [
        (name, f"{median[name]:.2f}", f"{percentile(times, 0.95):.2f}")
        for name, times in timed.items()
    ]
    gflops = count_gflops(world, num_steps)
    figures |= {f"{name}_gflop": round(value, 4) for name, value in gflops.items()}
    floor_ms = sum(gflops.values()) / figures["gemm_gflops"] * 1000
    networks_ms = num_steps * median["denoise"] + median["commit"] + median["decode"]
    figures |= {"floor_ms": round(floor_ms, 3), "over_floor": round(networks_ms / floor_ms, 3)}
    rows.append(("arithmetic floor", f"{floor_ms:.2f}", ""))
    parts = ", ".join(f"{name} {value:.3f}" for name, value in gflops.items())
    notes = (
        f"GFLOP of a frame: {parts}. This machine multiplies {figures['gemm_gflops']:.0f} GFLOP/s "
        f"(float32, {GEMM_SIDE} a side) and copies {figures['copy_gbs']:.1f} GB/s.",
        f"Networks (denoise x {num_steps}, commit, decode): {networks_ms:.2f} ms, "
        f"{networks_ms / floor_ms:.2f} times the floor.",
    )
    return Report(f"reverie bench step {world.config.name}", COLUMNS, rows, figures, notes)


COLUMNS = ("stage", "median ms", "p95 ms")


def count_gflops(world: World, num_steps: int) -> dict[str, float]:
    """Billions of multiplications and additions of a frame's networks."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from reverie.model.sampler import Sampler
    from reverie.model.weights import load_model

    model, pictures = load_model(world, torch.device("cpu"))
    sampler = Sampler(model, 1)
    sampler.num_frames[0] = model.context
    latents = torch.zeros(1, *model.latent_shape)
    told = torch.zeros(1, world.config.action_space.told_width)
    works: dict[str, Callable[[], object]] = {
        "denoise": lambda: sampler.sample([0], latents, told, [0], num_steps),
        "commit": lambda: sampler.commit([0], latents, latents, told, [0]),
        "decode": lambda: pictures.decode(latents),
    }
    counted = {}
    for name, work in works.items():
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            work()
        counted[name] = counter.get_total_flops() / 1e9
    return counted


def _ceilings() -> dict[str, float]:
    """What the machine can do at best: matrix products in float32, and copies."""
    generator = np.random.default_rng(0)
    a, b = (generator.random((GEMM_SIDE, GEMM_SIDE), np.float32) for _ in range(2))
    gemm_ms = min(times_ms(lambda: a @ b, 10, 2))
    source = np.zeros(COPIED_BYTES, np.uint8)
    target = np.empty_like(source)
    copy_ms = min(times_ms(lambda: np.copyto(target, source), 10, 2))
    return {
        "gemm_gflops": round(2 * GEMM_SIDE**3 / gemm_ms / 1e6, 1),
        "copy_gbs": round(COPIED_BYTES / copy_ms / 1e6, 2),
    }
