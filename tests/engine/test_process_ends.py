"""Ways in which an engine's process may end: nobody loses more than a second, nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from reverie.core import ReverieError
from reverie.engine import (
    Engine,
    EngineProcess,
)
from reverie.engine.process_child import bind_device
from reverie.session import SessionState
from tests.engine.processes import (
    Looking,
    act,
    dying_engine,
    endless_engine,
    eventually,
    fake_engine,
    frames,
    large_engine,
    no_engine,
    saved,
    stuck_engine,
)

ROOT = Path(__file__).parents[2]


def test_a_killed_process_ends_its_sessions_and_another_carries_them_on():
    first, second = EngineProcess(fake_engine, "a"), EngineProcess(fake_engine, "b")
    deaths: list[str] = []
    try:
        first.start()
        second.start()
        first.on_death = deaths.append
        handle, shown = first.open(seed=4), None
        for seq in range(2, 8):  # a second and a half, and as many actions
            act(handle, seq, keys={"forward"}, mouse=(seq, 1))
            shown = frames(handle, 5)[-1]
        assert first.pid is not None
        killed_s = time.monotonic()
        os.kill(first.pid, signal.SIGKILL)
        assert eventually(lambda: handle.state is SessionState.ENDED, 0.5)
        assert time.monotonic() - killed_s < 0.5
        assert deaths == [handle.reason]
        kept = handle.kept
        assert kept is not None
        assert shown is not None
        assert shown.frame_index - kept.frame_index < first.world.config.fps
        assert kept.replay is not None
        assert len(kept.replay.log) == kept.frame_index
        assert saved(handle) is None
        with pytest.raises(ReverieError, match="stopped"):
            first.open()
        assert not first.has_room
        other = second.open(saved=kept)
        assert other.kept is kept
        going_on = frames(other, 3)
        assert going_on[0].frame_index in (kept.frame_index - 1, kept.frame_index)
        with fake_engine() as engine:
            here = {f.frame_index: f.pixels for f in frames(engine.open(saved=kept), 3)}
        assert all(
            np.array_equal(frame.pixels, here[frame.frame_index])
            for frame in going_on
            if frame.frame_index in here
        )
    finally:
        first.stop()
        second.stop()


def test_a_process_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("reverie.engine.process.SILENT_S", 0.6)
    engine = EngineProcess(fake_engine, "hung")
    try:
        engine.start()
        handle = engine.open()
        frames(handle, 3)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGSTOP)
        assert eventually(lambda: handle.state is SessionState.ENDED, 2.0)
        assert "said nothing for" in handle.reason
    finally:
        engine.stop()


def test_a_process_that_hangs_in_the_middle_of_a_word_is_killed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("reverie.engine.process.SILENT_S", 0.6)
    engine = EngineProcess(large_engine, "hung")
    try:
        engine.start()
        handle = engine.open()
        frames(handle, 2)
        with engine._lock:  # nobody reads: what is sent gets stuck on the way
            time.sleep(0.3)
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGSTOP)
        assert eventually(lambda: handle.state is SessionState.ENDED, 3.0)
        assert "said nothing for" in handle.reason
    finally:
        engine.stop()


def test_a_server_that_does_not_read_stalls_nothing_and_fills_no_memory(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("reverie.engine.process.SILENT_S", 0.5)
    engine, listens = EngineProcess(large_engine, "slow"), threading.Event()
    listens.set()
    try:
        engine.start()
        handle = engine.open()
        frames(handle, 30)  # until it has all the memory that it needs
        handle.on_frame(lambda: print(listens.wait(5)))
        listens.clear()
        time.sleep(0.8)
        before = most_memory(engine.pid)
        time.sleep(1.2)  # 24 pictures of 3 MB
        assert most_memory(engine.pid) - before < 24_000_000
        drawn = handle.num_frames
        listens.set()
        assert eventually(lambda: handle.num_frames >= drawn + 15)
        newest = frames(handle, 2)[-1]
        assert newest.finished_s > time.monotonic() - 0.2
        assert handle.state is SessionState.PLAYING  # it was the server's fault
    finally:
        listens.set()
        engine.stop()


def most_memory(pid: int | None) -> int:
    """Bytes that the process ever had in memory at once."""
    return 1024 * int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0])


def test_stopping_what_still_loads_does_not_wait_for_it():
    engine, lines = EngineProcess(endless_engine, "slow"), []

    def start() -> None:
        try:
            engine.start()
        except ReverieError as error:
            lines.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    assert eventually(lambda: engine.pid is not None)
    began_s = time.monotonic()
    engine.stop()
    thread.join(3)
    assert time.monotonic() - began_s < 2
    assert lines == ["its process ended while it loaded"]
    assert engine.pid is None


def test_the_device_is_chosen_before_anything_of_the_engine_is_there():
    engine = EngineProcess(Looking(), "cuda", "cuda:3")
    with pytest.raises(ReverieError, match="sees 3"):
        engine.start()


def test_a_device_that_hangs_ends_its_process():
    engine = EngineProcess(stuck_engine, "stuck")
    try:
        engine.start()
        handle = engine.open()
        assert eventually(lambda: handle.state is SessionState.ENDED, 4)
        assert "ended" in handle.reason
    finally:
        engine.stop()


@pytest.mark.parametrize(
    ("load", "line"),
    [
        (no_engine, "model.safetensors is missing"),
        (dying_engine, "its process ended while it loaded"),
    ],
)
def test_an_engine_that_does_not_load_says_why(load: Callable[[], Engine], line: str):
    engine = EngineProcess(load, "none")
    with pytest.raises(ReverieError, match=line):
        engine.start()
    engine.stop()
    assert engine.pid is None


def test_stopping_leaves_nothing_behind():
    before = {thread.name for thread in threading.enumerate()}
    engine = EngineProcess(fake_engine, "gone")
    engine.start()
    pid = engine.pid
    assert pid is not None
    handle = engine.open()
    frames(handle, 2)
    engine.stop()
    engine.stop()
    assert handle.state is SessionState.ENDED
    assert {thread.name for thread in threading.enumerate()} <= before
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_process_goes_when_the_server_does():
    script = (
        "import time, tests.engine.processes as t\nfrom reverie.engine import EngineProcess\n"
        "if __name__ == '__main__':\n"
        "    engine = EngineProcess(t.fake_engine, 'orphan')\n"
        "    engine.start()\n"
        "    print(engine.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        run.kill()

    def is_gone() -> bool:
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"

    assert eventually(is_gone)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:9999", "cpu:1-0", ""])
def test_a_device_that_there_is_not_is_one_line(device: str):
    with pytest.raises(ReverieError, match="device"):
        bind_device(device)


def test_a_load_with_arguments_gets_there():
    engine = EngineProcess(partial(fake_engine, num_slots=1), "small", device="cpu:0")
    try:
        engine.start()
        assert engine.status.capacity == 1
    finally:
        engine.stop()
