"""What a player did, frame by frame, and the link that plays it again.

Noise is a pure function of seed and frame index, so a start, a seed and the actions are a whole
session: a few kilobytes for minutes of play. The same world on the same runtime draws the same
frames from it, bit for bit.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reverie.core import ReverieError
from reverie.world import World

LINK_VERSION = 2
MAX_FRAMES = 36_000
"""Half an hour at 20 frames a second; what is longer has no link any more."""
MAX_LINK_BYTES = 512 * 1024
_MAX_UNPACKED_BYTES = 32 * 1024 * 1024

Run = tuple[bytes, int, int]
"""Equal frames: their vector, their number of steps, and the index after the last of them."""


class LogGrowth(NamedTuple):
    """How a log became another: so many runs stay, and these come after them."""

    num_kept: int
    runs: list[Run]
    whole: bool


class ActionLog:
    """The action [A] and the number of denoising steps of every frame since frame 0, with equal
    neighbours stored once. Stops growing beyond MAX_FRAMES, and is not `whole` from then on.
    """

    def __init__(self) -> None:
        self._runs: list[Run] = []
        self.whole = True

    def __len__(self) -> int:
        return self._runs[-1][2] if self._runs else 0

    def __iter__(self) -> Iterator[tuple[NDArray[np.float32], int]]:
        first = 0
        for vector, num_steps, end in self._runs:
            for _ in range(end - first):
                yield np.frombuffer(vector, np.float32), num_steps
            first = end

    def append(self, vector: NDArray[np.float32], num_steps: int, count: int = 1) -> None:
        """One more frame, or several alike."""
        end = len(self) + count
        if end > MAX_FRAMES:
            self.whole = False
            return
        said = np.ascontiguousarray(vector, np.float32).tobytes()
        if self._runs and self._runs[-1][:2] == (said, num_steps):
            self._runs.pop()
        self._runs.append((said, num_steps, end))

    def truncate(self, num_frames: int) -> None:
        """Forget what came after so many frames."""
        while self._runs and len(self) > num_frames:
            vector, num_steps, _ = self._runs.pop()
            if len(self) < num_frames:
                self._runs.append((vector, num_steps, num_frames))

    def since(self, other: ActionLog) -> LogGrowth:
        """What makes this log of another: of what it was before, or of an empty one."""
        kept = min(len(self._runs), len(other._runs))
        # Runs come and go at the end only: where one is the same object, so are those before it.
        while kept and self._runs[kept - 1] is not other._runs[kept - 1]:
            kept -= 1
        return LogGrowth(kept, self._runs[kept:], self.whole)

    def grown(self, growth: LogGrowth) -> ActionLog:
        """The log that the growth was measured of, where it was measured `since` this one."""
        other = ActionLog()
        other._runs, other.whole = self._runs[: growth.num_kept] + growth.runs, growth.whole
        return other

    @property
    def num_steps(self) -> set[int]:
        """Every number of denoising steps that occurs."""
        return {num_steps for _, num_steps, _ in self._runs}

    def copy(self) -> ActionLog:
        other = ActionLog()
        other._runs, other.whole = self._runs.copy(), self.whole
        return other

    def columns(self, width: int) -> tuple[NDArray[np.int64], NDArray[np.uint8], bytes]:
        """Of every run: how many frames, how many steps, and the vectors, column by column."""
        ends = [0, *(end for _, _, end in self._runs)]
        steps = np.array([k for _, k, _ in self._runs], np.uint8)
        vectors = np.frombuffer(b"".join(v for v, _, _ in self._runs), np.float32)
        return np.diff(ends), steps, vectors.reshape(-1, width).T.tobytes()


@dataclass(frozen=True, eq=False)
class Replay:
    """A session as what was done in it. start: name of one of the world's starts. fingerprint: of
    the world. runtime: that drew it; another one draws nearly the same.
    """

    world: str
    fingerprint: str
    runtime: str
    start: str
    seed: int
    width: int
    """Of an action vector."""
    log: ActionLog = field(default_factory=ActionLog)

    def to_link(self) -> str:
        """Text for the fragment of an address: no character in it needs escaping."""
        counts, steps, vectors = self.log.columns(self.width)
        about = {
            "version": LINK_VERSION,
            "world": self.world,
            "fingerprint": self.fingerprint,
            "runtime": self.runtime,
            "start": self.start,
            "seed": self.seed,
            "width": self.width,
            "runs": len(steps),
        }
        body = counts.astype("<u2" if counts.max(initial=0) < 2**16 else "<u4")
        head = json.dumps(about | {"wide": body.itemsize == 4}, separators=(",", ":")).encode()
        packed = zlib.compress(head + b"\n" + body.tobytes() + steps.tobytes() + vectors, 9)
        return base64.urlsafe_b64encode(packed).decode().rstrip("=")

    @classmethod
    def from_link(cls, link: str) -> Replay:
        """Raises ReverieError on what is not a link, or too long a one."""
        if len(link) > MAX_LINK_BYTES:
            raise ReverieError(
                f"replay link of {len(link)} characters; expected at most {MAX_LINK_BYTES}"
            )
        try:
            return cls._parse(_unpack(link))
        except (ValueError, KeyError, TypeError, RecursionError, zlib.error):
            raise ReverieError("this is not a replay link, or it is cut short") from None

    @classmethod
    def _parse(cls, data: bytes) -> Replay:
        head, _, body = data.partition(b"\n")
        about = json.loads(head)
        if about["version"] != LINK_VERSION:
            raise ReverieError(
                f"replay link of version {about['version']!r:.20}; "
                f"this Reverie plays version {LINK_VERSION}"
            )
        world, fingerprint, runtime, start = names = [
            about[key] for key in ("world", "fingerprint", "runtime", "start")
        ]
        numbers = [about[key] for key in ("seed", "width", "runs")]
        if not all(isinstance(name, str) for name in names) or not all(
            type(number) is int and 0 <= number < 2**64 for number in numbers
        ):
            raise ValueError
        seed, width, runs = numbers
        size = 4 if about["wide"] else 2
        if runs > MAX_FRAMES or len(body) != runs * (size + 1 + 4 * width):
            raise ValueError
        counts = np.frombuffer(body, f"<u{size}", runs)
        steps = np.frombuffer(body, np.uint8, runs, size * runs)
        vectors = np.frombuffer(body, "<f4", runs * width, (size + 1) * runs).reshape(width, -1).T
        if not ((np.abs(vectors) <= 1).all() and counts.all() and steps.all()):
            raise ValueError
        log = ActionLog()
        for vector, num_steps, count in zip(vectors, steps, counts, strict=True):
            log.append(vector, int(num_steps), int(count))
        if not log.whole:
            raise ReverieError(f"the replay is longer than {MAX_FRAMES} frames")
        return cls(world, fingerprint, runtime, start, seed, width, log)


def check_replay(world: World, replay: Replay) -> None:
    """Raises ReverieError unless the replay is one of this world."""
    config = world.config
    if replay.fingerprint != world.fingerprint[: len(replay.fingerprint)] or not replay.fingerprint:
        raise ReverieError(
            f"the replay is of another world, or of other weights of it: {replay.world!r:.60}; "
            f"this one is {config.name!r}"
        )
    if replay.width != config.action_space.width:
        raise ReverieError(
            f"the replay has actions of width {replay.width}; expected {config.action_space.width}"
        )
    unknown = replay.log.num_steps - set(config.denoising_steps)
    if unknown:
        raise ReverieError(
            f"the replay has {sorted(unknown)} denoising steps; {config.name} has "
            f"{list(config.denoising_steps)}"
        )


def _unpack(link: str) -> bytes:
    packed = base64.b64decode(link + "=" * (-len(link) % 4), altchars=b"-_", validate=True)
    decompress = zlib.decompressobj()
    data = decompress.decompress(packed, _MAX_UNPACKED_BYTES)
    if not decompress.eof:
        raise ValueError
    return data
