"""The verb `reverie bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reverie.core import ReverieError

if TYPE_CHECKING:
    from reverie.bench.report import Report

RuntimeName = Annotated[
    str | None, typer.Option(help="openvino, onnx or torch; the first that can if not given.")
]

KINDS = ("step", "sessions", "offline", "oasis")


def bench(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="step: a frame's stages. sessions: the curve over players. offline: against "
            "whole clips at once. oasis: a cache against computing the window at every pass, with "
            "random weights of its own.",
        ),
    ],
    world: Annotated[
        str, typer.Option(help="A bundled name, a folder, or hf://user/world.")
    ] = "meadow",
    runtime: RuntimeName = None,
    steps: Annotated[
        int | None, typer.Option(help="Denoising steps per frame; the world's fewest.", min=1)
    ] = None,
    sessions: Annotated[
        str, typer.Option(help="Numbers of players to measure.")
    ] = "1,2,4,8,16,32,64",
    price: Annotated[float, typer.Option(help="Dollars for an hour of the device.", min=0.0)] = 1.0,
    published: Annotated[
        bool, typer.Option(help="oasis: at the published sizes, which want a GPU.")
    ] = False,
    append: Annotated[
        Path | None, typer.Option(help="Also add the table to this Markdown file.")
    ] = None,
) -> None:
    """Measure what the engine costs on this machine. A table, and one line of JSON last."""
    from reverie.bench.report import append_report, check_writable, print_report

    if append:
        check_writable(append)  # before minutes of measuring
    report = _measure(what, world, runtime, steps, sessions, price, published)
    print_report(report)
    if append:
        append_report(report, append)


def _measure(
    what: str,
    name: str,
    runtime: str | None,
    steps: int | None,
    sessions: str,
    price: float,
    published: bool,
) -> Report:
    from reverie import world as worlds

    if what not in KINDS:
        raise ReverieError(f"no benchmark {what!r}; expected one of {', '.join(KINDS)}")
    if what == "oasis":
        from reverie.bench.oasis import bench_oasis

        return bench_oasis(published)
    world = worlds.load(name)
    num_steps = steps or min(world.config.denoising_steps)
    if what == "step":
        from reverie.bench.step import bench_step

        return bench_step(world, runtime, num_steps)
    if what == "offline":
        from reverie.bench.offline import bench_offline

        return bench_offline(world, runtime, num_steps, price)
    from reverie.bench.sessions import bench_sessions

    return bench_sessions(world, runtime, num_steps, _numbers(sessions), price)


def _numbers(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise ReverieError(f"sessions {text!r}; expected whole numbers from 1, such as 1,2,4")
    return [int(part) for part in parts]
