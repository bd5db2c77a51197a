"""The Autoencoder: picture <-> latents, deep compression with space-to-depth shortcuts (DC-AE,
arXiv 2410.10733).

A picture of h x w becomes n = (h / stride) * (w / stride) tokens of c channels. Every token is
normalised (zero mean, unit variance over its channels), so latents are bounded without a KL term
and the Sampler can pull its results back onto the same sphere. No normalisation layers and ReLU
only: convolutions fuse with their activation in ONNX Runtime, which is most of the decoder's time.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from reverie.model.refiner import Refiner
from reverie.model.residual import ResidualBlock

MOOD_WIDTH = 64
"""Of what the decoder makes of all attributes together."""


@dataclass(frozen=True)
class AutoencoderConfig:
    """width, height: picture, multiples of the stride. channels: of one latent token.

    widths: feature maps at 1/2, 1/4, 1/8, ... of the picture; the last is the size of the latent
    grid (four widths: stride 16, five: 32). Each divides four times the one before, so that whole
    channels are averaged on the way down and copied on the way up. encoder_blocks, decoder_blocks:
    residual blocks at each of these sizes; the encoder works from 1/4 on. attributes: how
    many values each attribute of the world has (`ActionSpace.attributes`); the decoder paints them.
    refiner: widths of the `Refiner` that follows the decoder in play; () without one.
    """

    width: int = 160
    height: int = 96
    channels: int = 32
    widths: tuple[int, ...] = (32, 64, 128, 256)
    encoder_blocks: tuple[int, ...] = (0, 1, 2, 2)
    decoder_blocks: tuple[int, ...] = (1, 2, 2, 3)
    attributes: tuple[int, ...] = ()
    refiner: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("attributes", "refiner"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("widths", "encoder_blocks", "decoder_blocks"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if len(getattr(self, name)) != len(self.widths) or len(self.widths) < 3:
                raise ValueError(
                    f"autoencoder: {name} is {getattr(self, name)}; expected as many entries as "
                    f"widths ({len(self.widths)}), three at least"
                )
        if len(self.refiner) not in (0, 2):
            raise ValueError(f"autoencoder: refiner is {self.refiner}; expected two widths or none")
        if any(4 * outer % inner for outer, inner in itertools.pairwise(self.widths)):
            raise ValueError(
                f"autoencoder: widths are {self.widths}; expected each to divide four times the "
                "one before"
            )
        if self.width % self.stride or self.height % self.stride:
            raise ValueError(
                f"picture {self.width}x{self.height} is not a multiple of {self.stride}"
            )

    @property
    def stride(self) -> int:
        """Pixels per latent token, along each side."""
        return int(2 ** len(self.widths))

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of latent tokens."""
        return self.height // self.stride, self.width // self.stride

    @property
    def num_tokens(self) -> int:
        rows, columns = self.grid
        return rows * columns


class Down(nn.Module):
    """Halve height and width: 1x1 convolution of 2x2 cells, beside the mean of the cells' channels
    (the DC-AE shortcut).
    """

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4 * inner, outer, 1)
        self.outer = outer

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h2 w2"]:
        cells = F.pixel_unshuffle(x, 2)
        b, _, h, w = cells.shape
        return self.conv(cells) + cells.reshape(b, self.outer, -1, h, w).mean(2)


class Up(nn.Module):
    """Double height and width: 1x1 convolution into 2x2 cells, beside a copy of the channels (the
    DC-AE shortcut).
    """

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inner, 4 * outer, 1)
        self.repeats = 4 * outer // inner

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h2 w2"]:
        shortcut = x.repeat_interleave(self.repeats, 1)
        return F.pixel_shuffle(self.conv(x) + shortcut, 2)


class Painter(nn.Module):
    """What attributes do to feature maps: a scale and a shift for every channel (FiLM, arXiv
    1709.07871), none before training.
    """

    usual: Tensor

    def __init__(self, attributes: tuple[int, ...], widths: tuple[int, ...]) -> None:
        super().__init__()
        self.widths = widths
        usual = torch.cat([F.one_hot(torch.tensor(0), count) for count in attributes])
        self.register_buffer("usual", usual.float(), persistent=False)
        self.mood = nn.Linear(len(usual), MOOD_WIDTH)
        self.strokes = nn.ModuleList(nn.Linear(MOOD_WIDTH, 2 * width) for width in widths)
        for stroke in self.strokes:
            nn.init.zeros_(cast("nn.Linear", stroke).weight)
            nn.init.zeros_(cast("nn.Linear", stroke).bias)

    def forward(
        self, attributes: Float[Tensor, "b k"]
    ) -> list[tuple[Float[Tensor, "b d 1 1"], Float[Tensor, "b d 1 1"]]]:
        """Scale and shift at every place where features are painted."""
        mood = F.relu(self.mood(attributes))
        painted = []
        for width, stroke in zip(self.widths, self.strokes, strict=True):
            joined = stroke(mood)[..., None, None]
            painted.append((1 + joined[:, :width], joined[:, width:]))
        return painted


