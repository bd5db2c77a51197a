"""What counts as late, and how long things took."""

from __future__ import annotations

import numpy as np
import pytest

from reverie.core import Frame
from reverie.server.metrics import Metrics

PIXELS = np.zeros((1, 1, 3), np.uint8)


def value(metrics: Metrics, name: str) -> float | None:
    return metrics.registry.get_sample_value(f"reverie_{name}")


def frame(index: int, finished_s: float, seq: int = 1) -> Frame:
    return Frame(PIXELS, index, seq, finished_s - 0.05, finished_s - 0.03, finished_s)


@pytest.mark.parametrize(("gap_s", "late"), [(0.05, 0), (0.07, 0), (0.08, 1), (0.5, 1)])
def test_a_frame_is_late_when_it_misses_half_a_frame_time(gap_s: float, late: int):
    metrics = Metrics()
    metrics.observe_frame(frame(1, 10 + gap_s), frame(0, 10), 10.001 + gap_s, fps=20)
    assert value(metrics, "late_frames_total") == late
    assert value(metrics, "frame_gap_ms_sum") == pytest.approx(1e3 * gap_s)


def test_the_parts_of_a_frame_are_in_milliseconds():
    metrics = Metrics()
    metrics.observe_frame(frame(0, 10), None, 10.002, fps=20)
    parts = [value(metrics, f"{name}_ms_sum") for name in ("wait", "generate", "encode")]
    assert parts == pytest.approx([20, 30, 2])
    assert value(metrics, "frame_gap_ms_count") == 0


def test_an_action_waits_once_however_many_frames_answer_it():
    metrics = Metrics()
    first, second = frame(0, 10), frame(1, 10.05)
    metrics.observe_frame(first, None, 10, fps=20)
    metrics.observe_frame(second, first, 10.05, fps=20)
    assert value(metrics, "wait_ms_count") == 1


def test_a_session_is_counted_in_one_state_at_a_time():
    metrics = Metrics()

    def sessions(state: str) -> float | None:
        return metrics.registry.get_sample_value("reverie_sessions", {"state": state})

    with metrics.session_gauge() as move:
        move("queued")
        move("playing")
        assert (sessions("queued"), sessions("playing")) == (0, 1)
    assert sessions("playing") == 0
