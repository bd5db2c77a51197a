"""Action scripts, and films of what a world makes of them.

A script is a JSON list. Every entry is an action and the number of frames that it is held:

    [
      {"keys": ["w"], "frames": 40},
      {"keys": ["w", "space"], "mouse": [5, 0], "frames": 20},
      {"prompt": "a snowy evening", "frames": 10}
    ]

keys: names of the world's keys, or of device keys that its keymap knows. mouse: degrees per frame,
[right, down]. slot: of the hotbar, from 1. prompt: what the world shall be like from then on, where
it takes prompts. frames: 1 if not given. All may be left out.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reverie.codec.video import write_video
from reverie.core import Action, ReverieError

if TYPE_CHECKING:
    from reverie.client import LocalSession, LocalWorld
    from reverie.world import World

MAX_FRAMES = 1_000_000


def read_script(path: str | Path, world: World) -> list[Action]:
    """One action per frame from a script file. Raises ReverieError that says where it is wrong."""
    try:
        data = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ReverieError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise ReverieError(f"{path} is not JSON: {error}") from None
    try:
        return parse_script(data, world)
    except ReverieError as error:
        raise ReverieError(f"{path}: {error}") from None


def parse_script(data: Any, world: World) -> list[Action]:
    """One action per frame from a script that is already JSON. Raises ReverieError."""
    if not isinstance(data, list) or not data:
        raise ReverieError('expected a list of actions, such as [{"keys": ["w"], "frames": 40}]')
    actions: list[Action] = []
    for number, entry in enumerate(data, 1):
        try:
            action, num_frames = _parse_entry(entry, world)
            world.config.action_space.encode(action)  # refuses what the world does not know
        except (ValueError, TypeError) as error:
            raise ReverieError(f"entry {number}: {error}") from None
        if len(actions) + num_frames > MAX_FRAMES:
            raise ReverieError(f"entry {number}: more than {MAX_FRAMES} frames")
        actions.extend([action] * num_frames)
    return actions


def _parse_entry(entry: Any, world: World) -> tuple[Action, int]:
    known = {"keys", "mouse", "slot", "prompt", "frames"}
    if not isinstance(entry, dict):
        raise ReverieError(f"{entry!r} is not an object with {sorted(known)}")
    if unknown := set(entry) - known:
        raise ReverieError(f"unknown {sorted(unknown)}; expected {sorted(known)}")
    keys, mouse = entry.get("keys", []), entry.get("mouse", [0, 0])
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ReverieError(f'keys is {keys!r}; expected a list of names, such as ["w"]')
    if not isinstance(mouse, list) or len(mouse) != 2 or not all(map(_is_number, mouse)):
        raise ReverieError(f"mouse is {mouse!r}; expected [degrees right, degrees down]")
    slot, num_frames = entry.get("slot", 1), entry.get("frames", 1)
    for name, value in (("slot", slot), ("frames", num_frames)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ReverieError(f"{name} is {value!r}; expected a whole number from 1")
    prompt = entry.get("prompt")
    if prompt is not None and not isinstance(prompt, str):
        raise ReverieError(f"prompt is {prompt!r}; expected a text")
    wished = {} if prompt is None else world.understand(prompt)
    return Action(keys, (mouse[0], mouse[1]), slot, wished), num_frames


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def generate(
    world: LocalWorld,
    actions: Sequence[Action],
    out: str | Path,
    *,
    seed: int = 0,
    start: str | None = None,
    image: NDArray[np.uint8] | None = None,
    steps: int | None = None,
    show_progress: bool = False,
) -> Path:
    """Play these actions, one per frame, and write what is seen to an MP4 file; returns its path.

    seed, start, image, steps: as in `LocalWorld.start`. show_progress: a bar with the time left on
    standard error. The file appears when it is whole. Raises ReverieError where the session cannot
    start or the file not be written, and without the extra `video`.
    """
    out = Path(out)
    if not actions:
        raise ReverieError("no actions; expected one per frame")
    if out.suffix.lower() != ".mp4":
        raise ReverieError(f"{out} is not a film's name; expected one that ends in .mp4")
    partial = out.with_name(f".{out.stem}.partial.mp4")
    with world.start(seed, start, image, steps, history_s=0) as session:
        frames = _frames(session, actions, show_progress)
        try:
            write_video(partial, frames, world.config.fps)
            partial.replace(out)
        except OSError as error:
            raise ReverieError(f"cannot write {out}: {error.strerror or error}") from None
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
    return out


def _frames(
    session: LocalSession, actions: Sequence[Action], show_progress: bool
) -> Iterator[NDArray[np.uint8]]:
    """Draw the frames, one for every action, as they are asked for."""
    if not show_progress:
        yield from map(session.step, actions)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeLeft())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield from map(session.step, progress.track(actions, description="Generating"))
