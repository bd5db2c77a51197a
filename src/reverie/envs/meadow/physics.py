"""How the player moves: one tick of walking, jumping, falling, swimming, in a box that never
enters a block.

Velocities are in blocks per second, a tick is 1/20 s. There is almost no inertia: what the
picture cannot show should not matter.
"""

from __future__ import annotations

import numpy as np

from reverie.envs.meadow import blocks as b
from reverie.envs.meadow.grid import HEIGHT, SIZE, cell_index, kernel
from reverie.envs.meadow.rays import small_box

TICK_S = 1.0 / 20.0
HALF_WIDTH = 0.3
BODY_HEIGHT = 1.8
EYE_HEIGHT = 1.62
WALK_SPEED = 4.3
SPRINT_SPEED = 5.8
SWIM_SPEED = 2.8
JUMP_SPEED = 7.7
GRAVITY = 28.0
FALL_LIMIT = 36.0

# The player's state, float64 [NUM_STATE]: feet centre, velocity, camera in half degrees, flags.
X, Y, Z, VX, VY, VZ, YAW, PITCH, ON_GROUND, IN_WATER, BLOCKED, MOVED_X, MOVED_Y, MOVED_Z = range(14)
NUM_STATE = 14
TOUCH = 1e-9
"""Slack of "overlaps", so that a box resting exactly on a face does not count as inside it."""


def _half_degree_table() -> np.ndarray:
    # Rounded, so that the last bit of a platform's sine cannot change a world.
    angles = np.arange(720) * (np.pi / 360.0)
    return np.stack([np.sin(angles), np.cos(angles)], axis=1).round(10)


HALF_DEGREES = _half_degree_table()
"""float64 [720, 2]: sine and cosine of every half degree."""


