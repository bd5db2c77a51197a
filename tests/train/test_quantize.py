"""A decoder in 8 bits draws what the whole one draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reverie import world as worlds
from reverie.engine.runtimes.graphs import Graphs
from reverie.engine.runtimes.onnx import OnnxGraphs
from reverie.engine.runtimes.openvino import OpenVinoGraphs
from reverie.model.weights import load_networks
from reverie.onnx_file import external_ranges
from reverie.train.autoencoder import decode_frames, encode_frames
from reverie.train.export import export_world, write_random_world
from reverie.train.measures import decibels, mean_square
from reverie.world import World


def quantized(world: World) -> list[str]:
    """Weights of the decoder's convolutions in 8 bits, by the names of their layers."""
    import onnx

    graph = onnx.load(str(world.path / "decoder.onnx"), load_external_data=False).graph
    rounded = {node.output[0]: node.input[0] for node in graph.node if "Dequantize" in node.op_type}
    convolutions = [node.input[1] for node in graph.node if node.op_type == "Conv"]
    return [rounded[weight] for weight in convolutions if weight in rounded]


@pytest.mark.parametrize("library", [OnnxGraphs, OpenVinoGraphs])
def test_the_bundled_world_draws_as_its_networks_do(library: type[Graphs]) -> None:
    world = worlds.load("meadow")
    assert len(quantized(world)) > 10
    autoencoder, graphs = load_networks(world)[0], library(world, 1)
    frames = np.concatenate([start.frames[::5] for start in world.starts])
    latents = encode_frames(autoencoder, frames)
    whole = decode_frames(autoencoder, latents)
    usual = world.config.action_space.encode_attributes({})[None]
    given = [{"latents": one[None], "attributes": usual} for one in latents.numpy()]
    drawn = np.concatenate([graphs.decode(inputs) for inputs in given])
    # 43 dB and more; without its scales' fractions, or with saturated ranges, it would be below 30.
    assert np.mean([decibels(mean_square(a, b)) for a, b in zip(whole, drawn, strict=True)]) > 40


def test_only_what_is_coarse_is_rounded_and_weights_stay_in_one_file(tmp_path: Path) -> None:
    world = write_random_world(tmp_path / "whole")
    assert not quantized(world)
    autoencoder, denoiser = load_networks(world)
    pictures = world.starts[0].frames
    space = world.config.action_space
    rounded = export_world(
        tmp_path / "rounded", "x", autoencoder, denoiser, space, pictures=pictures
    )
    layers = {int(name.split(".")[2]) for name in quantized(rounded)}
    assert layers
    assert max(layers) < autoencoder.finest
    sizes = [(w.path / "decoder.onnx").stat().st_size for w in (world, rounded)]
    ranges = [external_ranges(w.path / "decoder.onnx") for w in (world, rounded)]
    assert {part.location for part in ranges[1]} == {"model.safetensors"}
    lengths = [sum(part.length for part in parts) for parts in ranges]
    assert 0.9 * lengths[0] < lengths[1] < lengths[0]  # biases, in 32 bits, are in the graph
    assert sizes[1] < 10 * sizes[0]
