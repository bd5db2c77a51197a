"""What colour a ray sees: lit and textured blocks, water, fog, and the sky behind them."""

from __future__ import annotations

import numpy as np

from reverie.envs.meadow import blocks as b
from reverie.envs.meadow import conditions as c
from reverie.envs.meadow.grid import (
    HEIGHT,
    MASK,
    SHIFT_X,
    SHIFT_Z,
    UP,
    inlined_kernel,
    kernel,
)
from reverie.envs.meadow.light import OPAQUE
from reverie.envs.meadow.rays import AIR_RAY, WATER_RAY, trace
from reverie.envs.meadow.sky import sky_colour

FAR = 62.0
"""Nothing is seen beyond this many blocks: the fog has closed by then."""
_BYTE = 1.0 / 255.0
_MURKY = 24.0
"""Nothing is seen through this much water."""

# Brightness of a face by where it looks: west, east, down, up, north, south.
_AMBIENT_OF_FACE = (0.84, 0.84, 0.66, 1.0, 0.92, 0.92)


@kernel
def texel(textures, texture, u, v, footprint):
    """Colour of a texture at (u, v) in [0, 1), blended between mipmaps so that a texel is never
    much smaller than a pixel.
    """
    if footprint < 1.0:
        size, offset, blend = 16, 0, 0.0
    elif footprint < 2.0:
        size, offset, blend = 16, 0, footprint - 1.0
    elif footprint < 4.0:
        size, offset, blend = 8, 256, (footprint - 2.0) * 0.5
    elif footprint < 8.0:
        size, offset, blend = 4, 320, (footprint - 4.0) * 0.25
    elif footprint < 16.0:
        size, offset, blend = 2, 336, (footprint - 8.0) * 0.125
    else:
        size, offset, blend = 1, 340, 0.0
    fine = offset + min(int(v * size), size - 1) * size + min(int(u * size), size - 1)
    red, green, blue = (
        textures[texture, fine, 0],
        textures[texture, fine, 1],
        textures[texture, fine, 2],
    )
    if blend > 0.0:
        half = size // 2
        coarse = (
            offset
            + size * size
            + min(int(v * half), half - 1) * half
            + min(int(u * half), half - 1)
        )
        red += (textures[texture, coarse, 0] - red) * blend
        green += (textures[texture, coarse, 1] - green) * blend
        blue += (textures[texture, coarse, 2] - blue) * blend
    return red, green, blue


@kernel
def _neighbour(x, y, z, axis, step):
    """Flat index of the cell one step away; heights are clamped to the world."""
    if axis == 0:
        x += step
    elif axis == 1:
        y += step
    else:
        z += step
    y = min(max(y, 0), HEIGHT - 1)
    return ((x & MASK) << SHIFT_X) | ((z & MASK) << SHIFT_Z) | y


@kernel
def face_light(light, x, y, z, axis_u, axis_v, u, v):
    """Sun, sky, lamp and crystal light (0..1) at (u, v) of a face, from the four cells around it.

    (x, y, z) is the open cell in front of the face. A cell that blocks light counts as a dark
    corner.
    """
    step_u = 1 if u > 0.5 else -1
    step_v = 1 if v > 0.5 else -1
    weight_u, weight_v = abs(u - 0.5), abs(v - 0.5)
    own = _neighbour(x, y, z, 0, 0)
    beside_u = _neighbour(x, y, z, axis_u, step_u)
    beside_v = _neighbour(x, y, z, axis_v, step_v)
    if axis_u == 0:
        corner = _neighbour(x + step_u, y, z, axis_v, step_v)
    else:
        corner = _neighbour(x, y, z + step_u, axis_v, step_v)
    if light[beside_u, 3] == OPAQUE and light[beside_v, 3] == OPAQUE:
        corner = beside_u
    own_sun, own_sky = light[own, 0] * _BYTE, light[own, 1] * _BYTE
    own_lamp, own_crystal = light[own, 2] * _BYTE, light[own, 3] * _BYTE
    sun, sky, lamp, crystal = 0.0, 0.0, 0.0, 0.0
    for side in range(4):
        w = (weight_u if side & 1 else 1 - weight_u) * (weight_v if side & 2 else 1 - weight_v)
        cell = own
        if side == 1:
            cell = beside_u
        elif side == 2:
            cell = beside_v
        elif side == 3:
            cell = corner
        if light[cell, 3] == OPAQUE:
            sun += w * own_sun
            sky += w * own_sky * 0.3
            lamp += w * own_lamp * 0.5
            crystal += w * own_crystal * 0.5
        else:
            sun += w * light[cell, 0] * _BYTE
            sky += w * light[cell, 1] * _BYTE
            lamp += w * light[cell, 2] * _BYTE
            crystal += w * light[cell, 3] * _BYTE
    return sun, sky, lamp, crystal


