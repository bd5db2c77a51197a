"""Players whose connection is lost: the place goes to the next, and whoever comes back goes on.

All places are taken and somebody waits. One player vanishes: reset, closed tab, a browser that
stands still (connection open, nobody reads), or a wire that is cut with both ends open. Then the
one who got the place leaves, and the vanished one comes back with the token.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict

from benchmarks.serve_load.fake_server import fake_command
from benchmarks.serve_load.findings import Outcome, spread
from benchmarks.serve_load.player import Player
from benchmarks.serve_load.running import RunningServer, running
from benchmarks.serve_load.silent_proxy import silent_proxy

FREE_WITHIN_S = 2.0
WAYS = ("abort", "close", "deaf", "cut")
NUM_PLACES = 3
FPS = 20
PATIENCE_S = 10.0
UNSEEN_S = 3.0
"""Play that a player may not have seen: until it is noticed that nobody is there."""


def vanish(rounds: int = 5) -> Outcome:
    outcome = Outcome("vanish")
    device = fake_command(num_slots=NUM_PLACES, fps=FPS)
    with running(device, {"engines": [{"standby": False}]}) as server:
        freed, returned, wrong = asyncio.run(_all(server, rounds))
        for way in WAYS:
            outcome.at_most(
                f"freed_{way}_s",
                max(freed[way], default=float("nan")),
                FREE_WITHIN_S,
                f"{way}: until the next has the place, of {len(freed[way])}, at most",
                "s",
            )
        back = [seconds for times in returned.values() for seconds in times]
        outcome.say("from coming back to the next frame", spread(back, "s"))
        outcome.note("returned", len(back))
        outcome.must("goes_on", not wrong, "who comes back goes on", "; ".join(wrong)[:300])
        outcome.must("alive", server.is_alive, "server lives")
    return outcome


Times = dict[str, list[float]]


async def _all(server: RunningServer, rounds: int) -> tuple[Times, Times, list[str]]:
    """Seconds until the next had the place; seconds until the one who came back saw a frame; what
    went wrong.
    """
    freed: Times = defaultdict(list)
    returned: Times = defaultdict(list)
    wrong: list[str] = []
    for number in range(rounds):
        for way in WAYS:
            await _round(server, way, number, freed, returned, wrong)
    return freed, returned, wrong


async def _round(
    server: RunningServer, way: str, number: int, freed: Times, returned: Times, wrong: list[str]
) -> None:
    async with silent_proxy(server.port) as proxy:
        address = f"ws://127.0.0.1:{proxy.port}/ws" if way == "cut" else server.ws
        lost = Player(address, seed=number)
        others = [Player(server.ws, seed=100 + number + i) for i in range(NUM_PLACES - 1)]
        following = Player(server.ws, seed=200 + number)
        everybody = [lost, *others, following]
        try:
            for player in (lost, *others):
                await player.open()
                if not await player.until_playing(PATIENCE_S):
                    wrong.append(f"{way}: no frame within {PATIENCE_S:g} s ({player.visit.error})")
                    return
            await following.open()
            if not await following.until(lambda: following.visit.state == "queued", PATIENCE_S):
                wrong.append(f"{way}: the next is {following.visit.state!r}, not queued")
                return
            await asyncio.sleep(1.0 + 0.13 * number)  # anywhere in the second between two moments
            began_s = time.monotonic()
            if way == "cut":
                proxy.cut()
                lost.visit.left = True
            else:
                await lost.leave(way)
            if not await following.until(lambda: following.visit.placed_s > 0, PATIENCE_S):
                wrong.append(f"{way}: the place was not free within {PATIENCE_S:g} s")
                return
            freed[way].append(following.visit.placed_s - began_s)
            await following.until_playing(PATIENCE_S)
            await following.leave("end")
            back = await _come_back(server, lost, way, returned, wrong)
            everybody.append(back)
        finally:
            for player in everybody:
                await _gone(player)


async def _come_back(
    server: RunningServer, lost: Player, way: str, returned: Times, wrong: list[str]
) -> Player:
    back = Player(f"{server.ws}?resume={lost.hello.get('resume', '')}", seed=7)
    began_s = time.monotonic()
    await back.open()
    if not await back.until_playing(PATIENCE_S):
        wrong.append(f"{way}: came back, no frame: {back.visit.state} {back.visit.error}")
        return back
    returned[way].append(time.monotonic() - began_s)
    ahead = back.visit.first_index - lost.visit.last_index
    # The newest moment that is kept may be older than what was seen by a second at most.
    if not -FPS <= ahead <= UNSEEN_S * FPS:
        wrong.append(
            f"{way}: went on at frame {back.visit.first_index} after {lost.visit.last_index}"
        )
    return back


async def _gone(player: Player) -> None:
    """Nothing of this player is left at either end."""
    if player.wire is not None and player.wire.is_deaf:
        player.wire.abort()
    elif not player.is_closed:
        await player.leave("end")
