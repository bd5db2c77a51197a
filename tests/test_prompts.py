"""What wishes in words are understood to mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reverie.core import ReverieError
from reverie.data.environment import Simulator
from reverie.prompts import MAX_LETTERS, PROMPTER_FILE, Prompter
from tests.fakes import PROMPTED

T, W, S, B = "time_of_day", "weather", "season", "biome"
UNHEARD = [
    ("a snowy evening", {T: "dusk", W: "snow"}),
    ("Could it rain, please?", {W: "rain"}),
    ("I would love a foggy autumn morning", {T: "dawn", W: "fog", S: "autumn"}),
    ("nightime", {T: "night"}),
    ("the snowstorm at sunset", {T: "dusk", W: "snow"}),
    ("rainy spring night", {T: "night", W: "rain", S: "spring"}),
    ("desrt", {B: "desert"}),
    ("sand dunes in the moonlight", {T: "night", B: "desert"}),
    ("wintry and misty", {W: "fog", S: "winter"}),
    ("please stop the rain", {W: "clear"}),
    ("no fog any more", {W: "clear"}),
    ("sunsets", {T: "dusk"}),
    ("a summer day at noon", {T: "day", S: "summer"}),
    ("drizzling", {W: "rain"}),
    ("grassy plains at daybreak", {T: "dawn", B: "meadow"}),
    ("arctic tundra", {B: "snowy"}),
    ("blizzards", {W: "snow"}),
    ("falling leaves in october", {S: "autumn"}),
    ("thunder and lightning", {W: "rain"}),
    ("a starry winter night", {T: "night", S: "winter"}),
    ("please end this rain", {W: "clear"}),
]
NOT_HERE = ["a purple dragon", "drive my car", "zzzz", "where is the exit?", "more coins", "42"]


@pytest.fixture(scope="module")
def prompter() -> Prompter:
    simulator = Simulator("reverie/Meadow-v0", {"prompts": True})
    found = simulator.prompter()
    simulator.close()
    assert found is not None
    return found


def test_most_wordings_that_nobody_listed_are_understood(prompter: Prompter) -> None:
    wrong = [text for text, meant in UNHEARD if _understood(prompter, text) != meant]
    assert len(wrong) <= 2, wrong


def test_what_the_world_cannot_do_is_answered_with_what_it_can(prompter: Prompter) -> None:
    understood = [text for text in NOT_HERE if _understood(prompter, text)]
    assert len(understood) <= 1, understood
    with pytest.raises(ReverieError, match=r"'dance'; it can change time of day \(day, dusk") as no:
        prompter.understand("dance")
    assert "\n" not in str(no.value)


def test_every_value_is_understood_by_its_name_and_every_example(prompter: Prompter) -> None:
    simulator = Simulator("reverie/Meadow-v0", {"prompts": True})
    assert all(len(_understood(prompter, wish)) >= 2 for wish in simulator.wishes)
    simulator.close()
    for name, values in prompter.attributes.items():
        for value in values:
            assert _understood(prompter, f"{value} {name.replace('_', ' ')}")[name] == value
            if value != "snowy":  # which everybody takes for the weather
                assert _understood(prompter, value) == {name: value}


def test_listed_wordings_are_understood_as_listed(prompter: Prompter) -> None:
    env = Simulator("reverie/Meadow-v0", {"prompts": True}).env.unwrapped
    listed = [
        (phrase, name, value)
        for name, ways in env.wordings.items()  # pyright: ignore[reportAttributeAccessIssue]
        for value, phrases in ways.items()
        for phrase in phrases
    ]
    wrong = [p for p, name, value in listed if _understood(prompter, p).get(name) != value]
    assert len(wrong) <= len(listed) // 100, wrong
    with pytest.raises(ReverieError, match=r"\['to the'\] say nothing"):
        Prompter.fit(PROMPTED.attributes, {"weather": {"rain": ("to the",)}})


def test_a_prompter_comes_back_from_its_file(prompter: Prompter, tmp_path: Path) -> None:
    prompter.save(tmp_path)
    again = Prompter.load(tmp_path, prompter.attributes)
    np.testing.assert_array_equal(again.weights, prompter.weights)
    assert (tmp_path / PROMPTER_FILE).stat().st_size < 100_000


def test_a_damaged_or_foreign_file_is_refused(prompter: Prompter, tmp_path: Path) -> None:
    with pytest.raises(ReverieError, match="missing or damaged"):
        Prompter.load(tmp_path, prompter.attributes)
    prompter.save(tmp_path)
    with pytest.raises(ReverieError, match=r"expected \[4, 2048\]: export the world again"):
        Prompter.load(tmp_path, PROMPTED.attributes)
    (tmp_path / PROMPTER_FILE).write_bytes(b"{}")
    with pytest.raises(ReverieError, match="missing or damaged"):
        Prompter.load(tmp_path, prompter.attributes)


def test_wordings_of_what_there_is_not_are_refused() -> None:
    with pytest.raises(ReverieError, match="wordings for weather"):
        Prompter.fit(PROMPTED.attributes, {"weather": {"hail": ("hailstorm",)}})


def test_a_wish_is_brief(prompter: Prompter) -> None:
    with pytest.raises(ReverieError, match=f"at most {MAX_LETTERS}"):
        prompter.understand("rain " * 100)


def _understood(prompter: Prompter, text: str) -> dict[str, str]:
    try:
        return prompter.understand(text)
    except ReverieError:
        return {}
