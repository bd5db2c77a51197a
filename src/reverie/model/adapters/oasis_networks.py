"""The two networks of the Oasis-500M format, under the names of its checkpoints: a denoiser of
spatial and temporal attention in turns (DiT), and an autoencoder of vision transformers.

Written from the format's shapes and definitions: https://github.com/etched-ai/open-oasis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from reverie.model.denoiser import attend_to_past

SINUSOIDS = 256
LONGEST_PERIOD = 1e4
LATENT_SCALE = 0.07843137255


@dataclass(frozen=True)
class OasisShape:
    """Sizes that a checkpoint's tensors have. grid: latent cells, rows and columns."""

    grid: tuple[int, int]
    width: int = 1024
    depth: int = 16
    head_width: int = 64
    channels: int = 16
    patch: int = 2
    action_width: int = 25

    @property
    def num_heads(self) -> int:
        return self.width // self.head_width

    @property
    def tokens(self) -> tuple[int, int]:
        return self.grid[0] // self.patch, self.grid[1] // self.patch


def rotate(x: Float[Tensor, "*b d"], angles: Float[Tensor, "*b r"]) -> Float[Tensor, "*b d"]:
    """Turn neighbouring pairs of the first 2r numbers by angles; the others stay."""
    pairs = x[..., : 2 * angles.shape[-1]].unflatten(-1, (-1, 2))
    first, second = pairs.unbind(-1)
    cos, sin = angles.cos(), angles.sin()
    turned = torch.stack([first * cos - second * sin, second * cos + first * sin], -1)
    return torch.cat([turned.flatten(-2), x[..., 2 * angles.shape[-1] :]], -1)


def grid_angles(frequencies: Float[Tensor, " f"], sides: Sequence[int]) -> Float[Tensor, "n r"]:
    """Of every cell of a grid, row by row: its row's angles, then its column's; places run from -1
    to 1 along each side.
    """
    rows, columns = (
        torch.linspace(-1, 1, side, device=frequencies.device)[:, None] * frequencies
        for side in sides
    )
    both = (
        rows[:, None].expand(-1, sides[1], -1),
        columns[None].expand(sides[0], -1, -1),
    )
    return torch.cat(both, -1).flatten(0, 1)


def _split_heads(x: Float[Tensor, "*b n d"], num_heads: int) -> Float[Tensor, "*b h n w"]:
    return x.unflatten(-1, (num_heads, -1)).transpose(-3, -2)


def _join_heads(x: Float[Tensor, "*b h n w"]) -> Float[Tensor, "*b n d"]:
    return x.transpose(-3, -2).flatten(-2)


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)


class _Frequencies(nn.Module):
    """Rotary frequencies, kept in the checkpoint."""

    def __init__(self, frequencies: Tensor) -> None:
        super().__init__()
        self.freqs = nn.Parameter(frequencies, requires_grad=False)


class _Attention(nn.Module):
    def __init__(self, shape: OasisShape, frequencies: _Frequencies) -> None:
        super().__init__()
        self.num_heads = shape.num_heads
        self.to_qkv = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.to_out = nn.Linear(shape.width, shape.width)
        self.rotary_emb = frequencies

    def heads(self, x: Float[Tensor, "*b n d"]) -> list[Float[Tensor, "*b h n w"]]:
        """Queries, keys and values."""
        return [_split_heads(part, self.num_heads) for part in self.to_qkv(x).chunk(3, -1)]


class _MLP(nn.Module):
    def __init__(self, width: int, approximate: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate=self.approximate))


class _Block(nn.Module):
    """Attention within a frame, then of each of its cells to the same cell before."""

    def __init__(self, shape: OasisShape, space: _Frequencies, time: _Frequencies) -> None:
        super().__init__()
        for kind, frequencies in (("s", space), ("t", time)):
            self.add_module(f"{kind}_attn", _Attention(shape, frequencies))
            self.add_module(f"{kind}_mlp", _MLP(shape.width, "tanh"))
            modulation = nn.Sequential(nn.SiLU(), nn.Linear(shape.width, 6 * shape.width))
            self.add_module(f"{kind}_adaLN_modulation", modulation)

    def part(self, kind: str) -> tuple[_Attention, _MLP, nn.Module]:
        names = (f"{kind}_attn", f"{kind}_mlp", f"{kind}_adaLN_modulation")
        return cast("tuple[_Attention, _MLP, nn.Module]", tuple(map(self.get_submodule, names)))


