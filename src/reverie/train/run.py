"""One training run: a folder that holds everything of it and from which it goes on after a cut.

    checkpoint.pt    weights, EMA, optimizers, step: replaced in one move every few minutes, and
    when stopped with Ctrl-C log.jsonl        one line every few seconds: step, loss, learning rate,
    examples per second losses.png       the curves of log.jsonl
    sheets/          contact sheets, one for every checkpoint

The learning rate depends on the step only (linear warm-up, then constant, in the last part straight
down to a hundredth), so a run that was cut ends where an unbroken one does.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from reverie.core import ReverieError
from reverie.train import parallel
from reverie.train.provenance import continued, provenance

COOLDOWN_SHARE = 0.3
"""Of a run's steps: the last, in which the learning rate falls."""


@dataclass(frozen=True)
class RunConfig:
    """steps: of the whole run. learning_rate: the highest. ema_decay: of the averaged weights that
    are shipped.

    save_every_s: seconds between checkpoints. threads: CPU threads (0: all). compile: the
    denoiser's layers, where a compiler is at hand; a third faster after half a minute. begun_with:
    whose weights it goes on from, for its provenance.
    """

    steps: int
    batch_size: int
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    ema_decay: float = 0.999
    save_every_s: float = 240.0
    log_every_s: float = 10.0
    seed: int = 0
    threads: int = 0
    compile: bool = True
    begun_with: str = ""

    def learning_rate_at(self, step: int) -> float:
        warm = min(1.0, (step + 1) / self.warmup_steps)
        left = max(0.0, 1 - step / self.steps)
        return self.learning_rate * warm * min(1.0, 0.01 + left / COOLDOWN_SHARE)


def pick_device(threads: int = 0) -> torch.device:
    """CUDA where there is one, else the CPU with this many threads. Meets the other processes of
    the run.
    """
    parallel.join_processes()
    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if threads:
        torch.set_num_threads(threads)
    return torch.device("cpu")


