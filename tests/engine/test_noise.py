from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reverie.engine.runtime import noise, ring_position

SHAPE = (60, 32)
seeds = st.integers(0, 2**64 - 1)
indices = st.integers(-64, 2**40)


@given(seeds, indices, st.integers(0, 1))
def test_noise_is_a_pure_function(seed: int, frame_index: int, stream: int) -> None:
    first, again = (noise(seed, frame_index, stream, SHAPE) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.float32


@given(seeds, indices, seeds)
def test_noise_differs_by_seed_frame_and_stream(seed: int, frame_index: int, other: int) -> None:
    one = noise(seed, frame_index, 0, SHAPE)
    assert (one != noise(seed, frame_index + 1, 0, SHAPE)).any()
    assert (one != noise(seed, frame_index, 1, SHAPE)).any()
    assert other == seed or (one != noise(other, frame_index, 0, SHAPE)).any()


def test_noise_of_neighbouring_frames_does_not_overlap() -> None:
    """A counter in the wrong word makes the next frame's noise this one's, shifted a little."""
    one, following = (noise(7, t, 0, SHAPE).ravel() for t in (4, 5))
    for shift in range(1, 40):
        overlap = np.corrcoef(one[shift:], following[:-shift])[0, 1]
        assert abs(overlap) < 0.15


def test_noise_is_standard_normal() -> None:
    many = np.stack([noise(1, t, 0, SHAPE) for t in range(200)])
    assert abs(many.mean()) < 0.01
    assert abs(many.std() - 1) < 0.01


@given(st.integers(-1000, 1000), st.integers(1, 64))
def test_consecutive_frames_fill_the_whole_ring(first: int, context: int) -> None:
    places = {ring_position(first + i, context) for i in range(context)}
    assert places == set(range(context))
