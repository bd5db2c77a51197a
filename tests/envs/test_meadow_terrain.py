"""Worlds that come out of a seed."""

import numpy as np
import pytest

from reverie.envs.meadow import blocks as b
from reverie.envs.meadow import terrain
from reverie.envs.meadow.grid import HEIGHT, SEA, SIZE, cell_index


@pytest.fixture(scope="module")
def worlds():
    return [terrain.generate(seed) for seed in range(12)]


def test_every_world_stands_on_bedrock_and_has_air_above(worlds):
    for cells in worlds:
        columns = cells.reshape(SIZE, SIZE, HEIGHT)
        assert (columns[:, :, 0] == b.BEDROCK).all()
        assert (columns[:, :, -2:] == b.AIR).all()


def test_water_lies_below_the_sea_level(worlds):
    for cells in worlds:
        height = np.flatnonzero(cells == b.WATER) % HEIGHT
        assert (height < SEA).all()


def test_no_water_hangs_beside_air(worlds):
    for cells in worlds:
        columns = cells.reshape(SIZE, SIZE, HEIGHT)
        water = columns == b.WATER
        for axis in (0, 1):
            for step in (1, -1):
                assert not (water & (np.roll(columns, step, axis) == b.AIR)).any()


def test_all_kinds_of_things_are_found_somewhere(worlds):
    seen = set(np.unique(np.concatenate(worlds)).tolist())
    assert set(range(b.NUM_BLOCKS)) - seen == {b.LAMP_OFF, b.DOOR_X}


def test_the_player_starts_on_dry_open_ground(worlds):
    for seed, cells in enumerate(worlds):
        x, y, z = terrain.find_spawn(seed, cells)
        assert cells[cell_index(x, y - 1, z)] in (b.TURF, b.SAND, b.SNOW)
        assert (cells[cell_index(x, y, z) : cell_index(x, HEIGHT - 1, z) + 1] == b.AIR).all()


def test_the_world_has_no_seam():
    heights = np.zeros((SIZE, SIZE), np.int64)
    biomes = np.zeros((SIZE, SIZE), np.int64)
    for seed in range(6):
        terrain.shape_ground(seed, heights, biomes)
        for axis in (0, 1):
            steps = np.abs(heights - np.roll(heights, 1, axis))
            seam = steps.take(0, axis).mean()
            assert seam < 2.5 * steps.mean() + 0.1
