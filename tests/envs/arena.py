"""A bare place in the sky of a Meadow world, so that a test says what stands where."""

import numpy as np

from reverie.core import Action
from reverie.envs.meadow import MEADOW_ACTIONS, Meadow, light
from reverie.envs.meadow import blocks as b
from reverie.envs.meadow.grid import cell_index

FLOOR = 50
"""Height of the floor's cells; the player's feet start at FLOOR + 1."""
MIDDLE = 64


def arena(
    blocks: dict[tuple[int, int, int], int] | None = None,
    *,
    floor: int = b.STONE,
    yaw: float = 0.0,
    pitch: float = 0.0,
    **options,
) -> Meadow:
    """A player in the middle of a floor of 41 x 41.

    blocks: (east, up, south) of the cell that the player's feet are in -> block.
    """
    meadow = Meadow(0, 80, 48, **options)
    for x in range(MIDDLE - 20, MIDDLE + 21):
        for z in range(MIDDLE - 20, MIDDLE + 21):
            base = cell_index(x, 0, z)
            meadow.cells[base + FLOOR - 4 : base + 64] = b.AIR
            meadow.cells[base + FLOOR - 1 : base + FLOOR + 1] = floor
    for (east, up, south), block in (blocks or {}).items():
        meadow.cells[cell_index(MIDDLE + east, FLOOR + 1 + up, MIDDLE + south)] = block
    light.fill_skip(meadow.cells, meadow._skip)
    light.fill_light(meadow.cells, meadow._skip, meadow._light, meadow._new.sky.sun)
    meadow.place_player((MIDDLE + 0.5, FLOOR + 1.0, MIDDLE + 0.5), yaw, pitch)
    return meadow


def act(meadow: Meadow, keys: str = "", ticks: int = 1, slot: int = 1, mouse=(0.0, 0.0)) -> None:
    """Hold some keys, named in one string ("forward jump"), for some ticks."""
    vector = MEADOW_ACTIONS.encode(Action(keys.split(), mouse, slot))
    for _ in range(ticks):
        meadow.advance(vector)


def at(meadow: Meadow, east: int, up: int, south: int) -> int:
    """The block in a cell, counted as in `arena`."""
    return meadow.block(MIDDLE + east, FLOOR + 1 + up, MIDDLE + south)


def changed_cells(before: np.ndarray, meadow: Meadow) -> int:
    return int((before != meadow.cells).sum())
