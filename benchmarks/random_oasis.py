"""Write a folder of the Oasis-500M format with random weights: the published shapes, for timing
where the published weights are not at hand.

    python benchmarks/random_oasis.py OUT              published sizes, 3.4 GB
    python benchmarks/random_oasis.py OUT --small      a rehearsal's sizes, 50 MB

What it plays is noise; what a frame costs does not depend on the weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from safetensors.torch import save_file
from torch import nn

from reverie.bench.oasis import PUBLISHED, SMALL, random_denoiser
from reverie.model.adapters.oasis_networks import OasisAutoencoder


def main() -> int:
    parser = argparse.ArgumentParser(description="An Oasis-500M folder with random weights.")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--small", action="store_true", help="fewer and narrower layers")
    options = parser.parse_args()
    write_random(options.out, options.small)
    print(f"{options.out}: {sum(f.stat().st_size for f in options.out.iterdir()) / 1e6:.0f} MB")
    return 0


def write_random(folder: Path, small: bool) -> None:
    """Both checkpoints and one start. Raises FileExistsError on a folder that is there."""
    folder.mkdir(parents=True)
    shape = SMALL if small else PUBLISHED
    torch.manual_seed(0)
    sizes = (128, (1, 2), 2) if small else (1024, (6, 12), 16)
    autoencoder = OasisAutoencoder(shape.grid, *sizes)
    save(random_denoiser(shape), folder / "oasis500m.safetensors")
    save(autoencoder, folder / "vit-l-20.safetensors")
    (folder / "starts").mkdir()
    picture = np.random.default_rng(0).integers(0, 255, (360, 640, 3), np.uint8)
    (folder / "starts" / "noise.jpg").write_bytes(simplejpeg.encode_jpeg(picture))


def save(network: nn.Module, file: Path) -> None:
    """Its weights, those with several names under the first."""
    by_place = {weight.data_ptr(): name for name, weight in reversed(network.state_dict().items())}
    weights = network.state_dict()
    save_file({name: weights[name].contiguous() for name in by_place.values()}, file)


if __name__ == "__main__":
    raise SystemExit(main())
