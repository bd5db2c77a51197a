"""The sky: a gradient, the sun and its glow, clouds, stars.

It depends on the direction alone, so that nothing in it moves while the player stands still.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reverie.envs.meadow import conditions as c
from reverie.envs.meadow.grid import hash01, kernel

CLOUD_SIZE = 64


def cloud_map(seed: int) -> NDArray[np.float64]:
    """float64 [CLOUD_SIZE, CLOUD_SIZE]: cover of the cloud layer, 0..0.85, tiling."""
    grid = np.arange(CLOUD_SIZE)
    total = np.zeros((CLOUD_SIZE, CLOUD_SIZE))
    for octave, cells in enumerate((8, 16, 32)):
        lattice = np.array(
            [[hash01(i, octave, k, seed + 141) for i in range(cells)] for k in range(cells)]
        )
        at = grid * cells / CLOUD_SIZE
        i = at.astype(np.int64)
        f = at - i
        f = f * f * (3 - 2 * f)
        rows = lattice[i] * (1 - f)[:, None] + lattice[(i + 1) % cells] * f[:, None]
        total += 0.5**octave * (rows[:, i] * (1 - f) + rows[:, (i + 1) % cells] * f)
    cover = np.clip((total / 1.75 - 0.5) / 0.24, 0, 1)
    return 0.85 * cover * cover * (3 - 2 * cover)


@kernel
def cloud_cover(clouds, dx, dy, dz):
    """How cloudy the sky is in a direction, 0..1: a flat layer of noise high above, thinning
    towards the horizon.
    """
    if dy < 0.04:
        return 0.0
    u, v = 5.5 * dx / (dy + 0.12) + 200.0, 5.5 * dz / (dy + 0.12) + 200.0
    iu, iv = int(np.floor(u)), int(np.floor(v))
    fu, fv = u - iu, v - iv
    m = CLOUD_SIZE - 1
    top = clouds[iv & m, iu & m] * (1 - fu) + clouds[iv & m, (iu + 1) & m] * fu
    low = clouds[(iv + 1) & m, iu & m] * (1 - fu) + clouds[(iv + 1) & m, (iu + 1) & m] * fu
    fade = min(1.0, (dy - 0.04) * 5.0)
    return (top * (1 - fv) + low * fv) * fade


@kernel
def sky_colour(sky, sun, clouds, dx, dy, dz):
    """Colour of the sky along a unit vector: a gradient, the sun and its glow, clouds."""
    rest = 1.0 - min(max(dy, 0.0), 1.0)
    low = rest * rest
    low = low * low * (0.7 + 0.3 * rest)
    red = sky[c.ZENITH] + (sky[c.HORIZON] - sky[c.ZENITH]) * low
    green = sky[c.ZENITH + 1] + (sky[c.HORIZON + 1] - sky[c.ZENITH + 1]) * low
    blue = sky[c.ZENITH + 2] + (sky[c.HORIZON + 2] - sky[c.ZENITH + 2]) * low
    if sky[c.STARS] > 0.0 and dy > 0.03:
        u, v = int(np.floor(60.0 * dx / (dy + 0.4))), int(np.floor(60.0 * dz / (dy + 0.4)))
        bright = hash01(u, v, 0, 5)
        if bright > 0.988:
            shine = sky[c.STARS] * (bright - 0.98) * 30.0 * min(1.0, 5.0 * dy)
            red, green, blue = red + 0.9 * shine, green + 0.95 * shine, blue + shine
    cover = sky[c.CLOUD_AMOUNT] * cloud_cover(clouds, dx, dy, dz)
    red += (sky[c.CLOUD] - red) * cover
    green += (sky[c.CLOUD + 1] - green) * cover
    blue += (sky[c.CLOUD + 2] - blue) * cover
    facing = dx * sun[0] + dy * sun[1] + dz * sun[2]
    if facing > 0.6:
        halo = (facing - 0.6) * 2.5
        halo = halo * halo * halo
        disc = min(max((facing - 0.9965) * 600.0, 0.0), 1.0) * sky[c.DISC]
        glow = (0.42 * halo * halo * (0.4 + 0.6 * sky[c.DISC]) + disc) * (1.0 - 0.6 * cover)
        glow = min(glow, 1.0)
        red += (sky[c.GLOW] - red) * glow
        green += (sky[c.GLOW + 1] - green) * glow
        blue += (sky[c.GLOW + 2] - blue) * glow
    return red, green, blue
