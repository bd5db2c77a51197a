"""What a session is opened with, checked against its world before anything is done."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reverie.core import ReverieError
from reverie.engine.replay import Replay, check_replay
from reverie.engine.saves import SavedSession
from reverie.world import Start, World

START_SEED = 0
"""Of the noise that a start is remembered with: every session that begins there remembers the same,
so it is computed once.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Opening:
    """start: whose frames the session begins with. saved, replay: that it goes on from instead, or
    plays first; never both.
    """

    start: Start
    seed: int
    num_steps: int
    saved: SavedSession | None
    replay: Replay | None


def check_opening(
    world: World,
    start: str | Start | None,
    seed: int | None,
    num_steps: int | None,
    saved: SavedSession | None,
    replay: Replay | None,
) -> Opening:
    """See `Engine.open`. Raises ReverieError on what the world does not have."""
    if saved is not None:
        seed, num_steps, replay = saved.seed, saved.num_steps, None
        start = saved.replay.start if saved.replay else start
        saved.check(world)
    if replay is not None:
        check_replay(world, replay)
        start, seed = replay.start, replay.seed
    steps = min(world.config.denoising_steps) if num_steps is None else num_steps
    return Opening(
        find_start(world, start), drawn_seed(seed), known_steps(world, steps), saved, replay
    )


def find_start(world: World, start: str | Start | None) -> Start:
    """A start of one's own, or the world's by name."""
    return start if isinstance(start, Start) else world.find_start(start)


def known_steps(world: World, num_steps: int) -> int:
    """Raises ReverieError on a number of denoising steps that the world was not trained for."""
    known = world.config.denoising_steps
    if num_steps not in known:
        raise ReverieError(
            f"{num_steps!r} denoising steps; this world was trained for {list(known)}"
        )
    return num_steps


def drawn_seed(seed: int | None) -> int:
    """The seed, or one that is drawn. Raises ReverieError on one that a session cannot have."""
    if seed is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if not 0 <= seed < 2**64:
        raise ReverieError(f"seed is {seed}; expected a whole number from 0 to 2**64 - 1")
    return int(seed)