class _Embedder(nn.Module):
    """x_embedder: patches to tokens."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, patch)

    def forward(self, pictures: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        return self.proj(pictures).flatten(2).transpose(1, 2)


class _TimeEmbedder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(SINUSOIDS, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, label: Float[Tensor, " b"]) -> Float[Tensor, "b d"]:
        half = SINUSOIDS // 2
        exponents = torch.arange(half, device=label.device) / half
        angles = label[:, None] * torch.exp(-math.log(LONGEST_PERIOD) * exponents)
        return self.mlp(torch.cat([angles.cos(), angles.sin()], -1))


class _FinalLayer(nn.Module):
    def __init__(self, shape: OasisShape) -> None:
        super().__init__()
        self.linear = nn.Linear(shape.width, shape.patch**2 * shape.channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(shape.width, 2 * shape.width))


class OasisDenoiser(nn.Module):
    """v-prediction of one frame per session, or of whole windows: t frames whose attention in time
    is causal and may go on from a past.
    """

    def __init__(self, shape: OasisShape) -> None:
        super().__init__()
        self.shape = shape
        steps = torch.arange(0, shape.head_width, 2) / shape.head_width
        space = _Frequencies(torch.linspace(1, 128, shape.head_width // 4) * math.pi)
        time = _Frequencies(1 / 1e4**steps)
        self.x_embedder = _Embedder(shape.channels, shape.width, shape.patch)
        self.t_embedder = _TimeEmbedder(shape.width)
        self.external_cond = nn.Linear(shape.action_width, shape.width)
        self.blocks = nn.ModuleList(_Block(shape, space, time) for _ in range(shape.depth))
        self.final_layer = _FinalLayer(shape)

    def forward(
        self,
        latents: Float[Tensor, "b t c h w"],
        label: Float[Tensor, "b t"],
        action: Float[Tensor, "b t a"],
        frame_indices: Float[Tensor, "b t"],
        past: Sequence[tuple[Tensor, Tensor]] = (),
    ) -> tuple[Float[Tensor, "b t c h w"], list[tuple[Tensor, Tensor]]]:
        """v, and every layer's keys and values in time, [b, heads * n, t, head width] each. past:
        of earlier frames, as they came from here. frame_indices: only their differences matter.
        """
        return self.modulated(latents, self.modulations(label, action), frame_indices, past)

    def modulations(
        self, label: Float[Tensor, "b t"], action: Float[Tensor, "b t a"]
    ) -> list[Float[Tensor, "b t m"]]:
        """What noise levels and actions do to every half of a block and to the last layer: two
        fifths of the weights, and no latents in it.
        """
        condition = self.t_embedder(label.flatten()).unflatten(0, label.shape)
        condition = condition + self.external_cond(action)
        halves = [block.part(kind)[2] for block in self._layers() for kind in "st"]
        return [half(condition) for half in (*halves, self.final_layer.adaLN_modulation)]

    def modulated(
        self,
        latents: Float[Tensor, "b t c h w"],
        modulations: Sequence[Float[Tensor, "b t m"]],
        frame_indices: Float[Tensor, "b t"],
        past: Sequence[tuple[Tensor, Tensor]] = (),
    ) -> tuple[Float[Tensor, "b t c h w"], list[tuple[Tensor, Tensor]]]:
        """`forward` from what noise levels and actions do."""
        shape, (b, t) = self.shape, latents.shape[:2]
        x = self.x_embedder(latents.flatten(0, 1)).unflatten(0, (b, t))
        blocks = self._layers()
        space, time = (blocks[0].part(kind)[0].rotary_emb.freqs for kind in "st")
        in_space = grid_angles(space, shape.tokens)
        in_time = frame_indices.double()[:, :, None, None, None] * time.double()
        in_time = (in_time % math.tau).float()
        left: list[tuple[Tensor, Tensor]] = []
        for layer, block in enumerate(blocks):
            within = partial(_attend_within, angles=in_space)
            x, _ = _half(block.part("s"), x, modulations[2 * layer], within)
            before = partial(_attend_before, angles=in_time, past=past[layer] if past else None)
            x, kept = _half(block.part("t"), x, modulations[2 * layer + 1], before)
            left.append(kept)
        shift, scale = modulations[-1][:, :, None].chunk(2, -1)
        patches = self.final_layer.linear(_modulated(x, shift, scale))
        cells = patches.unflatten(-1, (shape.patch, shape.patch, -1)).unflatten(2, shape.tokens)
        # From [b, t, row, column, down, right, channel].
        return cells.permute(0, 1, 6, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4), left

    def _layers(self) -> list[_Block]:
        return cast("list[_Block]", list(self.blocks))


def _half(
    parts: tuple[_Attention, _MLP, nn.Module],
    x: Float[Tensor, "b t n d"],
    modulation: Float[Tensor, "b t m"],
    attend: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, tuple[Tensor, Tensor]]],
) -> tuple[Float[Tensor, "b t n d"], tuple[Tensor, Tensor]]:
    """Half a block: attention, then an MLP; and the keys and values that attention kept."""
    attention, mlp, _ = parts
    shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation[:, :, None].chunk(6, -1)
    heads, kept = attend(*attention.heads(_modulated(x, shift, scale)))
    x = torch.addcmul(x, gate, attention.to_out(_join_heads(heads)))
    return torch.addcmul(x, mlp_gate, mlp(_modulated(x, mlp_shift, mlp_scale))), kept


def _attend_within(
    q: Tensor, k: Tensor, v: Tensor, angles: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Of a frame's tokens to each other. q, k, v: [b, t, heads, n, w]; angles: [n, w / 2]."""
    q, k = rotate(q, angles), rotate(k, angles)
    return F.scaled_dot_product_attention(q, k, v), (k, v)


