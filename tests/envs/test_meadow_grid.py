"""Kernels compile anywhere, and cells lie where the other modules expect them."""

import numba.core.caching
import pytest

from reverie.envs.meadow import grid
from reverie.envs.meadow.grid import HEIGHT, MASK, SHIFT_X, SHIFT_Z, SIZE, cell_index, kernel


def add(a, b):
    return a + b


def test_kernels_compile_where_no_folder_can_be_written(monkeypatch):
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    assert kernel(add)(2, 3) == 5


def test_compiling_leaves_the_users_cache_folder_alone(monkeypatch):
    monkeypatch.setattr(grid._numba_settings, "CACHE_DIR", "mine")
    kernel(add)
    assert grid._numba_settings.CACHE_DIR == "mine"


@pytest.mark.parametrize("x", [-1, 0, SIZE - 1, SIZE])
@pytest.mark.parametrize("z", [-3, 5, SIZE + 7])
def test_cells_wrap_around_sideways(x, z):
    assert cell_index(x, 9, z) == ((x % SIZE) * SIZE + z % SIZE) * HEIGHT + 9
    assert (MASK + 1, 1 << SHIFT_X, 1 << SHIFT_Z) == (SIZE, SIZE * HEIGHT, HEIGHT)
