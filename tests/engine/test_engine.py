from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from reverie.core import Action, Frame, ReverieError
from reverie.engine import Engine, Handle
from reverie.session import FullError, SessionState
from tests.engine.bench import Bench
from tests.fakes import (
    SPACE,
    FakeRuntime,
    fake_move,
    fake_picture,
    fake_world,
)

_, WARMING, PLAYING, PAUSED, IDLE, _, ENDED = SessionState


@pytest.fixture
def bench() -> Bench:
    return Bench()


def encoded(*keys: str, yaw: float = 0.0) -> np.ndarray:
    return SPACE.encode(Action(keys, (yaw, 0)))


def test_a_session_warms_then_plays_exactly_the_frames_per_second(bench: Bench) -> None:
    handle = bench.engine.open(seed=7)
    assert handle.state is WARMING
    bench.run(0.1)
    assert handle.state is PLAYING
    frames = bench.run(10.0, handle)[handle.session_id]
    assert len(frames) == 200
    starts = np.array([frame.started_s for frame in frames])
    assert np.abs(np.diff(starts) - 0.05).max() < 2e-3
    assert [f.frame_index for f in frames] == list(
        range(frames[0].frame_index, frames[0].frame_index + 200)
    )
    assert handle.num_skipped == 0


def test_ticks_do_not_drift(bench: Bench) -> None:
    handle = bench.play()
    handle.act(encoded("forward"), 1, 0.0)  # somebody is there
    frames = bench.run(1000.0, handle)[handle.session_id]
    assert len(frames) == 20_000
    assert frames[-1].started_s - frames[0].started_s == pytest.approx(19_999 / 20, abs=1e-4)


def test_pictures_answer_the_actions(bench: Bench) -> None:
    handle = bench.play(seed=3, start="start-1")
    place = np.array([3, 0, 50])
    bench.run(0.12, handle)
    for seq, action in enumerate([encoded("forward"), encoded("right", yaw=-4), encoded()], 1):
        handle.act(action, seq, bench.clock())
        sent_s = bench.clock()
        (frame,) = bench.run(0.05, handle)[handle.session_id]
        place = place + fake_move(action)
        np.testing.assert_array_equal(frame.pixels, fake_picture(bench.world.config, place))
        assert frame.action_seq == seq
        assert frame.action_time_s == sent_s
        assert sent_s <= frame.started_s < frame.finished_s


def test_the_action_is_read_at_the_last_moment() -> None:
    """What arrives while another session is drawn still counts for the next one."""
    bench = Bench(num_slots=2)
    first, second = bench.play(), bench.play()
    bench.run(0.1, first, second)
    original = bench.runtime.step

    def step(batch: object) -> np.ndarray:
        pictures = original(batch)  # type: ignore[arg-type]
        second.act(encoded("jump"), 9, bench.clock())
        bench.runtime.step = original
        return pictures

    bench.runtime.step = step
    frames = bench.run(0.05, first, second)
    assert frames[second.session_id][0].action_seq == 9


def test_commits_happen_after_the_pictures_are_published(bench: Bench) -> None:
    first, second = bench.play(), bench.play()
    bench.run(0.12, first, second)  # the middle of a period
    bench.runtime.calls.clear()
    seen: list[list[str]] = []
    for handle in (first, second):
        handle.on_frame(lambda: seen.append([name for name, _ in bench.runtime.calls]))
    bench.run(0.05)
    assert seen == [["step"], ["step", "step"]]
    assert [name for name, _ in bench.runtime.calls] == ["step", "step", "commit", "commit"]


def test_frames_wait_in_a_mailbox_of_one(bench: Bench) -> None:
    handle = bench.play()
    bench.run(1.0)
    frame = handle.take()
    assert frame is not None
    assert frame.frame_index in (19, 20)
    assert handle.take() is None


def test_sessions_do_not_disturb_each_other(bench: Bench) -> None:
    alone = Bench()
    one = alone.play(seed=11)
    one.act(encoded("forward", yaw=2), 1, 0.0)
    expected = [f.pixels for f in alone.run(1.0, one)[one.session_id]]
    first = bench.play(seed=11)
    first.act(encoded("forward", yaw=2), 1, 0.0)
    second = bench.engine.open(seed=12)
    second.act(encoded("back", yaw=-9), 1, 0.0)
    pictures = [f.pixels for f in bench.run(1.0, first, second)[first.session_id]]
    np.testing.assert_array_equal(pictures, expected)


