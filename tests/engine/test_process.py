"""An engine behind a process: it plays as in this one, bit for bit, and nobody loses more than a
second when it dies.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reverie.core import Action, ActionSpace, Frame, ReverieError
from reverie.engine import Engine, EngineProcess, Handle, RemoteHandle, Replay, SavedSession
from reverie.engine.handle import Prompted
from reverie.engine.process_child import bind_device
from reverie.session import FullError, SessionState
from tests.fakes import PROMPTED, SPACE, FakeRuntime, fake_config, fake_world

ROOT = Path(__file__).parents[2]


def fake_engine(num_slots: int = 3, space: ActionSpace = SPACE) -> Engine:
    runtime = FakeRuntime(fake_world(fake_config(space=space)), step_ms=1.0, commit_ms=1.0)
    return Engine(runtime.world, runtime, num_slots)


def no_engine() -> Engine:
    raise ReverieError("model.safetensors is missing")


def dying_engine() -> Engine:
    os._exit(3)


@pytest.fixture(scope="module")
def process() -> Iterator[EngineProcess]:
    engine = EngineProcess(partial(fake_engine, space=PROMPTED), "fake")
    engine.start()
    yield engine
    engine.stop()


def eventually(holds: Callable[[], bool], timeout_s: float = 5.0) -> bool:
    end_s = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < end_s:
        time.sleep(0.005)
    return holds()


def frames(handle: Handle | RemoteHandle, count: int, timeout_s: float = 5.0) -> list[Frame]:
    """The next ones, each as soon as it is there."""
    news, taken = threading.Event(), []
    handle.on_frame(news.set)
    end_s = time.monotonic() + timeout_s
    while len(taken) < count:
        assert time.monotonic() < end_s, f"{len(taken)} of {count} frames"
        news.wait(0.1)
        news.clear()
        if (frame := handle.take()) is not None:
            taken.append(frame)
    return taken


def saved(handle: Handle | RemoteHandle) -> SavedSession | None:
    answers: list[SavedSession | None] = []
    there = threading.Event()

    def answer(session: SavedSession | None) -> None:
        answers.append(session)
        there.set()

    handle.save(answer)
    assert there.wait(3)
    return answers[0]


def act(handle: Handle | RemoteHandle, seq: int, **action: Any) -> None:
    space = handle._engine.world.config.action_space
    handle.act(space.encode(Action(**action)), seq, time.monotonic())


def test_it_is_the_engine_that_was_asked_for(process: EngineProcess):
    here = fake_engine(space=PROMPTED)
    assert process.world.config == here.world.config
    assert process.kind == here.kind
    assert process.has_room
    assert process.pid not in (None, os.getpid())


def test_a_replay_is_played_bit_for_bit_as_here(process: EngineProcess):
    handle = process.open(seed=5)
    act(handle, 1, keys={"forward"}, mouse=(3, 0))
    frames(handle, 8)
    act(handle, 2, keys={"back"})
    frames(handle, 4)
    handle.pause()
    whole = saved(handle)
    handle.close()
    assert whole is not None
    assert whole.replay is not None
    with fake_engine(space=PROMPTED) as engine:
        here = {f.frame_index: f for f in frames(engine.open(replay=whole.replay), 12)}
    again = process.open(replay=whole.replay)
    there = {f.frame_index: f for f in frames(again, 12)}
    again.close()
    common = here.keys() & there.keys()
    assert len(common) >= 8
    assert all(np.array_equal(here[i].pixels, there[i].pixels) for i in common)


def test_actions_are_answered_and_times_are_of_one_clock(process: EngineProcess):
    handle = process.open()
    frames(handle, 1)
    before_s = time.monotonic()
    act(handle, 7, keys={"forward"})
    answer = next(frame for frame in frames(handle, 3) if frame.action_seq == 7)
    assert before_s <= answer.action_time_s <= answer.started_s <= answer.finished_s
    assert answer.finished_s <= time.monotonic()
    assert eventually(lambda: handle.num_frames >= 4 and handle.device_s > 0)
    handle.close()


def test_everything_a_player_can_do_goes_through(process: EngineProcess):
    handle = process.open(start="start-1", seed=3, paused=True)
    assert eventually(lambda: handle.state is SessionState.PAUSED)
    assert handle.take() is None
    handle.resume()
    frames(handle, 25)
    done: list[Prompted] = []
    handle.prompt("rain at night", done.append)
    assert eventually(lambda: bool(done))
    assert done[0].attributes == {"weather": "rain", "time_of_day": "night"}
    with pytest.raises(ReverieError, match="does not know 'a castle'"):
        handle.prompt("a castle", done.append)
    handle.set_steps(4)
    assert frames(handle, 4)[-1].num_steps == 4
    handle.set_steps(1)
    index = frames(handle, 1)[0].frame_index
    handle.rewind(1.0)
    assert eventually(lambda: handle.state is SessionState.PLAYING)
    assert min(frame.frame_index for frame in frames(handle, 3)) < index - 10
    handle.restart("start-0", seed=9)
    assert eventually(lambda: frames(handle, 1)[0].frame_index < 5)
    assert handle.seed == 9
    handle.close("enough")
    assert (handle.state, handle.reason, handle.kept) == (SessionState.ENDED, "enough", None)


@pytest.mark.parametrize(
    ("wanted", "line"),
    [
        ({"start": "moon"}, "has no start 'moon'"),
        ({"num_steps": 3}, "3 denoising steps; this world was trained for"),
        ({"seed": -1}, "seed is -1"),
        ({"replay": Replay("w", "f" * 16, "r", "s", 1, 2)}, "the replay is of another world"),
    ],
)
def test_what_the_world_lacks_is_said_at_once(process: EngineProcess, wanted: Any, line: str):
    with pytest.raises(ReverieError, match=line):
        process.open(**wanted)


def test_no_more_sessions_than_there_is_room_for(process: EngineProcess):
    assert eventually(lambda: process.num_active == 0 and process.status.num_active == 0)
    room, opened = threading.Event(), []
    process.on_room = room.set
    while len(opened) < 3:
        if process.has_room:
            opened.append(process.open())
    assert eventually(lambda: process.status.num_active == 3)
    assert not process.has_room
    with pytest.raises(FullError):
        process.open()
    assert not any(handle.refused for handle in opened)
    room.clear()
    opened[0].close()
    assert room.wait(1)
    for handle in opened:
        handle.close()


def test_a_killed_process_ends_its_sessions_and_another_carries_them_on():
    first, second = EngineProcess(fake_engine, "a"), EngineProcess(fake_engine, "b")
    deaths: list[str] = []
    try:
        first.start()
        second.start()
        first.on_death = deaths.append
        handle = first.open(seed=4)
        act(handle, 1, keys={"forward"}, mouse=(2, 1))
        shown = frames(handle, 35)[-1]
        assert first.pid is not None
        killed_s = time.monotonic()
        os.kill(first.pid, signal.SIGKILL)
        assert eventually(lambda: handle.state is SessionState.ENDED, 0.5)
        assert time.monotonic() - killed_s < 0.5
        assert deaths == [handle.reason]
        kept = handle.kept
        assert kept is not None
        assert shown.frame_index - kept.frame_index < first.world.config.fps
        assert saved(handle) is None
        with pytest.raises(ReverieError, match="stopped"):
            first.open()
        assert not first.has_room
        other = second.open(saved=kept)
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
        "import time, tests.engine.test_process as t\n"
        "if __name__ == '__main__':\n"
        "    engine = t.EngineProcess(t.fake_engine, 'orphan')\n"
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
