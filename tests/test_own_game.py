"""docs/own-game.md, as a newcomer would type it, with a thousandth of the training."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from reverie import cli
from reverie import world as worlds

PAGE = (Path(__file__).parents[1] / "docs" / "own-game.md").read_text("utf-8")
LESS = {
    r"--episodes \d+": "--episodes 2 --validation 1 --test 1 --processes 1",
    r"--length \d+": "--length 90",
    r"--steps \d+": "--steps 2",
    r"--batch-size \d+": "--batch-size 2",
}


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.M | re.S)


def commands() -> list[list[str]]:
    lines = re.findall(r"^    reverie (.*(?:\\\n.*)*)", PAGE, re.M)
    return [shlex.split(line.replace("\\\n", " ")) for line in lines]


def in_miniature(words: list[str]) -> list[str]:
    text = shlex.join(words)
    for wanted, less in LESS.items():
        text = re.sub(wanted, less, text)
    return shlex.split(text)


def test_from_a_game_to_a_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (game,) = blocks("python")
    (tmp_path / "my_game.py").write_text(game)
    played = []
    for words in commands():
        if words[0] in ("play", "serve"):
            played.append(words[1])
            continue
        if words[0] == "record" and "--out" in words:
            file = tmp_path / "actions.toml"
            file.write_text(file.read_text().replace('press = "a"', 'press = "space"'))
        assert cli.main(in_miniature(words)) in (0, 3), words
    world = worlds.load(tmp_path / played[0])
    assert set(played) == {played[0]}
    assert world.config.action_space.keys == ("up", "down", "left", "right", "plant")
    assert world.config.action_space.keymap["space"] == "plant"
    assert world.config.frame_shape == (64, 64, 3)
    assert world.starts
    assert np.ptp(world.starts[0].frames[-1]) > 100
    sys.modules.pop("my_game", None)


def test_what_it_says_of_files_is_toml() -> None:
    first, second = map(tomllib.loads, blocks("toml"))
    assert first["keys"][0]["sets"] == {"action": 5}
    assert set(second) == {"idle", "together", "camera"}
