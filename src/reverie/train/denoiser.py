"""Train the Denoiser by shortcut forcing over a committed past (Dreamer 4, arXiv 2509.24527, eq.
7-8, with the past of play).

Every frame of a segment is a target once, after context frames as they lie in the cache at play:
true latents lightly noised or, for part of the sequences, from some frame on the network's own
rollout, one pass a frame, so that it learns to recover from its own mistakes.

Signal level tau is 0 for noise and 1 for clean; `noisy = (1 - tau) noise + tau clean`; the network
predicts clean. At the finest step size the target is the truth. At a larger one, d, it is where two
steps of d/2 of the network itself lead, in x-space: `b1 = (f(noisy, tau, d/2) - noisy) / (1 -
tau)`, `halfway = noisy + b1 d/2`, `b2` likewise from `tau + d/2`, and the target is `noisy + (1 -
tau) (b1 + b2) / 2`.
"""

from __future__ import annotations

import math
import shutil
import sysconfig
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from reverie.core import ActionSpace
from reverie.data.render import Rendered
from reverie.data.segments import Segments
from reverie.model.adapters.shortcut import ShortcutModel
from reverie.model.autoencoder import Autoencoder, normalise
from reverie.model.denoiser import Denoiser, DenoiserConfig
from reverie.model.sampler import Sampler
from reverie.train import parallel
from reverie.train.autoencoder import decode_frames, encode_all
from reverie.train.run import Run, RunConfig, load_checkpoint, load_weights, pick_device
from reverie.train.sheets import psnr, write_sheet


@dataclass(frozen=True)
class ForcingConfig:
    """shortcut_share: of the sequences that learn larger steps; their target is the truth until
    shortcuts_from (share of the run), then the network's own half steps. own_share: of the
    sequences whose context ends in an own rollout, from own_from on. context_signal: the level past
    frames are fed at in play; training draws it from least_context_signal to 1, mostly high.
    noise_scale: of the noise that play begins a frame with, and rollouts too.
    """

    shortcut_share: float = 0.25
    shortcuts_from: float = 0.5
    own_share: float = 0.5
    own_from: float = 0.35
    context_signal: float = 0.9
    least_context_signal: float = 0.5
    noise_scale: float = 1.2


