"""The Sampler: from noise to the next latents in a few denoising steps, with a KV cache that is a
ring over frames.

The slow, readable twin of the engine: whole batches in PyTorch. Training, evaluation and the torch
runtime use it, and the tests hold the ONNX runtime against it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from reverie.model.autoencoder import normalise
from reverie.model.denoiser import Denoiser


class KVCache:
    """Keys and values of the last `context` frames of b sessions: per cached layer [b, heads,
    context * n, dh].
    """

    def __init__(self, denoiser: Denoiser, batch_size: int) -> None:
        config = denoiser.config
        self.num_tokens, self.context = config.num_tokens, config.context
        shape = (
            batch_size,
            config.num_heads,
            config.context * config.num_tokens,
            config.head_width,
        )
        like = denoiser.place
        self.k = [torch.zeros(shape, device=like.device) for _ in config.cached_layers]
        self.v = [torch.zeros(shape, device=like.device) for _ in config.cached_layers]
        self.num_frames = [0] * batch_size

    def forget(self, session: int) -> None:
        """The next frame written to this session is its first; its index is a multiple of
        `context`.
        """
        self.num_frames[session] = 0

    def read(self, sessions: Sequence[int]) -> tuple[list[Tensor], list[Tensor]]:
        """Keys and values that these sessions remember. All must remember equally many frames."""
        counts = {self.num_frames[session] for session in sessions}
        if len(counts) > 1:
            raise ValueError(f"sessions remember {sorted(counts)} frames; prefill them all first")
        end = counts.pop() * self.num_tokens
        rows = list(sessions)
        whole = rows == list(range(len(self.num_frames)))
        k, v = ([layer[..., :end, :] for layer in part] for part in (self.k, self.v))
        return (k, v) if whole else ([layer[rows] for layer in k], [layer[rows] for layer in v])

    def write(
        self,
        sessions: Sequence[int],
        frame_indices: Sequence[int],
        new_k: list[Tensor],
        new_v: list[Tensor],
    ) -> None:
        """Put one frame's entries, [b, heads, n, dh] per layer, where the ring says."""
        for row, (session, frame_index) in enumerate(zip(sessions, frame_indices, strict=True)):
            place = frame_index % self.context
            if place > self.num_frames[session]:
                raise ValueError(
                    f"first frame has index {frame_index}; expected a multiple of {self.context}"
                )
            self.num_frames[session] = max(self.num_frames[session], place + 1)
            first = place * self.num_tokens
            for cache, new in zip(self.k + self.v, new_k + new_v, strict=True):
                cache[session, :, first : first + self.num_tokens] = new[row]


class Sampler:
    """Plays b sessions in step. Every session must have been given `context` frames by `commit`
    before the first `sample`.
    """

    def __init__(self, denoiser: Denoiser, batch_size: int) -> None:
        self.denoiser = denoiser
        self.cache = KVCache(denoiser, batch_size)
        # Columns to the right, of every session. In float64: after hours of play float32 would blur
        # the phases of neighbouring frames.
        like = denoiser.place
        self.turned = torch.zeros(batch_size, dtype=torch.float64, device=like.device)

    def forget(self, session: int) -> None:
        """The next frame committed to this session is its first; see `KVCache.forget`."""
        self.cache.forget(session)
        self.turned[session] = 0

    @torch.no_grad()
    def sample(
        self,
        sessions: Sequence[int],
        noise: Float[Tensor, "b n c"],
        action: Float[Tensor, "b a"],
        frame_indices: Sequence[int],
        num_steps: int,
    ) -> Float[Tensor, "b n c"]:
        """The next clean latents, by `num_steps` Euler steps from noise (signal level 0) to 1 along
        the predicted path.
        """
        noisy = noise
        for k in range(num_steps):
            signal, step_size = k / num_steps, 1 / num_steps
            clean, _, _ = self._step(sessions, noisy, signal, step_size, action, frame_indices)
            noisy = noisy + (clean - noisy) * (step_size / (1 - signal))
        return noisy

    @torch.no_grad()
    def commit(
        self,
        sessions: Sequence[int],
        latents: Float[Tensor, "b n c"],
        noise: Float[Tensor, "b n c"],
        action: Float[Tensor, "b a"],
        frame_indices: Sequence[int],
        signal: float,
    ) -> None:
        """Remember a frame: one pass over its latents at this signal level; its keys and values go
        into the ring.
        """
        noisy = signal * normalise(latents) + (1 - signal) * noise
        finest = self.denoiser.config.min_step_size
        _, new_k, new_v = self._step(sessions, noisy, signal, finest, action, frame_indices)
        self.cache.write(sessions, frame_indices, new_k, new_v)
        self.turned[list(sessions)] += self.denoiser.camera(action)[1]

    def _step(
        self,
        sessions: Sequence[int],
        noisy: Tensor,
        signal: float,
        step_size: float,
        action: Tensor,
        frame_indices: Sequence[int],
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        level = torch.full((len(sessions),), signal, device=noisy.device)
        rows, turns = self.denoiser.camera(action)
        columns = self.turned[list(sessions)] + turns
        phase_cos, phase_sin = frame_phases(self.denoiser, rows, columns, frame_indices)
        cache_k, cache_v = self.cache.read(sessions)
        size = torch.full_like(level, step_size)
        return self.denoiser.step(
            noisy, level, size, action, phase_cos, phase_sin, cache_k, cache_v
        )


def frame_phases(
    denoiser: Denoiser,
    rows: Float[Tensor, " b"],
    columns: Float[Tensor, " b"],
    frame_indices: Sequence[int],
) -> tuple[Float[Tensor, "b p"], Float[Tensor, "b p"]]:
    """Cosines and sines of the rotary phases of frames, from the row and column that the camera
    looks at and absolute frame indices.
    """
    indices = torch.tensor(list(frame_indices), dtype=torch.float64, device=rows.device)
    places = torch.stack([rows.double(), columns.double(), indices], 1)
    with torch.autocast(rows.device.type, enabled=False):
        angles = places @ denoiser.frequencies.double()
    return angles.cos().float(), angles.sin().float()
