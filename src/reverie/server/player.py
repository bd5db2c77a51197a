"""One player's socket: actions in, frames out, nothing queued.

The way of a frame here: the engine thread puts it into the session's mailbox and wakes this socket;
if the client has room (two frames may be on their way) it is taken, encoded and sent, else it waits
in the mailbox until the client acknowledges or a newer frame replaces it. Encoding happens on the
event loop: at 160x96 it takes 0.06 ms, a hop to a thread and back takes longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from reverie.codec import JpegCodec
from reverie.core import Frame, ReverieError
from reverie.server import protocol
from reverie.server.engine_host import EngineHost, describe
from reverie.server.limits import PICTURE_COST, FloodGauge, SocketLimits
from reverie.server.metrics import Metrics
from reverie.server.protocol import CloseCode, ProtocolError
from reverie.server.request import (
    PlayRequest,
    known_prompt,
    known_seed,
    known_start,
    known_steps,
    start_from_picture,
)

if TYPE_CHECKING:
    from reverie.engine import Engine, Handle
    from reverie.world import Start

_SILENCE_CHECK_S = 0.5


class Player:
    """Serves one accepted WebSocket until either side ends it. Whatever happens, the session is
    closed at the end.
    """

    def __init__(
        self,
        websocket: WebSocket,
        host: EngineHost,
        metrics: Metrics,
        codec: JpegCodec,
        limits: SocketLimits,
    ) -> None:
        self._websocket = websocket
        self._host = host
        self._metrics = metrics
        self._codec = codec
        self._limits = limits
        self._engine: Engine | None = None
        self._session: Handle | None = None
        self._news = asyncio.Event()
        self._flood = FloodGauge(limits.messages_per_s)
        self._in_flight: deque[int] = deque()  # indices of frames that are not acknowledged yet
        self._unanswered: deque[tuple[int, float]] = deque(maxlen=512)  # (seq, client time)
        self._answered_time_ms = 0.0
        self._answers: deque[bytes] = deque(maxlen=8)  # to prompts; who floods is not told all
        self._early: deque[protocol.CommandMessage] = deque(maxlen=8)  # before there is a place
        self._last_seq = 0
        self._heard_s = time.monotonic()
        self._previous: Frame | None = None

    async def run(self) -> None:
        try:
            await _until_first(self._play(), self._read())
        except ProtocolError as error:
            self._metrics.refusals.labels(error.code.name.lower()).inc()
            await self._close(error.code, str(error))
        except ReverieError as error:
            await self._close(CloseCode.FAILED, str(error))
        except WebSocketDisconnect:
            pass

    async def _play(self) -> None:
        if self._host.engine is None:
            await self._send(protocol.pack_state("warming"))
        engine = await self._host.wait()
        request = PlayRequest.from_query(self._websocket.query_params, engine.world)
        await self._send(protocol.pack_hello(describe(engine.world)))
        self._engine = engine
        room = self._host.room
        with self._metrics.session_gauge() as count_state:

            async def tell(position: int, wait_s: float | None) -> None:
                count_state("queued")
                await self._send(protocol.pack_state("queued", **_place(position, wait_s)))

            wanted = (request.start, request.seed, request.num_steps)
            try:
                session = await room.enter(engine, lambda: engine.open(*wanted), tell)
            except ReverieError as error:
                raise ProtocolError(CloseCode.BUSY, str(error)) from None
            self._session = session
            try:
                with room.stay():
                    session.on_frame(self._waker(asyncio.get_running_loop()))
                    while self._early:
                        self._handle(self._early.popleft())
                    await self._write(session, engine.world.config.fps, count_state)
            finally:
                self._session = None
                session.close()
                room.wake()

    def _waker(self, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop closed: nobody is left to wake
                loop.call_soon_threadsafe(self._news.set)

        return wake

    # Frames out.

    async def _write(self, session: Handle, fps: float, count_state: Callable[[str], None]) -> None:
        told = None
        while True:
            self._news.clear()
            state = session.state.value
            if state != told:
                told = state
                self._heard_s = time.monotonic()  # waiting in the queue was no silence
                count_state(state)
                await self._tell_state(session, state)
            while self._answers:
                await self._send(self._answers.popleft())
            room = len(self._in_flight) < self._limits.frames_in_flight
            frame = session.take() if room else None
            if frame is not None:
                await self._send_frame(frame, fps)
                continue
            self._release_the_silent(state)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SILENCE_CHECK_S):
                    await self._news.wait()

    async def _send_frame(self, frame: Frame, fps: float) -> None:
        packet = self._codec.encode(frame)
        encoded_s = time.monotonic()
        while self._unanswered and self._unanswered[0][0] <= frame.action_seq:
            self._answered_time_ms = self._unanswered.popleft()[1]
        self._in_flight.append(frame.frame_index)
        await self._send(protocol.pack_frame(frame, packet.data, self._answered_time_ms, encoded_s))
        self._metrics.observe_frame(frame, self._previous, encoded_s, fps)
        self._previous = frame

    async def _tell_state(self, session: Handle, state: str) -> None:
        self._previous = None  # the gap over a pause says nothing about the frame rate
        reason = {"reason": session.reason} if session.reason else {}
        await self._send(protocol.pack_state(state, **reason))
        if state == "ended":
            raise ReverieError(session.reason or "the session ended")

    def _release_the_silent(self, state: str) -> None:
        limits = self._limits
        is_drawn = state in ("playing", "idle")
        limit_s = limits.silent_s if is_drawn else limits.idle_s
        if time.monotonic() - self._heard_s > limit_s:
            what = "no sign of life" if is_drawn else "nobody played"
            raise ProtocolError(
                CloseCode.SILENT, f"{what} for {limit_s:g} s; the place was given back"
            )

    # Actions in.

    async def _read(self) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            data = message.get("bytes")
            if data is None:
                raise ProtocolError(CloseCode.MALFORMED, "text message; this protocol is binary")
            self._heard_s = time.monotonic()
            value = protocol.parse(data)
            is_picture = isinstance(value, protocol.PictureMessage)
            self._flood.count(self._heard_s, PICTURE_COST if is_picture else 1.0)
            self._handle(value)

    def _handle(self, message: protocol.ClientValue) -> None:
        if isinstance(message, protocol.AckMessage):
            self._acknowledge(message.frame_index)
        elif self._session is None or self._engine is None:
            # There is nothing to steer yet; what was commanded takes effect then.
            if isinstance(message, protocol.CommandMessage):
                self._early.append(message)
        elif isinstance(message, protocol.ActionMessage):
            self._act(message, self._session, self._engine)
        elif isinstance(message, protocol.PictureMessage):
            start = start_from_picture(self._engine.world, message.jpeg)
            self._restart(self._session, start, None)
        else:
            self._command(message, self._session, self._engine)

    def _acknowledge(self, frame_index: int) -> None:
        # An index that is not on its way is from before a restart, and means nothing any more.
        if frame_index in self._in_flight:
            while self._in_flight.popleft() != frame_index:
                pass
            self._news.set()

    def _act(self, message: protocol.ActionMessage, session: Handle, engine: Engine) -> None:
        if message.seq <= self._last_seq:
            raise ProtocolError(
                CloseCode.MALFORMED,
                f"ACTION seq {message.seq} after {self._last_seq}; expected it to grow",
            )
        vector = protocol.action_vector(message, engine.world.config.action_space)
        self._last_seq = message.seq
        self._unanswered.append((message.seq, message.client_time_ms))
        session.act(vector, message.seq, self._heard_s)

    def _command(self, message: protocol.CommandMessage, session: Handle, engine: Engine) -> None:
        arguments = message.arguments
        match message.command:
            case "pause":
                session.pause()
            case "resume":
                session.resume()
            case "steps":
                session.set_steps(known_steps(engine.world, arguments.get("steps")))
            case "prompt":
                self._prompt(known_prompt(arguments.get("text")), session)
            case "restart" | "start":
                start = known_start(engine.world, arguments.get("name"))
                self._restart(session, start, known_seed(arguments.get("seed")))

    def _prompt(self, text: str, session: Handle) -> None:
        try:
            done = session.prompt(text)
        except ReverieError as error:
            self._answers.append(protocol.pack_prompt(text, error=str(error)))
        else:
            self._answers.append(protocol.pack_prompt(text, **done._asdict()))
        self._news.set()

    def _restart(self, session: Handle, start: str | Start | None, seed: int | None) -> None:
        session.restart(start, seed)
        self._in_flight.clear()  # frames of the old run may never be presented

    async def _send(self, message: bytes) -> None:
        await self._websocket.send_bytes(message)

    async def _close(self, code: CloseCode, line: str) -> None:
        if self._websocket.application_state is not WebSocketState.CONNECTED:
            return
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await self._send(protocol.pack_error(line))
            await self._websocket.close(code)


def _place(position: int, wait_s: float | None) -> dict[str, int]:
    """What STATE says of a place in the line; expected_wait_s only where it is known."""
    expected = {} if wait_s is None else {"expected_wait_s": round(wait_s)}
    return {"position": position, **expected}


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
