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
    *("codec", "data", "engine/runtimes", "engine/test_deadlines.py", "envs", "model", "train"),
    *("test_cli.py", "test_generate.py", "test_project.py", "test_prompts.py", "test_runs.py"),
    "test_scheduler.py",
)
"""Folders and files whose tests do not care who else uses the machine."""
FOLDER = "TURNS_OF_TESTS"
"""The environment variable that tells where the locks are, if tests run side by side."""


def may_share(path: Path) -> bool:
    return path.relative_to(ROOT).as_posix().startswith(SHARING)


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """While a test of this file runs. Does nothing where tests run one after the other anyway."""
    if FOLDER not in os.environ:
        yield
        return
    folder = Path(os.environ[FOLDER])
    with (folder / "gate").open("w") as gate, (folder / "lock").open("w") as lock:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(lock, fcntl.LOCK_SH if may_share(path) else fcntl.LOCK_EX)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield
