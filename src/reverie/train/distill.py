"""Distill a trained Denoiser into one whose few steps are guided: what several passes of the old
network would say, the new one says in one.

A network trained on squared error draws the mean of what may happen next, which moves less and is
blurrier than any of it, and play feeds that back. Guidance (classifier-free, arXiv 2207.12598; by
history, arXiv 2502.06764) draws further along what a condition changes:

    guided = f(action, past) + keys (f(action, past) - f(action without keys, past))
                             + past (f(action, past) - f(action, a vaguer past))

The teacher f stands still; the student learns `guided` at the step sizes of play, from the noise
and the past of play, part of which it has played itself.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from reverie.model.denoiser import Denoiser
from reverie.train.denoiser import Forcing, ForcingConfig, mix


@dataclass(frozen=True)
class GuidanceConfig:
    """keys, past: how much of what they change is added. vague_signal: the level of a past that is
    hardly seen.
    """

    keys: float = 1.0
    past: float = 0.3
    vague_signal: float = 0.5


class Distillation:
    """The objective: where one step of the guided teacher leads. num_keys: the first numbers of an
    action.
    """

    def __init__(
        self, teacher: Denoiser, guidance: GuidanceConfig, config: ForcingConfig, num_keys: int
    ) -> None:
        self.teacher = teacher.requires_grad_(False)
        self.network = copy.deepcopy(teacher).requires_grad_(True)
        self.networks = (self.network, self.teacher)
        self.guidance = guidance
        self.config = config
        self.num_keys = num_keys
        self._forcing = Forcing(self.network, config)

    def loss(
        self,
        latents: Float[Tensor, "b t n c"],
        actions: Float[Tensor, "b t a"],
        progress: float,
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """See `Objective`. Past frames and noise are exactly those of play."""
        del progress
        clean, action = latents[:, 1:], actions[:, 1:]
        past = self._forcing.with_rollouts(latents[:, :-1], actions[:, :-1], generator)
        drawn = torch.randn((2, *clean.shape), generator=generator, device=clean.device)
        shape = clean.shape[:2]
        signal, step_size = self._forcing.draw_levels(
            shape[0], shape[0], shape[1], generator, clean.device
        )
        noisy = mix(clean, self.config.noise_scale * drawn[0], signal)

        def given(level: float) -> tuple[Tensor, Tensor, Tensor]:
            levels = torch.full(shape, level, device=clean.device)
            return mix(past, drawn[1], levels), levels, actions[:, :-1]

        seen, asked = given(self.config.context_signal), (noisy, signal, step_size)
        with torch.no_grad():
            target = self.teacher(*seen, *asked, action).float()
            idle = action.clone()
            idle[..., : self.num_keys] = 0
            without_keys = self.teacher(*seen, *asked, idle).float()
            vague = self.teacher(*given(self.guidance.vague_signal), *asked, action).float()
            target = (
                target
                + self.guidance.keys * (target - without_keys)
                + self.guidance.past * (target - vague)
            )
        return (self.network(*seen, *asked, action).float() - target).square().mean()
