"""Play with any frame-causal model: rings over what its frames leave behind, and the Sampler that
fills and reads them.

A model that draws each frame from noise, an action and the frames before it becomes playable, with
every session's memory fixed and nothing computed twice, by an adapter with the few methods of
`CausalModel`. docs/adapters.md has a whole one in under 100 lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Past:
    """What b sessions know when a frame is drawn or remembered.

    entries: of their frames, name -> [b, *lead, m * n, d], in the order of the ring: the frame with
    index i at place i % context. num_frames: m. frame_indices: of the frame at hand, float64 [b];
    negative for a start's. state: what else they carry, float64 [b, s].
    """

    entries: Mapping[str, Tensor]
    num_frames: int
    frame_indices: Float[Tensor, " b"]
    state: Float[Tensor, "b s"]


class CausalModel(Protocol):
    """A model that draws frame after frame. All tensors are on `device`.

    context: frames that it remembers. latent_shape: of one frame. entries: what a remembered frame
    leaves behind, name -> its shape [*lead, n, d]; such as the keys and values of a layer, [heads,
    tokens, head width]. state_width: of the few numbers that a session carries besides, such as
    where its camera looks; all 0 when it begins.
    """

    @property
    def device(self) -> torch.device: ...

    @property
    def context(self) -> int: ...

    @property
    def latent_shape(self) -> tuple[int, ...]: ...

    @property
    def entries(self) -> Mapping[str, tuple[int, ...]]: ...

    @property
    def state_width(self) -> int: ...

    def draw(self, noise: Tensor, told: Tensor, past: Past, num_steps: int) -> Tensor:
        """The next frame's latents, [b, *latent_shape], from as much noise and what the model is
        told of it (`ActionSpace.tell`), [b, a], in this number of passes.
        """
        ...

    def remember(
        self, latents: Tensor, noise: Tensor, told: Tensor, past: Past
    ) -> Mapping[str, Tensor]:
        """What a frame that was drawn, or recorded, leaves behind: name -> [b, *shape]."""
        ...

    def advance(self, state: Tensor, told: Tensor) -> Tensor:
        """Sessions' states after a frame, [b, s]."""
        ...


class Pictures(Protocol):
    """Pictures to latents and back: float [b, 3, h, w] in 0..1 to [b, *latent_shape]."""

    def encode(self, pixels: Tensor) -> Tensor: ...

    def decode(self, latents: Tensor) -> Tensor: ...


class Sampler:
    """Plays sessions of a model, several at a time. Sessions that are played together must remember
    equally many frames; the first frame of each has an index that is a multiple of `context`.
    """

    def __init__(self, model: CausalModel, num_sessions: int) -> None:
        self.model = model
        self.rings = {
            name: torch.zeros(
                (num_sessions, *lead, model.context * rows, width), device=model.device
            )
            for name, (*lead, rows, width) in model.entries.items()
        }
        # In float64: after hours of play float32 would blur the phases of neighbouring frames.
        shape = (num_sessions, model.state_width)
        self.state = torch.zeros(shape, dtype=torch.float64, device=model.device)
        self.num_frames = [0] * num_sessions

    def forget(self, session: int) -> None:
        """The next frame committed to this session is its first."""
        self.num_frames[session] = 0
        self.state[session] = 0

    @torch.no_grad()
    def sample(
        self,
        sessions: Sequence[int],
        noise: Tensor,
        told: Tensor,
        frame_indices: Sequence[int],
        num_steps: int,
    ) -> Tensor:
        """The next latents of these sessions, [b, *latent_shape], from as much noise."""
        return self.model.draw(noise, told, self._past(sessions, frame_indices), num_steps)

    @torch.no_grad()
    def commit(
        self,
        sessions: Sequence[int],
        latents: Tensor,
        noise: Tensor,
        told: Tensor,
        frame_indices: Sequence[int],
    ) -> None:
        """Remember a frame of each of these sessions."""
        past = self._past(sessions, frame_indices)
        left = self.model.remember(latents, noise, told, past)
        for row, (session, frame_index) in enumerate(zip(sessions, frame_indices, strict=True)):
            place = frame_index % self.model.context
            if place > self.num_frames[session]:
                raise ValueError(
                    f"first frame has index {frame_index}; expected a multiple of "
                    f"{self.model.context}"
                )
            self.num_frames[session] = max(self.num_frames[session], place + 1)
            for name, ring in self.rings.items():
                rows = self.model.entries[name][-2]
                ring[session, ..., place * rows : (place + 1) * rows, :] = left[name][row]
        self.state[list(sessions)] = self.model.advance(past.state, told)

    def _past(self, sessions: Sequence[int], frame_indices: Sequence[int]) -> Past:
        counts = {self.num_frames[session] for session in sessions}
        if len(counts) > 1:
            raise ValueError(f"sessions remember {sorted(counts)} frames; prefill them all first")
        num_frames = counts.pop()
        rows = list(sessions)
        whole = rows == list(range(len(self.num_frames)))
        entries = {}
        for name, ring in self.rings.items():
            filled = ring[..., : num_frames * self.model.entries[name][-2], :]
            entries[name] = filled if whole else filled[rows]
        indices = torch.tensor(list(frame_indices), dtype=torch.float64, device=self.model.device)
        return Past(entries, num_frames, indices, self.state[rows])
