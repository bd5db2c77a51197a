"""What a client may do before it is shown the door."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields

from reverie.server.protocol import CloseCode, ProtocolError


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """What one session may ask for, and how long its place waits for it.

    messages_per_s: sustained; twice as many in a burst. frames_in_flight: sent and not yet
    acknowledged. silent_s: without any message while frames are drawn; after that the place goes to
    someone else, and the session waits in host memory. pause_after_s: without anybody steering,
    until it is paused. evict_after_s: paused, until its place goes to someone else. idle_s: paused
    or silent, until it ends. resume_s: without a socket, until it ends; max_kept: sessions that
    wait so at the same time. time_limit_s: of play, in all. max_saved_bytes: of a saved session
    that is brought back; the bundled world's have 3 MB.
    """

    messages_per_s: float = 300.0
    frames_in_flight: int = 2
    silent_s: float = 1.25
    pause_after_s: float = 300.0
    evict_after_s: float = 30.0
    idle_s: float = 900.0
    resume_s: float = 30.0
    max_kept: int = 256
    time_limit_s: float = math.inf
    max_saved_bytes: float = 16e6

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) <= 0:
                raise ValueError(
                    f"{field.name} is {getattr(self, field.name)}; expected more than 0"
                )


PICTURE_COST = 100.0
"""Messages that a picture counts for, but never more than a second of them: it is decoded, and the
world begins anew.
"""


class Bucket:
    """Holds `burst` at most, and is refilled by `rate_per_s`; full at first."""

    __slots__ = ("_burst", "_left", "_rate", "_time_s")

    def __init__(self, rate_per_s: float, burst: float) -> None:
        self._rate, self._burst = rate_per_s, burst
        self._left, self._time_s = burst, 0.0

    def left(self, now_s: float) -> float:
        """What it holds."""
        return min(self._burst, self._left + self._rate * (now_s - self._time_s))

    def take(self, now_s: float, cost: float = 1.0) -> bool:
        """Whether it held as much, which is gone then."""
        left = self.left(now_s)
        if left < cost:
            return False
        self._left, self._time_s = left - cost, now_s
        return True


class FloodGauge:
    """What one socket sends: two seconds of `messages_per_s` at once, and no more than that."""

    def __init__(self, messages_per_s: float) -> None:
        self._rate = messages_per_s
        self._bucket = Bucket(messages_per_s, 2.0 * messages_per_s)

    def count(self, now_s: float, cost: float = 1.0) -> None:
        """One more message, or what costs as much as so many. Raises ProtocolError on what is too
        much.
        """
        if not self._bucket.take(now_s, min(cost, self._rate)):
            raise ProtocolError(
                CloseCode.FLOODING, f"too many messages; at most {self._rate:g} a second"
            )


class RateLimiter:
    """A bucket for each name. Forgets who has not been let through for longest when there are too
    many.
    """

    def __init__(
        self,
        rate_per_s: float,
        burst: float,
        clock: Callable[[], float] = time.monotonic,
        max_names: int = 10_000,
    ) -> None:
        self._rate, self._burst, self._clock = rate_per_s, burst, clock
        self._max_names = max_names
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def has_room(self, name: str) -> bool:
        """Whether `spend` would let it through."""
        bucket = self._buckets.get(name)
        return bucket is None or bucket.left(self._clock()) >= 1.0

    def spend(self, name: str, line: str) -> None:
        """Count one. Raises ProtocolError with the line when its bucket is empty."""
        bucket = self._buckets.get(name) or Bucket(self._rate, self._burst)
        if not bucket.take(self._clock()):
            raise ProtocolError(CloseCode.FLOODING, f"{line}; slow down")
        self._buckets[name] = bucket
        self._buckets.move_to_end(name)
        while len(self._buckets) > self._max_names:
            self._buckets.popitem(last=False)
