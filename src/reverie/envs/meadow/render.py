"""The picture: one ray per pixel, two more where there is an edge, then the crosshair and the
hotbar.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from reverie.envs.meadow import blocks as b
from reverie.envs.meadow.grid import hash01, kernel
from reverie.envs.meadow.shade import ray_colour

TAN_HALF_FOV = 0.75
"""Half the width of the picture at distance 1: a horizontal field of view of 74 degrees."""
_EDGE_CONTRAST = 0.12
"""Edges fainter than this (0..1, summed over colours) are left alone."""

_SUBPIXELS = ((-0.2, -0.36), (0.36, 0.2))


@lru_cache(maxsize=8)
def lens(width: int, height: int) -> NDArray[np.float64]:
    """float64 [4]: half width and half height of the picture at distance 1, size of a pixel
    there, unused.
    """
    half_height = TAN_HALF_FOV * height / width
    return np.array([TAN_HALF_FOV, half_height, 2 * TAN_HALF_FOV / width, 0.0])


@lru_cache(maxsize=1)
def crack_map() -> NDArray[np.float64]:
    """float64 [16, 16]: the stage (1..5) at which a texel cracks, 9 where it never does. Crooked
    lines from the middle.
    """
    stages = np.full((16, 16), 9.0)
    arms = ((1, 0.3), (0.2, 1), (-1, 0.5), (-0.6, -1), (0.7, -0.8), (0.8, 0.9), (-0.9, -0.2))
    for arm, (step_u, step_v) in enumerate(arms):
        u, v = 7.5, 7.5
        for i in range(9):
            bend = 0.9 * (hash01(arm, i, 0, 7) - 0.5)
            u, v = u + 0.95 * step_u + bend * step_v, v + 0.95 * step_v - bend * step_u
            row, col = int(v), int(u)
            if 0 <= row < 16 and 0 <= col < 16:
                stages[row, col] = min(stages[row, col], 1 + i * 0.55 + 0.35 * arm)
    return stages


@kernel
def _ray(camera, optics, column, row, width, height):
    """Unit vector through a point of the picture. camera: sin/cos of yaw and of pitch
    (downwards).
    """
    sin_yaw, cos_yaw, sin_pitch, cos_pitch = camera
    right = (2.0 * column / width - 1.0) * optics[0]
    up = (1.0 - 2.0 * row / height) * optics[1]
    ahead = cos_pitch + sin_pitch * up
    dy = -sin_pitch + cos_pitch * up
    dx = sin_yaw * ahead + cos_yaw * right
    dz = -cos_yaw * ahead + sin_yaw * right
    scale = 1.0 / np.sqrt(dx * dx + dy * dy + dz * dz)
    return dx * scale, dy * scale, dz * scale


@kernel
def draw_scene(scene, air, aim, eye, camera, optics, in_water, picture, keys):
    """Draw the world into `picture` float32 [h, w, 3] (0..1); `keys` int64 [h, w] is scratch.

    scene, air, aim: see `shade.ray_colour`. The first pass sends a ray through the middle of every
    pixel; the second adds two more to those on an edge.
    """
    height, width = keys.shape
    for smooth in range(2):
        for row in range(height):
            for column in range(width):
                if smooth and not _is_edge(picture, keys, row, column):
                    continue
                total_r, total_g, total_b, key = 0.0, 0.0, 0.0, 0
                for i in range(2 if smooth else 1):
                    at_column, at_row = column + 0.5, row + 0.5
                    if smooth:
                        at_column += _SUBPIXELS[i][0]
                        at_row += _SUBPIXELS[i][1]
                    ray = _ray(camera, optics, at_column, at_row, width, height)
                    red, green, blue, key = ray_colour(
                        scene, air, aim, eye, ray, optics[2], in_water
                    )
                    total_r += min(red, 1.0)
                    total_g += min(green, 1.0)
                    total_b += min(blue, 1.0)
                if smooth:
                    picture[row, column, 0] = (picture[row, column, 0] + total_r) / 3.0
                    picture[row, column, 1] = (picture[row, column, 1] + total_g) / 3.0
                    picture[row, column, 2] = (picture[row, column, 2] + total_b) / 3.0
                else:
                    picture[row, column, 0] = total_r
                    picture[row, column, 1] = total_g
                    picture[row, column, 2] = total_b
                    keys[row, column] = key


@kernel
def _is_edge(picture, keys, row, column):
    """Does a pixel's surface or colour differ from one beside it?"""
    height, width = keys.shape
    for side in range(4):
        r = row + (side == 0) - (side == 1)
        k = column + (side == 2) - (side == 3)
        if 0 <= r < height and 0 <= k < width and keys[r, k] != keys[row, column]:
            contrast = 0.0
            for channel in range(3):
                contrast += abs(picture[r, k, channel] - picture[row, column, channel])
            if contrast > _EDGE_CONTRAST:
                return True
    return False


