"""How much more the server's own event loop can carry: an engine may have room for players whom the
process that owns their sockets has none for.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

EVERY_S = 0.25
MOST_BUSY = 0.5
"""Part of a core. What is left is for the moments when everybody wants something at once."""
NUM_LAGS = 20
MOST_LAG_S = 0.05
"""In nine of ten looks."""
LEAST_GROWTH = 8
"""Sessions that may begin between two looks, however few there are."""


class LoopGauge:
    """Looks at its loop four times a second, from `start` until `stop`."""

    def __init__(self) -> None:
        self.busy = 0.0
        """Part of the time that the loop's thread computed."""
        self._lags_s: deque[float] = deque(maxlen=NUM_LAGS)
        self._num_seen = 0
        self._num_now = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.ensure_future(self._look())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    @property
    def lag_s(self) -> float:
        """How late the loop comes back to something that was due."""
        return sorted(self._lags_s)[int(0.9 * len(self._lags_s))] if self._lags_s else 0.0

    def has_room(self, num_playing: int) -> bool:
        """Whether it can carry one more, if so many play now. One may always play."""
        self._num_now = num_playing
        if not num_playing:
            return True
        growth = num_playing + 1 - self._num_seen
        expected = self.busy + growth * self.busy / max(self._num_seen, 1)
        return (
            growth <= max(LEAST_GROWTH, self._num_seen)
            and expected <= MOST_BUSY
            and self.lag_s <= MOST_LAG_S
        )

    async def _look(self) -> None:
        while True:
            began_s, computed_s = time.monotonic(), time.thread_time()
            await asyncio.sleep(EVERY_S)
            took_s = time.monotonic() - began_s
            self._lags_s.append(max(took_s - EVERY_S, 0.0))
            self.busy = (time.thread_time() - computed_s) / took_s
            self._num_seen = self._num_now
