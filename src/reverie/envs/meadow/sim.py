"""The Meadow simulator: a world, a player, and one picture per tick. No Gymnasium here.

    meadow = Meadow(seed=0)
    action = MEADOW_ACTIONS.encode(Action({"forward"}, mouse=(4, 0)))
    frame = meadow.step(action)   # uint8 [96, 160, 3]

Deterministic from (seed, conditions, actions). `advance` is `step` without the picture, for
policies that only act.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverie.core import ActionSpace, Pixels, ReverieError
from reverie.envs.meadow import blocks as b
from reverie.envs.meadow import light, physics, render, terrain, textures
from reverie.envs.meadow.appearance import FADE_TICKS, Appearance, appearance, fade
from reverie.envs.meadow.conditions import ATTRIBUTES, Conditions
from reverie.envs.meadow.grid import HEIGHT, MASK, NUM_CELLS, SIZE, cell_index, hash01
from reverie.envs.meadow.rays import SOLID_RAY, trace
from reverie.envs.meadow.sky import cloud_map

KEYMAP = {
    "w": "forward", "arrowup": "forward", "s": "back", "arrowdown": "back",
    "a": "left", "arrowleft": "left", "d": "right", "arrowright": "right",
    "space": "jump", "shift": "sprint", "mouse0": "break", "q": "break",
    "mouse2": "use", "e": "use",
}  # fmt: skip
MEADOW_ACTIONS = ActionSpace(
    keys=("forward", "back", "left", "right", "jump", "sprint", "break", "use"),
    camera_limit=15.0,
    num_slots=len(b.HOTBAR),
    keymap=KEYMAP,
    pitch_limits=(-90.0, 80.0),  # an episode begins 5 degrees down, and the neck stops at 85
)
"""What a player of Meadow can do; an encoded action is float32 [16]."""
PROMPTED_ACTIONS = dataclasses.replace(MEADOW_ACTIONS, attributes=ATTRIBUTES)
"""The same for one who also says what the world is like; float32 [32]."""

REACH = 4.5
"""How far the player can break and place, in blocks."""
VIEW = 40.0
"""A player who starts somewhere compares views of this many blocks."""
BREAK_TICKS = 6
"""A block is gone after this many ticks of breaking; cracks show after each but the last."""
PLACE_TICKS = 4
"""While `use` is held, a block is placed at most every so many ticks."""
HIGHEST_BLOCK = HEIGHT - 5
FACES = ("west", "east", "down", "up", "north", "south")
_NORMALS = ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1))
_MAX_HALF_TURN = 30
_NUM_KEYS = len(MEADOW_ACTIONS.keys)


class Meadow:
    """One world and its player.

    seed: makes the world and the place where the player starts. width, height: of the picture, in
    pixels. conditions: sky and season. position (x, y, z of the feet), yaw, pitch (degrees): start
    here instead.
    """

    def __init__(
        self,
        seed: int = 0,
        width: int = 160,
        height: int = 96,
        conditions: Conditions | None = None,
        *,
        position: tuple[float, float, float] | None = None,
        yaw: float | None = None,
        pitch: float = 5.0,
    ) -> None:
        if width < 80 or height < 48:
            raise ReverieError(
                f"picture of {width} x {height} is too small; expected at least 80 x 48"
            )
        self.seed = int(seed) & 0x7FFFFFFF
        self.width, self.height = width, height
        self.tick = 0
        self.slot = 1
        self.cells = terrain.generate(self.seed)
        self._skip = np.empty(8 * NUM_CELLS, np.uint8)
        self._light = np.zeros((NUM_CELLS, 4), np.uint8)
        light.fill_skip(self.cells, self._skip)
        self._clouds = cloud_map(self.seed)
        self._aim = np.array([-1.0, -1.0, -1.0, -1.0, 0.0])  # aimed cell, face, crack stage
        self._breaking = (-1, -1, -1)
        self._break_ticks = 0
        self._use_wait = 0
        self._picture = np.empty((height, width, 3), np.float32)
        self._keys = np.empty((height, width), np.int64)
        self._changed = -FADE_TICKS
        self.set_conditions(conditions or Conditions(), _first=True)
        self.state = np.zeros(physics.NUM_STATE)
        if position is None:
            x, y, z = terrain.find_spawn(self.seed, self.cells)
            position = (x + 0.5, float(y), z + 0.5)
        self.place_player(position, 0.0 if yaw is None else yaw, pitch)
        if yaw is None:
            self._face_the_open()

    def place_player(
        self, position: tuple[float, float, float], yaw: float = 0.0, pitch: float = 5.0
    ) -> None:
        """Put the player somewhere, at rest. position: x, y, z of the feet; yaw, pitch in degrees.

        Raises ReverieError if a block is there.
        """
        x, y, z = position
        if not 0 <= y < HEIGHT - physics.BODY_HEIGHT or physics.overlaps(self.cells, x, y, z):
            raise ReverieError(f"position {tuple(position)} is inside a block; expected open space")
        self.state[:] = 0.0
        self.state[physics.X : physics.Z + 1] = x % SIZE, y, z % SIZE
        self.state[physics.ON_GROUND] = physics.overlaps(self.cells, x, y - 0.01, z)
        physics.turn(self.state, round(yaw * 2), round(pitch * 2))
        self._take_aim()

    def _face_the_open(self) -> None:
        """Of four directions, the first of them random, look where one sees farthest."""
        first = int(720 * hash01(self.seed, 0, 0, 151))
        views = []
        for quarter in range(4):
            self.state[physics.YAW] = (first + 180 * quarter) % 720
            views.append(self._look(VIEW)[0])
        self.state[physics.YAW] = (first + 180 * int(np.argmax(views))) % 720
        self._take_aim()

    def set_conditions(self, conditions: Conditions, _first: bool = False) -> None:
        """Change sky and season from the next picture on, within `FADE_TICKS`."""
        if not _first:
            self._old, self._old_sun = self._shown()[0], self._sun_now()
            self._changed = self.tick
        self.conditions = conditions
        sun = None if _first else self._new.sky.sun
        self._new = appearance(conditions)
        self._scale = max(1, round(self.width / 160))
        self._icons = render.hotbar_icons(textures.build(conditions.season, "mixed"), self._scale)
        if sun is None:
            light.fill_light(self.cells, self._skip, self._light, self._new.sky.sun)
        elif (sun != self._new.sky.sun).any():
            light.fill_sun(self.cells, self._skip, self._light, self._new.sky.sun)

    def _faded(self) -> float:
        """How far the last change of conditions has come, 0 to 1."""
        return min(1.0, (self.tick - self._changed) / FADE_TICKS)

    def _sun_now(self) -> NDArray[np.uint8]:
        """Direct sun of every cell as it is shown."""
        new, share = self._light[:, 0], self._faded()
        if share == 1.0:
            return new.copy()
        return (self._old_sun + share * (new.astype(np.float32) - self._old_sun)).astype(np.uint8)

    def _shown(self) -> tuple[Appearance, NDArray[np.uint8]]:
        """What conditions look like now, and the light of every cell."""
        share = self._faded()
        if share == 1.0:
            return self._new, self._light
        shown = self._light.copy()
        shown[:, 0] = self._sun_now()
        return fade(self._old, self._new, share), shown

    def step(self, action: NDArray[np.floating]) -> Pixels:
        """`advance`, then `render`."""
        self.advance(action)
        return self.render()

    def advance(self, action: NDArray[np.floating]) -> None:
        """One tick. action: float [16], encoded by MEADOW_ACTIONS, or [32], by PROMPTED_ACTIONS.

        Raises ReverieError on another shape or on nan.
        """
        vector = np.asarray(action, np.float64)
        space = PROMPTED_ACTIONS if vector.shape == (PROMPTED_ACTIONS.width,) else MEADOW_ACTIONS
        if vector.shape != (space.width,):
            raise ReverieError(
                f"action has shape {vector.shape}; expected ({MEADOW_ACTIONS.width},), "
                f"as MEADOW_ACTIONS.encode makes it, or ({PROMPTED_ACTIONS.width},)"
            )
        if not np.isfinite(vector).all():
            raise ReverieError(
                "action is not finite; expected numbers, as MEADOW_ACTIONS.encode makes them"
            )
        forward, back, left, right, jump, sprint, breaks, uses = (vector[:_NUM_KEYS] > 0.5).tolist()
        camera = np.floor(vector[_NUM_KEYS : _NUM_KEYS + 2].clip(-1, 1) * _MAX_HALF_TURN + 0.5)
        self.slot = 1 + int(np.argmax(vector[space.slot_columns]))
        if space.attributes:
            told = Conditions(**space.decode_attributes(vector[space.attribute_columns]))
            if told != self.conditions:
                self.set_conditions(told)
        physics.turn(self.state, int(camera[0]), int(camera[1]))
        physics.move(
            self.cells, self.state, physics.HALF_DEGREES, forward - back, right - left, jump, sprint
        )
        self.tick += 1
        self._take_aim()
        self._work(breaks, uses)

    def _look(self, reach: float) -> tuple[float, int, int, int, int, int]:
        """What the middle of the picture shows (see `rays.trace`)."""
        ox, oy, oz = self._eye()
        sin_yaw, cos_yaw, sin_pitch, cos_pitch = self._camera()
        dx, dy, dz = sin_yaw * cos_pitch, -sin_pitch, -cos_yaw * cos_pitch
        return trace(self.cells, self._skip, ox, oy, oz, dx, dy, dz, reach, SOLID_RAY)

    def _take_aim(self) -> None:
        self._hit = self._look(REACH)
        _, x, y, z, face, _ = self._hit
        self._aim[:4] = (x, y, z, face) if face >= 0 else (-1, -1, -1, -1)

    def _work(self, breaks: bool, uses: bool) -> None:
        """Break and use what is aimed at, then aim again if the world changed."""
        _, x, y, z, face, _ = self._hit
        changed = False
        target = (x & MASK, y, z & MASK)
        if breaks and face >= 0 and self.block(x, y, z) != b.BEDROCK:
            self._break_ticks = self._break_ticks + 1 if target == self._breaking else 1
            self._breaking = target
            if self._break_ticks >= BREAK_TICKS:
                self._remove(x, y, z)
                changed = True
        else:
            self._break_ticks = 0
        if changed or not self._break_ticks:
            self._breaking, self._break_ticks = (-1, -1, -1), 0
        self._use_wait = max(0, self._use_wait - 1) if uses else 0
        if uses and face >= 0 and not self._break_ticks and not changed and not self._use_wait:
            changed = self._use(x, y, z, face)
            if changed:
                self._use_wait = PLACE_TICKS
        if changed:
            self._take_aim()
        self._aim[4] = self._break_ticks

    def _use(self, x: int, y: int, z: int, face: int) -> bool:
        """Turn a door, switch a lamp, or place a block; says whether the world changed."""
        block = self.block(x, y, z)
        if block in (b.LAMP, b.LAMP_OFF):
            self._put(x, y, z, b.LAMP_OFF if block == b.LAMP else b.LAMP)
            return True
        if block in (b.DOOR_X, b.DOOR_Z):
            return self._turn_door(x, y, z, block)
        if block < b.FIRST_FLOWER:
            nx, ny, nz = _NORMALS[face]
            x, y, z = x + nx, y + ny, z + nz
        if not 0 < y <= HIGHEST_BLOCK or self.block(x, y, z) not in (
            b.AIR,
            b.WATER,
            *range(b.FIRST_FLOWER, b.NUM_BLOCKS),
        ):
            return False
        old = self.block(x, y, z)
        self.cells[cell_index(x, y, z)] = b.HOTBAR[self.slot - 1]
        inside = physics.overlaps(self.cells, *self.state[physics.X : physics.Z + 1])
        self.cells[cell_index(x, y, z)] = old
        if inside:
            return False
        self._put(x, y, z, b.HOTBAR[self.slot - 1])
        return True

    def _turn_door(self, x: int, y: int, z: int, block: int) -> bool:
        turned = b.DOOR_Z if block == b.DOOR_X else b.DOOR_X
        halves = [j for j in (y - 1, y, y + 1) if self.block(x, j, z) == block]
        for j in halves:
            self.cells[cell_index(x, j, z)] = turned
        if physics.overlaps(self.cells, *self.state[physics.X : physics.Z + 1]):
            for j in halves:
                self.cells[cell_index(x, j, z)] = block
            return False
        return True

    def _remove(self, x: int, y: int, z: int) -> None:
        """Take a block away; water beside or above flows in, a flower on top goes with it."""
        beside = ((1, 0, 0), (-1, 0, 0), (0, 0, 1), (0, 0, -1), (0, 1, 0))
        wet = any(self.block(x + i, y + j, z + k) == b.WATER for i, j, k in beside)
        self._put(x, y, z, b.WATER if wet else b.AIR)
        if self.block(x, y + 1, z) >= b.FIRST_FLOWER:
            self._put(x, y + 1, z, b.AIR)

    def _put(self, x: int, y: int, z: int, block: int) -> None:
        self.cells[cell_index(x, y, z)] = block
        light.edit_skip(self._skip, x, y, z, block != b.AIR)
        light.edit_light(self.cells, self._skip, self._light, self._new.sky.sun, x, y, z)

    def render(self) -> Pixels:
        """The picture now, uint8 [h, w, 3]."""
        eye = self._eye()
        face_textures, cracks = b.FACE_TEXTURES, render.crack_map()
        shown, lit = self._shown()
        scene = (self.cells, self._skip, lit, shown.textures, face_textures, cracks)
        air = (shown.sky.sun, shown.sky.values, self._clouds)
        optics = render.lens(self.width, self.height)
        in_water = self.block(*(int(np.floor(value)) for value in eye)) == b.WATER
        render.draw_scene(
            scene, air, self._aim, eye, self._camera(), optics, in_water, self._picture, self._keys
        )
        out = np.empty((self.height, self.width, 3), np.uint8)
        render.finish(self._picture, shown.rain, shown.snow, self.tick, out)
        render.draw_overlay(out, self._icons, self.slot - 1, self._scale)
        return out

    def _eye(self) -> tuple[float, float, float]:
        x, y, z = self.state[physics.X : physics.Z + 1].tolist()
        return x, y + physics.EYE_HEIGHT, z

    def _camera(self) -> tuple[float, float, float, float]:
        yaw, pitch = int(self.state[physics.YAW]), int(self.state[physics.PITCH])
        (sin_yaw, cos_yaw), (sin_pitch, cos_pitch) = physics.HALF_DEGREES[
            [yaw, pitch % 720]
        ].tolist()
        return sin_yaw, cos_yaw, sin_pitch, cos_pitch

    def block(self, x: int, y: int, z: int) -> int:
        """Number of the block in a cell (see blocks.py); above and below the world is air."""
        if not 0 <= y < HEIGHT:
            return b.AIR
        return int(self.cells[cell_index(x, y, z)])

    def info(self) -> dict[str, Any]:
        """What a scripted policy may want to know. Angles in degrees, distances in blocks."""
        state = self.state.tolist()
        t, x, y, z, face, _ = self._hit
        target = None
        if face >= 0:
            target = {
                "position": (x % SIZE, y, z % SIZE),
                "face": FACES[face],
                "block": b.NAMES[self.block(x, y, z)],
                "distance": t,
            }
        return {
            "position": tuple(state[physics.X : physics.Z + 1]),
            "yaw": state[physics.YAW] / 2,
            "pitch": state[physics.PITCH] / 2,
            "on_ground": state[physics.ON_GROUND] > 0,
            "in_water": state[physics.IN_WATER] > 0,
            "blocked": state[physics.BLOCKED] > 0,
            "moved": tuple(state[physics.MOVED_X : physics.MOVED_Z + 1]),
            "ahead": self._ahead(),
            "target": target,
            "break_ticks": self._break_ticks,
            "slot": self.slot,
            "tick": self.tick,
            **self.conditions.to_options(),
        }

    def _ahead(self) -> str:
        """What lies one block in front of the feet.

        "clear", "step" (jump over it), "wall", "drop" (3 blocks or more) or "water".
        """
        sin_yaw, cos_yaw, _, _ = self._camera()
        x, y, z = self.state[physics.X : physics.Z + 1]
        fx, fy, fz = int(np.floor(x + sin_yaw)), int(np.floor(y + 0.01)), int(np.floor(z - cos_yaw))

        def solid(j: int) -> bool:
            return b.WATER < self.block(fx, j, fz) < b.FIRST_FLOWER

        if solid(fy) or solid(fy + 1):
            return "wall" if solid(fy + 1) or solid(fy + 2) else "step"
        if self.block(fx, fy, fz) == b.WATER or self.block(fx, fy - 1, fz) == b.WATER:
            return "water"
        return "clear" if any(solid(fy - depth) for depth in (1, 2, 3)) else "drop"

    def clone(self) -> Meadow:
        """An independent copy, to see what would happen if the player did something else."""
        other = copy.copy(self)
        for name in ("cells", "_skip", "_light", "_aim", "state", "_picture", "_keys"):
            setattr(other, name, getattr(self, name).copy())
        return other