@kernel
def _mark_target(aim, cracks, u, v, width):
    """Factor on the colour of the aimed block: a thin dark outline, and cracks that spread while
    it is being broken.
    """
    factor = 1.0
    edge = min(min(u, 1.0 - u), min(v, 1.0 - v))
    if edge < width:
        factor = 0.5
    if aim[4] > 0:
        grown = cracks[min(int(v * 16), 15), min(int(u * 16), 15)]
        if grown <= aim[4]:
            factor *= 0.42
        factor *= 1.0 - 0.03 * aim[4]
    return factor


@kernel
def _face_point(face, px, py, pz, dx, dy, dz):
    """Where on a face a point of its cell lies (u, v from the top left), the axes that u and v run
    along, and how squarely the ray meets the face.
    """
    if face >> 1 == 0:
        return pz, 1.0 - py, 2, 1, abs(dx)
    if face >> 1 == 1:
        return px, pz, 0, 2, abs(dy)
    return px, 1.0 - py, 0, 1, abs(dz)


@kernel
def _light_colour(sky, block, face, direct, open_sky, lamp, crystal):
    """Red, green and blue of the light on a face from its four kinds of light (0..1)."""
    open_sky = (0.34 + 0.66 * open_sky) * _AMBIENT_OF_FACE[face]
    lamp *= 0.25 + 0.75 * lamp
    if block == b.LAMP:
        lamp, crystal = 1.3, 0.0
    elif block == b.CRYSTAL:
        open_sky, lamp, crystal = 0.0, 0.0, 1.25
    red = sky[c.AMBIENT] * open_sky + sky[c.SUN_LIGHT] * direct
    green = sky[c.AMBIENT + 1] * open_sky + sky[c.SUN_LIGHT + 1] * direct
    blue = sky[c.AMBIENT + 2] * open_sky + sky[c.SUN_LIGHT + 2] * direct
    # Lamps fill what daylight leaves dark, so that they do not bleach a sunny wall.
    dark = max(0.12, 1.0 - green)
    red += dark * (0.98 * lamp + 0.42 * crystal)
    green += dark * (0.80 * lamp + 0.78 * crystal)
    blue += dark * (0.56 * lamp + 0.82 * crystal)
    return red, green, blue


@inlined_kernel
def block_colour(scene, air, aim, hit, eye, ray, spread):
    """Colour of the block face that a ray hit, and a number that tells its plane from others (for
    finding edges).
    """
    cells, _, light, textures, face_textures, cracks = scene
    sun, sky, _ = air
    t, x, y, z, face, part = hit
    cell = _neighbour(x, y, z, 0, 0)
    block = cells[cell]
    px, py, pz = eye[0] + ray[0] * t - x, eye[1] + ray[1] * t - y, eye[2] + ray[2] * t - z
    u, v, axis_u, axis_v, facing = _face_point(face, px, py, pz, ray[0], ray[1], ray[2])
    texture = b.STEM_TEXTURE if part == 1 else face_textures[block, face]
    footprint = 32.0 * spread * t / max(facing, 0.12)
    if block >= b.FIRST_FLOWER:
        u, v, footprint = 0.5 + (u - 0.5) * 3.0, 0.5 + (v - 0.5) * 3.0, 4.0 * footprint
    u, v = min(max(u, 0.0), 0.999999), min(max(v, 0.0), 0.999999)
    red, green, blue = texel(textures, texture, u, v, footprint)

    axis, outward = face >> 1, (1 if face & 1 else -1)
    # Light is looked up in front of the face; a small block is lit where it stands.
    step = outward if block < b.FIRST_SMALL else 0
    fx, fy, fz = x + step * (axis == 0), y + step * (axis == 1), z + step * (axis == 2)
    lit_v = v if axis == 1 else 1.0 - v
    direct, open_sky, lamp, crystal = face_light(light, fx, fy, fz, axis_u, axis_v, u, lit_v)
    direct *= 0.6 if block >= b.FIRST_FLOWER else max(0.0, outward * sun[axis])
    light_r, light_g, light_b = _light_colour(sky, block, face, direct, open_sky, lamp, crystal)

    # Blocks differ a little, so that a plain far away still shows that it moves.
    shade = 0.965 + 0.07 * ((((cell * 2654435761) & 0xFFFFFFFF) >> 16) & 255) / 255.0
    if x == int(aim[0]) and y == int(aim[1]) and z == int(aim[2]):
        shade *= _mark_target(aim, cracks, u, v, max(0.03, 1.1 * spread * t))
    plane = x if axis == 0 else (y if axis == 1 else z)
    key = (texture * 6 + face) * 1024 + (plane & 1023)
    return red * shade * light_r, green * shade * light_g, blue * shade * light_b, key


