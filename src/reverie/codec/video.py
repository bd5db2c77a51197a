"""Films: frames to an MP4 file. Needs `av`, of the extra `video`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverie.core import ReverieError

CODECS = (("libx264", {"crf": "16", "preset": "medium"}), ("mpeg4", {"qscale:v": "2"}))


def write_video(path: Path, frames: Iterator[NDArray[np.uint8]], fps: int) -> None:
    """Frames uint8 [h, w, 3] as an MP4 file, in H.264 where the codec is there.

    Raises ReverieError without the extra `video`, OSError where the file cannot be written.
    """
    try:
        import av
    except ImportError:
        raise ReverieError("a film needs av: pip install 'reverie-worlds[video]'") from None
    name, options = next(
        ((name, options) for name, options in CODECS if name in av.codecs_available), CODECS[-1]
    )
    with av.open(str(path), "w", format="mp4") as container:
        stream: Any = None
        for pixels in frames:
            if stream is None:
                stream = container.add_stream(name, rate=fps, options=options)
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt = "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        if stream is not None:
            container.mux(stream.encode(None))
