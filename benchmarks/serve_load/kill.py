"""The engine's process dies, or stands still: its players play on.

Several players play. The process of their engine gets SIGKILL, later SIGSTOP. For each player:
seconds until the next frame, and how much of its play is gone (by the index of that frame). Another
engine of the same server must not notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.serve_load.fake_server import fake_command
from benchmarks.serve_load.findings import Outcome, hit_rate, spread
from benchmarks.serve_load.load import capacity_of
from benchmarks.serve_load.player import Player
from benchmarks.serve_load.running import RunningServer, running, serve_command, wait_for_standby

AGAIN_WITHIN_S = 3.0
LOST_AT_MOST_S = 1.0
PATIENCE_S = 20.0
STANDBY_S = 60.0
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def kill(rounds: int = 3, world: str | Path | None = None, num_players: int = 3) -> Outcome:
    """world: a real one; two fake ones if not given, of which the second is left alone."""
    outcome = Outcome("kill" if world is None else "kill-real")
    if world is None:
        device = fake_command(num_slots=num_players + 1, fps=20, names=["fake", "other"])
        settings: dict[str, Any] = {"engines": [{"standby": True}]}
    else:
        device, settings = serve_command(world)
    with running(device, settings) as server:
        num_players = min(num_players, capacity_of(server.status()))
        report = asyncio.run(_play(server, rounds, num_players, world is None))
        outcome.note("players", num_players, "players of the engine that dies")
        for name in SIGNALS:
            _tell(outcome, name, report)
        if report.bystander is not None:
            seen = report.bystander.visit
            outcome.at_least(
                "bystander_hit_rate",
                seen.hits / seen.due if seen.due else float("nan"),
                0.99,
                "deadline hits in the engine beside it",
                "%",
            )
        outcome.note(
            "hit_rate", report.hit_rate, "their deadline hits, blows and reloads and all", "%"
        )
        outcome.must("played_on", not report.wrong, "all play on", "; ".join(report.wrong)[:300])
        outcome.must("processes_gone", not report.left, "processes that died are gone")
        outcome.must("alive", server.is_alive, "server lives")
    return outcome


class _Report:
    def __init__(self) -> None:
        self.again_s: dict[str, list[float]] = {name: [] for name in SIGNALS}
        self.lost_s: dict[str, list[float]] = {name: [] for name in SIGNALS}
        self.wrong: list[str] = []
        self.left: list[int] = []
        self.hit_rate = math.nan
        self.bystander: Player | None = None


def _tell(outcome: Outcome, name: str, report: _Report) -> None:
    again, lost = report.again_s[name], report.lost_s[name]
    signal_name = SIGNALS[name].name
    most = max(again, default=float("nan"))
    figure = f"{signal_name}: until the next frame, at most"
    outcome.at_most(f"{name}_again_s", most, AGAIN_WITHIN_S, figure, "s")
    outcome.say(f"{signal_name}: the same, median / p95 / most", spread(again, "s"))
    most = max(lost, default=float("nan"))
    figure = f"{signal_name}: play that is lost, at most"
    outcome.at_most(f"{name}_lost_s", most, LOST_AT_MOST_S, figure, "s")


async def _play(
    server: RunningServer, rounds: int, num_players: int, has_bystander: bool
) -> _Report:
    report = _Report()
    players = [Player(server.ws, seed=i) for i in range(num_players)]
    if has_bystander:
        report.bystander = Player(f"{server.ws}?world=other", seed=99)
    everybody = [*players, *([report.bystander] if report.bystander else [])]
    try:
        for player in everybody:
            await player.open()
            if not await player.until_playing(PATIENCE_S):
                report.wrong.append(f"never played: {player.visit.state} {player.visit.error}")
                return report
        for number in range(rounds):
            for name in SIGNALS:
                await asyncio.to_thread(wait_for_standby, server, STANDBY_S)
                await asyncio.sleep(2.0 + 0.37 * number)  # anywhere between two moments
                await _strike(server, name, players, report)
                if report.wrong:
                    return report
        report.hit_rate = hit_rate([player.visit for player in players])
    finally:
        for player in everybody:
            await player.leave("end")
    return report


async def _strike(server: RunningServer, name: str, players: list[Player], report: _Report) -> None:
    status = await asyncio.to_thread(server.status)
    pid = status["engines"][0]["pid"]
    fps = players[0].hello["fps"]
    before = [player.visit.last_index for player in players]
    os.kill(pid, SIGNALS[name])
    began_s = time.monotonic()
    await asyncio.sleep(0.05)  # what was on its way has come
    before = [max(b, p.visit.last_index) for b, p in zip(before, players, strict=True)]
    waits = [_until_next(player, began_s) for player in players]
    for player, index, (again_s, first) in zip(
        players, before, await asyncio.gather(*waits), strict=True
    ):
        if again_s is None:
            said = f"{player.visit.state} {player.visit.error} {player.visit.close_code}"
            report.wrong.append(f"{name}: a player saw no frame any more ({said})")
            continue
        report.again_s[name].append(again_s)
        report.lost_s[name].append(max(index + 1 - first, 0) / fps)
    await asyncio.sleep(1.0)
    with contextlib.suppress(psutil.NoSuchProcess):
        if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            report.left.append(pid)
            os.kill(pid, signal.SIGKILL)


async def _until_next(player: Player, began_s: float) -> tuple[float | None, int]:
    """Seconds from the blow to the next frame, and its index."""
    seen: list[tuple[float, int]] = []
    num_frames, visit = player.visit.num_frames, player.visit

    def came() -> bool:
        if visit.num_frames > num_frames and not seen:
            seen.append((visit.last_frame_s - began_s, visit.last_index))
        return bool(seen)

    return seen[0] if await player.until(came, PATIENCE_S) else (None, -1)
