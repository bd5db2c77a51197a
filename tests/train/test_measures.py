"""The measures themselves: the simulator's own frames pass every one, and each planted fault fails
the right one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from reverie.core import Action, ActionSpace, ReverieError
from reverie.data.episode import Dataset
from reverie.data.record import record
from reverie.data.render import Rendered, render
from reverie.envs.meadow.sim import MEADOW_ACTIONS, PROMPTED_ACTIONS
from reverie.model.autoencoder import Autoencoder, AutoencoderConfig
from reverie.train import long_play, measures
from reverie.train.long_play import frechet, goes_with, is_collapsed, picture_statistics
from reverie.train.measures import Setting, decibels, turn_along, turned_right
from reverie.train.motion import motion
from reverie.train.players import Actions, Clip, Frames, Player, Replay, draw_clips, play
from reverie.train.probe import Probe, Reading
from reverie.train.recipe import VIEW_DEG
from reverie.train.thresholds import RELEASE, missed

CONTEXT = 4
SIZE = (48, 80)


def held_out(folder: Path, count: int, length: int, **kwargs: bool) -> tuple[Dataset, Rendered]:
    """A few small test episodes of Meadow."""
    dataset = record(
        "reverie/Meadow-v0",
        folder,
        env_kwargs={"width": SIZE[1], "height": SIZE[0], **kwargs},
        episodes=0,
        validation=0,
        test=count,
        episode_actions=length,
        processes=1,
        progress=False,
    )
    return dataset, render(dataset, "test", cache=folder / "frames", processes=1, progress=False)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """The simulator as its own world, small: what it draws is right by definition."""
    folder = tmp_path_factory.mktemp("measured")
    dataset, test = held_out(folder, 8, 300)
    torch.manual_seed(0)
    shape = (8, (8, 16, 16, 32), (0, 1, 1, 1), (1, 1, 1, 1))
    replay = Replay(dataset)
    simulator = Remembering(replay)
    yield Setting(
        simulator,
        simulator,
        FlowProbe(),
        Autoencoder(AutoencoderConfig(SIZE[1], SIZE[0], *shape)).eval().requires_grad_(False),
        test,
        picture_statistics(test.frames[::4]),
        MEADOW_ACTIONS,
        CONTEXT,
        20,
    )
    replay.close()


class FlowProbe(Probe):
    """Reads turns off optical flow: in pictures this small, better than what can be learned in
    seconds.
    """

    def __init__(self) -> None:
        super().__init__(MEADOW_ACTIONS, *SIZE)

    def read(self, frames: Frames, batch_size: int = 64) -> Reading:
        flow = np.stack([motion(np.stack(pair)).mean((0, 1)) for pair in pairwise(frames)])
        return Reading(np.float32(-VIEW_DEG / SIZE[1]) * flow, np.zeros((len(flow), 8), np.float32))


class Remembering:
    """Plays what another plays, and nothing twice: measures ask for the same truth again."""

    def __init__(self, player: Player) -> None:
        self.player = player
        self.played: dict[bytes, Frames] = {}

    def stream(self, clips: Sequence[Clip], actions: Sequence[Actions]) -> Iterator[Frames]:
        sessions = []
        for clip, acted in zip(clips, actions, strict=True):
            key = repr((clip.episode, clip.first)).encode() + acted.tobytes()
            if key not in self.played:
                self.played[key] = play(self.player, clip, acted)
            sessions.append(self.played[key])
        yield from np.stack(sessions, 1)


class Faulty:
    """A player that draws what another draws, but for one fault. act: changes what it is told,
    [t, A]; draw: what it shows, from the clip, the number of the frame and the picture.
    """

    def __init__(
        self,
        player: Player,
        act: Callable[[Actions], Actions] = lambda actions: actions,
        draw: Callable[[Clip, int, Frames], Frames] = lambda clip, t, frame: frame,
    ) -> None:
        self.player, self.act, self.draw = player, act, draw

    def stream(self, clips: Sequence[Clip], actions: Sequence[Actions]) -> Iterator[Frames]:
        told = [self.act(acted.copy()) for acted in actions]
        for t, frames in enumerate(self.player.stream(clips, told)):
            yield np.stack([self.draw(c, t, f) for c, f in zip(clips, frames, strict=True)])


def columns(*pairs: tuple[str, str]) -> Callable[[Actions], Actions]:
    """Keys that take each other's place."""
    keys = MEADOW_ACTIONS.keys

    def swap(actions: Actions) -> Actions:
        for one, other in pairs:
            here, there = keys.index(one), keys.index(other)
            actions[:, [here, there]] = actions[:, [there, here]]
        return actions

    return swap


