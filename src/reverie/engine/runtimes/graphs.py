"""The three graphs of a world, checked against its config, and what a library for them offers.

denoiser.onnx takes, for b sessions and n tokens of c channels each,
    noisy [b, n, c], signal [b], step_size [b], action [b, A], phase_cos and phase_sin [b, p],
    cache_k.i and cache_v.i [b, heads, m, dh] for every layer that has a cache
and returns clean [b, n, c] and new_k.i, new_v.i [b, heads, n, dh]. m is the number of remembered
tokens: context * n, or open, and then the graph also runs on a memory that is not full yet.
encoder.onnx turns frames uint8 [b, h, w, 3] into latents [b, n, c], decoder.onnx back. In a
world with attributes it also takes these, encoded: attributes [b, k]; in one whose pictures are
refined, the frames shown before, uint8 before [b, h, w, 3], and turn [b, 3] (`ActionSpace.turn`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reverie.core import ReverieError
from reverie.engine.cache_pool import CacheShape
from reverie.world import World

GRAPHS = ("encoder", "decoder", "denoiser")

Arrays = dict[str, NDArray[Any]]
Shapes = dict[str, dict[str, list[Any]]]
"""Of every graph, of its inputs and outputs by name; a size that is left open is no number."""


@dataclass(frozen=True, slots=True)
class GraphShape:
    """Sizes that the graphs of a world agree on. has_open_past: m may be any number. decodes: what
    the decoder takes.
    """

    num_tokens: int
    num_channels: int
    action_width: int
    num_phases: int
    has_open_past: bool
    decodes: tuple[str, ...]
    cache: CacheShape


class Graphs(Protocol):
    """The graphs of a world in some library.

    name: of the library. cache_type: of the numbers in `cache_` and `new_`; all others are float32.
    """

    name: str
    cache_type: type[np.generic]
    shapes: Shapes

    def __init__(
        self, world: World, num_threads: int, num_beside: int = 1, sizes: Sequence[int] = (1,)
    ) -> None:
        """Passes on `num_threads` threads each, of which `num_beside` may run at the same time,
        called from as many threads. sizes: numbers of sessions b that a pass or a decoding may be
        for. Raises ReverieError if a graph cannot be run.
        """
        ...

    def encode(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Latents [1, n, c] of a frame, uint8 [1, h, w, 3]."""
        ...

    def decode(self, inputs: Arrays) -> NDArray[np.uint8]:
        """Frames, uint8 [b, h, w, 3]. inputs: of the decoder."""
        ...

    def bind(self, inputs: Arrays, outputs: Arrays) -> Callable[[], None]:
        """A pass of the denoiser that reads and writes these arrays where they lie. outputs: clean,
        or all of new_k and new_v; what is not asked for may be left out of the pass.
        """
        ...


@contextmanager
def cannot_run(file: Path) -> Iterator[None]:
    """Whatever a library says against a graph, in one line."""
    try:
        yield
    except Exception as error:  # libraries have many kinds and no common one
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ReverieError(f"{file} cannot be run: {reason}") from None


def check_graphs(world: World, shapes: Shapes) -> GraphShape:
    """The sizes in the graphs. Raises ReverieError where they and the config differ."""
    config = world.config
    inputs, encoder, decoder = shapes["denoiser"], shapes["encoder"], shapes["decoder"]
    num_layers = sum(name.startswith("cache_k.") for name in inputs)
    try:
        _, n, num_channels = inputs["noisy"]
        (_, action_width), (_, num_phases) = inputs["action"], inputs["phase_cos"]
        _, num_heads, past, head_width = inputs["cache_k.0"]
        encoded, decoded = encoder["frames"], decoder["frames"]
        latents = encoder["latents"], decoder["latents"]
    except (KeyError, ValueError, IndexError):
        raise ReverieError(
            f"{world.path / 'denoiser.onnx'} has inputs {sorted(inputs)}; expected noisy, action, "
            "phase_cos, phase_sin, cache_k.0, ...: export the world again"
        ) from None
    for name in ("min_step_size", "frequencies", "camera_column", "camera_tokens"):
        if name not in config.denoiser:
            raise ReverieError(
                f"{world.path}: config.json has no denoiser.{name}: export the world again"
            )
    space, column = config.action_space, config.denoiser["camera_column"]
    if column != (len(space.keys) if space.camera_limit else None):
        raise ReverieError(
            f"{world.path}: config.json has denoiser.camera_column {column}, which is not where "
            "its action space has the camera: export the world again"
        )
    num_values = space.width - space.attribute_columns.start
    shown = list(config.frame_shape) if config.autoencoder.get("refiner") else []
    expected = [
        ("action width", [action_width], [config.action_space.told_width]),
        ("rotary phases", [num_phases], [len(row) for row in config.denoiser["frequencies"][:1]]),
        ("cache entries", [past], [config.context * n]),
        ("encoder frames", encoded[1:], list(config.frame_shape)),
        ("encoder latents", latents[0][1:], [n, num_channels]),
        ("decoder latents", latents[1][1:], [n, num_channels]),
        ("decoder frames", decoded[1:], list(config.frame_shape)),
        ("attributes", decoder.get("attributes", [1])[1:], [num_values] if num_values else []),
        ("frames before", decoder.get("before", [1])[1:], shown),
    ]
    for what, found, wanted in expected:
        if not _agree(found, wanted):
            raise ReverieError(
                f"{world.path}: the graphs have {what} {found}, the config wants {wanted}; "
                "they belong to different exports: export the world again"
            )
    cache = CacheShape(num_layers, num_heads, config.context, n, head_width)
    decodes = tuple(name for name in ("latents", "attributes", "before", "turn") if name in decoder)
    open_past = not isinstance(past, int)
    return GraphShape(n, num_channels, action_width, num_phases, open_past, decodes, cache)


def _agree(found: list[Any], wanted: list[int]) -> bool:
    """A size that a graph leaves open is a name there, and agrees with any number."""
    pairs = zip(found, wanted, strict=False)
    same = all(size == want for size, want in pairs if isinstance(size, int))
    return len(found) == len(wanted) and same
