"""With `pytest -n 2` two tests run at a time; those that look at the clock run alone.

A lock of many readers and one writer between the processes of pytest-xdist. Whoever waits to be
alone holds the gate meanwhile, so nobody else begins.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent
SHARING = (
    *("test_runs.py", "train/test_measures", "train/test_recipe", "train/test_quantize"),
    *("engine/test_deadlines", "train", "engine/runtimes", "data", "envs", "model", "codec"),
    *("test_generate", "test_prompts", "test_cli", "test_scheduler", "test_project"),
)
"""Files and folders whose tests do not care who else uses the machine; what takes long first."""
FOLDER = "TURNS_OF_TESTS"
"""The environment variable that tells where the locks are, if tests run side by side."""


def place(path: Path) -> int:
    """In `SHARING`, or behind all of it."""
    name = path.relative_to(ROOT).as_posix()
    return next((i for i, begin in enumerate(SHARING) if name.startswith(begin)), len(SHARING))


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """While a test of this file runs. Does nothing where tests run one after the other anyway."""
    if FOLDER not in os.environ:
        yield
        return
    folder = Path(os.environ[FOLDER])
    with (folder / "gate").open("w") as gate, (folder / "lock").open("w") as lock:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(lock, fcntl.LOCK_SH if place(path) < len(SHARING) else fcntl.LOCK_EX)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield
