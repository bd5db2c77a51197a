"""The Refiner: a drawn picture and the one shown before it become one that stays sharp.

What a player just saw is still there, only elsewhere: a turn of the camera moves the whole picture
in a way that the action tells exactly, and walking moves it by a flow that can be seen. So the
picture before is turned as the camera was, moved along a flow that is read off both, and laid over
what the decoder draws wherever the two agree; what is new comes from the decoder alone. (Motion
compensation, as in video codecs and in recurrent super-resolution, arXiv 1801.04590.)

Nothing of it goes back to the denoiser: what happens in a world does not depend on how sharp it is.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from reverie.model.residual import ResidualBlock

VIEW_DEG = 79.0
"""How wide a first-person picture is taken to be before training, which finds out."""
CELL = 4
"""Pixels along each side that are looked at as one."""
FLOW_SCALE = 0.1
SHARE_SCALE = 4.0
FIXED_SCALE = 10.0


class Refiner(nn.Module):
    """widths: feature maps that find the flow, and that draw. Before training it changes nothing
    but for a share of the picture before.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, height: int, width: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        moving, drawing = widths
        places = ((torch.arange(float(size)) + 0.5) / size * 2 - 1 for size in (height, width))
        rows, columns = torch.meshgrid(*places, indexing="ij")
        self.register_buffer("rows", rows.contiguous(), persistent=False)
        self.register_buffer("columns", columns.contiguous(), persistent=False)
        self.tangent = nn.Parameter(torch.tensor(math.tan(math.radians(VIEW_DEG / 2))))
        # What is drawn over the scene, such as a crosshair, stays where it is when cameras turn.
        self.fixed = nn.Parameter(torch.full((1, 1, height, width), -0.4))
        self.place = nn.Parameter(torch.zeros(4, height // CELL, width // CELL))
        pictures = 2 * 3 * CELL**2 + 1
        self.look = nn.Sequential(
            nn.Conv2d(pictures + 2 + 4, moving, 3, padding=1), nn.ReLU(), ResidualBlock(moving)
        )
        self.flow = nn.Conv2d(moving, 2, 3, padding=1)
        self.draw = nn.Sequential(
            nn.Conv2d(pictures + moving, drawing, 3, padding=1),
            nn.ReLU(),
            ResidualBlock(drawing),
            ResidualBlock(drawing),
            nn.Conv2d(drawing, 4 * CELL**2, 3, padding=1),
            nn.PixelShuffle(CELL),
        )
        for last in (self.flow, self.draw[-2]):
            assert isinstance(last, nn.Conv2d)
            assert last.bias is not None
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(
        self,
        drawn: Float[Tensor, "b 3 h w"],
        before: Float[Tensor, "b 3 h w"],
        turn: Float[Tensor, "b 3"],
    ) -> Float[Tensor, "b 3 h w"]:
        """drawn: what latents decode to. before: the picture shown before, 0..1. turn: as in
        `ActionSpace.turn`.
        """
        scene = 1 - torch.sigmoid(FIXED_SCALE * self.fixed)
        seen = torch.cat([before * scene, scene.expand(before.shape[0], -1, -1, -1)], 1)
        turned = self._turned(turn)
        moved = F.avg_pool2d((turned - self._places()).movedim(-1, 1), CELL)
        cells = F.pixel_unshuffle(drawn - 0.5, CELL)
        place = self.place.expand(before.shape[0], -1, -1, -1)
        looked = self.look(torch.cat([cells, *_cells(*_sample(seen, turned)), moved, place], 1))
        flow = F.interpolate(self.flow(looked).float(), scale_factor=CELL, mode="bilinear")
        warped, known = _sample(seen, turned + FLOW_SCALE * flow.movedim(1, -1))
        last = self.draw(torch.cat([cells, *_cells(warped, known), looked], 1)).float()
        share = torch.sigmoid(SHARE_SCALE * last[:, 3:] - 1) * scene
        return drawn + share * (warped - known * drawn) + last[:, :3]

    def _places(self) -> Float[Tensor, "h w 2"]:
        return torch.stack([self.columns, self.rows], -1)

    def _turned(self, turn: Float[Tensor, "b 3"]) -> Float[Tensor, "b h w 2"]:
        """Where each pixel's direction was in the picture before: columns and rows, -1..1.

        Rotations one by one, not as a product of matrices, which would be rounded to bfloat16.
        """
        cos, sin = turn.cos()[..., None, None], turn.sin()[..., None, None]
        tall = self.tangent * len(self.rows) / len(self.rows[0])
        x, y = self.tangent * self.columns, tall * self.rows
        # Down by the pitch now, right by the turn, up by the pitch before; z begins at 1.
        y, z = y * cos[:, 2] + sin[:, 2], cos[:, 2] - y * sin[:, 2]
        x, z = x * cos[:, 0] + z * sin[:, 0], z * cos[:, 0] - x * sin[:, 0]
        y, z = y * cos[:, 1] - z * sin[:, 1], z * cos[:, 1] + y * sin[:, 1]
        z = z.clamp(min=0.05)
        return torch.stack([x / (self.tangent * z), y / (tall * z)], -1)


def _sample(
    seen: Float[Tensor, "b 4 h w"], places: Float[Tensor, "b h w 2"]
) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b 1 h w"]]:
    """Colours, and how much of each is known: nothing outside of the picture."""
    found = F.grid_sample(seen.float(), places.float(), align_corners=False)
    return found[:, :3], found[:, 3:]


def _cells(
    colours: Float[Tensor, "b 3 h w"], known: Float[Tensor, "b 1 h w"]
) -> tuple[Tensor, Tensor]:
    return F.pixel_unshuffle(colours - 0.5 * known, CELL), F.avg_pool2d(known, CELL)
