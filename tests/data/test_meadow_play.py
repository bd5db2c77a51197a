"""What scripted players do in the real Meadow: they travel, build and dig, and do not stare at
walls.
"""

from pathlib import Path

import numpy as np
import pytest

from reverie.core import Action
from reverie.data import policies
from reverie.data.environment import Simulator
from reverie.data.episode import Dataset, world_seed
from reverie.data.render import render
from reverie.envs.meadow.sim import MEADOW_ACTIONS


def test_meadow_steps_the_same_without_drawing() -> None:
    silent, drawing = Simulator("reverie/Meadow-v0"), Simulator("reverie/Meadow-v0")
    silent.reset(5)
    drawing.reset(5)
    policy = policies.make("sticky", silent.actions)
    rng = np.random.default_rng(0)
    info: dict[str, object] = {}
    for _ in range(30):
        vector = silent.actions.quantise(policy(rng, info))
        info, _ = silent.step(vector)
        drawing.env.step(vector)
    assert np.array_equal(silent.picture(), drawing.env.unwrapped.render())  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def episodes() -> dict[str, np.ndarray]:
    simulator = Simulator("reverie/Meadow-v0")
    columns, at_wall, changed = [], [], []
    for number in range(12):
        policy = policies.Scripted(simulator.actions)
        rng = np.random.default_rng([0, number])
        info = simulator.reset(world_seed(0, "train", number))
        meadow = simulator.env.unwrapped.meadow  # pyright: ignore[reportAttributeAccessIssue]
        before = meadow.cells.copy()
        visited = set()
        for _ in range(600):
            info, _ = simulator.step(simulator.actions.quantise(policy(rng, info)))
            x, _, z = info["position"]
            visited.add((int(x), int(z)))
            target = info["target"]
            near = target is not None and target["distance"] < 1.6
            at_wall.append(near and abs(info["pitch"]) < 40)
        columns.append(len(visited))
        changed.append(int((meadow.cells != before).sum()))
    return {
        "columns": np.array(columns),
        "at_wall": np.array(at_wall),
        "changed": np.array(changed),
    }


def test_players_travel(episodes: dict[str, np.ndarray]) -> None:
    assert np.median(episodes["columns"]) > 30


def test_players_do_not_stare_at_walls(episodes: dict[str, np.ndarray]) -> None:
    assert episodes["at_wall"].mean() < 0.3


def test_players_change_the_world(episodes: dict[str, np.ndarray]) -> None:
    assert np.mean(episodes["changed"] > 0) > 0.7
    assert np.mean(episodes["changed"]) > 4


def test_pitches_are_where_the_players_neck_is(meadow_set: Dataset, tmp_path: Path) -> None:
    """Turned up against the end of the neck, down, and as the policy plays: what the actions add up
    to is the simulator's own pitch.
    """
    rendered = render(meadow_set, "test", cache=tmp_path, processes=1, progress=False)
    pitches = rendered.pitches(MEADOW_ACTIONS)
    simulator = Simulator("reverie/Meadow-v0")
    for episode, first in zip(meadow_set.split("test"), rendered.boundaries, strict=False):
        level = simulator.reset(episode.seed, episode.options)["pitch"]
        for t, vector in enumerate(meadow_set.actions(episode), start=1):
            info, _ = simulator.step(vector)
            assert info["pitch"] - level == pytest.approx(pitches[first + t], abs=1e-3)
    pitch_deg = 0.0
    for degrees in [-15.0] * 12 + [15.0] * 14:
        vector = MEADOW_ACTIONS.encode(Action(mouse=(0.0, degrees)))
        pitch_deg = MEADOW_ACTIONS.pitch_after(pitch_deg, vector)
        info, _ = simulator.step(vector)
        if degrees > 0:  # at the end of the neck by now, wherever the episode had ended
            assert info["pitch"] == pytest.approx(pitch_deg + 5.0)
    simulator.close()
