"""Worlds in the format of Oasis-500M: two checkpoints, read as they are published, safetensors or
.pt, and played with a cache where the reference computes its whole window at every pass.

A frame's keys and values are those of one pass over its latents under the noise label of context.
While the window fills, frames are those of the reference. Beyond it, a ring keeps what frames knew
of others that have left the window since; `exact_window` computes them anew when it slides, in one
pass over the window per frame, and is the reference again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from reverie.core import ReverieError
from reverie.formats import OASIS_ACTIONS, OASIS_CAMERA_COLUMN
from reverie.model.adapters.oasis_networks import OasisAutoencoder, OasisDenoiser, OasisShape
from reverie.model.sampler import Past

WINDOW = 32
"""Frames of the reference's window: a new one, and as many before as are remembered."""
MAX_LABEL = 1000
HEAD_WIDTH = 64
CONTEXT_LABEL = 14
LARGEST_NOISE = 20.0
ALIAS = re.compile(r"(?:blocks\.\d+\.([st])_attn\.rotary_emb|(spatial|temporal)_rotary_emb)\.freqs")
"""Names under which a checkpoint may keep the rotary frequencies, up to 34 for the same two."""
_YAW, _PITCH = range(*OASIS_ACTIONS.camera_columns.indices(OASIS_ACTIONS.width))
COLUMNS = (
    *range(OASIS_CAMERA_COLUMN),
    _PITCH,
    _YAW,
    *range(OASIS_CAMERA_COLUMN, len(OASIS_ACTIONS.keys)),
)
"""Where the checkpoint's 25 action columns are in what a network is told (`ActionSpace.tell`)."""


