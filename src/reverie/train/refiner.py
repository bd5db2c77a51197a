"""Train the Refiner on what play gives it: pictures decoded from the denoiser's own frames, each
after the refined one before it.

A segment's last frames are refined one after another, each picture going into the next, from a true
one on. The denoiser draws each of these frames in one pass from the *true* past: frames that have
drifted away from the truth would teach the refiner to blur. What it starts from is at times
another picture, or has a piece of one in it: where decoder and picture before disagree, the
decoder is right.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from reverie.core import ActionSpace, ReverieError
from reverie.data.render import Rendered
from reverie.data.segments import Segments
from reverie.model.autoencoder import Autoencoder, to_frames, to_pixels
from reverie.model.denoiser import Denoiser
from reverie.train import parallel
from reverie.train.autoencoder import Wished, encode_all, reconstruction_loss, settings_of
from reverie.train.denoiser import ForcingConfig, mix
from reverie.train.run import Run, RunConfig, pick_device
from reverie.train.sheets import psnr, write_sheet

WIDTHS = (32, 48)
NUM_REFINED = 8
"""Frames in a row, at most."""
OTHER_SHARE, PIECE_SHARE, BLURRED_SHARE = 0.05, 0.25, 0.05
"""Of the segments that start from another picture, from one with a piece of another in it, and from
a blurred one.
"""
FADED_SHARE = 0.3
"""Of the wished segments that start in the middle of a change of looks."""


class Clips:
    """Segments of a split for the refiner: latents, what the denoiser is told, turns of the camera,
    and the pictures of the last frames, as usual and as wished.
    """

    def __init__(
        self,
        rendered: Rendered,
        latents: NDArray[np.float16],
        space: ActionSpace,
        context: int,
        wished: Wished | None,
    ) -> None:
        pitches = rendered.pitches(space)
        told = np.stack([space.tell(*p) for p in zip(rendered.actions, pitches, strict=True)])
        before = np.r_[0.0, pitches[:-1]]
        turns = np.stack([space.turn(*place) for place in zip(told, before, strict=True)])
        arrays = {"latents": latents, "told": told, "turns": turns}
        self.frames, self.wished = rendered.frames, wished
        self.num_refined = min(NUM_REFINED, context)
        self.usual = space.encode_attributes({})
        self.segments = Segments(arrays, rendered.boundaries, context + 1)
        # Those whose last frames all show what was wished for.
        settled = np.zeros(len(rendered.frames) + 1, np.int64)
        settled[1:][wished.rows if wished else []] = 1
        ends = self.segments.first_rows(np.arange(len(self.segments))) + context + 1
        counts = np.cumsum(settled)
        self.painted = np.flatnonzero(
            counts[ends] - counts[ends - self.num_refined - 1] > self.num_refined
        )
        if wished and not len(self.painted):
            raise ReverieError(
                f"in {rendered.path} no wish lasts for {self.num_refined + 1} frames after it has "
                "come true; record more episodes, or longer ones"
            )

    def __len__(self) -> int:
        return len(self.segments)

    def draw(
        self, chosen: np.random.Generator, count: int, device: torch.device
    ) -> dict[str, Tensor]:
        """A batch to learn from: half of it as wished, some that start from what they should not
        trust.
        """
        numbers = chosen.integers(0, len(self), count)
        half = count // 2 if len(self.painted) else 0
        numbers[:half] = self.painted[chosen.integers(0, len(self.painted), half)] if half else 0
        batch = self.gather(numbers, device, half)
        first, others = batch["first"], batch["first"].roll(1, 0)
        faded = _share(chosen, half, FADED_SHARE) * chosen.random(half)
        usual = batch["usual"][:half]
        first[:half] += (usual - first[:half]) * _column(faded, device)
        kind, (height, width) = chosen.random(count), first.shape[-2:]
        rough = F.interpolate(F.avg_pool2d(first, 4), scale_factor=4, mode="bilinear")
        for i, number in enumerate(kind.tolist()):
            piece = (slice(None), slice(None))
            if number > OTHER_SHARE:
                piece = _piece(chosen, height), _piece(chosen, width)
            if number < OTHER_SHARE + PIECE_SHARE:
                first[i, :, *piece] = others[i, :, *piece]
            elif number < OTHER_SHARE + PIECE_SHARE + BLURRED_SHARE:
                first[i] = rough[i]
        return batch

    def gather(
        self, numbers: NDArray[np.integer], device: torch.device, num_wished: int = 0
    ) -> dict[str, Tensor]:
        """These segments; of the first ones the pictures as wished. first: pictures before those
        that are refined; usual: the same as if nobody had wished.
        """
        arrays = self.segments.gather(numbers)
        batch = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        ends = self.segments.first_rows(numbers) + self.segments.length
        rows = ends[:, None] + np.arange(-self.num_refined - 1, 0)
        frames, attributes = self.frames[rows], np.tile(self.usual, (len(numbers), 1))
        batch["usual"] = to_pixels(torch.from_numpy(frames[:, 0]).to(device))
        if self.wished and num_wished:
            part = rows[:num_wished]
            frames[:num_wished] = self.wished.frames[part]
            attributes[:num_wished] = self.wished.attributes[part[:, -1]]
        pictures = to_pixels(torch.from_numpy(frames).to(device))
        batch["attributes"] = torch.from_numpy(attributes).to(device)
        batch["turns"] = batch["turns"][:, -self.num_refined :]
        return {**batch, "first": pictures[:, 0].clone(), "truth": pictures[:, 1:]}


def _share(chosen: np.random.Generator, count: int, share: float) -> NDArray[np.float64]:
    return (chosen.random(count) < share).astype(np.float64)


def _column(values: NDArray[np.float64], device: torch.device) -> Tensor:
    return torch.from_numpy(values).float().to(device)[:, None, None, None]


def _piece(chosen: np.random.Generator, size: int) -> slice:
    """From an eighth to two thirds of a side."""
    length = int(chosen.integers(size // 8, size * 2 // 3))
    begin = int(chosen.integers(0, size - length))
    return slice(begin, begin + length)


@dataclass(frozen=True)
class Refining:
    """Decodes what the denoiser draws, and refines it."""

    autoencoder: Autoencoder
    denoiser: Denoiser
    forcing: ForcingConfig

    @torch.no_grad()
    def draw(
        self, batch: dict[str, Tensor], generator: torch.Generator
    ) -> Float[Tensor, "b t 3 h w"]:
        """The last frames of segments as the denoiser draws them from a true past."""
        past, told = batch["latents"].float()[:, :-1], batch["told"]
        count = batch["truth"].shape[1]
        noises = torch.randn((2, *past.shape), generator=generator, device=past.device)
        signal = past.new_full(past.shape[:2], self.forcing.context_signal)
        none, whole = torch.zeros_like(signal), torch.ones_like(signal)
        given = (mix(past, noises[0], signal), signal, told[:, :-1])
        noisy = noises[1] * self.forcing.noise_scale
        drawn = self.denoiser(*given, noisy, none, whole, told[:, 1:])[:, -count:]
        attributes = batch["attributes"].repeat_interleave(count, 0)
        pictures = self.autoencoder.decode(drawn.flatten(0, 1), attributes)
        return pictures.float().unflatten(0, (len(past), count))

    def refine(
        self,
        drawn: Float[Tensor, "b t 3 h w"],
        first: Float[Tensor, "b 3 h w"],
        turns: Float[Tensor, "b t 3"],
    ) -> Float[Tensor, "b t 3 h w"]:
        """One after another, from the picture before the first."""
        refined, before = [], first
        for picture, turn in zip(drawn.unbind(1), turns.unbind(1), strict=True):
            refined.append(self.autoencoder.refiner(picture, before, turn))
            before = refined[-1].clamp(0.0, 1.0)
        return torch.stack(refined, 1)


def train_refiner(
    folder: Path,
    autoencoder: Autoencoder,
    denoiser: Denoiser,
    forcing: ForcingConfig,
    run_config: RunConfig,
    splits: tuple[Rendered, Rendered],
    space: ActionSpace,
    wished: tuple[Wished, Wished] | None = None,
) -> Run:
    """Train an autoencoder's refiner, and nothing else, in `folder`; goes on from the checkpoint
    there.

    splits: train and validation. wished: both as they are to be painted, half of every batch.
    """
    if run_config.batch_size < 2 * parallel.num_processes():
        raise ReverieError(
            f"a batch of {run_config.batch_size} has no other picture to begin with; expected at "
            f"least 2 for each of {parallel.num_processes()} processes"
        )
    device = pick_device(run_config.threads)
    torch.manual_seed(run_config.seed)
    autoencoder = autoencoder.to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    autoencoder.requires_grad_(False)
    denoiser.to(device).eval().requires_grad_(False)
    autoencoder.refiner.requires_grad_(True)
    optimizer = torch.optim.AdamW(autoencoder.refiner.parameters(), betas=(0.9, 0.98))
    settings = {"autoencoder": settings_of(autoencoder)}
    run = Run(folder, run_config, autoencoder, [optimizer], settings)
    refining, context = Refining(autoencoder, denoiser, forcing), denoiser.config.context
    with parallel.first_alone():
        train, validation = (
            Clips(rendered, encode_all(autoencoder, rendered, folder, name), space, context, look)
            for name, rendered, look in zip(
                ("train", "validation"), splits, wished or (None, None), strict=True
            )
        )

    def train_step(step: int) -> Tensor:
        count = run_config.batch_size // parallel.num_processes()
        key = step * parallel.num_processes() + parallel.rank()
        chosen = np.random.Generator(np.random.Philox(key=[run_config.seed, key]))
        batch = train.draw(chosen, count, device)
        generator = torch.Generator(device).manual_seed(run_config.seed * 2**32 + key)
        with torch.autocast(device.type, torch.bfloat16):
            drawn = refining.draw(batch, generator)
            refined = refining.refine(drawn, batch["first"], batch["turns"])
        return reconstruction_loss(refined.float().flatten(0, 1), batch["truth"].flatten(0, 1))

    @torch.no_grad()
    def inspect(step: int) -> dict[str, float]:
        numbers = np.linspace(0, len(validation) - 1, 32).astype(int)
        batch = validation.gather(numbers, device)
        drawn = refining.draw(batch, torch.Generator(device).manual_seed(0))
        kinds = [batch["truth"], drawn, refining.refine(drawn, batch["first"], batch["turns"])]
        truth, *guesses = (to_frames(kind).cpu().numpy() for kind in kinds)
        rows = [kind[i, ::2] for i in range(0, 32, 4) for kind in (truth, *guesses)]
        write_sheet(folder / "sheets" / f"{step:06}.jpg", rows)
        named = zip(("drawn_psnr", "refined_psnr"), guesses, strict=True)
        return {name: psnr(truth, guess) for name, guess in named}

    run.train(train_step, inspect)
    return run
