"""Denoiser and Sampler: the cached step agrees with recomputing the whole window, and nothing looks
ahead.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reverie.model.adapters.shortcut import ShortcutModel, frame_phases
from reverie.model.autoencoder import normalise
from reverie.model.denoiser import Denoiser, DenoiserConfig, PlayPass
from reverie.model.sampler import Sampler

CONFIG = DenoiserConfig((2, 3), 8, 5, context=4, width=32, depth=4, head_width=16, camera_column=1)


@pytest.fixture
def denoiser() -> Denoiser:
    torch.manual_seed(0)
    network = Denoiser(CONFIG).eval().requires_grad_(False)
    for weight in network.parameters():
        if not weight.any():  # zero at the start of training: nothing would flow
            weight.normal_(std=0.1)
    return network


def test_a_denoiser_has_a_layer_that_remembers() -> None:
    with pytest.raises(ValueError, match="depth 1; expected 2 or more"):
        DenoiserConfig((2, 3), 8, 5, context=4, width=32, depth=1, head_width=16)


def segment(num_frames: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = normalise(torch.randn(2, num_frames, 6, 8, generator=generator))
    noise = torch.randn(2, num_frames, 6, 8, generator=generator)
    return latents, torch.randn(2, num_frames, 5, generator=generator), noise


def window(
    denoiser: Denoiser, context: Tensor, noisy: Tensor, actions: Tensor, signal: float
) -> Tensor:
    """The slow way: the last noisy frame after all of its context, nothing cached."""
    t = context.shape[1]
    level = torch.full((2, t), signal)
    fresh = torch.cat([context[:, 1:], noisy[:, None]], 1)
    return denoiser(
        context,
        torch.full((2, t), 0.9),
        actions[:, :-1],
        fresh,
        level,
        torch.full((2, t), 0.5),
        actions[:, 1:],
    )[:, -1]


def test_cached_steps_agree_with_recomputing_the_window(denoiser: Denoiser) -> None:
    latents, actions, noise = segment(CONFIG.context + 1)
    sampler = Sampler(ShortcutModel(denoiser, 0.9), 2)
    context = 0.9 * latents[:, :-1] + 0.1 * noise[:, :-1]
    for t in range(CONFIG.context):
        sampler.commit([0, 1], latents[:, t], noise[:, t], actions[:, t], [t, t])
    index = torch.full((2,), CONFIG.context)
    rows, turns = denoiser.camera(actions[:, -1])
    cos, sin = frame_phases(denoiser, rows, sampler.state[:, 0] + turns, index)
    level = torch.full((2,), 0.25)
    step_size = torch.full((2,), 0.5)
    k, v = ([ring for name, ring in sampler.rings.items() if name[0] == kind] for kind in "kv")
    given = PlayPass(noise[:, -1], level, step_size, actions[:, -1], cos, sin, k, v)
    cached, new_k, new_v = denoiser.step(given)
    kept_k, kept_v = denoiser.remember(given)
    assert len(kept_k) == len(kept_v) == len(CONFIG.cached_layers)
    assert all(map(torch.equal, (*new_k, *new_v), (*kept_k, *kept_v)))
    torch.testing.assert_close(
        cached, window(denoiser, context, noise[:, -1], actions, 0.25), atol=2e-5, rtol=1e-4
    )


def test_only_differences_of_time_matter(denoiser: Denoiser) -> None:
    """An hour into a session the same past gives the same frame: keys are turned by absolute
    time.
    """
    latents, actions, noise = segment(CONFIG.context + 1)
    drawn = []
    for start in (-CONFIG.context, 72_000):
        sampler = Sampler(ShortcutModel(denoiser, 0.9), 2)
        for t in range(CONFIG.context):
            sampler.commit([0, 1], latents[:, t], noise[:, t], actions[:, t], [start + t] * 2)
        drawn.append(
            sampler.sample([0, 1], noise[:, -1], actions[:, -1], [start + CONFIG.context] * 2, 2)
        )
    torch.testing.assert_close(drawn[0], drawn[1], atol=1e-3, rtol=1e-3)


def test_a_noisy_frame_sees_its_past_and_itself_only(denoiser: Denoiser) -> None:
    latents, actions, noise = segment(5)
    level = torch.full((2, 4), 0.5)

    def run(context: Tensor, noisy: Tensor, action: Tensor) -> Tensor:
        return denoiser(context, level, actions[:, :-1], noisy, level, level, action)

    base = run(latents[:, :-1], noise[:, 1:], actions[:, 1:])
    later_context = latents[:, :-1].clone()
    later_context[:, 2:] += 1.0
    other_noise = noise[:, 1:].clone()
    other_noise[:, 0] += 1.0
    other_action = actions[:, 1:].clone()
    other_action[:, 3] += 1.0
    torch.testing.assert_close(run(later_context, noise[:, 1:], actions[:, 1:])[:, :2], base[:, :2])
    torch.testing.assert_close(
        run(latents[:, :-1], other_noise, actions[:, 1:])[:, 1:], base[:, 1:]
    )
    with_action = run(latents[:, :-1], noise[:, 1:], other_action)
    torch.testing.assert_close(with_action[:, :3], base[:, :3])
    assert (with_action[:, 3] - base[:, 3]).abs().max() > 1e-3
    assert (run(later_context, noise[:, 1:], actions[:, 1:])[:, 2] - base[:, 2]).abs().max() > 1e-3


def test_sessions_of_a_batch_do_not_touch_each_other(denoiser: Denoiser) -> None:
    latents, actions, noise = segment(CONFIG.context + 1)
    both, alone = Sampler(ShortcutModel(denoiser, 0.9), 2), Sampler(ShortcutModel(denoiser, 0.9), 2)
    for t in range(CONFIG.context):
        both.commit([0, 1], latents[:, t], noise[:, t], actions[:, t], [t, t])
        alone.commit([1], latents[1:, t], noise[1:, t], actions[1:, t], [t])
    together = both.sample([0, 1], noise[:, -1], actions[:, -1], [4, 4], 1)[1]
    single = alone.sample([1], noise[1:, -1], actions[1:, -1], [4], 1)[0]
    torch.testing.assert_close(together, single, atol=1e-5, rtol=1e-5)


def test_a_clean_prediction_is_reached_in_any_number_of_steps(
    denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the network always says the same picture, every number of Euler steps ends in it."""
    answer = torch.randn(2, 6, 8)
    monkeypatch.setattr(denoiser, "step", lambda *_: (answer, [], []))
    _, actions, noise = segment(1)
    for num_steps in (1, 2, 4):
        sampler = Sampler(ShortcutModel(denoiser, 0.9), 2)
        reached = sampler.sample([0, 1], noise[:, 0], actions[:, 0], [0, 0], num_steps)
        torch.testing.assert_close(reached, answer, atol=1e-5, rtol=1e-5)


