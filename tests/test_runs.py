"""The whole recipe in miniature: what `runs/` does on a GPU must run from end to end the first
time.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from reverie import world as worlds
from reverie.core import ReverieError
from reverie.model.weights import load_networks
from reverie.train.autoencoder import load_autoencoder
from reverie.train.recipe import export_run

ROOT = Path(__file__).parents[1]
MINIATURE = {
    "PICTURE": "64x32",
    "SIZE": "tiny",
    "EPISODES": "4",
    "HELD_OUT": "2",
    "LENGTH": "150",
    "FRAMES": "500",
    "AUTOENCODER_STEPS": "6",
    "AUTOENCODER_BATCH": "4",
    "DENOISER_STEPS": "6",
    "DENOISER_BATCH": "8",
    "DISTILL_STEPS": "6",
    "DECODER_STEPS": "6",
    "REFINER_STEPS": "6",
    "STARTS": "",
    "PROCESSES": "2",
    "THREADS": "1",
    "COMPILE": "--no-compile",
    "EVALUATE": "--quick",
}


def run(script: str, out: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    reverie = Path(sys.executable).parent / "reverie"
    own = {"REVERIE": str(reverie), "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **MINIATURE, **own, **settings}
    return subprocess.run(
        [str(ROOT / "runs" / script), str(out)],
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=600,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    done = run("meadow_cuda.sh", out)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


def test_the_recipe_ends_in_a_world_that_loads(finished: Path) -> None:
    world = worlds.load(finished / "world")
    assert (world.config.width, world.config.height) == (64, 32)
    assert len(world.starts) == 2
    assert not world.config.name.startswith("random")
    for stage in ("autoencoder", "denoiser", "distilled", "decoder", "refiner"):
        assert f"| {stage} | 6 x " in world.card


def test_the_world_of_a_recipe_takes_prompts(finished: Path) -> None:
    world = worlds.load(finished / "world")
    assert world.understand("a snowy evening") == {"time_of_day": "dusk", "weather": "snow"}
    assert "a snowy evening" in world.config.prompts
    report = json.loads((finished / "report" / "report_1.json").read_text())
    assert {"prompts_obeyed", "prompts_keep_place"} <= set(report)


def test_every_stage_leaves_something_to_look_at(finished: Path) -> None:
    for stage in ("autoencoder", "denoiser", "distilled", "decoder"):
        assert list((finished / stage / "sheets").glob("*.jpg"))
        assert (finished / stage / "losses.png").exists()
    report = json.loads((finished / "report" / "report_1.json").read_text())
    assert report["reconstruction_psnr"] > 3
    assert set(report["missed"])  # six steps make no world, and the report says so
    assert list((finished / "report").glob("*.jpg"))


def test_the_decoder_goes_on_alone(finished: Path) -> None:
    first, last = (load_autoencoder(finished / stage) for stage in ("autoencoder", "decoder"))
    for name, weight in first.encoder.state_dict().items():
        assert torch.equal(weight, last.encoder.state_dict()[name])
    shipped = load_networks(worlds.load(finished / "world"))[0].decoder.state_dict()
    weights = [part.decoder.state_dict()["0.weight"] for part in (first, last)]
    assert not torch.equal(*weights)
    torch.testing.assert_close(shipped["0.weight"], weights[1], atol=1e-3, rtol=1e-3)


def test_a_decoder_of_another_encoder_is_refused(finished: Path, tmp_path: Path) -> None:
    for stage in ("autoencoder", "decoder"):
        shutil.copytree(finished / stage, tmp_path / stage)
    file = tmp_path / "autoencoder" / "checkpoint.pt"
    state = torch.load(file, weights_only=True)
    state["average"]["encoder.1.weight"] += 1
    torch.save(state, file)
    with pytest.raises(ReverieError, match="train the decoder again"):
        export_run(finished / "data", tmp_path, tmp_path / "world", "brook")


def test_a_finished_recipe_does_nothing_again(finished: Path) -> None:
    checkpoint = finished / "distilled" / "checkpoint.pt"
    observed = finished / "report" / "observed_1.jsonl"
    before = checkpoint.read_bytes(), observed.read_bytes()
    again = run("meadow_cpu.sh", finished, PROCESSES="1")
    assert again.returncode == 0, again.stderr[-2000:]
    assert (checkpoint.read_bytes(), observed.read_bytes()) == before
