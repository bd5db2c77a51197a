"""The three graphs of a world in ONNX Runtime, checked against the world's config.

denoiser.onnx takes, for b sessions and n tokens of c channels each,
    noisy [b, n, c], signal [b], step_size [b], action [b, A], phase_cos and phase_sin [b, p],
    cache_k.i and cache_v.i [b, heads, m, dh] for every layer that has a cache
and returns clean [b, n, c] and new_k.i, new_v.i [b, heads, n, dh]. m is the number of remembered
tokens: context * n, or open, and then the graph also runs on a memory that is not full yet.
encoder.onnx turns frames uint8 [b, h, w, 3] into latents [b, n, c], decoder.onnx back.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from reverie.core import ReverieError
from reverie.engine.cache_pool import CacheShape
from reverie.world import World


@dataclass(frozen=True, slots=True)
class GraphShape:
    """Sizes that the graphs of a world agree on. has_open_past: m may be any number."""

    num_tokens: int
    num_channels: int
    action_width: int
    num_phases: int
    has_open_past: bool
    cache: CacheShape


@dataclass(frozen=True, slots=True)
class Graphs:
    """The loaded graphs. `run` and `run_with_iobinding` may be called from several threads."""

    encoder: Any
    decoder: Any
    denoiser: Any


def load_graphs(world: World, num_threads: int, allow_spinning: bool) -> Graphs:
    """All graphs, each pass on `num_threads` threads. Raises ReverieError if one cannot be run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # it warns about what it leaves unoptimised
    spinning = "1" if allow_spinning else "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    names = ("encoder", "decoder", "denoiser")
    return Graphs(*(_load_graph(world.path / f"{name}.onnx", options) for name in names))


def _load_graph(file: Path, options: Any) -> Any:
    try:
        return onnxruntime.InferenceSession(
            str(file), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime has many kinds and no common one
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ReverieError(f"{file} cannot be run: {reason}") from None


def check_graphs(world: World, graphs: Graphs) -> GraphShape:
    """The sizes in the graphs. Raises ReverieError where they and the config differ."""
    config = world.config
    inputs = {item.name: item.shape for item in graphs.denoiser.get_inputs()}
    num_layers = sum(name.startswith("cache_k.") for name in inputs)
    try:
        _, n, num_channels = inputs["noisy"]
        (_, action_width), (_, num_phases) = inputs["action"], inputs["phase_cos"]
        _, num_heads, past, head_width = inputs["cache_k.0"]
        encoded = graphs.encoder.get_inputs()[0].shape, graphs.encoder.get_outputs()[0].shape
        decoded = graphs.decoder.get_inputs()[0].shape, graphs.decoder.get_outputs()[0].shape
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
    latents = [n, num_channels]
    expected = [
        ("action width", [action_width], [config.action_space.told_width]),
        ("rotary phases", [num_phases], [len(row) for row in config.denoiser["frequencies"][:1]]),
        ("cache entries", [past], [config.context * n]),
        ("encoder frames", encoded[0][1:], list(config.frame_shape)),
        ("encoder latents", encoded[1][1:], latents),
        ("decoder latents", decoded[0][1:], latents),
        ("decoder frames", decoded[1][1:], list(config.frame_shape)),
    ]
    for what, found, wanted in expected:
        if not _agree(found, wanted):
            raise ReverieError(
                f"{world.path}: the graphs have {what} {found}, the config wants {wanted}; "
                "they belong to different exports: export the world again"
            )
    cache = CacheShape(num_layers, num_heads, config.context, n, head_width)
    return GraphShape(n, num_channels, action_width, num_phases, not isinstance(past, int), cache)


def _agree(found: list[Any], wanted: list[int]) -> bool:
    """A size that a graph leaves open is a name there, and agrees with any number."""
    pairs = zip(found, wanted, strict=False)
    same = all(size == want for size, want in pairs if isinstance(size, int))
    return len(found) == len(wanted) and same