def test_warming_a_player_makes_nobody_late() -> None:
    bench = Bench(num_slots=3, step_ms=8, commit_ms=4, prefill_ms=11)
    first = bench.play()
    bench.run(0.5, first)
    second = bench.engine.open(start="start-1")  # where nobody began so far
    frames = bench.run(1.0, first)[first.session_id]
    assert second.state is PLAYING
    assert first.num_skipped == 0
    lateness = [(f.finished_s - 1000.0) % 0.05 for f in frames if f.frame_index < 20]
    assert max(lateness) < 0.009


def test_a_start_is_prefilled_for_the_first_who_begins_there(bench: Bench) -> None:
    def num_prefills() -> int:
        return sum(call[0] == "prefill" for call in bench.runtime.calls)

    first = bench.play(seed=1)
    assert num_prefills() == bench.world.config.context
    second = bench.play(seed=1)
    assert num_prefills() == bench.world.config.context
    frames = bench.run(1.0, first, second)
    ours, theirs = ({f.frame_index: f.pixels for f in fs} for fs in frames.values())
    assert len(ours.keys() & theirs.keys()) > 15
    for i in ours.keys() & theirs.keys():
        np.testing.assert_array_equal(ours[i], theirs[i])
    first.restart(seed=2)
    bench.run(0.1)
    assert num_prefills() == bench.world.config.context
    second.close()
    clip = replace(bench.world.starts[0])  # somebody's own, of the same name
    bench.play(start=clip)
    assert num_prefills() == 2 * bench.world.config.context
    first.close()
    bench.play(start=clip)
    assert num_prefills() == 3 * bench.world.config.context  # nothing of a player stays


def test_on_a_full_machine_a_start_that_is_remembered_waits_for_nothing() -> None:
    bench = Bench(num_slots=2, step_ms=12, commit_ms=8, prefill_ms=20)
    first = bench.play()
    bench.run(0.6)
    second = bench.engine.open()
    bench.run(0.06, first)
    assert second.state is PLAYING
    bench.run(1.0, first)
    assert first.num_skipped == second.num_skipped == 0


def test_beyond_capacity_there_is_no_place_until_somebody_leaves(bench: Bench) -> None:
    first, _ = bench.engine.open(), bench.engine.open()
    assert not bench.engine.has_room
    with pytest.raises(FullError, match="every place is taken"):
        bench.engine.open()
    first.close()
    assert bench.engine.has_room
    assert bench.engine.open().state is WARMING


def test_the_costs_decide_how_many_play() -> None:
    bench = Bench(num_slots=4, step_ms=12, commit_ms=8)  # 20 ms a frame, 50 ms a tick
    handles = [bench.play()]
    with pytest.raises(FullError, match="every place is taken"):
        bench.engine.open()  # until it was seen what one does to the machine
    bench.run(0.6)
    handles.append(bench.engine.open())
    assert bench.engine.capacity == 2
    assert not bench.engine.has_room
    bench.run(1.0)
    assert [h.state for h in handles] == [PLAYING] * 2
    assert sum(h.num_skipped for h in handles) == 0


def test_whoever_starts_again_is_served_on_a_machine_that_became_slow() -> None:
    bench = Bench(num_slots=3, step_ms=11, commit_ms=2)
    handles = [bench.play()]
    for _ in range(2):
        bench.run(0.6)
        handles.append(bench.play())
    bench.runtime._step_ms = 40.0  # two sessions alone are due all the time
    bench.run(0.5)
    handles[2].restart()
    bench.run(3.0)
    assert handles[2].state is PLAYING


def test_a_slowdown_fades_while_nobody_plays_and_lets_the_next_in(bench: Bench) -> None:
    first = bench.play()
    bench.runtime._step_ms = 60.0
    bench.run(10.0)
    first.pause()
    bench.run(0.1)
    assert (bench.engine.capacity, bench.engine.has_room) == (1, False)
    bench.clock.advance(60.0)
    bench.engine.tick()
    assert bench.engine.has_room


def test_under_load_fewer_steps_before_a_late_frame() -> None:
    bench = Bench(num_slots=2, step_ms=8, commit_ms=2)
    first = bench.play(num_steps=4)
    assert {f.num_steps for f in bench.run(0.5, first)[first.session_id]} == {4}
    second = bench.play(num_steps=4)
    bench.run(0.1)
    frames = bench.run(1.0, first, second)
    assert {f.num_steps for fs in frames.values() for f in fs} == {2}
    second.close()
    assert {f.num_steps for f in bench.run(0.7, first)[first.session_id]} == {2}
    bench.run(1.5)
    assert {f.num_steps for f in bench.run(0.5, first)[first.session_id]} == {4}
    assert first.num_skipped == 0


