"""Tiny deterministic environments, one per kind of action. `gymnasium.make("tiny_env:Tiny-v0")`
imports and registers them.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from reverie.core import ActionSpace

SIZE = (12, 20)
CONTROLS = ActionSpace(
    keys=("forward", "back", "left", "right", "jump", "sprint", "break", "use"),
    camera_limit=15.0,
    num_slots=6,
)


class Tiny(gymnasium.Env[Any, Any]):
    """A point that walks and turns over coloured noise; the picture depends on the seed, the
    position and the angles.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self,
        kind: str = "controls",
        picture: str = "observation",
        ends_after: int = 10_000,
        brightness: int = 0,
        render_mode: str | None = None,
    ) -> None:
        self.kind, self.ends_after, self.brightness = kind, ends_after, brightness
        self.render_mode = render_mode
        if kind == "controls":
            self.controls = CONTROLS
        self.action_space = {
            "controls": spaces.Box(-1, 1, (CONTROLS.width,), np.float32),
            "discrete": spaces.Discrete(5),
            "binary": spaces.MultiBinary(3),
            "vector": spaces.Box(-2, 2, (2, 2), np.float32),
            "dict": spaces.Dict({"a": spaces.Discrete(2)}),
        }[kind]
        pixels = spaces.Box(0, 255, (*SIZE, 3), np.uint8)
        self.picture = picture
        self.observation_space = {
            "observation": pixels,
            "dict": spaces.Dict({"health": spaces.Box(0, 1, (1,)), "screen": pixels}),
            "render": spaces.Box(-1, 1, (4,), np.float32),
            "none": spaces.Box(-1, 1, (4,), np.float32),
        }[picture]
        if picture == "none":
            self.metadata = {"render_modes": []}
        self.num_drawn = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.noise = self.np_random.integers(0, 200, (64, 64, 3))
        self.x, self.y, self.yaw, self.pitch, self.tick = 8.0, 8.0, 0.0, 0.0, 0
        if options:
            self.x = float(options["x"])
        return self._observation(), self._info()

    def step(self, action: Any) -> Any:
        if self.kind == "controls":
            held = CONTROLS.decode(np.asarray(action))
            self.x += 0.2 * (("forward" in held.keys) - ("back" in held.keys))
            self.y += 0.2 * (("right" in held.keys) - ("left" in held.keys))
            self.yaw = (self.yaw + held.mouse[0]) % 360
            self.pitch = float(np.clip(self.pitch + held.mouse[1], -89, 89))
        else:
            self.x += 0.1 * float(np.sum(action))
        self.tick += 1
        return self._observation(), 0.0, self.tick >= self.ends_after, False, self._info()

    def render(self) -> Any:
        self.num_drawn += 1
        rows = (np.arange(SIZE[0]) + int(self.x * 2) + int(self.pitch)) % 64
        columns = (np.arange(SIZE[1]) + int(self.y * 2) + int(self.yaw)) % 64
        return (self.noise[rows][:, columns] + self.brightness).astype(np.uint8)

    def _observation(self) -> Any:
        if self.picture in ("render", "none"):
            return np.zeros(4, np.float32)
        pixels = self.render()
        return pixels if self.picture == "observation" else {"health": np.ones(1), "screen": pixels}

    def _info(self) -> dict[str, Any]:
        return {
            "position": (self.x, 0.0, self.y),
            "yaw": self.yaw,
            "pitch": self.pitch,
            "on_ground": True,
            "in_water": False,
            "target": None,
        }


class TinyAdvance(Tiny):
    """Offers a step without a picture."""

    def advance(self, action: Any) -> dict[str, Any]:
        self.picture = "none"
        info = self.step(action)[4]
        self.picture = "observation"
        return info


class Pad(Tiny):
    """Takes a Dict of things, as a game with a gamepad does."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__("discrete", render_mode=render_mode)
        turn = spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = spaces.Dict({"move": spaces.MultiDiscrete([3, 3]), "turn": turn})

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        self.yaw += 3 * float(action["turn"][0])
        return super().step(action["move"])


def make_pad(**kwargs: Any) -> Pad:
    """What makes an environment, not its id."""
    return Pad(**kwargs)


gymnasium.register("TinyAdvance-v0", "tiny_env:TinyAdvance")
gymnasium.register("Tiny-v0", "tiny_env:Tiny")


class OnlyForward:
    """A policy of one's own."""

    def __init__(self, actions: Any) -> None:
        self.vector = actions.idle()
        self.vector[0] = 1

    def __call__(self, rng: Any, info: dict[str, Any]) -> Any:
        return self.vector
