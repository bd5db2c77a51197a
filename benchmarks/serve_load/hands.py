"""How people hold keys and a mouse, by chance and the same for the same seed. Pure.

A hand presses one or two keys for 0.3 to 3 s, taps, or rests for up to 2.5 s, between 0.1 and 0.5 s
apart. The mouse stands still, follows something slowly, or flicks: several hundred degrees a second
for a moment. The view stays near the horizon.
"""

from __future__ import annotations

import random

WALKS = (("forward",), ("forward", "sprint"), ("forward", "left"), ("left",), ("right",), ("back",))
WALK_WEIGHTS = (8, 3, 2, 2, 2, 1)
TAPS = ("jump", "break", "use")
MAX_FLICK_DEG_S = 600.0


class Hands:
    """keys: of the world's action space, in its order. now_s: when they begin."""

    def __init__(self, seed: int, keys: tuple[str, ...], now_s: float) -> None:
        self._random = random.Random(seed)
        self._keys = keys
        self._held = 0
        self._next_s = now_s + self._random.uniform(0.0, 0.5)
        self._mouse_s = self._read_s = now_s
        self._yaw_deg_s = self._pitch_deg_s = 0.0
        self._pitch_deg = 0.0

    @property
    def next_s(self) -> float:
        """When the next key goes down or up."""
        return self._next_s

    def move(self, now_s: float) -> int:
        """The keys that are held from now on, as bits; call when `next_s` has come."""
        if self._held:
            self._held = 0
            rests = self._random.random() < 0.15
            self._next_s = now_s + self._random.uniform(*(0.5, 2.5) if rests else (0.1, 0.5))
            return 0
        if self._random.random() < 0.3:
            names, held_s = (self._random.choice(TAPS),), self._random.uniform(0.08, 0.3)
        else:
            names = self._random.choices(WALKS, WALK_WEIGHTS)[0]
            held_s = self._random.uniform(0.3, 3.0)
        self._held = sum(1 << self._keys.index(name) for name in names if name in self._keys)
        self._next_s = now_s + held_s
        return self._held

    def read(self, now_s: float) -> tuple[int, float, float]:
        """Keys held, and degrees turned right and down since the last time."""
        yaw = pitch = 0.0
        while self._read_s < now_s:
            until_s = min(self._mouse_s, now_s)
            duration_s = max(until_s - self._read_s, 0.0)
            yaw += self._yaw_deg_s * duration_s
            pitch += self._pitch_deg_s * duration_s
            self._read_s = until_s
            if until_s >= self._mouse_s:
                self._choose_movement()
        self._pitch_deg += pitch
        return self._held, yaw, pitch

    def _choose_movement(self) -> None:
        chance = self._random.random()
        if chance < 0.35:
            duration_s, speed = self._random.uniform(0.2, 1.5), 0.0
        elif chance < 0.85:
            duration_s, speed = self._random.uniform(0.3, 1.5), self._random.gauss(0.0, 40.0)
        else:
            duration_s, speed = self._random.uniform(0.05, 0.2), self._random.gauss(0.0, 300.0)
            speed = max(-MAX_FLICK_DEG_S, min(speed, MAX_FLICK_DEG_S))
        self._mouse_s += duration_s
        self._yaw_deg_s = speed
        self._pitch_deg_s = self._random.gauss(0.0, abs(speed) / 6) - 0.5 * self._pitch_deg
