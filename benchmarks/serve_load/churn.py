"""A thousand sessions, one after the other and some at once, that leave in every way there is.

Afterwards nothing of them is left: no place taken, nobody in the queue, and the memory of both
processes is where it was after a warm-up of a tenth as many.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.serve_load.crowd import Chair, Story, crowd
from benchmarks.serve_load.fake_server import fake_command
from benchmarks.serve_load.findings import Outcome, hit_rate
from benchmarks.serve_load.running import Memory, RunningServer, engine_figures, running

KEPT_S = 2.0
"""Sessions of lost connections are kept so long here."""
SETTLE_S = 15.0
"""Until everything of the last ones is gone: sockets that nobody reads are found by their pings."""
GROWTH_MB = 8.0
"""What the allocator of either process may keep without anybody having a leak."""
WAYS = ("close", "end", "abort", "deaf")


def churn(num_sessions: int = 1000, at_once: int = 12, num_slots: int = 8) -> Outcome:
    """num_slots: fewer than come at once, so that some leave while they wait."""
    outcome = Outcome("churn")
    settings = {"sessions": {"resume_s": KEPT_S}, "engines": [{"standby": False}]}
    with running(fake_command(num_slots=num_slots, fps=20), settings) as server:
        _visit(server, num_sessions // 10, at_once, seed=1)
        _settle(server)
        before = server.memory()
        story = _visit(server, num_sessions, at_once, seed=2)
        left = _settle(server)
        after = server.memory()
        outcome.note("sessions", len(story.visits), "sessions")
        played = [visit for visit in story.visits if visit.num_frames]
        outcome.note("played", len(played), "of them played")
        outcome.note("hit_rate", hit_rate(played), "deadline hits", "%")
        errors = sorted({visit.error for visit in story.visits if visit.error})
        outcome.must(
            "no_errors", not errors, "nobody was told of an error", "; ".join(errors)[:200]
        )
        outcome.at_most("places_left", left["active"], 0, "places still taken after the last left")
        outcome.at_most("sessions_left", left["sessions"], 0, "sessions still known")
        _tell_memory(outcome, before, after)
    return outcome


def _tell_memory(outcome: Outcome, before: Memory, after: Memory) -> None:
    for name in ("server", "engines"):
        grown = getattr(after, name) - getattr(before, name)
        figure = f"memory of the {name}, grown from {getattr(before, name):.0f} MB"
        outcome.at_most(f"{name}_grown_mb", grown, GROWTH_MB, figure, "MB")


def _visit(server: RunningServer, num_sessions: int, at_once: int, seed: int) -> Story:
    """All of them; every third chair is of people who do not wait long."""
    each = -(-num_sessions // at_once)
    chairs = [
        Chair(
            1000 * seed + i,
            begin_s=0.05 * i,
            end_s=10.0 + 3.0 * each,
            stay_s=(0.0, 0.8),
            ways=WAYS,
            visits=each,
            patience_s=0.15 if i % 3 == 0 else 5.0,
        )
        for i in range(at_once)
    ]
    with crowd(server.ws, chairs) as people:
        return people.join()


def _settle(server: RunningServer) -> dict[str, int]:
    """What is left when nothing is expected to be."""
    end_s = time.monotonic() + SETTLE_S + KEPT_S
    while True:
        left = _count(server.status())
        if not any(left.values()) or time.monotonic() > end_s:
            return left
        time.sleep(0.5)


def _count(status: dict[str, Any]) -> dict[str, int]:
    active = sum(engine["num_active"] for engine in engine_figures(status))
    return {"active": active, "sessions": sum(status["sessions"].values())}
