"""Light and empty space are kept true cell by cell: the same as baking the whole world anew."""

import numpy as np
import pytest

from reverie.envs.meadow import Conditions, Meadow, light
from reverie.envs.meadow import blocks as b
from reverie.envs.meadow.grid import HEIGHT, NUM_CELLS, SIZE, cell_index


def edited(seed: int, conditions: Conditions) -> Meadow:
    """A world in which random cells near the surface were dug out, filled, and lit."""
    meadow = Meadow(seed, 80, 48, conditions)
    rng = np.random.default_rng(seed)
    x, y, z = (int(value) for value in meadow.info()["position"])
    for _ in range(60):
        i, j, k = rng.integers(-9, 10, 3) + np.array((x, y, z))
        block = rng.choice([b.AIR, b.AIR, b.STONE, b.LAMP, b.WATER, b.FLOWER_RED])
        meadow._put(int(i), int(np.clip(j, 1, HEIGHT - 1)), int(k), int(block))
    return meadow


@pytest.mark.parametrize("time_of_day", ["day", "dusk"])
def test_light_after_edits_is_the_light_of_a_world_baked_anew(time_of_day):
    meadow = edited(3, Conditions(time_of_day))
    baked = np.zeros_like(meadow._light)
    skip = np.empty(8 * NUM_CELLS, np.uint8)
    light.fill_skip(meadow.cells, skip)
    light.fill_light(meadow.cells, skip, baked, meadow._new.sky.sun)
    np.testing.assert_array_equal(meadow._light[:, 1:], baked[:, 1:])
    # Sun is only kept where it is looked up: in cells that touch something.
    touching = np.stack([skip.reshape(8, -1)]).min((0, 1)) < 2
    np.testing.assert_array_equal(meadow._light[touching, 0], baked[touching, 0])


def test_a_leap_never_jumps_over_a_block():
    meadow = edited(4, Conditions())
    skip = np.empty(8 * NUM_CELLS, np.uint8)
    light.fill_skip(meadow.cells, skip)
    assert (meadow._skip <= skip).all()
    assert ((meadow._skip == 0) == np.tile(meadow.cells != b.AIR, 8)).all()


def test_empty_cubes_are_as_large_as_they_can_be():
    meadow = Meadow(0, 80, 48)
    rng = np.random.default_rng(0)
    columns = np.pad(meadow.cells.reshape(SIZE, SIZE, HEIGHT), ((0, 0), (0, 0), (0, 64)))

    def is_empty(corner, octant: int, side: int) -> bool:
        reach = np.arange(side)
        x, y, z = (
            at + (reach if octant & bit else -reach)
            for at, bit in zip(corner, (4, 2, 1), strict=True)
        )
        return not columns[np.ix_(x % SIZE, z % SIZE, y)].any()

    for _ in range(300):
        corner = [int(value) for value in rng.integers(0, (SIZE, HEIGHT, SIZE))]
        octant = int(rng.integers(8))
        side = int(meadow._skip[octant * NUM_CELLS + cell_index(*corner)])
        assert is_empty(corner, octant, side)
        assert side == light.MAX_SKIP or not is_empty(corner, octant, side + 1)
