"""The networks of a world on disk, back in PyTorch."""

from __future__ import annotations

from dataclasses import replace

import torch
from safetensors.torch import load_file
from torch import nn

from reverie.core import ReverieError
from reverie.formats import FORMATS, OASIS_ACTIONS
from reverie.model.adapters.oasis import OasisModel, load_oasis
from reverie.model.adapters.shortcut import ShortcutModel
from reverie.model.autoencoder import Autoencoder, AutoencoderConfig
from reverie.model.denoiser import Denoiser, DenoiserConfig
from reverie.model.sampler import CausalModel, Pictures
from reverie.world import OWN_FORMAT, WEIGHTS, World


def load_model(world: World, device: torch.device) -> tuple[CausalModel, Pictures]:
    """What plays a world of any format on a device: the model that draws latents, and what encodes
    and decodes them. Raises ReverieError on files that do not fit.
    """
    if world.config.format == "oasis":
        config = world.config
        exact_window = config.denoiser.get("exact_window", False)
        if set(config.denoiser) - {"exact_window"} or not isinstance(exact_window, bool):
            raise ReverieError(
                f"denoiser is {dict(config.denoiser)}; expected only 'exact_window', true or false"
            )
        if replace(config.action_space, keymap={}) != replace(OASIS_ACTIONS, keymap={}):
            raise ReverieError(
                "action_space is not that of the Oasis format; only its keymap may be otherwise"
            )
        files = FORMATS["oasis"].files(world.path)
        denoiser, autoencoder = load_oasis(files[0], files[1], config.frame_shape[:2])
        for network in (denoiser, autoencoder):
            _move(network, device)
        return OasisModel(denoiser, config.context + 1, exact_window), autoencoder
    autoencoder, denoiser = load_networks(world)
    for network in (denoiser, autoencoder):
        _move(network, device)
    return ShortcutModel(denoiser, world.config.context_signal), autoencoder


def _move(network: nn.Module, device: torch.device) -> None:
    """To a device; on a GPU, what is multiplied is bfloat16 from now on."""
    network.to(device)
    for part in network.modules() if device.type == "cuda" else ():
        if isinstance(part, nn.Linear | nn.Conv2d):
            part.to(torch.bfloat16)


def load_networks(world: World) -> tuple[Autoencoder, Denoiser]:
    """The PyTorch networks of a world on disk, float32, ready for use or for more training. Raises
    ReverieError on a world of another format.
    """
    if world.config.format != OWN_FORMAT:
        raise ReverieError(
            f"world {world.config.name!r} is of the format {world.config.format!r}; "
            "expected one that Reverie trained"
        )
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
