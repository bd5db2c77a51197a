"""Meadow as a Gymnasium environment, `reverie/Meadow-v0`."""

from __future__ import annotations

import dataclasses
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from reverie.core import ActionSpace, Pixels, ReverieError
from reverie.envs.meadow.conditions import ATTRIBUTES, Conditions
from reverie.envs.meadow.sim import MEADOW_ACTIONS, PROMPTED_ACTIONS, Meadow


@lru_cache
def _said() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "wordings.toml").read_text("utf-8"))


class MeadowEnv(gymnasium.Env[NDArray[np.uint8], NDArray[np.float32]]):
    """A voxel world seen through the player's eyes, 20 ticks a second. No reward, no end.

    Observation: uint8 [height, width, 3]. Action: float32 [16], encoded by `controls` (keys 0/1,
    camera -1..1, slot one-hot). `reset(options=...)` takes time_of_day, weather, season, biome, and
    position, yaw, pitch of the player. prompts: actions are float32 [32], and say those four, too:
    what `reset` and `set_conditions` say of them lasts until the next action.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (Gymnasium's own declaration)

    def __init__(
        self,
        width: int = 160,
        height: int = 96,
        render_mode: str | None = "rgb_array",
        prompts: bool = False,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ReverieError(f"render_mode is {render_mode!r}; expected 'rgb_array' or None")
        self.width, self.height, self.render_mode = width, height, render_mode
        self.controls: ActionSpace = PROMPTED_ACTIONS if prompts else MEADOW_ACTIONS
        self.observation_space = gymnasium.spaces.Box(0, 255, (height, width, 3), np.uint8)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (self.controls.width,), np.float32)
        self._meadow: Meadow | None = None

    @property
    def meadow(self) -> Meadow:
        """The simulator behind the environment. Raises RuntimeError before the first reset."""
        if self._meadow is None:
            raise RuntimeError("the world does not exist yet; call reset() first")
        return self._meadow

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Pixels, dict[str, Any]]:
        """A new world. Without a seed, the next one of the environment's own generator."""
        super().reset(seed=seed)
        options = dict(options or {})
        known = {*ATTRIBUTES, "position", "yaw", "pitch"}
        if unknown := sorted(set(options) - known):
            raise ReverieError(f"unknown reset options {unknown}; expected some of {sorted(known)}")
        world_seed = int(self.np_random.integers(2**31)) if seed is None else seed
        start = {name: options[name] for name in ("position", "yaw", "pitch") if name in options}
        conditions = Conditions.from_options(options)
        self._meadow = Meadow(world_seed, self.width, self.height, conditions, **start)
        return self._meadow.render(), self._meadow.info()

    def step(self, action: NDArray[np.float32]) -> tuple[Pixels, float, bool, bool, dict[str, Any]]:
        """One tick. Raises ReverieError unless the action is as long as `controls` says, finite."""
        if np.shape(action) != (self.controls.width,):
            raise ReverieError(
                f"action has shape {np.shape(action)}; expected ({self.controls.width},), "
                "as `controls` encodes it"
            )
        frame = self.meadow.step(action)
        return frame, 0.0, False, False, self.meadow.info()

    @property
    def wordings(self) -> dict[str, dict[str, list[str]]]:
        """Attribute -> value -> ways to say it."""
        return _said()["wordings"]

    @property
    def wishes(self) -> list[str]:
        """A few prompts to begin with."""
        return _said()["wishes"]

    def render(self) -> Pixels:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.meadow.render()

    def set_conditions(self, **conditions: str) -> None:
        """Change time_of_day, weather, season or biome mid-play; those not named stay."""
        self.meadow.set_conditions(dataclasses.replace(self.meadow.conditions, **conditions))

    def clone(self) -> MeadowEnv:
        """An independent environment in the same state: branch here, act differently, compare."""
        prompts = bool(self.controls.attributes)
        other = MeadowEnv(self.width, self.height, self.render_mode, prompts)
        other._meadow = self.meadow.clone()
        return other
