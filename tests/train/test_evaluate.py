"""Players, notes and the probe: what an evaluation is made of. The measures have their own file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

from reverie.core import Action, ActionSpace
from reverie.data.render import Rendered
from reverie.engine.runtime import Batch
from reverie.train.evaluate import Notes
from reverie.train.measures import Setting, observe_walking, walking_figures
from reverie.train.players import Actions, Clip, Frames, WorldPlayer, course, play
from reverie.train.probe import Probe, train_probe
from reverie.train.sheets import contact_sheet, psnr
from tests.fakes import FakeRuntime, fake_world

SPACE = ActionSpace(("forward", "back"), 15.0)
WALKING = ActionSpace(("forward", "back", "left", "right"))


class Panorama:
    """A player and a simulator: a picture along which keys move, so many pixels a frame."""

    WAYS: ClassVar = {"forward": 4, "back": -4, "left": -8, "right": 8}

    def __init__(self, **ways: int) -> None:
        self.ways = self.WAYS | ways
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 255, (8, 5 * 96, 3)).astype(np.uint8)
        self.wide = cv2.resize(coarse, (40 * 96, 64), interpolation=cv2.INTER_CUBIC)

    def stream(self, clips: Sequence[Clip], actions: Sequence[Actions]) -> Iterator[Frames]:
        at = [0] * len(clips)
        for acted in zip(*actions, strict=True):
            for i, action in enumerate(acted):
                at[i] += sum(self.ways.get(key, 0) for key in WALKING.decode(action).keys)
            yield np.stack([self.frame(x) for x in at])

    def frame(self, x: int) -> np.ndarray:
        return np.ascontiguousarray(self.wide[:, 20 * 96 + x : 21 * 96 + x])

    def clip(self) -> Clip:
        actions = np.zeros((4, WALKING.width), np.float32)
        return Clip(self.frame(0)[None].repeat(4, 0), actions, 4)


def walking(player: Panorama, simulator: Panorama) -> dict[str, float]:
    unused: Any = None
    setting = Setting(player, simulator, unused, unused, unused, {}, WALKING, 4, 20)
    return walking_figures(observe_walking(setting, [simulator.clip()] * 2))


@pytest.mark.parametrize(("forward", "share"), [(4, 1.0), (2, 1.0), (0, 0.0), (-4, 0.0), (8, 0.0)])
def test_walking_is_judged_by_how_the_picture_moves(forward: int, share: float) -> None:
    """8 pixels are the way to the right."""
    found = walking(Panorama(forward=forward), Panorama())
    assert found["walks_forward"] == found["keys_obeyed"] == share
    assert [found[f"walks_{way}"] for way in ("back", "left", "right")] == [1, 1, 1]
    assert found["walks_judged"] == 1


def test_the_speed_of_walking_is_relative_to_the_simulators() -> None:
    found = walking(Panorama(forward=2, back=-2, left=-4, right=4), Panorama())
    assert found["walk_speed_ratio"] == pytest.approx(0.5, abs=0.05)
    assert found["walks_forward"] == 1


def test_walking_against_a_wall_is_not_judged_and_does_not_compete() -> None:
    found = walking(Panorama(back=-1), Panorama(forward=0))
    assert "walks_forward" not in found
    assert found["walks_judged"] == 0.75
    # nearer to standing still than to the simulator's 8
    assert walking(Panorama(right=3), Panorama(forward=0))["walks_right"] == 1


def test_a_world_plays_side_by_side_as_it_plays_alone() -> None:
    world = fake_world()
    runtime = FakeRuntime(world)
    runtime.allocate(3)
    config = world.config
    frames = np.zeros((config.context, *config.frame_shape), np.uint8)
    actions = np.zeros((max(5, config.context), config.action_space.width), np.float32)
    clips = [Clip(frames, actions[: config.context], config.context, 1, i) for i in range(3)]
    assert len({clip.seed for clip in [*clips, replace(clips[1], episode=2)]}) == 4
    player = WorldPlayer(runtime, 2)
    together = np.stack(list(player.stream(clips, [actions] * 3)), 1)
    assert together.shape == (3, len(actions), *config.frame_shape)
    for clip, session in zip(clips, together, strict=True):
        assert np.array_equal(play(player, clip, actions), session)
    seed = clips[0].seed
    runtime.prefill(0, frames, clips[0].actions, seed)
    first = runtime.step(Batch((0,), actions[:1], (seed,), (0,), 2))
    assert np.array_equal(together[:1, 0], first)


def test_a_course_goes_on_in_the_next_episode_and_from_the_first_again() -> None:
    actions = np.arange(10, dtype=np.float32)[:, None]
    pictures = np.zeros((10, 1, 1, 3), np.uint8)
    boundaries = np.array([0, 4, 10])
    rendered = Rendered(Path(), pictures, actions, boundaries)
    clip = Clip(pictures[6:8], actions[6:8], context=1, episode=1, first=2)
    assert course(rendered, clip, 6)[:, 0].tolist() == [7, 8, 9, 0, 1, 2]


SETTINGS = {"world": "w", "effort": {"moments": 2}}


def test_notes_are_kept_over_a_cut(tmp_path: Path) -> None:
    file = tmp_path / "observed.jsonl"
    notes = Notes(file, SETTINGS)
    notes.add(("turns", 4, 8), [{"right": False}])
    notes.add(("turns", 0, 4), [{"right": True}])
    with file.open("a") as torn:
        torn.write('[["turns", 8, 12], [{"ri')
    again = Notes(file, SETTINGS)
    assert ("turns", 0, 4) in again
    assert ("turns", 8, 12) not in again
    assert again.records("turns") == [{"right": True}, {"right": False}]  # in order of moments
    again.add(("turns", 8, 12), [])
    assert ("turns", 8, 12) in Notes(file, SETTINGS)


def test_notes_of_other_settings_are_begun_anew(tmp_path: Path) -> None:
    Notes(tmp_path / "o.jsonl", SETTINGS).add(("turns", 0, 4), [{"right": True}])
    assert ("turns", 0, 4) not in Notes(tmp_path / "o.jsonl", {**SETTINGS, "world": "other"})


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
    there_and_back = np.stack([wide[:, 100:164], wide[:, 108:172], wide[:, 100:164]])
    right, left = probe.read(there_and_back).camera[:, 0]
    assert right > 4
    assert left < -4
    assert isinstance(probe, Probe)


def test_psnr_of_a_known_error() -> None:
    truth = np.zeros((1, 2, 2, 3), np.uint8)
    assert psnr(truth, truth + 16) == pytest.approx(20 * np.log10(255 / 16))


def test_a_contact_sheet_holds_every_picture() -> None:
    rows = [np.full((3, 4, 5, 3), value, np.uint8) for value in (10, 20, 30, 40)]
    sheet = contact_sheet(rows)
    assert sheet.shape == (4 * 4 + 4, 3 * 6 - 1, 3)
    assert {10, 20, 30, 40} <= set(np.unique(sheet).tolist())
