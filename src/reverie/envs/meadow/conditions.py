"""Sky, season and ground: the prompts whose truth the simulator knows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverie.core import ReverieError

TIMES_OF_DAY = ("day", "dusk", "night", "dawn")
WEATHERS = ("clear", "rain", "fog", "snow")
SEASONS = ("summer", "autumn", "winter", "spring")
BIOMES = ("mixed", "meadow", "desert", "snowy")
"""mixed: as the terrain grew. The others paint all ground and leaves alike; hills, trees and huts
stay where they are.
"""
ATTRIBUTES = {
    "time_of_day": TIMES_OF_DAY, "weather": WEATHERS, "season": SEASONS, "biome": BIOMES,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Conditions:
    """Each one of the values that ATTRIBUTES lists. Raises ReverieError on anything else."""

    time_of_day: str = "day"
    weather: str = "clear"
    season: str = "summer"
    biome: str = "mixed"

    def __post_init__(self) -> None:
        for name, values in ATTRIBUTES.items():
            if getattr(self, name) not in values:
                raise ReverieError(
                    f"{name} is {getattr(self, name)!r}; expected one of {list(values)}"
                )

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Conditions:
        """The conditions named in `options`, defaults for the others; other keys are ignored."""
        return cls(
            **{field.name: options[field.name] for field in fields(cls) if field.name in options}
        )

    def to_options(self) -> dict[str, str]:
        """The opposite of `from_options`: attribute -> value."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Sky:
    """Colours (0..1) and directions that the renderer reads."""

    sun: NDArray[np.float64]  # unit vector towards what lights the world
    values: NDArray[np.float64]  # see the indices below


# Indices into Sky.values: colours take three places.
ZENITH, HORIZON, SUN_LIGHT, AMBIENT, GLOW, CLOUD, DEEP_WATER = range(0, 21, 3)
CLOUD_AMOUNT, FOG_START, FOG_END, STARS, DISC = range(21, 26)
NUM_VALUES = 26

_TIMES = {  # sun direction (x, y, z), zenith, horizon, sun light, ambient, glow, cloud, deep water
    "day": ((0.55, 0.72, 0.42), (96, 154, 222), (196, 222, 240), (0.56, 0.53, 0.45),
            (0.59, 0.61, 0.64), (255, 244, 214), (250, 252, 255), (34, 92, 132)),
    "dawn": ((0.90, 0.32, -0.30), (126, 156, 206), (250, 214, 190), (0.62, 0.48, 0.34),
             (0.50, 0.49, 0.56), (255, 206, 160), (255, 226, 214), (46, 86, 118)),
    "dusk": ((-0.92, 0.27, 0.28), (88, 92, 158), (246, 164, 116), (0.64, 0.38, 0.22),
             (0.45, 0.41, 0.52), (255, 172, 104), (240, 178, 164), (40, 62, 98)),
    "night": ((-0.40, 0.80, -0.44), (14, 20, 46), (38, 50, 88), (0.12, 0.14, 0.22),
              (0.24, 0.27, 0.38), (196, 208, 236), (44, 54, 86), (10, 24, 52)),
}  # fmt: skip


def make_sky(conditions: Conditions) -> Sky:
    """The sky of some conditions."""
    sun, zenith, horizon, sun_light, ambient, glow, cloud, water = _TIMES[conditions.time_of_day]
    values = np.zeros(NUM_VALUES)
    for index, colour in (
        (ZENITH, zenith),
        (HORIZON, horizon),
        (GLOW, glow),
        (CLOUD, cloud),
        (DEEP_WATER, water),
    ):
        values[index : index + 3] = np.asarray(colour) / 255.0
    values[SUN_LIGHT : SUN_LIGHT + 3] = sun_light
    values[AMBIENT : AMBIENT + 3] = ambient
    values[[CLOUD_AMOUNT, FOG_START, FOG_END, DISC]] = 1.0, 26.0, 62.0, 1.0
    values[STARS] = float(conditions.time_of_day == "night")
    if conditions.weather != "clear":
        red, green, blue = values[HORIZON : HORIZON + 3].tolist()
        grey = 0.3 * red + 0.55 * green + 0.15 * blue
        for index in (ZENITH, HORIZON, GLOW, CLOUD):
            colour = values[index : index + 3]
            colour += 0.8 * (grey * (0.86 if conditions.weather == "rain" else 1.0) - colour)
        values[SUN_LIGHT : SUN_LIGHT + 3] *= 0.25
        values[AMBIENT : AMBIENT + 3] *= 1.12
        values[[CLOUD_AMOUNT, STARS, DISC]] = 0.3, 0.0, 0.0
        values[[FOG_START, FOG_END]] = {
            "rain": (14.0, 50.0),
            "snow": (10.0, 44.0),
            "fog": (3.0, 24.0),
        }[conditions.weather]
    x, y, z = sun
    return Sky((np.array(sun) / np.sqrt(x * x + y * y + z * z)).round(9), values)
