"""Makes a Meadow world from a seed: hills and biomes, water, caves, trees, flowers, huts.

Everything is value noise on a lattice that divides the torus, so the world has no seam.
"""

from __future__ import annotations

import numpy as np

from reverie.envs.meadow import blocks as b
from reverie.envs.meadow.grid import HEIGHT, MASK, NUM_CELLS, SEA, SIZE, cell_index, hash01, kernel

MEADOW, FOREST, DESERT, SNOWY = range(4)
BIOMES = ("meadow", "forest", "desert", "snowy")


@kernel
def smoothstep(low, high, value):
    """0 below `low`, 1 above `high`, smooth between (`low` may be the greater one)."""
    s = min(max((value - low) / (high - low), 0.0), 1.0)
    return s * s * (3.0 - 2.0 * s)


@kernel
def noise2(x, z, cells, seed):
    """Value noise in [-1, 1] with `cells` lattice cells around the torus."""
    u, v = x * cells / SIZE, z * cells / SIZE
    i, k = int(np.floor(u)), int(np.floor(v))
    fu, fv = u - i, v - k
    fu, fv = fu * fu * (3 - 2 * fu), fv * fv * (3 - 2 * fv)
    i0, i1, k0, k1 = i % cells, (i + 1) % cells, k % cells, (k + 1) % cells
    near = hash01(i0, cells, k0, seed) * (1 - fu) + hash01(i1, cells, k0, seed) * fu
    far = hash01(i0, cells, k1, seed) * (1 - fu) + hash01(i1, cells, k1, seed) * fu
    return 2.0 * (near * (1 - fv) + far * fv) - 1.0


@kernel
def hills(x, z, cells, octaves, seed):
    """Octaves of `noise2`, each twice as fine and half as strong; about [-1, 1]."""
    total, weight = 0.0, 1.0
    for octave in range(octaves):
        total += weight * noise2(x, z, cells, seed + octave)
        weight *= 0.5
        cells = 2 * cells + 1
    return total * 0.62


@kernel
def _noise3(x, y, z, cells, seed):
    u, v, w = x * cells / SIZE, y * cells / SIZE, z * cells / SIZE
    i, j, k = int(np.floor(u)), int(np.floor(v)), int(np.floor(w))
    fu, fv, fw = u - i, v - j, w - k
    fu, fv, fw = fu * fu * (3 - 2 * fu), fv * fv * (3 - 2 * fv), fw * fw * (3 - 2 * fw)
    i0, i1, k0, k1 = i % cells, (i + 1) % cells, k % cells, (k + 1) % cells
    total = 0.0
    for layer in range(2):
        near = hash01(i0, j + layer, k0, seed) * (1 - fu) + hash01(i1, j + layer, k0, seed) * fu
        far = hash01(i0, j + layer, k1, seed) * (1 - fu) + hash01(i1, j + layer, k1, seed) * fu
        total += (near * (1 - fw) + far * fw) * (fv if layer else 1 - fv)
    return 2.0 * total - 1.0


@kernel
def shape_ground(seed, heights, biomes):
    """Fill int64 [SIZE, SIZE] `heights` (first free cell above ground) and `biomes`."""
    for x in range(SIZE):
        for z in range(SIZE):
            warmth = noise2(x, z, 2, seed + 11) * 0.6 + noise2(x, z, 3, seed + 12) * 0.5
            wet = noise2(x, z, 3, seed + 21) * 0.7 + noise2(x, z, 5, seed + 22) * 0.4
            snowy = smoothstep(0.16, 0.45, -warmth)
            desert = smoothstep(0.2, 0.42, warmth) * smoothstep(0.25, 0.0, wet)
            height = SEA + 3.4 + 4.0 * hills(x, z, 3, 3, seed + 31)
            peak = max(0.0, hills(x, z, 4, 2, seed + 41) + 0.1)
            height += snowy * (2.0 + 18.0 * peak * peak)
            height += desert * (1.5 + 1.6 * hills(x, z, 6, 2, seed + 51))
            knoll = smoothstep(0.3, 0.85, hills(x, z, 5, 2, seed + 61))
            height += (1.0 - desert) * 8.0 * knoll
            lake = smoothstep(
                0.28, 0.62, noise2(x, z, 4, seed + 71) * 0.8 + noise2(x, z, 7, seed + 72) * 0.3
            )
            height -= 9.0 * lake
            heights[x, z] = min(max(int(np.floor(height)), 8), HEIGHT - 14)
            # Biomes mix at their borders, in what grows there but not in the height.
            ragged = 0.25 * (hash01(x, 1, z, seed) - 0.5)
            biome = MEADOW
            if snowy + ragged > 0.5:
                biome = SNOWY
            elif desert + ragged > 0.5:
                biome = DESERT
            elif wet + 0.3 * ragged > 0.12:
                biome = FOREST
            biomes[x, z] = biome


@kernel
def _is_cave(x, y, z, seed):
    """Winding tunnels: where two noises are both near zero."""
    first = _noise3(x, y * 1.6, z, 9, seed + 81)
    if abs(first) > 0.16:
        return False
    return abs(_noise3(x, y * 1.6, z, 9, seed + 82)) < 0.2


