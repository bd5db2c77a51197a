"""Our own denoiser: shortcut forcing, and a camera whose turns move its tokens' places."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from reverie.model.autoencoder import normalise
from reverie.model.denoiser import Denoiser, PlayPass
from reverie.model.sampler import Past


class ShortcutModel:
    """See `CausalModel`. signal: level at which past frames are fed back. A session's state is how
    many columns of tokens its camera has turned right.
    """

    state_width = 1

    def __init__(self, denoiser: Denoiser, signal: float) -> None:
        config = denoiser.config
        self.denoiser, self.signal = denoiser, signal
        self.context = config.context
        self.latent_shape = (config.num_tokens, config.channels)
        shape = (config.num_heads, config.num_tokens, config.head_width)
        self._layers = range(len(config.cached_layers))
        self.entries: Mapping[str, tuple[int, ...]] = {
            f"{kind}.{layer}": shape for kind in "kv" for layer in self._layers
        }

    @property
    def device(self) -> torch.device:
        return self.denoiser.place.device

    def draw(self, noise: Tensor, told: Tensor, past: Past, num_steps: int) -> Tensor:
        """By Euler steps from noise (signal level 0) to 1 along the predicted path."""
        noisy = noise
        for k in range(num_steps):
            signal, step_size = k / num_steps, 1 / num_steps
            clean, _, _ = self.denoiser.step(self._given(noisy, signal, step_size, told, past))
            noisy = noisy + (clean - noisy) * (step_size / (1 - signal))
        return noisy

    def remember(
        self, latents: Tensor, noise: Tensor, told: Tensor, past: Past
    ) -> Mapping[str, Tensor]:
        """The keys and values of one pass over the latents at the signal level of past frames."""
        noisy = self.signal * normalise(latents) + (1 - self.signal) * noise
        finest = self.denoiser.config.min_step_size
        k, v = self.denoiser.remember(self._given(noisy, self.signal, finest, told, past))
        return {f"{kind}.{i}": kept[i] for kind, kept in (("k", k), ("v", v)) for i in self._layers}

    def advance(self, state: Tensor, told: Tensor) -> Tensor:
        """By the turn to the right."""
        return state + self.denoiser.camera(told)[1][:, None]

    def _given(
        self, noisy: Tensor, signal: float, step_size: float, told: Tensor, past: Past
    ) -> PlayPass:
        level = torch.full((len(noisy),), signal, device=noisy.device)
        rows, turns = self.denoiser.camera(told)
        columns = past.state[:, 0] + turns
        phase_cos, phase_sin = frame_phases(self.denoiser, rows, columns, past.frame_indices)
        k, v = ([past.entries[f"{kind}.{i}"] for i in self._layers] for kind in "kv")
        size = torch.full_like(level, step_size)
        return PlayPass(noisy, level, size, told, phase_cos, phase_sin, k, v)


def frame_phases(
    denoiser: Denoiser,
    rows: Float[Tensor, " b"],
    columns: Float[Tensor, " b"],
    frame_indices: Float[Tensor, " b"],
) -> tuple[Float[Tensor, "b p"], Float[Tensor, "b p"]]:
    """Cosines and sines of the rotary phases of frames, from the row and column that the camera
    looks at and absolute frame indices.
    """
    places = torch.stack([rows.double(), columns.double(), frame_indices.double()], 1)
    with torch.autocast(rows.device.type, enabled=False):
        angles = places @ denoiser.frequencies.double()
    return angles.cos().float(), angles.sin().float()
