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
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from typing import Any, TypeVar

from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
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
    that this process may use; 1 means this process. ReverieError if it is below 1. A consumer that
    stops early, or a job that fails, does not wait for the others.
    """
    early: dict[int, Result] = {}
    given = 0
    with closing(_map(open_worker, arguments, jobs, processes)) as results:
        for number, result in results:
            early[number] = result
            while given in early:
                yield early.pop(given)
                given += 1


def map_as_done(
    open_worker: Callable[..., Callable[[Job], Result]],
    arguments: tuple[Any, ...],
    jobs: Sequence[Job],
    processes: int | None,
) -> Iterator[tuple[Job, Result]]:
    """As `map_in_order`, but each job with its result as soon as it is done."""
    with closing(_map(open_worker, arguments, jobs, processes)) as results:
        for number, result in results:
            yield jobs[number], result


def _map(
    open_worker: Callable[..., Callable[[Job], Result]],
    arguments: tuple[Any, ...],
    jobs: Sequence[Job],
    processes: int | None,
) -> Generator[tuple[int, Result], None, None]:
    if processes is None:
        processes = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    if processes < 1:
        raise ReverieError(f"processes is {processes}; expected at least 1")
    if processes == 1 or len(jobs) <= 1:
        worker = open_worker(*arguments)
        yield from ((number, worker(job)) for number, job in enumerate(jobs))
        return
    before = set(multiprocessing.active_children())
    # Not multiprocessing.Pool: it waits for ever for a worker that was killed.
    executor = ProcessPoolExecutor(
        min(processes, len(jobs)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(open_worker, arguments),
    )
    try:
        numbers = {executor.submit(_work, job): number for number, job in enumerate(jobs)}
        for done in as_completed(numbers):
            yield numbers.pop(done), done.result()
    except BrokenProcessPool:
        raise ReverieError(
            "a process died (out of memory, or a crash in the environment); try fewer processes"
        ) from None
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
            process.join()


@contextmanager
def progress_bar(shown: bool, text: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on the terminal with frames a second and time left; yields `advance(num_frames)`."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, disable=not shown) as progress:
        task = progress.add_task(text, total=total, rate="", left="left")

        def advance(num_frames: int) -> None:
            progress.advance(task, num_frames)
            speed = progress.tasks[0].speed
            progress.update(
                task,
                rate=f"{speed:.0f} frames/s" if speed else "",
                left="" if progress.finished else "left",
            )

        yield advance


def _begin(open_worker: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _worker = open_worker(*arguments)
    except Exception as error:
        # Raised here, the reason would be lost: the pool only says that it is broken.
        _worker = _Failed(error)


class _Failed:
    """A worker that could not be opened: answers every job with the reason."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, job: Any) -> Any:
        raise self.error


def _work(job: Any) -> Any:
    assert _worker is not None
    return _worker(job)
