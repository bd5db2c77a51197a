"""Who waits for a place, in order, and how long it may take.

Lives on the event loop: nothing here is locked.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from reverie.core import ReverieError
from reverie.session import FullError

if TYPE_CHECKING:
    from reverie.engine import Engine

MAX_WAITING = 64
RECHECK_S = 0.25
"""There can be room without anybody leaving: a device that was slow is not any more."""
NUM_STAYS = 32
"""Stays that the expected wait is taken from."""

T = TypeVar("T")


class WaitingRoom:
    """Gives the places of an engine to whoever waits longest.

    clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._line: list[asyncio.Event] = []
        self._stays_s: deque[float] = deque(maxlen=NUM_STAYS)
        self._num_staying = 0

    @property
    def num_waiting(self) -> int:
        return len(self._line)

    async def enter(
        self,
        engine: Engine,
        open: Callable[[], T],
        tell: Callable[[int, float | None], Awaitable[object]],
    ) -> T:
        """What `open` gives, as soon as the engine has room and nobody waits for longer.

        tell: called with place in the line, from 1, and seconds that it may take (None: nobody has
        left yet), at first and whenever the place changes. Raises ReverieError when too many wait.
        """
        if len(self._line) >= MAX_WAITING:
            raise ReverieError(f"{MAX_WAITING} players are waiting already; try again later")
        moved, told = asyncio.Event(), 0
        self._line.append(moved)
        try:
            while True:
                if self._line[0] is moved and engine.has_room:
                    with contextlib.suppress(FullError):  # what fitted a moment ago
                        return open()
                place = self._line.index(moved) + 1
                if place != told:
                    told = place
                    await tell(place, self.expected_wait_s(place))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RECHECK_S):
                        await moved.wait()
                moved.clear()
        finally:
            self._line.remove(moved)
            self.wake()

    @contextlib.contextmanager
    def stay(self) -> Iterator[None]:
        """While a session has a place."""
        began_s = self._clock()
        self._num_staying += 1
        try:
            yield
        finally:
            self._num_staying -= 1
            self._stays_s.append(self._clock() - began_s)

    def expected_wait_s(self, place: int) -> float | None:
        """Until whoever is at this place in the line gets in, if people stay as long as they did:
        of n who play, one leaves every n-th part of a stay. None when nobody has left yet.
        """
        if not self._stays_s or not self._num_staying:
            return None
        return place * sum(self._stays_s) / len(self._stays_s) / self._num_staying

    def wake(self) -> None:
        """A place may have become free: whoever is first looks."""
        for moved in self._line:
            moved.set()