@kernel
def _solid_box(block):
    """Does a block stop the player, and with which box?"""
    if block == b.AIR or block == b.WATER or block >= b.FIRST_FLOWER:
        return False, (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    if block >= b.FIRST_SMALL:
        return True, small_box(block, 0)
    return True, (0.0, 0.0, 0.0, 1.0, 1.0, 1.0)


@kernel
def overlaps(cells, px, py, pz):
    """Would a player whose feet centre is at (px, py, pz) stand inside a block?"""
    for x in range(int(np.floor(px - HALF_WIDTH)), int(np.floor(px + HALF_WIDTH)) + 1):
        for y in range(max(0, int(np.floor(py))), min(HEIGHT, int(np.floor(py + BODY_HEIGHT)) + 1)):
            for z in range(int(np.floor(pz - HALF_WIDTH)), int(np.floor(pz + HALF_WIDTH)) + 1):
                solid, box = _solid_box(cells[cell_index(x, y, z)])
                if (
                    solid
                    and px + HALF_WIDTH > x + box[0] + TOUCH
                    and px - HALF_WIDTH < x + box[3] - TOUCH
                    and py + BODY_HEIGHT > y + box[1] + TOUCH
                    and py < y + box[4] - TOUCH
                    and pz + HALF_WIDTH > z + box[2] + TOUCH
                    and pz - HALF_WIDTH < z + box[5] - TOUCH
                ):
                    return True
    return False


@kernel
def _span(low, high, moves, distance):
    """First and last cell that a box meets along one axis, on its way if it moves along it."""
    if moves:
        low, high = min(low, low + distance), max(high, high + distance)
    return int(np.floor(low - TOUCH)), int(np.floor(high + TOUCH))


@kernel
def _slide(cells, px, py, pz, axis, distance):
    """How far a player at (px, py, pz) can move along one axis before touching a block, at most
    `distance`.
    """
    low = (px - HALF_WIDTH, py, pz - HALF_WIDTH)
    high = (px + HALF_WIDTH, py + BODY_HEIGHT, pz + HALF_WIDTH)
    first_x, last_x = _span(low[0], high[0], axis == 0, distance)
    first_y, last_y = _span(low[1], high[1], axis == 1, distance)
    first_z, last_z = _span(low[2], high[2], axis == 2, distance)
    for x in range(first_x, last_x + 1):
        for y in range(max(0, first_y), min(HEIGHT - 1, last_y) + 1):
            for z in range(first_z, last_z + 1):
                solid, box = _solid_box(cells[cell_index(x, y, z)])
                if not solid:
                    continue
                near = (x + box[0], y + box[1], z + box[2])
                far = (x + box[3], y + box[4], z + box[5])
                beside = False
                for a in range(3):
                    if a != axis and (high[a] <= near[a] + TOUCH or low[a] >= far[a] - TOUCH):
                        beside = True
                if beside:
                    continue
                if distance > 0 and near[axis] >= high[axis] - TOUCH:
                    distance = min(distance, max(0.0, near[axis] - high[axis]))
                elif distance < 0 and far[axis] <= low[axis] + TOUCH:
                    distance = max(distance, min(0.0, far[axis] - low[axis]))
    return distance


@kernel
def _in_water(cells, px, py, pz):
    y = int(np.floor(py + 0.4))
    return 0 <= y < HEIGHT and cells[cell_index(int(np.floor(px)), y, int(np.floor(pz)))] == b.WATER


@kernel
def _wish(state, forward, strafe, sprint, swimming, table):
    """Wanted horizontal velocity."""
    speed = SWIM_SPEED if swimming else (SPRINT_SPEED if sprint and forward > 0 else WALK_SPEED)
    if forward != 0 and strafe != 0:
        speed *= 0.7071067811865476
    yaw = int(state[YAW])
    sin, cos = table[yaw, 0], table[yaw, 1]
    return speed * (sin * forward + cos * strafe), speed * (sin * strafe - cos * forward)


@kernel
def turn(state, yaw_half, pitch_half):
    """Turn the camera by whole half degrees; pitch stops at 85 degrees."""
    state[YAW] = (int(state[YAW]) + yaw_half) % 720
    state[PITCH] = min(max(int(state[PITCH]) + pitch_half, -170), 170)


@kernel
def move(cells, state, table, forward, strafe, jump, sprint):
    """One tick. forward and strafe are -1, 0 or 1 (ahead, to the right)."""
    px, py, pz = state[X], state[Y], state[Z]
    swimming = _in_water(cells, px, py, pz)
    wish_x, wish_z = _wish(state, forward, strafe, sprint, swimming, table)
    state[VX] += 0.75 * (wish_x - state[VX])
    state[VZ] += 0.75 * (wish_z - state[VZ])
    if abs(state[VX]) < 0.02:
        state[VX] = 0.0
    if abs(state[VZ]) < 0.02:
        state[VZ] = 0.0
    if swimming:
        # Held jump swims up, gently at the surface, and over the edge of a bank in the way.
        rise = 3.2 if _in_water(cells, px, py + 0.7, pz) else 0.9
        wanted = (5.6 if state[BLOCKED] > 0 else rise) if jump else -1.6
        state[VY] += 0.4 * (wanted - state[VY])
    elif jump and state[ON_GROUND] > 0:
        state[VY] = JUMP_SPEED

    state[ON_GROUND] = 0.0
    state[BLOCKED] = 0.0
    for axis in (1, 0, 2):
        wanted = state[VX + axis] * TICK_S
        if axis == 1 and state[Y] + BODY_HEIGHT + wanted > HEIGHT - 0.25:
            wanted = min(wanted, 0.0)
        done = _slide(cells, state[X], state[Y], state[Z], axis, wanted)
        state[X + axis] += done
        state[MOVED_X + axis] = done
        if done != wanted:
            state[VX + axis] = 0.0
            if axis != 1:
                state[BLOCKED] = 1.0
            elif wanted < 0:
                state[ON_GROUND] = 1.0
    state[X] %= SIZE
    state[Y] = max(state[Y], 0.0)
    state[Z] %= SIZE
    if not swimming:
        state[VY] = max(state[VY] - GRAVITY * TICK_S, -FALL_LIMIT)
    state[IN_WATER] = 1.0 if _in_water(cells, state[X], state[Y], state[Z]) else 0.0
