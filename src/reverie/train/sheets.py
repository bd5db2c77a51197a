"""Contact sheets: rows of pictures in one file, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray


def contact_sheet(rows: Sequence[NDArray[np.uint8]], gap: int = 4) -> NDArray[np.uint8]:
    """One picture, uint8 [H, W, 3], from rows of pictures, each uint8 [k, h, w, 3]; rows come in
    pairs (truth above).
    """
    height, width = rows[0].shape[1:3]
    columns = max(len(row) for row in rows)
    num_gaps = (len(rows) - 1) // 2
    sheet = np.full(
        (height * len(rows) + gap * num_gaps, (width + 1) * columns - 1, 3), 24, np.uint8
    )
    for i, row in enumerate(rows):
        top = i * height + i // 2 * gap
        for j, picture in enumerate(row):
            left = j * (width + 1)
            sheet[top : top + height, left : left + width] = picture
    return sheet


def write_sheet(file: Path, rows: Sequence[NDArray[np.uint8]]) -> None:
    """A `contact_sheet` as a JPEG file."""
    sheet = np.ascontiguousarray(contact_sheet(rows))
    file.write_bytes(simplejpeg.encode_jpeg(sheet, quality=92, colorsubsampling="444"))


def psnr(truth: NDArray[np.uint8], guess: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB over all pictures at once (one mean squared error)."""
    error = np.square(truth.astype(np.float32) - guess.astype(np.float32)).mean()
    return float(10 * np.log10(255.0**2 / max(float(error), 1e-9)))
