"""A small moving landscape, drawn with numpy in a few milliseconds: pictures for the fake engine.

Hills seen from above as a height map, drawn column by column from near to far. It is here so that
tests of the server and the page can press a key and see a picture move the right way; it has
nothing to do with how Reverie makes pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from reverie.core import Action, Pixels

SIZE = 256  # of the height map, which repeats
FIELD_OF_VIEW_DEG = 75.0


@dataclass(frozen=True, slots=True)
class Viewpoint:
    """x, y: on the map. yaw_deg to the right, pitch_deg downwards."""

    x: float = 0.0
    y: float = 0.0
    yaw_deg: float = 0.0
    pitch_deg: float = 0.0

    def moved(self, action: Action) -> Viewpoint:
        """Where one frame of this action leads."""
        yaw = self.yaw_deg + action.mouse[0]
        pitch = float(np.clip(self.pitch_deg + action.mouse[1], -40, 40))
        ahead = ("forward" in action.keys) - ("back" in action.keys)
        aside = ("right" in action.keys) - ("left" in action.keys)
        speed = 0.9 if "sprint" in action.keys else 0.45
        sine, cosine = np.sin(np.radians(yaw)), np.cos(np.radians(yaw))
        return replace(
            self,
            x=self.x + speed * (ahead * sine + aside * cosine),
            y=self.y + speed * (ahead * cosine - aside * sine),
            yaw_deg=yaw,
            pitch_deg=pitch,
        )


class Landscape:
    """Draws pictures of `width` x `height` pixels. seed: of the hills. dusk: 0 day to 1 evening."""

    def __init__(
        self, width: int = 160, height: int = 96, seed: int = 0, dusk: float = 0.6
    ) -> None:
        self._width, self._height = width, height
        generator = np.random.default_rng(seed)
        hills = sum(_waves(generator, 2**k) / 2**k for k in range(1, 6))
        hills = (hills - np.min(hills)) / np.ptp(hills)
        self._heights = np.floor(np.clip(hills - 0.34, 0, 1) * 44).astype(np.float32)
        shade = 0.86 + 0.14 * generator.random((SIZE, SIZE, 1))
        self._colors = (_ground(self._heights) * shade).astype(np.float32)
        self._depths = np.geomspace(1.2, 110, 90).astype(np.float32)
        zenith, horizon = np.array([[104, 142, 190], [196, 214, 222]], np.float32)
        evening = np.array([[52, 58, 104], [244, 170, 120]], np.float32)
        self._zenith = (1 - dusk) * zenith + dusk * evening[0]
        self._horizon = (1 - dusk) * horizon + dusk * evening[1]

    def draw(self, view: Viewpoint) -> Pixels:
        """uint8 [height, width, 3]."""
        middle = np.float32(self._width / 2 / np.tan(np.radians(FIELD_OF_VIEW_DEG / 2)))
        columns = (np.arange(self._width, dtype=np.float32) + 0.5 - self._width / 2) / middle
        yaw = np.radians(view.yaw_deg)
        x = view.x + self._depths[:, None] * (np.sin(yaw) + columns * np.cos(yaw))
        y = view.y + self._depths[:, None] * (np.cos(yaw) - columns * np.sin(yaw))
        row, column = y.astype(int) % SIZE, x.astype(int) % SIZE
        eye = max(self._heights[int(view.y) % SIZE, int(view.x) % SIZE], 2) + 3.2
        horizon = self._height * 0.5 - np.tan(np.radians(view.pitch_deg)) * middle
        top = horizon + (eye - self._heights[row, column]) * middle / self._depths[:, None]
        # The nearest depth whose ground reaches up to a pixel is what the pixel shows.
        reach = np.minimum.accumulate(top, axis=0)
        rows = np.arange(self._height, dtype=np.float32)
        nearest = np.stack([np.searchsorted(-reach[:, c], -rows) for c in range(self._width)], 1)
        sky = nearest == len(self._depths)
        depth = np.minimum(nearest, len(self._depths) - 1)
        across = np.arange(self._width)
        ground = self._colors[row[depth, across], column[depth, across]]
        fog = np.clip(self._depths[depth] / 110, 0, 1)[..., None] ** 1.6
        picture = ground * (1 - fog) + self._horizon * fog
        return np.where(sky[..., None], self._sky(rows - horizon), picture).astype(np.uint8)

    def _sky(self, below: NDArray[np.float32]) -> NDArray[np.float32]:
        share = np.clip(-below / 80, 0, 1)[:, None, None]
        return np.broadcast_to(
            self._horizon * (1 - share) + self._zenith * share, (len(below), self._width, 3)
        )


def _waves(generator: np.random.Generator, frequency: int) -> NDArray[np.float64]:
    """A smooth random surface that repeats, `frequency` bumps wide."""
    knots = generator.random((frequency, frequency))
    spectrum = np.fft.fft2(np.kron(knots, np.ones((SIZE // frequency, SIZE // frequency))))
    rate = np.fft.fftfreq(SIZE)[:, None] ** 2 + np.fft.fftfreq(SIZE)[None, :] ** 2
    return np.fft.ifft2(spectrum * np.exp(-rate * 2 * (SIZE / frequency) ** 2)).real


def _ground(heights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colours by height: water, sand, grass, forest, stone, snow; float32 [SIZE, SIZE, 3]."""
    levels = np.array([1, 2, 9, 16, 22])
    colors = np.array(
        [
            [58, 96, 128],
            [206, 188, 138],
            [110, 150, 78],
            [70, 112, 66],
            [128, 124, 120],
            [232, 232, 236],
        ],
        np.float32,
    )
    return colors[np.digitize(heights, levels)]
