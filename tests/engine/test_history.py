"""Going back, going on, and playing again: what a session is besides its newest frame."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from reverie.core import Action, Frame, ReverieError
from reverie.engine import Handle, Replay, SavedSession
from reverie.engine.replay import MAX_FRAMES, ActionLog
from reverie.engine.runtime import Batch
from reverie.session import SessionState
from reverie.world import start_from_image
from tests.engine.bench import Bench
from tests.fakes import PROMPTED, SPACE

_, WARMING, PLAYING, PAUSED, IDLE, _, ENDED = SessionState


def encoded(*keys: str, yaw: float = 0.0) -> np.ndarray:
    return SPACE.encode(Action(keys, (yaw, 0)))


def wander(bench: Bench, handle: Handle, seconds: float, seed: int = 0) -> list[Frame]:
    """Play as a person might; returns every frame."""
    random, frames = np.random.default_rng(seed), []
    for seq in range(round(seconds / 0.2)):
        keys = ["forward"] if random.random() < 0.6 else []
        handle.act(encoded(*keys, yaw=float(random.integers(-9, 10))), seq + 1, bench.clock())
        frames += bench.run(0.2, handle)[handle.session_id]
    return frames


def saved_by(bench: Bench, handle: Handle) -> SavedSession:
    answers: list[SavedSession | None] = []
    handle.save(answers.append)
    bench.run(0.2)
    (saved,) = answers
    assert saved is not None
    return saved


def test_a_session_that_nobody_steers_is_drawn_half_as_often_until_somebody_does() -> None:
    bench = Bench()
    handle = bench.play()
    told: list[SessionState] = []
    handle.on_frame(lambda: told.append(handle.state))
    assert len(bench.run(29, handle)[handle.session_id]) == 29 * 20
    handle.act(encoded(), 1, bench.clock())  # says that nothing is held: no steering
    bench.run(2, handle)
    assert handle.state is told[-1] is IDLE
    assert len(bench.run(10, handle)[handle.session_id]) == 100
    assert handle.num_skipped == 0
    handle.act(encoded("forward"), 2, bench.clock())
    assert handle.state is told[-1] is PLAYING
    frames = bench.run(0.5, handle)[handle.session_id]
    assert len(frames) == 10
    assert frames[0].action_seq == 2
    bench.run(100)
    assert handle.state is PLAYING  # a key that is held is a player who is there


def test_idle_sessions_take_turns() -> None:
    bench = Bench(num_slots=4, step_ms=4, commit_ms=1)
    handles = [bench.play() for _ in range(4)]
    bench.run(32)
    assert {h.state for h in handles} == {IDLE}
    assert sorted(h._session.offset for h in handles) == [0, 1, 2, 3]
    bench.run(0.12, *handles)
    frames = bench.run(1, *handles)
    starts = np.array([f.started_s for fs in frames.values() for f in fs])
    in_tick = np.bincount(np.floor((starts - 1000) * 20 + 1e-3).astype(int) % 20)
    assert set(in_tick) == {2}


def test_an_idle_session_pauses_and_goes_on() -> None:
    bench = Bench()
    handle = bench.play()
    bench.run(31, handle)
    handle.pause()
    assert handle.state is PAUSED
    handle.resume()
    assert len(bench.run(1.0, handle)[handle.session_id]) == 20


@pytest.mark.parametrize("is_paused", [False, True])
def test_rewinding_goes_back_to_what_was_seen_then(is_paused: bool) -> None:
    bench = Bench()
    handle = bench.play(seed=3)
    before = {f.frame_index: f for f in wander(bench, handle, 8)}
    if is_paused:
        handle.pause()
    handle.rewind(3.0)
    assert handle.state is WARMING
    seen = bench.run(0.1, handle)[handle.session_id]
    assert (handle.state is PAUSED) == is_paused
    newest = max(before)
    assert newest - 80 <= seen[0].frame_index <= newest - 60
    np.testing.assert_array_equal(seen[0].pixels, before[seen[0].frame_index].pixels)
    handle.resume()
    after = wander(bench, handle, 1, seed=9)
    assert [f.frame_index for f in after] == list(
        range(after[0].frame_index, after[0].frame_index + len(after))
    )
    handle.rewind(1000.0)  # as far as is remembered
    assert bench.run(0.1, handle)[handle.session_id][0].frame_index == 0


def test_no_more_is_remembered_than_ten_seconds() -> None:
    bench = Bench()
    handle = bench.play()
    last = wander(bench, handle, 30)[-1].frame_index
    handle.rewind(1000.0)
    seen = bench.run(0.06, handle)[handle.session_id]
    assert last - 11 * 20 <= seen[0].frame_index <= last - 10 * 20


def test_remembering_makes_nobody_late() -> None:
    bench = Bench(num_slots=2, step_ms=11, commit_ms=10)
    handles = [bench.play()]
    bench.run(0.6)
    handles.append(bench.play())
    bench.run(20)
    assert [h.num_skipped for h in handles] == [0, 0]
    assert all(len(h._moments) == 11 for h in handles)


def test_a_saved_session_goes_on_in_another_engine_bit_for_bit() -> None:
    bench, other = Bench(), Bench()
    handle = bench.play(seed=5, start="start-1")
    wander(bench, handle, 3)
    handle.pause()
    data = saved_by(bench, handle).to_bytes(bench.world)
    handle.resume()
    saved = SavedSession.from_bytes(other.world, data)
    again = other.engine.open(saved=saved)
    assert again.state is WARMING
    first = other.run(0.06, again)[again.session_id][0]
    np.testing.assert_array_equal(first.pixels, saved.frame)
    expected, found = wander(bench, handle, 2, seed=4), wander(other, again, 2, seed=4)
    found = [f for f in found if f.frame_index > first.frame_index][: len(expected)]
    by_index = {f.frame_index: f.pixels for f in expected}
    same = [f for f in found if f.frame_index in by_index]
    assert len(same) > 30
    assert again.seed == 5


def age_s(handle: Handle, frame: Frame, now_s: float, drawn_s: dict[int, float]) -> float:
    """How long ago the first frame was drawn that `kept` does not have."""
    kept = 0 if handle.kept is None else handle.kept.frame_index
    return now_s - drawn_s[kept] if kept <= frame.frame_index else 0.0


@pytest.mark.parametrize(
    ("machine", "limit_s"),
    [
        ({}, 0.6),  # there is time
        ({"step_ms": 25, "commit_ms": 20}, 0.7),
        ({"step_ms": 60, "commit_ms": 20}, 1.0),  # every frame is late
    ],
)
def test_what_is_kept_is_never_more_than_a_second_old(machine: Any, limit_s: float) -> None:
    bench = Bench(num_slots=2, **machine)
    handle = bench.play()
    handle.act(encoded("forward"), 1, bench.clock())
    drawn_s: dict[int, float] = {}
    oldest_s = 0.0
    for _ in range(2000):
        bench.clock.advance(min(bench.engine.tick() or 0.0, 0.05))
        if (frame := handle.take()) is not None:
            drawn_s[frame.frame_index] = frame.finished_s
            oldest_s = max(oldest_s, age_s(handle, frame, bench.clock(), drawn_s))
    assert 0.3 < oldest_s < limit_s
    assert len(handle._moments) == 11
    assert np.diff([moment.frame_index for moment in handle._moments]).max() < 40


def test_nobody_waits_for_a_moment_because_somebody_else_asks_all_the_time() -> None:
    bench = Bench(num_slots=2, step_ms=12, commit_ms=8)
    first = bench.play()
    bench.run(0.6)
    second = bench.play()
    for _ in range(60):
        first.save(lambda saved: None)
        bench.run(0.05)
    for handle in (first, second):
        assert handle.kept is not None
        assert handle._session.frame_index - handle.kept.frame_index <= 20


def test_a_paused_session_is_saved_as_it_was_shown_last() -> None:
    bench = Bench()
    handle = bench.play()
    wander(bench, handle, 1.3)
    original = bench.runtime.step

    def step(batch: Batch) -> np.ndarray:
        handle.pause()  # while a frame is drawn, that is shown all the same
        return original(batch)

    bench.runtime.step = step  # type: ignore[method-assign]
    answers: list[SavedSession | None] = []
    handle.on_frame(lambda: None if answers else handle.save(answers.append))
    shown = bench.run(0.2, handle)[handle.session_id][-1]
    assert handle.state is PAUSED
    saved = answers[-1]
    assert saved is not None
    assert saved.frame_index == shown.frame_index + 1
    np.testing.assert_array_equal(saved.frame, shown.pixels)
    again = bench.engine.open(saved=saved, paused=True)
    frames = bench.run(0.3, again)[again.session_id]
    assert [f.frame_index for f in frames] == [shown.frame_index]
    assert again.state is PAUSED
    assert saved_by(bench, again).snapshot == saved.snapshot


def test_a_session_may_begin_paused() -> None:
    bench = Bench()
    handle = bench.engine.open(paused=True)
    assert bench.run(0.5, handle)[handle.session_id] == []
    assert handle.state is PAUSED
    answers: list[SavedSession | None] = []
    handle.save(answers.append)
    assert answers == [None]
    handle.resume()
    assert bench.run(0.1, handle)[handle.session_id][0].frame_index == 0


def test_what_is_kept_outlives_an_end_that_the_holder_did_not_ask_for() -> None:
    bench = Bench()
    handle = bench.play(seed=2)
    wander(bench, handle, 2)
    handle.rewind(1.0)
    assert handle.kept is not None
    assert handle.kept.frame_index <= 21
    assert handle.kept.replay is not None
    assert len(handle.kept.replay.log) == handle.kept.frame_index
    wander(bench, handle, 1)
    bench.runtime.failing = {0}
    bench.run(0.2)
    assert handle.state is ENDED
    kept, bench.runtime.failing = handle.kept, set()
    assert kept is not None
    again = bench.engine.open(saved=kept)
    assert again.kept is kept
    assert bench.run(0.06, again)[again.session_id][0].frame_index == kept.frame_index - 1
    again.restart()
    assert again.kept is None


def test_what_another_world_saved_is_refused_before_it_takes_a_place() -> None:
    bench, other = Bench(), Bench(space=PROMPTED)
    handle = bench.play()
    bench.run(0.3)
    saved = saved_by(bench, handle)
    wide = SavedSession(1, 1, 1, {}, np.zeros((1, 1, 3), np.uint8), b"")
    for engine, session in ((other.engine, saved), (bench.engine, wide)):
        with pytest.raises(ReverieError):
            engine.open(saved=session)
    assert other.engine.num_active == 0


def test_a_session_that_drew_nothing_has_nothing_to_save() -> None:
    bench = Bench()
    answers: list[SavedSession | None] = []
    handle = bench.engine.open()
    handle.save(answers.append)
    handle.close()
    handle.save(answers.append)
    other = bench.play()
    other.save(answers.append)
    other.close()
    assert answers == [None, None, None]


def drawn(bench: Bench, replay: Replay) -> list[Frame]:
    handle = bench.engine.open(replay=replay)
    return bench.run(len(replay.log) / 20 + 1, handle)[handle.session_id][: len(replay.log)]


def test_a_link_plays_a_session_again_bit_for_bit() -> None:
    bench = Bench()
    handle = bench.play(seed=8, start="start-1", num_steps=2)
    first = wander(bench, handle, 5)
    handle.rewind(2.0)
    bench.run(0.06)
    kept = len(handle._log)
    second = wander(bench, handle, 3, seed=2)
    replay = saved_by(bench, handle).replay
    assert replay is not None
    assert len(replay.to_link()) < 2000
    frames = drawn(Bench(), Replay.from_link(replay.to_link()))
    assert [f.frame_index for f in frames] == list(range(len(replay.log)))
    truth = {f.frame_index: f for f in first if f.frame_index < kept}
    truth |= {f.frame_index: f for f in second}
    assert len(truth) > 100
    for frame in frames:
        if frame.frame_index in truth:
            np.testing.assert_array_equal(frame.pixels, truth[frame.frame_index].pixels)
            assert frame.num_steps == truth[frame.frame_index].num_steps


def test_after_a_replay_the_player_goes_on() -> None:
    bench, log = Bench(), ActionLog()
    log.append(encoded("forward"), 1, count=20)
    about = (bench.world.config.name, bench.world.fingerprint[:16], "fake", "start-0", 1)
    handle = bench.engine.open(replay=Replay(*about, SPACE.width, log))
    bench.run(0.5)
    handle.act(encoded("right", yaw=9), 1, bench.clock())  # not yet
    frames = bench.run(2.0, handle)[handle.session_id]
    np.testing.assert_array_equal(frames[-1].pixels, frames[-9].pixels)
    handle.act(encoded("right"), 2, bench.clock())
    frames = bench.run(0.5, handle)[handle.session_id]
    assert (frames[-1].pixels != frames[0].pixels).any()


def test_replays_that_do_not_fit_are_refused_in_one_line() -> None:
    bench, log = Bench(), ActionLog()
    log.append(encoded(), 3)
    about = (bench.world.config.name, bench.world.fingerprint[:16], "fake", "start-0", 1)
    with pytest.raises(ReverieError, match=r"3\] denoising steps"):
        bench.engine.open(replay=Replay(*about, SPACE.width, log))
    with pytest.raises(ReverieError, match="actions of width 3"):
        bench.engine.open(replay=Replay(*about, 3, ActionLog()))
    with pytest.raises(ReverieError, match="another world"):
        bench.engine.open(replay=Replay("moon", "ab12", "fake", "start-0", 1, SPACE.width))
    with pytest.raises(ReverieError, match="no start 'moon'"):
        bench.engine.open(replay=Replay(*about[:3], "moon", 1, SPACE.width))
    assert bench.engine.num_active == 0


@pytest.mark.parametrize("link", ["", "AAAA", "eJw", "not a link", "é", "A" * 600_000])
def test_what_is_no_link_is_said_in_one_line(link: str) -> None:
    with pytest.raises(ReverieError, match="replay link"):
        Replay.from_link(link)


def test_any_byte_that_changed_is_an_error_or_another_session_never_a_crash() -> None:
    log = ActionLog()
    for i in range(50):
        log.append(encoded("forward", yaw=i % 9), 1 + i % 2)
    link = Replay("fake", "ab", "fake", "start-0", 7, SPACE.width, log).to_link()
    for i in range(0, len(link), 3):
        broken = link[:i] + ("A" if link[i] != "A" else "B") + link[i + 1 :]
        with pytest.raises(ReverieError):
            Replay.from_link(broken)
        with pytest.raises(ReverieError):
            Replay.from_link(link[:i])


def test_a_log_forgets_what_was_taken_back_and_stops_when_it_is_long() -> None:
    log = ActionLog()
    log.append(encoded("forward"), 1, 10)
    log.append(encoded("back"), 2, 5)
    log.truncate(12)
    assert [k for _, k in log] == [1] * 10 + [2] * 2
    log.truncate(4)
    assert len(list(log)) == len(log) == 4
    log.append(encoded(), 1, MAX_FRAMES)
    assert not log.whole
    assert len(log) == 4


def test_nothing_of_a_player_is_left_when_the_session_ends() -> None:
    bench = Bench(space=PROMPTED)
    picture = start_from_image(bench.world.config, np.full((12, 16, 3), 9, np.uint8))
    handle = bench.engine.open(picture)
    news: list[None] = []
    handle.on_frame(lambda: news.append(None))
    bench.run(2.3, handle)
    handle.prompt("rain", lambda done: None)
    handle.act(PROMPTED.encode(Action({"forward"})), 1, bench.clock())
    frame = bench.run(0.05, handle)[handle.session_id][-1]
    saved = saved_by(bench, handle)
    assert handle.kept is not None
    bench.run(0.05)
    remains = [weakref.ref(thing) for thing in (picture.frames, frame.pixels, saved.frame)]
    bench.runtime.calls.clear()  # what the fake remembers for tests
    del picture, frame, saved
    handle.close()
    bench.engine.tick()
    assert handle.kept is handle.take() is None
    gc.collect()
    assert [thing() for thing in remains] == [None, None, None]
    gone = weakref.ref(handle)
    del handle
    gc.collect()
    assert gone() is None


def test_more_steps_go_where_the_picture_changes() -> None:
    bench = Bench(num_slots=2, step_ms=10, commit_ms=1)  # 11 or 21 ms each, of 40
    calm, wild = bench.play(num_steps=2), bench.play(num_steps=2)
    bench.engine._pace._ladder.level = 2  # type: ignore[union-attr]
    calm._session.num_granted = wild._session.num_granted = 1
    frames: dict[str, list[Frame]] = {}
    for seq in range(50):
        calm.act(encoded("forward"), seq + 1, bench.clock())
        wild.act(encoded("forward", yaw=9), seq + 1, bench.clock())
        frames = bench.run(0.05, calm, wild)
    assert calm._session.change < wild._session.change
    assert [frames[h.session_id][-1].num_steps for h in (calm, wild)] == [1, 2]
