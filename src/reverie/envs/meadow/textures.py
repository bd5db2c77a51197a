"""Block textures, drawn in code: 16 x 16 texels, low in contrast, with their mipmaps.

The pictures teach a small autoencoder, so a texture is a calm colour with soft variation: enough
to see that the ground moves, not enough to alias into noise. Seasons repaint grass and leaves,
biomes all ground.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from reverie.envs.meadow.blocks import TEXTURE_NAMES

TEXELS = 16
MIP_OFFSETS = (0, 256, 320, 336, 340)
"""Where the 16x16, 8x8, 4x4, 2x2 and 1x1 versions of a texture begin."""
NUM_TEXELS = 341

Texture = NDArray[np.float64]  # [16, 16, 3], 0..255, row 0 is the top of a side face
Colour = tuple[int, int, int]

_SEASONS: dict[str, dict[str, Colour]] = {
    "spring": {"grass": (134, 190, 88), "oak": (128, 184, 92), "birch": (226, 170, 178),
               "pine": (66, 124, 86)},
    "summer": {"grass": (126, 178, 88), "oak": (88, 148, 74), "birch": (136, 178, 88),
               "pine": (56, 110, 84)},
    "autumn": {"grass": (178, 164, 84), "oak": (206, 118, 58), "birch": (228, 180, 80),
               "pine": (70, 108, 80)},
    "winter": {"grass": (226, 233, 240), "oak": (190, 200, 204), "birch": (206, 212, 214),
               "pine": (132, 160, 156)},
}  # fmt: skip


_DRY = {"grass": (222, 200, 146), "oak": (150, 144, 84), "birch": (172, 158, 92),
        "pine": (122, 124, 82)}  # fmt: skip
"""What grows in a desert, in any season."""


def _hash(ix: NDArray[np.int64], iy: NDArray[np.int64], salt: int) -> NDArray[np.float64]:
    h = (ix * 374761393 + iy * 668265263 + salt * 1103515245) & 0xFFFFFFFF
    h = ((h ^ (h >> 15)) * 739982445) & 0xFFFFFFFF
    h = ((h ^ (h >> 12)) * 695872825) & 0xFFFFFFFF
    return (h ^ (h >> 15)) / 4294967296.0


def _noise(cells: int, salt: int, stretch: tuple[int, int] = (1, 1)) -> NDArray[np.float64]:
    """Smooth noise in [-1, 1], [16, 16], that tiles.

    `cells` lattice cells along an axis, divided by stretch (rows, columns).
    """
    rows, cols = cells // stretch[0], cells // stretch[1]
    v, u = np.meshgrid(
        np.arange(TEXELS) * rows / TEXELS, np.arange(TEXELS) * cols / TEXELS, indexing="ij"
    )
    iv, iu = v.astype(np.int64), u.astype(np.int64)
    fv, fu = v - iv, u - iu
    fv, fu = fv * fv * (3 - 2 * fv), fu * fu * (3 - 2 * fu)
    corner = {(a, b): _hash((iu + b) % cols, (iv + a) % rows, salt) for a in (0, 1) for b in (0, 1)}
    top = corner[0, 0] * (1 - fu) + corner[0, 1] * fu
    bottom = corner[1, 0] * (1 - fu) + corner[1, 1] * fu
    return 2.0 * (top * (1 - fv) + bottom * fv) - 1.0


def _grain(colour: Colour, salt: int, amount: float, stretch: tuple[int, int] = (1, 1)) -> Texture:
    """A colour with soft blotches of two sizes; `amount` is the relative strength."""
    shade = 1.0 + amount * (0.6 * _noise(4, salt, stretch) + 0.4 * _noise(8, salt + 1, stretch))
    return np.asarray(colour, np.float64) * shade[..., None]


def _fringe(cover: Texture, ground: Texture, salt: int) -> Texture:
    """A side face: `ground` under a ragged edge of `cover`."""
    depth = 5 + np.floor(2.99 * _hash(np.arange(TEXELS) // 2, np.zeros(TEXELS, np.int64), salt))
    covered = np.arange(TEXELS)[:, None] < depth[None, :]
    return np.where(covered[..., None], cover, ground)


def _planks() -> Texture:
    face = _grain((188, 146, 96), 31, 0.07, (1, 4))
    for board in range(4):
        rows = slice(4 * board, 4 * board + 4)
        face[rows] *= 0.96 + 0.08 * (board % 2)
        face[4 * board + 3] *= 0.84
        face[rows, (5 + 7 * board) % TEXELS] *= 0.9
    return face


def _courses(colour: Colour, mortar: Colour, salt: int) -> Texture:
    """Rows of bricks, every other row shifted by half a brick."""
    face = _grain(colour, salt, 0.06)
    for course in range(4):
        shift = 4 * (course % 2)
        for brick in range(2):
            columns = (np.arange(8) + 8 * brick + shift) % TEXELS
            face[4 * course : 4 * course + 4, columns] *= (
                0.95 + 0.1 * ((course * 2 + brick) * 5 % 3) / 2
            )
            face[4 * course : 4 * course + 4, columns[-1]] = mortar
        face[4 * course + 3] = mortar
    return face


def _lamp(core: Colour, frame: Colour) -> Texture:
    rows, cols = np.meshgrid(np.arange(TEXELS), np.arange(TEXELS), indexing="ij")
    ring = np.minimum(np.minimum(rows, cols), np.minimum(15 - rows, 15 - cols))
    glow = np.clip((ring - 1) / 4.0, 0, 1)[..., None]
    face = np.asarray(core, np.float64) * (0.86 + 0.14 * glow)
    return np.where((ring < 2)[..., None], np.asarray(frame, np.float64), face)


def _log(bark: Colour, salt: int) -> Texture:
    return _grain(bark, salt, 0.15, (4, 1))


def _birch() -> Texture:
    face = _grain((222, 220, 208), 47, 0.04, (4, 1))
    for row, start, length in ((2, 1, 4), (5, 9, 5), (9, 3, 3), (12, 11, 4), (14, 5, 3)):
        face[row, np.arange(start, start + length) % TEXELS] *= 0.55
    return face


def _log_end() -> Texture:
    rows, cols = np.meshgrid(np.arange(TEXELS) - 7.5, np.arange(TEXELS) - 7.5, indexing="ij")
    ring = np.maximum(np.abs(rows), np.abs(cols)).astype(np.int64)
    face = np.asarray((196, 160, 112), np.float64) * (1.0 - 0.1 * (ring % 2))[..., None]
    face[ring >= 7] = (118, 90, 62)
    return face


def _door() -> Texture:
    face = _grain((150, 102, 62), 53, 0.06, (4, 1))
    face[:, [0, 15]] *= 0.78
    face[[0, 15]] *= 0.86
    face[3:13, 3:13] *= 0.88
    face[4:12, 4:12] *= 1.16
    face[7:9, 12:14] = (228, 200, 120)
    return face


def _shingle() -> Texture:
    face = _grain((150, 84, 74), 59, 0.06)
    for row in range(4):
        face[4 * row] *= 1.08
        face[4 * row + 3] *= 0.8
        face[4 * row : 4 * row + 4, (np.arange(0, TEXELS, 8) + 4 * (row % 2)) % TEXELS] *= 0.88
    return face


def _crystal() -> Texture:
    face = _grain((104, 206, 204), 61, 0.10)
    rows, cols = np.meshgrid(np.arange(TEXELS), np.arange(TEXELS), indexing="ij")
    facet = ((rows + cols) // 6 + (rows - cols) // 7) % 3
    return face * (0.88 + 0.1 * facet)[..., None]


def _cactus() -> Texture:
    face = _grain((96, 150, 84), 67, 0.05)
    face[:, 1::5] *= 0.84
    face[2::6, 3::5] = (206, 210, 160)
    return face


def _flower(petals: Colour, heart: Colour) -> Texture:
    face = _grain(petals, 71, 0.04)
    face[6:10, 6:10] = heart
    return face


def _painters(season: str, biome: str) -> dict[str, Callable[[], Texture]]:
    """By name of a texture. Any biome but "mixed" lets turf, sand and snow look like its own."""
    tint = _DRY if biome == "desert" else _SEASONS["winter" if biome == "snowy" else season]
    grass = _grain(tint["grass"], 3, 0.085)
    earth = _grain((158, 124, 92), 7, 0.09)
    snow = _grain((226, 234, 242), 11, 0.04)
    painters = {
        "turf_top": lambda: grass,
        "turf_side": lambda: _fringe(grass, earth, 5),
        "earth": lambda: earth,
        "stone": lambda: _grain((146, 148, 152), 13, 0.12, (1, 2)),
        "sand": lambda: _grain((226, 208, 158), 17, 0.045),
        "planks": _planks,
        "brick": lambda: _courses((182, 106, 86), (196, 140, 118), 19),
        "lamp": lambda: _lamp((255, 226, 160), (176, 128, 74)),
        "lamp_off": lambda: _lamp((150, 140, 124), (120, 92, 62)),
        "log_oak": lambda: _log((138, 108, 78), 23),
        "log_birch": _birch,
        "log_pine": lambda: _log((120, 92, 74), 29),
        "log_end": _log_end,
        "leaves_oak": lambda: _grain(tint["oak"], 37, 0.17),
        "leaves_birch": lambda: _grain(tint["birch"], 41, 0.15),
        "leaves_pine": lambda: _grain(tint["pine"], 43, 0.17),
        "snow": lambda: snow,
        "snow_side": lambda: _fringe(snow, _grain((200, 207, 216), 10, 0.04), 9),
        "cactus": _cactus,
        "crystal": _crystal,
        "bedrock": lambda: _grain((74, 72, 80), 73, 0.16),
        "sandstone": lambda: _grain((214, 188, 136), 79, 0.06, (1, 4)),
        "shingle": _shingle,
        "door": _door,
        "flower_red": lambda: _flower((222, 82, 84), (250, 206, 96)),
        "flower_yellow": lambda: _flower((244, 200, 62), (214, 128, 50)),
        "flower_blue": lambda: _flower((118, 132, 226), (248, 226, 140)),
        "stem": lambda: _grain((86, 138, 66), 83, 0.05),
        "water": lambda: _grain((96, 160, 196), 89, 0.06, (1, 2)),
    }
    if own := {"meadow": "turf", "desert": "sand", "snowy": "snow"}.get(biome):
        top = painters["turf_top" if own == "turf" else own]
        side = painters.get(f"{own}_side", top)
        painters |= dict.fromkeys(("turf_top", "sand", "snow"), top)
        painters |= dict.fromkeys(("turf_side", "snow_side"), side)
    return painters


@lru_cache(maxsize=16)
def build(season: str, biome: str) -> NDArray[np.float32]:
    """float32 [textures, 341, 3], 0..1: every texture with its mipmaps one after the other.

    The array is shared and read-only.
    """
    painters = _painters(season, biome)
    table = np.zeros((len(TEXTURE_NAMES), NUM_TEXELS, 3), np.float32)
    for index, name in enumerate(TEXTURE_NAMES):
        level = np.clip(painters[name](), 0, 255) / 255.0
        for offset in MIP_OFFSETS:
            table[index, offset : offset + level.shape[0] ** 2] = level.reshape(-1, 3)
            # Written out: the order of a library's sum may differ between processors.
            rows = level[0::2] + level[1::2]
            level = (rows[:, 0::2] + rows[:, 1::2]) / 4.0
    table.setflags(write=False)
    return table
