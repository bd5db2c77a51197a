"""What counts as late, and how long things took."""

from __future__ import annotations

import asyncio
import math
import timeit

import numpy as np
import pytest

from reverie.core import Frame
from reverie.server.metrics import MAX_PHOTON_MS, Metrics
from tests.fakes import FakeClock

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


def test_an_action_is_timed_until_the_socket_has_its_frame():
    metrics = Metrics()
    metrics.observe_frame(frame(0, 10), None, 10.002, fps=20, sent_s=10.003)
    assert value(metrics, "action_to_frame_ms_sum") == pytest.approx(53)


def test_a_place_that_was_waited_for_is_timed():
    metrics = Metrics()
    metrics.observe_queue(1.5)
    assert value(metrics, "queue_ms_sum") == pytest.approx(1500)
    assert metrics.recent_waits_ms() == [1500]


@pytest.mark.parametrize(
    ("said", "counted"), [(42.0, [42.0]), (1e9, [MAX_PHOTON_MS]), (math.nan, []), (-1.0, [])]
)
def test_what_clients_say_is_bounded(said: float, counted: list[float]):
    metrics = Metrics()
    metrics.observe_frame(frame(0, 10), None, 10.002, fps=20)
    metrics.observe_photon(said)
    assert value(metrics, "action_to_photon_ms_count") == len(counted)
    assert value(metrics, "action_to_photon_ms_sum") == sum(counted)


def test_clients_cannot_claim_more_frames_than_were_sent():
    metrics = Metrics()
    metrics.observe_frame(frame(0, 10), None, 10.002, fps=20)
    for _ in range(1000):
        metrics.observe_photon(1.0)
    assert value(metrics, "action_to_photon_ms_count") == 1


def test_gaps_of_the_last_seconds_are_remembered_and_no_more():
    clock = FakeClock(100.0)
    metrics = Metrics(clock)
    for index in range(200):
        clock.advance(0.05)
        before = frame(index - 1, clock() - 0.05) if index else None
        metrics.observe_frame(frame(index, clock()), before, clock(), fps=20)
    gaps_ms = metrics.recent_gaps_ms()
    assert len(gaps_ms) in (100, 101)
    assert gaps_ms == pytest.approx([50.0] * len(gaps_ms), abs=0.1)
    assert metrics.recent_fps() == pytest.approx(20, abs=0.5)
    clock.advance(60)
    assert metrics.recent_gaps_ms() == []
    assert metrics.recent_fps() == 0


def test_a_frame_costs_little():
    """1500 frames a second must not notice it: a hundredth of their time, with much to spare."""
    metrics = Metrics()
    first, second = frame(0, 10, seq=1), frame(1, 10.05, seq=2)
    took_s = min(
        timeit.repeat(lambda: metrics.observe_frame(second, first, 10.06, 20), number=200, repeat=9)
    )
    assert took_s / 200 < 100e-6


def test_what_is_rendered_aside_is_the_same():
    metrics = Metrics()
    metrics.observe_queue(1.0)
    assert asyncio.run(metrics.render_aside()) == metrics.render()
