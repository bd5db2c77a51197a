"""The load and fault benchmark in miniature: what it counts, how it plays, what it sees."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import bench_serve
from benchmarks.serve_load.abusers import KINDS, abusers
from benchmarks.serve_load.crowd import Chair, crowd
from benchmarks.serve_load.fake_server import fake_command
from benchmarks.serve_load.findings import Outcome, hit_rate
from benchmarks.serve_load.hands import MAX_FLICK_DEG_S, Hands
from benchmarks.serve_load.load import Course, chairs, slower
from benchmarks.serve_load.player import Player, Visit, frames_due
from benchmarks.serve_load.running import RunningServer, ServerDiedError, engine_figures, running
from reverie import world as worlds

KEYS = ("forward", "back", "left", "right", "jump", "sprint", "break", "use")
ALONE = {"engines": [{"standby": False}], "sessions": {"resume_s": 1.0}}


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """A fake world with two places."""
    with running(fake_command(num_slots=2, fps=20), ALONE) as server:
        yield server


def test_a_late_frame_is_a_miss_and_so_is_all_that_did_not_come_meanwhile() -> None:
    assert frames_due(0.05, 20) == (1, 1)
    assert frames_due(0.075, 20) == (1, 1)
    assert frames_due(0.080, 20) == (1, 0)
    assert frames_due(0.1, 20) == (2, 0)
    assert frames_due(1.0, 20) == (20, 0)


def test_hands_do_the_same_for_the_same_seed_and_what_people_can() -> None:
    def play(seed: int) -> list[tuple[int, float, float]]:
        hands, now_s, seen = Hands(seed, KEYS, 0.0), 0.0, []
        while now_s < 60.0:
            now_s += 0.05
            if now_s >= hands.next_s:
                hands.move(now_s)
            seen.append(hands.read(now_s))
        return seen

    first = play(1)
    assert first == play(1)
    assert first != play(2)
    held = sum(keys != 0 for keys, _, _ in first) / len(first)
    assert 0.3 < held < 0.95
    assert max(abs(yaw) for _, yaw, _ in first) <= MAX_FLICK_DEG_S * 0.05 + 1e-6
    assert max(abs(yaw) for _, yaw, _ in first) > 5.0  # a flick
    assert sum(yaw == 0.0 for _, yaw, _ in first) > 100  # and rest


def test_players_come_stay_and_go_while_others_wait(server: RunningServer) -> None:
    three = [Chair(i, 0.1 * i, 3.0, (0.8, 1.2), query="?steps=4") for i in range(3)]
    with crowd(server.ws, three) as people:
        story = people.join()
    played = [visit for visit in story.visits if visit.num_frames]
    assert len(played) >= 5
    assert hit_rate(played) > 0.8  # other tests share these cores
    assert all(visit.left and not visit.error for visit in played)
    assert any(visit.queued_s > 0.1 for visit in played)
    assert max(second.playing for second in story.seconds.values()) == 2
    due = sum(second.due for second in story.seconds.values())
    assert due == sum(visit.due for visit in story.visits) > 0
    assert all(visit.num_frames == visit.last_index + 1 or visit.num_jumps for visit in played)


def test_a_lost_place_goes_on_being_owed_frames() -> None:
    async def run(server: RunningServer) -> Visit:
        player = Player(server.ws, 0)
        await player.open()
        assert await player.until_playing(5.0)
        (figures,) = engine_figures(await asyncio.to_thread(server.status))
        assert figures["num_active"] == 1
        for child in server.process.children():
            child.kill()  # the engine, and nothing stands by
        assert await player.until_playing(20.0)
        await player.leave("end")
        return player.visit

    with running(fake_command(num_slots=2, fps=20), ALONE) as server:
        visit = asyncio.run(run(server))
    assert visit.num_lost_places >= 1
    assert visit.hits < visit.due - 2


def test_abusers_are_many_and_get_told(server: RunningServer) -> None:
    with abusers(server.port, 1.5) as wait:
        told = wait(30.0)
    assert set(told) == set(KINDS)
    assert all(abuse.tries for abuse in told.values())
    assert told["garbage"].ends or told["bad_http"].ends
    assert server.is_alive


def test_chairs_grow_in_thirds_and_leave_half_of_what_fits() -> None:
    course = Course(step_s=10.0, hold_s=20.0)
    made = chairs(course, capacity=4)
    assert len(made) == 12
    assert [sum(chair.begin_s < s for chair in made) for s in (10, 20, 40)] == [4, 8, 12]
    assert sum(chair.end_s > 40 for chair in made) == 2
    assert len(chairs(Course(sockets=500), capacity=160)) == 500


def test_a_slower_world_is_the_same_otherwise(tiny_path: Path) -> None:
    with slower(str(tiny_path), 10) as path:
        copy = worlds.load(path)
    assert copy.config.fps == 10
    assert copy.config.name == worlds.load(tiny_path).config.name
    assert not path.exists()


def test_what_is_not_met_is_said() -> None:
    outcome = Outcome("some")
    outcome.at_least("rate", 0.5, 0.99, "hits", "%")
    outcome.at_most("time", 1.0, 2.0, "freed", "s")
    outcome.at_most("unknown", float("nan"), 2.0, "never measured", "s")
    assert outcome.failed == ["rate", "unknown"]
    assert outcome.figures == {"rate": 0.5, "time": 1.0, "unknown": None}
    assert outcome.rows[0] == ("some", "hits", "50.00%", ">= 99.00%", "NO")
    left = Outcome("other", left_out="it needs root")
    options = bench_serve.parse_options(["--scenario", "churn", "--quick"])
    report = bench_serve.make_report(options, [outcome, left], 0.25)
    assert not report.figures["met"]
    assert "other was left out: it needs root." in report.notes
    assert "Infinity" not in report.to_json()
    assert "NaN" not in report.to_json()


def test_a_scenario_that_breaks_down_is_not_met(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(options: object) -> Outcome:
        raise RuntimeError("the crowd died")

    monkeypatch.setitem(bench_serve.SCENARIOS, "churn", (broken, broken))
    outcome = bench_serve.run("churn", bench_serve.parse_options(["--scenario", "churn"]))
    assert outcome.failed == ["ran"]
    assert "the crowd died" in outcome.rows[0][2]


def test_an_unknown_scenario_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench_serve.parse_options(["--scenario", "ramp,rampp"])
    assert "no scenario 'rampp'" in capsys.readouterr().err


def test_a_server_that_does_not_come_up_is_an_error_and_leaves_nothing() -> None:
    with (
        pytest.raises(ServerDiedError, match="no such thing"),
        running([sys.executable, "-c", "raise SystemExit('no such thing')"]),
    ):
        pass
