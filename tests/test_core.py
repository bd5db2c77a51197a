"""What an action space tells a network, and where it says the camera looks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reverie.core import Action, ActionSpace

SPACE = ActionSpace(("forward",), camera_limit=10.0, num_slots=2, pitch_limits=(-50.0, 30.0))


@given(st.lists(st.floats(-40, 40)))
def test_the_camera_stays_between_its_limits(turns: list[float]) -> None:
    pitch_deg = 0.0
    for turn in turns:
        before, vector = pitch_deg, SPACE.encode(Action(mouse=(0.0, turn)))
        pitch_deg = SPACE.pitch_after(before, vector)
        assert -50 <= pitch_deg <= 30
        if -40 <= before <= 20:  # no limit is near
            assert pitch_deg - before == pytest.approx(np.clip(turn, -10, 10), abs=1e-4)


def test_a_network_is_told_the_action_and_the_pitch_after_it() -> None:
    vector = SPACE.encode(Action({"forward"}, (5.0, -2.0), slot=2))
    assert SPACE.told_width == SPACE.width + 1
    expected = [1.0, 0.5, -0.2, 0.0, 1.0, -2.5]
    assert SPACE.tell(vector, -25.0).tolist() == pytest.approx(expected)


def test_without_a_camera_there_is_nothing_to_add() -> None:
    space = ActionSpace(("left",))
    vector = space.encode(Action({"left"}))
    assert space.pitch_after(3.0, vector) == 0.0
    assert np.array_equal(space.tell(vector, 0.0), vector)


def test_limits_that_leave_out_level_are_refused() -> None:
    with pytest.raises(ValueError, match="pitch_limits"):
        ActionSpace((), 10.0, pitch_limits=(10.0, 20.0))
    assert ActionSpace(**SPACE.to_json()) == SPACE


def test_attributes_lie_between_slots_and_pitch() -> None:
    space = ActionSpace(
        ("w",), 10.0, 2, attributes={"sky": ("day", "night"), "air": ("dry", "wet")}
    )
    vector = space.encode(Action({"w"}, slot=2, attributes={"air": "wet"}))
    assert vector.tolist() == [1, 0, 0, 0, 1, 1, 0, 0, 1]
    assert space.decode(vector).attributes == {"sky": "day", "air": "wet"}
    assert space.tell(vector, -5.0).tolist() == [1, 0, 0, 0, 1, -0.5]  # attributes are painted
    shown = np.array([0.75, 0.25, 0.0, 1.0], np.float32)
    assert space.fade(shown, vector, 0.1).tolist() == pytest.approx([0.85, 0.15, 0.0, 1.0])
    assert space.fade(shown, vector, 0.5).tolist() == [1, 0, 0, 1]


def test_a_wish_that_is_overtaken_fades_straight_on() -> None:
    space = ActionSpace((), attributes={"weather": ("clear", "rain", "fog")})
    shown = space.encode(Action())
    for weather, expected in (("rain", [0.5, 0.5, 0]), ("fog", [0.25, 0.25, 0.5])):
        vector = space.encode(Action(attributes={"weather": weather}))
        for _ in range(5):
            shown = space.fade(shown, vector, 0.1)
        assert shown.tolist() == pytest.approx(expected, abs=1e-6)
    assert ActionSpace(**space.to_json()) == space
    assert "attributes" not in SPACE.to_json()  # what was written before there were any still fits


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"air": "purple"}, r"air is 'purple'; expected one of \['dry', 'wet'\]"),
        ({"mood": "good"}, r"unknown attributes \['mood'\]; this world knows \['air'\]"),
    ],
)
def test_unknown_attributes_are_refused(attributes: dict[str, str], message: str) -> None:
    space = ActionSpace((), attributes={"air": ("dry", "wet")})
    with pytest.raises(ValueError, match=message):
        space.encode(Action(attributes=attributes))


def test_an_attribute_has_a_choice() -> None:
    with pytest.raises(ValueError, match="expected several, none twice"):
        ActionSpace((), attributes={"air": ("dry",)})
