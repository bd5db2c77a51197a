"""An engine behind a process: it plays as in this one, bit for bit, and nobody loses more than a
second when it dies.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from reverie.core import Action, ActionSpace, Frame, ReverieError
from reverie.engine import (
    Engine,
    EngineProcess,
    Handle,
    RemoteHandle,
    Replay,
    SavedSession,
    process_child,
)
from reverie.engine.handle import Prompted
from reverie.engine.mail import Act, Outbox
from reverie.engine.process_child import _Child, bind_device
from reverie.session import ActionMailbox, FullError, SessionState
from tests.fakes import PROMPTED, SPACE, FakeRuntime, fake_config, fake_world

ROOT = Path(__file__).parents[2]


def fake_engine(num_slots: int = 3, space: ActionSpace = SPACE) -> Engine:
    runtime = FakeRuntime(fake_world(fake_config(space=space)), step_ms=1.0, commit_ms=1.0)
    return Engine(runtime.world, runtime, num_slots)


def no_engine() -> Engine:
    raise ReverieError("model.safetensors is missing")


def dying_engine() -> Engine:
    os._exit(3)


def large_engine() -> Engine:
    """Whose pictures are larger than what fits into a pipe."""
    runtime = FakeRuntime(fake_world(fake_config(width=1280, height=800)))
    return Engine(runtime.world, runtime, 2)


def endless_engine() -> Engine:
    time.sleep(60)
    raise AssertionError


def stuck_engine() -> Engine:
    process_child.STUCK_S = process_child.STUCK_STEPS = 0.5
    engine = fake_engine()
    engine.runtime.commit = lambda slots: time.sleep(60)  # type: ignore[method-assign]
    return engine


class Looking:
    """Looks for devices as soon as it is there, as libraries do."""

    def __setstate__(self, state: object) -> None:
        self.seen = os.environ.get("CUDA_VISIBLE_DEVICES")

    def __getstate__(self) -> bool:
        return True

    def __call__(self) -> Engine:
        raise ReverieError(f"sees {self.seen}")


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


def test_a_place_that_is_gone_when_the_session_gets_there_is_refused(process: EngineProcess):
    assert eventually(lambda: process.num_active == 0 and process.status.num_active == 0)
    with process._lock:  # nothing is heard meanwhile
        process._status = replace(process._status, capacity=9, has_room=True)
        opened = [process.open() for _ in range(4)]
    assert eventually(lambda: opened[3].state is SessionState.ENDED)
    assert (opened[3].refused, opened[3].reason) == (True, "every place is taken")
    assert not process.has_room
    assert not any(handle.refused for handle in opened[:3])
    for handle in opened:
        handle.close()
    assert eventually(lambda: process.status.has_room and process._status.num_active == 0)


def test_what_is_restarted_shows_nothing_of_before(process: EngineProcess):
    handle = process.open(seed=1)
    frames(handle, 15)
    assert eventually(lambda: handle.kept is not None)
    told: list[SessionState] = []
    handle.on_frame(lambda: told.append(handle.state))
    handle.restart("start-1", seed=2)
    assert handle.state is told[0] is SessionState.WARMING
    assert handle.take() is handle.kept is None
    assert frames(handle, 1)[0].frame_index == 0
    assert eventually(lambda: handle.kept is not None)
    assert handle.kept is not None
    assert (handle.kept.seed, handle.kept.replay is not None) == (2, True)
    handle.close()


def test_nobody_waits_for_an_answer_of_what_has_ended(process: EngineProcess):
    handle = process.open(seed=1)
    frames(handle, 12)
    assert eventually(lambda: handle.kept is not None)
    answers: list[object] = []
    with process._lock:  # nothing is heard meanwhile
        handle.save(answers.append)
        handle.prompt("rain", answers.append)
        handle.close()
    assert answers == [None]
    handle.save(answers.append)
    assert answers == [None, None]
    with pytest.raises(ReverieError, match="the session has ended"):
        handle.prompt("rain", answers.append)


def test_nothing_of_a_player_is_left_when_the_session_ends(process: EngineProcess):
    handle = process.open(seed=1)
    picture = frames(handle, 30)[-1].pixels
    assert handle.kept is not None
    assert handle.kept.replay is not None
    things = (picture, handle.kept.frame, handle.kept.replay.log, handle._log)
    remains, gone = [weakref.ref(thing) for thing in things], weakref.ref(handle)
    del picture, things
    handle.close()
    gc.collect()
    assert [thing() is None for thing in remains] == [True] * 4
    del handle
    frames(other := process.open(), 2)  # whatever was under way has passed
    gc.collect()
    assert gone() is None
    other.close()


def test_nothing_of_a_player_is_left_in_the_process_either():
    ours, theirs = Pipe()
    moments, their_moments = Pipe()
    with fake_engine() as engine:
        child = _Child(cast(Any, theirs), cast(Any, their_moments), engine)
        thread = threading.Thread(target=child.run)
        thread.start()
        wanted = dict.fromkeys(("start", "seed", "num_steps", "saved", "replay"))
        ours.send([("open", 1, wanted)])
        assert moments.poll(3)
        remains = weakref.ref(child._sessions[1].handle)
        ours.send([("close", 1, "enough")])
        assert eventually(lambda: not child._sessions)
        time.sleep(0.1)
        gc.collect()
        assert remains() is None
        assert not child._told
        assert not child._unsent
        ours.send([("stop",)])
        thread.join(3)
    assert not thread.is_alive()


def test_actions_that_wait_together_count_like_one_after_another():
    random = np.random.default_rng(0)
    for _ in range(200):
        outbox, apart, together = Outbox(SPACE), ActionMailbox(SPACE), ActionMailbox(SPACE)
        for seq in range(int(random.integers(1, 6))):
            keys = [key for key in SPACE.keys if random.random() < 0.2]
            vector = SPACE.encode(Action(keys, slot=int(random.integers(1, 7))))
            vector[SPACE.camera_columns] = random.normal(0, 1, 2)
            apart.put(vector, seq, 0.5 * seq)
            outbox.act(Act(7, vector.copy(), seq, 0.5 * seq))
        (act,) = outbox.take()
        assert isinstance(act, Act)
        for vector in act.vectors(SPACE):
            together.put(vector, act.seq, act.time_s)
        for _ in range(4):
            expected, found = apart.read(), together.read()
            np.testing.assert_allclose(found.vector, expected.vector, atol=1e-6)
            assert found[1:] == expected[1:]


def test_an_action_never_overtakes_what_was_asked_before_it():
    outbox, vector = Outbox(SPACE), SPACE.encode(Action())
    outbox.act(Act(1, vector, 1, 0.0))
    outbox.act(Act(2, vector, 1, 0.0))
    outbox.put("pause", 1)
    outbox.act(Act(1, vector, 2, 0.0))
    outbox.act(Act(2, vector, 2, 0.0))
    assert len(outbox) == 4
    kinds = [(m.number, m.seq) if isinstance(m, Act) else m for m in outbox.take()]
    assert kinds == [(1, 1), (2, 2), ("pause", 1), (1, 2)]
    outbox.close()
    outbox.put("pause", 1)
    assert outbox.take() == []


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
        frames(handle, 5)
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
