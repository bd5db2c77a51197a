"""What a Meadow world is made of: block numbers, their properties, and which texture each face
shows.
"""

from __future__ import annotations

import numpy as np

(
    AIR, WATER, TURF, EARTH, STONE, SAND, PLANKS, BRICK, LAMP, LAMP_OFF, LOG_OAK, LOG_BIRCH,
    LOG_PINE, LEAVES_OAK, LEAVES_BIRCH, LEAVES_PINE, SNOW, CACTUS, CRYSTAL, BEDROCK,
    SANDSTONE, SHINGLE, DOOR_X, DOOR_Z, FLOWER_RED, FLOWER_YELLOW, FLOWER_BLUE,
) = range(27)  # fmt: skip
NAMES = (
    "air", "water", "turf", "earth", "stone", "sand", "planks", "brick", "lamp", "lamp_off",
    "log_oak", "log_birch", "log_pine", "leaves_oak", "leaves_birch", "leaves_pine", "snow",
    "cactus", "crystal", "bedrock", "sandstone", "shingle", "door_x", "door_z", "flower_red",
    "flower_yellow", "flower_blue",
)  # fmt: skip
NUM_BLOCKS = len(NAMES)
HOTBAR = (TURF, STONE, PLANKS, SAND, BRICK, LAMP)
"""The block that each slot places, slot 1 first."""

FIRST_SMALL = DOOR_X
"""Blocks from here on do not fill their cell: rays and players meet a box inside it, and light
passes.
"""
FIRST_FLOWER = FLOWER_RED

DOOR_DEPTH = 3.0 / 16.0
"""Thickness of a door. DOOR_X stands across the x axis at the low side of its cell, DOOR_Z across
z; using one turns it.
"""

TEXTURE_NAMES = (
    "turf_top", "turf_side", "earth", "stone", "sand", "planks", "brick", "lamp", "lamp_off",
    "log_oak", "log_birch", "log_pine", "log_end", "leaves_oak", "leaves_birch",
    "leaves_pine", "snow", "snow_side", "cactus", "crystal", "bedrock", "sandstone",
    "shingle", "door", "flower_red", "flower_yellow", "flower_blue", "stem", "water",
)  # fmt: skip
_TOP_BOTTOM = {  # block: (top, bottom); sides carry the block's own name, or name_side
    "turf": ("turf_top", "earth"),
    "snow": ("snow", "earth"),
    "log_oak": ("log_end", "log_end"),
    "log_birch": ("log_end", "log_end"),
    "log_pine": ("log_end", "log_end"),
    "door_x": ("door", "door"),
    "door_z": ("door", "door"),
}


def _face_textures() -> np.ndarray:
    table = np.zeros((NUM_BLOCKS, 6), np.int64)
    for block, name in enumerate(NAMES[1:], start=1):
        side = (
            f"{name}_side"
            if f"{name}_side" in TEXTURE_NAMES
            else name.removesuffix("_x").removesuffix("_z")
        )
        top, bottom = _TOP_BOTTOM.get(name, (side, side))
        names = (side, side, bottom, top, side, side)
        table[block] = [TEXTURE_NAMES.index(texture) for texture in names]
    return table


FACE_TEXTURES = _face_textures()
"""int64 [NUM_BLOCKS, 6]: index of the texture that each face shows."""
STEM_TEXTURE = TEXTURE_NAMES.index("stem")
WATER_TEXTURE = TEXTURE_NAMES.index("water")
