"""One encoded picture, ready for a transport."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Packet:
    """data: the encoded picture. frame_index: of the frame that it holds. mime_type: how a browser
    names the encoding.
    """

    data: bytes
    frame_index: int
    mime_type: str
