"""Distill a trained Denoiser into one whose few steps are guided.

A network trained on squared error draws the mean of what may happen next, which moves less and is
blurrier than any of it, and play feeds that back: it walked at 0.4 of its speed. Guidance
(classifier-free, arXiv 2207.12598, with a quieter action in place of none) draws further along what
the action changes:

    guided = f(action) + amount (f(action) - f(quieter action))

where the quieter action holds no keys and says only part of the camera's turn, which the positions
in the picture tell too. In play that would be a second pass for every frame. Here the teacher f
stands still, and the student learns `guided` at the step sizes of play, from the noise and the past
of play, part of which it has played itself.
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
    """amount: how much of what the action changes is added. quiet_turn: the share of a turn that a
    quieter action says; saying none draws pictures that no turn leads to.
    """

    amount: float = 1.0
    quiet_turn: float = 0.5


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
        batch_size, num_frames = clean.shape[:2]
        signal, step_size = self._forcing.draw_levels(
            batch_size, batch_size, num_frames, generator, clean.device
        )
        noisy = mix(clean, self.config.noise_scale * drawn[0], signal)
        level = torch.full_like(signal, self.config.context_signal)
        given = (mix(past, drawn[1], level), level, actions[:, :-1], noisy, signal, step_size)
        with torch.no_grad():
            target = self.teacher(*given, action).float()
            quieter = self.teacher(*given, action, self._quieter(action)).float()
            target = target + self.guidance.amount * (target - quieter)
        return (self.network(*given, action).float() - target).square().mean()

    def _quieter(self, action: Float[Tensor, "b t a"]) -> Float[Tensor, "b t a"]:
        quieter = action.clone()
        quieter[..., : self.num_keys] = 0
        camera = self.network.config.camera_column
        if camera is not None:
            quieter[..., camera : camera + 2] *= self.guidance.quiet_turn
        return quieter
