"""Where a frame's time goes, stage by stage, and how far that is from the machine's arithmetic."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

from reverie.bench.device import Measurable, open_device
from reverie.bench.measure import percentile, times_ms
from reverie.bench.report import Report
from reverie.codec.jpeg import JpegCodec
from reverie.engine.runtime import Batch
from reverie.world import World

NUM_TIMED = 100
GEMM_SIDE = 1024
CONVOLVED = (256, 48, 80)
"""Channels, rows and columns."""
COPIED_BYTES = 64 * 2**20


def bench_step(world: World, runtime: str | None = None, num_steps: int = 1) -> Report:
    """Medians and 95th percentiles of a frame's stages, one session; FLOPs of the networks against
    what this machine multiplies and copies.
    """
    device, action = open_device(world, runtime)
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
    gflops, ceilings = count_gflops(world, num_steps), measure_ceilings(device)
    floor_ms = _floor_ms(gflops, ceilings)
    networks_ms = num_steps * median["denoise"] + median["commit"] + median["decode"]
    figures: dict[str, Any] = {
        "world": world.config.name,
        "device": device.device,
        "precision": device.precision,
        "threads": device.num_threads,
        "denoising_steps": num_steps,
        **{f"{name.replace(' ', '_')}_ms": round(ms, 3) for name, ms in median.items()},
        **ceilings,
        **{f"{name}_gflop": round(value, 4) for name, value in gflops.items()},
        "cache_mb": round(device.slot_bytes / 1e6, 2),
        "floor_ms": floor_ms,
        "over_floor": round(networks_ms / floor_ms, 3),
    }
    rows = [
        (name, f"{median[name]:.2f}", f"{percentile(times, 0.95):.2f}")
        for name, times in timed.items()
    ]
    rows.append(("arithmetic floor", f"{floor_ms:.2f}", ""))
    parts = ", ".join(f"{name} {value:.3f}" for name, value in gflops.items())
    read_ms = device.slot_bytes / ceilings["copy_gbs"] / 1e6
    notes = (
        f"GFLOP of a frame: {parts}; commit without what it can leave out. "
        f"{device.num_threads} threads multiply {ceilings['gflops']:.0f} GFLOP/s here "
        f"({device.precision}, large matrices or convolutions, whichever is faster) and "
        f"copy {ceilings['copy_gbs']:.1f} GB/s: reading the cache once, {read_ms:.2f} ms.",
        f"Networks (denoise x {num_steps}, commit, decode): {networks_ms:.2f} ms, "
        f"{networks_ms / floor_ms:.2f} times the floor. A copy is part of the commit.",
    )
    command = f"reverie bench step --world {world.config.name} --steps {num_steps}"
    columns = ("stage", "median ms", "p95 ms")
    return Report(command, columns, rows, figures, notes, device.device)


def least_ms(device: Measurable, num_steps: int) -> float | None:
    """That the arithmetic of a frame's networks takes; None where PyTorch is not installed."""
    if not find_spec("torch"):
        return None
    return _floor_ms(count_gflops(device.world, num_steps), measure_ceilings(device))


def _floor_ms(gflops: Mapping[str, float], ceilings: Mapping[str, float]) -> float:
    return round(sum(gflops.values()) / ceilings["gflops"] * 1000, 3)


def count_gflops(world: World, num_steps: int) -> dict[str, float]:
    """Billions of multiplications and additions of a frame's networks."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from reverie.model.autoencoder import Autoencoder
    from reverie.model.sampler import Sampler
    from reverie.model.weights import load_model

    model, pictures = load_model(world, torch.device("cpu"))
    sampler = Sampler(model, 1)
    sampler.num_frames[0] = model.context
    latents = torch.zeros(1, *model.latent_shape)
    told = torch.zeros(1, world.config.action_space.told_width)
    shown: tuple[torch.Tensor | None, ...] = ()
    if isinstance(pictures, Autoencoder):  # which looks at the picture before, if it refines
        height, width, _ = world.config.frame_shape
        shown = (None, torch.zeros(1, 3, height, width), torch.zeros(1, 3))
    works: dict[str, Callable[[], object]] = {
        "denoise": lambda: sampler.sample([0], latents, told, [0], num_steps),
        "commit": lambda: sampler.commit([0], latents, latents, told, [0]),
        "decode": lambda: pictures.decode(latents, *shown),
    }
    counted = {}
    for name, work in works.items():
        # As plain products: the fused kernels of a CPU are not counted.
        counter = FlopCounterMode(display=False)
        with counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            work()
        counted[name] = counter.get_total_flops() / 1e9
    return counted


def measure_ceilings(device: Measurable) -> dict[str, float]:
    """What the device can do at best: `gflops` a second, products in its precision, and `copy_gbs`,
    gigabytes copied.
    """
    import torch

    kind = torch.device(device.device)
    numbers = partial(torch.rand, device=kind, dtype=getattr(torch, device.precision))
    a, b = numbers(2, GEMM_SIDE, GEMM_SIDE)
    picture, weights = numbers(1, *CONVOLVED), numbers(CONVOLVED[0], CONVOLVED[0], 3, 3)
    source = torch.zeros(COPIED_BYTES, dtype=torch.uint8, device=kind)
    target = torch.empty_like(source)

    def best_ms(work: Callable[[], object]) -> float:
        def finished() -> None:
            work()
            if kind.type == "cuda":
                torch.cuda.synchronize()

        return min(times_ms(finished, 10, 2))

    def convolve() -> object:
        return torch.nn.functional.conv2d(picture, weights, padding=1)

    threads = torch.get_num_threads()
    torch.set_num_threads(device.num_threads)
    try:
        gflops = max(
            2 * GEMM_SIDE**3 / best_ms(lambda: a @ b) / 1e6,
            2 * weights.numel() * picture[0, 0].numel() / best_ms(convolve) / 1e6,
        )
        copy_ms = best_ms(lambda: target.copy_(source))
    finally:
        torch.set_num_threads(threads)
    return {
        "gflops": round(gflops, 1),
        "copy_gbs": round(COPIED_BYTES / copy_ms / 1e6, 2),
    }
