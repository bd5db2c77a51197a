"""The Oasis format against its slow twin: the reference's way, the whole window at every pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reverie.bench.oasis import random_denoiser, recompute
from reverie.core import Action
from reverie.formats import OASIS_ACTIONS
from reverie.model.adapters.oasis import COLUMNS, WINDOW, OasisModel
from reverie.model.adapters.oasis_networks import OasisDenoiser, OasisShape
from reverie.model.sampler import Sampler

SHAPE = OasisShape((4, 6), width=128, depth=3)
TOTAL = 40


@pytest.fixture(scope="module")
def denoiser() -> OasisDenoiser:
    return random_denoiser(SHAPE)


def play(model: OasisModel, first: Tensor, noise: Tensor, actions: Tensor) -> Tensor:
    sampler, sessions = Sampler(model, len(first)), list(range(len(first)))
    frames = [first[:, 0]]
    sampler.commit(sessions, frames[0], noise[:, 0], actions[:, 0], [0] * len(first))
    for i in range(1, actions.shape[1]):
        indices = [i] * len(first)
        frames.append(sampler.sample(sessions, noise[:, i], actions[:, i], indices, 10))
        sampler.commit(sessions, frames[-1], noise[:, i], actions[:, i], indices)
    return torch.stack(frames, 1)


@pytest.fixture(scope="module")
def reference(denoiser: OasisDenoiser) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = (2, TOTAL, SHAPE.channels, *SHAPE.grid)
    noise = torch.randn(latents, generator=generator)
    first = torch.randn(latents, generator=generator)[:, :1]
    actions = torch.randint(0, 2, (2, TOTAL, OASIS_ACTIONS.told_width), generator=generator).float()
    return first, noise, actions, recompute(denoiser, first, noise, actions)


def error(played: Tensor, truth: Tensor) -> float:
    return ((played - truth).norm() / truth.norm()).item()


def test_while_the_window_fills_frames_are_those_of_the_reference(
    denoiser: OasisDenoiser, reference: tuple[Tensor, Tensor, Tensor, Tensor]
) -> None:
    first, noise, actions, truth = reference
    played = play(OasisModel(denoiser), first, noise, actions)
    assert truth[:, 1:].std() > 0.3
    for t in range(1, WINDOW):
        assert error(played[:, t], truth[:, t]) < 1e-4
    # Beyond it the ring knows more than the reference, which forgets what has left its window.
    assert 1e-4 < error(played[:, -1], truth[:, -1]) < 0.5


def test_an_exact_window_is_the_reference_for_ever(
    denoiser: OasisDenoiser, reference: tuple[Tensor, Tensor, Tensor, Tensor]
) -> None:
    first, noise, actions, truth = reference
    played = play(OasisModel(denoiser, exact_window=True), first, noise, actions)
    for t in range(1, TOTAL):
        assert error(played[:, t], truth[:, t]) < 1e-4


def test_actions_and_the_past_change_what_is_drawn(
    denoiser: OasisDenoiser, reference: tuple[Tensor, Tensor, Tensor, Tensor]
) -> None:
    first, noise, actions, _ = (part[:, :4] for part in reference)
    base = play(OasisModel(denoiser), first, noise, actions)
    other = actions.clone()
    other[:, 2] = 1 - other[:, 2]
    changed = play(OasisModel(denoiser), first, noise, other)
    assert torch.equal(changed[:, :2], base[:, :2])
    assert error(changed[:, 2], base[:, 2]) > 1e-3
    assert error(play(OasisModel(denoiser), -first, noise, actions)[:, 3], base[:, 3]) > 1e-3


def test_the_checkpoints_columns_are_found_in_an_action() -> None:
    action = Action({"ESC", "jump", "drop"}, mouse=(-20.0, 10.0))
    told = OASIS_ACTIONS.tell(OASIS_ACTIONS.encode(action), 0.0)[list(COLUMNS)]
    assert {int(i): told[i] for i in told.nonzero()[0]} == {1: 1, 15: 0.5, 16: -1, 17: 1, 24: 1}