class Objective(Protocol):
    """What a run makes a network learn: the first of those that it needs."""

    networks: tuple[Denoiser, ...]
    config: ForcingConfig

    def loss(
        self,
        latents: Float[Tensor, "b t n c"],
        actions: Float[Tensor, "b t a"],
        progress: float,
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """Of segments of one frame more than are predicted; progress: share of the run that is
        done.
        """
        ...


def train_denoiser(
    folder: Path,
    objective: Objective,
    run_config: RunConfig,
    autoencoder: Autoencoder,
    train: Rendered,
    validation: Rendered,
    space: ActionSpace,
) -> Run:
    """Train the objective's network, new or trained before, in `folder`; goes on from the
    checkpoint there.
    """
    device = pick_device(run_config.threads)
    torch.manual_seed(run_config.seed)
    for needed in objective.networks:
        needed.to(device)
    network = objective.networks[0]
    config = network.config
    run = Run(folder, run_config, network, make_optimizers(network), {"denoiser": asdict(config)})
    if run_config.compile and _can_compile():
        for needed in objective.networks:
            needed.compile_blocks()
    with parallel.first_alone():
        segments = latent_segments(folder, "train", autoencoder, train, space, config.context + 1)
        held_out = latent_segments(
            folder, "validation", autoencoder, validation, space, config.context + 65
        )

    def train_step(step: int) -> Tensor:
        batch = segments.draw(run_config.batch_size, run_config.seed, step)
        share = parallel.share_of(run_config.batch_size)
        latents = torch.from_numpy(batch["latents"][share]).to(device).float()
        actions = torch.from_numpy(batch["actions"][share]).to(device)
        drawn = (run_config.seed * 2**32 + step) * parallel.num_processes() + parallel.rank()
        generator = torch.Generator(device).manual_seed(drawn)
        with torch.autocast(device.type, torch.bfloat16):
            return objective.loss(latents, actions, step / run_config.steps, generator)

    def inspect(step: int) -> dict[str, float]:
        batch = held_out.gather(np.linspace(0, len(held_out) - 1, 4).astype(int))
        sheet = folder / "sheets" / f"{step:06}.jpg"
        return inspect_rollout(network, autoencoder, batch, objective.config, sheet)

    run.train(train_step, inspect)
    return run


def _can_compile() -> bool:
    """PyTorch compiles C++ against Python's headers (CPU) or Triton's launcher in C (CUDA)."""
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return shutil.which("g++") is not None and headers.exists()


def latent_segments(
    folder: Path,
    split: str,
    autoencoder: Autoencoder,
    rendered: Rendered,
    space: ActionSpace,
    length: int,
) -> Segments:
    """Segments of latents and of what the network is told with each, [told_width]; latents are
    encoded once and kept in the run's folder.
    """
    latents = encode_all(autoencoder, rendered, folder, split)
    pitches = rendered.pitches(space)
    told = [space.tell(*pair) for pair in zip(rendered.actions, pitches, strict=True)]
    return Segments({"latents": latents, "actions": np.stack(told)}, rendered.boundaries, length)


def make_optimizers(network: Denoiser) -> list[torch.optim.Optimizer]:
    """Muon (orthogonalised momentum) for the matrices of the blocks, AdamW for everything else."""
    matrices = [p for p in network.blocks.parameters() if p.ndim == 2 and min(p.shape) > 6]
    chosen = {id(p) for p in matrices}
    others = [p for p in network.parameters() if id(p) not in chosen]
    return [
        # Matched to AdamW's step, Muon wants a larger rate than AdamW itself (docs/log.md).
        torch.optim.Muon(
            [{"params": matrices, "rate_scale": 2.5}],  # pyright: ignore[reportArgumentType]
            weight_decay=0.01,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0),
    ]


class Forcing:
    """The training objective: draws levels, step sizes and context, and returns the loss of one
    batch.
    """

    def __init__(self, network: Denoiser, config: ForcingConfig) -> None:
        self.network = network
        self.networks = (network,)
        self.config = config
        self.finest = network.config.min_step_size

    def loss(
        self,
        latents: Float[Tensor, "b t n c"],
        actions: Float[Tensor, "b t a"],
        progress: float,
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """latents, actions: segments of one frame more than are predicted; progress: share of the
        run that is done.
        """
        config = self.config
        past, clean = latents[:, :-1], latents[:, 1:]
        acted = (actions[:, :-1], actions[:, 1:])
        batch_size, num_frames = clean.shape[:2]
        noise = torch.randn(clean.shape, generator=generator, device=clean.device)
        if progress >= config.own_from:
            past = self.with_rollouts(past, acted[0], generator)
        drawn = torch.rand(batch_size, num_frames, generator=generator, device=clean.device)
        context_signal = 1 - (1 - config.least_context_signal) * drawn.square()
        context_noise = torch.randn(past.shape, generator=generator, device=past.device)
        context = mix(past, context_noise, context_signal)

        num_shortcuts = math.ceil(batch_size * config.shortcut_share)
        signal, step_size = self.draw_levels(
            batch_size, num_shortcuts, num_frames, generator, clean.device
        )
        noisy = mix(clean, noise, signal)
        target = clean
        if num_shortcuts and progress >= config.shortcuts_from:
            part = slice(0, num_shortcuts)
            given = (context[part], context_signal[part], acted[0][part])
            shortcut = self._shortcut_target(
                given, noisy[part], signal[part], step_size[part], acted[1][part]
            )
            target = torch.cat([shortcut, clean[num_shortcuts:]])
        guess = self.network(context, context_signal, acted[0], noisy, signal, step_size, acted[1])
        return (guess.float() - target).square().mean()

    def draw_levels(
        self,
        batch_size: int,
        num_shortcuts: int,
        num_frames: int,
        generator: torch.Generator,
        device: torch.device,
    ) -> tuple[Float[Tensor, "b t"], Float[Tensor, "b t"]]:
        """Signal levels and step sizes: shortcut sequences first, on the grid that their step size
        reaches.
        """
        shape = (batch_size, num_frames)
        drawn = torch.rand(shape, generator=generator, device=device)
        # Pure noise is where every frame begins and where the past and the action decide alone: one
        # in four.
        signal = torch.where(drawn < 0.25, 0.0, (drawn - 0.25) / 0.75 * (1 - self.finest / 2))
        step_size = torch.full(shape, self.finest, device=device)
        sizes = 2.0 ** -torch.arange(0, round(-np.log2(self.finest)), device=device)
        # The largest step, one pass from noise to frame, is what slow machines play: half of them.
        picked = torch.multinomial(
            sizes.expand(batch_size, -1), num_frames, replacement=True, generator=generator
        )
        step_size[:num_shortcuts] = sizes[picked][:num_shortcuts]
        reached = (drawn[:num_shortcuts] / step_size[:num_shortcuts]).floor() * step_size[
            :num_shortcuts
        ]
        signal[:num_shortcuts] = reached
        return signal, step_size

    @torch.no_grad()
    def _shortcut_target(
        self,
        given: tuple[Tensor, Tensor, Tensor],
        noisy: Float[Tensor, "b t n c"],
        signal: Float[Tensor, "b t"],
        step_size: Float[Tensor, "b t"],
        action: Float[Tensor, "b t a"],
    ) -> Float[Tensor, "b t n c"]:
        half = step_size / 2

        def direction(at: Tensor, level: Tensor) -> Tensor:
            clean = self.network(*given, at, level, half, action).float()
            return (clean - at) / (1 - level)[..., None, None]

        first = direction(noisy, signal)
        second = direction(noisy + first * half[..., None, None], signal + half)
        return noisy + (1 - signal)[..., None, None] * (first + second) / 2

    @torch.no_grad()
    def with_rollouts(
        self, past: Tensor, actions: Tensor, generator: torch.Generator
    ) -> Float[Tensor, "b t n c"]:
        """Some sequences with their end replaced by what the network itself plays on from there:
        one pass a frame, by the true actions. actions[:, t] led into past[:, t].
        """
        count, num_frames = math.ceil(len(past) * self.config.own_share), past.shape[1]
        if not count or num_frames < 2:
            return past
        # Spread over the batch, which begins with the sequences that learn larger steps: those are
        # the ones play uses, so they above all must know the network's own frames.
        own = torch.linspace(0, len(past) - 1, count, device=past.device).round().long()
        # Not for long: where the network's frames show another place, their truth teaches it to
        # forget what it saw.
        begin = max(1, num_frames // 2)
        first = torch.randint(begin, num_frames, (count,), generator=generator, device=past.device)
        truth, sessions = past[own], range(count)
        sampler = Sampler(ShortcutModel(self.network, self.config.context_signal), count)
        frames: list[Tensor] = []
        for index in range(num_frames):
            frame, indices = truth[:, index], [index] * count
            noise = torch.randn((2, *frame.shape), generator=generator, device=past.device)
            acted = actions[own, index]
            if index >= begin:
                start = noise[0] * self.config.noise_scale
                guess = sampler.sample(sessions, start, acted, indices, 1)
                played = (index >= first)[:, None, None]
                frame = torch.where(played, normalise(guess.float()), frame)
            frames.append(frame)
            sampler.commit(sessions, frame, noise[1], acted, indices)
        replaced = past.clone()
        replaced[own] = torch.stack(frames, 1)
        return replaced


def mix(clean: Tensor, noise: Tensor, signal: Float[Tensor, "b t"]) -> Tensor:
    """Frames at a signal level: noise at 0, clean at 1."""
    level = signal[..., None, None]
    return level * clean + (1 - level) * noise


def load_denoiser(folder: Path) -> Denoiser:
    """The averaged network of a run, ready for use. Raises ReverieError where there is none."""
    state = load_checkpoint(folder)
    network = Denoiser(DenoiserConfig(**state["settings"]["denoiser"]))
    load_weights(network, state["average"], folder)
    return network.eval().requires_grad_(False)


@torch.no_grad()
def inspect_rollout(
    network: Denoiser,
    autoencoder: Autoencoder,
    batch: dict[str, np.ndarray],
    forcing: ForcingConfig,
    sheet: Path,
) -> dict[str, float]:
    """Play held-out segments on by their true actions, one pass a frame; a sheet of truth above
    generated, and figures.
    """
    device = network.place.device
    context = network.config.context
    latents = torch.from_numpy(batch["latents"]).to(device).float()
    actions = torch.from_numpy(batch["actions"]).to(device)
    sessions = list(range(len(latents)))
    generator = torch.Generator(device).manual_seed(0)
    sampler = Sampler(ShortcutModel(network, forcing.context_signal), len(latents))
    generated = []
    for index in range(latents.shape[1]):
        noise = torch.randn(latents[:, 0].shape, generator=generator, device=device)
        indices = [index] * len(sessions)
        current = latents[:, index]
        if index >= context:
            start = noise * forcing.noise_scale
            current = sampler.sample(sessions, start, actions[:, index], indices, 1)
            generated.append(current)
        noise = torch.randn(latents[:, 0].shape, generator=generator, device=device)
        sampler.commit(sessions, current, noise, actions[:, index], indices)
    shown = [0, 3, 7, 15, 23, 31, 47, 63]
    rows, next_truth, next_guess = [], [], []
    for b in sessions:
        truth = decode_frames(autoencoder, latents[b, context:])
        guess = decode_frames(autoencoder, torch.stack([frame[b] for frame in generated]))
        rows += [truth[shown], guess[shown]]
        next_truth.append(truth[:1])
        next_guess.append(guess[:1])
    write_sheet(sheet, rows)
    truth = latents[:, context:]
    error = (torch.stack(generated, 1) - truth).square().mean((0, 2, 3))
    return {
        "next_frame_psnr": psnr(np.concatenate(next_truth), np.concatenate(next_guess)),
        "latent_error_1": error[0].item(),
        "latent_error_8": error[7].item(),
        "latent_error_64": error[63].item(),
    }
