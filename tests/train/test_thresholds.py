"""Thresholds: from the card, as written there; and what is missed."""

from __future__ import annotations

from pathlib import Path

import pytest

from reverie.core import ReverieError
from reverie.train.thresholds import RELEASE, Threshold, missed, read_thresholds

CARD = """---
license: apache-2.0
thresholds:
  next_frame_margin: ">= 6"
  drift_ratio: "<=1.5"
---
# A world
"""


def test_thresholds_are_read_off_the_card() -> None:
    expected = {"next_frame_margin": Threshold(6), "drift_ratio": Threshold(1.5, at_most=True)}
    assert read_thresholds(CARD, RELEASE) == expected
    assert read_thresholds("\ufeff" + CARD.replace("\n", "\r\n"), RELEASE) == expected


@pytest.mark.parametrize("card", ["", "# A world\n---\na: 1\n---\n", "---\nlicense: mit\n---\n"])
def test_a_card_may_have_none(card: str) -> None:
    assert read_thresholds(card, RELEASE) is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("thresholds: 3", "expected lines of name"),
        ("thresholds: {a: 3}", 'threshold a of the card is 3; expected such as ">= 0.95"'),
        ('thresholds: {a: "> 3"}', "threshold a"),
        ('thresholds: {a: ">= 1.2.3"}', "threshold a"),
        ("thresholds: {a", "does not begin with YAML"),
        ("date: 2024-02-30", "does not begin with YAML: day is out of range"),
        ('thresholds: {b: ">= 3"}', "no figure 'b'; thresholds are of a"),
    ],
)
def test_what_cannot_be_read_is_one_line(line: str, said: str) -> None:
    with pytest.raises(ReverieError, match=said) as error:
        read_thresholds(f"---\n{line}\n---\n", ["a"])
    assert "\n" not in str(error.value)


def test_what_is_missed() -> None:
    thresholds = {"a": Threshold(1), "b": Threshold(1, at_most=True), "c": Threshold(1)}
    assert missed({"a": 1, "b": 1, "c": 1}, thresholds) == []
    assert missed({"c": 0.9, "b": 1.1, "a": 0.9}, thresholds) == ["a", "b", "c"]
    assert missed({"a": float("nan")}, thresholds) == ["a"]
    assert missed({}, thresholds) == []


def test_the_documentation_says_what_a_release_is_held_to() -> None:
    rows = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text("utf-8").splitlines()
    told = {name: row for row in rows for name in RELEASE if f"`{name}`" in row.split("|")[:2][-1]}
    assert set(told) == set(RELEASE)
    for name, threshold in RELEASE.items():
        assert str(threshold) in told[name]
