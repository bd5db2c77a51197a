"""A TOML file between what a player holds and what an environment takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from reverie.core import Action, ReverieError
from reverie.data import Dataset
from reverie.data.actions import ActionFormat
from reverie.data.environment import action_format
from reverie.data.mapping import ActionMapping, layout_of, make, parts_of, read, template
from reverie.data.record import record, write_actions
from reverie.data.render import render

PAD = spaces.Dict(
    {
        "buttons": spaces.MultiDiscrete([2, 3]),
        "stick": spaces.Box(np.array([-1, -2], np.float32), np.array([1, 2], np.float32)),
        "gear": spaces.Discrete(4, start=-1),
    }
)
FILE = """
idle = { "stick.1" = 0.5 }

[[keys]]
name = "jump"
press = "space"
sets = { "buttons.0" = 1 }

[[keys]]
name = "left"
press = "a"
sets = { "stick.0" = -0.75 }

[[keys]]
name = "right"
press = "d"
sets = { "stick.0" = 1 }

[[keys]]
name = "reverse"
sets = { gear = -1, "stick.1" = -3 }

[[together]]
keys = ["jump", "left"]
sets = { "buttons.1" = 2 }

[camera]
limit = 10.0
pitch_limits = [-60, 60]
yaw = { "stick.0" = 0.05 }
"""


def mapped(tmp_path: Path, text: str, space: spaces.Space[Any] = PAD) -> ActionMapping:
    file = tmp_path / "actions.toml"
    file.write_text(text)
    return read(file, space)


def given_to(mapping: ActionMapping, *keys: str, yaw: float = 0.0) -> Any:
    action = mapping.to_env(mapping.space.encode(Action(set(keys), (yaw, 0.0))))
    return {name: np.asarray(part).tolist() for name, part in action.items()}


def test_keys_set_parts_of_the_action(tmp_path: Path) -> None:
    mapping = mapped(tmp_path, FILE)
    idle = {"buttons": [0, 0], "stick": [0.0, 0.5], "gear": 0}
    assert given_to(mapping) == idle
    assert given_to(mapping, "jump") == {**idle, "buttons": [1, 0]}
    assert given_to(mapping, "left", "right") == {**idle, "stick": [0.25, 0.5]}
    assert given_to(mapping, "reverse") == {**idle, "gear": -1, "stick": [0.0, -2.0]}  # its bound
    assert given_to(mapping, "jump", "left") == {**idle, "buttons": [0, 2]}
    assert given_to(mapping, "jump", "left", "right")["stick"] == [1.0, 0.5]
    assert given_to(mapping, yaw=8)["stick"] == pytest.approx([0.4, 0.5])
    assert mapping.space.keymap == {"space": "jump", "a": "left", "d": "right"}
    assert mapping.space.pitch_limits == (-60, 60)
    assert PAD.contains(mapping.to_env(mapping.space.encode(Action({"jump", "left"}, (9, 0)))))


def test_it_survives_a_data_set(tmp_path: Path) -> None:
    actions = ActionFormat.mapped(mapped(tmp_path, FILE))
    again = ActionFormat.from_json(json.loads(json.dumps(actions.to_json())))
    assert again == actions
    vector = actions.space.encode(Action({"left"}, (3.0, 1.0))) if actions.space else None
    assert vector is not None
    np.testing.assert_array_equal(again.quantise(vector), vector)
    assert again.to_env(again.idle())["stick"].tolist() == [0.0, 0.5]


SIMPLE = st.one_of(
    st.builds(lambda n, s: spaces.Discrete(n, start=s), st.integers(2, 9), st.integers(-2, 2)),
    st.lists(st.integers(2, 4), min_size=1, max_size=4).map(spaces.MultiDiscrete),
    st.integers(1, 5).map(spaces.MultiBinary),
    st.builds(
        lambda low, size, n: spaces.Box(low, low + size, (n,), np.float32),
        st.floats(-5, 5),
        st.floats(0.5, 4),
        st.integers(1, 4),
    ),
)
ANY = st.one_of(
    SIMPLE,
    st.dictionaries(st.sampled_from("abc"), SIMPLE, min_size=1).map(lambda d: spaces.Dict({**d})),
)


class Bare(gymnasium.Env[Any, Any]):
    """An environment that is only its actions."""

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.action_space = space


@given(ANY, st.data())
def test_what_init_writes_can_be_read_and_played_in_every_space(
    tmp_path_factory: pytest.TempPathFactory, space: spaces.Space[Any], data: st.DataObject
) -> None:
    file = tmp_path_factory.mktemp("init") / "actions.toml"
    file.write_text(template("some:Game-v0", Bare(space)))
    mapping = read(file, space)
    held = data.draw(st.sets(st.sampled_from(mapping.space.keys)))
    for keys in (set(), held):
        action = mapping.to_env(mapping.space.encode(Action(keys)))
        assert space.contains(action), (action, space)
    ways = {p.name: {p.idle if p.choices else 0.0} for p in parts_of(mapping.layout)}
    for entry in mapping.values["keys"]:
        ((name, value),) = entry["sets"].items()
        ways[name].add(value)
    for part in parts_of(mapping.layout):  # every choice, and as far as there is to go
        reached = sorted(ways[part.name])
        if part.choices:
            assert reached == list(range(int(part.low), int(part.high) + 1))
        else:
            assert reached[-1] > 0 or part.idle == part.high
            assert reached[0] < 0 or part.idle == part.low


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("keys = 3", "expected 1 to 64 tables"),
        ("[[keys]", "is not TOML"),
        ('[[keys]]\nname = "a"\nsets = { "stick.7" = 1 }', "sets 'stick.7'; the action has butt"),
        ('[[keys]]\nname = "a"\nsets = { gear = 3 }', "to 3; expected a choice from -1 to 2"),
        ('[[keys]]\nname = "a"\nsets = { gear = 0.5 }', "to 0.5; expected a choice"),
        ('[[keys]]\nname = "a"\nsets = { "stick.0" = nan }', "to nan; expected a number"),
        ('[[keys]]\nname = "a"\nsets = { "stick.0" = true }', "to True; expected a number"),
        ('[[keys]]\nname = "a"', "key 'a' sets None; expected parts"),
        ("[[keys]]\nsets = { gear = 1 }", "has name None"),
        ('[[keys]]\nname = "a"\npress = "hyper"\nsets = { gear = 1 }', "pressed by 'hyper'"),
        ('[[keys]]\nname = "a"\nhold = 1\nsets = { gear = 1 }', "has 'hold'; expected name, pr"),
        ('[[keys]]\nname = "a"\nsets = { gear = 1 }\n' * 2, "names a key twice"),
        (FILE.replace('"a"', '"d"'), "'d' presses two keys"),
        (FILE.replace('["jump", "left"]', '["jump", "fly"]'), "expected two or more of"),
        (FILE.replace("limit = 10.0", ""), "has limit None; expected degrees"),
        (FILE.replace("yaw = {", "roll = {"), "has 'roll'; expected limit"),
        (FILE.replace('yaw = { "stick.0"', 'yaw = { "gear"'), "yaw turns 'gear'"),
        (FILE.replace("[-60, 60]", "[10, 60]"), "pitch_limits"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(ReverieError) as caught:
        mapped(tmp_path, text)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "actions.toml"))


def test_a_file_that_is_not_there_and_a_space_that_nobody_holds(tmp_path: Path) -> None:
    with pytest.raises(ReverieError, match="no such file"):
        read(tmp_path / "none.toml", PAD)
    with pytest.raises(ReverieError, match="expected Discrete"):
        layout_of(spaces.Text(4))


def test_an_environment_of_another_kind_is_recorded_and_replayed(tmp_path: Path) -> None:
    env, file = "tiny_env:make_pad", tmp_path / "actions.toml"
    with pytest.raises(ReverieError, match="--init writes it"):
        record(env, tmp_path / "data")
    assert len(write_actions(env, file)) == 6
    with pytest.raises(ReverieError, match="is there already"):
        write_actions(env, file)
    dataset = record(env, tmp_path / "data", episodes=2, validation=1, test=0, episode_actions=30,
                     actions=file, processes=1, progress=False)  # fmt: skip
    found = Dataset.load(tmp_path / "data")
    assert found.config.actions.kind == "mapped"
    frames = render(found, "train", progress=False).frames
    assert len(frames) == 62
    assert len(np.unique(frames.reshape(len(frames), -1), axis=0)) > 20  # its keys do something
    assert dataset.config.actions.space is not None


def test_actions_that_changed_since_are_noticed() -> None:
    mapping = make(
        layout_of(spaces.Discrete(3)),
        {"keys": [{"name": "a", "sets": {"action": 1}}]},
        "here",
    )
    with pytest.raises(ReverieError, match=r"are now Discrete\(4\); record anew"):
        action_format(Bare(spaces.Discrete(4)), mapping)