@kernel
def _swim(cells, skip, ox, oy, oz, dx, dy, dz):
    """What a ray that starts in water meets: a hit as of `trace` (face -1: the sky, or nothing),
    and how far it swam.
    """
    hit = trace(cells, skip, ox, oy, oz, dx, dy, dz, FAR, WATER_RAY)
    t, x, y, z, face, _ = hit
    if face < 0 or not 0 <= y < HEIGHT or t > _MURKY:
        return (t, x, y, z, -1, 0), t
    block = cells[_neighbour(x, y, z, 0, 0)]
    if block != b.AIR and block < b.FIRST_SMALL:
        return hit, t
    ahead = t + 1e-6
    beyond = trace(
        cells, skip, ox + dx * ahead, oy + dy * ahead, oz + dz * ahead, dx, dy, dz, FAR, AIR_RAY
    )
    if beyond[4] >= 0 and cells[_neighbour(beyond[1], beyond[2], beyond[3], 0, 0)] == b.WATER:
        return (t, x, y, z, -1, 0), t
    return (beyond[0] + ahead, beyond[1], beyond[2], beyond[3], beyond[4], beyond[5]), t


@inlined_kernel
def _follow(cells, skip, ox, oy, oz, dx, dy, dz, in_water):
    """Follow a ray from the eye through air and water.

    Returns the block that it ends at (a hit as of `trace`, face -1: the sky), the distance and the
    face of what it met first in air (face -1 unless that was water), and how far it swam.
    """
    if in_water:
        hit, swum = _swim(cells, skip, ox, oy, oz, dx, dy, dz)
        return hit, 0.0, -1, swum
    hit = trace(cells, skip, ox, oy, oz, dx, dy, dz, FAR, AIR_RAY)
    t, x, y, z, face, _ = hit
    if face < 0 or cells[_neighbour(x, y, z, 0, 0)] != b.WATER:
        return hit, t, -1, 0.0
    ahead = t + 1e-6
    end, swum = _swim(cells, skip, ox + dx * ahead, oy + dy * ahead, oz + dz * ahead, dx, dy, dz)
    return (end[0] + ahead, end[1], end[2], end[3], end[4], end[5]), t, face, swum


@kernel
def _sink(sky, red, green, blue, swum):
    """Colour of something seen through water: it drowns in the water's own, red first."""
    murk = swum / (swum + 7.0) if swum < _MURKY else 1.0
    red += (sky[c.DEEP_WATER] - red) * min(1.0, murk * 1.25)
    green += (sky[c.DEEP_WATER + 1] - green) * min(1.0, murk * 1.05)
    blue += (sky[c.DEEP_WATER + 2] - blue) * murk
    return red, green, blue


@inlined_kernel
def _mirror(textures, air, red, green, blue, eye, ray, t, spread):
    """Colour of a surface of water: a reflection of the sky, stronger at a low angle, on top."""
    rest = 1.0 - abs(ray[1])
    strength = 0.12 + 0.62 * rest * rest * rest
    px, pz = eye[0] + ray[0] * t, eye[2] + ray[2] * t
    footprint = 28.0 * spread * t / max(abs(ray[1]), 0.1)
    ripple = texel(textures, b.WATER_TEXTURE, px - np.floor(px), pz - np.floor(pz), footprint)
    sheen = 0.9 + 0.9 * (ripple[1] - 0.62)
    sky_r, sky_g, sky_b = sky_colour(air[1], air[0], air[2], ray[0], -ray[1], ray[2])
    red += (sky_r * sheen - red) * strength
    green += (sky_g * sheen - green) * strength
    blue += (sky_b * sheen - blue) * strength
    return red, green, blue


@inlined_kernel
def ray_colour(scene, air, aim, eye, ray, spread, in_water):
    """Colour (0..1) along one ray from the eye, and a number that changes where the picture has
    an edge.

    scene: cells, skip, light, textures, face textures, cracks. air: direction of the sun, values
    of the sky, clouds. aim: aimed cell, face, crack stage. eye, ray: a point and a unit vector.
    spread: size of a pixel at distance 1.
    """
    cells, skip, _, textures, _, _ = scene
    sun, sky, clouds = air
    hit, surface_t, surface_face, swum = _follow(
        cells, skip, eye[0], eye[1], eye[2], ray[0], ray[1], ray[2], in_water
    )
    if hit[4] >= 0:
        red, green, blue, key = block_colour(scene, air, aim, hit, eye, ray, spread)
    else:
        red, green, blue = sky_colour(sky, sun, clouds, ray[0], ray[1], ray[2])
        key = -1
    if in_water or surface_face >= 0:
        red, green, blue = _sink(sky, red, green, blue, swum)
        key = (key & 0xFFFFF) + (1 << 22)
    if surface_face == UP:
        red, green, blue = _mirror(textures, air, red, green, blue, eye, ray, surface_t, spread)
    if surface_t > sky[c.FOG_START] and not in_water and (hit[4] >= 0 or surface_face >= 0):
        fog = min((surface_t - sky[c.FOG_START]) / (sky[c.FOG_END] - sky[c.FOG_START]), 1.0)
        fog = fog * fog * (2.0 - fog)
        sky_r, sky_g, sky_b = sky_colour(sky, sun, clouds, ray[0], max(ray[1], 0.0), ray[2])
        red += (sky_r - red) * fog
        green += (sky_g - green) * fog
        blue += (sky_b - blue) * fog
    return red, green, blue, key
