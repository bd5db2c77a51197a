"""Train the Autoencoder on rendered frames: L1 of pixels and of their differences, latents lightly
noised.

The noise on the latents teaches the decoder to read what a Denoiser writes, which is never exact.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from reverie.core import ActionSpace, ReverieError
from reverie.data.render import Rendered
from reverie.model.autoencoder import Autoencoder, AutoencoderConfig, to_frames, to_pixels
from reverie.train import parallel
from reverie.train.run import Run, RunConfig, load_checkpoint, load_weights, pick_device
from reverie.train.sheets import psnr, write_sheet

LATENT_NOISE = 0.1


@dataclass(frozen=True)
class Wished:
    """The same play as wished that a `Rendered` has as usual, row by row. frames: uint8 [N, h, w,
    3]. attributes: float32 [N, k], encoded. rows: those that show all that was wished for.
    """

    frames: NDArray[np.uint8]
    attributes: NDArray[np.float32]
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, rendered: Rendered, space: ActionSpace, num_fading: int) -> Wished:
        """num_fading: frames in which an environment may fade from one look to another. Raises
        ReverieError where no wish lasts longer.
        """
        attributes = rendered.actions[:, space.attribute_columns]
        index = np.arange(len(attributes))
        changed = np.r_[True, (attributes[1:] != attributes[:-1]).any(1)]
        changed[rendered.boundaries[:-1]] = True
        age = index - np.maximum.accumulate(np.where(changed, index, 0))
        rows = np.flatnonzero(age >= num_fading)
        if (attributes[rows] == space.encode_attributes({})).all():
            raise ReverieError(
                f"in {rendered.path} nobody wishes for anything for {num_fading} frames; "
                "record more episodes, or longer ones"
            )
        return cls(rendered.frames, attributes, rows)


def train_autoencoder(
    folder: Path,
    network: Autoencoder,
    run_config: RunConfig,
    train: Rendered,
    validation: Rendered,
    decoder_only: bool = False,
    wished: tuple[Wished, Wished] | None = None,
) -> Run:
    """Train a network, new or trained before, in `folder`; goes on from the checkpoint there.

    decoder_only: the encoder stays, and with it the latents and every denoiser that was trained on
    them. wished: both splits as they are to be painted, half of every batch.
    """
    device = pick_device(run_config.threads)
    torch.manual_seed(run_config.seed)
    network = network.to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    settings = {"autoencoder": settings_of(network)}
    if wished and run_config.batch_size < 2 * parallel.num_processes():
        raise ReverieError(
            f"a batch of {run_config.batch_size} has no room for wishes; expected at least 2 for "
            f"each of {parallel.num_processes()} processes"
        )
    network.encoder.requires_grad_(not decoder_only)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, betas=(0.9, 0.98), weight_decay=1e-4)
    run = Run(folder, run_config, network, [optimizer], settings)
    held_out = validation.frames[_spread(np.arange(len(validation.frames)))]

    def train_step(step: int) -> Tensor:
        generator = np.random.Generator(np.random.Philox(key=[run_config.seed, step]))
        rows = generator.integers(0, len(train.frames), run_config.batch_size)
        rows = rows[parallel.share_of(run_config.batch_size)]
        pixels, target, attributes = _batch(network, rows, train, wished and wished[0], device)
        with torch.autocast(device.type, torch.bfloat16):
            latents = network.encode(pixels)
            noisy = latents + LATENT_NOISE * torch.randn_like(latents)
            rebuilt = network.decode(noisy, attributes)
        return reconstruction_loss(rebuilt.float(), target)

    def inspect(step: int) -> dict[str, float]:
        rebuilt = decode_frames(network, encode_frames(network, held_out))
        pairs = [row for i in range(0, 16, 8) for row in (held_out[i : i + 8], rebuilt[i : i + 8])]
        figures = {"reconstruction_psnr": psnr(held_out, rebuilt)}
        if wished:
            rows = _spread(wished[1].rows)
            latents, truth = encode_frames(network, validation.frames[rows]), wished[1].frames[rows]
            painted = decode_frames(network, latents, torch.from_numpy(wished[1].attributes[rows]))
            pairs += [
                row for i in range(0, 32, 8) for row in (truth[i : i + 8], painted[i : i + 8])
            ]
            figures["painted_psnr"] = psnr(truth, painted)
        write_sheet(folder / "sheets" / f"{step:06}.jpg", pairs)
        return figures

    run.train(train_step, inspect)
    return run


def _batch(
    network: Autoencoder,
    rows: NDArray[np.int64],
    train: Rendered,
    wished: Wished | None,
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Pictures, what is to be made of them, and the attributes to paint."""
    half = len(rows) // 2
    if wished:
        rows[:half] = wished.rows[rows[:half] % len(wished.rows)]
    frames = train.frames[rows]
    pixels = _pixels(frames, device)
    if not wished:
        return pixels, pixels, None
    frames[:half] = wished.frames[rows[:half]]
    attributes = torch.from_numpy(wished.attributes[rows]).to(device)
    attributes[half:] = network.painter.usual
    return pixels, _pixels(frames, device), attributes


