"""`reverie/World-v0`: a generated world with the interface of a real environment (Gymnasium).

There is no reward and no end; wrap it to add yours. Needs the extra `gym`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from reverie.client.local import LocalSession, LocalWorld, load
from reverie.core import ReverieError


class WorldEnv(gymnasium.Env[NDArray[np.uint8], NDArray[np.float32]]):
    """Observations are pictures uint8 [h, w, 3]; actions are encoded actions float32 [A].

    Numbers of an action are read as a device would send them: a key is held above 0.5, the greatest
    slot is selected, the camera turns by a part of its limit, in [-1, 1]. world: name, path, hf://
    address, or a loaded one. start, steps: as in `LocalWorld.start`; `reset` takes both as options.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(
        self,
        world: str | Path | LocalWorld = "meadow",
        render_mode: str | None = None,
        start: str | None = None,
        steps: int | None = None,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ReverieError(f"render_mode is {render_mode!r}; expected 'rgb_array' or None")
        self.world = world if isinstance(world, LocalWorld) else load(world, num_sessions=1)
        self.render_mode = render_mode
        self._options: dict[str, Any] = {"start": start, "steps": steps}
        self._session: LocalSession | None = None
        config = self.world.config
        self.metadata = {**self.metadata, "render_fps": config.fps}
        space = config.action_space
        low = np.zeros(space.width, np.float32)
        low[space.camera_columns] = -1.0
        self.observation_space = gymnasium.spaces.Box(0, 255, config.frame_shape, np.uint8)
        self.action_space = gymnasium.spaces.Box(low, np.ones_like(low))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """The last picture of the start. options: "start" and "steps" for this episode."""
        super().reset(seed=seed)
        unknown = set(options or {}) - set(self._options)
        if unknown:
            raise ReverieError(
                f"unknown options {sorted(unknown)}; expected {sorted(self._options)}"
            )
        self.close()
        session_seed = int(self.np_random.integers(2**63))
        chosen = {**self._options, **(options or {})}
        self._session = self.world.start(session_seed, history_s=0, **chosen)
        return self._session.frame, {"frame_index": 0, "seed": session_seed}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """One frame further. Never terminated, never truncated, reward 0."""
        space = self.world.config.action_space
        held = space.decode(np.asarray(action, np.float32))
        frame = self._open_session.step(held)
        return frame, 0.0, False, False, {"frame_index": self._open_session.frame_index}

    def render(self) -> NDArray[np.uint8] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The newest picture, uint8 [h, w, 3]; None without a render mode."""
        return self._open_session.frame if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Free the session. `reset` opens another."""
        if self._session is not None:
            self._session.close()
        self._session = None

    @property
    def _open_session(self) -> LocalSession:
        if self._session is None:
            raise ReverieError("reset the environment before the first step")
        return self._session
