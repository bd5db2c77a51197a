"""Load: up to three times as many players as are admitted, then fewer again.

The crowd grows in three steps to three times what the server says it can have (or to as many
sockets as asked for), stays, and shrinks to half of what fits. People come and go all the time, so
those who wait get in. What admitted players see must not depend on how many wait.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.serve_load.crowd import Chair, Story, crowd
from benchmarks.serve_load.fake_server import fake_command
from benchmarks.serve_load.findings import Outcome, hit_rate, percentile, show, spread, was_dropped
from benchmarks.serve_load.player import Visit
from benchmarks.serve_load.running import (
    Memory,
    Sample,
    Watch,
    engine_figures,
    running,
    serve_command,
    wait_for_standby,
)
from reverie import world as worlds
from reverie.bench.measure import EnergyMeter

HIT_RATE = 0.99
KEPT_S = 5.0
"""Lost sessions are kept so long here, so that memory can be looked at soon after."""
BEST = "?steps=4"
"""What players ask for: as many passes as the world knows, so that the ladder has work to do."""
RELAY = 0.6
"""Part of a step in which its newcomers arrive."""


@dataclass(frozen=True, slots=True)
class Course:
    """How a load goes. step_s: each of the three steps, and the time after the crowd has shrunk;
    hold_s: at the most. stay_s: how long people stay. sockets: at the most; three times the
    capacity if 0. price: of an hour of the device, dollars.
    """

    step_s: float = 20.0
    hold_s: float = 60.0
    stay_s: tuple[float, float] = (15.0, 40.0)
    sockets: int = 0
    price: float = 1.0

    @property
    def steps(self) -> list[tuple[str, float, float]]:
        """Name, begin and end of each part."""
        step, full = self.step_s, 2 * self.step_s
        return [
            ("1x", 0.0, step),
            ("2x", step, full),
            ("3x", full, full + self.hold_s),
            ("1/2x", full + self.hold_s, full + self.hold_s + step),
        ]


def chairs(course: Course, capacity: int, seed: int = 0) -> list[Chair]:
    """One for every player that there is at the most."""
    most = course.sockets or 3 * capacity
    third = math.ceil(most / 3)
    (_, _, _), (_, second_s, _), (_, third_s, full_s), (_, _, end_s) = course.steps
    begins = [0.0, second_s, third_s]
    made = []
    for i in range(most):
        spread_s = RELAY * course.step_s * (i % third) / third
        stays = i < max(capacity // 2, 1)
        made.append(
            Chair(
                seed + i,
                begins[min(i // third, 2)] + spread_s,
                end_s if stays else full_s,
                course.stay_s,
                query=BEST,
            )
        )
    return made


def ramp(course: Course, world: str = "meadow") -> Outcome:
    """The real world, as it ships."""
    command, settings = serve_command(world)
    return _load("ramp", course, command, settings)


def small(course: Course, world: str = "meadow") -> Outcome:
    """The same world at 10 frames a second."""
    with slower(world, 10) as path:
        command, settings = serve_command(path)
        return _load("small", course, command, settings)


def fake500(course: Course, **device: Any) -> Outcome:
    """500 sockets around a device of 1 ms steps; a third of them are admitted."""
    wanted = {"fps": 10, "step_ms": 1.0, "batch": 8, **device}
    return _load("fake500", course, fake_command(**wanted), {"engines": [{"standby": False}]})


@contextlib.contextmanager
def slower(world: str, fps: int) -> Iterator[Path]:
    """A copy of a world with another frame rate."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "world"
        shutil.copytree(worlds.find(world), path)
        file = path / "config.json"
        config = json.loads(file.read_text())
        file.write_text(json.dumps({**config, "fps": fps}))
        yield path


