"""The page of a report: every figure, what was missed, and nothing outside of the file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from reverie.train.report import write_page
from reverie.train.sheets import write_sheet
from reverie.train.thresholds import Threshold

THRESHOLDS = {
    "next_frame_margin": Threshold(3),
    "turns_obeyed": Threshold(0.95),
    "collapsed": Threshold(0, at_most=True),
}
REPORT = {
    "world": "<meadow>",
    "denoising_steps": 1,
    "runtime": "onnx",
    "next_frame_margin": 3.5,
    "turns_obeyed": 0.9,
    "collapsed": 0.25,
    "long_play": [
        {"second": second, "detail": 1.0, "contrast": 0.9, "variety": 0.8} for second in (5, 10)
    ],
    "missed": ["collapsed", "turns_obeyed"],
}


def test_a_page_holds_figures_verdicts_pictures_and_needs_nothing_else(tmp_path: Path) -> None:
    sheet, gone = tmp_path / "sheet.jpg", tmp_path / "gone.mp4"
    write_sheet(sheet, [np.zeros((2, 8, 8, 3), np.uint8)] * 2)
    shown = [("A sheet & more", sheet), ("A film", gone)]
    write_page(tmp_path / "page.html", REPORT, THRESHOLDS, shown)
    page = (tmp_path / "page.html").read_text()
    assert "&lt;meadow&gt;, measured" in page
    assert "Misses 2 of 3 thresholds." in page
    rows = re.findall("<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td>.*?>(met|missed)<", page)
    assert rows == [
        ("the same, over repeating the last frame, dB", "3.5", "at least 3", "met"),
        ("turns, worst way", "0.9", "at least 0.95", "missed"),
        ("long plays that collapse", "0.25", "at most 0", "missed"),
    ]
    assert "A sheet &amp; more" in page
    assert page.count("data:image/jpeg;base64,") == 1
    assert "A film" not in page
    assert page.count("<svg") == 1
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)


def test_the_same_report_makes_the_same_page(tmp_path: Path) -> None:
    for name in ("one.html", "two.html"):
        write_page(tmp_path / name, REPORT, THRESHOLDS, [])
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_other_numbers_of_steps_stand_beside(tmp_path: Path) -> None:
    other = {"world": "w", "denoising_steps": 4, "turns_obeyed": 0.97}
    write_page(tmp_path / "page.html", REPORT, THRESHOLDS, [], [other])
    page = (tmp_path / "page.html").read_text()
    assert "<th>steps: 1</th><th>steps: 4</th>" in page
    assert "<td>turns, worst way</td><td>0.9</td><td>0.97</td><td>at least 0.95</td>" in page
    assert "<td>3.5</td><td></td><td>at least 3</td>" in page  # not in the other report


@pytest.mark.parametrize(
    ("missed", "said"),
    [([], "Every threshold is met."), (["turns_obeyed"], "Misses 1 of 1 thresholds.")],
)
def test_the_page_says_what_is_missed_and_what_was_not_measured(
    tmp_path: Path, missed: list[str], said: str
) -> None:
    report = {
        "world": "w",
        "denoising_steps": 4,
        "runtime": "onnx",
        "turns_obeyed": 1.0,
        "missed": missed,
    }
    write_page(tmp_path / "page.html", report, THRESHOLDS, [])
    page = (tmp_path / "page.html").read_text()
    assert said in page
    assert "Not measured: the same, over repeating the last frame, dB, long plays" in page
