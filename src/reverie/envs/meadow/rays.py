"""Rays through the cells: one function for what the player sees, aims at, and what the sun
reaches.
"""

from __future__ import annotations

import numpy as np

from reverie.envs.meadow import blocks as b
from reverie.envs.meadow.grid import (
    DOWN,
    EAST,
    HEIGHT,
    MASK,
    NORTH,
    NUM_CELLS,
    SHIFT_X,
    SHIFT_Z,
    SOUTH,
    UP,
    WEST,
    kernel,
)

AIR_RAY = 0
"""Stops at everything, water included."""
WATER_RAY = 1
"""Starts in water and stops where it leaves it."""
SOLID_RAY = 2
"""Stops at everything but water: what the player aims at, and what throws a shadow."""

_HUGE = 1e30


@kernel
def small_box(block, part):
    """Box of a block that does not fill its cell, (x0, y0, z0, x1, y1, z1) in the cell; flowers
    have parts 0 head, 1 stem.
    """
    if block == b.DOOR_X:
        return 0.0, 0.0, 0.0, b.DOOR_DEPTH, 1.0, 1.0
    if block == b.DOOR_Z:
        return 0.0, 0.0, 0.0, 1.0, 1.0, b.DOOR_DEPTH
    if part == 0:
        return 0.36, 0.38, 0.36, 0.64, 0.6, 0.64
    return 0.45, 0.0, 0.45, 0.55, 0.38, 0.55


@kernel
def _slab(low, high, origin, inverse):
    near = (low - origin) * inverse
    far = (high - origin) * inverse
    if near > far:
        return far, near
    return near, far


@kernel
def hit_box(box, ox, oy, oz, ix, iy, iz):
    """Distance and face where a ray enters a box, (inf-like, -1) if it misses or starts inside.
    i* are inverse directions.
    """
    near_x, far_x = _slab(box[0], box[3], ox, ix)
    near_y, far_y = _slab(box[1], box[4], oy, iy)
    near_z, far_z = _slab(box[2], box[5], oz, iz)
    near = max(near_x, near_y, near_z)
    if near > min(far_x, far_y, far_z) or near < 0.0:
        return _HUGE, -1
    if near == near_x:
        return near, (WEST if ix > 0 else EAST)
    if near == near_y:
        return near, (DOWN if iy > 0 else UP)
    return near, (NORTH if iz > 0 else SOUTH)


@kernel
def _hit_small(block, x, y, z, ox, oy, oz, ix, iy, iz):
    """Distance, face and part where a ray meets the small block in cell (x, y, z)."""
    lx, ly, lz = ox - x, oy - y, oz - z
    t, face = hit_box(small_box(block, 0), lx, ly, lz, ix, iy, iz)
    part = 0
    if block >= b.FIRST_FLOWER:
        t_stem, face_stem = hit_box(small_box(block, 1), lx, ly, lz, ix, iy, iz)
        if t_stem < t:
            t, face, part = t_stem, face_stem, 1
    return t, face, part


@kernel
def _inside(point, cell, leap, inverse):
    """Cell of a point along one axis, kept inside the cube that the ray is leaping over."""
    at = int(np.floor(point))
    if inverse > 0:
        return min(max(at, cell), cell + leap - 1)
    return min(max(at, cell + 1 - leap), cell)


@kernel
def trace(cells, skip, ox, oy, oz, dx, dy, dz, limit, medium):
    """Follow a ray from (ox, oy, oz) along the unit vector (dx, dy, dz) to the first thing that
    stops it.

    medium: AIR_RAY, WATER_RAY or SOLID_RAY. Returns (t, x, y, z, face, part): distance, cell (not
    wrapped), face that was entered (-1: nothing within `limit`), and which part of a flower. The
    cell that the ray starts in stops it only if it holds a small block.
    """
    ix = 1.0 / dx if abs(dx) > 1e-9 else (1e9 if dx >= 0 else -1e9)
    iy = 1.0 / dy if abs(dy) > 1e-9 else (1e9 if dy >= 0 else -1e9)
    iz = 1.0 / dz if abs(dz) > 1e-9 else (1e9 if dz >= 0 else -1e9)
    x, y, z = int(np.floor(ox)), int(np.floor(oy)), int(np.floor(oz))
    octant = ((4 if ix > 0 else 0) + (2 if iy > 0 else 0) + (1 if iz > 0 else 0)) * NUM_CELLS
    t = 0.0
    face = -1
    while 0 <= y < HEIGHT and t < limit:
        cell = ((x & MASK) << SHIFT_X) | ((z & MASK) << SHIFT_Z) | y
        leap = int(skip[octant + cell])
        if leap == 0 or medium == WATER_RAY:
            leap = 1
            block = cells[cell]
            if block >= b.FIRST_SMALL:
                if medium == WATER_RAY:
                    return t, x, y, z, face, 0
                near, side, part = _hit_small(block, x, y, z, ox, oy, oz, ix, iy, iz)
                if side >= 0 and near < limit:
                    return near, x, y, z, side, part
            elif medium == WATER_RAY:
                if block != b.WATER and face >= 0:
                    return t, x, y, z, face, 0
            elif face >= 0 and not (block == b.WATER and medium == SOLID_RAY):
                return t, x, y, z, face, 0
        next_x = x + leap if ix > 0 else x + 1 - leap
        next_y = y + leap if iy > 0 else y + 1 - leap
        next_z = z + leap if iz > 0 else z + 1 - leap
        tx = (next_x - ox) * ix
        ty = (next_y - oy) * iy
        tz = (next_z - oz) * iz
        if tx <= ty and tx <= tz:
            t = tx
            x = next_x if ix > 0 else next_x - 1
            face = WEST if ix > 0 else EAST
            if leap > 1:
                y = _inside(oy + dy * t, y, leap, iy)
                z = _inside(oz + dz * t, z, leap, iz)
        elif ty <= tz:
            t = ty
            y = next_y if iy > 0 else next_y - 1
            face = DOWN if iy > 0 else UP
            if leap > 1:
                x = _inside(ox + dx * t, x, leap, ix)
                z = _inside(oz + dz * t, z, leap, iz)
        else:
            t = tz
            z = next_z if iz > 0 else next_z - 1
            face = NORTH if iz > 0 else SOUTH
            if leap > 1:
                x = _inside(ox + dx * t, x, leap, ix)
                y = _inside(oy + dy * t, y, leap, iy)
    return limit, x, y, z, -1, 0