@kernel
def _ground_block(depth, ground, biome):
    """Block at `depth` below the surface (0 is the top) of a column whose top is at `ground`."""
    if biome == DESERT:
        return b.SAND if depth < 3 else (b.SANDSTONE if depth < 6 else b.STONE)
    if ground <= SEA:
        return b.SAND if depth < 3 else b.STONE
    if depth == 0:
        return b.SNOW if biome == SNOWY else b.TURF
    if biome == SNOWY:
        return b.STONE
    return b.EARTH if depth < 4 else b.STONE


@kernel
def fill_ground(seed, heights, biomes, cells):
    """Ground, water and caves."""
    for x in range(SIZE):
        for z in range(SIZE):
            top = heights[x, z] - 1
            steep = 0
            for side in range(4):
                nx, nz = x + (side == 0) - (side == 1), z + (side == 2) - (side == 3)
                steep = max(steep, abs(heights[nx & MASK, nz & MASK] - heights[x, z]))
            wet_around = False
            for i in range(-2, 3):
                for k in range(-2, 3):
                    wet_around |= heights[(x + i) & MASK, (z + k) & MASK] <= SEA
            base = cell_index(x, 0, z)
            for y in range(max(top + 1, SEA)):
                if y == 0:
                    block = b.BEDROCK
                elif y > top:
                    block = b.WATER
                else:
                    block = _ground_block(top - y, top, biomes[x, z])
                    if steep > 2 and biomes[x, z] != DESERT and top > SEA and block != b.SNOW:
                        block = b.STONE
                    depth_needed = 5 if wet_around else (0 if steep > 1 else 4)
                    if 2 < y <= top - depth_needed and _is_cave(x, y, z, seed):
                        glow = hash01(x, y, z, seed + 91) < 0.012
                        block = b.CRYSTAL if glow and top - y > 6 else b.AIR
                cells[base + y] = block


@kernel
def _put(cells, x, y, z, block, over_leaves):
    i = cell_index(x, y, z)
    old = cells[i]
    is_leaf = b.LEAVES_OAK <= old <= b.LEAVES_PINE
    if old == b.AIR or old >= b.FIRST_FLOWER or (over_leaves and is_leaf):
        cells[i] = block


@kernel
def _round_tree(cells, x, y, z, log, leaves, trunk, radius, seed):
    """A trunk under a ball of leaves."""
    centre = y + trunk
    for i in range(-3, 4):
        for k in range(-3, 4):
            for j in range(-2, 4):
                away = i * i + k * k + 1.3 * j * j
                ragged = 0.9 * (hash01(x + i, centre + j, z + k, seed) - 0.5)
                if away < (radius + ragged) * (radius + ragged):
                    _put(cells, x + i, centre + j, z + k, leaves, False)
    for j in range(trunk + 1):
        _put(cells, x, y + j, z, log, True)


@kernel
def _pine(cells, x, y, z, trunk):
    """A cone of leaves in skirts, narrow and wide by turns."""
    for j in range(2, trunk + 2):
        from_top = trunk + 1 - j
        reach = min(3.0, 0.5 + 0.42 * from_top) - (
            0.8 if from_top % 2 == 1 and from_top > 1 else 0.0
        )
        for i in range(-3, 4):
            for k in range(-3, 4):
                if i * i + k * k <= reach * reach + 0.3:
                    _put(cells, x + i, y + j, z + k, b.LEAVES_PINE, False)
    for j in range(trunk):
        _put(cells, x, y + j, z, b.LOG_PINE, True)


@kernel
def _plant_tree(cells, x, y, z, biome, seed):
    kind = hash01(x, 3, z, seed)
    grow = hash01(x, 4, z, seed)
    if biome == SNOWY:
        _pine(cells, x, y, z, 6 + int(4 * grow))
    elif biome == DESERT:
        for j in range(2 + int(2 * grow)):
            _put(cells, x, y + j, z, b.CACTUS, False)
    elif kind < 0.3:
        _round_tree(cells, x, y, z, b.LOG_BIRCH, b.LEAVES_BIRCH, 5 + int(2 * grow), 2.1, seed)
    elif kind < 0.42 and biome == FOREST:
        _pine(cells, x, y, z, 6 + int(4 * grow))
    else:
        _round_tree(
            cells, x, y, z, b.LOG_OAK, b.LEAVES_OAK, 4 + int(2 * grow), 2.4 + 0.6 * grow, seed
        )


