"""Training goes on from a world, also one that heard of less."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file

from reverie.core import ReverieError
from reverie.data.episode import Dataset
from reverie.data.record import record
from reverie.data.render import render
from reverie.envs.meadow.sim import MEADOW_ACTIONS, PROMPTED_ACTIONS
from reverie.model.adapters.shortcut import ShortcutModel
from reverie.model.autoencoder import Autoencoder
from reverie.model.denoiser import Denoiser, DenoiserConfig
from reverie.model.sampler import Sampler
from reverie.model.weights import load_networks
from reverie.train.autoencoder import Wished, load_autoencoder
from reverie.train.denoiser import load_denoiser
from reverie.train.distill import GuidanceConfig
from reverie.train.export import write_random_world
from reverie.train.recipe import SIZES, _networks_of, distill_stage, export_run, train_stage
from reverie.train.run import RunConfig, load_checkpoint
from reverie.world import WEIGHTS, World

CONFIG = RunConfig(steps=2, batch_size=2, warmup_steps=1, learning_rate=1e-6, compile=False)


@pytest.fixture(scope="module")
def prompted_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    counts: dict[str, Any] = {
        "episodes": 1,
        "validation": 1,
        "test": 0,
        "episode_actions": 90,
        "processes": 1,
    }
    path = tmp_path_factory.mktemp("prompted")
    kwargs = {"prompts": True}
    record("reverie/Meadow-v0", path, **counts, size=(32, 64), env_kwargs=kwargs, progress=False)
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """One that takes Meadow's actions and no prompts."""
    random = write_random_world(tmp_path_factory.mktemp("world"), prompts=False)
    return replace(random, config=replace(random.config, action_space=MEADOW_ACTIONS))


@pytest.mark.parametrize("name", SIZES)
def test_every_size_plays_a_frame(name: str) -> None:
    size = SIZES[name]
    pictures = Autoencoder(size.autoencoder)
    frame = torch.zeros((1, 3, size.autoencoder.height, size.autoencoder.width))
    latents = pictures.encode(frame)
    assert pictures.decode(latents).shape == frame.shape
    network = Denoiser(
        DenoiserConfig(
            size.autoencoder.grid,
            size.autoencoder.channels,
            PROMPTED_ACTIONS.told_width,
            **size.denoiser,
        )
    )
    sampler = Sampler(ShortcutModel(network, 0.9), 1)
    assert sampler.sample(
        [0], latents, torch.zeros(1, PROMPTED_ACTIONS.told_width), [0], 1
    ).shape == (latents.shape)
    weights = [*pictures.parameters(), *network.parameters()]
    assert 2 * sum(weight.numel() for weight in weights) < 36e6  # bytes; starts need 4e6


def test_networks_are_as_large_as_the_pictures(tmp_path: Path) -> None:
    counts: dict[str, Any] = {"episodes": 1, "validation": 1, "test": 0, "processes": 1}
    for size in ((48, 80), (50, 80)):
        record("reverie/Meadow-v0", tmp_path / str(size[0]), **counts, size=size,
               episode_actions=20, progress=False)  # fmt: skip
    train_stage("autoencoder", tmp_path / "48", tmp_path / "run", "tiny", CONFIG)
    config = load_autoencoder(tmp_path / "run" / "autoencoder").config
    assert (config.width, config.height, config.channels) == (80, 48, 8)
    with pytest.raises(ReverieError, match="not a multiple of 16; record with --picture 80x48"):
        train_stage("autoencoder", tmp_path / "50", tmp_path / "other", "tiny", CONFIG)


def test_the_same_commands_make_the_same_networks(prompted_set: Path, tmp_path: Path) -> None:
    for stage in ("autoencoder", "denoiser"):
        for run in ("first", "again"):
            train_stage(stage, prompted_set, tmp_path / run, "tiny", CONFIG)
        first, again = (load_checkpoint(tmp_path / run / stage) for run in ("first", "again"))
        torch.testing.assert_close(first["average"], again["average"], rtol=0, atol=0)


def test_a_world_learns_on_from_where_it_is(
    world: World, prompted_set: Path, tmp_path: Path
) -> None:
    for stage in ("autoencoder", "denoiser"):
        train_stage(stage, prompted_set, tmp_path, "small", CONFIG, begin_with=world)
        made = load_checkpoint(tmp_path / stage)["provenance"]
        assert made["begun_with"] == f"random {world.fingerprint[:8]}"
    autoencoder, denoiser = load_networks(world)
    # Its refiner knew what another decoder drew.
    assert load_autoencoder(tmp_path / "autoencoder").config == replace(
        autoencoder.config, refiner=()
    )
    learned = load_denoiser(tmp_path / "denoiser")
    assert learned.config.action_width == PROMPTED_ACTIONS.told_width
    kept = "blocks.0.mlp.down.weight"
    assert torch.allclose(learned.state_dict()[kept], denoiser.state_dict()[kept], atol=1e-3)


def test_what_begins_with_a_world_takes_along_what_came_before(
    world: World, prompted_set: Path, tmp_path: Path
) -> None:
    autoencoder = load_networks(world)[0]
    train_stage("denoiser", prompted_set, tmp_path, "small", CONFIG, begin_with=world)
    adopted = load_autoencoder(tmp_path / "autoencoder")
    torch.testing.assert_close(adopted.state_dict(), autoencoder.state_dict())
    distill_stage(prompted_set, tmp_path, CONFIG, GuidanceConfig())
    with pytest.raises(ReverieError, match="train the decoder on this action space"):
        export_run(prompted_set, tmp_path, tmp_path / "world", "w")
    with pytest.raises(ReverieError, match="came with a world, which cannot go on"):
        train_stage("autoencoder", prompted_set, tmp_path, "small", CONFIG, begin_with=world)


