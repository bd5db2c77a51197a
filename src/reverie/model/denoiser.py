"""The Denoiser: a frame-causal transformer that predicts the clean latents of the next frame from
noise, the past and an action.

Layers alternate: most attend inside their own frame; every `cached_every`-th also attends to every
token of the `context` frames before (these alone need a KV cache). RoPE over row, column and time,
QK-norm, SwiGLU, one adaLN shared by all layers. The prediction is x-space.

Rows and columns count from where the camera looks: a frame's origin is its pitch and how far the
session's camera has turned, in tokens. What lies in one direction of the world then has nearly one
position in every frame of the past, however the player turned, and attention finds it there.

Two ways to run the same weights, and the tests hold them together:
- `forward`: training. The past is there twice, as play sees it: *context* frames as they lie in the
cache (lightly noised), and the *noisy* frame after each of them. Noisy frame j sees context frames
<= j and itself, so every frame trains with a committed past. - `step` and `remember`: play. One
frame for a batch of sessions, reading a full ring cache and returning this frame's keys and values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class DenoiserConfig:
    """grid: rows and columns of tokens. channels: of a latent token. action_width: of an encoded
    action. context: frames remembered.

    min_step_size: the finest denoising step it is trained for (a power of two); commits are
    labelled with it. camera_column: of an action, where its turn to the right is; its last column
    is then the camera's pitch. None without a camera. camera_tokens: by how many the picture moves
    for a turn of 1.
    """

    grid: tuple[int, int] = (6, 10)
    channels: int = 32
    action_width: int = 16
    context: int = 16
    width: int = 256
    depth: int = 8
    head_width: int = 64
    cached_every: int = 2
    min_step_size: float = 0.125
    camera_column: int | None = None
    camera_tokens: float = 1.9

    def __post_init__(self) -> None:
        object.__setattr__(self, "grid", tuple(self.grid))
        if self.width % self.head_width:
            raise ValueError(f"denoiser: width {self.width} is not a multiple of {self.head_width}")
        if self.head_width % 4:
            raise ValueError(f"denoiser: head_width {self.head_width} is not a multiple of 4")
        if self.depth < 2:
            raise ValueError(f"denoiser: depth {self.depth}; expected 2 or more, one with a memory")

    @property
    def num_tokens(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def num_heads(self) -> int:
        return self.width // self.head_width

    @property
    def hidden_width(self) -> int:
        return 64 * math.ceil(self.width * 8 / 3 / 64)

    @property
    def cached_layers(self) -> tuple[int, ...]:
        return tuple(range(1, self.depth, self.cached_every))

    @property
    def frequencies(self) -> tuple[tuple[float, ...], ...]:
        """Radians per row, per column and per frame of every rotary pair: [3][head_width / 2]. Each
        pair turns along one of the three; wavelengths from 4 to 64 tokens and to 16 contexts.
        """
        pairs = self.head_width // 2
        space = pairs * 5 // 16
        counts = (space, space, pairs - 2 * space)
        longest = (64.0, 64.0, 16.0 * max(self.context, 2))
        table = []
        for axis, (count, wave) in enumerate(zip(counts, longest, strict=True)):
            own = [math.pi / 2 * (4 / wave) ** (i / max(count - 1, 1)) for i in range(count)]
            table.append(
                (0.0,) * sum(counts[:axis]) + tuple(own) + (0.0,) * sum(counts[axis + 1 :])
            )
        return tuple(table)


def token_angles(config: DenoiserConfig) -> Float[Tensor, "n p"]:
    """Rotary phases of every token's row and column in the picture."""
    rows, columns = torch.meshgrid(
        *(torch.arange(float(size)) for size in config.grid), indexing="ij"
    )
    places = torch.stack([rows.flatten(), columns.flatten()], 1)
    return places @ torch.tensor(config.frequencies)[:2]


def rotate(
    x: Float[Tensor, "*b h n d"], cos: Float[Tensor, "*b 1 n p"], sin: Float[Tensor, "*b 1 n p"]
) -> Float[Tensor, "*b h n d"]:
    """Rotary position embedding: the halves of the last axis are turned by p = d / 2 angles."""
    half = cos.shape[-1]
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)