def test_a_stall_is_skipped_over_not_caught_up_with(bench: Bench) -> None:
    handle = bench.play()
    bench.run(0.5, handle)
    bench.clock.advance(3.0)
    frames = bench.run(1.0, handle)[handle.session_id]
    gaps = np.diff([f.started_s for f in frames])
    assert gaps.min() > 0.024
    assert 19 <= len(frames) <= 21
    assert 58 <= handle.num_skipped <= 60
    indices = [f.frame_index for f in frames]
    assert indices == list(range(indices[0], indices[0] + len(indices)))


def test_pause_stands_still_and_lets_go_of_keys(bench: Bench) -> None:
    handle = bench.play()
    handle.act(encoded("forward"), 1, 0.0)
    bench.run(0.2, handle)
    handle.pause()
    assert handle.state is PAUSED
    handle.take()
    handle.act(encoded("back", yaw=90), 2, 0.0)
    assert bench.run(1.0, handle)[handle.session_id] == []
    handle.resume()
    handle.resume()
    frames = bench.run(0.5, handle)[handle.session_id]
    assert len(frames) == 10
    np.testing.assert_array_equal(frames[0].pixels, frames[-1].pixels)
    assert handle.num_skipped == 0


def test_pausing_while_it_warms_takes_effect_later(bench: Bench) -> None:
    handle = bench.engine.open()
    handle.pause()
    bench.run(0.5)
    assert handle.state is PAUSED
    handle.resume()
    assert len(bench.run(0.5, handle)[handle.session_id]) in (9, 10)


def test_restart_begins_again_from_another_start(bench: Bench) -> None:
    handle = bench.play(seed=1)
    handle.act(encoded("forward"), 1, 0.0)
    bench.run(0.5)  # nobody takes the frames
    handle.restart("start-1", seed=2)
    assert handle.state is WARMING
    assert handle.take() is None
    frames = bench.run(0.5, handle)[handle.session_id]
    assert frames[0].frame_index == 0
    expected = fake_picture(bench.world.config, np.array([2, 0, 50]))
    np.testing.assert_array_equal(frames[0].pixels, expected)
    handle.restart()
    frames = bench.run(0.5, handle)[handle.session_id]
    assert handle.seed != 2
    expected = fake_picture(bench.world.config, np.array([handle.seed % 97, 0, 50]))
    np.testing.assert_array_equal(frames[0].pixels, expected)


@pytest.mark.parametrize("when", ["prefill", "step"])
def test_restart_in_the_middle_of_the_work_of_the_old_run(bench: Bench, when: str) -> None:
    """The engine's thread finishes what it was doing; nothing of that may reach the new run."""
    handle = bench.play(seed=1) if when == "step" else bench.engine.open(seed=1)
    original = getattr(bench.runtime, when)

    def interrupted(*arguments: object, **named: object) -> object:
        result = original(*arguments, **named)
        setattr(bench.runtime, when, original)
        handle.restart("start-1", seed=2)
        return result

    setattr(bench.runtime, when, interrupted)
    frames = bench.run(0.5, handle)[handle.session_id]
    assert [f.frame_index for f in frames] == list(range(len(frames)))
    expected = fake_picture(bench.world.config, np.array([2, 0, 50]))
    np.testing.assert_array_equal(frames[0].pixels, expected)
    prefills = [call for call in bench.runtime.calls if call[0] == "prefill"]
    assert len(prefills) == bench.world.config.context + (1 if when == "prefill" else 3)


def test_a_slot_that_changes_hands_in_the_middle_of_a_step(bench: Bench) -> None:
    first, _second = bench.play(seed=1), bench.play(seed=5)
    third: list[Handle] = []
    original = bench.runtime.step

    def interrupted(batch: object) -> np.ndarray:
        pictures = original(batch)  # type: ignore[arg-type]
        bench.runtime.step = original
        first.close()
        third.append(bench.engine.open(seed=2, start="start-1"))
        return pictures

    bench.runtime.step = interrupted
    assert bench.run(0.06, first)[first.session_id] == []
    frames = bench.run(0.5, *third)
    expected = fake_picture(bench.world.config, np.array([2, 0, 50]))
    np.testing.assert_array_equal(frames[third[0].session_id][0].pixels, expected)


