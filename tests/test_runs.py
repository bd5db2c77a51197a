"""The whole recipe in miniature: what `runs/` does on a GPU must run from end to end the first
time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reverie import world as worlds

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
    "STARTS": "",
    "PROCESSES": "2",
    "THREADS": "1",
    "COMPILE": "--no-compile",
    "EVALUATE": "--quick",
}


def run(script: str, out: Path) -> subprocess.CompletedProcess[str]:
    reverie = Path(sys.executable).parent / "reverie"
    environment = {**os.environ, **MINIATURE, "REVERIE": str(reverie), "OMP_NUM_THREADS": "1"}
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


def test_every_stage_leaves_something_to_look_at(finished: Path) -> None:
    for stage in ("autoencoder", "denoiser", "distilled"):
        assert list((finished / stage / "sheets").glob("*.jpg"))
        assert (finished / stage / "losses.png").exists()
    report = json.loads((finished / "report" / "report_1.json").read_text())
    assert report["reconstruction_psnr"] > 3
    assert set(report["missed"])  # six steps make no world, and the report says so
    assert list((finished / "report").glob("*.jpg"))


def test_a_finished_recipe_does_nothing_again(finished: Path) -> None:
    checkpoint = finished / "distilled" / "checkpoint.pt"
    observed = finished / "report" / "observed_1.jsonl"
    before = checkpoint.read_bytes(), observed.read_bytes()
    again = run("meadow_cpu.sh", finished)
    assert again.returncode == 0, again.stderr[-2000:]
    assert (checkpoint.read_bytes(), observed.read_bytes()) == before
