"""Load and faults: real sockets play as people do, and things go wrong. On 127.0.0.1 only.

    python benchmarks/bench_serve.py                       every scenario, about half an hour
    python benchmarks/bench_serve.py --scenario ramp,kill  some of them
    python benchmarks/bench_serve.py --quick               all in miniature, to see that they work
    python benchmarks/bench_serve.py --append docs/benchmarks.md

ramp      the bundled world, up to three times as many players as are admitted, then fewer again
small     the same at 10 frames a second
fake500   500 sockets around a device of 1 ms steps
churn     a thousand sessions that leave in every way there is: what of memory is left?
vanish    players who are gone without a word: when is their place free? Do they go on?
kill      SIGKILL and SIGSTOP for the engine's process; kill-real: that of the bundled world
abuse     slow readers, flooders, garbage and half-open connections beside normal players
clock     the wall clock jumps by an hour, both ways
disk      the disks of usage file and log are full
access    no frame without a valid token, by any route

A frame is in time if it comes at most 1.5/fps after the one before; whole frame times of waiting
count as frames that were due (benchmarks/serve_load/player.py). All of it happens on the cores that
serve. Exit code 1 when anything is not as it is held to be.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.serve_load.abuse import abuse  # noqa: E402
from benchmarks.serve_load.access import access  # noqa: E402
from benchmarks.serve_load.churn import churn  # noqa: E402
from benchmarks.serve_load.findings import COLUMNS, Outcome  # noqa: E402
from benchmarks.serve_load.kill import kill  # noqa: E402
from benchmarks.serve_load.load import Course, fake500, ramp, small  # noqa: E402
from benchmarks.serve_load.surroundings import clock, disk  # noqa: E402
from benchmarks.serve_load.vanish import vanish  # noqa: E402
from reverie.bench.report import (  # noqa: E402
    Report,
    append_report,
    check_writable,
    print_report,
)

QUIET_S = 2.0
"""How long to look whether the machine is busy with something else."""

Scenario = Callable[[argparse.Namespace], Outcome]


def _course(options: argparse.Namespace, sockets: int = 0) -> Course:
    if options.quick:
        return Course(3.0, 5.0, (1.0, 3.0), sockets and 24, options.price)
    return Course(sockets=sockets, price=options.price)


SCENARIOS: dict[str, tuple[Scenario, Scenario]] = {
    # name: (whole, in miniature)
    "ramp": (lambda o: ramp(_course(o), o.world), lambda o: ramp(_course(o), o.world)),
    "small": (lambda o: small(_course(o), o.world), lambda o: small(_course(o), o.world)),
    "fake500": (
        lambda o: fake500(_course(o, 500), num_slots=o.places),
        lambda o: fake500(_course(o, 500), num_slots=8),
    ),
    "churn": (lambda o: churn(), lambda o: churn(60)),
    "vanish": (lambda o: vanish(), lambda o: vanish(1)),
    "kill": (lambda o: kill(), lambda o: kill(1)),
    "kill-real": (lambda o: kill(3, o.world, 2), lambda o: kill(1, o.world, 1)),
    "abuse": (lambda o: abuse(), lambda o: abuse(4.0, 3, 1)),
    "clock": (lambda o: clock(), lambda o: clock(2.0)),
    "disk": (lambda o: disk(), lambda o: disk(4.0)),
    "access": (lambda o: access(), lambda o: access()),
}


def main(arguments: list[str] | None = None) -> int:
    options = parse_options(arguments)
    if options.append:
        check_writable(options.append)  # before half an hour of measuring
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # servers are stopped on the way out
    busy = psutil.cpu_percent(QUIET_S) / 100
    outcomes: list[Outcome] = []
    for name in options.scenario:
        began_s = time.monotonic()
        print(f"{name} ...", file=sys.stderr, flush=True)
        outcomes.append(run(name, options))
        print(f"{name}: {time.monotonic() - began_s:.0f} s", file=sys.stderr, flush=True)
    report = make_report(options, outcomes, busy)
    print_report(report)
    if options.append:
        append_report(report, options.append)
    return 1 if any(outcome.failed for outcome in outcomes) else 0


def run(name: str, options: argparse.Namespace) -> Outcome:
    """What came of a scenario; one that breaks down is not met, and the others still run."""
    try:
        return SCENARIOS[name][options.quick](options)
    except Exception as error:
        traceback.print_exc()
        outcome = Outcome(name)
        outcome.must("ran", False, "ran to its end", repr(error)[:300])
        return outcome


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--scenario", type=_scenarios, default=list(SCENARIOS), help="names, with commas between"
    )
    parser.add_argument("--quick", action="store_true", help="a miniature of each")
    parser.add_argument("--world", default="meadow", help="of ramp, small and kill-real")
    parser.add_argument("--price", type=float, default=1.0, help="dollars, of an hour of this")
    parser.add_argument("--places", type=int, default=168, help="of fake500")
    parser.add_argument("--append", type=Path, help="also add the table to this Markdown file")
    return parser.parse_args(arguments)


def _scenarios(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        known = ", ".join(SCENARIOS)
        raise argparse.ArgumentTypeError(f"no scenario {unknown[0]!r}; expected some of {known}")
    return names


def make_report(options: argparse.Namespace, outcomes: list[Outcome], busy: float) -> Report:
    """One table of all scenarios. busy: part of the machine that others used before it began."""
    names = ",".join(outcome.scenario for outcome in outcomes)
    whole = len(outcomes) == len(SCENARIOS)
    command = "python benchmarks/bench_serve.py"
    command += "" if whole else f" --scenario {names}"
    command += " --quick" if options.quick else ""
    failed = [f"{o.scenario}: {name}" for o in outcomes for name in o.failed]
    left_out = [f"{o.scenario} was left out: {o.left_out}." for o in outcomes if o.left_out]
    notes = (
        "Clients and server share the machine's cores. A frame is in time if it comes at most "
        "1.5/fps after the one before; every whole frame time of waiting counts as a frame that "
        "was due.",
        f"Before it began, {busy:.0%} of the machine was busy with something else.",
        *left_out,
        f"Not met: {', '.join(failed)}." if failed else "Everything is as it is held to be.",
    )
    figures = {
        "benchmark": "serve",
        "met": not failed,
        "failed": failed,
        "busy_before": round(busy, 3),
        "left_out": {o.scenario: o.left_out for o in outcomes if o.left_out},
        **{outcome.scenario: outcome.figures for outcome in outcomes},
    }
    rows = [row for outcome in outcomes for row in outcome.rows]
    return Report(command, COLUMNS, rows, figures, notes)


if __name__ == "__main__":
    sys.exit(main())
