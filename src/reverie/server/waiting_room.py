"""Who waits for a place, in order, and how long it may take.

Lives on the event loop: nothing here is locked. Whoever had a place already, and lost it without
leaving, goes before those who never had one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from reverie.session import FullError

RECHECK_S = 0.25
"""There can be room without anybody leaving: a device that was slow is not any more."""
RETELL_S = 1.0
"""Whoever is further back looks, and is told, this often: a long line must not be woken as a whole
each time somebody leaves.
"""
NUM_STAYS = 32
"""Stays that the expected wait is taken from."""

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Waiting:
    returning: bool
    moved: asyncio.Event = field(default_factory=asyncio.Event)


class WaitingRoom(Generic[T]):
    """Gives the places of a world to whoever waits longest.

    open: a place, or None while there is no room. clock: monotonic seconds.
    """

    def __init__(
        self, max_waiting: int = 1024, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_waiting = max_waiting
        self._clock = clock
        self._line: list[_Waiting] = []
        self._stays_s: deque[float] = deque(maxlen=NUM_STAYS)
        self._num_staying = 0

    @property
    def num_waiting(self) -> int:
        return len(self._line)

    @property
    def num_staying(self) -> int:
        """Sessions that have a place."""
        return self._num_staying

    async def enter(
        self,
        open: Callable[[], T | None],
        tell: Callable[[int, float | None], Awaitable[object]],
        returning: bool = False,
    ) -> T:
        """What `open` gives, as soon as it gives anything and nobody waits for longer.

        tell: called with place in the line, from 1, and seconds that it may take (None: nobody has
        left yet), at first and whenever the place changes. returning: had a place before. Raises
        FullError when too many wait, and what `open` raises.
        """
        if len(self._line) >= self._max_waiting and not returning:
            raise FullError(f"{len(self._line)} players are waiting already; try again later")
        me, told = _Waiting(returning), 0
        num_before = sum(other.returning for other in self._line) if returning else len(self._line)
        self._line.insert(num_before, me)
        try:
            while True:
                if self._line[0] is me and (place := open()) is not None:
                    return place
                position = self._line.index(me) + 1
                if position != told:
                    told = position
                    await tell(position, self.expected_wait_s(position))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RECHECK_S if position == 1 else RETELL_S):
                        await me.moved.wait()
                me.moved.clear()
        finally:
            self._line.remove(me)
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

    def expected_wait_s(self, position: int) -> float | None:
        """Until whoever is at this position in the line gets in, if people stay as long as they
        did: of n who play, one leaves every n-th part of a stay. None when nobody has left yet.
        """
        if not self._stays_s or not self._num_staying:
            return None
        return position * sum(self._stays_s) / len(self._stays_s) / self._num_staying

    def wake(self) -> None:
        """A place may have become free: whoever is first looks."""
        if self._line:
            self._line[0].moved.set()