@kernel
def plant(seed, heights, biomes, cells):
    """Trees on a jittered grid, so that one can always walk between them; flowers in patches."""
    for gx in range(0, SIZE, 4):
        for gz in range(0, SIZE, 4):
            x = gx + int(3.99 * hash01(gx, 5, gz, seed))
            z = gz + int(3.99 * hash01(gx, 6, gz, seed))
            biome, y = biomes[x, z], heights[x, z]
            ground = cells[cell_index(x, y - 1, z)]
            if y <= SEA + 1 or not (ground == b.TURF or ground == b.SNOW or ground == b.SAND):
                continue
            grove = noise2(x, z, 9, seed + 101)
            chance = 0.06 + 0.16 * max(0.0, grove)
            if biome == FOREST:
                chance = 0.42 + 0.3 * grove
            elif biome == SNOWY:
                chance = 0.16 + 0.22 * grove
            elif biome == DESERT:
                chance = 0.06
            if hash01(gx, 7, gz, seed) < chance:
                _plant_tree(cells, x, y, z, biome, seed)
    for x in range(SIZE):
        for z in range(SIZE):
            y = heights[x, z]
            i = cell_index(x, y, z)
            if cells[i - 1] != b.TURF or cells[i] != b.AIR or biomes[x, z] == SNOWY:
                continue
            patch = noise2(x, z, 15, seed + 111)
            if patch > 0.3 and hash01(x, 8, z, seed) < 0.13 * (patch + 0.2):
                kind = noise2(x, z, 7, seed + 112) + 0.6 * (hash01(x, 9, z, seed) - 0.5)
                cells[i] = (
                    b.FLOWER_RED
                    if kind < -0.15
                    else (b.FLOWER_YELLOW if kind < 0.25 else b.FLOWER_BLUE)
                )


@kernel
def _site_is_good(heights, biomes, x, z):
    low, high = HEIGHT, 0
    for i in range(-4, 5):
        for k in range(-4, 5):
            y = heights[(x + i) & MASK, (z + k) & MASK]
            low, high = min(low, y), max(high, y)
    return low > SEA + 1 and high - low <= 2


@kernel
def _build_hut(cells, x, y, z, brick):
    """A hut of 7 x 7 with a stepped roof, a door to the south and a lamp inside.

    `y` is the first free cell above the floor.
    """
    wall = b.BRICK if brick else b.PLANKS
    for i in range(-4, 5):
        for k in range(-4, 5):
            inside = max(abs(i), abs(k)) <= 3
            for j in range(-4, 12):
                block = b.AIR
                if j < 0:
                    block = b.EARTH if j < -1 else (b.PLANKS if inside else b.TURF)
                    if j < -1 and cells[cell_index(x + i, y + j, z + k)] != b.AIR:
                        continue
                elif inside and j < 4:
                    edge_i, edge_k = abs(i) == 3, abs(k) == 3
                    if edge_i and edge_k:
                        block = b.LOG_OAK
                    elif edge_i or edge_k:
                        window = j == 2 and abs(i if edge_k else k) == 1 and k != 3
                        block = b.AIR if window else wall
                cells[cell_index(x + i, y + j, z + k)] = block
    for step in range(5):
        for i in range(-4 + step, 5 - step):
            for k in range(-4, 5):
                edge = abs(i) == 4 - step
                gable = abs(k) == 3
                if edge or step == 4:
                    cells[cell_index(x + i, y + 3 + step, z + k)] = b.SHINGLE
                elif gable and step > 0:
                    cells[cell_index(x + i, y + 3 + step, z + k)] = wall
    for j in range(2):
        cells[cell_index(x, y + j, z + 3)] = b.DOOR_Z
    cells[cell_index(x + 2, y, z - 2)] = b.LAMP
    cells[cell_index(x + 1, y + 2, z + 4)] = b.LAMP


@kernel
def build_huts(seed, heights, biomes, cells):
    """Up to three huts on flat dry ground."""
    built = 0
    for attempt in range(400):
        x = int(SIZE * hash01(attempt, 1, 0, seed + 121))
        z = int(SIZE * hash01(attempt, 2, 0, seed + 121))
        if not _site_is_good(heights, biomes, x, z):
            continue
        y = heights[x, z]
        _build_hut(cells, x, y, z, biomes[x, z] != FOREST and hash01(attempt, 3, 0, seed) < 0.5)
        for i in range(-4, 5):
            for k in range(-4, 5):
                heights[(x + i) & MASK, (z + k) & MASK] = SEA  # not a site for the next one
        built += 1
        if built == 3:
            return


@kernel
def find_spawn(seed, cells):
    """A dry column under the open sky: (x, y, z) of the cell for the feet."""
    best = (0, HEIGHT - 3, 0)
    for attempt in range(2000):
        x = int(SIZE * hash01(attempt, 4, 0, seed + 131))
        z = int(SIZE * hash01(attempt, 5, 0, seed + 131))
        y = HEIGHT - 2
        while y > 1 and cells[cell_index(x, y - 1, z)] == b.AIR:
            y -= 1
        ground = cells[cell_index(x, y - 1, z)]
        if ground == b.TURF or ground == b.SAND or ground == b.SNOW:
            return x, y, z
        if ground != b.WATER:
            best = (x, y, z)
    return best


def generate(seed: int) -> np.ndarray:
    """uint8 [NUM_CELLS]: the blocks of the world of `seed`."""
    heights = np.zeros((SIZE, SIZE), np.int64)
    biomes = np.zeros((SIZE, SIZE), np.int64)
    cells = np.zeros(NUM_CELLS, np.uint8)
    shape_ground(seed, heights, biomes)
    fill_ground(seed, heights, biomes, cells)
    plant(seed, heights, biomes, cells)
    build_huts(seed, heights, biomes, cells)
    return cells
