"""How conditions look, and how one look fades into the next: wishes come true without a cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reverie.envs.meadow import textures
from reverie.envs.meadow.conditions import Conditions, Sky, make_sky

FADE_TICKS = 20
"""From one look to another: a second."""


@dataclass(frozen=True, slots=True)
class Appearance:
    """Sky, textures (see `textures.build`), and how much rain and snow falls, 0 to 1."""

    sky: Sky
    textures: NDArray[np.float32]
    rain: float
    snow: float


def appearance(conditions: Conditions) -> Appearance:
    """Of some conditions, when all fading is over."""
    return Appearance(
        make_sky(conditions),
        textures.build(conditions.season, conditions.biome),
        float(conditions.weather == "rain"),
        float(conditions.weather == "snow"),
    )


def fade(old: Appearance, new: Appearance, share: float) -> Appearance:
    """Between two looks: the old one at 0, the new one at 1. The sun moves from place to place."""
    sun = old.sky.sun + share * (new.sky.sun - old.sky.sun)
    x, y, z = sun.tolist()
    sun = (sun / np.sqrt(x * x + y * y + z * z)).round(9)
    values = old.sky.values + share * (new.sky.values - old.sky.values)
    painted = new.textures
    if old.textures is not painted:
        painted = (old.textures + share * (painted - old.textures)).astype(np.float32)
        painted.setflags(write=False)  # as built textures are: one type for the compiled renderer
    falling = (
        (now - was) * share + was for was, now in ((old.rain, new.rain), (old.snow, new.snow))
    )
    return Appearance(Sky(sun, values), painted, *falling)
