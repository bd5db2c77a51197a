"""A folder with the checkpoints of another project is a world like any other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
from safetensors.torch import load_file, save_file

from reverie import world as worlds
from reverie.client.local import LocalWorld
from reverie.core import Action, ActionSpace, ReverieError
from reverie.engine.runtimes import load_runtime
from reverie.model.adapters.oasis_networks import OasisAutoencoder, OasisDenoiser, OasisShape
from reverie.model.weights import load_networks
from reverie.world import World, WorldConfig

GRID, SIZE = (4, 6), (80, 120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small checkpoints, as safetensors with one name for each kind of frequencies, and as .pt with
    all of them.
    """
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("oasis")
    networks = {
        "oasis500m": OasisDenoiser(OasisShape(GRID, width=64, depth=2)),
        "vit-l-20": OasisAutoencoder(GRID, width=64, depth=(1, 2), num_heads=1),
    }
    (path / "pt").mkdir()
    for name, network in networks.items():
        for key, weight in network.named_parameters():
            if not key.endswith("freqs"):
                torch.nn.init.normal_(weight, std=0.1)  # as initialised, it says exactly zero
        weights = network.state_dict()
        aliases = [key for key in weights if key.endswith("freqs")]
        everything = dict(weights)
        for kind, first in (("spatial", "s"), ("temporal", "t")):
            if aliases:
                alias = weights[f"blocks.0.{first}_attn.rotary_emb.freqs"]
                everything[f"{kind}_rotary_emb.freqs"] = alias
        torch.save(everything, path / "pt" / f"{name}.pt")
        kept = {key: w.contiguous() for key, w in weights.items() if key not in aliases[2:]}
        save_file(kept, path / f"{name}.safetensors")
    (path / "starts").mkdir()
    picture = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    (path / "starts" / "by_the_lake.jpg").write_bytes(simplejpeg.encode_jpeg(picture))
    shutil.copytree(path / "starts", path / "pt" / "starts")
    small = worlds.read_config(path)
    small = replace(small, width=SIZE[1], height=SIZE[0], context=5, denoising_steps=(3,))
    worlds.save(path / "small", small)
    shutil.copy(path / "small" / "config.json", path / "pt")
    shutil.move(path / "small" / "config.json", path)
    return path


def walk(world: World, save: Path | None = None) -> np.ndarray:
    with LocalWorld(*vars_of(world), num_sessions=2).start(seed=3) as session:
        actions = [Action({"forward"}), Action({"jump"}, mouse=(9, 1)), Action(), Action()]
        frames = [session.step(action) for action in actions]
        if save:
            session.save(save)
            frames.append(session.step(Action({"attack"})))
    return np.stack(frames)


def vars_of(world: World) -> tuple[Path, WorldConfig, tuple[worlds.Start, ...], None]:
    return world.path, world.config, world.starts, None


def test_published_checkpoints_need_no_config(folder: Path, tmp_path: Path) -> None:
    for name in ("oasis500m", "vit-l-20"):
        shutil.copy(folder / f"{name}.safetensors", tmp_path)
    config = worlds.load(tmp_path).config
    assert (config.name, config.width, config.height) == ("oasis-500m", 640, 360)
    assert config.context == 31
    assert config.action_space.keymap["w"] == "forward"


def test_both_types_play_the_same(folder: Path) -> None:
    frames = walk(worlds.load(folder))
    assert frames.shape == (4, *SIZE, 3)
    assert np.abs(np.diff(frames.astype(int), axis=0)).mean() > 1
    assert np.array_equal(walk(worlds.load(folder / "pt")), frames)


def test_it_is_saved_and_goes_on(folder: Path, tmp_path: Path) -> None:
    world = worlds.load(folder)
    frames = walk(world, tmp_path / "here.reverie")
    local = LocalWorld(*vars_of(world))
    with local.resume(tmp_path / "here.reverie") as session:
        assert np.array_equal(session.step(Action({"attack"})), frames[-1])


def test_an_exact_window_is_a_setting_and_changes_frames_once_it_slides(folder: Path) -> None:
    world = worlds.load(folder)
    assert not world.config.denoiser["exact_window"]
    exact = replace(world, config=replace(world.config, denoiser={"exact_window": True}))
    assert not np.array_equal(walk(exact), walk(world))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"denoiser": {"window": 3}}, "expected only 'exact_window', true or false"),
        ({"denoiser": {"exact_window": "no"}}, "expected only 'exact_window', true or false"),
        ({"action_space": ActionSpace(("jump",))}, "action_space is not that of the Oasis format"),
        ({"width": 650}, "pictures of 650 x 80 pixels cannot be made of them"),
    ],
)
def test_a_config_that_does_not_fit_the_checkpoints_is_refused(
    folder: Path, changes: dict[str, Any], line: str
) -> None:
    world = worlds.load(folder)
    with pytest.raises(ReverieError, match=line):
        load_runtime(replace(world, config=replace(world.config, **changes)))


