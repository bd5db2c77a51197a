from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reverie.core import Action, ActionSpace
from reverie.session import (
    MAX_CARRIED_FRAMES,
    ActionMailbox,
    Session,
    SessionState,
    StateError,
    transition,
)
from tests.fakes import PROMPTED, SPACE

turns = st.floats(-3, 3, width=32)


def encoded(keys: set[str] | None = None, yaw: float = 0.0, slot: int = 1) -> np.ndarray:
    """An action whose camera may exceed the limit of one frame, as the server sends it."""
    vector = SPACE.encode(Action(keys or set(), slot=slot))
    vector[8] = yaw / SPACE.camera_limit
    return vector


def held(vector: np.ndarray) -> frozenset[str]:
    return SPACE.decode(vector).keys


def test_before_anything_was_sent_nothing_happens() -> None:
    reading = ActionMailbox(SPACE).read()
    assert reading.seq == 0
    np.testing.assert_array_equal(reading.vector, SPACE.encode(Action()))


def test_the_newest_action_wins_and_stays() -> None:
    mailbox = ActionMailbox(SPACE)
    mailbox.put(encoded({"forward"}, slot=2), 1, 10.0)
    mailbox.put(encoded({"forward", "jump"}, slot=3), 2, 11.0)
    for _ in range(2):
        reading = mailbox.read()
        assert held(reading.vector) == {"forward", "jump"}
        assert SPACE.decode(reading.vector).slot == 3
        assert (reading.seq, reading.time_s) == (2, 11.0)


def test_a_tap_between_two_frames_is_seen_in_one() -> None:
    mailbox = ActionMailbox(SPACE)
    mailbox.put(encoded({"jump"}), 1, 0.0)
    mailbox.put(encoded(), 2, 0.0)
    assert held(mailbox.read().vector) == {"jump"}
    assert held(mailbox.read().vector) == set()


def test_letting_go_of_a_key_that_was_seen_is_not_delayed() -> None:
    mailbox = ActionMailbox(SPACE)
    mailbox.put(encoded({"forward"}), 1, 0.0)
    mailbox.read()
    mailbox.put(encoded({"forward"}), 2, 0.0)
    mailbox.put(encoded(), 3, 0.0)
    assert held(mailbox.read().vector) == set()


def test_camera_turns_add_up_until_read() -> None:
    mailbox = ActionMailbox(SPACE)
    mailbox.put(encoded(yaw=4), 1, 0.0)
    mailbox.put(encoded(yaw=5), 2, 0.0)
    assert SPACE.decode(mailbox.read().vector).mouse[0] == pytest.approx(9)
    assert SPACE.decode(mailbox.read().vector).mouse[0] == 0


def test_a_flick_plays_out_over_several_frames() -> None:
    mailbox = ActionMailbox(SPACE)
    mailbox.put(encoded(yaw=40), 1, 0.0)
    turned = [round(SPACE.decode(mailbox.read().vector).mouse[0], 3) for _ in range(4)]
    assert turned == [15, 15, 10, 0]


@given(st.lists(st.one_of(turns, st.none()), max_size=40))
def test_no_turn_is_lost_or_invented(script: list[float | None]) -> None:
    """None reads, a number puts. What comes out is what went in, up to the carried limit."""
    mailbox = ActionMailbox(SPACE)
    sent, received, limited = 0.0, 0.0, False
    for i, turn in enumerate(script):
        if turn is None:
            part = float(mailbox.read().vector[8])
            assert abs(part) <= 1
            received += part
        else:
            sent += turn
            limited |= abs(sent - received) > MAX_CARRIED_FRAMES
            mailbox.put(encoded(yaw=turn * SPACE.camera_limit), i + 1, 0.0)
    rest = [float(mailbox.read().vector[8]) for _ in range(MAX_CARRIED_FRAMES + 2)]
    assert rest[-1] == 0
    if not limited:
        assert received + sum(rest) == pytest.approx(sent, abs=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_action_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        ActionMailbox(SPACE).put(encoded(yaw=bad), 1, 0.0)


def test_an_action_of_another_world_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\); expected \(16,\)"):
        ActionMailbox(SPACE).put(np.zeros(3, np.float32), 1, 0.0)


def test_clear_lets_go_of_everything() -> None:
    mailbox = ActionMailbox(SPACE)
    mailbox.put(encoded({"forward"}, yaw=60), 7, 1.0)
    mailbox.clear()
    reading = mailbox.read()
    np.testing.assert_array_equal(reading.vector, SPACE.encode(Action()))
    assert reading.seq == 7


def test_clear_keeps_the_slot() -> None:
    mailbox = ActionMailbox(SPACE)
    mailbox.put(encoded({"forward"}, yaw=60, slot=4), 7, 1.0)
    mailbox.clear()
    np.testing.assert_array_equal(mailbox.read().vector, SPACE.encode(Action(slot=4)))


def test_a_world_without_camera_or_slots() -> None:
    mailbox = ActionMailbox(ActionSpace(("left", "right")))
    mailbox.put(np.array([1, 0], np.float32), 1, 0.0)
    assert mailbox.read().vector.tolist() == [1, 0]


def test_every_state_can_end_and_nothing_follows() -> None:
    for state in SessionState:
        if state is not SessionState.ENDED:
            assert transition(state, SessionState.ENDED) is SessionState.ENDED
            with pytest.raises(StateError):
                transition(SessionState.ENDED, state)


def test_a_bad_transition_names_both_states() -> None:
    session = Session("1", 0, 1, ActionMailbox(SPACE))
    with pytest.raises(StateError, match="queued cannot become playing"):
        session.become(SessionState.PLAYING)
    assert session.state is SessionState.QUEUED


def test_attributes_are_told_apart_from_actions_and_stay() -> None:
    mailbox = ActionMailbox(PROMPTED)
    mailbox.tell(PROMPTED.encode_attributes({"weather": "rain"}))
    mailbox.put(PROMPTED.encode(Action({"forward"}, slot=2)), 1, 0.0)
    rain = {"weather": "rain"}
    expected = PROMPTED.encode(Action({"forward"}, slot=2, attributes=rain))
    np.testing.assert_array_equal(mailbox.read().vector, expected)
    mailbox.clear()
    expected = PROMPTED.encode(Action(slot=2, attributes=rain))
    np.testing.assert_array_equal(mailbox.read().vector, expected)
    assert PROMPTED.decode_attributes(mailbox.attributes)["weather"] == "rain"