def _load(name: str, course: Course, command: Sequence[str], settings: dict[str, Any]) -> Outcome:
    outcome = Outcome(name)
    settings = {**settings, "sessions": {"resume_s": KEPT_S}, "price_per_hour": course.price}
    meter = EnergyMeter()
    with running(command, settings) as server, Watch(server) as watch:
        if settings["engines"][0].get("standby", True):
            wait_for_standby(server)  # loading it takes the cores for half a minute
        capacity = capacity_of(server.status())
        before, joules = server.memory(), meter.joules()
        with crowd(server.ws, chairs(course, capacity)) as people:
            story = people.join()
        used = None if joules is None else (meter.joules() or 0.0) - joules
        time.sleep(KEPT_S + 1.0)
        after = server.memory()
        status = server.status()
        _tell_steps(outcome, course, story, watch)
        _tell_players(outcome, course, story, capacity)
        _tell_server(outcome, watch.samples, (before, after), status)
        _tell_cost(outcome, course, story, used, meter.source)
        outcome.must(
            "alive", server.is_alive and not watch.num_failures, "server answers all along"
        )
    return outcome


def capacity_of(status: dict[str, Any]) -> int:
    """Sessions that all engines can have now."""
    return sum(engine["capacity"] for engine in engine_figures(status))


def _tell_steps(outcome: Outcome, course: Course, story: Story, watch: Watch) -> None:
    """The ladder and the hit rate, step by step."""
    parts = []
    for name, begin_s, end_s in course.steps:
        seconds = story.between(begin_s, end_s)
        due, hits = sum(s.due for s in seconds), sum(s.hits for s in seconds)
        frames = sum((s.steps for s in seconds), Counter[int]())
        samples = watch.between(story.began_s + begin_s, story.began_s + end_s)
        engines = [engine for sample in samples for engine in engine_figures(sample.status)]
        levels = [engine["level"] for engine in engines]
        playing = [second.playing for second in seconds]
        queued = [second.queued for second in seconds]
        steps = {k: round(n / frames.total(), 3) for k, n in sorted(frames.items())}
        part = {
            "step": name,
            "playing": _mean(playing),
            "queued": _mean(queued),
            "level": (min(levels, default=0), max(levels, default=0)),
            "load": round(max((engine["load"] for engine in engines), default=0.0), 2),
            "slowdown": _mean([engine["slowdown"] for engine in engines]),
            "steps": steps,
            "hit_rate": round(hits / due, 4) if due else None,
        }
        parts.append(part)
        passes = ", ".join(f"{share:.0%} with {k}" for k, share in steps.items())
        outcome.say(
            f"{name} (seconds {begin_s:g} to {end_s:g})",
            f"{part['playing']:g} play, {part['queued']:g} wait; ladder "
            f"{min(levels, default=0)} to {max(levels, default=0)}; {passes or '-'} passes; "
            f"{show(part['hit_rate'], '%')} of {due} in time",
        )
    outcome.note("steps", parts)


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 2) if values else 0.0


