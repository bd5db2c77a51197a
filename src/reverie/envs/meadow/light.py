"""Light and empty space, baked per cell so that the ray caster only looks them up.

`light` uint8 [NUM_CELLS, 4] holds, for cells that light can pass: direct sun (0 or 255), sky
light (0..255, falling off in caves), lamp light (0..255), crystal light (0..254); the fourth byte
is OPAQUE where a cell blocks light. The renderer interpolates between the cells next to a face,
which gives soft shadows and dark corners for four look-ups a pixel.

`skip` uint8 [8 * NUM_CELLS] says, for each of the eight octants that a ray can travel in, the
side of the largest empty cube that has the cell in its near corner (0: the cell holds something):
a ray leaps over it at once (see rays.py).

Light spreads in columns of 64 cells held as bits of one word: growing a region by a cell is a
shift and a few ors.
"""

from __future__ import annotations

import numpy as np

from reverie.envs.meadow import blocks as b
from reverie.envs.meadow.grid import (
    HEIGHT,
    MASK,
    NUM_CELLS,
    SHIFT_X,
    SHIFT_Z,
    SIZE,
    allocating_kernel,
    kernel,
)
from reverie.envs.meadow.rays import SOLID_RAY, trace

MAX_SKIP = 24
LIGHT_REACH = 9
"""How many cells sky and lamp light travel into the dark."""
OPAQUE = 255

_FULL = np.uint64(0xFFFFFFFFFFFFFFFF)
_ONE = np.uint64(1)


@kernel
def _fill_octant(cells, skip, octant):
    """The side of an empty cube is one more than the smallest of those ahead of it: a single
    sweep against the octant.

    The sweep goes a little further than once around the torus, to correct what began without a
    neighbour.
    """
    sx, sy, sz = (1 if octant & 4 else -1), (1 if octant & 2 else -1), (1 if octant & 1 else -1)
    base = octant * NUM_CELLS
    for a in range(SIZE + MAX_SKIP):
        x = (-a if sx > 0 else a) & MASK
        for k in range(SIZE + MAX_SKIP):
            z = (-k if sz > 0 else k) & MASK
            own = (x << SHIFT_X) | (z << SHIFT_Z)
            ahead_x = base + ((((x + sx) & MASK) << SHIFT_X) | (z << SHIFT_Z))
            ahead_z = base + ((x << SHIFT_X) | (((z + sz) & MASK) << SHIFT_Z))
            ahead_xz = base + ((((x + sx) & MASK) << SHIFT_X) | (((z + sz) & MASK) << SHIFT_Z))
            # Above the world everything is empty; below it lies a floor of bedrock, so nothing is
            # asked there.
            above = MAX_SKIP if sy > 0 else 0
            column_above = above
            for j in range(HEIGHT):
                y = HEIGHT - 1 - j if sy > 0 else j
                beside = min(min(skip[ahead_x + y], skip[ahead_z + y]), skip[ahead_xz + y])
                if cells[own + y] != b.AIR:
                    column_above = 0
                else:
                    column_above = min(min(beside, above), min(column_above, MAX_SKIP - 1)) + 1
                skip[base + own + y] = column_above
                above = beside


@kernel
def fill_skip(cells, skip):
    """Compute `skip` for a whole world."""
    for octant in range(8):
        for i in range(NUM_CELLS):
            skip[octant * NUM_CELLS + i] = MAX_SKIP
        _fill_octant(cells, skip, octant)


@kernel
def edit_skip(skip, x, y, z, filled):
    """Keep `skip` true after one cell changed. Removing a block leaves its neighbours careful,
    which is slow, not wrong.
    """
    centre = ((x & MASK) << SHIFT_X) | ((z & MASK) << SHIFT_Z) | y
    for octant in range(8):
        base = octant * NUM_CELLS
        if not filled:
            skip[base + centre] = 1
            continue
        sx, sy, sz = (1 if octant & 4 else -1), (1 if octant & 2 else -1), (1 if octant & 1 else -1)
        for i in range(MAX_SKIP):
            for k in range(MAX_SKIP):
                column = base + (
                    (((x - sx * i) & MASK) << SHIFT_X) | (((z - sz * k) & MASK) << SHIFT_Z)
                )
                for j in range(MAX_SKIP):
                    level = y - sy * j
                    if 0 <= level < HEIGHT:
                        side = max(max(i, k), j)
                        if skip[column + level] > side:
                            skip[column + level] = side


@kernel
def _touches_nothing(skip, cell):
    nearest = MAX_SKIP
    for octant in range(8):
        nearest = min(nearest, skip[octant * NUM_CELLS + cell])
    return nearest >= 2


