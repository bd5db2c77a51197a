"""Motion: shifts of a textured picture are read as they were made, in pixels, right and down."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from reverie.train.motion import motion, speed_along


def shifted(right: int, down: int, num_frames: int = 3) -> np.ndarray:
    """What is seen of a large texture that moves right and down by that much a frame."""
    coarse = np.random.default_rng(0).integers(0, 255, (24, 32, 3)).astype(np.uint8)
    large = cv2.resize(coarse, (256, 192), interpolation=cv2.INTER_CUBIC)
    starts = [(64 - i * down, 64 - i * right) for i in range(num_frames)]
    return np.stack([large[y : y + 64, x : x + 100] for y, x in starts])


@pytest.mark.parametrize(("right", "down"), [(0, 0), (4, 0), (-6, 0), (0, 3), (0, -3), (2, 1)])
def test_a_shift_is_read_in_pixels(right: int, down: int) -> None:
    moved = motion(shifted(right, down))
    assert moved.shape == (4, 6, 2)
    np.testing.assert_allclose(moved[1:-1, 1:-1].mean((0, 1)), [right, down], atol=0.15)


def test_speed_along_another_motion() -> None:
    expected = np.zeros((2, 3, 2))
    expected[..., 0] = 4.0
    across = np.zeros_like(expected)
    across[..., 1] = 4.0
    assert speed_along(expected / 2, expected) == pytest.approx(0.5)
    assert speed_along(-expected, expected) == pytest.approx(-1.0)
    assert speed_along(across, expected) == 0
