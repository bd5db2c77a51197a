"""An exported world: weights once on disk, and ONNX Runtime plays it as PyTorch does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from reverie import world as worlds
from reverie.core import Action, ActionSpace, ReverieError
from reverie.engine.runtime import Batch, Runtime
from reverie.engine.runtimes.cpu import CpuRuntime
from reverie.engine.runtimes.onnx import OnnxGraphs
from reverie.engine.runtimes.torch import TorchRuntime
from reverie.model.autoencoder import Autoencoder
from reverie.model.denoiser import Denoiser, DenoiserConfig
from reverie.model.weights import load_networks
from reverie.onnx_file import external_ranges
from reverie.train.export import export_world, write_random_world
from reverie.train.recipe import SIZES
from reverie.world import World

TOLERANCE = 1
"""Levels of 255 by which a frame of the two runtimes may differ."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return write_random_world(tmp_path_factory.mktemp("world"))


def play(runtime: Runtime, num_steps: int, slot: int = 1) -> np.ndarray:
    start, space = runtime.world.starts[0], runtime.world.config.action_space
    runtime.prefill(slot, start.frames[::-1], start.actions, 3)  # another past, to be forgotten
    runtime.prefill(slot, start.frames, start.actions, 7)
    frames = []
    for index in range(3 * runtime.world.config.context):
        weather = {"weather": "rain"} if index % 4 > 1 else {}
        action = space.encode(Action({"w"} if index % 3 else (), (index % 5 - 2, 1), 1, weather))
        frames.append(runtime.step(Batch((slot,), action[None], (7,), (index,), num_steps))[0])
    return np.stack(frames)


@pytest.mark.parametrize("num_steps", [1, 4])
def test_onnx_and_pytorch_draw_the_same_frames(world: World, num_steps: int) -> None:
    runtimes: list[Runtime] = [CpuRuntime(world, OnnxGraphs), TorchRuntime(world, "cpu")]
    for runtime in runtimes:
        runtime.allocate(2)
    fast, slow = (play(runtime, num_steps).astype(int) for runtime in runtimes)
    assert np.abs(fast - slow).max() <= TOLERANCE
    assert np.abs(np.diff(fast, axis=0)).mean() > 1  # the pictures do move


def test_the_slow_twin_restores_bit_for_bit(world: World) -> None:
    runtime = TorchRuntime(world, "cpu")
    runtime.allocate(2)
    play(runtime, 1, slot=0)
    saved = runtime.snapshot(0)
    batch = Batch((0,), np.zeros((1, world.config.action_space.width), np.float32), (7,), (50,), 2)
    expected = runtime.step(batch)
    runtime.step(batch)
    runtime.restore(0, saved)
    assert np.array_equal(runtime.step(batch), expected)
    with pytest.raises(ReverieError):
        runtime.restore(0, saved[:100])


def test_weights_lie_on_disk_once(world: World) -> None:
    weights = (world.path / "model.safetensors").stat().st_size
    for graph in ("encoder", "decoder", "denoiser"):
        file = world.path / f"{graph}.onnx"
        assert {part.location for part in external_ranges(file)} == {"model.safetensors"}
        inside = sum(part.length for part in external_ranges(file))
        assert 0 < inside < weights
    assert (world.path / "denoiser.onnx").stat().st_size < 200_000


def test_graphs_name_nothing_of_the_machine_they_were_made_on(world: World) -> None:
    for graph in world.path.glob("*.onnx"):
        content = graph.read_bytes()
        assert b"site-packages" not in content
        assert str(Path.home()).encode() not in content


def test_networks_come_back_from_disk(world: World) -> None:
    autoencoder, denoiser = load_networks(world)
    assert autoencoder.config.num_tokens == denoiser.config.num_tokens
    assert not any(weight.requires_grad for weight in denoiser.parameters())
    assert all(torch.isfinite(weight).all() for weight in autoencoder.parameters())


def test_networks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    autoencoder = Autoencoder(SIZES["tiny"].autoencoder)
    denoiser = Denoiser(DenoiserConfig((2, 4), 8, 5, context=2, width=32, depth=2, head_width=16))
    with pytest.raises(ReverieError, match="actions of 5 numbers"):
        export_world(tmp_path, "x", autoencoder, denoiser, ActionSpace(("w",)))
    other = Denoiser(DenoiserConfig((2, 4), 4, 1, context=2, width=32, depth=2, head_width=16))
    with pytest.raises(ReverieError, match="do not share their latents"):
        export_world(tmp_path, "x", autoencoder, other, ActionSpace(("w",)))


def test_a_random_world_is_a_whole_world(world: World) -> None:
    assert worlds.load(world.path).config == world.config
