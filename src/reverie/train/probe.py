"""The inverse-dynamics probe: which action lies between two frames?

A small network trained on pairs of real frames; what it reads off pairs of generated ones says
whether a world obeys. It never sees a generated frame in training.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor, nn

from reverie.core import ActionSpace
from reverie.data.render import Rendered
from reverie.model.autoencoder import to_pixels


@dataclass(frozen=True)
class Reading:
    """What the probe reads off pairs of frames. camera: degrees, float32 [n, 2]; keys: 0..1, [n,
    k].
    """

    camera: NDArray[np.float32]
    keys: NDArray[np.float32]


class Probe(nn.Module):
    """Camera turn (in units of the limit) and held keys from two consecutive frames at half
    size, as `halves` gives them.
    """

    def __init__(self, action_space: ActionSpace, height: int, width: int) -> None:
        super().__init__()
        self.action_space = action_space
        self.features = nn.Sequential(
            nn.Conv2d(9, 32, 5, 2, 2),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(64, 96, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(96, 96, 3, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
        )
        size = self.features(torch.zeros(1, 9, height // 2, width // 2)).shape[1]
        self.head = nn.Sequential(
            nn.Linear(size, 192), nn.ReLU(), nn.Linear(192, 2 + len(action_space.keys))
        )

    def forward(
        self, before: Float[Tensor, "b 3 h w"], after: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "b o"]:
        pair = torch.cat([before, after, (after - before) * 4], 1)
        return self.head(self.features(pair - 0.5))

    @torch.no_grad()
    def read(self, frames: NDArray[np.uint8], batch_size: int = 64) -> Reading:
        """The n actions between n + 1 consecutive frames, uint8 [n + 1, h, w, 3]."""
        parts = []
        for first in range(0, len(frames) - 1, batch_size):
            small = halves(frames[first : first + batch_size + 1])
            parts.append(self(small[:-1], small[1:]))
        output = torch.cat(parts)
        camera = output[:, :2] * self.action_space.camera_limit
        return Reading(camera.numpy(), output[:, 2:].sigmoid().numpy())


def load_probe(file: Path, action_space: ActionSpace, frame_shape: tuple[int, int, int]) -> Probe:
    """A trained probe for pictures of this shape, [h, w, 3], from its weights."""
    probe = Probe(action_space, *frame_shape[:2])
    probe.load_state_dict(torch.load(file, weights_only=True))
    return probe.eval()


def halves(frames: NDArray[np.uint8]) -> Float[Tensor, "b 3 h w"]:
    """Frames [b, 2 h, 2 w, 3] at half size, in 0..1."""
    whole: UInt8[Tensor, "b h w 3"] = torch.from_numpy(np.array(frames))
    return F.avg_pool2d(to_pixels(whole), 2)


def train_probe(
    train: Rendered,
    action_space: ActionSpace,
    *,
    steps: int = 1500,
    batch_size: int = 96,
    seed: int = 0,
) -> Probe:
    """Train on pairs of real frames. Minutes on one core."""
    torch.manual_seed(seed)
    probe = Probe(action_space, *train.frames.shape[1:3])
    optimizer = torch.optim.AdamW(probe.parameters(), weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    segments = train.segments(2)
    num_keys = len(action_space.keys)
    for step in track(range(steps), "training the probe"):
        batch = segments.draw(batch_size, seed, step)
        frames, action = batch["frames"], torch.from_numpy(batch["actions"][:, 1])
        with torch.autocast("cpu", torch.bfloat16):
            output = probe(halves(frames[:, 0]), halves(frames[:, 1])).float()
        loss = F.binary_cross_entropy_with_logits(output[:, 2:], action[:, :num_keys])
        if action_space.camera_limit:
            turn = action[:, num_keys : num_keys + 2]
            loss = loss + 20 * F.smooth_l1_loss(output[:, :2], turn, beta=0.02)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return probe.eval()
