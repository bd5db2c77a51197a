"""Meadow draws the same bits everywhere: recorded data is only a seed and a list of actions.

If a test here fails because Meadow was changed on purpose, every episode recorded before will be
drawn differently: say so in the changelog and replace the digests by those in the failure.
"""

import hashlib

import pytest

from reverie.core import Action
from reverie.envs.meadow import MEADOW_ACTIONS, Conditions, Meadow

SCRIPT = (  # keys, camera turn per tick, slot, ticks
    ("forward sprint", (4.0, 1.0), 1, 12),
    ("forward jump", (-6.0, 2.0), 2, 10),
    ("break", (0.0, 6.0), 2, 18),
    ("use", (3.0, 0.0), 5, 12),
    ("back left jump", (-9.0, -3.0), 6, 14),
    ("use right", (1.5, 4.5), 6, 14),
)
GOLDEN = {  # seed, time of day, weather, season, width, height
    (0, "day", "clear", "summer", 160, 96): "0df94e5a0f5a7b31",
    (1, "day", "clear", "summer", 160, 96): "68f0c9ed68f2cabc",
    (2, "day", "clear", "summer", 160, 96): "46026f554d4bdfb8",
    (3, "day", "clear", "summer", 160, 96): "e1d029c62b3e9c7e",
    (4, "day", "clear", "summer", 160, 96): "b2b63a1bdc0b0ab8",
    (5, "day", "clear", "summer", 160, 96): "ff45d367233d3756",
    (11, "dusk", "clear", "autumn", 160, 96): "41aaf5508e22a72f",
    (12, "night", "rain", "spring", 160, 96): "5b18d357050eb34f",
    (13, "dawn", "snow", "winter", 160, 96): "5892c30bf6d836d2",
    (4, "day", "fog", "summer", 320, 192): "b0289e43f32103a3",
}


def play(seed: int, conditions: Conditions, width: int, height: int) -> str:
    """One digest over every seventh picture and over the world that is left."""
    digest = hashlib.sha256()
    meadow = Meadow(seed, width, height, conditions)
    for keys, mouse, slot, ticks in SCRIPT:
        vector = MEADOW_ACTIONS.encode(Action(keys.split(), mouse, slot))
        for _ in range(ticks):
            meadow.advance(vector)
            if meadow.tick % 7 == 0:
                digest.update(meadow.render().tobytes())
    digest.update(meadow.cells.tobytes())
    return digest.hexdigest()[:16]


@pytest.mark.parametrize("case", GOLDEN, ids=str)
def test_pictures_are_the_same_everywhere(case):
    seed, time_of_day, weather, season, width, height = case
    assert play(seed, Conditions(time_of_day, weather, season), width, height) == GOLDEN[case]
