"""Every player's session on this server, over what happens to it: a lost connection, an eviction to
host memory, an engine that dies, a fork.

Lives on the event loop. Nothing here is written anywhere: what is kept of a player lies in memory,
and is dropped when the session ends.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reverie.core import ReverieError
from reverie.server.access import Grant
from reverie.server.fleet import Pool
from reverie.server.limits import SocketLimits
from reverie.server.metrics import Metrics
from reverie.server.protocol import CloseCode, ProtocolError
from reverie.server.usage import UsageLedger
from reverie.session import SessionState, transition

if TYPE_CHECKING:
    from reverie.engine import Replay, SavedSession
    from reverie.server.fleet import AnyHandle
    from reverie.world import Start

MAX_OFFERS = 8
"""Of one token; four times as many of all. Nobody's lost session has to go for them."""
OFFER_S = 60.0
"""How long a fork, an opened file or replay, and a saved file wait to be fetched."""
MAX_RECOVERIES = 3
"""In a row, each before a second was played: a session that takes its engine down with it does so
at once, and is not carried on for ever.
"""
_SNAPSHOT_WITHIN_S = 1.0

Tell = Callable[[int, float | None], Awaitable[object]]

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Beginning:
    """What a session begins from; None is whatever the engine chooses. saved: goes before all."""

    start: str | Start | None = None
    seed: int | None = None
    num_steps: int | None = None
    saved: SavedSession | None = None
    replay: Replay | None = None

    @property
    def replay_frames(self) -> int:
        return len(self.replay.log) if self.replay is not None and self.saved is None else 0


class Seat:
    """One session. `token` is what its player comes back with.

    handle: its place in an engine, None without. attached: called when another socket takes it
    over; None while no socket has it. released: the socket that had it has let go. file_id, fork:
    what its player saved or forked last; one of each is kept.
    """

    def __init__(self, lobby: Lobby, pool: Pool, grant: Grant, beginning: Beginning) -> None:
        self.token = secrets.token_urlsafe(24)
        self.pool = pool
        self.grant = grant
        self.beginning = beginning
        self.handle: AnyHandle | None = None
        self.attached: Callable[[], None] | None = None
        self.released = asyncio.Event()
        self.file_id = ""
        self.fork: Seat | None = None
        self.wants_pause = False
        self.played_s = 0.0
        """With a place in an engine, all times together."""
        self._lobby = lobby
        self._account = lobby.ledger.open(grant.who, pool.title)
        self._state = SessionState.QUEUED
        self._vacated: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._vacated.set_result(None)
        self._had_place = False
        self._had_frames = False
        self._is_owed = False  # a place, of an engine that died
        self._num_recoveries = 0
        self._metered = (0.0, 0, 0.0)  # when, frames, device-seconds

    @property
    def state(self) -> SessionState:
        return self._state if self.handle is None else self.handle.state

    @property
    def is_offer(self) -> bool:
        """Whether it still waits for its player to come for the first time."""
        return self._state is SessionState.LOST and not self._had_place and self.attached is None

    async def enter(self, tell: Tell) -> AnyHandle:
        """A place in an engine, as soon as there is one. tell: see `WaitingRoom.enter`."""
        await asyncio.shield(self._vacated)
        if self._state is SessionState.ENDED:
            raise ReverieError("the session has ended")
        if self._state is not SessionState.QUEUED:
            self._become(SessionState.QUEUED)
        asked_s = time.monotonic()
        self.handle = handle = await self.pool.room.enter(self._open, tell, self._had_place)
        self._lobby.metrics.observe_queue(time.monotonic() - asked_s)
        self._had_place = True
        self._metered = (time.monotonic(), 0, 0.0)
        self._become(SessionState.WARMING)
        return handle

    def _open(self) -> AnyHandle | None:
        begin = self.beginning
        place = self.pool.open(
            start=begin.start,
            seed=begin.seed,
            num_steps=begin.num_steps,
            saved=begin.saved,
            replay=begin.replay,
            paused=self.wants_pause,
            returning=self._had_place,
            admitted=self._is_owed,
        )
        self._is_owed &= place is None  # tried once: where there is no slot, it waits like others
        return place

    def vacate(self, state: SessionState) -> asyncio.Future[None]:
        """Give the place up, keeping what was played in host memory: PAUSED or LOST. Whoever enters
        again meanwhile comes after it.
        """
        handle, self.handle = self.handle, None
        if handle is not None:
            self.meter(handle)
            self._vacated = asyncio.ensure_future(self._vacate(handle))
        if self._state not in (state, SessionState.ENDED):
            self._become(state)
        return self._vacated

    async def _vacate(self, handle: AnyHandle) -> None:
        try:
            handle.pause()
            self._keep(await saved_of(handle) or handle.kept)
        finally:
            handle.close()
            self.pool.room.wake()

    def recover(self, handle: AnyHandle) -> None:
        """The engine ended the session: queue again, with what is known of it. Raises ReverieError
        when that happens again and again.
        """
        self.handle = None
        self.meter(handle)
        was_played = handle.num_frames > 0
        self._keep(handle.kept)
        self._become(SessionState.QUEUED)
        if handle.refused:
            return
        self._is_owed = True
        if self.beginning.saved is not None and not was_played and not self._had_frames:
            raise ReverieError(f"the saved session does not play: {handle.reason}")
        self._had_frames |= was_played
        logger.warning("a session lost its engine: %s", handle.reason)
        self._lobby.num_recovered += 1
        world = self.pool.world
        played_on = world is not None and handle.num_frames >= world.config.fps
        self._num_recoveries = 0 if played_on else self._num_recoveries + 1
        if self._num_recoveries > MAX_RECOVERIES:
            raise ReverieError(handle.reason or "the session ended")

    def begin_anew(self, start: str | Start | None, seed: int | None) -> None:
        """What a restart asks for; without a place, it is what the next one begins from."""
        old = self.beginning
        self.beginning = Beginning(old.start if start is None else start, seed, old.num_steps)

    def meter(self, handle: AnyHandle) -> None:
        """Charge what was used since the last time."""
        then_s, frames, device_s = self._metered
        self._metered = now = (time.monotonic(), handle.num_frames, handle.device_s)
        self.played_s += now[0] - then_s
        self._account.charge(
            seconds=now[0] - then_s, frames=now[1] - frames, device_s=now[2] - device_s
        )

    def end(self) -> None:
        """Drop everything of it."""
        handle, self.handle = self.handle, None
        if self._state is not SessionState.ENDED:
            self._become(SessionState.ENDED)
        self.beginning = Beginning()
        if handle is not None:
            self.meter(handle)
            handle.close()
        self._account.close()
        self.pool.room.wake()

    def _keep(self, saved: SavedSession | None) -> None:
        if saved is not None and self._state is not SessionState.ENDED:
            self.beginning = Beginning(saved=saved, start=self.beginning.start)

    def _become(self, new: SessionState) -> None:
        self._state = transition(self._state, new)