def rms_norm(x: Tensor) -> Tensor:
    """The last axis to a mean square of 1, without weights."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


class Attention(nn.Module):
    """Projections shared by both ways to run; who attends to whom is decided by the caller."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.q_scale = nn.Parameter(torch.ones(config.head_width))
        self.k_scale = nn.Parameter(torch.ones(config.head_width))

    def project(
        self, x: Float[Tensor, "*b n d"], cos: Tensor, sin: Tensor
    ) -> tuple[Float[Tensor, "*b h n dh"], Float[Tensor, "*b h n dh"], Float[Tensor, "*b h n dh"]]:
        # Slices, here and below: `chunk` and `unbind` become slow sequences in ONNX.
        joined, width = self.qkv(x), x.shape[-1]
        q, k, v = (
            joined[..., i * width : (i + 1) * width]
            .unflatten(-1, (self.num_heads, -1))
            .transpose(-2, -3)
            for i in range(3)
        )
        q = rotate(rms_norm(q) * self.q_scale, cos, sin)
        k = rotate(rms_norm(k) * self.k_scale, cos, sin)
        return q.type_as(v), k.type_as(v), v

    def merge(self, heads: Float[Tensor, "*b h n dh"]) -> Float[Tensor, "*b n d"]:
        return self.out(heads.transpose(-2, -3).flatten(-2))


class SwiGLU(nn.Module):
    """Gated MLP (arXiv 2002.05202), [*b, d] -> [*b, d]."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        joined, hidden = self.gate_up(x), self.down.in_features
        return self.down(F.silu(joined[..., :hidden]) * joined[..., hidden:])


class Block(nn.Module):
    """One layer in two halves, before and after attention, so that each can be compiled while
    attention differs by caller.
    """

    def __init__(self, config: DenoiserConfig, cached: bool) -> None:
        super().__init__()
        self.cached = cached
        self.attention = Attention(config)
        self.mlp = SwiGLU(config.width, config.hidden_width)
        self.modulation = nn.Parameter(torch.zeros(6, config.width))

    def before(
        self, x: Float[Tensor, "*b n d"], shared: Float[Tensor, "*b 6 d"], cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each [*b, heads, n, dh]."""
        shift, scale = ((shared + self.modulation)[..., i, None, :] for i in range(2))
        return self.attention.project(rms_norm(x) * (1 + scale) + shift, cos, sin)

    def after(
        self,
        x: Float[Tensor, "*b n d"],
        heads: Float[Tensor, "*b h n dh"],
        shared: Float[Tensor, "*b 6 d"],
    ) -> Float[Tensor, "*b n d"]:
        modulation = shared + self.modulation
        gate_attention, shift, scale, gate_mlp = (modulation[..., i, None, :] for i in range(2, 6))
        x = x + gate_attention * self.attention.merge(heads)
        return x + gate_mlp * self.mlp(rms_norm(x) * (1 + scale) + shift)


def attend(
    q: Float[Tensor, "*b n d"], k: Float[Tensor, "*b m d"], v: Float[Tensor, "*b m d"]
) -> Float[Tensor, "*b n d"]:
    """Softmax attention of n queries over m keys and values, without a mask."""
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v)
    # PyTorch's flash kernel for CPUs is 2 to 4 times slower than plain products at 60 queries in
    # bfloat16 (docs/log.md).
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return scores.float().softmax(-1).type_as(v) @ v


def attend_to_past(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b h n d"],
    v: Float[Tensor, "b h n d"],
    past_k: Float[Tensor, "b h m d"],
    past_v: Float[Tensor, "b h m d"],
) -> Float[Tensor, "b h n d"]:
    """Attention over the cache and the frame itself without joining them: only the small score
    matrices are concatenated.
    """
    scale = q.shape[-1] ** -0.5
    q = q * scale
    scores = torch.cat([q @ past_k.transpose(-1, -2), q @ k.transpose(-1, -2)], -1)
    weights = scores.softmax(-1)
    num_past = past_k.shape[-2]
    return weights[..., :num_past] @ past_v + weights[..., num_past:] @ v


class PlayPass(NamedTuple):
    """What one pass over one frame of every session takes. phase_cos, phase_sin: of (row and column
    that the camera looks at, frame index) times `config.frequencies`. cache_k, cache_v: of every
    cached layer.
    """

    noisy: Float[Tensor, "b n c"]
    signal: Float[Tensor, " b"]
    step_size: Float[Tensor, " b"]
    action: Float[Tensor, "b a"]
    phase_cos: Float[Tensor, "b p"]
    phase_sin: Float[Tensor, "b p"]
    cache_k: Sequence[Float[Tensor, "b h m d"]]
    cache_v: Sequence[Float[Tensor, "b h m d"]]


