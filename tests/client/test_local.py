from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import reverie
from reverie.client import LocalSession, LocalWorld, load
from reverie.core import Action, ReverieError
from tests.fakes import PROMPTED
from tests.tiny_world import write_tiny_world

RNG = np.random.default_rng(3)
SCRIPT = [
    Action(
        {key for key in ("w", "a", "d", "space") if RNG.random() < 0.4},
        (float(RNG.normal() * 5), 0),
        int(RNG.integers(1, 7)),
    )
    for _ in range(600)
]


@pytest.fixture(scope="module")
def world(tiny_path: Path) -> LocalWorld:
    return load(tiny_path, num_sessions=3)


@pytest.fixture
def session(world: LocalWorld):
    with world.start(seed=5) as session:
        yield session


def play(session: LocalSession, count: int) -> np.ndarray:
    """Play the script on from where the session is."""
    first = session.frame_index
    return np.stack([session.step(action) for action in SCRIPT[first : first + count]])


def test_the_readme_example(tiny_path: Path) -> None:
    world = reverie.load(tiny_path)
    session = world.start(seed=0)
    frame = session.step(reverie.Action(keys={"w"}, mouse=(4, 0)))
    assert frame.shape == (8, 8, 3)
    assert frame.dtype == np.uint8
    assert session.frame is frame
    assert session.frame_index == 1


def test_a_session_begins_with_its_start(world: LocalWorld, session: LocalSession) -> None:
    np.testing.assert_array_equal(session.frame, world.find_start().frames[-1])
    with world.start(start="start-1") as other:
        np.testing.assert_array_equal(other.frame, world.find_start("start-1").frames[-1])


def test_same_seed_and_actions_same_frames(world: LocalWorld, session: LocalSession) -> None:
    frames = play(session, 30)
    with world.start(seed=5) as again, world.start(seed=6) as other:
        np.testing.assert_array_equal(play(again, 30), frames)
        assert (play(other, 30) != frames).any()


def test_encoded_actions_are_the_same_actions(world: LocalWorld, session: LocalSession) -> None:
    encode = world.config.action_space.encode
    with world.start(seed=5) as other:
        for action in SCRIPT[:5]:
            np.testing.assert_array_equal(other.step(encode(action)), session.step(action))


def test_a_fork_has_the_same_future_and_its_own(session: LocalSession) -> None:
    play(session, 25)
    with session.fork() as fork:
        expected = play(session, 20)
        np.testing.assert_array_equal(play(fork, 20), expected)
        fork.step(Action({"w"}))
        np.testing.assert_array_equal(fork.rewind(1), expected[0])
        assert session.frame_index == 45


@pytest.mark.parametrize("seconds", [0.05, 0.5, 1.0, 1.05, 4.95, 6.0])
def test_rewinding_leads_back_to_the_very_state(session: LocalSession, seconds: float) -> None:
    frames = play(session, 125)
    back = round(seconds * 20)
    seen = session.rewind(seconds)
    assert session.frame_index == 125 - back
    np.testing.assert_array_equal(seen, frames[124 - back])
    np.testing.assert_array_equal(play(session, back), frames[125 - back :])


def test_rewinding_to_the_beginning_and_again(world: LocalWorld, session: LocalSession) -> None:
    frames = play(session, 47)
    first = session.rewind(47 / 20)
    np.testing.assert_array_equal(first, world.find_start().frames[-1])
    np.testing.assert_array_equal(play(session, 47), frames)
    session.rewind(1)
    session.rewind(1)
    np.testing.assert_array_equal(play(session, 40), frames[7:])
    assert session.rewind(0) is session.frame


def test_the_past_is_remembered_for_so_long(world: LocalWorld) -> None:
    with world.start(history_s=2) as session:
        frames = play(session, 500)
        with pytest.raises(ReverieError, match=r"cannot rewind 5 s; expected 0 to [23]\.\d\d s"):
            session.rewind(5)
        with pytest.raises(ReverieError, match="cannot rewind -1 s"):
            session.rewind(-1)
        np.testing.assert_array_equal(session.rewind(2), frames[459])
        assert len(session._moments) <= 3
    with world.start(history_s=0) as session:
        play(session, 3)
        with pytest.raises(ReverieError, match=r"expected 0 to 0\.00 s"):
            session.rewind(0.05)


def test_a_saved_session_goes_on_bit_for_bit(
    session: LocalSession, tiny_path: Path, tmp_path: Path
) -> None:
    play(session, 25)
    session.save(tmp_path / "here.reverie")
    expected = play(session, 10)
    elsewhere = load(tiny_path)
    resumed = elsewhere.resume(tmp_path / "here.reverie")
    assert resumed.frame_index == 25
    assert resumed.seed == 5
    np.testing.assert_array_equal(play(resumed, 10), expected)
    assert [file.name for file in tmp_path.iterdir()] == ["here.reverie"]