class OasisModel:
    """See `CausalModel`. window: frames of the reference's, 32 in the published weights.
    exact_window: see the module's docstring.
    """

    state_width = 0

    def __init__(
        self, denoiser: OasisDenoiser, window: int = WINDOW, exact_window: bool = False
    ) -> None:
        shape = denoiser.shape
        self.denoiser, self.exact_window = denoiser, exact_window
        self.context = window - 1
        self.latent_shape = (shape.channels, *shape.grid)
        self._layers = range(shape.depth)
        self.entries: Mapping[str, tuple[int, ...]]
        if exact_window:
            cells = (shape.grid[0] * shape.grid[1], shape.channels)
            self.entries = {"latents": cells, "told": (1, OASIS_ACTIONS.told_width)}
        else:
            tokens = shape.tokens[0] * shape.tokens[1]
            kept = (shape.num_heads * tokens, 1, shape.head_width)
            self.entries = {f"{kind}.{i}": kept for i in self._layers for kind in "kv"}
        self._alphas = _alphas().to(self.device)
        self._columns = torch.tensor(COLUMNS, device=self.device)

    @property
    def device(self) -> torch.device:
        return self.denoiser.external_cond.weight.device

    def draw(self, noise: Tensor, told: Tensor, past: Past, num_steps: int) -> Tensor:
        """By DDIM steps along the levels of the reference."""
        levels = noise_levels(num_steps)
        noisy = noise.clamp(-LARGEST_NOISE, LARGEST_NOISE)
        before = self._window(past) if self.exact_window else self._ring(past)
        # All passes at once: of a frame, they differ by latents alone.
        modulations = self._modulations(told, levels[1:])
        for k in range(num_steps, 0, -1):
            one = [part[:, k - 1 : k] for part in modulations]
            v, _ = self._pass(noisy, one, past, before)
            noisy = self.less_noisy(noisy, v, levels[k], levels[k - 1])
        return noisy

    def remember(
        self, latents: Tensor, noise: Tensor, told: Tensor, past: Past
    ) -> Mapping[str, Tensor]:
        """What one pass over the clean latents leaves behind; the noise is not used."""
        if self.exact_window:
            return {"latents": latents.flatten(2).transpose(1, 2), "told": told[:, None]}
        modulations = self._modulations(told, [CONTEXT_LABEL])
        _, left = self._pass(latents, modulations, past, self._ring(past))
        return {
            f"{kind}.{i}": kept
            for i in self._layers
            for kind, kept in zip("kv", left[i], strict=True)
        }

    def advance(self, state: Tensor, told: Tensor) -> Tensor:
        return state

    def less_noisy(self, noisy: Tensor, v: Tensor, level: int, next_level: int) -> Tensor:
        """A DDIM step from one noise level to the next; below 0 all noise is gone."""
        alpha = self._alphas[level]
        clean = alpha.sqrt() * noisy - (1 - alpha).sqrt() * v
        if next_level < 0:
            return clean
        noise = (noisy / alpha.sqrt() - clean) / (1 / alpha - 1).sqrt()
        after = self._alphas[next_level]
        return after.sqrt() * clean + (1 - after).sqrt() * noise

    def _modulations(self, told: Tensor, labels: Sequence[int]) -> list[Tensor]:
        """Of a frame's passes at these noise levels, [b, len(labels), m] each."""
        levels = [told.new_full((len(told), 1), label) for label in labels]
        action = told[:, None, self._columns].expand(-1, len(labels), -1)
        return self.denoiser.modulations(torch.cat(levels, 1), action)

    def _pass(
        self,
        latents: Tensor,
        modulations: Sequence[Tensor],
        past: Past,
        before: list[tuple[Tensor, Tensor]],
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        index = past.frame_indices[:, None]
        v, left = self.denoiser.modulated(latents[:, None], modulations, index, before)
        return v[:, 0], left

    def _ring(self, past: Past) -> list[tuple[Tensor, Tensor]]:
        if not past.num_frames:
            return []
        return [(past.entries[f"k.{i}"], past.entries[f"v.{i}"]) for i in self._layers]

    def _window(self, past: Past) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of one pass over all that is remembered, oldest first."""
        if not past.num_frames:
            return []
        places = torch.arange(past.num_frames, device=self.device)
        newest = past.frame_indices[:, None] - 1
        # The frame at place p is the newest whose index is p on the ring.
        indices = newest - (newest - places) % self.context
        order = indices.argsort(1)
        cells = past.entries["latents"].unflatten(1, (past.num_frames, -1))
        rows = torch.arange(len(order), device=self.device)[:, None]
        latents = cells[rows, order].transpose(2, 3).unflatten(3, self.latent_shape[1:])
        labels = latents.new_full(order.shape, CONTEXT_LABEL)
        action = past.entries["told"][rows, order][..., self._columns]
        _, left = self.denoiser(latents, labels, action, indices.gather(1, order))
        return left


def noise_levels(num_steps: int) -> list[int]:
    """Of DDIM's steps, from none (-1) to the highest; it goes through them backwards."""
    return torch.linspace(-1, MAX_LABEL - 1, num_steps + 1).long().tolist()


def load_oasis(
    denoiser: Path, autoencoder: Path, size: tuple[int, int]
) -> tuple[OasisDenoiser, OasisAutoencoder]:
    """The networks of two checkpoints, for pictures of this size (height, width).

    Raises ReverieError that names the file and its first tensor that is missing, unknown or of
    another shape.
    """
    of_pictures, of_denoiser = _read(autoencoder), _read(denoiser)
    pixels, width = _shape(autoencoder, of_pictures, "predictor.weight", 2)
    _, channels = _shape(autoencoder, of_pictures, "post_quant_conv.weight", 2)
    side = math.isqrt(pixels // 3)
    inner_width, inner_channels, patch, _ = _shape(
        denoiser, of_denoiser, "x_embedder.proj.weight", 4
    )
    for file, name, value in ((autoencoder, "width", width), (denoiser, "width", inner_width)):
        if not value or value % HEAD_WIDTH:
            raise ReverieError(f"{file}: {name} is {value}; expected a multiple of {HEAD_WIDTH}")
    if not side or 3 * side**2 != pixels or not patch or any(s % (side * patch) for s in size):
        raise ReverieError(
            f"{autoencoder} draws patches of {pixels} numbers, {denoiser} joins {patch} x {patch}: "
            f"pictures of {size[1]} x {size[0]} pixels cannot be made of them"
        )
    grid = (size[0] // side, size[1] // side)
    depth = (
        _depth(autoencoder, of_pictures, "encoder"),
        _depth(autoencoder, of_pictures, "decoder"),
    )
    pictures = OasisAutoencoder(grid, width, depth, width // HEAD_WIDTH, channels, side)
    blocks = _depth(denoiser, of_denoiser, "blocks")
    shape = OasisShape(grid, inner_width, blocks, HEAD_WIDTH, inner_channels, patch)
    network = OasisDenoiser(shape)
    _fill(network, _same_names(of_denoiser, blocks), denoiser)
    _fill(pictures, of_pictures, autoencoder)
    return network, pictures


def _read(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever broken bytes may lead to
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ReverieError(
            f"{file} is damaged or cut short ({reason}); download it again"
        ) from None
    named = isinstance(weights, dict) and all(isinstance(name, str) for name in weights)
    if not named or not all(isinstance(weight, Tensor) for weight in weights.values()):
        raise ReverieError(f"{file} holds no weights by name; expected a published checkpoint")
    return weights


def _shape(file: Path, weights: Mapping[str, Tensor], name: str, sides: int) -> tuple[int, ...]:
    if name not in weights:
        raise ReverieError(f"{file} has no {name}; expected a checkpoint of the Oasis format")
    shape = tuple(weights[name].shape)
    if len(shape) != sides:
        raise ReverieError(f"{file}: {name} has shape {list(shape)}; expected {sides} sides")
    return shape


def _depth(file: Path, weights: Mapping[str, Tensor], stack: str) -> int:
    """Layers of a stack, numbered from 0 without a gap."""
    found = (re.match(rf"{stack}\.(\d+)\.", name) for name in weights)
    numbers = sorted({int(match[1]) for match in found if match})
    if not numbers or numbers != list(range(len(numbers))):
        missing = next(i for i in range(len(numbers) + 1) if i not in numbers)
        raise ReverieError(f"{file} has no {stack}.{missing}; expected {stack}.0 and so on")
    return len(numbers)


def _same_names(weights: Mapping[str, Tensor], blocks: int) -> dict[str, Tensor]:
    """With the rotary frequencies under every block's name, whichever of them were kept."""
    named: dict[str, Tensor] = {}
    for name, value in weights.items():
        alias = ALIAS.fullmatch(name)
        if not alias:
            named[name] = value
            continue
        kind = alias[1] or alias[2][0]
        named |= {f"blocks.{i}.{kind}_attn.rotary_emb.freqs": value for i in range(blocks)}
    return named


def _fill(network: nn.Module, weights: Mapping[str, Tensor], file: Path) -> None:
    expected = network.state_dict()
    for name, place in expected.items():
        if name not in weights:
            raise ReverieError(f"{file} has no {name}; expected shape {list(place.shape)}")
        if weights[name].shape != place.shape:
            raise ReverieError(
                f"{file}: {name} has shape {list(weights[name].shape)}; "
                f"expected {list(place.shape)}"
            )
    unknown = sorted(set(weights) - set(expected))
    if unknown:
        raise ReverieError(f"{file}: {unknown[0]} is not of the Oasis format")
    network.load_state_dict({name: weights[name].float() for name in expected})
    network.eval().requires_grad_(False)


def _alphas() -> Tensor:
    """Share of the picture in a frame by noise level, [1000]: sigmoid schedule from -3 to 3."""
    times = torch.linspace(0, 1, MAX_LABEL + 1, dtype=torch.float64)
    first, last = torch.tensor([-3.0, 3.0], dtype=torch.float64).sigmoid()
    left = (last - (6 * times - 3).sigmoid()) / (last - first)
    betas = (1 - left[1:] / left[:-1]).clamp(0, 0.999)
    return (1 - betas.float()).cumprod(0)
