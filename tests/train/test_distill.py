"""Distillation: the guided target by hand, and a student that comes to draw it in one step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reverie.model.autoencoder import normalise
from reverie.model.denoiser import Denoiser, DenoiserConfig
from reverie.train.denoiser import ForcingConfig, make_optimizers
from reverie.train.distill import Distillation, GuidanceConfig

CONFIG = DenoiserConfig((1, 2), 8, 3, context=3, width=32, depth=2, head_width=16, camera_column=1)
FORCING = ForcingConfig(own_share=0.0)


def teacher() -> Denoiser:
    torch.manual_seed(0)
    network = Denoiser(CONFIG)
    torch.nn.init.normal_(network.unembed.weight, std=0.2)
    return network


@pytest.mark.parametrize("key", [0.0, 1.0])
def test_what_an_action_changes_is_added(monkeypatch: pytest.MonkeyPatch, key: float) -> None:
    """f = key + turn + what else is told, as heard; the student draws 0."""
    distillation = Distillation(teacher(), GuidanceConfig(2.0, 0.5), FORCING, num_keys=1)

    def say(*given: Tensor) -> Tensor:
        return torch.zeros_like(given[3]) + given[-1].sum(-1)[..., None, None]

    def nothing(*given: Tensor) -> Tensor:
        return torch.zeros_like(given[3])

    monkeypatch.setattr(distillation, "teacher", say)
    monkeypatch.setattr(distillation, "network", nothing)
    actions = torch.tensor([key, 0.3, 0.1, 0.7]).expand(2, 4, 4)
    monkeypatch.setattr(nothing, "config", CONFIG, raising=False)
    loss = distillation.loss(torch.randn(2, 4, 2, 8), actions, 0.0, torch.Generator())
    expected = (key + 0.3 + 0.1 + 0.7) + 2.0 * (key + 0.5 * 0.4)
    assert loss.item() == pytest.approx(expected**2)


def test_without_guidance_the_student_says_what_the_teacher_says() -> None:
    distillation = Distillation(teacher(), GuidanceConfig(0.0), ForcingConfig(), num_keys=1)
    latents, actions = normalise(torch.randn(2, 4, 2, 8)), torch.randn(2, 4, 3)
    assert distillation.loss(latents, actions, 0.0, torch.Generator()).item() == 0.0


def test_the_student_comes_to_draw_what_guidance_draws_and_the_teacher_stays() -> None:
    distillation = Distillation(teacher(), GuidanceConfig(), ForcingConfig(), num_keys=1)
    before = {name: value.clone() for name, value in distillation.teacher.state_dict().items()}
    student, generator = distillation.networks[0], torch.Generator().manual_seed(0)
    optimizers = make_optimizers(student)
    losses = []
    for _ in range(60):
        latents = normalise(torch.randn(8, 4, 2, 8, generator=generator))
        actions = torch.randint(0, 2, (8, 4, 3), generator=generator).float()
        loss = distillation.loss(latents, actions, 0.0, generator)
        loss.backward()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = 3e-3
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.25 * sum(losses[:10])
    for name, value in distillation.teacher.state_dict().items():
        assert torch.equal(value, before[name])


def test_what_is_heard_leaves_the_camera_where_the_action_turned_it() -> None:
    network = teacher()
    for block in network.layers():
        torch.nn.init.normal_(block.attention.out.weight)
    latents, levels, actions = torch.randn(1, 3, 2, 8), torch.ones(1, 3), torch.zeros(1, 3, 3)
    turned = actions.clone()
    turned[..., 1] = 1.0
    given = (latents, levels, actions, latents, levels, levels)
    assert not torch.allclose(network(*given, actions, turned), network(*given, actions))
    for weight in network.embed_action.parameters():
        torch.nn.init.zeros_(weight)  # deaf: only the camera's place tells one action from another
    straight, away = network(*given, actions), network(*given, turned)
    assert torch.equal(network(*given, actions, turned), straight)
    assert torch.equal(network(*given, turned, actions), away)
    assert not torch.allclose(straight, away)
