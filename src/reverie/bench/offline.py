"""Interactive against offline: the same weights on the same machine, frame after frame with what is
remembered, or the way offline generators make a clip: all of it at once, many steps, guided.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reverie.bench.device import Measurable, open_device
from reverie.bench.measure import times_ms
from reverie.bench.report import Report
from reverie.core import ReverieError
from reverie.engine.runtime import Batch
from reverie.model.adapters.shortcut import frame_phases
from reverie.model.denoiser import Denoiser, attend
from reverie.model.weights import load_networks
from reverie.world import OWN_FORMAT, World

CLIP_S = 4.0
OFFLINE_STEPS = 50
PASSES_PER_STEP = 2
"""With the action and without it: guidance."""
NUM_TIMED = 100
NUM_CLIPS = 3
COLUMNS = ("", "interactive", "offline", "ratio")


def bench_offline(
    world: World, runtime: str | None = None, num_steps: int = 1, price: float = 1.0
) -> Report:
    """Seconds and dollars per frame of a finished clip, and per frame that answers an action.

    Both on the device that the runtime uses, in its precision. price: of an hour of it, dollars.
    Raises ReverieError on a world of another format.
    """
    if world.config.format != OWN_FORMAT:
        raise ReverieError(
            f"world {world.config.name!r} is of the format {world.config.format!r}; "
            "bench offline takes one of our own"
        )
    device, action = open_device(world, runtime)
    frame_s = _frame_s(device, action, num_steps)
    plain_s = frame_s
    num_frames = round(CLIP_S * world.config.fps)
    halves = device.precision == "bfloat16"
    with torch.autocast(device.device, torch.bfloat16, enabled=halves):
        if device.device == "cpu" and runtime != "torch":
            plain_s = _frame_s(*open_device(world, "torch"), num_steps)
        clips = [_clip_s(world, num_frames, device.device) for _ in range(NUM_CLIPS)]
    clip_s = statistics.median(clips)
    rows = _rows(frame_s, clip_s, num_frames, price)
    figures = {
        "world": world.config.name,
        "device": device.device,
        "denoising_steps": num_steps,
        "frame_s": round(frame_s, 5),
        "frame_pytorch_s": round(plain_s, 5),
        "clip_s": round(clip_s, 3),
        "clip_frames": num_frames,
        "offline_passes": OFFLINE_STEPS * PASSES_PER_STEP,
        "ratio_per_clip_frame": round(clip_s / num_frames / frame_s, 1),
        "ratio_per_answering_frame": round(clip_s / frame_s, 1),
        "ratio_per_answering_frame_pytorch": round(clip_s / plain_s, 1),
        "dollars_per_device_hour": price,
    }
    notes = (
        f"Interactive: what `reverie play` runs; {num_steps} denoising pass(es), one pass that "
        "remembers, one decoding per frame; every frame answers the newest action. In PyTorch "
        f"at that precision: {plain_s:.4f} s a frame, ratio {clip_s / plain_s:.0f}.",
        f"Offline: PyTorch in {device.precision} too, {num_frames} frames at once, every frame "
        f"sees all of them, {OFFLINE_STEPS} steps of {PASSES_PER_STEP} passes (guided), then all "
        "are decoded; nothing is kept between passes. An action is answered by another clip.",
    )
    command = (
        f"reverie bench offline --world {world.config.name} --steps {num_steps} --price {price:g}"
    )
    return Report(command, COLUMNS, rows, figures, notes, device.device)


def _rows(frame_s: float, clip_s: float, num_frames: int, price: float) -> list[tuple[str, ...]]:
    """Of the table: seconds and dollars, of a frame of a clip and of one that answers."""
    return [
        (
            f"{what}{name}",
            f"{frame_s * scale:.{digits}f}",
            f"{offline_s * scale:.{digits}f}",
            f"{offline_s / frame_s:.0f}",
        )
        for what, scale, digits in (("seconds", 1.0, 4), ("$ per 1000", 1000 * price / 3600, 5))
        for name, offline_s in (
            (" a frame of a clip", clip_s / num_frames),
            (" a frame that answers", clip_s),
        )
    ]


def _frame_s(device: Measurable, action: np.ndarray, num_steps: int) -> float:
    """Median seconds of a frame, with what it leaves behind."""
    index = iter(range(10**9))

    def frame() -> None:
        device.step(Batch((0,), action, (0,), (next(index),), num_steps))
        device.commit((0,))

    return statistics.median(times_ms(frame, NUM_TIMED, 3)) / 1000


@torch.no_grad()
def _clip_s(world: World, num_frames: int, kind: str) -> float:
    """Seconds of one clip, from noise to pictures."""
    autoencoder, denoiser = load_networks(world)
    device = torch.device(kind)
    autoencoder, denoiser = autoencoder.to(device), denoiser.to(device)
    config, space = denoiser.config, world.config.action_space
    told = torch.zeros(1, num_frames, space.told_width, device=device)
    unguided = told.clone()
    told[..., 0] = 1.0
    noisy = torch.randn(1, num_frames, config.num_tokens, config.channels, device=device)
    _clip_pass(denoiser, noisy, 0.0, told)  # warm
    autoencoder.decode(noisy[0])
    started_s = time.perf_counter()
    for k in range(OFFLINE_STEPS):
        signal, step_size = k / OFFLINE_STEPS, 1 / OFFLINE_STEPS
        clean = _clip_pass(denoiser, noisy, signal, told)
        clean = clean + (clean - _clip_pass(denoiser, noisy, signal, unguided))
        noisy = noisy + (clean - noisy) * (step_size / (1 - signal))
    autoencoder.decode(noisy[0]).cpu()
    return time.perf_counter() - started_s


def _clip_pass(denoiser: Denoiser, noisy: Tensor, signal: float, told: Tensor) -> Tensor:
    """Clean latents of a clip, [1, t, n, c], whose frames all see each other."""
    level = noisy.new_full(noisy.shape[:2], signal)
    size = torch.full_like(level, denoiser.config.min_step_size)
    acting, condition = denoiser.condition(level, size, told)
    x = denoiser.embed(noisy) + denoiser.place + acting[:, :, None]
    rows, turns = denoiser.camera(told[0])
    index = torch.arange(len(rows), device=rows.device)
    cos, sin = denoiser.rotary(*frame_phases(denoiser, rows, turns.cumsum(0), index))
    shared = denoiser.modulate(condition).unflatten(-1, (6, -1))
    for block in denoiser.layers():
        parts = block.before(x, shared, cos[None], sin[None])
        if block.cached:
            q, k, v = (part.transpose(1, 2).flatten(2, 3) for part in parts)
            heads = F.scaled_dot_product_attention(q, k, v)
            heads = heads.unflatten(2, (len(rows), -1)).transpose(1, 2)
        else:
            heads = attend(*parts)
        x = block.after(x, heads, shared)
    return denoiser.unembed_tokens(x, condition)
