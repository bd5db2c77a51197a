"""The page of a report: every figure, what was missed, and nothing outside of the file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from reverie.train.report import write_page
from reverie.train.sheets import write_sheet

THRESHOLDS = {"next_frame_margin": 3.0, "turns_obeyed": 0.95, "collapsed": 0.0}
REPORT = {
    "world": "<meadow>",
    "denoising_steps": 1,
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
    assert "&lt;meadow&gt;, one denoising step a frame" in page
    assert "Misses 2 of 3 thresholds." in page
    rows = re.findall("<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td>.*?>(met|missed)<", page)
    assert rows == [
        ("the same, over repeating the last frame, dB", "3.5", "at least 3", "met"),
        ("turns, worst way", "0.9", "at least 0.95", "missed"),
        ("long play that collapses", "0.25", "at most 0", "missed"),
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


@pytest.mark.parametrize(("missed", "said"), [([], "Every threshold is met."), (["x"], "Misses 1")])
def test_the_page_says_what_is_missed(tmp_path: Path, missed: list[str], said: str) -> None:
    report = {"world": "w", "denoising_steps": 4, "missed": missed}
    write_page(tmp_path / "page.html", report, THRESHOLDS, [])
    page = (tmp_path / "page.html").read_text()
    assert said in page
    assert "w, 4 denoising steps a frame" in page