def _attend_before(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    angles: Tensor,
    past: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Of each token to the same place in this frame and those before. q, k, v: [b, t, heads, n, w];
    angles: [b, t, 1, 1, w / 2]. Keeps keys and values as [b, heads * n, t, w].
    """
    (num_frames, num_heads), q, k = q.shape[1:3], rotate(q, angles), rotate(k, angles)
    # Places beside heads, frames as the sequence: what is remembered is read where it lies.
    q, k, v = (part.permute(0, 2, 3, 1, 4).flatten(1, 2) for part in (q, k, v))
    if past is not None and num_frames == 1:
        heads = attend_to_past(q, k, v, *past)
    else:
        seen = [k, v] if past is None else [torch.cat(p, 2) for p in zip(past, (k, v), strict=True)]
        mask = torch.ones(num_frames, seen[0].shape[2], dtype=torch.bool, device=q.device)
        mask = mask.tril(mask.shape[1] - num_frames)
        heads = F.scaled_dot_product_attention(q, *seen, attn_mask=mask)
    return heads.unflatten(1, (num_heads, -1)).permute(0, 3, 1, 2, 4), (k, v)


class _PictureAttention(nn.Module):
    def __init__(self, width: int, num_heads: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        highest = grid[0] * grid[1] / 2
        frequencies = torch.linspace(1, highest, width // num_heads // 8) * math.pi
        self.register_buffer("angles", grid_angles(frequencies, grid), persistent=False)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        q, k, v = (_split_heads(part, self.num_heads) for part in self.qkv(x).chunk(3, -1))
        angles = cast("Tensor", self.angles)
        heads = F.scaled_dot_product_attention(rotate(q, angles), rotate(k, angles), v)
        return self.proj(_join_heads(heads))


class _PictureBlock(nn.Module):
    def __init__(self, width: int, num_heads: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = _PictureAttention(width, num_heads, grid)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = _MLP(width, "none")

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class OasisAutoencoder(nn.Module):
    """Pictures to latents [c, rows, columns] and back; depth: blocks of encoder and decoder."""

    def __init__(
        self,
        grid: tuple[int, int],
        width: int = 1024,
        depth: tuple[int, int] = (6, 12),
        num_heads: int = 16,
        channels: int = 16,
        patch: int = 20,
    ) -> None:
        super().__init__()
        self.grid, self.patch = grid, patch
        self.patch_embed = _Embedder(3, width, patch)
        self.encoder, self.decoder = (
            nn.ModuleList(_PictureBlock(width, num_heads, grid) for _ in range(count))
            for count in depth
        )
        self.enc_norm = nn.LayerNorm(width, eps=1e-6)
        self.quant_conv = nn.Linear(width, 2 * channels)
        self.post_quant_conv = nn.Linear(channels, width)
        self.dec_norm = nn.LayerNorm(width, eps=1e-6)
        self.predictor = nn.Linear(width, 3 * patch**2)

    def encode(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c rows columns"]:
        """pixels: 0..1."""
        x = self.patch_embed(pixels * 2 - 1)
        for block in self.encoder:
            x = block(x)
        mean, _ = self.quant_conv(self.enc_norm(x)).chunk(2, -1)
        return (mean * LATENT_SCALE).transpose(1, 2).unflatten(2, self.grid)

    def decode(self, latents: Float[Tensor, "b c rows columns"]) -> Float[Tensor, "b 3 h w"]:
        """The opposite; not clipped."""
        x = self.post_quant_conv(latents.flatten(2).transpose(1, 2) / LATENT_SCALE)
        for block in self.decoder:
            x = block(x)
        patches = self.predictor(self.dec_norm(x)).unflatten(-1, (3, self.patch, self.patch))
        cells = patches.unflatten(1, self.grid)  # [b, row, column, channel, down, right]
        return cells.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3) / 2 + 0.5
