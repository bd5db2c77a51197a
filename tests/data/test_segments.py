from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reverie.core import ReverieError
from reverie.data import Segments


def rows_and_episodes(lengths: list[int]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    boundaries = np.cumsum([0, *lengths])
    episode = np.repeat(np.arange(len(lengths)), lengths)
    return {"row": np.arange(boundaries[-1]), "episode": episode}, boundaries


@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=6), length=st.integers(1, 9))
def test_segments_are_all_slices_inside_one_episode(lengths: list[int], length: int) -> None:
    arrays, boundaries = rows_and_episodes(lengths)
    expected = [
        list(range(first, first + length))
        for start, end in pairwise(boundaries)
        for first in range(start, end - length + 1)
    ]
    if not expected:
        with pytest.raises(ReverieError, match="use shorter segments"):
            Segments(arrays, boundaries, length)
        return
    segments = Segments(arrays, boundaries, length)
    assert [list(segment["row"]) for segment in segments] == expected
    assert np.array_equal(segments.gather(np.arange(len(segments)))["row"], expected)
    assert all(len(set(segment["episode"])) == 1 for segment in segments)


def test_batches_depend_on_seed_and_step_alone() -> None:
    segments = Segments(*rows_and_episodes([50, 3, 80]), 8)
    run = [batch["row"] for batch in islice(segments.batches(4, seed=7), 6)]
    resumed = [batch["row"] for batch in islice(segments.batches(4, seed=7, first_step=3), 3)]
    assert run[0].shape == (4, 8)
    assert np.array_equal(run[3:], resumed)
    assert not np.array_equal(run[0], run[1])
    assert not np.array_equal(run[0], segments.draw(4, seed=8, step=0)["row"])


def test_every_segment_is_drawn_equally_often() -> None:
    segments = Segments(*rows_and_episodes([6, 12]), 4)
    rows = np.concatenate([segments.draw(64, 0, step)["row"][:, 0] for step in range(60)])
    counts = np.bincount(rows, minlength=15)
    assert (counts[3:6] == 0).all()
    assert counts[[0, 1, 2, *range(6, 15)]].min() > 200


def test_in_order_shows_every_frame_of_whole_parts_once() -> None:
    segments = Segments(*rows_and_episodes([10, 3, 7]), 4)
    rows = np.concatenate([batch["row"] for batch in segments.in_order(2)])
    assert rows.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [13, 14, 15, 16]]


def test_bad_boundaries_and_arrays_are_named() -> None:
    with pytest.raises(ReverieError, match="'row' has 9 rows; its episodes end at 10"):
        Segments({"row": np.arange(9)}, [0, 10], 2)
    with pytest.raises(ReverieError, match="rising"):
        Segments({"row": np.arange(9)}, [5, 0], 2)
    with pytest.raises(IndexError):
        Segments({"row": np.arange(9)}, [0, 9], 2)[8]
