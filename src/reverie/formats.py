"""Checkpoints of other projects that are worlds as they are: which files they have, and what a
world's config says of them. The networks are in `model/adapters`.

    folder/              of the Oasis-500M format
      oasis500m.safetensors, or .pt
      vit-l-20.safetensors, or .pt
      starts/NAME.jpg      pictures to begin in, if any
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reverie.core import ActionSpace

CHECKPOINT_TYPES = (".safetensors", ".pt")

_OASIS_KEYS = {
    "e": "inventory",
    "escape": "ESC",
    **{str(i): f"hotbar.{i}" for i in range(1, 10)},
    "w": "forward",
    "s": "back",
    "a": "left",
    "d": "right",
    "space": "jump",
    "shift": "sneak",
    "r": "sprint",
    "f": "swapHands",
    "mouse0": "attack",
    "mouse2": "use",
    "mouse1": "pickItem",
    "q": "drop",
}
"""In the order of the checkpoint's 25 columns, of which the camera's two are left out."""
OASIS_ACTIONS = ActionSpace(
    tuple(_OASIS_KEYS.values()),
    camera_limit=20.0,
    keymap={key: name for key, name in _OASIS_KEYS.items() if key != "escape"},
)
OASIS_CAMERA_COLUMN = 15
"""Of the checkpoint's: pitch, and after it yaw."""


@dataclass(frozen=True)
class Format:
    """checkpoints: names of its files, without their type. settings: of a `WorldConfig`."""

    checkpoints: tuple[str, ...]
    settings: Mapping[str, Any]

    def files(self, folder: Path) -> list[Path]:
        """A file for each of the checkpoints that are there."""
        found: list[Path] = []
        for name in self.checkpoints:
            paths = (folder / f"{name}{kind}" for kind in CHECKPOINT_TYPES)
            found += list(filter(Path.is_file, paths))[:1]
        return found


FORMATS: Mapping[str, Format] = {
    "oasis": Format(
        ("oasis500m", "vit-l-20"),
        {
            "name": "oasis-500m",
            "width": 640,
            "height": 360,
            "fps": 20,
            "action_space": OASIS_ACTIONS,
            "denoising_steps": (10,),
            "context": 31,
            "context_signal": 1.0,
            "denoiser": {"exact_window": False},
        },
    ),
}


def recognise(folder: Path) -> str | None:
    """The format of the checkpoints in a folder that has no config."""
    for name, form in FORMATS.items():
        if form.files(folder):
            return name
    return None
