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

    `draw` and `remember` are the same for sessions that remember `context` frames, on tensors of
    the model's device alone: nothing in them waits for it, so they can be recorded and played back.
    dtype: of the rings.
    """

    def __init__(
        self, model: CausalModel, num_sessions: int, dtype: torch.dtype = torch.float32
    ) -> None:
        self.model = model
        self.rings = {
            name: torch.zeros(
                (num_sessions, *lead, model.context * rows, width), dtype=dtype, device=model.device
            )
            for name, (*lead, rows, width) in model.entries.items()
        }
        # In float64: after hours of play float32 would blur the phases of neighbouring frames.
        shape = (num_sessions, model.state_width)
        self.state = torch.zeros(shape, dtype=torch.float64, device=model.device)
        self.num_frames = [0] * num_sessions
        self._all = torch.arange(num_sessions, device=model.device)

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
        past = self._past(*self._tensors(sessions, frame_indices), self._num_frames(sessions))
        return self.model.draw(noise, told, past, num_steps)

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
        num_frames = self._num_frames(sessions)
        for session, frame_index in zip(sessions, frame_indices, strict=True):
            place = frame_index % self.model.context
            if place > num_frames:
                raise ValueError(
                    f"first frame has index {frame_index}; expected a multiple of "
                    f"{self.model.context}"
                )
            self.num_frames[session] = max(num_frames, place + 1)
        self._remember(*self._tensors(sessions, frame_indices), latents, noise, told, num_frames)

    @torch.no_grad()
    def draw(
        self, sessions: Tensor, noise: Tensor, told: Tensor, indices: Tensor, num_steps: int
    ) -> Tensor:
        """As `sample`. sessions, indices: int64 [b]."""
        past = self._past(sessions, indices, self.model.context)
        return self.model.draw(noise, told, past, num_steps)

    @torch.no_grad()
    def remember(
        self, sessions: Tensor, latents: Tensor, noise: Tensor, told: Tensor, indices: Tensor
    ) -> None:
        """As `commit`. sessions, indices: int64 [b]."""
        self._remember(sessions, indices, latents, noise, told, self.model.context)

    def _remember(
        self,
        sessions: Tensor,
        indices: Tensor,
        latents: Tensor,
        noise: Tensor,
        told: Tensor,
        num_frames: int,
    ) -> None:
        past = self._past(sessions, indices, num_frames)
        left = self.model.remember(latents, noise, told, past)
        places = indices % self.model.context
        for name, ring in self.rings.items():
            frames = ring.unflatten(-2, (self.model.context, -1)).movedim(-3, 1)
            frames[sessions, places] = left[name].type_as(ring)
        self.state[sessions] = self.model.advance(past.state, told)

    def _past(self, sessions: Tensor, indices: Tensor, num_frames: int) -> Past:
        entries = {}
        for name, ring in self.rings.items():
            filled = ring[..., : num_frames * self.model.entries[name][-2], :]
            # All of them, in order, are read where they lie.
            entries[name] = filled if sessions is self._all else filled[sessions]
        return Past(entries, num_frames, indices.double(), self.state[sessions])

    def _num_frames(self, sessions: Sequence[int]) -> int:
        counts = {self.num_frames[session] for session in sessions}
        if len(counts) > 1:
            raise ValueError(f"sessions remember {sorted(counts)} frames; prefill them all first")
        return counts.pop()

    def _tensors(
        self, sessions: Sequence[int], frame_indices: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        indices = torch.tensor(list(frame_indices), device=self.model.device)
        if list(sessions) == list(range(len(self.num_frames))):
            return self._all, indices
        return torch.tensor(list(sessions), device=self.model.device), indices
