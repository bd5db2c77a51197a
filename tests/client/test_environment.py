from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import reverie
from reverie.client.environment import WorldEnv
from reverie.core import ReverieError


@pytest.fixture
def env(tiny_path: Path) -> Iterator[gymnasium.Env]:
    made = gymnasium.make("reverie/World-v0", world=tiny_path, render_mode="rgb_array")
    yield made
    made.close()


@pytest.mark.filterwarnings("ignore:.*symmetric and normalized space")
def test_gymnasium_itself_finds_nothing_wrong(env: gymnasium.Env) -> None:
    check_env(env.unwrapped)


def test_spaces_are_the_worlds(env: gymnasium.Env) -> None:
    assert env.observation_space == gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)
    assert isinstance(env.action_space, gymnasium.spaces.Box)
    assert env.action_space.shape == (16,)
    assert env.action_space.low[7:11].tolist() == [0, -1, -1, 0]
    assert env.metadata["render_fps"] == 20


def test_seeds_decide_everything(env: gymnasium.Env) -> None:
    def episode(seed: int) -> list[np.ndarray]:
        env.action_space.seed(1)
        frames = [env.reset(seed=seed)[0]]
        for _ in range(10):
            frame, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            assert (reward, terminated, truncated) == (0, False, False)
            frames.append(frame)
        np.testing.assert_array_equal(env.render(), frames[-1])
        return frames

    first = episode(3)
    np.testing.assert_array_equal(episode(3), first)
    assert (np.stack(episode(4)) != np.stack(first)).any()


def test_an_action_is_read_as_keys(env: gymnasium.Env) -> None:
    """Half-pressed keys and mixed slots do not exist in what the world has learned from."""
    pressed = np.zeros(16, np.float32)
    pressed[0] = pressed[10] = 1.0
    fuzzy = pressed * 0.6 + 0.1
    fuzzy[8:10] = 0
    env.reset(seed=1)
    sharp = env.step(pressed)[0]
    env.reset(seed=1)
    np.testing.assert_array_equal(env.step(fuzzy)[0], sharp)


def test_options_choose_the_start(env: gymnasium.Env) -> None:
    world = env.unwrapped.world  # type: ignore[attr-defined]
    frame, info = env.reset(seed=0, options={"start": "start-1", "steps": 2})
    np.testing.assert_array_equal(frame, world.find_start("start-1").frames[-1])
    assert info["frame_index"] == 0
    with pytest.raises(ReverieError, match=r"unknown options \['begin'\]; expected"):
        env.reset(options={"begin": 3})


def test_wrong_use_is_one_line(tiny_path: Path) -> None:
    env = WorldEnv(tiny_path)
    with pytest.raises(ReverieError, match="reset the environment"):
        env.step(np.zeros(16, np.float32))
    env.reset()
    assert env.render() is None
    with pytest.raises(ReverieError, match="render_mode is 'human'"):
        WorldEnv(tiny_path, render_mode="human")
    with pytest.raises(ReverieError, match="no world 'atlantis'"):
        gymnasium.make("reverie/World-v0", world="atlantis")


@pytest.mark.parametrize("order", ["reverie, gymnasium", "gymnasium, reverie"])
def test_it_is_registered_whichever_is_imported_first(order: str) -> None:
    code = f"import {order}; print('reverie/World-v0' in gymnasium.registry)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "True"


def test_importing_reverie_is_instant_and_reaches_nothing_heavy() -> None:
    code = (
        "import sys, time; started = time.perf_counter(); import reverie; "
        "took = time.perf_counter() - started; reverie.Action; "
        "heavy = {'torch', 'ray', 'starlette', 'onnxruntime', 'gymnasium'} & set(sys.modules); "
        "print(sorted(heavy), took < 0.3)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[] True"


def test_everything_that_is_offered_is_there() -> None:
    for name in reverie.__all__:
        assert getattr(reverie, name) is not None
    assert reverie.__version__
    assert "load" in dir(reverie)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = reverie.lode
