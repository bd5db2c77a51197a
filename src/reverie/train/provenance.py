"""Where a world comes from: what trained each of its stages, on which machine, by which code, and
for how long. Kept in checkpoints as they are written, and put into the card of every world that is
exported.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from reverie.data.episode import SPLITS, Dataset
from reverie.engine.machine import processor_name
from reverie.train import parallel

if TYPE_CHECKING:
    from reverie.train.run import RunConfig

Provenance = Mapping[str, Any]
KEPT = ("steps", "batch_size", "learning_rate", "seed", "begun_with")
"""Of a run's settings."""
THEN = ", then "
"""Between the places of a run that went on elsewhere."""


def provenance(config: RunConfig) -> dict[str, Any]:
    """Of a run that begins or goes on here and now."""
    settings = asdict(config)
    return {
        **{name: settings[name] for name in KEPT},
        "seconds": 0.0,
        "hardware": _hardware(),
        "revision": _revision(),
        "torch": str(torch.__version__),  # its own kind of text would need code to load
    }


def continued(before: Provenance | None, now: Provenance) -> dict[str, Any]:
    """Of a run that was cut and goes on, perhaps elsewhere or by other code. before: as its
    checkpoint has it.
    """
    if before is None:
        return dict(now)
    places = {
        name: before[name]
        if now[name] in before[name].split(THEN)
        else before[name] + THEN + now[name]
        for name in ("hardware", "revision", "torch")
    }
    kept = {name: before.get(name, now[name]) for name in ("seconds", "begun_with")}
    return {**now, **places, **kept}


def describe(dataset: Dataset, stages: Mapping[str, Provenance]) -> str:
    """Markdown for a card: the data set, and a row for every stage."""
    config = dataset.config
    counts = {split: len(dataset.split(split)) for split in SPLITS}
    kwargs = "".join(f", {name}={value!r}" for name, value in config.env_kwargs.items())
    lines = [
        "## How it was made",
        "",
        f"Data: `{config.env_id}`{kwargs} at code `{config.code}`, seed {config.seed}, policy "
        f"`{config.policy}`, {config.width}x{config.height}; "
        f"{', '.join(f'{count} {split}' for split, count in counts.items())} episodes of up to "
        f"{config.episode_actions} actions.",
        "",
        "| stage | steps x batch | rate | seed | time | on | code |",
        "|---|---|---|---|---|---|---|",
    ]
    for stage, made in stages.items():
        size = f"{made['steps']} x {made['batch_size']}"
        spent = f"{made['seconds'] / 60:.0f} min"
        code = f"`{made['revision']}`, PyTorch {made['torch']}"
        where = made["hardware"]
        begun = f", from `{made['begun_with']}`" if made.get("begun_with") else ""
        row = (stage + begun, size, f"{made['learning_rate']:g}", made["seed"], spent, where, code)
        lines.append(f"| {' | '.join(map(str, row))} |")
    return "\n".join(lines) + "\n"


def _hardware() -> str:
    """The accelerator, or the processor and how many of its cores work together."""
    processes = parallel.num_processes()
    if torch.cuda.is_available():
        return f"{processes} x {torch.cuda.get_device_name()}"
    return f"{processor_name()}, {processes} x {torch.get_num_threads()} threads"


def _revision() -> str:
    """Of the checkout that this code runs from, marked where it was changed; else the version."""
    git = ["git", "-C", str(Path(__file__).parents[1])]
    asked = (
        ("ls-files", "--error-unmatch", __file__),  # fails in a checkout of something else
        ("rev-parse", "--short", "HEAD"),
        ("status", "--porcelain", "."),
    )
    try:
        _, head, changes = (
            subprocess.run([*git, *rest], capture_output=True, text=True, check=True, timeout=10)
            for rest in asked
        )
    except (OSError, subprocess.SubprocessError):
        return metadata.version("reverie-worlds")
    return head.stdout.strip() + ("+changes" if changes.stdout.strip() else "")
