"""Noise that is drawn where it is used: Philox4x32-10 (Salmon et al., SC 2011) on tensors.

Like `engine.runtime.noise` a pure function of (seed, frame index, stream), though with other
numbers, and without a copy from the host or a wait for it.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
NUM_ROUNDS = 10
WORD = 0xFFFFFFFF

Words = list[Tensor]
"""Numbers below 2**32, in int64."""


def philox(counter: Words, key: Words) -> Words:
    """Four random words for every counter of four words, under a key of two."""
    for _ in range(NUM_ROUNDS):
        products = [counter[0] * MULTIPLIERS[0], counter[2] * MULTIPLIERS[1]]
        # The products wrap around at 2**64, and shifts keep the sign: masks leave the right words.
        high, low = ([p >> 32 & WORD for p in products], [p & WORD for p in products])
        counter = [high[1] ^ counter[1] ^ key[0], low[1], high[0] ^ counter[3] ^ key[1], low[0]]
        key = [word + weyl & WORD for word, weyl in zip(key, WEYL, strict=True)]
    return counter


def device_noise(
    seeds: Int64[Tensor, " b"], indices: Int64[Tensor, " b"], stream: int, shape: tuple[int, ...]
) -> Float[Tensor, "b ..."]:
    """Standard normal noise [b, *shape]. seeds: of 64 bits, the upper half of them negative."""
    numel = math.prod(shape)
    blocks = torch.arange((numel + 3) // 4, device=seeds.device)
    seeds, indices = seeds[:, None], indices[:, None]
    ones = torch.ones_like(seeds)
    counter = [blocks * ones, indices & WORD, indices >> 32 & WORD, stream * ones]
    words = philox(counter, [seeds & WORD, seeds >> 32 & WORD])
    # Box and Muller: two numbers of (0, 1) make two normal ones.
    uniform = [((word >> 8).float() + 0.5) * 2.0**-24 for word in words]
    drawn = []
    for radius, angle in (uniform[:2], uniform[2:]):
        length = (-2 * radius.log()).sqrt()
        drawn += [length * (2 * math.pi * angle).cos(), length * (2 * math.pi * angle).sin()]
    return torch.stack(drawn, -1).flatten(1)[:, :numel].unflatten(1, shape)
