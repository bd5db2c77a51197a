"""Autoencoder: shapes, normalised latents, and bad configs in one line."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reverie.model.autoencoder import (
    Autoencoder,
    AutoencoderConfig,
    normalise,
    to_frames,
    to_pixels,
)

TINY = AutoencoderConfig(64, 32, 8, (8, 16, 16, 32), (0, 1, 1, 1), (1, 1, 1, 1))


def test_latents_are_tokens_of_unit_variance_and_zero_mean() -> None:
    network = Autoencoder(TINY)
    latents = network.encode(torch.rand(3, 3, 32, 64))
    assert latents.shape == (3, TINY.num_tokens, 8)
    torch.testing.assert_close(latents.mean(-1), torch.zeros(3, 8), atol=1e-5, rtol=0)
    torch.testing.assert_close(latents.std(-1, correction=0), torch.ones(3, 8), atol=1e-2, rtol=0)


@pytest.mark.parametrize("widths", [(8, 16, 32), (8, 16, 16, 32), (8, 8, 16, 16, 32)])
def test_decoding_gives_the_picture_size_back_at_every_stride(widths: tuple[int, ...]) -> None:
    levels = len(widths)
    config = AutoencoderConfig(64, 32, 8, widths, (1,) * levels, (1,) * levels)
    network = Autoencoder(config)
    pixels = torch.rand(2, 3, 32, 64)
    assert config.stride == 2**levels
    assert network.decode(network.encode(pixels)).shape == pixels.shape


def test_a_token_sees_its_own_place() -> None:
    """Rows and columns are not swapped on the way through the flat list of tokens."""
    network = Autoencoder(TINY)
    latents = torch.zeros(1, TINY.num_tokens, 8)
    changed = latents.clone()
    _, columns = TINY.grid
    changed[0, 1 * columns + 2] = 1.0
    with torch.no_grad():
        difference = (network.decode(changed) - network.decode(latents)).abs().sum(1)[0]
    weight = difference / difference.sum()
    row = float((weight.sum(1) * torch.arange(32)).sum())
    column = float((weight.sum(0) * torch.arange(64)).sum())
    assert abs(row - 24) < 10
    assert abs(column - 40) < 12


def test_attributes_are_painted_and_nothing_is_as_usual() -> None:
    torch.manual_seed(0)
    plain = Autoencoder(TINY)
    network = Autoencoder(replace(TINY, attributes=(2, 3)))
    network.load_state_dict(plain.state_dict(), strict=False)
    latents = torch.randn(2, TINY.num_tokens, 8)
    usual, other = torch.tensor([[1.0, 0, 1, 0, 0]] * 2), torch.tensor([[0.0, 1, 1, 0, 0]] * 2)
    with torch.no_grad():
        expected = plain.decode(latents)
        for attributes in (None, usual, other):  # before training
            torch.testing.assert_close(network.decode(latents, attributes), expected)
        for stroke in network.painter.strokes:
            for weight in stroke.parameters():
                weight.normal_(std=0.1)
        painted = network.decode(latents, usual)
        torch.testing.assert_close(network.decode(latents), painted)
        assert (network.decode(latents, other) - painted).abs().mean() > 0.01
    assert torch.equal(network.encode(painted), plain.encode(painted))


def test_frames_survive_the_way_to_pixels_and_back() -> None:
    frames = torch.randint(0, 256, (2, 4, 6, 3), dtype=torch.uint8)
    assert torch.equal(to_frames(to_pixels(frames)), frames)


def test_normalise_is_idempotent() -> None:
    once = normalise(torch.randn(5, 8))
    torch.testing.assert_close(normalise(once), once, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"width": 100}, "not a multiple of 16"),
        ({"widths": (8, 16)}, "three at least"),
        ({"decoder_blocks": (1, 1)}, "decoder_blocks"),
        ({"widths": (32, 64, 128, 192)}, "each to divide four times the one before"),
    ],
)
def test_a_config_that_cannot_work_is_named(settings: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        AutoencoderConfig(**settings)
