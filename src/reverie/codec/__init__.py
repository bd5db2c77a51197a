"""Frames to packets and back. JPEG for now; a packet says what it is, so that others can follow.

Nothing here reaches torch: a codec is on the way of every frame and must import in milliseconds.
"""

from reverie.codec.jpeg import JpegCodec
from reverie.codec.packet import Packet

__all__ = ["JpegCodec", "Packet"]