def camera(yaw: float, pitch: float) -> Callable[[Actions], Actions]:
    def scale(actions: Actions) -> Actions:
        first = len(MEADOW_ACTIONS.keys)
        actions[:, first : first + 2] *= (yaw, pitch)
        return actions

    return scale


def brighter(frame: Frames, levels: float) -> Frames:
    return np.clip(frame.astype(np.float32) + levels, 0, 255).astype(np.uint8)


def faded(frame: Frames, share: float) -> Frames:
    return (frame * (1 - share) + 90 * share).astype(np.uint8)


FAULTS: dict[str, tuple[set[str], dict[str, Any]]] = {
    "frozen": (
        {
            "next_frame_margin",
            "turns_obeyed",
            "keys_obeyed",
            "breaks",
            "memory_margin",
            "first_attempt",
        },
        {"draw": lambda clip, t, frame: clip.last[0]},
    ),
    "forward is back": ({"keys_obeyed"}, {"act": columns(("forward", "back"))}),
    "left is right": ({"keys_obeyed"}, {"act": columns(("left", "right"))}),
    "break is jump": ({"keys_obeyed", "breaks"}, {"act": columns(("break", "jump"))}),
    "place is jump": ({"keys_obeyed", "places"}, {"act": columns(("use", "jump"))}),
    "the camera turns the other way": ({"turns_obeyed", "first_attempt"}, {"act": camera(-1, 1)}),
    "turns are 20% too wide": ({"turn_angle_error"}, {"act": camera(1.2, 1.2)}),
    "flicker": ({"flicker_ratio"}, {"draw": lambda clip, t, frame: brighter(frame, 5 * (t % 2))}),
    "slow drift": (
        {"drift_ratio"},
        {"draw": lambda clip, t, frame: faded(frame, min(0.5, t / 600))},
    ),
    "forgets": (
        {"memory_margin"},
        {"draw": lambda clip, t, frame: clip.frames[-1 - t % 60] if 35 < t < 85 else frame},
    ),
    "mush": (
        {"collapsed", "first_attempt"},
        {"draw": lambda clip, t, frame: cv2.blur(frame, (25, 25)) if t > 100 else frame},
    ),
}
UNHARMED = {
    "flicker": {"turns_obeyed", "keys_obeyed", "collapsed", "memory_margin"},
    "forward is back": {"turns_obeyed", "turn_angle_error", "flicker_ratio", "collapsed"},
    "turns are 20% too wide": {"turns_obeyed", "keys_obeyed", "flicker_ratio", "collapsed"},
    "slow drift": {"turns_obeyed", "turn_angle_error", "keys_obeyed", "flicker_ratio"},
}


def measure(setting: Setting, folder: Path) -> dict[str, float]:
    """Every figure, from few moments."""
    clips = draw_clips(setting.test, setting.space, CONTEXT, 6, 64)
    figures: dict[str, float] = {}
    figures |= measures.next_frame_figures(measures.observe_next_frame(setting, clips))
    figures |= measures.flicker_figures(measures.observe_flicker(setting, clips[::3]))
    figures |= measures.turn_figures(measures.observe_turns(setting, clips))
    figures |= measures.walking_figures(measures.observe_walking(setting, clips))
    figures |= measures.memory_figures(measures.observe_memory(setting, clips))
    for name in measures.EDITS:
        moments = measures.edit_moments(setting, name, 8)
        figures |= measures.edit_figures(measures.observe_edits(setting, moments, name))
    film, sheet = folder / "film.mp4", folder / "sheet.jpg"
    played = long_play.observe_long_play(setting, clips[::2], 30, film, sheet)
    whole = np.split(setting.test.frames, setting.test.boundaries[1:-1])
    episodes = [frames[:: long_play.FEATURE_STRIDE] for frames in whole]
    truth = long_play.latent_features(setting.autoencoder, np.concatenate(episodes))
    boundaries = np.cumsum([0, *map(len, episodes)])
    figures |= long_play.long_play_figures(played, setting.real, truth, boundaries)
    attempts = long_play.observe_attempts(setting, clips[::2], 30)
    return figures | long_play.attempt_figures(attempts)