@allocating_kernel
def _spread(seeds, clear, light, channel, x0, z0, width, depth, margin):
    """Let light fall from `seeds` through `clear` cells, one step weaker per cell; write
    `channel` inside the margin.

    All bit columns are [width, depth] of the window whose corner is (x0, z0).
    """
    wraps = width == SIZE
    lit = np.zeros((width, depth), np.uint64)
    grown = np.zeros((width, depth), np.uint64)
    for step in range(LIGHT_REACH + 1):
        level = np.uint8((255 * (LIGHT_REACH + 1 - step)) // (LIGHT_REACH + 1))
        for i in range(width):
            for k in range(depth):
                column = lit[i, k]
                near = column | (column << _ONE) | (column >> _ONE)
                for side in range(4):
                    a = i + (side == 0) - (side == 1)
                    c = k + (side == 2) - (side == 3)
                    if wraps:
                        near |= lit[a & MASK, c & MASK]
                    elif 0 <= a < width and 0 <= c < depth:
                        near |= lit[a, c]
                near &= clear[i, k]
                if step == 0:
                    near |= seeds[i, k]
                grown[i, k] = near | column
        for i in range(width):
            for k in range(depth):
                new = grown[i, k] & ~lit[i, k]
                lit[i, k] = grown[i, k]
                inside = margin <= i < width - margin and margin <= k < depth - margin
                if new == 0 or not inside:
                    continue
                base = (((x0 + i) & MASK) << SHIFT_X) | (((z0 + k) & MASK) << SHIFT_Z)
                for y in range(HEIGHT):
                    if (new >> np.uint64(y)) & _ONE:
                        light[base + y, channel] = level


@kernel
def _below_sky(opaque):
    """Bits of the cells of one column that see the sky straight above."""
    open_bits = ~opaque
    shade = opaque
    for step in (1, 2, 4, 8, 16, 32):
        shade |= shade >> np.uint64(step)
    return open_bits & ~shade


@kernel
def _sunlit(cells, skip, x, y, z, sun):
    hit = trace(cells, skip, x + 0.5, y + 0.5, z + 0.5, sun[0], sun[1], sun[2], 80.0, SOLID_RAY)
    return 255 if hit[4] < 0 else 0


@allocating_kernel
def _light_window(cells, skip, light, sun, x0, z0, width, depth, margin):
    """Recompute the light of a window of columns, writing all but its outer `margin` columns."""
    clear = np.zeros((width, depth), np.uint64)
    sky = np.zeros((width, depth), np.uint64)
    lamps = np.zeros((width, depth), np.uint64)
    crystals = np.zeros((width, depth), np.uint64)
    for i in range(width):
        for k in range(depth):
            base = (((x0 + i) & MASK) << SHIFT_X) | (((z0 + k) & MASK) << SHIFT_Z)
            dark = np.uint64(0)
            inside = margin <= i < width - margin and margin <= k < depth - margin
            for y in range(HEIGHT):
                block = cells[base + y]
                bit = _ONE << np.uint64(y)
                blocks_light = block > b.WATER and block < b.FIRST_SMALL
                if blocks_light:
                    dark |= bit
                if block == b.LAMP:
                    lamps[i, k] |= bit
                elif block == b.CRYSTAL:
                    crystals[i, k] |= bit
                if inside:
                    light[base + y, 1] = 0
                    light[base + y, 2] = 0
                    light[base + y, 3] = 0
            clear[i, k] = ~dark
            sky[i, k] = _below_sky(dark)
    _spread(sky, clear, light, 1, x0, z0, width, depth, margin)
    _spread(lamps, clear, light, 2, x0, z0, width, depth, margin)
    _spread(crystals, clear, light, 3, x0, z0, width, depth, margin)
    for i in range(margin, width - margin):
        for k in range(margin, depth - margin):
            base = (((x0 + i) & MASK) << SHIFT_X) | (((z0 + k) & MASK) << SHIFT_Z)
            for y in range(HEIGHT):
                if not (clear[i, k] >> np.uint64(y)) & _ONE:
                    light[base + y, 3] = OPAQUE


@kernel
def fill_sun(cells, skip, light, sun):
    """Direct sun of every open cell that touches something; `sun` is the unit vector towards the
    sun, float64 [3].
    """
    for x in range(SIZE):
        for z in range(SIZE):
            base = (x << SHIFT_X) | (z << SHIFT_Z)
            for y in range(HEIGHT):
                i = base + y
                if light[i, 3] == OPAQUE:
                    light[i, 0] = 0
                elif _touches_nothing(skip, i):
                    light[i, 0] = 255
                else:
                    light[i, 0] = _sunlit(cells, skip, x, y, z, sun)


@allocating_kernel
def fill_light(cells, skip, light, sun):
    """Compute the light of a whole world."""
    _light_window(cells, skip, light, sun, 0, 0, SIZE, SIZE, 0)
    fill_sun(cells, skip, light, sun)


@kernel
def _edit_sun(cells, skip, light, sun, x0, x1, y, z0, z1):
    """Direct sun of the cells of one level, x0..x1 and z0..z1 with both ends."""
    for x in range(x0, x1 + 1):
        for z in range(z0, z1 + 1):
            cell = ((x & MASK) << SHIFT_X) | ((z & MASK) << SHIFT_Z) | y
            if light[cell, 3] == OPAQUE:
                light[cell, 0] = 0
            else:
                light[cell, 0] = _sunlit(cells, skip, x, y, z, sun)


@allocating_kernel
def edit_light(cells, skip, light, sun, x, y, z):
    """Recompute the light that one changed cell can have changed (call `edit_skip` first)."""
    reach = LIGHT_REACH + 1
    window = 4 * reach + 1
    _light_window(cells, skip, light, sun, x - 2 * reach, z - 2 * reach, window, window, reach)
    # Cells that begin to touch something get their sun now (see fill_sun).
    for j in range(max(0, y - 1), min(HEIGHT, y + 2)):
        _edit_sun(cells, skip, light, sun, x - 1, x + 1, j, z - 1, z + 1)
    # The shadow of a cell falls along the sun's ray, down to the floor.
    spread = 1 + int(0.5 + 0.5 / sun[1])
    for j in range(min(y + 1, HEIGHT - 1), -1, -1):
        fall = (y - j) / sun[1]
        i, k = int(np.floor(x - sun[0] * fall)), int(np.floor(z - sun[2] * fall))
        _edit_sun(
            cells, skip, light, sun, i - spread, i + spread + 1, j, k - spread, k + spread + 1
        )
