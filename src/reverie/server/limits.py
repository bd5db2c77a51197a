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
    wait so at the same time. time_limit_s: of play, in all.
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


class FloodGauge:
    """A leaky bucket: holds two seconds of `messages_per_s`, and leaks as fast."""

    def __init__(self, messages_per_s: float) -> None:
        self._rate = messages_per_s
        self._level = 0.0
        self._time_s = 0.0

    def count(self, now_s: float, cost: float = 1.0) -> None:
        """One more message, or what costs as much as so many. Raises ProtocolError when the bucket
        overflows.
        """
        leaked = self._rate * (now_s - self._time_s)
        self._level = max(0.0, self._level - leaked) + min(cost, self._rate)
        self._time_s = now_s
        if self._level > 2.0 * self._rate:
            raise ProtocolError(
                CloseCode.FLOODING, f"too many messages; at most {self._rate:g} a second"
            )


class RateLimiter:
    """A bucket of tokens for each name: `burst` at once, refilled by `rate_per_s`. Forgets who has
    not been seen for longest when there are too many.
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
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # left, when

    def has_room(self, name: str) -> bool:
        """Whether `spend` would let it through."""
        return self._left(name) >= 1.0

    def spend(self, name: str, line: str) -> None:
        """Count one. Raises ProtocolError with the line when its bucket is empty."""
        left = self._left(name)
        if left < 1.0:
            raise ProtocolError(CloseCode.FLOODING, f"{line}; slow down")
        self._levels[name] = (left - 1.0, self._clock())
        self._levels.move_to_end(name)
        while len(self._levels) > self._max_names:
            self._levels.popitem(last=False)

    def _left(self, name: str) -> float:
        left, then_s = self._levels.get(name, (self._burst, 0.0))
        return min(self._burst, left + self._rate * (self._clock() - then_s))