@kernel
def finish(picture, rain, snow, tick, out):
    """Weather in front of the world, then 8 bits. rain, snow: how much falls, 0 to 1."""
    height, width, _ = picture.shape
    for kind in range(2):
        amount = snow if kind else rain
        if amount == 0.0:
            continue
        for drop in range(120 if kind else 170):
            x0 = hash01(drop, 1, 0, 9)
            fall = hash01(drop, 2, 0, 9) + tick * (0.03 if kind else 0.13) * (
                0.7 + 0.6 * hash01(drop, 3, 0, 9)
            )
            column = int(x0 * width + (3 * ((tick // 4 + drop) % 2) if kind else 0)) % width
            row = int((fall % 1.0) * height)
            length = max(1, height // 96) if kind else height // 14
            for r in range(row, min(row + length, height)):
                for channel in range(3):
                    gain = amount * (0.7 if kind else 0.16)
                    picture[r, column, channel] += (0.9 - picture[r, column, channel]) * gain
    for row in range(height):
        for column in range(width):
            for channel in range(3):
                value = picture[row, column, channel]
                out[row, column, channel] = int(min(max(value, 0.0), 1.0) * 255.0 + 0.5)


def hotbar_icons(textures: NDArray[np.float32], scale: int) -> NDArray[np.uint8]:
    """uint8 [slots, 7 * scale, 7 * scale, 3]: a small picture of each block that a slot places."""
    side = 7 * scale
    icons = np.zeros((len(b.HOTBAR), side, side, 3), np.uint8)
    pick = np.arange(side) * 16 // side
    for slot, block in enumerate(b.HOTBAR):
        face = textures[b.FACE_TEXTURES[block, 4], :256].reshape(16, 16, 3)
        icons[slot] = (face[pick][:, pick] * 255 + 0.5).astype(np.uint8)
    return icons


@kernel
def draw_overlay(out, icons, selected, scale):
    """Crosshair in the middle, hotbar at the bottom; `selected` counts from 0."""
    height, width, _ = out.shape
    for arm in range(-2 * scale, 2 * scale + 1):
        for thick in range(scale):
            for flip in range(2):
                r = height // 2 + (arm if flip else thick)
                k = width // 2 + (thick if flip else arm)
                bright = int(out[r, k, 0]) + 2 * int(out[r, k, 1]) + int(out[r, k, 2]) > 640
                for channel in range(3):
                    value = int(out[r, k, channel])
                    out[r, k, channel] = (
                        value * 2 // 5 if bright else value + (255 - value) * 4 // 5
                    )
    slots, side, _, _ = icons.shape
    cell = side + 2 * scale
    top = height - cell - scale
    left = (width - slots * cell) // 2
    for slot in range(slots):
        for i in range(cell):
            for k in range(cell):
                inside = scale <= i < cell - scale and scale <= k < cell - scale
                for channel in range(3):
                    if inside:
                        value = icons[slot, i - scale, k - scale, channel]
                    else:
                        value = 250 if slot == selected else 52
                    out[top + i, left + slot * cell + k, channel] = value
