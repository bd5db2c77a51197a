"""A run goes on where it was cut, as if nothing had happened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from reverie.core import ReverieError
from reverie.train.run import Run, RunConfig, load_checkpoint, load_weights

CONFIG = RunConfig(steps=12, batch_size=1, warmup_steps=3, save_every_s=1e9, log_every_s=0.0)


def make_run(folder: Path, settings: dict | None = None) -> Run:
    torch.manual_seed(0)
    network = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(network.parameters())
    return Run(folder, CONFIG, network, [optimizer], settings or {"width": 2})


def train(run: Run, stop_at: int | None = None) -> list[dict[str, float]]:
    seen: list[dict[str, float]] = []

    def train_step(step: int) -> Tensor:
        if step == stop_at:
            raise KeyboardInterrupt
        generator = torch.Generator().manual_seed(step)
        batch = torch.randn(4, 2, generator=generator)
        return (run.network(batch) - batch.sum(1, keepdim=True)).square().mean()

    def inspect(step: int) -> dict[str, float]:
        seen.append({"quality": float(step)})
        return seen[-1]

    run.train(train_step, inspect)
    return seen


def test_a_cut_run_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    whole = make_run(tmp_path / "whole")
    train(whole)
    train(make_run(tmp_path / "cut"), stop_at=5)
    resumed = make_run(tmp_path / "cut")
    assert resumed.step == 5
    train(resumed)
    assert resumed.step == whole.step == CONFIG.steps
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name])
        assert torch.equal(whole.ema.weights[name], resumed.ema.weights[name])


def test_what_a_run_leaves_behind(tmp_path: Path) -> None:
    assert train(make_run(tmp_path)) == [{"quality": 12.0}]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {"loss", "learning_rate", "examples_per_s"} <= lines[0].keys()
    assert lines[-1]["quality"] == 12.0
    assert (tmp_path / "losses.png").stat().st_size > 1000
    assert load_checkpoint(tmp_path)["step"] == 12
    assert not list(tmp_path.glob("*.new"))


def test_inspecting_uses_the_average_and_gives_the_weights_back(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.ema.weights["weight"].fill_(7.0)
    (weight, _) = run.network.parameters()
    before = weight.clone()
    assert run.inspect_average(lambda _: {"w": weight.mean().item()}) == {"w": 7.0}
    assert torch.equal(weight, before)


def test_learning_rate_warms_up_stays_and_falls_to_a_hundredth() -> None:
    rates = [CONFIG.learning_rate_at(step) for step in range(13)]
    assert rates[0] < rates[1] < rates[2]
    assert set(rates[2:8]) == {CONFIG.learning_rate}
    assert rates[8:] == sorted(rates[8:], reverse=True)
    assert rates[-1] == pytest.approx(CONFIG.learning_rate / 100)


def test_other_settings_in_the_same_folder_are_refused(tmp_path: Path) -> None:
    train(make_run(tmp_path))
    with pytest.raises(ReverieError, match="other settings \\(width\\)"):
        make_run(tmp_path, {"width": 3})


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    train(make_run(tmp_path))
    with pytest.raises(ReverieError, match="another version of the network"):
        load_weights(nn.Linear(3, 1), load_checkpoint(tmp_path)["average"], tmp_path)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del saved["network"]["bias"]
    torch.save(saved, tmp_path / "checkpoint.pt")
    with pytest.raises(ReverieError, match="another version of the network"):
        make_run(tmp_path)


def test_a_missing_or_damaged_checkpoint_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ReverieError, match="train this stage first"):
        load_checkpoint(tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ReverieError, match="cannot be read") as caught:
        load_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)
