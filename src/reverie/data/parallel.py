"""The same function over many jobs, in this process or in several, with a progress bar and a clean
stop.

Workers are spawned, not forked (a fork of a process with numba or torch threads hangs), each opens
its environment once, and Ctrl-C reaches the parent alone.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar, cast

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
    # Not concurrent.futures or multiprocessing.Pool: the one hangs when its processes are ended in
    # the middle of a large result, the other waits for ever for one that was killed.
    context = multiprocessing.get_context("spawn")
    workers: dict[Any, BaseProcess] = {}
    waiting = iter(enumerate(jobs))
    try:
        for _ in range(min(processes, len(jobs))):
            ours, theirs = context.Pipe()
            with theirs:
                process = context.Process(
                    target=_serve, args=(theirs, open_worker, arguments), daemon=True
                )
                process.start()
            workers[ours] = process
        for connection in workers:
            _give(connection, next(waiting))
        busy = list(workers)
        while busy:
            ready = cast("list[Connection]", wait(busy))
            for connection in ready:
                number, result = _take(connection)
                job = next(waiting, None)
                if job is None:
                    busy.remove(connection)
                else:
                    _give(connection, job)
                yield number, result
    finally:
        for connection, process in workers.items():
            process.terminate()
            process.join()
            connection.close()


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


def _give(connection: Connection, job: tuple[int, Any]) -> None:
    with suppress(OSError):  # it died: `_take` will say so
        connection.send(job)


def _take(connection: Connection) -> tuple[int, Any]:
    try:
        message = connection.recv_bytes()
    except (EOFError, OSError):
        raise ReverieError(
            "a process died (out of memory, or a crash in the environment); try fewer processes"
        ) from None
    number, result, error = pickle.loads(message)
    if error is not None:
        raise error
    return number, result


def _serve(
    connection: Connection, open_worker: Callable[..., Callable[[Any], Any]], arguments: Any
) -> None:
    """Answers each (number, job) with (number, result, None) or (number, None, error)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = None
    with suppress(EOFError, OSError):  # the parent is gone
        while True:
            number, job = connection.recv()
            try:
                worker = worker or open_worker(*arguments)
                message = pickle.dumps((number, worker(job), None))
            except Exception as error:
                message = pickle.dumps((number, None, _portable(error)))
            connection.send_bytes(message)


def _portable(error: Exception) -> Exception:
    """The same, with where it arose; or what it says, where it cannot travel."""
    try:
        pickle.loads(pickle.dumps(error))
        portable = error
    except Exception:
        portable = RuntimeError(repr(error))
    portable.add_note(traceback.format_exc())
    return portable