def test_every_rotary_pair_turns_along_one_axis_and_waves_cover_the_context() -> None:
    frequencies = torch.tensor(CONFIG.frequencies)
    assert ((frequencies > 0).sum(0) == 1).all()
    time = frequencies[2][frequencies[2] > 0]
    assert (time.diff() < 0).all()
    assert 6.28 / time[-1] > CONFIG.context


def test_a_turned_camera_moves_a_frames_origin(denoiser: Denoiser) -> None:
    """After a turn of one token to the right, the second column lies where the first lay before,
    and the picture's rows where they were.
    """
    row = torch.zeros(1)
    looks = [frame_phases(denoiser, row, torch.tensor([column]), row) for column in (0.0, 1.0)]
    before, after = (denoiser.rotary(*phases) for phases in looks)
    rows, columns = CONFIG.grid
    for old, new in zip(before, after, strict=True):
        grids = [phases[0, 0].unflatten(0, (rows, columns)) for phases in (old, new)]
        torch.testing.assert_close(grids[0][:, 1:], grids[1][:, :-1], atol=1e-5, rtol=1e-5)


def test_the_camera_is_read_off_an_action(denoiser: Denoiser) -> None:
    """The turn to the right from its column, the pitch from the last."""
    action = torch.zeros(1, CONFIG.action_width)
    action[0, CONFIG.camera_column or 0], action[0, -1] = 0.5, -2.0
    rows, turns = denoiser.camera(action)
    torch.testing.assert_close(rows, torch.tensor([-2.0 * CONFIG.camera_tokens]))
    torch.testing.assert_close(turns, torch.tensor([0.5 * CONFIG.camera_tokens]))