class Autoencoder(nn.Module):
    """Pictures [b, 3, h, w] in 0..1 <-> latents [b, n, c]; see the module's docstring."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        down: list[nn.Module] = [nn.PixelUnshuffle(4), nn.Conv2d(48, widths[1], 3, padding=1)]
        down += [nn.ReLU(), *_blocks(widths[1], sum(config.encoder_blocks[:2]))]
        for level in range(2, len(widths)):
            down.append(Down(widths[level - 1], widths[level]))
            down += _blocks(widths[level], config.encoder_blocks[level])
        self.encoder = nn.Sequential(*down, nn.Conv2d(widths[-1], config.channels, 1))

        up: list[nn.Module] = [nn.Conv2d(config.channels, widths[-1], 3, padding=1), nn.ReLU()]
        self._painted: list[int] = []  # layers of the decoder whose input is painted
        for level in reversed(range(len(widths))):
            self._painted.append(len(up))
            up += _blocks(widths[level], config.decoder_blocks[level])
            if level:
                up.append(Up(widths[level], widths[level - 1]))
        self._painted.append(len(up))
        up += [nn.Conv2d(widths[0], 12, 3, padding=1), nn.PixelShuffle(2)]
        self.decoder = nn.Sequential(*up)
        if config.attributes:
            self.painter = Painter(config.attributes, (*widths[::-1], widths[0]))
        if config.refiner:
            self.refiner = Refiner(config.height, config.width, config.refiner)

    @property
    def finest(self) -> int:
        """The decoder's first layer that works at a quarter of the picture's size."""
        return self._painted[-3]

    def encode(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n c"]:
        """Latents of pictures whose values lie in 0..1."""
        features = self.encoder(pixels * 2.0 - 1.0)
        return normalise(features.flatten(2).transpose(1, 2))

    def decode(
        self,
        latents: Float[Tensor, "b n c"],
        attributes: Float[Tensor, "b k"] | None = None,
        before: Float[Tensor, "b 3 h w"] | None = None,
        turn: Float[Tensor, "b 3"] | None = None,
    ) -> Float[Tensor, "b 3 h w"]:
        """Pictures, values around 0..1 (not clipped: training needs the gradient). attributes:
        encoded, what they are to look like; as usual if not given, or if the world has none.
        before, turn: the pictures shown before, and what the camera did since (`ActionSpace.turn`);
        without them pictures are not refined.
        """
        rows, columns = self.config.grid
        features = latents.transpose(1, 2).unflatten(2, (rows, columns))
        painted = {}
        if self.config.attributes:
            if attributes is None:
                attributes = self.painter.usual.expand(len(latents), -1)
            painted = dict(zip(self._painted, self.painter(attributes), strict=True))
        for i, layer in enumerate(self.decoder):
            if i in painted:
                scale, shift = painted[i]
                features = features * scale + shift
            features = layer(features)
        drawn = features * 0.5 + 0.5
        if before is None or turn is None or not self.config.refiner:
            return drawn
        return self.refiner(drawn, before, turn)


def _blocks(width: int, count: int) -> list[nn.Module]:
    return [ResidualBlock(width) for _ in range(count)]


def normalise(latents: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
    """Every token to zero mean and unit variance over its channels."""
    return F.layer_norm(latents, latents.shape[-1:], eps=1e-6)


def to_pixels(frames: UInt8[Tensor, "*b h w 3"]) -> Float[Tensor, "*b 3 h w"]:
    """Frames as players see them to floats in 0..1, channels first."""
    return frames.movedim(-1, -3).float() / 255.0


def to_frames(pixels: Float[Tensor, "*b 3 h w"]) -> UInt8[Tensor, "*b h w 3"]:
    """The opposite of `to_pixels`, clipped and rounded."""
    return (pixels.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).movedim(-3, -1)
