"""The refiner: where it looks for what was seen before, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from reverie.core import Action, ActionSpace
from reverie.envs.meadow.env import MeadowEnv
from reverie.envs.meadow.render import TAN_HALF_FOV
from reverie.model.autoencoder import to_pixels
from reverie.model.refiner import Refiner, _sample

HUD_ROWS = 12
"""At the bottom of a picture of 96 rows: the hotbar does not turn."""


def turned(before: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
    """A picture as it would be seen after a turn, and where it is known."""
    height, width = before.shape[-2:]
    refiner = Refiner(height, width, (8, 8))
    refiner.tangent.data.fill_(TAN_HALF_FOV)
    seen = torch.cat([before, torch.ones_like(before[:, :1])], 1)
    with torch.no_grad():
        return _sample(seen, refiner._turned(turn))


@pytest.fixture(scope="module")
def looking() -> tuple[list[Tensor], list[Action], list[float], ActionSpace]:
    """Pictures of someone who stands and looks around, with the actions between them and the pitch
    after each.
    """
    env = MeadowEnv(160, 96)
    try:
        env.reset(seed=3)
        idle = env.controls.encode(Action())
        frame, *_, info = [env.step(idle) for _ in range(30)][-1]  # until they stand
        turns = [(6.0, 0.0), (0.0, 7.0), (-9.0, 3.0), (4.0, -12.0), (12.0, 5.0)]
        actions = [Action(mouse=turn) for turn in turns]
        pictures, pitches = [to_pixels(torch.from_numpy(frame[None]))], [float(info["pitch"])]
        for action in actions:
            frame, *_, info = env.step(env.controls.encode(action))
            pictures.append(to_pixels(torch.from_numpy(frame[None])))
            pitches.append(float(info["pitch"]))
        return pictures, actions, pitches, env.controls
    finally:
        env.close()


def test_a_turn_of_the_camera_is_undone(
    looking: tuple[list[Tensor], list[Action], list[float], ActionSpace],
) -> None:
    """Against the simulator: what it shows after a turn lies where the picture before is found."""
    pictures, actions, pitches, space = looking
    for i, action in enumerate(actions):
        told = space.tell(space.encode(action), pitches[i + 1])
        turn = torch.from_numpy(space.turn(told, pitches[i]))[None]
        found, known = turned(pictures[i], turn)
        inside = known.clone()
        inside[..., -HUD_ROWS:, :] = 0
        assert 0.5 < float(known.mean()) < 0.97
        errors = [
            float(((picture - pictures[i + 1]).square() * inside).sum() / inside.sum())
            for picture in (found, pictures[i])
        ]
        assert errors[0] < 0.25 * errors[1], action


def test_without_a_camera_nothing_turns() -> None:
    space = ActionSpace(("left", "right"))
    assert not space.turn(space.tell(space.encode(Action({"left"})), 0.0), 0.0).any()
    picture = torch.rand(2, 3, 32, 64)
    found, known = turned(picture, torch.zeros(2, 3))
    torch.testing.assert_close(found, picture, atol=1e-5, rtol=0)
    torch.testing.assert_close(known, torch.ones_like(known), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_picture_like_the_one_before_stays_and_a_share_of_another_comes_through() -> None:
    refiner = Refiner(32, 64, (8, 8))
    drawn, still = torch.rand(2, 3, 32, 64), torch.zeros(2, 3)
    torch.testing.assert_close(refiner(drawn, drawn, still), drawn, atol=1e-5, rtol=0)
    other = torch.rand(2, 3, 32, 64)
    shares = (refiner(drawn, other, still) - drawn) / (other - drawn)
    assert 0.2 < float(shares.median()) < 0.3


@torch.no_grad()
def test_what_is_drawn_over_the_scene_comes_from_the_decoder() -> None:
    refiner = Refiner(32, 64, (8, 8))
    refiner.fixed[..., 24:, :] = 1.0
    drawn, before = torch.zeros(1, 3, 32, 64), torch.ones(1, 3, 32, 64)
    refined = refiner(drawn, before, torch.tensor([[0.0, 0.0, 0.3]]))  # looks down: it comes up
    assert float(refined[..., 24:, :].abs().max()) < 0.01
    assert float(refined[..., :4, :].mean()) > 0.1
    found = (refined[0, 0] > 0.1).sum(1)
    assert not bool(found[12:].any()), "the bar of before is not of the scene"


def test_the_angle_of_view_and_what_is_fixed_can_be_learned() -> None:
    refiner = Refiner(32, 64, (8, 8))
    drawn, before = torch.rand(2, 1, 3, 32, 64)
    refiner(drawn, before, torch.full((1, 3), 0.1)).sum().backward()
    for weight in (refiner.tangent, refiner.fixed):
        assert weight.grad is not None
        assert np.abs(weight.grad.numpy()).max() > 0