class EMA:
    """Exponential moving average of a network's parameters; slow to start, so that early noise is
    forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {
            name: value.detach().clone() for name, value in network.state_dict().items()
        }

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        values = network.state_dict()
        names = [name for name in self.weights if self.weights[name].is_floating_point()]
        for name in names:
            self.weights[name].lerp_(values[name], 1 - decay)


class Run:
    """Drives `train_step` from where the last checkpoint left off. `inspect` draws what is worth
    looking at with every checkpoint.
    """

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        network: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        settings: dict[str, Any],
    ) -> None:
        self.folder = folder
        self.config = config
        self.network = network
        self.optimizers = optimizers
        self.settings = settings
        # Read before a checkpoint's groups take their place.
        self._rate_scales = [
            [group.get("rate_scale", 1.0) for group in optimizer.param_groups]
            for optimizer in optimizers
        ]
        parallel.share_weights(network)
        self.ema = EMA(network, config.ema_decay)
        self.step = 0
        self.provenance = provenance(config)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sheets").mkdir(exist_ok=True)
        if (folder / "checkpoint.pt").exists():
            self._resume()

    def train(
        self, train_step: Callable[[int], Tensor], inspect: Callable[[int], dict[str, float]]
    ) -> None:
        """Runs to the last step. Ctrl-C saves and returns quietly; the same command goes on from
        there.
        """
        config = self.config
        saved = logged = counted = time.monotonic()
        losses: list[Tensor] = []
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeRemainingColumn(),
        )
        first = parallel.rank() == 0
        with Progress(*columns, disable=not first) as progress:
            bar = progress.add_task(
                self.folder.name, total=config.steps, completed=self.step, loss=""
            )
            try:
                while self.step < config.steps:
                    losses.append(self._update(train_step))
                    self.step += 1
                    now = time.monotonic()
                    self.provenance["seconds"] += now - counted
                    counted = now
                    done = self.step == config.steps
                    if first and (done or now - logged > config.log_every_s):
                        loss = torch.stack(losses).mean().item()
                        rate = len(losses) * config.batch_size / (now - logged)
                        self._log(loss=loss, examples_per_s=rate)
                        progress.update(
                            bar, completed=self.step, loss=f"loss {loss:.4f}  {rate:.1f}/s"
                        )
                        logged, losses = now, []
                    if first and (done or now - saved > config.save_every_s):
                        self.save()
                        self._log(**self.inspect_average(inspect))
                        draw_losses(self.folder)
                        saved = logged = time.monotonic()
                parallel.wait_for_all()  # the first draws while the others are done
            except KeyboardInterrupt:
                if first:
                    self.save()
                progress.console.print(
                    f"stopped at step {self.step}; saved. Run the same command to go on."
                )

    def _update(self, train_step: Callable[[int], Tensor]) -> Tensor:
        rate = self.config.learning_rate_at(self.step)
        loss = train_step(self.step)
        loss.backward()
        parallel.average_gradients(self.network.parameters())
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimizer, scales in zip(self.optimizers, self._rate_scales, strict=True):
            for group, scale in zip(optimizer.param_groups, scales, strict=True):
                group["lr"] = rate * scale
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.network, self.step)
        return loss.detach()

    def inspect_average(self, inspect: Callable[[int], dict[str, float]]) -> dict[str, float]:
        """Look at the averaged weights, which are the ones that ship."""
        current = {
            name: value.detach().clone() for name, value in self.network.state_dict().items()
        }
        self.network.load_state_dict(self.ema.weights)
        self.network.eval()
        try:
            return inspect(self.step)
        finally:
            self.network.load_state_dict(current)
            self.network.train()

    def save(self) -> None:
        state = {
            "step": self.step,
            "settings": self.settings,
            "network": self.network.state_dict(),
            "average": self.ema.weights,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "provenance": self.provenance,
        }
        temporary = self.folder / "checkpoint.pt.new"
        torch.save(state, temporary)
        temporary.replace(self.folder / "checkpoint.pt")

    def _resume(self) -> None:
        state = load_checkpoint(self.folder)
        if "network" not in state:
            raise ReverieError(
                f"{self.folder} holds what came with a world, which cannot go on; train the stages "
                "after it, or all of them in another folder"
            )
        if state["settings"] != self.settings:
            changed = [
                key for key in self.settings if state["settings"].get(key) != self.settings[key]
            ]
            raise ReverieError(
                f"{self.folder} was trained with other settings ({', '.join(changed)}); "
                "use another folder or the same settings"
            )
        load_weights(self.network, state["network"], self.folder)
        device = next(self.network.parameters()).device
        self.ema.weights = {name: value.to(device) for name, value in state["average"].items()}
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step = state["step"]
        self.provenance = continued(state.get("provenance"), self.provenance)

    def _log(self, **values: float) -> None:
        line = {
            "step": self.step,
            "learning_rate": self.config.learning_rate_at(self.step),
            **values,
        }
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({key: round(value, 6) for key, value in line.items()}) + "\n")


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """The checkpoint of a run's folder. Weights only: loading it runs no code. Raises ReverieError
    where there is none.
    """
    file = folder / "checkpoint.pt"
    if not file.exists():
        raise ReverieError(f"{folder} has no checkpoint.pt; train this stage first")
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ReverieError(
            f"{file} cannot be read ({type(error).__name__}); delete it to start over"
        ) from None


def save_network(folder: Path, settings: dict[str, Any], network: nn.Module) -> None:
    """One that was trained elsewhere, for the stages that come after it."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "checkpoint.pt.new"
    torch.save({"settings": settings, "average": network.state_dict()}, temporary)
    temporary.replace(folder / "checkpoint.pt")


def load_weights(network: nn.Module, weights: dict[str, Tensor], folder: Path) -> None:
    """Put weights of a run's checkpoint into a network. Raises ReverieError where it has others."""
    try:
        network.load_state_dict(weights)
    except RuntimeError:
        raise ReverieError(
            f"{folder} was trained by another version of the network, with other weights; "
            "train in another folder"
        ) from None


def draw_losses(folder: Path) -> None:
    """losses.png from log.jsonl: one panel per value that was logged."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    names = sorted(
        {name for line in lines for name in line} - {"step", "learning_rate", "examples_per_s"}
    )
    figure, axes = plt.subplots(
        len(names), 1, figsize=(7, 2.2 * len(names)), sharex=True, squeeze=False
    )
    for axis, name in zip(axes[:, 0], names, strict=True):
        points = [(line["step"], line[name]) for line in lines if name in line]
        axis.plot(*zip(*points, strict=True), linewidth=1)
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
    axes[-1, 0].set_xlabel("step")
    figure.tight_layout()
    figure.savefig(folder / "losses.png", dpi=90)
    plt.close(figure)
