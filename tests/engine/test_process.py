"""An engine behind a process plays as one in this process, bit for bit."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from multiprocessing import Pipe
from typing import Any, cast

import numpy as np
import pytest

from reverie.core import Action, ReverieError
from reverie.engine import (
    EngineProcess,
    Replay,
)
from reverie.engine.handle import Prompted
from reverie.engine.mail import Act, Outbox
from reverie.engine.process_child import _Child
from reverie.session import ActionMailbox, FullError, SessionState
from tests.engine.processes import act, eventually, fake_engine, frames, open_when_free, saved
from tests.fakes import PROMPTED, SPACE


@pytest.fixture(scope="module")
def process() -> Iterator[EngineProcess]:
    engine = EngineProcess(partial(fake_engine, space=PROMPTED), "fake")
    engine.start()
    yield engine
    engine.stop()


def test_it_is_the_engine_that_was_asked_for(process: EngineProcess):
    here = fake_engine(space=PROMPTED)
    assert process.world.config == here.world.config
    assert process.kind == here.kind
    assert process.has_room
    assert process.pid not in (None, os.getpid())


def test_a_replay_is_played_bit_for_bit_as_here(process: EngineProcess):
    handle = open_when_free(process, seed=5)
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
    again = open_when_free(process, replay=whole.replay)
    there = {f.frame_index: f for f in frames(again, 12)}
    again.close()
    common = here.keys() & there.keys()
    assert len(common) >= 8
    assert all(np.array_equal(here[i].pixels, there[i].pixels) for i in common)


def test_actions_are_answered_and_times_are_of_one_clock(process: EngineProcess):
    handle = open_when_free(process)
    frames(handle, 1)
    before_s = time.monotonic()
    act(handle, 7, keys={"forward"})
    answer = next(frame for frame in frames(handle, 3) if frame.action_seq == 7)
    assert before_s <= answer.action_time_s <= answer.started_s <= answer.finished_s
    assert answer.finished_s <= time.monotonic()
    assert eventually(lambda: handle.num_frames >= 4 and handle.device_s > 0)
    handle.close()


def test_everything_a_player_can_do_goes_through(process: EngineProcess):
    handle = open_when_free(process, start="start-1", seed=3, paused=True)
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
        opened = []
        for _ in range(4):
            process._num_moves_there = process._num_moves
            opened.append(process.open())
    assert eventually(lambda: opened[3].state is SessionState.ENDED)
    assert (opened[3].refused, opened[3].reason) == (True, "every place is taken")
    assert not process.has_room
    assert not any(handle.refused for handle in opened[:3])
    for handle in opened:
        handle.close()
    assert eventually(lambda: process.status.has_room and process._status.num_active == 0)


def test_what_is_restarted_shows_nothing_of_before(process: EngineProcess):
    handle = open_when_free(process, seed=1)
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
    handle = open_when_free(process, seed=1)
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
    handle = open_when_free(process, seed=1)
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
    frames(other := open_when_free(process), 2)  # whatever was under way has passed
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
