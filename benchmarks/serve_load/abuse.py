"""Normal players beside those who do what they may not: the former do not notice the latter."""

from __future__ import annotations

import math

from benchmarks.serve_load.abusers import NICE, Abuse, abusers
from benchmarks.serve_load.crowd import Chair, crowd
from benchmarks.serve_load.fake_server import fake_command
from benchmarks.serve_load.findings import Outcome, hit_rate, spread, was_dropped
from benchmarks.serve_load.load import HIT_RATE
from benchmarks.serve_load.running import Watch, running

SHUT_OUT = ("action_flood", "command_flood", "picture_flood", "garbage", "broken_frames")
"""Kinds that must not be able to stay."""
WARM_S = 3.0
SLOW_FPS = 7.5
"""More than a slow reader of five frames a second gets, with what was on its way."""


def abuse(duration_s: float = 60.0, num_players: int = 8, each: int = 2) -> Outcome:
    """each: abusers of every kind."""
    outcome = Outcome("abuse")
    chairs = [
        Chair(i, 0.1 * i, WARM_S + duration_s + 2.0, (1e6, 1e6), ("end",))
        for i in range(num_players)
    ]
    device = fake_command(num_slots=num_players + 16 * each, fps=20)
    with running(device, {"engines": [{"standby": False}]}) as server, Watch(server) as watch:
        with crowd(server.ws, chairs) as people:
            with abusers(server.port, duration_s, each) as wait:
                told = wait(duration_s + WARM_S + 20.0)
            story = people.join()
        visits = story.visits
        outcome.note("players", num_players, "players")
        outcome.at_least("hit_rate", hit_rate(visits), HIT_RATE, "their deadline hits", "%")
        worst = min((v.hits / v.due for v in visits if v.due), default=math.nan)
        outcome.note("worst_player", worst, "worst of them", "%")
        outcome.say("gap, median / p95 / most", spread([g for v in visits for g in v.gap_ms], "ms"))
        frames = server.status()["frames"]
        in_time = 1 - frames["num_late"] / max(frames["num_sent"], 1)
        outcome.note("server_in_time", in_time, "frames in time, abusers' too, at the server", "%")
        outcome.say(
            "clients' own lag, p99, most", f"{story.lag_ms[0]:.1f}, {story.lag_ms[1]:.1f} ms"
        )
        dropped = sum(map(was_dropped, visits))
        outcome.at_most("dropped", dropped, 0, "players shown the door")
        lost = sum(visit.num_lost_places for visit in visits)
        outcome.at_most("lost_places", lost, 0, "places they lost")
        _tell_abusers(outcome, told, duration_s, each)
        outcome.must("alive", server.is_alive, "server lives")
        outcome.note("unanswered", watch.num_failures, "times that /api/status did not answer")
        said = server.said()
        outcome.must("no_traceback", "Traceback" not in said, "no traceback in the log", said[-300:]
                     if "Traceback" in said else "")  # fmt: skip
    outcome.say("abusers", f"{each} of each kind, niceness {NICE}")
    return outcome


def _tell_abusers(outcome: Outcome, told: dict[str, Abuse], duration_s: float, each: int) -> None:
    outcome.must("abusers_ended", bool(told), "the abusers' process ended by itself")
    for name, seen in told.items():
        ends = ", ".join(f"{end} x {count}" for end, count in seen.ends.most_common())
        sent = f"; {seen.num_messages} messages" if seen.num_messages else ""
        outcome.say(name.replace("_", " "), f"{seen.tries} tries: {ends}{sent}")
        if name in SHUT_OUT:
            outcome.at_most(f"{name}_stayed", seen.ends["still open"], 0, f"{name}: stayed")
    if "slow_reader" in told:
        fps = told["slow_reader"].num_frames / (duration_s * each)
        outcome.at_most("slow_reader_fps", fps, SLOW_FPS, "slow reader: frames a second")
    outcome.note("abuse", {name: dict(seen.ends) for name, seen in told.items()})