def test_a_snapshot_fits_one_config_only(folder: Path) -> None:
    world = worlds.load(folder)
    exact = replace(world, config=replace(world.config, denoiser={"exact_window": True}))
    assert world.fingerprint == worlds.load(folder).fingerprint != exact.fingerprint


@pytest.mark.parametrize("content", [b"hello", b"PK\x03\x04 and then nothing", b"\x80\x02}"])
def test_rubbish_is_no_checkpoint(folder: Path, tmp_path: Path, content: bytes) -> None:
    shutil.copytree(folder / "pt", tmp_path / "world")
    (tmp_path / "world" / "vit-l-20.pt").write_bytes(content)
    with pytest.raises(ReverieError, match=r"vit-l-20\.pt is damaged or cut short"):
        load_runtime(worlds.load(tmp_path / "world"))


def test_training_does_not_go_on_from_it(folder: Path) -> None:
    with pytest.raises(ReverieError, match="expected one that Reverie trained"):
        load_networks(worlds.load(folder))


def test_starts_are_pictures(folder: Path) -> None:
    start = worlds.load(folder).find_start("by_the_lake")
    assert start.title == "by the lake"
    assert start.frames.shape == (5, *SIZE, 3)


def test_onnx_is_for_our_own_worlds(folder: Path) -> None:
    with pytest.raises(ReverieError, match="plays no world of the format 'oasis'; use 'torch'"):
        load_runtime(worlds.load(folder), "onnx")


Weights = dict[str, torch.Tensor]


def without(name: str) -> Callable[[Weights], Weights]:
    return lambda weights: {key: value for key, value in weights.items() if key != name}


@pytest.mark.parametrize(
    ("file", "change", "line"),
    [
        ("oasis500m", without("external_cond.bias"), "has no external_cond.bias; expected shape"),
        ("oasis500m", without("x_embedder.proj.weight"), "has no x_embedder.proj.weight"),
        (
            "oasis500m",
            without("blocks.0.t_attn.rotary_emb.freqs"),
            "has no blocks.0.t_attn.rotary_emb.freqs",
        ),
        ("oasis500m", lambda w: {**w, "extra": torch.zeros(1)}, "extra is not of the Oasis format"),
        (
            "oasis500m",
            lambda w: {**w, "external_cond.weight": torch.zeros(64, 7)},
            r"external_cond.weight has shape \[64, 7\]; expected \[64, 25\]",
        ),
        (
            "oasis500m",
            lambda w: {k: v for k, v in w.items() if not k.startswith("blocks")},
            "has no blocks.0",
        ),
        (
            "oasis500m",
            lambda w: {**w, "blocks.999999999.x": torch.zeros(1)},
            "has no blocks.2",
        ),
        ("vit-l-20", without("predictor.weight"), "has no predictor.weight"),
        ("vit-l-20", without("decoder.1.norm1.bias"), "has no decoder.1.norm1.bias"),
    ],
)
def test_a_checkpoint_that_does_not_fit_names_its_first_bad_tensor(
    folder: Path, tmp_path: Path, file: str, change: Callable[[Weights], Weights], line: str
) -> None:
    shutil.copytree(folder, tmp_path / "world")
    path = tmp_path / "world" / f"{file}.safetensors"
    save_file(change(load_file(path)), path)
    with pytest.raises(ReverieError, match=f"{file}.safetensors.*{line}"):
        load_runtime(worlds.load(tmp_path / "world"))


def test_files_that_are_missing_or_cut_short_are_named(folder: Path, tmp_path: Path) -> None:
    for kind, source in ((".safetensors", folder), (".pt", folder / "pt")):
        path = tmp_path / kind
        shutil.copytree(source, path)
        whole = path / f"oasis500m{kind}"
        whole.write_bytes(whole.read_bytes()[:5000])
        with pytest.raises(ReverieError, match=f"oasis500m{kind} is damaged or cut short"):
            load_runtime(worlds.load(path))
        whole.unlink()
        with pytest.raises(ReverieError, match="and no oasis500m"):
            worlds.load(path)