class Denoiser(nn.Module):
    """The whole network; see the module's docstring. `forward` trains it, `step` plays it."""

    token_cos: Tensor
    token_sin: Tensor
    frequencies: Tensor

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.embed = nn.Linear(config.channels, width)
        self.place = nn.Parameter(torch.randn(config.num_tokens, width) * 0.02)
        self.embed_action = nn.Sequential(
            nn.Linear(config.action_width, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.embed_level = nn.Sequential(nn.Linear(128, width), nn.SiLU(), nn.Linear(width, width))
        self.modulate = nn.Linear(width, 6 * width)
        self.blocks = nn.ModuleList(
            Block(config, layer in config.cached_layers) for layer in range(config.depth)
        )
        self.modulate_out = nn.Linear(width, 2 * width)
        self.unembed = nn.Linear(width, config.channels)
        angles = token_angles(config)
        self.register_buffer("token_cos", angles.cos(), persistent=False)
        self.register_buffer("token_sin", angles.sin(), persistent=False)
        frequencies = torch.tensor(config.frequencies)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for block in self.layers():
            nn.init.zeros_(block.attention.out.weight)
            nn.init.zeros_(block.mlp.down.weight)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate_out.weight)
        nn.init.zeros_(self.unembed.weight)
        # Gates open at 1: the branches themselves start at zero.
        self.modulate.bias.data.view(6, -1)[[2, 5]] = 1.0

    # -- parts that both ways share ---------------------------------------------------------

    def condition(
        self,
        signal: Float[Tensor, "*b"],
        step_size: Float[Tensor, "*b"],
        action: Float[Tensor, "*b a"],
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b d"]]:
        """The action's embedding (added to every token) and the adaLN condition (noise level, step
        size and action).
        """
        frequencies = torch.exp(torch.arange(32, device=signal.device) / 31 * math.log(64.0))
        levels = torch.stack([signal, torch.log2(step_size) / 8.0], -1)
        angles = levels[..., None] * frequencies
        features = torch.cat([angles.cos(), angles.sin()], -1).flatten(-2)
        acting = self.embed_action(action)
        return acting, F.silu(self.embed_level(features) + acting)

    def rotary(
        self, phase_cos: Float[Tensor, "*b p"], phase_sin: Float[Tensor, "*b p"]
    ) -> tuple[Float[Tensor, "*b 1 n p"], Float[Tensor, "*b 1 n p"]]:
        """Cosines and sines of every token: its frame's phases and its own, added."""
        cos, sin = phase_cos[..., None, None, :], phase_sin[..., None, None, :]
        return (
            self.token_cos * cos - self.token_sin * sin,
            self.token_sin * cos + self.token_cos * sin,
        )

    def camera(self, action: Float[Tensor, "*b a"]) -> tuple[Tensor, Tensor]:
        """Of each action, in tokens: rows down to where the camera looks, and columns by which it
        turned right. Each [*b].
        """
        column = self.config.camera_column
        if column is None:
            return action.new_zeros(action.shape[:-1]), action.new_zeros(action.shape[:-1])
        tokens = self.config.camera_tokens
        return action[..., -1] * tokens, action[..., column] * tokens

    def unembed_tokens(self, x: Tensor, condition: Tensor) -> Tensor:
        joined, width = self.modulate_out(condition)[..., None, :], x.shape[-1]
        return self.unembed(rms_norm(x) * (1 + joined[..., width:]) + joined[..., :width])

    def layers(self) -> Iterator[Block]:
        """The layers in order, with their type."""
        return iter(cast("list[Block]", list(self.blocks)))

    def compile_blocks(self) -> None:
        """Compile the halves of every layer: one small graph each, in seconds, where the whole
        network takes minutes.
        """
        for block in self.layers():
            block.before = torch.compile(block.before)
            block.after = torch.compile(block.after)

    # -- training ---------------------------------------------------------------------------

    def forward(
        self,
        context: Float[Tensor, "b t n c"],
        context_signal: Float[Tensor, "b t"],
        context_action: Float[Tensor, "b t a"],
        noisy: Float[Tensor, "b t n c"],
        signal: Float[Tensor, "b t"],
        step_size: Float[Tensor, "b t"],
        action: Float[Tensor, "b t a"],
        heard: Float[Tensor, "b t a"] | None = None,
    ) -> Float[Tensor, "b t n c"]:
        """Clean latents of every noisy frame; noisy frame j follows context frame j and sees
        context j-window+1..j. heard: what the network is told in place of the action; the camera
        still does what the action says.
        """
        num_frames = noisy.shape[1]
        finest = torch.full_like(context_signal, self.config.min_step_size)
        acting, condition = self.condition(
            torch.cat([context_signal, signal], 1),
            torch.cat([finest, step_size], 1),
            torch.cat([context_action, action if heard is None else heard], 1),
        )
        x = self.embed(torch.cat([context, noisy], 1)) + self.place + acting[:, :, None]
        (past_rows, turns), (rows, turn) = self.camera(context_action), self.camera(action)
        past_columns = turns.cumsum(1)
        index = torch.arange(num_frames, device=x.device).expand(len(x), -1)
        past = torch.stack([past_rows, past_columns, index], -1)
        present = torch.stack([rows, past_columns + turn, index + 1], -1)
        with torch.autocast(x.device.type, enabled=False):
            angles = torch.cat([past, present], 1).float() @ self.frequencies
        cos, sin = self.rotary(angles.cos(), angles.sin())
        shared = self.modulate(condition).unflatten(-1, (6, -1))
        for block in self.layers():
            q, k, v = block.before(x, shared, cos, sin)
            heads = self._attend_window(q, k, v) if block.cached else attend(q, k, v)
            x = block.after(x, heads, shared)
        return self.unembed_tokens(x[:, num_frames:], condition[:, num_frames:])

    def _attend_window(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[b 2t h n d]: one attention call per frame over just the keys it may see, so no mask and
        no wasted half.
        """
        num_frames = q.shape[1] // 2
        qs, ks, vs = q.unbind(1), k.unbind(1), v.unbind(1)
        past, current = [], []
        for j in range(num_frames):
            # A context frame sees itself and `context` frames before, as when play commits it.
            own = slice(max(0, j - self.config.context), j + 1)
            past.append(attend(qs[j], torch.cat(ks[own], 2), torch.cat(vs[own], 2)))
            seen = slice(max(0, j + 1 - self.config.context), j + 1)
            past_k, past_v = torch.cat(ks[seen], 2), torch.cat(vs[seen], 2)
            noisy = num_frames + j
            joined_k = torch.cat([past_k, ks[noisy]], 2)
            joined_v = torch.cat([past_v, vs[noisy]], 2)
            current.append(attend(qs[noisy], joined_k, joined_v))
        return torch.stack(past + current, 1)

    # -- play -------------------------------------------------------------------------------

    def step(self, given: PlayPass) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Clean latents, and this frame's keys and values per cached layer."""
        x, condition, new_k, new_v = self._walk(given, self.config.depth)
        return self.unembed_tokens(x, condition), new_k, new_v

    def remember(self, given: PlayPass) -> tuple[list[Tensor], list[Tensor]]:
        """The keys and values that `step` gives, and nothing that comes after the last of them."""
        return self._walk(given, self.config.cached_layers[-1])[2:]

    def _walk(
        self, given: PlayPass, last: int
    ) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
        """Through the layers, at most to the keys and values of the last."""
        acting, condition = self.condition(given.signal, given.step_size, given.action)
        x = self.embed(given.noisy) + self.place + acting[:, None]
        cos, sin = self.rotary(given.phase_cos, given.phase_sin)
        shared = self.modulate(condition).unflatten(-1, (6, -1))
        new_k: list[Tensor] = []
        new_v: list[Tensor] = []
        for layer, block in enumerate(self.layers()):
            q, k, v = block.before(x, shared, cos, sin)
            if block.cached:
                past_k, past_v = given.cache_k[len(new_k)], given.cache_v[len(new_v)]
                new_k.append(k)
                new_v.append(v)
                if layer == last:
                    break
                heads = attend_to_past(q, k, v, past_k, past_v)
            else:
                heads = attend(q, k, v)
            x = block.after(x, heads, shared)
        return x, condition, new_k, new_v
