"""Plays the real page of a real `reverie play` in headless Chromium on this machine, and measures.

    python benchmarks/bench_play.py                     a minute of the bundled world
    python benchmarks/bench_play.py --minutes 30        memory and latency, minute by minute
    python benchmarks/bench_play.py --simulator         what the world was learned from, to compare
    python benchmarks/bench_play.py --server "python -m tests.server.live --port {port}"

The player is a script with a seed: walks, strafes, jumps, breaks, and turns the camera with bursts
of mouse movement, as people do. All of it happens on the same cores as the world.

Action-to-photon is what the page itself measures (web/src/latency.ts): from an input event's own
timestamp to the end of the paint that shows the frame which answers it. Frames per second count
pictures that were painted and differ from the one before.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shlex
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from playwright.sync_api import Error, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.browser.chromium import ARGUMENTS, NoChromiumError, find_chromium  # noqa: E402

TARGETS = {
    "different_fps": 20.0,
    "p50_ms": 75.0,
    "p95_ms": 100.0,
    "first_frame_s": 3.0,
    "command_to_playing_s": 15.0,
}
FPS_TOLERANCE = 0.01  # a frame more or less at either end of the measurement
PARTS = ("input", "network", "wait", "generate", "encode", "decode", "present")
WARM_UP_S = 3.0
SERVER_PATIENCE_S = 120.0
MOUSE_PERIOD_S = 1 / 30


@dataclass(frozen=True, slots=True)
class Reading:
    """The page's counters and the server's memory at one moment."""

    page_ms: float
    frames_shown: int
    different_frames: int
    rss_mb: float


@dataclass(frozen=True, slots=True)
class Span:
    """What happened between two readings. samples: one dict of milliseconds per answered action."""

    duration_s: float
    fps: float
    different_fps: float
    samples: list[dict[str, float]]
    rss_before_mb: float
    rss_mb: float

    def percentile_ms(self, share: float) -> float:
        totals = sorted(sample["total"] for sample in self.samples)
        return totals[max(0, round(share * len(totals)) - 1)] if totals else float("nan")

    def part_ms(self, part: str) -> float:
        return statistics.median(sample[part] for sample in self.samples) if self.samples else 0.0


def main() -> int:
    options = parse_options()
    try:
        chromium = find_chromium()
    except NoChromiumError as error:
        print(f"bench_play: {error}", file=sys.stderr)
        return 2
    port = options.port or free_port()
    began_s = time.monotonic()
    with running(server_command(options, port)) as server, sync_playwright() as playwright:
        url = f"http://127.0.0.1:{port}"
        wait_for_server(server, port)
        browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        page = browser.new_page(viewport={"width": options.width, "height": options.height})
        page.goto(url)
        wait_until(page, "s.framesShown > 0 && s.state === 'playing'", SERVER_PATIENCE_S)
        command_to_playing_s = time.monotonic() - began_s
        page.reload()  # now that the world is awake
        wait_until(page, "s.framesShown > 0 && s.state === 'playing'", SERVER_PATIENCE_S)
        first_frame_s = page.evaluate("reverie.stats().firstFrameMs") / 1000
        page.click("#play")
        player = ScriptedPlayer(page, options.width, options.height)
        player.play(WARM_UP_S)
        spans = list(measure(page, server, player, options))
        browser.close()
    start = {"first_frame_s": first_frame_s, "command_to_playing_s": command_to_playing_s}
    return report(options, spans, start)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("world", nargs="?", default="meadow")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--minutes", type=int, default=0, help="instead of --seconds")
    parser.add_argument("--steps", type=int, help="denoising steps per frame")
    parser.add_argument("--simulator", action="store_true")
    parser.add_argument("--server", help="another command; {port} is replaced")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=720)
    return parser.parse_args()


def server_command(options: argparse.Namespace, port: int) -> list[str]:
    if options.server:
        command = shlex.split(options.server.format(port=port))
        return [sys.executable, *command[1:]] if command[0] == "python" else command
    command = [sys.executable, "-m", "reverie", "play", "--no-browser", "--port", str(port)]
    if options.simulator:
        return [*command, "--simulator"]
    return [*command, *(["--steps", str(options.steps)] if options.steps else []), options.world]


@contextmanager
def running(command: list[str]) -> Iterator[psutil.Popen]:
    """The server's process; it is asked to stop at the end."""
    process = psutil.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        try:
            process.terminate()
            process.wait(10)
        except psutil.NoSuchProcess:
            pass  # it ended by itself
        except psutil.TimeoutExpired:
            process.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def wait_for_server(server: psutil.Popen, port: int) -> None:
    end_s = time.monotonic() + SERVER_PATIENCE_S
    while time.monotonic() < end_s:
        if server.poll() is not None:
            raise SystemExit(f"bench_play: the server ended with code {server.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"bench_play: nothing listens on port {port} after {SERVER_PATIENCE_S:.0f} s")


def wait_until(page: Page, condition: str, timeout_s: float) -> None:
    end_s = time.monotonic() + timeout_s
    while not page.evaluate(f"(s => {condition})(reverie.stats())"):
        if time.monotonic() > end_s:
            said = page.inner_text("#notice-text")
            raise SystemExit(f"bench_play: not within {timeout_s:.0f} s: {condition}; {said}")
        time.sleep(0.02)


class ScriptedPlayer:
    """Presses keys and moves the mouse by chance, the same for the same seed."""

    def __init__(self, page: Page, width: int, height: int, seed: int = 0) -> None:
        self._page = page
        self._random = random.Random(seed)
        self._middle = (width / 2, height / 2)
        self._x, self._y = self._middle
        self._pitch = 0.0
        page.mouse.move(self._x, self._y)

    def play(self, duration_s: float) -> None:
        end_s = time.monotonic() + duration_s
        while time.monotonic() < end_s:
            self._choose()()

    def _choose(self) -> Callable[[], None]:
        moves = [self._walk, self._look, self._walk_and_look, self._act, self._rest]
        return self._random.choices(moves, (3, 4, 4, 2, 1))[0]

    def _walk(self) -> None:
        self._hold(self._random.choice("wwwwasd"), self._random.uniform(0.15, 0.9))

    def _look(self) -> None:
        for _ in range(self._random.randint(5, 20)):
            self._turn()
            # By chance, or the mouse would fall into step with the engine's ticks.
            time.sleep(MOUSE_PERIOD_S * self._random.uniform(0.5, 1.5))

    def _walk_and_look(self) -> None:
        self._page.keyboard.down("w")
        self._look()
        self._page.keyboard.up("w")

    def _act(self) -> None:
        self._hold(self._random.choice([" ", "q", "e", "j", "l"]), self._random.uniform(0.08, 0.3))

    def _rest(self) -> None:
        time.sleep(self._random.uniform(0.1, 0.4))

    def _hold(self, key: str, duration_s: float) -> None:
        self._page.keyboard.down(key)
        time.sleep(duration_s)
        self._page.keyboard.up(key)

    def _turn(self) -> None:
        """A few pixels; the view stays near the horizon, where there is something to see."""
        right = self._random.gauss(0, 14)
        below = self._random.gauss(-0.1 * self._pitch, 3)
        self._pitch += below
        self._x, self._y = self._x + right, self._y + below
        self._page.mouse.move(self._x, self._y)


def measure(
    page: Page, server: psutil.Popen, player: ScriptedPlayer, options: argparse.Namespace
) -> Iterator[Span]:
    """One span, or one for each minute, which is printed at once."""
    count, length_s = (options.minutes, 60.0) if options.minutes else (1, options.seconds)
    if options.minutes:
        print("minute   different fps   p50 ms   p95 ms   memory MB")
    before = read(page, server)
    for number in range(1, count + 1):
        player.play(length_s)
        after = read(page, server)
        seconds = (after.page_ms - before.page_ms) / 1000
        span = Span(
            seconds,
            (after.frames_shown - before.frames_shown) / seconds,
            (after.different_frames - before.different_frames) / seconds,
            page.evaluate(f"reverie.samples({before.page_ms})"),
            before.rss_mb,
            after.rss_mb,
        )
        if options.minutes:
            p50, p95 = span.percentile_ms(0.5), span.percentile_ms(0.95)
            line = f"{number:6d}   {span.different_fps:13.2f}   {p50:6.1f}   {p95:6.1f}"
            print(f"{line}   {span.rss_mb:9.1f}", flush=True)
        yield span
        before = after


def read(page: Page, server: psutil.Popen) -> Reading:
    try:
        now, stats = page.evaluate("[performance.now(), reverie.stats()]")
    except Error as error:
        raise SystemExit(f"bench_play: the page is gone: {error}") from None
    if stats["state"] != "playing":
        raise SystemExit(f"bench_play: the session is {stats['state']}, not playing")
    processes = [server, *server.children(recursive=True)]
    rss_mb = sum(process.memory_info().rss for process in processes) / 1e6
    return Reading(now, stats["framesShown"], stats["differentFrames"], rss_mb)


def report(options: argparse.Namespace, spans: list[Span], start: dict[str, float]) -> int:
    samples = [sample for span in spans for sample in span.samples]
    duration_s = sum(span.duration_s for span in spans)
    weights = [span.duration_s / duration_s for span in spans]
    fps = sum(w * span.fps for w, span in zip(weights, spans, strict=True))
    different = sum(w * span.different_fps for w, span in zip(weights, spans, strict=True))
    whole = Span(duration_s, fps, different, samples, spans[0].rss_before_mb, spans[-1].rss_mb)
    figures = {
        "different_fps": whole.different_fps,
        "p50_ms": whole.percentile_ms(0.5),
        "p95_ms": whole.percentile_ms(0.95),
        **start,
    }
    played = options.server or ("simulator" if options.simulator else options.world)
    print(f"\n{played}, {duration_s:.0f} s in headless Chromium at "
          f"{options.width} x {options.height}, on {machine()}")  # fmt: skip
    for name, target in TARGETS.items():
        print(f"  {name.replace('_', ' '):24} {figures[name]:8.2f}   target {target:g}")
    print(f"  {'painted fps':24} {whole.fps:8.2f}")
    print(f"  parts of action-to-photon, medians of {len(samples)} actions:")
    for part in PARTS:
        print(f"    {part:22} {whole.part_ms(part):8.2f} ms")
    grown_mb = spans[-1].rss_mb - spans[0].rss_before_mb
    print(f"  memory of the server {spans[-1].rss_mb:.0f} MB, grown by {grown_mb:.1f} MB")
    print(json.dumps({
        "benchmark": "play",
        "world": played,
        "steps": options.steps,
        "seconds": round(duration_s, 1),
        **{name: round(value, 3) for name, value in figures.items()},
        "painted_fps": round(whole.fps, 3),
        "num_actions": len(samples),
        "parts_ms": {part: round(whole.part_ms(part), 2) for part in PARTS},
        "rss_mb": round(whole.rss_mb, 1),
        "rss_grown_mb": round(grown_mb, 1),
        "machine": machine(),
    }))  # fmt: skip
    return 0 if all(met(name, figures[name]) for name in TARGETS) else 1


def met(name: str, value: float) -> bool:
    if name == "different_fps":
        return value >= TARGETS[name] * (1 - FPS_TOLERANCE)
    return value <= TARGETS[name]


def machine() -> str:
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores of {name} (load average {load:.1f}), {platform.system()}"


if __name__ == "__main__":
    sys.exit(main())
