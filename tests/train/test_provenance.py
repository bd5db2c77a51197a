"""What a card says of how its world was made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from reverie.data.episode import Dataset
from reverie.train.provenance import continued, describe, provenance
from reverie.train.run import Run, RunConfig, load_checkpoint

CONFIG = RunConfig(steps=4, batch_size=2, learning_rate=0.01, seed=7)


def a_run(folder: Path, config: RunConfig) -> Run:
    network = nn.Linear(2, 1)
    run = Run(folder, config, network, [torch.optim.AdamW(network.parameters())], {})
    run.train(lambda step: network(torch.ones(1, 2)).square().sum(), lambda step: {"error": 0.0})
    return run


def test_a_checkpoint_says_who_made_it_and_how_long_it_took(tmp_path: Path) -> None:
    first = a_run(tmp_path, CONFIG)
    made = load_checkpoint(tmp_path)["provenance"]
    assert (made["steps"], made["batch_size"], made["seed"]) == (4, 2, 7)
    assert made["torch"] == torch.__version__
    assert made["hardware"]
    assert 0 < made["seconds"] < 60
    second = a_run(tmp_path, RunConfig(steps=8, batch_size=2))
    assert second.provenance["seconds"] > first.provenance["seconds"]


def test_a_run_that_went_on_elsewhere_names_both_places() -> None:
    now = provenance(CONFIG)
    elsewhere = {**now, "hardware": "1 x H100", "seconds": 60.0}
    both = continued(elsewhere, now)
    assert both["hardware"] == f"1 x H100, then {now['hardware']}"
    assert both["revision"] == now["revision"]
    assert both["seconds"] == 60.0
    assert continued(both, now) == both


def test_what_a_run_began_with_is_kept_however_it_goes_on() -> None:
    begun = provenance(replace(CONFIG, begun_with="meadow 1a2b3c4d"))
    assert continued(begun, provenance(CONFIG))["begun_with"] == "meadow 1a2b3c4d"


def test_a_card_has_the_data_and_every_stage(meadow_set: Dataset) -> None:
    made = {**provenance(CONFIG), "seconds": 1200.0}
    begun = {**made, "begun_with": "meadow 1a2b3c4d"}
    text = describe(meadow_set, {"autoencoder": begun, "denoiser": made})
    assert "| autoencoder, from `meadow 1a2b3c4d` | 4 x 2 |" in text
    assert "`reverie/Meadow-v0` at code" in text
    assert "0 train, 0 validation, 2 test episodes of up to 200 actions" in text
    assert f"| denoiser | 4 x 2 | 0.01 | 7 | 20 min | {made['hardware']} |" in text
