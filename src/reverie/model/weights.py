"""The networks of a world on disk, back in PyTorch."""

from __future__ import annotations

from safetensors.torch import load_file

from reverie.model.autoencoder import Autoencoder, AutoencoderConfig
from reverie.model.denoiser import Denoiser, DenoiserConfig
from reverie.world import WEIGHTS, World


def load_networks(world: World) -> tuple[Autoencoder, Denoiser]:
    """The PyTorch networks of a world on disk, float32, ready for use or for more training."""
    weights = load_file(world.path / WEIGHTS)
    settings = dict(world.config.denoiser)
    settings.pop("frequencies")
    networks: tuple[Autoencoder, Denoiser] = (
        Autoencoder(AutoencoderConfig(**world.config.autoencoder)),
        Denoiser(DenoiserConfig(**settings)),
    )
    for part, network in zip(("autoencoder", "denoiser"), networks, strict=True):
        own = {
            key.removeprefix(part + "."): value
            for key, value in weights.items()
            if key.startswith(part + ".")
        }
        network.load_state_dict({key: value.float() for key, value in own.items()})
        network.eval().requires_grad_(False)
    return networks
