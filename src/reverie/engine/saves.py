"""A session that is not in any slot: what a file holds, what waits for its player to come back, and
what goes to another engine when one dies. The same bytes for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reverie.core import Pixels, ReverieError
from reverie.engine.replay import Replay
from reverie.engine.snapshot import pack, unpack
from reverie.world import World

FILE_KIND = "session"


@dataclass(frozen=True, slots=True, eq=False)
class SavedSession:
    """frame_index: of the next frame; frame: the newest picture, uint8 [h, w, 3]. num_steps: that
    the player asked for. attributes: what the world is like, name -> value. snapshot: of the
    runtime. replay: what was done so far; None where nobody knows any more.
    """

    seed: int
    num_steps: int
    frame_index: int
    attributes: dict[str, str]
    frame: Pixels
    snapshot: bytes
    replay: Replay | None = None

    def to_bytes(self, world: World) -> bytes:
        """As a file holds it."""
        values: dict[str, int | float | str] = {
            "seed": self.seed,
            "num_steps": self.num_steps,
            "frame_index": self.frame_index,
            "name": world.config.name,
            **{f"attribute_{name}": value for name, value in self.attributes.items()},
        }
        if self.replay is not None:
            values["replay"] = self.replay.to_link()
        arrays = {"slot": np.frombuffer(self.snapshot, np.uint8), "frame": self.frame}
        return pack(FILE_KIND, world.fingerprint, arrays, values)

    @classmethod
    def from_bytes(cls, world: World, data: bytes) -> SavedSession:
        """Raises ReverieError on a session of another world, or one that is damaged."""
        arrays, values = unpack(FILE_KIND, world.fingerprint, data)
        config = world.config
        try:
            attributes = {
                name: values[f"attribute_{name}"] for name in config.action_space.attributes
            }
            seed, num_steps, frame_index = (
                values[key] for key in ("seed", "num_steps", "frame_index")
            )
            frame, snapshot = arrays["frame"], arrays["slot"].tobytes()
            link = values.get("replay")
            config.action_space.encode_attributes(attributes)
            whole = all(type(number) is int for number in (seed, num_steps, frame_index))
            shaped = frame.dtype == np.uint8 and frame.shape == config.frame_shape
            if not (whole and shaped and 0 <= seed < 2**64 and frame_index >= 0):
                raise ValueError
            if num_steps not in config.denoising_steps:
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise ReverieError("this is not a saved session, or it is damaged") from None
        replay = None if link is None else Replay.from_link(link)
        return cls(seed, num_steps, frame_index, attributes, frame, snapshot, replay)
