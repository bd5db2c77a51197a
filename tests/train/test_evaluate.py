"""The measures themselves: real pictures pass, planted faults fail the right one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

from reverie.core import Action, ActionSpace, ReverieError
from reverie.data.episode import Dataset
from reverie.data.render import Rendered, render
from reverie.engine.runtime import Batch
from reverie.envs.meadow.sim import MEADOW_ACTIONS
from reverie.train.evaluate import (
    Clip,
    Replay,
    draw_clips,
    is_collapsed,
    measure_next_frame,
    measure_walking,
    picture_statistics,
    play,
    turn_along,
    turned_right,
)
from reverie.train.probe import Probe, train_probe
from reverie.train.sheets import contact_sheet, psnr
from reverie.world import World
from tests.fakes import FakeRuntime, fake_config, fake_world

SPACE = ActionSpace(("forward", "back"), 15.0)


def landscape(num_frames: int = 40) -> np.ndarray:
    """A textured panorama that is walked along."""
    generator = np.random.default_rng(0)
    wide = generator.integers(0, 255, (8, 60, 3)).repeat(6, 0).repeat(6, 1).astype(np.uint8)
    return np.stack([wide[:, 4 * i : 4 * i + 80] for i in range(num_frames)])


def test_real_play_is_not_collapsed() -> None:
    frames = landscape()
    assert not is_collapsed(picture_statistics(frames[:20]), picture_statistics(frames))


@pytest.mark.parametrize("fault", ["frozen", "one colour", "mush", "noise"])
def test_planted_faults_count_as_collapse(fault: str) -> None:
    frames = landscape()
    faulty = {
        "frozen": lambda: frames[:1].repeat(20, 0),
        "one colour": lambda: np.full_like(frames[:20], 90),
        "mush": lambda: frames.mean((1, 2), keepdims=True).astype(np.uint8) + frames * 0,
        "noise": lambda: np.random.default_rng(0).integers(0, 255, frames.shape).astype(np.uint8),
    }[fault]()
    assert is_collapsed(picture_statistics(faulty), picture_statistics(frames))


def test_turns_are_judged_by_axis_side_and_size() -> None:
    turns = [[48, 0], [-48, 0], [6, 0], [24, 36], [48, 12]]
    readings = [np.array(turn, np.float32) for turn in turns]
    rights = [turned_right(reading, (4.0, 0.0)) for reading in readings]
    assert rights == [True, False, False, False, True]
    assert [turned_right(r, (-4.0, 0.0)) for r in readings] == [False, True, False, False, False]
    assert [turned_right(r, (0.0, 4.0)) for r in readings] == [False, False, False, True, False]
    assert [turn_along(r, (0.0, -4.0)) for r in readings] == [0, 0, 0, -36, -12]


class Ray:
    """A simulator and a runtime at once: a panorama along which keys move, pixels a frame."""

    WAYS: ClassVar = {"forward": 4, "back": -4, "left": -8, "right": 8}

    def __init__(self, world: World, **ways: int) -> None:
        self.world, self.ways = world, self.WAYS | ways
        height, width, _ = world.config.frame_shape
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 255, (height // 8, 5 * width, 3)).astype(np.uint8)
        self.wide = cv2.resize(coarse, (40 * width, height), interpolation=cv2.INTER_CUBIC)
        self.at = 0

    def move(self, action: np.ndarray) -> np.ndarray:
        self.at += sum(
            self.ways.get(k, 0) for k in self.world.config.action_space.decode(action).keys
        )
        return self.frame()

    def frame(self) -> np.ndarray:
        width = self.world.config.width
        return np.ascontiguousarray(self.wide[:, 20 * width + self.at : 21 * width + self.at])

    def prefill(self, *_: object, **__: object) -> None:
        self.at = 0

    def step(self, batch: Batch) -> np.ndarray:
        return self.move(batch.actions[0])[None]

    def play(self, clip: Clip, context: int, actions: np.ndarray) -> np.ndarray:
        self.at = 0
        return np.stack([self.move(action) for action in actions])

    def clip(self) -> Clip:
        config, self.at = self.world.config, 0
        actions = np.zeros((config.context, config.action_space.width), np.float32)
        return Clip(self.frame()[None].repeat(config.context, 0), actions)


@pytest.mark.parametrize(("forward", "share"), [(4, 1.0), (2, 1.0), (0, 0.0), (-4, 0.0)])
def test_walking_is_judged_by_how_the_picture_moves(forward: int, share: float) -> None:
    world = fake_world(fake_config(96, 64))
    runtime: Any = Ray(world, forward=forward)
    simulator: Any = Ray(world)
    found = measure_walking(runtime, simulator, [runtime.clip()] * 2, 1)
    assert found["walks_forward"] == share
    assert [found[f"walks_{way}"] for way in ("back", "left", "right")] == [1, 1, 1]
    assert found["walks_judged"] == 1


def test_the_speed_of_walking_is_relative_to_the_simulators() -> None:
    world = fake_world(fake_config(96, 64))
    runtime: Any = Ray(world, forward=2, back=-2, left=-4, right=4)
    simulator: Any = Ray(world)
    found = measure_walking(runtime, simulator, [runtime.clip()], 1)
    assert found["walk_speed_ratio"] == pytest.approx(0.5, abs=0.05)
    assert found["walks_forward"] == 1


def test_walking_sideways_is_not_forward() -> None:
    world = fake_world(fake_config(96, 64))
    runtime: Any = Ray(world, forward=8)
    simulator: Any = Ray(world)
    assert measure_walking(runtime, simulator, [runtime.clip()], 1)["walks_forward"] == 0


def test_walking_against_a_wall_is_not_judged_and_does_not_compete() -> None:
    world = fake_world(fake_config(96, 64))
    runtime: Any = Ray(world, back=-1)
    simulator: Any = Ray(world, forward=0)
    found = measure_walking(runtime, simulator, [runtime.clip()], 1)
    assert np.isnan(found["walks_forward"])
    assert found["walks_judged"] == 0.75
    slow: Any = Ray(world, right=3)  # nearer to standing still than to the simulator's 8
    assert measure_walking(slow, simulator, [runtime.clip()], 1)["walks_right"] == 1


def test_a_replay_draws_what_was_recorded(meadow_set: Dataset, tmp_path: Path) -> None:
    test = render(meadow_set, "test", cache=tmp_path, processes=1, progress=False)
    clip = draw_clips(test, MEADOW_ACTIONS, 8, 3)[-1]
    simulator = Replay(meadow_set)
    try:
        again = simulator.play(clip, 4, clip.actions[4:])
    finally:
        simulator.close()
    assert np.array_equal(again, clip.frames[4:])


def test_the_probe_learns_which_way_a_panorama_turned() -> None:
    generator = np.random.default_rng(1)
    wide = generator.integers(0, 255, (4, 100, 3)).repeat(8, 0).repeat(4, 1).astype(np.uint8)
    frames, actions = [], []
    for _ in range(600):  # episodes of two frames: a look, and the look after a turn
        step, at = int(generator.integers(-5, 6)) * 2, int(generator.integers(10, 320))
        frames += [wide[:, at : at + 64], wide[:, at + step : at + step + 64]]
        actions += [SPACE.encode(Action(mouse=(step * 1.5, 0)))] * 2
    rendered = Rendered(
        path=None,  # pyright: ignore[reportArgumentType]
        frames=np.stack(frames),
        actions=np.stack(actions),
        boundaries=np.arange(0, 1201, 2),
    )
    probe = train_probe(rendered, SPACE, steps=200, batch_size=32)
    before = np.stack([wide[:, 100:164], wide[:, 200:264]])
    after = np.stack([wide[:, 108:172], wide[:, 192:256]])
    right, left = probe.read(before, after).camera[:, 0]
    assert right > 4
    assert left < -4
    assert isinstance(probe, Probe)


def test_next_frame_needs_clips_that_move() -> None:
    world = fake_world()
    runtime = FakeRuntime(world)
    runtime.allocate(1)
    config = world.config
    length = config.context + 2
    frames = np.zeros((length, *config.frame_shape), np.uint8)
    actions = np.zeros((length, config.action_space.width), np.float32)
    with pytest.raises(ReverieError, match="no held-out clip moves"):
        measure_next_frame(runtime, [Clip(frames, actions)], 1)


def test_play_steps_once_per_action_from_the_clip() -> None:
    world = fake_world()
    runtime = FakeRuntime(world)
    runtime.allocate(1)
    config = world.config
    frames = np.zeros((config.context, *config.frame_shape), np.uint8)
    actions = np.zeros((config.context, config.action_space.width), np.float32)
    clip = Clip(frames, actions)
    played = play(runtime, clip, actions[:2], 1)
    runtime.prefill(0, frames, actions, 0)
    first = runtime.step(Batch((0,), actions[:1], (0,), (0,), 1))
    assert played.shape == (2, *config.frame_shape)
    assert np.array_equal(played[:1], first)


def test_psnr_of_a_known_error() -> None:
    truth = np.zeros((1, 2, 2, 3), np.uint8)
    assert psnr(truth, truth + 16) == pytest.approx(20 * np.log10(255 / 16))


def test_a_contact_sheet_holds_every_picture() -> None:
    rows = [np.full((3, 4, 5, 3), value, np.uint8) for value in (10, 20, 30, 40)]
    sheet = contact_sheet(rows)
    assert sheet.shape == (4 * 4 + 4, 3 * 6 - 1, 3)
    assert {10, 20, 30, 40} <= set(np.unique(sheet).tolist())
