"""A decoder whose coarse layers multiply in 8 bits: a quarter faster on CPUs, at no cost to see.

Static quantization (`onnxruntime.quantization`): ranges of activations are measured on pictures,
weights have a scale for every channel. What is drawn at a quarter of the picture's size and after
stays as it is: rounding there flickers (docs/log.md). Weights remain in the world's one file and
are rounded when the graph is loaded.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverie.core import ActionSpace
from reverie.model.autoencoder import Autoencoder
from reverie.train.autoencoder import encode_frames

Feed = dict[str, NDArray[Any]]

NUM_PICTURES = 128
PERCENTILE = 99.999
"""Of activations that a range covers: the few beyond it would cost all others precision."""


def calibration(
    autoencoder: Autoencoder, space: ActionSpace, pictures: NDArray[np.uint8]
) -> list[Feed]:
    """What the decoder is given while its ranges are measured: the latents of at most NUM_PICTURES
    of these pictures, uint8 [n, h, w, 3]; of a world with attributes, one in eight painted as
    wished, so that ranges remain those of what is mostly drawn.
    """
    rows = np.linspace(0, len(pictures) - 1, min(NUM_PICTURES, len(pictures))).astype(int)
    latents = encode_frames(autoencoder, pictures[rows]).cpu().numpy()
    generator = np.random.default_rng(0)
    feeds: list[Feed] = []
    for i, one in enumerate(latents):
        feed: Feed = {"latents": one[None]}
        if space.attributes:
            drawn = {name: str(generator.choice(v)) for name, v in space.attributes.items()}
            feed["attributes"] = space.encode_attributes({} if i % 8 else drawn)[None]
        if autoencoder.config.refiner:
            feed |= {"before": pictures[rows[i]][None], "turn": np.zeros((1, 3), np.float32)}
        feeds.append(feed)
    return feeds


def quantize_decoder(model: Any, feeds: Sequence[Feed], finest: int) -> Any:
    """The decoder's graph (an `onnx.ModelProto` with its weights inside) with its convolutions in 8
    bits, but for layers from `finest` on, and a refiner's.
    """
    import onnx
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):
        def __init__(self) -> None:
            self._feeds: Iterator[Feed] = iter(feeds)

        def get_next(self) -> Any:  # None at the end, whatever its base class says
            return next(self._feeds, None)

    kept = [n.name for n in model.graph.node if n.op_type == "Conv" and not _coarse(n, finest)]
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises a preparation that would rename the weights
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            file = Path(folder) / "decoder.onnx"
            q.quantize_static(
                model,
                str(file),
                Reader(),
                quant_format=q.QuantFormat.QDQ,
                op_types_to_quantize=["Conv", "Relu"],
                nodes_to_exclude=kept,
                per_channel=True,
                # 7 bits of weights: CPUs without VNNI overflow on 8, and it costs 0.02 dB.
                reduce_range=True,
                activation_type=q.QuantType.QUInt8,
                weight_type=q.QuantType.QInt8,
                calibrate_method=q.CalibrationMethod.Percentile,
                extra_options={"CalibPercentile": PERCENTILE, "AddQDQPairToWeight": True},
            )
            return onnx.load(file)
    finally:
        logging.disable(level)


def _coarse(convolution: Any, finest: int) -> bool:
    """Whether it is of the decoder, and before its finest layers."""
    name = str(convolution.input[1])  # such as autoencoder.decoder.2.conv.weight
    parts = name.split(".")
    return parts[:2] == ["autoencoder", "decoder"] and int(parts[2]) < finest