def _tell_players(outcome: Outcome, course: Course, story: Story, capacity: int) -> None:
    visits = story.visits
    admitted = [visit for visit in visits if visit.num_frames]
    outcome.note("capacity", capacity, "admitted by the cost table", "sessions")
    outcome.note("sockets", course.sockets or 3 * capacity, "sockets at most")
    outcome.note("visits", len(visits), "visits, one after the other")
    full = story.between(course.steps[2][1], course.steps[2][2])
    due = sum(second.due for second in full)
    rate = sum(second.hits for second in full) / due if due else math.nan
    outcome.at_least("hit_rate_at_3x", rate, HIT_RATE, "deadline hits of admitted at 3x", "%")
    outcome.at_least("hit_rate", hit_rate(admitted), HIT_RATE, "the same, all the time", "%")
    rates = [visit.hits / visit.due for visit in admitted if visit.due >= 40]
    outcome.note("worst_session", min(rates, default=math.nan), "worst session", "%")
    gaps = [gap for visit in admitted for gap in visit.gap_ms]
    outcome.note("gap_p99_ms", round(percentile(gaps, 0.99), 1))
    outcome.say("gap between frames, median / p95 / most", spread(gaps, "ms"))
    keys = [ms for visit in admitted for ms in visit.key_ms]
    outcome.note("key_to_frame_p50_ms", round(percentile(keys, 0.5), 1))
    outcome.note("key_to_frame_p95_ms", round(percentile(keys, 0.95), 1))
    outcome.say("key to frame at the client", spread(keys, "ms"))
    _tell_waits(outcome, visits)
    dropped = [visit for visit in visits if was_dropped(visit)]
    why = sorted({visit.error for visit in dropped})
    outcome.at_most("dropped", len(dropped), 0, f"players shown the door {why or ''}".strip())
    lost = sum(visit.num_lost_places for visit in visits)
    outcome.at_most("lost_places", lost, 0, "places lost while playing")
    outcome.note("client_lag_p99_ms", round(story.lag_ms[0], 1))
    share = story.cpu_s / story.duration_s
    p99, most = story.lag_ms
    outcome.say(
        "clients' own process: cores, lag p99, most", f"{share:.2f}, {p99:.1f} ms, {most:.1f} ms"
    )


def _tell_waits(outcome: Outcome, visits: Sequence[Visit]) -> None:
    waits = [visit.queued_s for visit in visits if visit.queued_s and visit.placed_s]
    outcome.note("waits_s", [round(percentile(waits, share), 2) for share in (0.5, 0.95, 1.0)])
    outcome.say(f"wait of the {len(waits)} who queued", spread(waits, "s"))
    first = [v.first_frame_s - v.placed_s for v in visits if v.num_frames and v.placed_s]
    outcome.note("first_frame_p95_s", round(percentile(first, 0.95), 3))
    outcome.say("from a place to the first frame", spread(first, "s"))
    refused = [v for v in visits if not v.num_frames and not v.left]
    outcome.note("refused", len(refused), "refused before a frame")


def _tell_server(
    outcome: Outcome,
    samples: Sequence[Sample],
    memory: tuple[Memory, Memory],
    status: dict[str, Any],
) -> None:
    frames = status["frames"]
    in_time = 1 - frames["num_late"] / max(frames["num_sent"], 1)
    outcome.note("server_in_time", in_time, "gaps in time, as the server counts them", "%")
    drawn = sum(engine["num_frames"] for engine in engine_figures(status))
    late = sum(engine["num_late"] for engine in engine_figures(status))
    outcome.note("engine_in_time", 1 - late / max(drawn, 1), "drawn before their deadline", "%")
    before, after = memory
    peak = max((s.memory.server + s.memory.engines for s in samples), default=math.nan)
    outcome.note("memory_mb", [round(m.server + m.engines, 1) for m in memory])
    outcome.note("memory_peak_mb", round(peak, 1))
    outcome.say(
        "memory before, at most, after",
        f"{before.server + before.engines:.0f}, {peak:.0f}, {after.server + after.engines:.0f} MB "
        f"(server {before.server:.0f} to {after.server:.0f})",
    )


def _tell_cost(
    outcome: Outcome, course: Course, story: Story, joules: float | None, source: str
) -> None:
    full = story.between(course.steps[2][1], course.steps[2][2])
    playing = _mean([second.playing for second in full])
    outcome.note("playing_at_3x", playing, "playing at 3x, mean")
    price = course.price / playing if playing else math.nan
    outcome.note("dollars_per_session_hour", round(price, 4))
    outcome.say(f"$ per session-hour at ${course.price:g} an hour", f"{price:.4f}")
    frames = sum(visit.num_frames for visit in story.visits)
    each = None if joules is None or not frames else joules / frames
    outcome.note("joules_per_frame", each)
    outcome.say("J/frame, the whole machine", f"{each:.3f} ({source})" if each else "no meter here")
