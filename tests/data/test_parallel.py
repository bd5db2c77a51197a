import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from reverie.core import ReverieError
from reverie.data.parallel import map_as_done, map_in_order, progress_bar


def double(offset: int) -> Callable[[int], int]:
    return lambda job: 2 * job + offset


def refuse() -> Callable[[int], int]:
    raise ReverieError("no such environment")


def die() -> Callable[[int], int]:
    return lambda job: os._exit(1) if job == 3 else job


@pytest.mark.parametrize("processes", [1, 2, None])
def test_results_come_in_the_order_of_the_jobs(processes: int | None) -> None:
    assert list(map_in_order(double, (1,), range(7), processes)) == [1, 3, 5, 7, 9, 11, 13]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_worker_that_cannot_begin_says_why(processes: int) -> None:
    with pytest.raises(ReverieError, match="no such environment"):
        list(map_in_order(refuse, (), range(4), processes))


def test_a_process_that_dies_ends_the_work() -> None:
    with pytest.raises(ReverieError, match="a process died"):
        list(map_in_order(die, (), range(8), 2))


def test_what_is_not_taken_is_not_waited_for() -> None:
    results = map_in_order(double, (0,), range(5_000), 2)
    assert next(results) == 0
    results.close()  # pyright: ignore[reportAttributeAccessIssue]


def large() -> Callable[[int], bytes]:
    return lambda job: bytes(4_000_000)


def test_processes_may_be_ended_in_the_middle_of_a_large_result() -> None:
    for taken in range(1, 5):
        results = map_as_done(large, (), range(100), 2)
        for _ in range(taken):
            next(results)
        results.close()  # pyright: ignore[reportAttributeAccessIssue]
        assert not multiprocessing.active_children()


class TangledError(Exception):
    """Comes back from a pickle with an argument too few."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)


def tangle() -> Callable[[int], object]:
    def work(job: int) -> object:
        if job == 1:
            raise TangledError(3, "no more yarn")
        return lambda: job

    return work


@pytest.mark.parametrize(("jobs", "line"), [((1, 1), "no more yarn"), ((0, 0), "pickle")])
def test_what_cannot_travel_between_processes_is_said(jobs: tuple[int, int], line: str) -> None:
    with pytest.raises(Exception, match=line):
        list(map_as_done(tangle, (), jobs, 2))


def die_sending() -> Callable[[int], bytes]:
    def work(job: int) -> bytes:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return bytes(200_000_000)

    return work


def test_a_process_that_dies_while_it_answers_is_said() -> None:
    results = map_as_done(die_sending, (), range(4), 2)
    with pytest.raises(ReverieError, match="a process died"):
        [time.sleep(1) for _ in results]


def unlucky() -> Callable[[int], int]:
    def work(job: int) -> int:
        raise ConnectionError("the game's server is away")

    return work


def test_a_job_that_fails_says_where() -> None:
    with pytest.raises(ConnectionError, match="server is away") as failed:
        list(map_as_done(unlucky, (), range(4), 2))
    assert any("in work" in note for note in failed.value.__notes__)


def slow() -> Callable[[int], int]:
    def work(job: int) -> int:
        time.sleep(30 if job == 0 else 0)
        return job

    return work


@pytest.mark.parametrize("processes", [1, 2])
def test_every_job_comes_with_its_result(processes: int) -> None:
    done = dict(map_as_done(double, (1,), range(7), processes))
    assert done == {job: 2 * job + 1 for job in range(7)}


def test_a_long_job_holds_no_other_back_and_is_not_waited_for() -> None:
    begun_s = time.monotonic()
    results = map_as_done(slow, (), range(6), 2)
    assert [next(results)[0] for _ in range(5)] == [1, 2, 3, 4, 5]
    results.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert time.monotonic() - begun_s < 25
    assert not multiprocessing.active_children()


def test_a_process_that_dies_ends_what_is_done_in_any_order() -> None:
    with pytest.raises(ReverieError, match="a process died"):
        list(map_as_done(die, (), range(8), 2))


def test_the_bar_shows_frames_and_speed(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(True, "drawing", 100) as advance:
        for _ in range(10):
            advance(10)
    assert "drawing" in capsys.readouterr().out
    with progress_bar(False, "drawing", 100) as advance:
        advance(10)
    assert capsys.readouterr().out == ""