def test_a_decoder_learns_to_paint_wishes_and_all_else_stays(
    world: World, prompted_set: Path, tmp_path: Path
) -> None:
    train_stage("decoder", prompted_set, tmp_path, "small", CONFIG, begin_with=world)
    painting = export_run(prompted_set, tmp_path, tmp_path / "world", "w")
    assert painting.understand("a snowy evening") == {"time_of_day": "dusk", "weather": "snow"}
    before, after = load_networks(world), load_networks(painting)
    torch.testing.assert_close(after[1].state_dict(), before[1].state_dict())
    assert after[0].config.attributes == (4, 4, 4, 4)
    assert any(weight.any() for weight in after[0].painter.strokes.parameters())
    encoders = (network.encoder.state_dict() for network in (after[0], before[0]))
    torch.testing.assert_close(*encoders)
    usual = replace(PROMPTED_ACTIONS, attributes={})
    plain, _ = _networks_of(painting, usual, prompted_set)  # its looks mean nothing there
    assert plain.config.attributes == ()
    again, _ = _networks_of(painting, PROMPTED_ACTIONS, prompted_set)
    assert again.config.attributes == (4, 4, 4, 4)


def test_a_denoiser_is_not_taken_along_to_other_latents(
    world: World, prompted_set: Path, tmp_path: Path
) -> None:
    train_stage("autoencoder", prompted_set, tmp_path, "tiny", CONFIG)
    with pytest.raises(ReverieError, match="other latents than the world's denoiser knows"):
        train_stage("decoder", prompted_set, tmp_path, "tiny", CONFIG, begin_with=world)


def test_wishes_are_learned_where_they_have_come_true(prompted_set: Path) -> None:
    dataset = Dataset.load(prompted_set)
    usual, wished = (
        render(d, "train", cache=prompted_set / "frames", progress=False)
        for d in (dataset.as_usual(), dataset)
    )
    with pytest.raises(ReverieError, match="nobody wishes for anything for 600 frames"):
        Wished.of(wished, PROMPTED_ACTIONS, 600)
    found = Wished.of(wished, PROMPTED_ACTIONS, 20)
    assert 0 < len(found.rows) < len(wished.frames)
    for row in found.rows.tolist():
        assert (found.attributes[row - 20 : row] == found.attributes[row]).all()
    columns = PROMPTED_ACTIONS.attribute_columns
    assert (usual.actions[:, columns] == PROMPTED_ACTIONS.encode_attributes({})).all()
    assert (usual.actions[:, : columns.start] == wished.actions[:, : columns.start]).all()
    unusual = (found.attributes != usual.actions[:, columns]).any(1)
    apart = np.abs(usual.frames.astype(int) - wished.frames).mean((1, 2, 3))
    assert apart[found.rows][unusual[found.rows]].min() > 1
    assert apart[found.rows][~unusual[found.rows]].max(initial=0) == 0
    assert apart[0] == 0


def test_a_world_of_other_actions_is_no_beginning(
    world: World, prompted_set: Path, tmp_path: Path
) -> None:
    other = replace(MEADOW_ACTIONS, keys=MEADOW_ACTIONS.keys[::-1])
    world = replace(world, config=replace(world.config, action_space=other))
    with pytest.raises(ReverieError, match="has other actions than the world 'random'"):
        train_stage("autoencoder", prompted_set, tmp_path, "small", CONFIG, begin_with=world)


def test_a_refiner_learns_and_all_else_stays(
    world: World, prompted_set: Path, tmp_path: Path
) -> None:
    """Of a world that had none, whose decoder has learned to paint."""
    plain = replace(world.config, autoencoder={**world.config.autoencoder, "refiner": []})
    weights = {k: w for k, w in load_file(world.path / WEIGHTS).items() if ".refiner." not in k}
    bare = replace(world, path=tmp_path / "bare", config=plain)
    bare.path.mkdir()
    save_file(weights, bare.path / WEIGHTS)
    bold = replace(CONFIG, learning_rate=1e-3)
    train_stage("decoder", prompted_set, tmp_path, "small", CONFIG, begin_with=bare)
    train_stage("refiner", prompted_set, tmp_path, "small", bold)
    refining = export_run(prompted_set, tmp_path, tmp_path / "world", "w")
    learned, (painter, _) = load_networks(refining)[0], load_networks(bare)
    torch.testing.assert_close(learned.encoder.state_dict(), painter.encoder.state_dict())
    painted = load_autoencoder(tmp_path / "decoder")
    for name, weight in painted.state_dict().items():
        assert torch.equal(weight.half(), learned.state_dict()[name].half()), name
    assert learned.refiner.flow.weight.any()
    decoder = onnxruntime.InferenceSession(str(refining.path / "decoder.onnx"))
    assert {"before", "turn"} <= {item.name for item in decoder.get_inputs()}
    train_stage("decoder", prompted_set, tmp_path, "small", replace(bold, steps=3))
    with pytest.raises(ReverieError, match="train the refiner again"):
        export_run(prompted_set, tmp_path, tmp_path / "world", "w")


def test_a_refiner_wants_a_decoder_that_paints_and_pictures_to_compare(
    world: World, prompted_set: Path, tmp_path: Path
) -> None:
    with pytest.raises(ReverieError, match="does not paint the wishes"):
        train_stage("refiner", prompted_set, tmp_path, "small", CONFIG, begin_with=world)
    train_stage("decoder", prompted_set, tmp_path, "small", CONFIG, begin_with=world)
    alone = replace(CONFIG, batch_size=1)
    with pytest.raises(ReverieError, match="at least 2 for each"):
        train_stage("refiner", prompted_set, tmp_path, "small", alone, begin_with=world)
