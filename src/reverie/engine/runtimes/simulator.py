"""A runtime whose slots hold simulators instead of memories of a network: the world as it truly is.

It plays an environment through the very page that plays the world learned from it, to compare the
two side by side. Needs the extra `simulator`.

Any Gymnasium environment with pixels and keys will do. A start is one of a few environment seeds,
so nothing but its own picture can begin a session, and the session's seed has no noise to choose.
"""

from __future__ import annotations

import importlib.util
import json
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverie.core import ReverieError
from reverie.data.environment import Simulator
from reverie.engine.runtime import Batch, CostTable
from reverie.world import Start, World, WorldConfig

DEFAULT_ENV = "reverie/Meadow-v0"
NUM_STARTS = 6
NUM_TIMED = 20
_LENGTH = struct.Struct("<I")


class SimulatorRuntime:
    """See `engine.runtime.Runtime`.

    env_id, env_kwargs: as for `gymnasium.make`. first_seed: the environment's, of the first start.
    Raises ReverieError where the extra is missing, the environment is unknown or has no keys.
    """

    def __init__(
        self,
        env_id: str = DEFAULT_ENV,
        first_seed: int = 0,
        env_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        require_simulator()
        self._env_id, self._env_kwargs = env_id, dict(env_kwargs or {})
        first = Simulator(env_id, self._env_kwargs)
        if first.actions.space is None:
            raise ReverieError(
                f"environment {env_id!r} takes numbers, not keys; it cannot be played by hand"
            )
        self._space = first.actions.space
        self._spare = [first]
        self._slots: list[_Slot] = []
        self._seeds: dict[bytes, int] = {}
        self._world = self._make_world(first, range(first_seed, first_seed + NUM_STARTS))

    @property
    def world(self) -> World:
        return self._world

    @property
    def kind(self) -> str:
        return f"simulator {self._env_id}"

    @property
    def num_slots(self) -> int:
        return len(self._slots)

    def allocate(self, num_slots: int) -> None:
        """One simulator for each slot, all begun from the first start."""
        while len(self._spare) < num_slots:
            self._spare.append(Simulator(self._env_id, self._env_kwargs))
        self._slots = [_Slot(simulator) for simulator in self._spare[:num_slots]]
        for slot in self._slots:
            slot.begin(next(iter(self._seeds.values())))
            slot.step(self._world.starts[0].actions[0])

    def prefill(
        self,
        slot: int,
        frames: NDArray[np.uint8],
        actions: NDArray[np.float32],
        seed: int,
        first_index: int | None = None,
        pitch_deg: float = 0.0,
    ) -> None:
        """Begin the slot's simulator where this picture was taken; it must be one of the starts."""
        start_seed = self._seeds.get(frames[-1].tobytes())
        if start_seed is None:
            names = ", ".join(start.name for start in self._world.starts)
            raise ReverieError(f"a simulator begins only from its own starts: {names}")
        self._slots[slot].begin(start_seed)

    def step(self, batch: Batch) -> NDArray[np.uint8]:
        """One step of every simulator of the batch, one after the other: uint8 [b, h, w, 3]."""
        pairs = zip(batch.slots, batch.actions, strict=True)
        return np.stack([self._slots[slot].step(action) for slot, action in pairs])

    def commit(self, slots: Sequence[int]) -> None:
        """Nothing is pending: a simulator is at the next state when it has drawn it."""

    def changes(self, slots: Sequence[int]) -> Sequence[float]:
        """Nothing tells, and more steps would not help."""
        return [0.0] * len(slots)

    def snapshot(self, slot: int) -> bytes:
        """The seed and every action since: environments have no common way to tell their state."""
        held = self._slots[slot]
        actions = np.array(held.actions, np.float32).reshape(-1, self._space.width)
        header = {"env_id": self._env_id, "seed": held.seed, "num_actions": len(actions)}
        text = json.dumps(header).encode()
        return _LENGTH.pack(len(text)) + text + actions.tobytes()

    def restore(self, slot: int, snapshot: bytes) -> None:
        """Play the actions again without drawing. Takes as long as the simulator needs for them."""
        try:
            (length,) = _LENGTH.unpack_from(snapshot)
            header = json.loads(snapshot[_LENGTH.size : _LENGTH.size + length])
            actions = np.frombuffer(snapshot[_LENGTH.size + length :], np.float32)
            actions = actions.reshape(header["num_actions"], self._space.width)
            env_id, seed = header["env_id"], int(header["seed"])
        except (struct.error, ValueError, KeyError, TypeError):
            raise ReverieError("this is not a saved session of a simulator") from None
        if env_id != self._env_id:
            raise ReverieError(f"saved in {env_id!r}; this simulator is {self._env_id!r}")
        self._slots[slot].replay(seed, actions)

    def cost_table(self) -> CostTable:
        """Milliseconds by (batch size, 1). Simulators run one after the other, so costs add up."""
        table = {}
        idle = self._world.starts[0].actions[0]
        times = []
        for _ in range(NUM_TIMED):
            started_s = time.perf_counter()
            self._slots[0].step(idle)
            times.append(time.perf_counter() - started_s)
        step_ms = 1000 * float(np.median(times))
        for b in range(1, self.num_slots + 1):
            table[b, 0], table[b, 1] = 0.0, b * step_ms
        return table

    def _make_world(self, simulator: Simulator, seeds: range) -> World:
        idle = simulator.actions.idle()[None]
        starts = []
        for seed in seeds:
            simulator.reset(seed)
            frame = simulator.picture().copy()
            self._seeds[frame.tobytes()] = seed
            starts.append(Start(f"seed-{seed}", f"Seed {seed}", frame[None], idle))
        height, width, _ = starts[0].frames[0].shape
        config = WorldConfig(
            name="simulator",
            width=width,
            height=height,
            fps=round(simulator.fps),
            action_space=self._space,
            denoising_steps=(1,),
            context=1,
            context_signal=1.0,
            prompts=simulator.wishes,
        )
        return World(Path(), config, tuple(starts), simulator.prompter())


class _Slot:
    """One simulator, and how it came to where it is."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self.seed = 0
        self.actions: list[NDArray[np.float32]] = []

    def begin(self, seed: int) -> None:
        self._simulator.reset(seed)
        self.seed, self.actions = seed, []

    def step(self, action: NDArray[np.float32]) -> NDArray[np.uint8]:
        self._advance(action)
        return self._simulator.picture()

    def replay(self, seed: int, actions: NDArray[np.float32]) -> None:
        self.begin(seed)
        for action in actions:
            self._advance(action)

    def _advance(self, action: NDArray[np.float32]) -> None:
        _, ended = self._simulator.step(action)
        self.actions.append(np.array(action, np.float32))
        if ended:
            self._simulator.reset(self.seed)


def require_simulator() -> None:
    """Raises ReverieError, with the line that installs it, where the extra is missing."""
    missing = [name for name in ("gymnasium", "numba") if importlib.util.find_spec(name) is None]
    if missing:
        raise ReverieError(
            f"playing the simulator needs {' and '.join(missing)}: "
            "pip install 'reverie-worlds[simulator]'"
        )
