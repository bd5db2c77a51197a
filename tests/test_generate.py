from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from reverie.client import LocalWorld, load
from reverie.codec.video import write_video
from reverie.core import Action, ReverieError
from reverie.generate import generate, parse_script, read_script
from reverie.prompts import Prompter
from tests.fakes import PROMPTED, fake_config, fake_world


@pytest.fixture(scope="module")
def world(tiny_path: Path) -> LocalWorld:
    return load(tiny_path, num_sessions=1)


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def test_a_script_is_one_action_per_frame(world: LocalWorld, tmp_path: Path) -> None:
    file = tmp_path / "walk.json"
    file.write_text('[{"keys": ["w"], "mouse": [5, -1], "slot": 2, "frames": 3}, {}]')
    walk = Action({"w"}, (5, -1), 2)
    assert read_script(file, world) == [walk, walk, walk, Action()]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "expected a list of actions"),
        ([], "expected a list of actions"),
        ([{}, "w"], "entry 2: 'w' is not an object"),
        ([{"key": "w"}], r"entry 1: unknown \['key'\]; expected \['frames', 'keys'"),
        ([{"keys": "w"}], "keys is 'w'; expected a list of names"),
        ([{"keys": ["fly"]}], "entry 1: unknown key 'fly'; this world knows"),
        ([{"keys": [["w"]]}], "keys is"),
        ([{"mouse": 5}], r"mouse is 5; expected \[degrees right"),
        ([{"mouse": [1, "2"]}], "mouse is"),
        ([{"mouse": [float("inf"), 0]}], "not finite"),
        ([{"slot": 9}], "slot 9 is not one of 1..6"),
        ([{"prompt": "rain"}], "takes no prompts"),
        ([{"prompt": 5}], "prompt is 5; expected a text"),
        ([{"frames": 0}], "frames is 0; expected a whole number from 1"),
        ([{"frames": 2.5}], "frames is 2.5"),
        ([{"frames": 10**9}], "more than 1000000 frames"),
    ],
)
def test_a_wrong_script_says_where(data: Any, message: str, world: LocalWorld) -> None:
    with pytest.raises(ReverieError, match=message) as caught:
        parse_script(data, world)
    assert "\n" not in str(caught.value)


def test_a_script_can_wish() -> None:
    prompter = Prompter.fit(PROMPTED.attributes)
    world = replace(fake_world(fake_config(space=PROMPTED)), prompter=prompter)
    (action,) = parse_script([{"prompt": "a rainy night"}], world)
    assert action.attributes == {"weather": "rain", "time_of_day": "night"}
    with pytest.raises(ReverieError, match="entry 1: this world does not know 'a castle'; it can"):
        parse_script([{"prompt": "a castle"}], world)


def test_a_script_that_cannot_be_read(world: LocalWorld, tmp_path: Path) -> None:
    with pytest.raises(ReverieError, match=r"cannot read .*gone\.json: No such file"):
        read_script(tmp_path / "gone.json", world)
    (tmp_path / "bad.json").write_text("w*40")
    with pytest.raises(ReverieError, match=r"bad\.json is not JSON"):
        read_script(tmp_path / "bad.json", world)
    (tmp_path / "odd.json").write_text(json.dumps([{"slot": 0}]))
    with pytest.raises(ReverieError, match=r"odd\.json: entry 1: slot is 0"):
        read_script(tmp_path / "odd.json", world)


def test_a_film_shows_what_a_session_draws(world: LocalWorld, tmp_path: Path) -> None:
    actions = [Action({"w"}, (3, 0))] * 15 + [Action()] * 10
    path = generate(world, actions, tmp_path / "clip.mp4", seed=4, start="start-1", steps=2)
    film = frames_of(path)
    with world.start(seed=4, start="start-1", steps=2) as session:
        frames = np.stack([session.step(action) for action in actions])
    assert film.shape == frames.shape == (25, 8, 8, 3)
    errors = [np.abs(film[i].mean((0, 1)) - frames[i].mean((0, 1))).max() for i in range(25)]
    assert max(errors) < 12
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 20
    assert [file.name for file in tmp_path.iterdir()] == ["clip.mp4"]


def test_progress_goes_to_standard_error(
    world: LocalWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate(world, [Action()] * 3, tmp_path / "clip.mp4", show_progress=True)
    captured = capsys.readouterr()
    assert "3/3" in captured.err
    assert captured.out == ""


def test_nothing_is_left_behind_when_it_fails(world: LocalWorld, tmp_path: Path) -> None:
    out = tmp_path / "clip.mp4"
    with pytest.raises(ValueError, match="unknown key 'fly'"):
        generate(world, [Action(), Action({"fly"})], out)
    with pytest.raises(ReverieError, match=r"cannot write .*clip\.mp4"):
        generate(world, [Action()], tmp_path / "no" / "clip.mp4")
    with pytest.raises(ReverieError, match=r"clip\.gif is not a film's name"):
        generate(world, [Action()], tmp_path / "clip.gif")
    with pytest.raises(ReverieError, match="no actions"):
        generate(world, [], out)
    assert list(tmp_path.iterdir()) == []
    assert world._seats.slots.num_free == 1


def test_without_the_video_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ReverieError, match=r"pip install 'reverie-worlds\[video\]'"):
        write_video(tmp_path / "clip.mp4", iter([]), 20)