class Lobby:
    """All seats of a server, by token. limits: how long they are kept."""

    def __init__(self, limits: SocketLimits, metrics: Metrics, ledger: UsageLedger) -> None:
        self.limits = limits
        self.metrics = metrics
        self.ledger = ledger
        self.num_recovered = 0
        """Times that a session was carried on elsewhere."""
        self.draining = False
        self.closing_s = math.inf
        """When the server closes, monotonic."""
        self.rewind_s = 0.0
        """How far back a player can go."""
        self._seats: dict[str, Seat] = {}
        self._files: dict[str, tuple[str, bytes]] = {}  # to be fetched: name, content
        self._timers: dict[str, asyncio.TimerHandle] = {}

    @property
    def seats(self) -> list[Seat]:
        return list(self._seats.values())

    def world_of(self, token: str | None) -> str | None:
        """Of the session that a player comes back to, if there is one."""
        seat = self._seats.get(token or "")
        return None if seat is None else seat.pool.title

    def sit(
        self,
        pool: Pool,
        grant: Grant,
        beginning: Beginning,
        take_over: Callable[[], None] | None = None,
    ) -> Seat:
        """A new session. take_over: of the socket that has it. Raises ProtocolError while the
        server closes.
        """
        if self.draining:
            raise ProtocolError(CloseCode.BUSY, "the server is closing; try again in a minute")
        seat = Seat(self, pool, grant, beginning)
        self._seats[seat.token] = seat
        if take_over is not None:
            self._attach(seat, take_over)
        return seat

    def offer(self, pool: Pool, grant: Grant, beginning: Beginning) -> Seat:
        """A new session that somebody will come for, within OFFER_S."""
        seat = self.sit(pool, grant, beginning)
        seat._become(SessionState.LOST)
        self._expire(seat, OFFER_S)
        whose = (grant.who, grant.token_id)
        offers = [s for s in self._seats.values() if s.is_offer]
        own = [s for s in offers if (s.grant.who, s.grant.token_id) == whose]
        for old in [*own[:-MAX_OFFERS], *offers[: -MAX_OFFERS * 4]]:
            self.end(old)
        return seat

    def fork(self, seat: Seat, saved: SavedSession) -> Seat:
        """A session that goes on from another's; one that nobody came for is forgotten."""
        if seat.fork is not None and seat.fork.is_offer:
            self.end(seat.fork)
        seat.fork = self.offer(seat.pool, seat.grant, Beginning(saved=saved))
        seat.fork.wants_pause = seat.wants_pause
        seat.fork.played_s = seat.played_s  # or a time limit would be none
        return seat.fork

    async def claim(self, token: str, grant: Grant, take_over: Callable[[], None]) -> Seat:
        """The session that a player comes back to; a socket that still has it lets go. Raises
        ProtocolError where there is none such any more.
        """
        seat = self._seats.get(token)
        if seat is None or not _same_player(seat.grant, grant):
            raise ProtocolError(
                CloseCode.UNKNOWN, "this session is over; sessions are kept for a short while only"
            )
        while seat.attached is not None:
            seat.attached()
            await seat.released.wait()
            if token not in self._seats:
                raise ProtocolError(CloseCode.UNKNOWN, "this session has just ended")
        if (timer := self._timers.pop(token, None)) is not None:
            timer.cancel()
        self._attach(seat, take_over)
        seat.grant = grant
        return seat

    def _attach(self, seat: Seat, take_over: Callable[[], None]) -> None:
        """A socket has it from now on. take_over: called when another one wants it."""
        seat.attached = take_over
        seat.released.clear()

    def leave(self, seat: Seat) -> None:
        """Nobody has it any more: kept without a place for a while, then ended."""
        seat.attached = None
        if seat.token in self._seats:
            self._seats[seat.token] = self._seats.pop(seat.token)  # by when they left
            self._expire(seat, self.limits.resume_s)
            seat.vacate(SessionState.LOST)
            self._bound_kept()
        seat.released.set()

    def end(self, seat: Seat) -> None:
        """It is over, and nothing of it is kept. A second time does nothing."""
        if (timer := self._timers.pop(seat.token, None)) is not None:
            timer.cancel()
        if self._seats.pop(seat.token, None) is not None:
            seat.end()

    def put_file(self, seat: Seat, content: bytes) -> str:
        """Keeps a file to be fetched once within OFFER_S, in place of the seat's last; its id."""
        self._files.pop(seat.file_id, None)
        seat.file_id = secrets.token_urlsafe(24)
        self._files[seat.file_id] = (f"{seat.pool.title}.reverie", content)
        asyncio.get_running_loop().call_later(OFFER_S, self._files.pop, seat.file_id, None)
        return seat.file_id

    def take_file(self, file_id: str) -> tuple[str, bytes] | None:
        return self._files.pop(file_id, None)

    async def drain(self, within_s: float) -> None:
        """No newcomers from now on; back when everybody has left, or after so long."""
        self.draining = True
        self.closing_s = time.monotonic() + within_s
        while time.monotonic() < self.closing_s and any(s.attached for s in self.seats):
            await asyncio.sleep(0.1)

    def close(self) -> None:
        """End everything."""
        for seat in self.seats:
            if seat.attached is not None:
                seat.attached()
            self.end(seat)
        self._files.clear()

    def _expire(self, seat: Seat, after_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._timers[seat.token] = loop.call_later(after_s, self.end, seat)

    def _bound_kept(self) -> None:
        """A crowd that comes and goes must not fill the memory: who left first is forgotten."""
        kept = [s for s in self._seats.values() if s.attached is None and not s.is_offer]
        for seat in kept[: max(len(kept) - self.limits.max_kept, 0)]:
            self.end(seat)


def _same_player(had: Grant, shown: Grant) -> bool:
    """An expired token is good for the session that it began, another one for any of its key."""
    same_key = (had.who, had.key_sha256) == (shown.who, shown.key_sha256)
    return same_key and (not shown.is_expired or had.token_id == shown.token_id)


async def saved_of(handle: AnyHandle) -> SavedSession | None:
    """The session as it is; None if it has drawn nothing yet, has ended, or its engine is stuck."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[SavedSession | None] = loop.create_future()

    def settle(saved: SavedSession | None) -> None:
        if not answer.done():
            answer.set_result(saved)

    def tell(saved: SavedSession | None) -> None:
        try:
            loop.call_soon_threadsafe(settle, saved)
        except RuntimeError:  # the loop closed: nobody is left to tell
            logger.debug("nobody waits for a saved session any more")

    handle.save(tell)
    try:
        return await asyncio.wait_for(answer, _SNAPSHOT_WITHIN_S)
    except TimeoutError:
        return None
