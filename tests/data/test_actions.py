from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reverie.core import Action, ActionSpace, ReverieError
from reverie.data import ActionFormat

KEYS = ("forward", "back", "left", "right", "jump", "sprint", "break", "use")
SPACE = ActionSpace(KEYS, camera_limit=15.0, num_slots=6)
CONTROLS = ActionFormat("controls", SPACE.width, SPACE)


@given(
    keys=st.sets(st.sampled_from(KEYS)),
    yaw=st.integers(-30, 30),
    pitch=st.integers(-30, 30),
    slot=st.integers(1, 6),
)
def test_a_log_gives_back_what_was_played(keys: set[str], yaw: int, pitch: int, slot: int) -> None:
    vector = SPACE.encode(Action(keys, (yaw * 0.5, pitch * 0.5), slot))
    columns = CONTROLS.pack(vector[None])
    assert sum(column.itemsize for column in columns.values()) == 4
    np.testing.assert_allclose(CONTROLS.unpack(columns)[0], vector, atol=1e-7)


@given(yaw=st.floats(-40, 40), pitch=st.floats(-40, 40))
def test_what_the_environment_gets_is_what_a_replay_gives(yaw: float, pitch: float) -> None:
    vector = CONTROLS.quantise(SPACE.encode(Action((), (yaw, pitch))))
    assert np.array_equal(CONTROLS.quantise(vector), vector)
    assert np.abs(vector[8:10] * 15 - np.clip([yaw, pitch], -15, 15)).max() <= 0.25 + 1e-5


def test_a_limit_between_two_steps_is_not_exceeded() -> None:
    space = ActionSpace((), camera_limit=10.3)
    actions = ActionFormat("controls", space.width, space)
    assert np.abs(actions.quantise(np.array([1.0, -1.0], np.float32))).max() <= 1.0


@pytest.mark.parametrize(
    "actions",
    [
        ActionFormat("discrete", 5, ActionSpace(tuple("abcde"))),
        ActionFormat("binary", 3, ActionSpace(tuple("abc"))),
        ActionFormat("vector", 4, shape=(2, 2), low=(-1.0,) * 4, high=(1.0,) * 4),
        CONTROLS,
    ],
    ids=lambda actions: actions.kind,
)
def test_every_kind_packs_and_survives_json(actions: ActionFormat) -> None:
    vectors = np.eye(actions.width, dtype=np.float32)[[0, 2, 1]]
    packed = actions.pack(vectors)
    assert set(packed) == set(actions.columns)
    again = ActionFormat.from_json(actions.to_json())
    assert again == actions
    unpacked = again.unpack(packed)
    assert unpacked.dtype == np.float32
    assert np.array_equal(actions.pack(unpacked)[actions.columns[0]], packed[actions.columns[0]])
    if actions.kind != "controls":
        assert np.array_equal(unpacked, vectors)
    assert actions.idle().shape == (actions.width,)


def test_bad_actions_are_named() -> None:
    with pytest.raises(ReverieError, match=r"shape \(3, 4\); expected \[t, 16\]"):
        CONTROLS.pack(np.zeros((3, 4), np.float32))
    with pytest.raises(ReverieError, match="not finite"):
        CONTROLS.pack(np.full((1, 16), np.nan, np.float32))
    with pytest.raises(ReverieError, match="'tuple' is unknown; expected one of"):
        ActionFormat("tuple", 3)


def test_a_camera_without_its_limits_is_of_an_older_data_set() -> None:
    values = ActionFormat("controls", SPACE.width, SPACE).to_json()
    del values["action_space"]["pitch_limits"]
    with pytest.raises(ReverieError, match="record it again"):
        ActionFormat.from_json(values)


def test_attributes_take_a_column_each() -> None:
    space = replace(SPACE, attributes={"weather": ("clear", "rain"), "season": ("a", "b", "c")})
    actions = ActionFormat("controls", space.width, space)
    vector = space.encode(Action({"jump"}, slot=3, attributes={"season": "c"}))
    columns = actions.pack(vector[None])
    assert set(columns) == set(actions.columns)
    assert columns["attribute_season"].tolist() == [2]
    np.testing.assert_array_equal(actions.unpack(columns)[0], vector)
    assert ActionFormat.from_json(actions.to_json()) == actions