def test_a_step_that_fails_ends_its_sessions_and_nobody_else(bench: Bench) -> None:
    first, second = bench.play(), bench.play()
    bench.runtime.failing = {0}
    frames = bench.run(0.3, second)[second.session_id]
    assert first.state is ENDED
    assert first.reason == "drawing a frame failed: slot 0 burst"
    assert len(frames) >= 5
    again = bench.engine.open("start-1")  # it gets the broken slot
    bench.run(0.1)
    assert again.state is ENDED
    assert again.reason.startswith("preparing the start failed")
    bench.runtime.failing = set()
    bench.play().close()


def test_a_callback_that_fails_stops_nobody(bench: Bench) -> None:
    handle = bench.play()
    seen: list[int] = []

    def burst() -> None:
        raise RuntimeError("the socket is gone")

    handle.on_frame(burst)
    handle.on_frame(lambda: seen.append(1))
    bench.run(0.3)
    assert handle.state is PLAYING
    assert len(seen) >= 5


def test_closing_twice_and_acting_after_the_end_do_nothing(bench: Bench) -> None:
    handle = bench.play()
    handle.close()
    handle.close()
    handle.act(encoded("jump"), 1, 0.0)
    handle.pause()
    handle.resume()
    handle.restart()
    assert handle.state is ENDED
    assert handle.reason == "closed"
    assert bench.engine.tick() is None
    assert bench.engine.num_active == 0


def test_what_cannot_be_opened_is_refused_in_one_line(bench: Bench) -> None:
    with pytest.raises(ReverieError, match="no start 'moon'; choose one of: start-0, start-1"):
        bench.engine.open("moon")
    with pytest.raises(ReverieError, match=r"3 denoising steps; .* trained for \[1, 2, 4\]"):
        bench.engine.open(num_steps=3)
    with pytest.raises(ReverieError, match="seed is -1"):
        bench.engine.open(seed=-1)
    handle = bench.play()
    with pytest.raises(ReverieError, match="8 denoising steps"):
        handle.set_steps(8)
    with pytest.raises(ReverieError, match="no start"):
        handle.restart("moon")
    assert handle.state is PLAYING
    handle.set_steps(2)
    bench.run(0.06)
    assert bench.run(0.2, handle)[handle.session_id][-1].num_steps == 2


# On a real thread with a real clock, briefly.


@pytest.fixture
def running() -> Iterator[Engine]:
    world = fake_world()
    with Engine(world, FakeRuntime(world)) as engine:
        yield engine


def wait_for(handle: Handle, event: threading.Event) -> Frame:
    assert event.wait(5)
    event.clear()
    frame = handle.take()
    assert frame is not None
    return frame


def test_a_thread_plays_in_real_time(running: Engine) -> None:
    handle = running.open(seed=1)
    event = threading.Event()
    handle.on_frame(lambda: event.set() if handle.state is PLAYING and handle._frame else None)
    frames = [wait_for(handle, event) for _ in range(11)]
    took_s = frames[-1].started_s - frames[0].started_s
    missed = frames[-1].frame_index - frames[0].frame_index - 10
    assert took_s == pytest.approx((10 + missed) / 20, abs=0.04)


def test_stopping_ends_the_thread_and_every_session(running: Engine) -> None:
    handles = [running.open() for _ in range(2)]
    running.stop()
    running.stop()
    assert {h.state for h in handles} == {ENDED}
    assert {h.reason for h in handles} == {"the engine stopped"}
    assert not [t for t in threading.enumerate() if t.name == "engine"]
    with pytest.raises(ReverieError, match="the engine has stopped"):
        running.open()


def test_a_bug_in_the_engine_ends_sessions_but_not_the_thread(running: Engine) -> None:
    def burst(handles: object) -> None:
        pace.tasks = original  # type: ignore[union-attr]
        raise RuntimeError("a bug")

    handle = running.open()
    pace = running._pace
    assert pace is not None
    original, pace.tasks = pace.tasks, burst  # type: ignore[method-assign]
    deadline_s = time.monotonic() + 5
    while handle.state is not ENDED and time.monotonic() < deadline_s:
        time.sleep(0.005)
    assert handle.reason == "the engine failed: a bug"
    again = running.open()
    while again.state is not PLAYING and time.monotonic() < deadline_s:
        time.sleep(0.005)
    assert again.state is PLAYING


def test_whoever_was_admitted_before_needs_a_slot_only() -> None:
    bench = Bench(num_slots=2, step_ms=30, commit_ms=5)  # room for one
    bench.engine.open()
    with pytest.raises(FullError):
        bench.engine.open()
    bench.engine.open(admitted=True)
    with pytest.raises(FullError):
        bench.engine.open(admitted=True)
