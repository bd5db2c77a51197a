"""Light and empty space, baked per cell so that the ray caster only looks them up.

`light` uint8 [NUM_CELLS, 4] holds, for cells that light can pass: direct sun (0 or 255), sky light (0..255, falling off in
caves), lamp light (0..255); the fourth byte is 1 where the cell blocks light. The renderer interpolates between the cells
next to a face, which gives soft shadows and dark corners for four look-ups a pixel.

`skip` uint8 [NUM_CELLS] is 0 in every cell that holds something, otherwise a number of cells n such that the cube of
cells nearer than n is empty: a ray may leap over it (see rays.py).

Both use columns of 64 cells as bits of one word: growing a region by a cell is a shift and a few ors.
"""

from __future__ import annotations

import numpy as np

from reverie.envs.meadow import blocks as b
from reverie.envs.meadow.grid import HEIGHT, MASK, NUM_CELLS, SHIFT_X, SHIFT_Z, SIZE, allocating_kernel, kernel
from reverie.envs.meadow.rays import SOLID_RAY, trace

MAX_SKIP = 20
LIGHT_REACH = 9
"""How many cells sky and lamp light travel into the dark."""
CRYSTAL_REACH = 5

_FULL = np.uint64(0xFFFFFFFFFFFFFFFF)
_ONE = np.uint64(1)


@kernel
def _columns(cells, opaque, lamps, crystals, solid):
    """Fill the bit columns [SIZE, SIZE] of a world: blocks light, shines, shines faintly, holds anything."""
    for x in range(SIZE):
        for z in range(SIZE):
            base = (x << SHIFT_X) | (z << SHIFT_Z)
            dark = np.uint64(0)
            lamp = np.uint64(0)
            crystal = np.uint64(0)
            full = np.uint64(0)
            for y in range(HEIGHT):
                block = cells[base + y]
                if block == b.AIR:
                    continue
                bit = _ONE << np.uint64(y)
                full |= bit
                if block == b.LAMP:
                    lamp |= bit
                elif block == b.CRYSTAL:
                    crystal |= bit
                if block != b.WATER and block < b.FIRST_SMALL:
                    dark |= bit
            opaque[x, z] = dark
            lamps[x, z] = lamp
            crystals[x, z] = crystal
            solid[x, z] = full


@allocating_kernel
def fill_skip(cells, skip):
    """Compute `skip` for a whole world: grow what is solid by one cell at a time and note when each cell is reached."""
    reached = np.zeros((SIZE, SIZE), np.uint64)
    opaque = np.zeros((SIZE, SIZE), np.uint64)
    lamps = np.zeros((SIZE, SIZE), np.uint64)
    crystals = np.zeros((SIZE, SIZE), np.uint64)
    _columns(cells, opaque, lamps, crystals, reached)
    for i in range(NUM_CELLS):
        skip[i] = 0 if cells[i] != b.AIR else MAX_SKIP
    rows = np.zeros((SIZE, SIZE), np.uint64)
    for distance in range(1, MAX_SKIP):
        for x in range(SIZE):
            for z in range(SIZE):
                column = reached[x, z] | reached[(x + 1) & MASK, z] | reached[(x - 1) & MASK, z]
                rows[x, z] = column | (column << _ONE) | (column >> _ONE)
        for x in range(SIZE):
            for z in range(SIZE):
                grown = rows[x, z] | rows[x, (z + 1) & MASK] | rows[x, (z - 1) & MASK]
                new = grown & ~reached[x, z]
                reached[x, z] = grown
                if new == 0:
                    continue
                base = (x << SHIFT_X) | (z << SHIFT_Z)
                for y in range(HEIGHT):
                    if (new >> np.uint64(y)) & _ONE:
                        skip[base + y] = distance


@kernel
def edit_skip(skip, x, y, z, filled):
    """Keep `skip` true after one cell changed. Removing a block leaves its neighbours careful, which is slow, not wrong."""
    centre = ((x & MASK) << SHIFT_X) | ((z & MASK) << SHIFT_Z) | y
    if not filled:
        skip[centre] = 1
        return
    reach = MAX_SKIP - 1
    for i in range(x - reach, x + reach + 1):
        for k in range(z - reach, z + reach + 1):
            base = ((i & MASK) << SHIFT_X) | ((k & MASK) << SHIFT_Z)
            flat = max(abs(i - x), abs(k - z))
            for j in range(max(0, y - reach), min(HEIGHT, y + reach + 1)):
                distance = max(flat, abs(j - y))
                if skip[base + j] > distance:
                    skip[base + j] = distance
    skip[centre] = 0


@allocating_kernel
def _spread(seeds, late_seeds, late, clear, light, channel, x0, z0, width, depth, margin):
    """Let light fall from `seeds` through `clear` cells, one step weaker per cell; write `channel` inside the margin.

    All bit columns are [width, depth] of the window whose corner is (x0, z0). `late_seeds` join after `late` steps.
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
                if step == late:
                    near |= late_seeds[i, k]
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
                    light[base + y, 3] = blocks_light
            clear[i, k] = ~dark
            sky[i, k] = _below_sky(dark)
    nothing = np.zeros((width, depth), np.uint64)
    _spread(sky, nothing, 0, clear, light, 1, x0, z0, width, depth, margin)
    late = LIGHT_REACH - CRYSTAL_REACH
    _spread(lamps, crystals, late, clear, light, 2, x0, z0, width, depth, margin)


@kernel
def fill_sun(cells, skip, light, sun):
    """Direct sun of every open cell that touches something; `sun` is the unit vector towards the sun, float64 [3]."""
    for x in range(SIZE):
        for z in range(SIZE):
            base = (x << SHIFT_X) | (z << SHIFT_Z)
            for y in range(HEIGHT):
                i = base + y
                if light[i, 3] or skip[i] > 1:
                    light[i, 0] = 255 if light[i, 3] == 0 else 0
                else:
                    light[i, 0] = _sunlit(cells, skip, x, y, z, sun)


@allocating_kernel
def fill_light(cells, skip, light, sun):
    """Compute the light of a whole world."""
    _light_window(cells, skip, light, sun, 0, 0, SIZE, SIZE, 0)
    fill_sun(cells, skip, light, sun)


@allocating_kernel
def edit_light(cells, skip, light, sun, x, y, z):
    """Recompute the light that one changed cell can have changed (call `edit_skip` first)."""
    reach = LIGHT_REACH + 1
    window = 4 * reach + 1
    _light_window(cells, skip, light, sun, x - 2 * reach, z - 2 * reach, window, window, reach)
    # The shadow of a cell falls along the sun's ray, at most as far as the ray needs to come down to the floor.
    for j in range(y + 1, -2, -1):
        if not 0 <= j < HEIGHT:
            continue
        fall = (y - j) / sun[1]
        centre_x, centre_z = x - sun[0] * fall, z - sun[2] * fall
        spread = 2 + int(2.0 / sun[1])
        for i in range(int(np.floor(centre_x)) - spread, int(np.floor(centre_x)) + spread + 2):
            for k in range(int(np.floor(centre_z)) - spread, int(np.floor(centre_z)) + spread + 2):
                cell = ((i & MASK) << SHIFT_X) | ((k & MASK) << SHIFT_Z) | j
                if light[cell, 3]:
                    light[cell, 0] = 0
                else:
                    light[cell, 0] = _sunlit(cells, skip, i, j, k, sun)