def test_a_session_of_another_world_is_refused(
    session: LocalSession, world: LocalWorld, tmp_path: Path
) -> None:
    session.save(tmp_path / "here.reverie")
    other = load(write_tiny_world(tmp_path / "other", seed=2))
    with pytest.raises(ReverieError, match=r"here\.reverie: the session belongs to another world"):
        other.resume(tmp_path / "here.reverie")
    (tmp_path / "cut.reverie").write_bytes((tmp_path / "here.reverie").read_bytes()[:-9])
    with pytest.raises(ReverieError, match=r"cut\.reverie: the saved session is damaged"):
        world.resume(tmp_path / "cut.reverie")
    with pytest.raises(ReverieError, match=r"cannot read .*gone\.reverie: No such file"):
        world.resume(tmp_path / "gone.reverie")
    with pytest.raises(ReverieError, match="cannot write"):
        session.save(tmp_path / "no" / "folder.reverie")
    play(session, 1)
    assert session.world._seats.slots.num_free == 2  # refusals gave their slots back


def test_slots_come_back(world: LocalWorld) -> None:
    sessions = [world.start() for _ in range(3)]
    with pytest.raises(ReverieError, match="3 sessions of this world are open; close one"):
        world.start()
    sessions[0].close()
    sessions[0].close()
    sessions.append(world.start())
    with pytest.raises(ReverieError, match="this session is closed"):
        sessions[0].step(Action())
    sessions.clear()
    gc.collect()
    assert world._seats.slots.num_free == 3  # forgotten sessions are closed too


def test_a_picture_is_a_start(world: LocalWorld) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    with world.start(image=picture) as session:
        assert session.frame.shape == (8, 8, 3)
        session.step(Action())
    with pytest.raises(ReverieError, match="at least 8 x 8"):
        world.start(image=picture[:4])
    with pytest.raises(ReverieError, match="expected one of them"):
        world.start(start="start-0", image=picture)
    assert world._seats.slots.num_free == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": "moon"}, "no start 'moon'"),
        ({"steps": 3}, "3 denoising steps; this world was trained for"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_start_that_cannot_be(world: LocalWorld, options: dict, message: str) -> None:
    with pytest.raises(ReverieError, match=message):
        world.start(**options)


def test_actions_the_world_does_not_know(session: LocalSession) -> None:
    with pytest.raises(ValueError, match="unknown key 'fly'"):
        session.step(Action({"fly"}))
    with pytest.raises(ReverieError, match=r"shape \(3,\); expected \(16,\)"):
        session.step(np.zeros(3))
    with pytest.raises(ReverieError, match="finite"):
        session.step(np.full(16, np.nan))
    assert session.frame_index == 0


def test_an_unknown_runtime(tiny_path: Path) -> None:
    with pytest.raises(ReverieError, match="no runtime 'abacus'; expected one of openvino, onnx"):
        replace(load(tiny_path), runtime="abacus").start()


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> LocalWorld:
    folder = tmp_path_factory.mktemp("worlds") / "prompted"
    return load(write_tiny_world(folder, space=PROMPTED), num_sessions=3)


def test_a_prompt_changes_what_comes_and_not_what_is_there(prompted: LocalWorld) -> None:
    with prompted.start(seed=5) as session, prompted.start(seed=5) as other:
        assert session.prompt("rain, please") == {"weather": "rain"}
        np.testing.assert_array_equal(session.frame, other.frame)
        wet, dry = (play(one, 5) for one in (session, other))
        assert (wet != dry).any()
        session.step(Action(attributes={"time_of_day": "night"}))
        assert session.attributes == {"weather": "rain", "time_of_day": "night"}
    with prompted.start(seed=5, prompt="rain") as again:
        np.testing.assert_array_equal(play(again, 5), wet)
    with pytest.raises(ReverieError, match="takes no prompts"):
        load(write_tiny_world(prompted.path.parent / "deaf")).start(prompt="rain")


def test_attributes_are_rewound_forked_and_saved(prompted: LocalWorld, tmp_path: Path) -> None:
    with prompted.start(seed=5) as session:
        first = play(session, 10)
        session.prompt("rain")
        play(session, 10)
        session.save(tmp_path / "wet.reverie")
        with session.fork() as fork, prompted.resume(tmp_path / "wet.reverie") as resumed:
            assert fork.attributes == resumed.attributes == session.attributes
            np.testing.assert_array_equal(play(fork, 5), play(resumed, 5))
        session.rewind(seconds=0.75)
        np.testing.assert_array_equal(session.frame, first[4])
        assert session.attributes["weather"] == "clear"


def test_a_wish_belongs_to_the_frames_after_it_whoever_rewinds(prompted: LocalWorld) -> None:
    with prompted.start(seed=5) as session:
        play(session, 20)
        session.prompt("rain")
        play(session, 5)
        session.rewind(seconds=0.25)  # to a moment that is kept: the wish had not shown yet
        assert session.attributes["weather"] == "clear"
        play(session, 5)
        session.rewind(seconds=0.25)
        with session.fork() as fork:
            session.prompt("rain")
            for one, weather in ((session, "rain"), (fork, "clear")):
                play(one, 1)
                assert one.attributes["weather"] == weather
                one.rewind(seconds=0.05)
                assert one.attributes["weather"] == "clear"
