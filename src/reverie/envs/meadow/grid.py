"""The size of a Meadow world, how its cells lie in memory, and the compiler of its kernels.

A world is one flat array of `SIZE * SIZE * HEIGHT` cells. It is a torus: walking east far enough
leads back to where you started, so there is no border to bump into. A column is contiguous
and 64 cells high, so that "is it solid?" of a column is one machine word (see light.py).

Axes: x grows east, y grows up, z grows south. Yaw 0 looks north (-z), yaw 90 looks east (+x).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba
import numba.core.config
import platformdirs

_numba_settings: Any = numba.core.config

SIZE = 128
HEIGHT = 64
NUM_CELLS = SIZE * SIZE * HEIGHT
MASK = SIZE - 1
SHIFT_X = 13
SHIFT_Z = 6
SEA = 22
"""Water fills open ground below this height."""

# The direction a face looks to; the order of `blocks.FACE_TEXTURES`.
WEST, EAST, DOWN, UP, NORTH, SOUTH = range(6)


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function that allocates nothing.

    Plain IEEE arithmetic (no fastmath), so that the same seed gives the same bits on every
    machine. Without numba's memory manager (`_nrt`): it would count references to every array at
    every call, which took more than half the time of a picture.

    The compiled code is cached on disk where some folder can be written and rebuilt by every
    process where none can.
    """
    return _compile(function, _nrt=False)


def inlined_kernel(function: Callable[..., Any]) -> Any:
    """`kernel` for a large function with one caller and many arrays: passing arrays to a call is
    what costs, so there is none.
    """
    return _compile(function, _nrt=False, inline="always")


def allocating_kernel(function: Callable[..., Any]) -> Any:
    """`kernel` for a function that makes arrays of its own, or that calls one."""
    return _compile(function)


def _compile(function: Callable[..., Any], **options: Any) -> Any:
    previous = _numba_settings.CACHE_DIR
    _numba_settings.CACHE_DIR = _cache_folder(previous)
    try:
        return numba.njit(cache=True, error_model="numpy", **options)(function)
    except RuntimeError:  # "cannot cache function: no locator available": no folder can be written
        return numba.njit(error_model="numpy", **options)(function)
    finally:
        _numba_settings.CACHE_DIR = previous


@lru_cache(maxsize=1)
def _cache_folder(chosen: str) -> str:
    """Where compiled kernels are kept: a folder of their own for every version of this package's
    sources.

    Numba by itself looks only at the age of the file that a function stands in, so it would go on
    using a kernel whose callee in another file has changed. chosen: what the user set as
    NUMBA_CACHE_DIR, or "".
    """
    sources = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        sources.update(path.read_bytes())
    base = Path(chosen) if chosen else platformdirs.user_cache_path("reverie")
    return str(base / f"meadow-{sources.hexdigest()[:16]}")


@kernel
def cell_index(x: int, y: int, z: int) -> int:
    """Flat index of a cell; x and z wrap around the torus, y must be in [0, HEIGHT)."""
    return ((x & MASK) << SHIFT_X) | ((z & MASK) << SHIFT_Z) | y


@kernel
def hash01(x: int, y: int, z: int, seed: int) -> float:
    """A fixed pseudo-random number in [0, 1) for three integers and a seed (32-bit mixing inside
    64-bit integers).
    """
    h = (x * 374761393 + y * 668265263 + z * 1274126177 + seed * 1103515245) & 0xFFFFFFFF
    h = ((h ^ (h >> 15)) * 739982445) & 0xFFFFFFFF
    h = ((h ^ (h >> 12)) * 695872825) & 0xFFFFFFFF
    return (h ^ (h >> 15)) * (1.0 / 4294967296.0)
