"""The same function over many jobs, in this process or in several, with a progress bar and a clean
stop.

Workers are spawned, not forked (a fork of a process with numba or torch threads hangs), each opens
its environment once, and Ctrl-C reaches the parent alone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from reverie.core import ReverieError

Job = TypeVar("Job")
Result = TypeVar("Result")

_worker: Callable[[Any], Any] | None = None


def map_in_order(
    open_worker: Callable[..., Callable[[Job], Result]],
    arguments: tuple[Any, ...],
    jobs: Sequence[Job],
    processes: int | None,
) -> Iterator[Result]:
    """Results of `open_worker(*arguments)(job)` in the order of the jobs; `open_worker` runs once
    per process.

    Both must be importable, as must their arguments be picklable. processes: None for one per core
    that this process may use; 1 means this process. ReverieError if it is below 1.
    """
    if processes is None:
        processes = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    if processes < 1:
        raise ReverieError(f"processes is {processes}; expected at least 1")
    if processes == 1 or len(jobs) <= 1:
        worker = open_worker(*arguments)
        yield from (worker(job) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")
    processes = min(processes, len(jobs))
    with context.Pool(processes, _begin, (open_worker, arguments)) as pool:
        yield from pool.imap(_work, jobs)


@contextmanager
def progress_bar(shown: bool, text: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on the terminal with frames a second and time left; yields `advance(num_frames)`."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TextColumn("frames  {task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, disable=not shown) as progress:
        task = progress.add_task(text, total=total, rate="")

        def advance(num_frames: int) -> None:
            progress.advance(task, num_frames)
            speed = progress.tasks[0].speed
            progress.update(task, rate=f"{speed:.0f}/s" if speed else "")

        yield advance


def _begin(open_worker: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _worker = open_worker(*arguments)


def _work(job: Any) -> Any:
    assert _worker is not None
    return _worker(job)
