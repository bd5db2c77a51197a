"""The Oasis format with a cache against the way of its reference, which computes the whole window
at every pass: same weights, same machine, same run.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from reverie.bench.measure import times_ms
from reverie.bench.report import Report
from reverie.formats import OASIS_ACTIONS
from reverie.model.adapters.oasis import COLUMNS, CONTEXT_LABEL, WINDOW, OasisModel, noise_levels
from reverie.model.adapters.oasis_networks import OasisDenoiser, OasisShape
from reverie.model.sampler import Sampler

SMALL = OasisShape((18, 32), width=256, depth=4)
PUBLISHED = OasisShape((18, 32))
NUM_STEPS = 10
NUM_ROUNDS = 3
HEADINGS = ("a frame at a full window", "median ms", "times faster")


def bench_oasis(published: bool = False) -> Report:
    """Milliseconds of a frame's latents at a full window of 32: recomputed, with the ring, and with
    an exact window. Random weights; published: of the published sizes, else of small ones.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape = PUBLISHED if published else SMALL
    denoiser = random_denoiser(shape).to(device)
    generator = torch.Generator(device).manual_seed(0)
    latents = torch.randn(
        (1, WINDOW, shape.channels, *shape.grid), generator=generator, device=device
    )
    told = torch.zeros(1, WINDOW, OASIS_ACTIONS.told_width, device=device)
    works: dict[str, Callable[[], object]] = {
        "recomputed": lambda: recompute(denoiser, latents[:, :-1], latents, told)
    }
    for name, exact in (("ring", False), ("exact window", True)):
        sampler = Sampler(OasisModel(denoiser, exact_window=exact), 1)
        for i in range(WINDOW - 1):
            sampler.commit([0], latents[:, i], latents[:, i], told[:, i], [i])

        def frame(sampler: Sampler = sampler) -> None:
            drawn = sampler.sample([0], latents[:, -1], told[:, -1], [WINDOW - 1], NUM_STEPS)
            sampler.commit([0], drawn, drawn, told[:, -1], [WINDOW - 1])

        works[name] = frame
    ms = _medians_ms(works)
    ratios = {name: ms["recomputed"] / value for name, value in ms.items()}
    rows = [(name, f"{value:.1f}", f"{ratios[name]:.1f}") for name, value in ms.items()]
    figures = {
        "width": shape.width,
        "depth": shape.depth,
        **{f"{name.replace(' ', '_')}_ms": round(value, 2) for name, value in ms.items()},
        "ring_ratio": round(ratios["ring"], 2),
        "exact_window_ratio": round(ratios["exact window"], 2),
    }
    threads = f" ({torch.get_num_threads()} threads)" if device.type == "cpu" else ""
    note = (
        f"{NUM_STEPS} denoising steps, width {shape.width}, {shape.depth} blocks, latents of "
        f"{shape.grid[0]} x {shape.grid[1]}, random weights, on {device.type}{threads}, without "
        "the decoder. The ring's frame includes the pass that remembers it."
    )
    command = "reverie bench oasis" + (" --published" if published else "")
    return Report(command, HEADINGS, rows, figures, (note,), device.type)


def random_denoiser(shape: OasisShape, seed: int = 0) -> OasisDenoiser:
    """With every weight drawn: as the format initialises them, the last layers are zero and so is
    all it says.
    """
    generator = torch.Generator().manual_seed(seed)
    denoiser = OasisDenoiser(shape)
    for name, weight in denoiser.named_parameters():
        if not name.endswith("freqs"):
            torch.nn.init.normal_(
                weight, std=0.08 * (128 / shape.width) ** 0.5, generator=generator
            )
    return denoiser.eval().requires_grad_(False)


@torch.no_grad()
def recompute(denoiser: OasisDenoiser, frames: Tensor, noise: Tensor, told: Tensor) -> Tensor:
    """The slow twin: frames [b, t, c, h, w] played on by what is told [b, T, a], T > t, each frame
    from its own noise [b, T, c, h, w], with no cache: every pass computes the whole window.
    """
    model = OasisModel(denoiser)
    levels = noise_levels(NUM_STEPS)
    for i in range(frames.shape[1], told.shape[1]):
        frames = torch.cat([frames, noise[:, i : i + 1]], 1)
        begin = max(0, i + 1 - WINDOW)
        for k in range(NUM_STEPS, 0, -1):
            seen = frames[:, begin:]
            label = seen.new_full(seen.shape[:2], CONTEXT_LABEL)
            label[:, -1] = levels[k]
            index = torch.arange(seen.shape[1], device=seen.device).expand(len(seen), -1)
            v, _ = denoiser(seen, label, told[:, begin : i + 1, COLUMNS], index)
            frames[:, -1] = model.less_noisy(seen[:, -1], v[:, -1], levels[k], levels[k - 1])
    return frames


def _medians_ms(works: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Of each work, in turn: what else the machine does hits all of them alike."""

    def finished(work: Callable[[], object]) -> None:
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    rounds = [
        {
            name: statistics.median(times_ms(partial(finished, work), 3))
            for name, work in works.items()
        }
        for _ in range(NUM_ROUNDS)
    ]
    return {name: statistics.median(times[name] for times in rounds) for name in works}
