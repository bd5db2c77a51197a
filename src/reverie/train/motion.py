"""How a picture moves: optical flow (DIS, Kroeger et al. 2016, arXiv 1603.03590), averaged in
squares.

It sees which way and how fast everything goes, wherever and however sharp that is: a generated walk
can be compared with a real one of which it shows another place.
"""

from __future__ import annotations

import itertools

import cv2
import numpy as np
from numpy.typing import NDArray

SQUARE = 16


def motion(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean flow from each frame to the next, uint8 [t, h, w, 3] -> float32 [h // 16, w // 16, 2]:
    pixels a frame to the right and down.
    """
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    total = np.zeros((*grey[0].shape, 2), np.float32)
    for before, after in itertools.pairwise(grey):
        total += flow.calc(before, after, np.zeros_like(total))
    rows, columns = (side // SQUARE for side in grey[0].shape)
    inside = total[: rows * SQUARE, : columns * SQUARE] / (len(frames) - 1)
    return inside.reshape(rows, SQUARE, columns, SQUARE, 2).mean((1, 3))


def speed_along(moved: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    """How fast a motion goes along another one, as a share of that one's speed."""
    return float((moved * expected).sum() / max(float(np.square(expected).sum()), 1e-9))
