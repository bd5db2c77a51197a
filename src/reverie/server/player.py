"""One player's socket: actions in, frames out, nothing queued.

The way of a frame here: the engine puts it into the session's mailbox and wakes this socket; if the
client has room (two frames may be on their way) it is taken, encoded and sent, else it waits in the
mailbox until the client acknowledges or a newer frame replaces it. Encoding happens on the event
loop: at 160x96 it takes 0.06 ms, a hop to a thread and back takes longer.

The session itself is the lobby's (`Seat`): it outlives this socket for a while, and its place in an
engine may come and go while the socket stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from reverie.codec import JpegCodec
from reverie.core import Frame, ReverieError
from reverie.server import protocol
from reverie.server.access import Access, Grant
from reverie.server.fleet import Fleet, Pool, describe
from reverie.server.keeping import KEPT, keep
from reverie.server.limits import PICTURE_COST, FloodGauge, SocketLimits
from reverie.server.lobby import Beginning, Lobby, Seat
from reverie.server.metrics import Metrics
from reverie.server.presence import away, time_limit_s
from reverie.server.protocol import CloseCode, ProtocolError
from reverie.server.request import (
    PlayRequest,
    known_photons,
    known_prompt,
    known_seconds,
    known_seed,
    known_start,
    known_steps,
    start_from_picture,
)
from reverie.session import FullError, SessionState

if TYPE_CHECKING:
    from reverie.engine.handle import Prompted
    from reverie.server.fleet import AnyHandle
    from reverie.world import Start, World

CHECK_S = 0.25
"""How often a socket looks whether somebody is still there."""
METER_S = 1.0
WARN_S = 60.0
"""Before the time limit."""
_WITHDRAWN = "the key of this session was withdrawn"
_AWAY = (SessionState.PAUSED, SessionState.LOST)


class Player:
    """Serves one accepted WebSocket until either side ends it."""

    def __init__(
        self,
        websocket: WebSocket,
        fleet: Fleet,
        lobby: Lobby,
        access: Access,
        metrics: Metrics,
        codec: JpegCodec,
    ) -> None:
        self._websocket = websocket
        self._fleet = fleet
        self._lobby = lobby
        self._access = access
        self._metrics = metrics
        self._codec = codec
        self._limits: SocketLimits = lobby.limits
        self._world: World | None = None
        self._seat: Seat | None = None
        self._session: AnyHandle | None = None  # the seat's place, once it has been announced
        self._news = asyncio.Event()
        self._back = asyncio.Event()  # somebody is there again, who was away without a place
        self._elsewhere = asyncio.Event()  # another socket took the session over
        self._flood = FloodGauge(self._limits.messages_per_s)
        self._in_flight: deque[int] = deque()  # indices of frames that are not acknowledged yet
        self._unanswered: deque[tuple[int, float]] = deque(maxlen=512)  # (seq, client time)
        self._answered_time_ms = 0.0
        self._answers: deque[bytes] = deque(maxlen=8)  # who floods is not told all
        self._early: deque[protocol.CommandMessage] = deque(maxlen=8)  # before there is a place
        self._vectors: protocol.Vectors = {}
        self._is_over = False  # whoever left, or was shown the door, does not come back
        self._last_seq = 0
        self._heard_s = time.monotonic()
        self._state_since_s = time.monotonic()
        self._told: dict[str, Any] = {}
        self._replay_frames = 0
        self._previous: Frame | None = None
        self._tasks: set[asyncio.Future[None]] = set()

    async def run(self) -> None:
        try:
            await _until_first(self._play(), self._read(), self._let_go())
        except ProtocolError as error:
            self._metrics.refusals.labels(error.code.name.lower()).inc()
            await self._close(error.code, str(error))
        except ReverieError as error:
            await self._close(CloseCode.FAILED, str(error))
        except _LeftError:
            await self._close(None, "")
        except WebSocketDisconnect:
            pass
        finally:
            for task in self._tasks:
                task.cancel()

    async def _play(self) -> None:
        query = self._websocket.query_params
        wanted = self._lobby.world_of(query.get("resume")) or query.get("world") or None
        pool = self._fleet.pool(wanted)
        if pool.world is None:
            await self._send(protocol.pack_state("warming"))
        world = await pool.wait()
        pool = self._fleet.pool(wanted)  # now that its name is known
        grant = self._access.of_socket(self._websocket, world.config.name)
        seat = await self._sit(pool, world, grant)
        try:
            with self._access.playing(grant):  # after an old socket has let go of the session
                await self._stay_or_end(seat, world)
        finally:
            self._seat = self._session = None
            if self._is_over:
                self._lobby.end(seat)
            self._lobby.leave(seat)

    async def _stay_or_end(self, seat: Seat, world: World) -> None:
        try:
            await self._stay(seat, world)
        except ReverieError:
            self._is_over = True
            raise

    async def _sit(self, pool: Pool, world: World, grant: Grant) -> Seat:
        """A new session, or the one that the player comes back to."""
        query = self._websocket.query_params
        if query.get("resume"):
            return await self._lobby.claim(query["resume"], grant, self._elsewhere.set)
        wanted = PlayRequest.from_query(query, world)
        beginning = Beginning(wanted.start, wanted.seed, wanted.num_steps)
        return self._lobby.sit(pool, grant, beginning, self._elsewhere.set)

    async def _stay(self, seat: Seat, world: World) -> None:
        """From HELLO on: queue, play, and queue again whenever the place was lost."""
        limit_s = time_limit_s(self._limits, seat.grant.play_s)
        hello = {
            **describe(world),
            "resume": seat.token,
            "resume_s": self._limits.resume_s,
            "rewind_s": self._lobby.rewind_s,
            "time_limit_s": limit_s if limit_s < float("inf") else None,
        }
        await self._send(protocol.pack_hello(hello))
        self._world, self._seat = world, seat
        while True:
            session = await self._queue(seat)
            with seat.pool.room.stay():
                await self._write(seat, session, world.config.fps)
            if seat.state in _AWAY:
                await self._wait_for_return(seat)

    async def _queue(self, seat: Seat) -> AnyHandle:
        async def tell(position: int, wait_s: float | None) -> None:
            self._told = {}
            await self._send(protocol.pack_queued(position, wait_s))

        self._replay_frames = seat.beginning.replay_frames
        try:
            session = await seat.enter(tell)
        except FullError as error:
            raise ProtocolError(CloseCode.BUSY, str(error)) from None
        if not self._access.is_valid(seat.grant):  # withdrawn while it waited
            raise ProtocolError(CloseCode.UNAUTHORIZED, _WITHDRAWN)
        self._session = session
        self._in_flight.clear()
        self._heard_s = self._state_since_s = time.monotonic()  # waiting was no silence
        session.on_frame(self._waker(asyncio.get_running_loop()))
        while self._early:
            self._handle(self._early.popleft())
        return session

    def _waker(self, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop closed: nobody is left to wake
                loop.call_soon_threadsafe(self._news.set)

        return wake

    async def _let_go(self) -> None:
        await self._elsewhere.wait()
        raise ProtocolError(CloseCode.ELSEWHERE, "the session was continued elsewhere")

    # Frames out.

    async def _write(self, seat: Seat, session: AnyHandle, fps: float) -> None:
        """Until the seat has no place any more."""
        watch = asyncio.ensure_future(self._watch(seat, session))
        try:
            while seat.handle is session:
                self._news.clear()
                if session.state is SessionState.ENDED:
                    seat.recover(session)
                    break
                await self._tell_state(session)
                while self._answers:
                    await self._send(self._answers.popleft())
                room = len(self._in_flight) < self._limits.frames_in_flight
                frame = session.take() if room else None
                if frame is not None:
                    await self._send_frame(frame, fps)
                    continue
                if watch.done():
                    watch.result()
                await self._news.wait()
        finally:
            watch.cancel()
            self._session = None

    async def _send_frame(self, frame: Frame, fps: float) -> None:
        if not frame.finished_s:  # drawn before the session was saved
            now_s = time.monotonic()
            frame = replace(frame, started_s=now_s, finished_s=now_s)
        packet = self._codec.encode(frame)
        encoded_s = time.monotonic()
        while self._unanswered and self._unanswered[0][0] <= frame.action_seq:
            self._answered_time_ms = self._unanswered.popleft()[1]
        self._in_flight.append(frame.frame_index)
        await self._send(protocol.pack_frame(frame, packet.data, self._answered_time_ms, encoded_s))
        # An idle session is drawn at some ticks only: its gaps say nothing about the frame rate.
        previous = self._previous if self._told.get("state") == "playing" else None
        self._metrics.observe_frame(frame, previous, encoded_s, fps, time.monotonic())
        self._previous = frame
        if 0 < self._replay_frames <= frame.frame_index + 1:
            self._replay_frames = 0

    async def _tell_state(self, session: AnyHandle) -> None:
        state = session.state.value
        said: dict[str, Any] = {"state": state}
        if self._replay_frames:
            said["replay"] = True
        assert self._seat is not None
        limit_s = time_limit_s(self._limits, self._seat.grant.play_s)
        left_s = min(limit_s - self._seat.played_s, self._lobby.closing_s - time.monotonic())
        if left_s < WARN_S:
            said["left_s"] = WARN_S  # said once, when it begins to run
        if said == self._told:
            return
        if self._told.get("state") != state:
            self._state_since_s = self._heard_s = time.monotonic()
            self._previous = None  # the gap over a pause says nothing about the frame rate
        self._told = dict(said)
        if left_s < WARN_S:
            said["left_s"] = round(max(left_s, 0.0), 1)
        await self._send(protocol.pack_state(**said))

    # Who is still there?

    async def _watch(self, seat: Seat, session: AnyHandle) -> None:
        """Looks after a place that nobody uses, and meters it. Wakes `_write` when it fails."""
        metered_s, state = time.monotonic(), None
        try:
            while True:
                await asyncio.sleep(CHECK_S)
                now_s = time.monotonic()
                if now_s - metered_s >= METER_S:
                    metered_s = now_s
                    seat.meter(session)
                    self._check_limits(seat)
                since_s = (now_s - self._state_since_s, now_s - self._heard_s)
                is_crowded = seat.pool.room.num_waiting > 0
                was, state = state, away(session.state, *since_s, self._limits, is_crowded)
                if state is not None and was is state:  # twice: this server may have been asleep
                    seat.wants_pause |= state is SessionState.PAUSED
                    self._session = None
                    self._back.clear()
                    seat.vacate(state)
                    return
        finally:
            self._news.set()

    def _check_limits(self, seat: Seat) -> None:
        limit_s = time_limit_s(self._limits, seat.grant.play_s)
        if seat.played_s >= limit_s:
            raise ProtocolError(CloseCode.OVER, f"the time limit of {limit_s:g} s is over")
        if time.monotonic() >= self._lobby.closing_s:
            raise ProtocolError(CloseCode.BUSY, "the server is closing; come back in a minute")
        if not self._access.is_valid(seat.grant):
            raise ProtocolError(CloseCode.UNAUTHORIZED, _WITHDRAWN)

    async def _wait_for_return(self, seat: Seat) -> None:
        """Without a place, until the player does something again."""
        if self._told.get("state") != "paused":
            self._told = {"state": "paused"}
            await self._send(protocol.pack_state("paused", reason="nobody played for a while"))
        rest_s = self._limits.idle_s - (time.monotonic() - self._state_since_s)
        try:
            async with asyncio.timeout(rest_s):
                await self._back.wait()
        except TimeoutError:
            line = f"nobody played for {self._limits.idle_s:g} s; the place was given back"
            raise ProtocolError(CloseCode.SILENT, line) from None

    # Actions in.

    async def _read(self) -> None:
        try:
            await self._read_on()
        except (ProtocolError, _LeftError):
            self._is_over = True
            raise

    async def _read_on(self) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            data = message.get("bytes")
            if data is None:
                raise ProtocolError(CloseCode.MALFORMED, "text message; this protocol is binary")
            self._heard_s = time.monotonic()
            value = protocol.parse(data)
            self._flood.count(self._heard_s, _cost(value))
            self._handle(value)

    def _handle(self, message: protocol.ClientValue) -> None:
        is_command = isinstance(message, protocol.CommandMessage)
        if isinstance(message, protocol.AckMessage):
            self._acknowledge(message.frame_index)
        elif is_command and message.command == "end":
            raise _LeftError
        elif self._session is None or self._world is None or self._seat is None:
            self._handle_without_place(message)
        elif isinstance(message, protocol.ActionMessage):
            self._act(message, self._session, self._world)
        elif isinstance(message, protocol.PictureMessage):
            self._restart(self._session, start_from_picture(self._world, message.jpeg), None)
        else:
            self._command(message, self._session, self._world)

    def _handle_without_place(self, message: protocol.ClientValue) -> None:
        """There is nothing to steer yet, or any more; what was commanded takes effect then."""
        seat, world = self._seat, self._world
        is_command = isinstance(message, protocol.CommandMessage)
        if isinstance(message, protocol.PictureMessage) and seat is not None and world is not None:
            seat.begin_anew(start_from_picture(world, message.jpeg), None)
        elif is_command and seat is not None and message.command in KEPT:
            self._spawn(self._keep(message.command, seat))
            return
        elif is_command and message.command == "photon":
            return
        elif is_command:
            if message.command == "pause" and seat is not None and seat.state in _AWAY:
                seat.wants_pause = True
                return
            self._early.append(message)
        elif seat is None or seat.state is not SessionState.LOST:
            return  # hands that rest on the keys are no wish to go on
        if seat is not None and (is_command and message.command == "resume"):
            seat.wants_pause = False
        self._back.set()

    def _acknowledge(self, frame_index: int) -> None:
        # An index that is not on its way is from before a restart, and means nothing any more.
        if frame_index in self._in_flight:
            while self._in_flight.popleft() != frame_index:
                pass
            self._news.set()

    def _act(self, message: protocol.ActionMessage, session: AnyHandle, world: World) -> None:
        if message.seq <= self._last_seq:
            raise ProtocolError(
                CloseCode.MALFORMED,
                f"ACTION seq {message.seq} after {self._last_seq}; expected it to grow",
            )
        vector = protocol.action_vector(message, world.config.action_space, self._vectors)
        self._last_seq = message.seq
        self._unanswered.append((message.seq, message.client_time_ms))
        session.act(vector, message.seq, self._heard_s)

    def _command(self, message: protocol.CommandMessage, session: AnyHandle, world: World) -> None:
        arguments = message.arguments
        assert self._seat is not None
        match message.command:
            case "pause":
                self._seat.wants_pause = True
                session.pause()
            case "resume":
                self._seat.wants_pause = False
                session.resume()
            case "rewind":
                session.rewind(known_seconds(arguments.get("seconds")))
                self._in_flight.clear()
                self._replay_frames = 0
            case "steps":
                session.set_steps(known_steps(world, arguments.get("steps")))
            case "prompt":
                self._prompt(known_prompt(arguments.get("text")), session)
            case "restart" | "start":
                start = known_start(world, arguments.get("name"))
                self._restart(session, start, known_seed(arguments.get("seed")))
            case "photon":
                for photon_ms in known_photons(arguments.get("ms")):
                    self._metrics.observe_photon(photon_ms)
            case command:
                self._spawn(self._keep(command, self._seat))

    async def _keep(self, command: str, seat: Seat) -> None:
        """Save, fork or share, and say what came of it."""
        assert self._world is not None
        try:
            answer = await keep(command, seat, self._lobby, self._world)
        except ReverieError as error:
            answer = {"error": str(error)}
        await self._answer(protocol.pack_answer(command, **answer))

    def _prompt(self, text: str, session: AnyHandle) -> None:
        loop = asyncio.get_running_loop()

        def answer(done: Prompted) -> None:
            message = protocol.pack_prompt(text, **done._asdict())
            with contextlib.suppress(RuntimeError):  # the loop closed
                loop.call_soon_threadsafe(self._answer_soon, message)

        try:
            session.prompt(text, answer)
        except ReverieError as error:
            loop.call_soon(self._answer_soon, protocol.pack_prompt(text, error=str(error)))

    def _answer_soon(self, message: bytes) -> None:
        self._answers.append(message)
        self._news.set()

    async def _answer(self, message: bytes) -> None:
        if self._session is not None:
            self._answer_soon(message)
            return
        with contextlib.suppress(WebSocketDisconnect):  # nobody writes while there is no place
            await self._send(message)

    def _restart(self, session: AnyHandle, start: str | Start | None, seed: int | None) -> None:
        assert self._seat is not None
        self._seat.begin_anew(start, seed)
        session.restart(start, seed)
        self._in_flight.clear()  # frames of the old run may never be presented
        self._replay_frames = 0

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, message: bytes) -> None:
        try:
            await self._websocket.send_bytes(message)
        except RuntimeError:  # it closed by itself, over broken frames
            raise WebSocketDisconnect(1006) from None

    async def _close(self, code: CloseCode | None, line: str) -> None:
        """code: None when the player left."""
        if self._websocket.application_state is not WebSocketState.CONNECTED:
            return
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await self._send(protocol.pack_error(line) if code else protocol.pack_state("ended"))
            await self._websocket.close(code or 1000)


class _LeftError(Exception):
    """The player leaves for good."""


def _cost(message: protocol.ClientValue) -> float:
    """Messages that it counts for."""
    if isinstance(message, protocol.PictureMessage):
        return PICTURE_COST
    is_command = isinstance(message, protocol.CommandMessage)
    return PICTURE_COST if is_command and message.command in KEPT else 1.0


async def _until_first(*coroutines: Coroutine[object, object, None]) -> None:
    """Runs them until one ends; the others are cancelled and gone before this returns."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
