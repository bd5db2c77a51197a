"""A machine whose clock jumps, and one whose disks are full: players notice neither."""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.serve_load.crowd import Chair, Story, crowd
from benchmarks.serve_load.fake_server import fake_command
from benchmarks.serve_load.findings import Outcome, hit_rate, spread, was_dropped
from benchmarks.serve_load.load import HIT_RATE
from benchmarks.serve_load.running import RunningServer, running

SHIM = Path(__file__).with_name("wall_clock.c")
JUMPS = ("+3600", "-3600", "+0")
"""Seconds that the wall clock is off by, one after the other."""
NUM_PLACES = 4
NUM_PLAYERS = 6
FULL_KB = 64


def clock(step_s: float = 8.0) -> Outcome:
    """step_s: between two jumps."""
    outcome = Outcome("clock")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        outcome.left_out = "a clock that jumps for one process only needs a C compiler"
        return outcome
    with tempfile.TemporaryDirectory() as folder:
        wall, library = Path(folder) / "wall", Path(folder) / "wall_clock.so"
        build = [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(SHIM), "-ldl"]
        subprocess.run(build, check=True, capture_output=True)
        wall.write_text("+0")
        environment = {"LD_PRELOAD": str(library), "WALL_CLOCK_OFF": str(wall)}
        device = fake_command(num_slots=NUM_PLACES, fps=20)
        with running(device, {"engines": [{"standby": True}]}, environment) as server:
            seen: list[float] = []
            with crowd(server.ws, _chairs((len(JUMPS) + 1) * step_s, step_s)) as people:
                for jump in JUMPS:
                    time.sleep(step_s)
                    wall.write_text(jump)
                    time.sleep(1.5)  # the server makes a Date once a second
                    seen.append(_wall_clock_off_s(server))
                story = people.join()
            expected = [float(jump) for jump in JUMPS]
            jumped = all(abs(s - e) < 60 for s, e in zip(seen, expected, strict=True))
            said = ", ".join(f"{s:+.0f} s" for s in seen)
            outcome.must("jumped", jumped, "the server's wall clock jumped", said)
            restarts = sum(engine["restarts"] for engine in server.status()["engines"])
            outcome.at_most("restarts", restarts, 0, "engines that were taken for dead")
            _tell(outcome, story, server)
    return outcome


def disk(duration_s: float = 20.0) -> Outcome:
    """The usage file on a full disk, and the log on another."""
    outcome = Outcome("disk")
    with full_disk() as folder:
        if folder is None:
            outcome.left_out = "mounting a small tmpfs needs root"
            return outcome
        settings: dict[str, Any] = {
            "engines": [{"standby": False}],
            "usage_file": str(folder / "usage.jsonl"),
            "log": "json",
            "sessions": {"resume_s": 1.0},
        }
        device = fake_command(num_slots=NUM_PLACES, fps=20)
        with running(device, settings, stderr="/dev/full") as server:
            with crowd(server.ws, _chairs(duration_s, 1.0)) as people:
                story = people.join()
            _tell(outcome, story, server)
            time.sleep(2.0)  # the last sessions are over
            _, body = server.request("GET", "/api/usage")
            seen = sum(visit.num_frames for visit in story.visits)
            counted = json.loads(body)["total"]["frames"]
            # A session may have drawn frames that nobody took any more.
            is_whole = seen <= counted <= 1.2 * seen + 100
            outcome.must("usage_whole", is_whole, "usage is counted", f"{counted} of {seen} frames")
            (folder / "ballast").unlink()
            written = _written(folder / "usage.jsonl", 5.0)
            outcome.must("caught_up", written > 0, "usage is written when there is room again")
            played = sum(visit.num_frames > 0 for visit in story.visits)
            outcome.say("its lines; sessions that saw a frame", f"{written}; {played}")
    return outcome


@contextlib.contextmanager
def full_disk() -> Iterator[Path | None]:
    """A folder on a disk that has no room; None where it cannot be made."""
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={FULL_KB}k", "tmpfs", folder]
        try:
            subprocess.run(mount, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            yield None
            return
        try:
            with (
                contextlib.suppress(OSError),
                (Path(folder) / "ballast").open("wb", buffering=0) as f,
            ):
                while True:
                    f.write(bytes(4096))
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=False, capture_output=True)


def _chairs(duration_s: float, stay_s: float) -> list[Chair]:
    """The first one stays all the time; the others come and go."""
    long = Chair(0, 0.0, duration_s, (1e6, 1e6))
    others = [
        Chair(i, 0.3 * i, duration_s, (0.7 * stay_s, 1.5 * stay_s)) for i in range(1, NUM_PLAYERS)
    ]
    return [long, *others]


def _tell(outcome: Outcome, story: Story, server: RunningServer) -> None:
    visits = story.visits
    outcome.note("visits", len(visits), "visits")
    outcome.at_least("hit_rate", hit_rate(visits), HIT_RATE, "deadline hits", "%")
    outcome.say("gap, median / p95 / most", spread([g for v in visits for g in v.gap_ms], "ms"))
    dropped = [visit for visit in visits if was_dropped(visit)]
    why = "; ".join(sorted({visit.error for visit in dropped}))
    outcome.at_most("dropped", len(dropped), 0, f"players shown the door {why[:100]}".strip())
    outcome.must("alive", server.is_alive, "server lives")


def _wall_clock_off_s(server: RunningServer) -> float:
    """How far the server's clock is from this one, by the Date of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        date = connection.getresponse().headers["Date"]
    finally:
        connection.close()
    return email.utils.parsedate_to_datetime(date).timestamp() - time.time()


def _written(file: Path, patience_s: float) -> int:
    """Whole lines in it, as soon as there are any."""
    end_s = time.monotonic() + patience_s
    while time.monotonic() < end_s:
        if file.is_file() and file.stat().st_size:
            time.sleep(0.5)
            return file.read_bytes().count(b"\n")
        time.sleep(0.1)
    return 0
