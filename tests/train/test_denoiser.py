"""Shortcut forcing: targets by hand, levels on their grids, own rollouts in the context, and a loss
that falls.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reverie.model.adapters.shortcut import ShortcutModel
from reverie.model.autoencoder import normalise
from reverie.model.denoiser import Denoiser, DenoiserConfig
from reverie.model.sampler import Sampler
from reverie.train.denoiser import Forcing, ForcingConfig, make_optimizers, mix

CONFIG = DenoiserConfig((1, 2), 8, 3, context=3, width=32, depth=2, head_width=16, camera_column=1)


@pytest.fixture
def forcing() -> Forcing:
    torch.manual_seed(0)
    return Forcing(Denoiser(CONFIG), ForcingConfig())


def test_levels_lie_on_the_grid_of_their_step_size(forcing: Forcing) -> None:
    generator = torch.Generator().manual_seed(0)
    signal, step_size = forcing.draw_levels(64, 32, 4, generator, torch.device("cpu"))
    assert (step_size[32:] == CONFIG.min_step_size).all()
    assert set(step_size[:32].unique().tolist()) == {1.0, 0.5, 0.25}
    cells = signal[:32] / step_size[:32]
    torch.testing.assert_close(cells, cells.round())
    assert (signal + step_size <= 1 + CONFIG.min_step_size).all()
    assert 0.15 < (signal[32:] == 0).float().mean() < 0.35


def test_the_shortcut_target_is_where_two_half_steps_lead(
    forcing: Forcing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """f = noisy + level: with d = 1 from 0, b1 = 0, so halfway = noisy; b2 = (1/2) / (1/2) = 1;
    target = noisy + 1/2.
    """
    calls: list[float] = []

    def network(
        _a: Tensor, _b: Tensor, _c: Tensor, at: Tensor, level: Tensor, half: Tensor, _d: Tensor
    ) -> Tensor:
        calls.append(float(half[0, 0]))
        return at + level[..., None, None]

    monkeypatch.setattr(forcing, "network", network)
    noisy = torch.randn(1, 3, 2, 8)
    zeros, ones = torch.zeros(1, 3), torch.ones(1, 3)
    given = (noisy, ones, torch.zeros(1, 3, 3))
    target = forcing._shortcut_target(given, noisy, zeros, ones, torch.zeros(1, 3, 3))
    torch.testing.assert_close(target, noisy + 0.5)
    assert calls == [0.5, 0.5]


def test_rollouts_end_sequences_of_both_halves_of_a_batch(forcing: Forcing) -> None:
    """A batch begins with the sequences that learn larger steps: play uses those. The first frame
    is always true: nothing precedes it.
    """
    past = normalise(torch.randn(8, 3, 2, 8))
    generator = torch.Generator().manual_seed(3)
    mixed = forcing.with_rollouts(past, torch.zeros(8, 3, 3), generator)
    own = (mixed != past).flatten(2).any(2)
    assert not own[:, 0].any()
    assert own[:4, -1].any()
    assert own[4:, -1].any()
    assert own[:, -1].sum() == 8 * forcing.config.own_share
    assert (own[:, 1] <= own[:, 2]).all()  # once it plays by itself, it goes on


def test_a_rollout_is_what_the_sampler_plays(forcing: Forcing) -> None:
    network = forcing.network
    torch.nn.init.normal_(network.unembed.weight)
    past, actions = normalise(torch.randn(1, 3, 2, 8)), torch.randn(1, 3, 3)
    rolled = Forcing(network, ForcingConfig(own_share=1.0)).with_rollouts(
        past, actions, torch.Generator().manual_seed(0)
    )
    generator = torch.Generator().manual_seed(0)
    first = int(torch.randint(1, 3, (1,), generator=generator))
    sampler = Sampler(ShortcutModel(network, forcing.config.context_signal), 1)
    for index in range(3):
        noise = torch.randn((2, 1, 2, 8), generator=generator)
        frame = past[:, index]
        if index >= first:
            start = noise[0] * forcing.config.noise_scale
            frame = normalise(sampler.sample([0], start, actions[:, index], [index], 1))
        torch.testing.assert_close(rolled[:, index], frame)
        sampler.commit([0], frame, noise[1], actions[:, index], [index])


def test_the_smallest_batch_trains_with_rollouts_and_larger_steps(forcing: Forcing) -> None:
    generator = torch.Generator().manual_seed(0)
    latents = normalise(torch.randn(1, 4, 2, 8))
    assert forcing.loss(latents, torch.zeros(1, 4, 3), 1.0, generator).isfinite()


def test_training_learns_a_world_that_an_action_moves(forcing: Forcing) -> None:
    """Latents shift by one channel when the first action is on: far below what standing still would
    give.
    """
    network = forcing.network
    optimizers = make_optimizers(network)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for step in range(150):
        first = normalise(torch.randn(8, 2, 8, generator=generator))
        moves = torch.randint(0, 2, (8, 4), generator=generator)
        frames = [first]
        for t in range(1, 4):
            moved = frames[-1].roll(1, -1)
            frames.append(torch.where(moves[:, t, None, None] > 0, moved, frames[-1]))
        actions = torch.zeros(8, 4, 3)
        actions[..., 0] = moves
        loss = forcing.loss(torch.stack(frames, 1), actions, step / 150, generator)
        loss.backward()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = 5e-3
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])


def test_every_weight_has_exactly_one_optimizer(forcing: Forcing) -> None:
    groups = [
        id(p) for o in make_optimizers(forcing.network) for g in o.param_groups for p in g["params"]
    ]
    assert sorted(groups) == sorted(id(p) for p in forcing.network.parameters())


def test_mix_is_noise_at_zero_and_clean_at_one() -> None:
    clean, noise = torch.ones(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)
    assert mix(clean, noise, torch.tensor([[0.0, 1.0]])).flatten().tolist() == [0.0, 1.0]
