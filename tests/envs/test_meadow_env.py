"""Meadow through Gymnasium."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import reverie.envs  # noqa: F401 (registers the environment)
from reverie.core import Action
from reverie.envs.meadow.appearance import FADE_TICKS
from reverie.envs.meadow.env import MeadowEnv


@pytest.fixture
def env():
    return MeadowEnv(80, 48)


def test_gymnasium_finds_nothing_wrong():
    env = gymnasium.make("reverie/Meadow-v0", width=80, height=48)
    check_env(env.unwrapped, skip_render_check=True)


def test_made_by_name_it_speaks_encoded_actions():
    env = gymnasium.make("reverie/Meadow-v0", width=80, height=48)
    frame, info = env.reset(seed=3)
    assert frame.shape == (48, 80, 3)
    assert frame.dtype == np.uint8
    assert isinstance(env.unwrapped, MeadowEnv)
    action = env.unwrapped.controls.encode(Action({"w"}, (5, 0)))
    after, reward, terminated, truncated, next_info = env.step(action)
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert next_info["position"] != info["position"]
    assert (after != frame).any()


def test_a_seed_makes_the_world_and_none_continues(env):
    first = env.reset(seed=8)[0]
    np.testing.assert_array_equal(first, env.reset(seed=8)[0])
    second = env.reset()[0]
    assert (first != second).any()
    env.reset(seed=8)
    np.testing.assert_array_equal(second, env.reset()[0])


def test_options_set_the_start_and_the_conditions(env):
    _, info = env.reset(
        seed=1,
        options={"position": (10.5, 58, 10.5), "yaw": 90, "pitch": 20, "season": "autumn"},
    )
    assert info["position"] == (10.5, 58.0, 10.5)
    assert (info["yaw"], info["pitch"], info["season"]) == (90.0, 20.0, "autumn")
    env.set_conditions(weather="rain")
    assert env.meadow.info()["weather"] == "rain"
    assert env.meadow.info()["season"] == "autumn"


def test_an_unknown_option_names_the_known_ones(env):
    with pytest.raises(ValueError, match=r"unknown reset options \['wether'\]; expected some of"):
        env.reset(seed=1, options={"wether": "rain"})


def test_stepping_before_reset_says_what_to_do(env):
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(np.zeros(16, np.float32))


def test_a_clone_does_not_touch_the_original(env):
    env.reset(seed=2)
    before = env.render()
    env.clone().step(env.controls.encode(Action({"forward"}, (15, 0))))
    np.testing.assert_array_equal(before, env.render())


def test_prompts_change_the_picture_and_keep_the_terrain():
    env = gymnasium.make("reverie/Meadow-v0", width=80, height=48, prompts=True).unwrapped
    assert isinstance(env, MeadowEnv)
    env.reset(seed=3)
    before, cells = env.step(env.controls.encode(Action()))[0], env.meadow.cells.copy()
    for name, values in env.controls.attributes.items():
        for value in values[1:]:
            action = env.controls.encode(Action(attributes={name: value}))
            frame, *_, info = [env.step(action) for _ in range(FADE_TICKS)][-1]
            assert info[name] == value
            assert np.abs(frame.astype(int) - before).mean() > 2, value
    after = [env.step(env.controls.encode(Action()))[0] for _ in range(FADE_TICKS)][-1]
    np.testing.assert_array_equal(after, before)
    np.testing.assert_array_equal(env.meadow.cells, cells)


def test_an_action_without_attributes_leaves_them(env):
    env.reset(seed=3, options={"biome": "desert"})
    env.step(env.controls.encode(Action({"forward"})))
    assert env.meadow.info()["biome"] == "desert"
