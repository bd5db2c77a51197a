"""A session that is not in any slot: what a file holds, what waits for its player to come back, and
what goes to another engine when one dies. The same bytes for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from reverie.core import Pixels, ReverieError
from reverie.engine.replay import Replay, check_replay
from reverie.engine.snapshot import kind_of, pack, unpack
from reverie.world import World

FILE_KIND = "session"
MAX_FRAME_INDEX = 2**31
"""Years of play; beyond it nobody has been."""
DAMAGED = "this is not a saved session of this world, or it is damaged"


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
        try:
            attributes = {
                name: values[f"attribute_{name}"] for name in world.config.action_space.attributes
            }
            saved = cls(
                values["seed"],
                values["num_steps"],
                values["frame_index"],
                attributes,
                arrays["frame"],
                arrays["slot"].tobytes(),
            )
            link = values.get("replay")
        except KeyError:
            raise ReverieError(DAMAGED) from None
        if link is not None:
            saved = replace(saved, replay=Replay.from_link(str(link)))
        saved.check(world)
        return saved

    def fits(self, kind: str) -> bool:
        """Whether a runtime of this kind goes on from it: it is in the memory of one."""
        return kind_of(self.snapshot) in ("", kind)

    def check(self, world: World) -> None:
        """Raises ReverieError unless this world can go on from here, as far as can be told before
        the runtime has seen the snapshot.
        """
        config, numbers = world.config, (self.seed, self.num_steps, self.frame_index)
        try:
            config.action_space.encode_attributes(self.attributes)
        except (TypeError, ValueError):
            raise ReverieError(DAMAGED) from None
        whole = all(type(number) is int for number in numbers)
        shaped = self.frame.dtype == np.uint8 and self.frame.shape == config.frame_shape
        known = self.num_steps in config.denoising_steps
        counted = whole and 0 <= self.seed < 2**64 and 0 <= self.frame_index < MAX_FRAME_INDEX
        if not (counted and shaped and known):
            raise ReverieError(DAMAGED)
        if self.replay is not None:
            check_replay(world, self.replay)