def _spread(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return rows[np.linspace(0, len(rows) - 1, 64).astype(int)]


def _pixels(frames: NDArray[np.uint8], device: torch.device) -> Float[Tensor, "b 3 h w"]:
    pixels = to_pixels(torch.from_numpy(frames).to(device))
    return pixels.contiguous(memory_format=torch.channels_last)


def reconstruction_loss(
    rebuilt: Float[Tensor, "b 3 h w"], truth: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, ""]:
    """L1, squared error (edges first) and L1 of horizontal and vertical differences (texture)."""
    error = rebuilt - truth
    across = F.l1_loss(error[..., 1:], error[..., :-1])
    down = F.l1_loss(error[..., 1:, :], error[..., :-1, :])
    return error.abs().mean() + 4.0 * error.square().mean() + 0.5 * (across + down)


def settings_of(network: Autoencoder) -> dict[str, Any]:
    """Of a checkpoint. Attributes are left out where there are none, as before there were any."""
    return {name: value for name, value in asdict(network.config).items() if value != ()}


def load_autoencoder(folder: Path) -> Autoencoder:
    """The averaged network of a run, ready for use. Raises ReverieError where there is none."""
    state = load_checkpoint(folder)
    network = Autoencoder(AutoencoderConfig(**state["settings"]["autoencoder"]))
    load_weights(network, state["average"], folder)
    return network.eval().requires_grad_(False)


@torch.no_grad()
def encode_frames(network: Autoencoder, frames: NDArray[np.uint8]) -> Float[Tensor, "b n c"]:
    """Latents, float32, of frames uint8 [b, h, w, 3]."""
    device = next(network.parameters()).device
    return network.encode(to_pixels(torch.from_numpy(np.array(frames)).to(device))).float()


@torch.no_grad()
def decode_frames(
    network: Autoencoder,
    latents: Float[Tensor, "b n c"],
    attributes: Float[Tensor, "b k"] | None = None,
) -> NDArray[np.uint8]:
    """Frames, uint8 [b, h, w, 3], as usual if no attributes are given."""
    device = next(network.parameters()).device
    if attributes is not None:
        attributes = attributes.to(device)
    return to_frames(network.decode(latents.to(device), attributes).float()).cpu().numpy()


def encode_all(
    network: Autoencoder, rendered: Rendered, folder: Path, split: str
) -> NDArray[np.float16]:
    """Latents of every frame of a split, float16 [N, n, c], kept in `folder`.

    Only frames that are not in the file yet are encoded: a split may have grown. The file's name
    holds a digest of the weights and of the first episode, so another encoder's are never used.
    """
    digest = hashlib.sha256(np.ascontiguousarray(rendered.frames[:32]).tobytes())
    for weight in network.encoder.state_dict().values():
        digest.update(weight.cpu().numpy().tobytes())
    file = folder / f"latents_{split}_{digest.hexdigest()[:12]}.npy"
    finished = np.load(file, mmap_mode="r") if file.exists() else None
    if finished is not None and len(finished) >= len(rendered.frames):
        return finished[: len(rendered.frames)]
    device = pick_device()
    network = network.to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    config = network.config
    latents = np.empty((len(rendered.frames), config.num_tokens, config.channels), np.float16)
    start = 0 if finished is None else len(finished)
    if finished is not None:
        latents[:start] = finished
    for first in track(range(start, len(latents), 128), f"encoding {len(latents) - start} frames"):
        with torch.autocast(device.type, torch.bfloat16):
            rows = encode_frames(network, rendered.frames[first : first + 128])
        latents[first : first + 128] = rows.cpu().numpy()
    with file.with_suffix(".new").open("wb") as temporary:
        np.save(temporary, latents)
    file.with_suffix(".new").replace(file)
    return latents
