"""Two processes with half a batch each end where one process with the whole batch does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from reverie.core import ReverieError
from reverie.train import parallel
from reverie.train.run import load_checkpoint

PROGRAM = """
import sys
from pathlib import Path
import torch
from reverie.train import parallel
from reverie.train.run import Run, RunConfig, pick_device

folder = Path(sys.argv[1])
pick_device(1)
with parallel.first_alone():
    ready = folder / "ready"
    if parallel.rank() == 0:
        assert not ready.exists()
        folder.mkdir(exist_ok=True)
        ready.touch()
    assert ready.exists()
torch.manual_seed(0)
network = torch.nn.Linear(2, 1)
config = RunConfig(steps=12, batch_size=4, warmup_steps=3, save_every_s=1e9, log_every_s=0.0)
run = Run(folder, config, network, [torch.optim.AdamW(network.parameters())], {})

def train_step(step):
    batch = torch.randn(4, 2, generator=torch.Generator().manual_seed(step))
    batch = batch[parallel.share_of(4)]
    return (network(batch) - batch.sum(1, keepdim=True)).square().mean()

run.train(train_step, lambda step: {"quality": 1.0})
print("finished")
"""


def train(folder: Path, num_processes: int) -> dict[str, torch.Tensor]:
    program = folder.with_suffix(".py")
    program.write_text(PROGRAM)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launcher, "--nproc-per-node", str(num_processes), str(program), str(folder)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("finished") == num_processes
    return load_checkpoint(folder)["network"]


def test_two_processes_end_where_one_does(tmp_path: Path) -> None:
    one, two = train(tmp_path / "one", 1), train(tmp_path / "two", 2)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value)
    lines = [(tmp_path / name / "log.jsonl").read_text().count("\n") for name in ("one", "two")]
    assert lines[0] == lines[1]  # one process of two writes


def test_a_batch_that_does_not_divide_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "num_processes", lambda: 3)
    with pytest.raises(ReverieError, match="batch of 8 does not divide among 3 processes"):
        parallel.share_of(8)