@pytest.fixture(scope="module")
def right(simulated: Setting, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    return measure(simulated, tmp_path_factory.mktemp("right"))


def test_the_simulators_own_frames_pass_every_measure(right: dict[str, float]) -> None:
    assert missed(right, RELEASE) == []
    assert set(RELEASE) - set(right) == {"reconstruction_psnr", "prompts_obeyed"}
    assert right["breaks_judged"] >= 4
    assert right["places_judged"] >= 2
    assert right["turns_judged"] > 0.5
    assert right["walk_speed_ratio"] == 1
    assert right["next_frame_psnr"] == 60


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_fails_the_right_measure(
    simulated: Setting, tmp_path: Path, fault: str
) -> None:
    expected, parts = FAULTS[fault]
    player = Faulty(simulated.player, **parts)
    figures = measure(replace(simulated, player=player), tmp_path)
    found = missed(figures, RELEASE)
    assert expected <= set(found)
    assert UNHARMED.get(fault, set()) <= set(figures)
    assert not UNHARMED.get(fault, set()) & set(found)


@pytest.fixture(scope="module")
def prompted(simulated: Setting, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """The simulator that takes prompts, as its own world."""
    folder = tmp_path_factory.mktemp("prompted")
    dataset, test = held_out(folder, 2, 100, prompts=True)
    replay = Replay(dataset)
    truth = Remembering(replay)
    yield replace(simulated, player=truth, simulator=truth, test=test, space=PROMPTED_ACTIONS)
    replay.close()


def test_wishes_come_true_in_the_simulator_and_nowhere_else(prompted: Setting) -> None:
    clips = draw_clips(prompted.test, PROMPTED_ACTIONS, CONTEXT, 2, 4)
    assert {name for clip in clips for name in _told(clip)} == set(PROMPTED_ACTIONS.attributes)
    records = measures.observe_prompts(prompted, clips)
    right = measures.prompt_figures(records)
    assert right["prompts_obeyed"] == right["prompts_keep_place"] == 1.0
    assert len(records) > 12  # of 2 x 12 wishes, those that change anything

    def deaf(actions: Actions) -> Actions:
        actions[:, PROMPTED_ACTIONS.attribute_columns] = clips[0].actions[
            0, PROMPTED_ACTIONS.attribute_columns
        ]
        return actions

    player = Faulty(prompted.player, act=deaf)
    wrong = measures.prompt_figures(
        measures.observe_prompts(replace(prompted, player=player), clips)
    )
    assert wrong["prompts_obeyed"] == 0.0

    def elsewhere(clip: Clip, t: int, frame: Frames) -> Frames:
        return clips[clip.first == clips[0].first].last[0]

    player = Faulty(prompted.player, draw=elsewhere)
    other = measures.prompt_figures(
        measures.observe_prompts(replace(prompted, player=player), clips)
    )
    assert other["prompts_keep_place"] < 0.2
    alone = measures.observe_prompts(prompted, clips[:1])
    assert "prompts_keep_place" not in measures.prompt_figures(alone)  # no other place to show


def _told(clip: Clip) -> Mapping[str, str]:
    return PROMPTED_ACTIONS.decode(clip.actions[CONTEXT - 1]).attributes


def test_a_world_that_walks_at_half_the_speed_is_told(simulated: Setting) -> None:
    """Every frame twice: the way is right, the speed is not."""

    class Slow(Faulty):
        def stream(self, clips: Sequence[Clip], actions: Sequence[Actions]) -> Iterator[Frames]:
            whole = list(self.player.stream(clips, actions))
            yield from (whole[t // 2] for t in range(len(whole)))

    clips = draw_clips(simulated.test, simulated.space, CONTEXT, 8, 64)
    slow = replace(simulated, player=Slow(simulated.player))
    figures = measures.walking_figures(measures.observe_walking(slow, clips))
    assert figures["walk_speed_ratio"] == pytest.approx(0.5, abs=0.2)
    assert figures["walks_forward"] > 0.7


def test_without_a_simulator_what_was_asked_for_is_the_truth(simulated: Setting) -> None:
    clips = draw_clips(simulated.test, simulated.space, CONTEXT, 8, 64)
    alone = replace(simulated, simulator=None)
    turns = measures.turn_figures(measures.observe_turns(alone, clips))
    assert turns["turns_judged"] == 1
    assert turns["turns_right"] > 0.7
    flicker = measures.flicker_figures(measures.observe_flicker(alone, clips[:2]))
    assert flicker["flicker_ratio"] < 1.2
    memory = measures.memory_figures(measures.observe_memory(alone, clips))
    assert memory["memory_margin"] > 3


def test_a_replay_draws_what_was_recorded_and_is_not_moved_by_what_it_played(
    simulated: Setting,
) -> None:
    clip = draw_clips(simulated.test, simulated.space, CONTEXT, 3, 8)[1]
    recorded = clip.actions[CONTEXT : CONTEXT + 8]
    for _ in range(2):  # replayed, then copied
        again = play(simulated.player, clip, recorded)
        assert np.array_equal(again, clip.frames[CONTEXT : CONTEXT + 8])
        play(simulated.player, clip, measures.held(simulated.space, Action({"forward"}), clip))


def test_a_simulator_that_shows_something_else_is_said(simulated: Setting) -> None:
    clip = draw_clips(simulated.test, simulated.space, CONTEXT, 3, 8)[1]
    other = replace(clip, frames=255 - clip.frames, first=clip.first + 1)
    with pytest.raises(ReverieError, match="no longer shows what was recorded"):
        play(simulated.player, other, clip.actions[:2])


def test_moments_of_edits_begin_where_a_key_is_pressed(simulated: Setting) -> None:
    for clip in measures.edit_moments(simulated, "breaks", 5):
        keys = [simulated.space.decode(action).keys for action in clip.actions]
        assert "break" in keys[CONTEXT]
        assert "break" not in keys[CONTEXT - 1]


# -- parts ----------------------------------------------------------------------------------------


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
    # What is read of the simulator's own turn must be more, or nothing is judged by it.
    little = np.array([20, 0], np.float32)
    assert turned_right(little, (4.0, 0.0))
    assert not turned_right(little, (4.0, 0.0), measures.HALF)


def test_figures_leave_out_what_was_not_judged() -> None:
    nothing = [{"way": "right", "judged": False}]
    assert measures.turn_figures(nothing) == {"turns_judged": 0}
    one = [{"way": "right", "judged": True, "right": True, "ratio": 1.0}]
    assert measures.turn_figures(one) == {"turns_right": 1, "turns_judged": 1}
    assert measures.walking_figures(nothing) == {"walks_judged": 0}
    assert measures.memory_figures([]) == {}
    assert measures.edit_figures([]) == {}


def test_frechet_is_zero_for_the_same_and_grows_with_mean_and_spread() -> None:
    generator = np.random.default_rng(0)
    a = generator.normal(size=(4000, 3))
    assert frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet(a, a + np.array([2, 0, 0])) == pytest.approx(4, abs=1e-6)
    assert frechet(a, a * 3) == pytest.approx(3 * 4, rel=0.1)  # (3 - 1)**2 along each axis


def test_turns_go_with_what_was_asked_for_or_not() -> None:
    asked = np.random.default_rng(0).normal(size=(60, 2)) * 4
    read = asked.astype(np.float32)
    assert goes_with(read * 0.7, asked)
    assert not goes_with(-read, asked)
    assert not goes_with(read * np.array([1, 0], np.float32), asked)
    assert goes_with(read * 0, asked * 0)  # nothing was asked


def test_turns_stop_at_the_limits_of_the_neck() -> None:
    space = ActionSpace((), 15.0, pitch_limits=(-20.0, 20.0))
    down = np.stack([space.encode(Action(mouse=(3, 10)))] * 3)
    clip = Clip(np.zeros((1, 8, 8, 3), np.uint8), down[:1], 1, pitch_deg=-5.0)
    asked = long_play.turns_asked(space, clip, down)  # the clip's own action led to 5 degrees down
    np.testing.assert_allclose(asked, [[3, 10], [3, 5], [3, 0]], atol=1e-5)


def test_decibels_of_a_known_error() -> None:
    assert decibels(256.0) == pytest.approx(20 * np.log10(255 / 16), abs=0.01)
    assert decibels(0.0) == 60
