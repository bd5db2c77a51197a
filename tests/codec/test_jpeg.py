"""Frames to JPEG and back."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from reverie.codec import JpegCodec
from reverie.core import Frame
from tests.server.landscape import Landscape, Viewpoint


def test_a_packet_holds_the_frame_nearly_as_it_was():
    pixels = Landscape(seed=1).draw(Viewpoint(60, 60, 100))
    packet = JpegCodec().encode(Frame(pixels, 7))
    decoded = JpegCodec().decode(packet.data)
    assert (packet.frame_index, packet.mime_type) == (7, "image/jpeg")
    error = np.mean((decoded.astype(float) - pixels) ** 2)
    assert 10 * np.log10(255**2 / error) > 34


def test_colours_keep_their_full_resolution():
    stripes = np.zeros((96, 160, 3), np.uint8)
    stripes[:, ::2], stripes[:, 1::2] = (220, 30, 30), (30, 30, 220)
    decoded = JpegCodec().decode(JpegCodec().encode_pixels(stripes))
    assert np.abs(decoded.astype(int) - stripes).mean() < 12


def test_part_of_a_batch_need_not_be_contiguous():
    batch = np.zeros((2, 96, 160, 4), np.uint8)
    assert JpegCodec().encode_pixels(batch[1, ..., :3])[:2] == b"\xff\xd8"


@pytest.mark.parametrize("pixels", [np.zeros((96, 160), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_what_is_not_a_picture_is_refused(pixels: np.ndarray):
    with pytest.raises(ValueError, match=r"expected uint8 \[h, w, 3\]"):
        JpegCodec().encode_pixels(pixels)


def test_quality_is_checked():
    with pytest.raises(ValueError, match="JPEG quality is 0; expected 1 to 100"):
        JpegCodec(0)


def test_importing_it_does_not_reach_torch():
    script = "import sys, reverie.codec; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
