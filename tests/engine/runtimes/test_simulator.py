"""The simulator as a runtime, on an environment of sixteen lines."""

from __future__ import annotations

import importlib.util
from typing import Any

import gymnasium
import numpy as np
import pytest
from numpy.typing import NDArray

from reverie.core import ReverieError
from reverie.engine.runtime import Batch, Runtime
from reverie.engine.runtimes.simulator import SimulatorRuntime

LAST = 40


class Corridor(gymnasium.Env[Any, Any]):
    """One walks along it; the picture's brightness is the place, its corner the seed."""

    metadata = {"render_modes": [], "render_fps": 20}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(0, 255, (4, 6, 3), np.uint8)
    action_space = gymnasium.spaces.Discrete(3)

    def get_action_meanings(self) -> list[str]:
        return ["stay", "right", "left"]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._seed, self._place = seed or 0, 0
        return self._draw(), {}

    def step(self, action: int) -> Any:
        self._place += (0, 1, -1)[action]
        return self._draw(), 0.0, self._place == LAST, False, {}

    def _draw(self) -> NDArray[np.uint8]:
        picture = np.full((4, 6, 3), 100 + self._place, np.uint8)
        picture[0, 0] = self._seed
        return picture


class Numbers(Corridor):
    """The same, steered by numbers: nothing that one could hold down."""

    action_space: Any = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)


gymnasium.register("tests/Corridor-v0", entry_point=lambda **_: Corridor())
gymnasium.register("tests/Numbers-v0", entry_point=lambda **_: Numbers())


@pytest.fixture
def runtime() -> SimulatorRuntime:
    runtime = SimulatorRuntime("tests/Corridor-v0", first_seed=3)
    runtime.allocate(2)
    return runtime


def batch(runtime: SimulatorRuntime, **keys: str) -> Batch:
    """Slots named s0, s1 ... with the key that each holds."""
    names = runtime.world.config.action_space.keys
    slots = tuple(int(name[1:]) for name in keys)
    actions = np.array(
        [[float(name == key) for name in names] for key in keys.values()], np.float32
    )
    return Batch(slots, actions, (0,) * len(slots), (0,) * len(slots), 1)


def begin(runtime: SimulatorRuntime, slot: int, start: str) -> None:
    clip = runtime.world.find_start(start)
    runtime.prefill(slot, clip.frames, clip.actions, seed=0)


def places(pictures: NDArray[np.uint8]) -> list[int]:
    return [int(picture[1, 1, 0]) - 100 for picture in pictures]


def test_is_a_runtime_with_a_world(runtime: SimulatorRuntime):
    checked: Runtime = runtime
    config = checked.world.config
    assert (config.width, config.height, config.fps, config.context) == (6, 4, 20, 1)
    assert config.action_space.keys == ("stay", "right", "left")
    assert [start.name for start in checked.world.starts][:2] == ["seed-3", "seed-4"]
    assert checked.num_slots == 2


def test_slots_walk_by_themselves(runtime: SimulatorRuntime):
    begin(runtime, 0, "seed-3")
    begin(runtime, 1, "seed-5")
    assert places(runtime.step(batch(runtime, s0="right", s1="left"))) == [1, -1]
    assert places(runtime.step(batch(runtime, s1="stay", s0="right"))) == [-1, 2]
    assert [int(p[0, 0, 0]) for p in runtime.step(batch(runtime, s0="stay", s1="stay"))] == [3, 5]


def test_start_again_forgets(runtime: SimulatorRuntime):
    begin(runtime, 0, "seed-3")
    runtime.step(batch(runtime, s0="right"))
    begin(runtime, 0, "seed-3")
    assert places(runtime.step(batch(runtime, s0="stay"))) == [0]


def test_an_episode_that_ends_begins_again(runtime: SimulatorRuntime):
    begin(runtime, 0, "seed-4")
    seen = [places(runtime.step(batch(runtime, s0="right")))[0] for _ in range(LAST + 1)]
    assert seen[-3:] == [LAST - 1, 0, 1]


def test_snapshot_is_where_it_was(runtime: SimulatorRuntime):
    begin(runtime, 0, "seed-4")
    for _ in range(5):
        runtime.step(batch(runtime, s0="right"))
    saved = runtime.snapshot(0)
    runtime.step(batch(runtime, s0="left"))
    runtime.restore(1, saved)
    picture = runtime.step(batch(runtime, s1="right"))
    assert places(picture) == [6]
    assert int(picture[0, 0, 0, 0]) == 4


@pytest.mark.parametrize("saved", [b"", b"\x02\0\0\0{}", b"\xff\xff\xff\xffx"])
def test_broken_snapshots_are_named(runtime: SimulatorRuntime, saved: bytes):
    with pytest.raises(ReverieError, match="not a saved session"):
        runtime.restore(0, saved)


def test_snapshot_of_another_environment(runtime: SimulatorRuntime):
    saved = runtime.snapshot(0).replace(b"tests/Corridor", b"tests/Corridoz")
    with pytest.raises(ReverieError, match="Corridoz"):
        runtime.restore(0, saved)


def test_a_picture_of_its_own_is_refused(runtime: SimulatorRuntime):
    start = runtime.world.starts[0]
    with pytest.raises(ReverieError, match="seed-3, seed-4"):
        runtime.prefill(0, start.frames + 1, start.actions, seed=0)


def test_costs_add_up(runtime: SimulatorRuntime):
    table = runtime.cost_table()
    assert set(table) == {(1, 0), (1, 1), (2, 0), (2, 1)}
    assert table[2, 1] == pytest.approx(2 * table[1, 1])
    assert table[1, 0] == 0.0


def test_numbers_cannot_be_held_down():
    with pytest.raises(ReverieError, match="not keys"):
        SimulatorRuntime("tests/Numbers-v0")


def test_unknown_environment_is_named():
    with pytest.raises(ReverieError, match="tests/Nowhere-v0"):
        SimulatorRuntime("tests/Nowhere-v0")


def test_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "numba" else find_spec(name)
    )
    with pytest.raises(
        ReverieError, match=r"needs numba: pip install 'reverie-worlds\[simulator\]'"
    ):
        SimulatorRuntime("tests/Corridor-v0")
