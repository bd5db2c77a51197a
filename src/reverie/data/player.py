"""The scripted player: what they know of themself, and how they turn their head.

Angles in degrees; yaw grows to the right, pitch downwards (0 is the horizon). Every camera turn is
a multiple of half a degree, as the log keeps it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverie.core import Action, ActionSpace
from reverie.data.actions import CAMERA_STEP_DEG

Steps = Iterator[Action]
Turn = tuple[float, float]

STILL: Turn = (0.0, 0.0)
PITCH_MOST = 88.0
AVOIDED = ("wall", "water", "drop")
"""What a walker turns away from, of what the environment says lies ahead."""
TRAIL = 70
"""Frames of walking that a player remembers, to notice that they lead nowhere."""
BLOCKED_MOVE = 0.02
"""Blocks per frame: who moves less while walking is held up by something."""

WISHES = 1 / 60
"""Per frame: what has been wished for is to be seen for a while, in many places."""


class Body:
    """What the player knows of themself: last info, selected slot, how long they have been held up.
    One per episode.
    """

    def __init__(self, space: ActionSpace, rng: np.random.Generator) -> None:
        self.space, self.rng = space, rng
        self.slot = int(rng.integers(1, space.num_slots + 1)) if space.num_slots else 1
        self.attributes: dict[str, str] = {}
        if space.attributes:
            self.wish()
        self.position = np.zeros(3)
        self.yaw, self.pitch = 0.0, 0.0
        self.moved = 0.0
        self.on_ground = True
        self.is_afloat = False
        self.target: dict[str, Any] | None = None
        self.ahead = "clear"
        self.num_blocked = 0
        self.shore: NDArray[np.float64] | None = None
        self._trail: deque[NDArray[np.float64]] = deque(maxlen=TRAIL)

    def see(self, info: dict[str, Any], walking: bool) -> None:
        """Take in what the environment says after a frame; `walking`: whether a walking key was
        held during it.
        """
        if self.space.attributes and self.chance(WISHES):
            self.wish()
        position = np.asarray(info.get("position", self.position), float)
        self.moved = float(np.hypot(*(position - self.position)[[0, 2]]))
        self.position = position
        self.yaw = float(info.get("yaw", 0.0))
        self.pitch = float(info.get("pitch", 0.0))
        self.on_ground = bool(info.get("on_ground", True))
        # Who bobs at the surface leaves the water for a moment and is still afloat.
        in_water = bool(info.get("in_water", False))
        self.is_afloat = in_water or (self.is_afloat and not self.on_ground)
        self.target = info.get("target")
        self.ahead = str(info.get("ahead", "clear"))
        if self.on_ground and not self.is_afloat:
            self.shore = position
        held_up = walking and self.moved < BLOCKED_MOVE
        self.num_blocked = self.num_blocked + 1 if held_up else 0
        if walking:
            self._trail.append(position)

    @property
    def shore_yaw(self) -> float | None:
        """How far to turn to face where one last stood on dry ground, -180 to 180 degrees."""
        if self.shore is None:
            return None
        east, _, south = self.shore - self.position
        return float((np.degrees(np.arctan2(east, -south)) - self.yaw + 180) % 360 - 180)

    @property
    def sees_open(self) -> bool:
        """Whether one could walk the way one looks."""
        near = self.target is not None and float(self.target["distance"]) < 3.0
        return not near and self.ahead not in AVOIDED

    @property
    def faces_wall(self) -> bool:
        """Whether something upright fills most of the picture."""
        near = self.target is not None and float(self.target["distance"]) < 1.6
        return near and abs(self.pitch) < 40

    @property
    def is_trapped(self) -> bool:
        """Whether the last frames of walking led nowhere."""
        trail = self._trail
        if len(trail) < TRAIL:
            return False
        return float(np.ptp(np.array(trail)[:, [0, 2]], axis=0).max()) < 2.5

    def forget_trail(self) -> None:
        self._trail.clear()

    def act(self, *keys: str, turn: Turn = STILL) -> Action:
        """An action of the keys that this world has."""
        held = (key for key in keys if key in self.space.keys)
        return Action(held, turn, self.slot, self.attributes)

    def wish(self) -> None:
        """Have the world be otherwise in one more respect, or, if it was otherwise already, every
        other time all as usual.
        """
        name = str(self.rng.choice(list(self.space.attributes)))
        value = str(self.rng.choice(self.space.attributes[name][1:]))
        back = bool(self.attributes) and self.chance(0.5)
        self.attributes = {} if back else {**self.attributes, name: value}

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def ticks(self, fewest: int, most: int) -> int:
        """A duration, shorter ones more often (evenly spread in its logarithm)."""
        return round(float(np.exp(self.rng.uniform(np.log(fewest), np.log(most)))))

    def side(self) -> str:
        return str(self.rng.choice(["left", "right"]))

    def sign(self) -> int:
        return int(self.rng.choice([-1, 1]))

    def pick_slot(self) -> None:
        if self.space.num_slots:
            self.slot = int(self.rng.integers(1, self.space.num_slots + 1))


def ease(yaw: float, pitch: float, num_ticks: int) -> list[Turn]:
    """A turn of so many degrees in all, slow at both ends as a hand moves (minimum jerk), in steps
    of half a degree.
    """
    t = np.arange(1, num_ticks + 1) / num_ticks
    share = t**3 * (10 - 15 * t + 6 * t**2)
    total = np.outer(np.r_[0.0, share], [yaw, pitch]) / CAMERA_STEP_DEG
    steps = np.diff(np.rint(total), axis=0) * CAMERA_STEP_DEG
    return [(float(y), float(p)) for y, p in steps]


def steady(yaw_rate: float, pitch_rate: float, num_ticks: int) -> list[Turn]:
    """A turn of constant speed, degrees a frame."""
    total = np.outer(np.arange(num_ticks + 1), [yaw_rate, pitch_rate]) / CAMERA_STEP_DEG
    steps = np.diff(np.rint(total), axis=0) * CAMERA_STEP_DEG
    return [(float(y), float(p)) for y, p in steps]


class Gaze:
    """A hand on the mouse while the other holds keys: bursts and rests. Call it once a frame for
    the camera turn.

    style: "still" never moves, "calm" small bursts and long rests, "busy" large bursts and short
    rests, "curve" turns steadily.
    """

    STYLES = ("still", "calm", "busy", "curve")

    def __init__(self, body: Body, style: str) -> None:
        self.body, self.style = body, style
        self._turns: list[Turn] = []

    @classmethod
    def draw(cls, body: Body, shares: tuple[float, float, float, float]) -> Gaze:
        """A gaze of a random style; shares as in `STYLES`. A pitch far from the horizon is always
        left.
        """
        style = str(body.rng.choice(cls.STYLES, p=shares))
        if style == "still" and abs(body.pitch) > 30:
            style = "calm"
        return cls(body, style)

    def __call__(self) -> Turn:
        if self.style == "still":
            return STILL
        if not self._turns:
            self._turns = self._plan()
            self._turns.reverse()
        return self._turns.pop()

    def _plan(self) -> list[Turn]:
        body, rng = self.body, self.body.rng
        if self.style == "curve":
            rate = body.sign() * float(rng.exponential(2.0)) + 0.25
            return steady(float(np.clip(rate, -8, 8)), 0.0, body.ticks(10, 40))
        if self.style == "calm":
            yaw, rest = float(rng.laplace(0, 18)), body.ticks(4, 30)
        else:
            yaw, rest = float(rng.laplace(0, 55)), body.ticks(1, 12)
        pitch = 0.0
        if abs(body.pitch) > 30 or body.chance(0.5):
            pitch = draw_pitch(body) - body.pitch
        speed = rng.uniform(2, 6) if self.style == "calm" else rng.uniform(3, 15)
        num_ticks = max(2, round(max(abs(yaw), abs(pitch)) / speed))
        return ease(yaw, pitch, num_ticks) + [STILL] * rest


def draw_pitch(body: Body) -> float:
    """Where a player looks: mostly near the horizon, a little down; at times to the ground or the
    sky.
    """
    kind = body.rng.random()
    if kind < 0.70:
        return float(body.rng.normal(7, 9))
    if kind < 0.88:
        return float(body.rng.uniform(18, 50))
    if kind < 0.96:
        return float(body.rng.uniform(-40, -8))
    return float(body.rng.uniform(50, 85)) * (1 if body.chance(0.7) else -1)


def look(body: Body, yaw: float, pitch: float, *keys: str) -> Steps:
    """Turn by `yaw` and to the absolute `pitch`, at a hand's speed."""
    change = float(np.clip(pitch, -PITCH_MOST, PITCH_MOST)) - body.pitch
    size = max(abs(yaw), abs(change))
    if size < 1:
        return
    for turn in ease(yaw, change, max(2, round(size / float(body.rng.uniform(3, 8))))):
        yield body.act(*keys, turn=turn)
