"""A WebSocket client that costs little for each message, and that can misbehave.

The protocol is the websockets library's; here it meets a bare transport, without a task or a queue
per socket, so that hundreds of players fit in half a core. What a person's browser would never do
(stop reading, vanish, send what is no message) is possible because the transport is at hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Origin, Subprotocol
from websockets.uri import parse_uri


class Wire(asyncio.Protocol):
    """One socket. Make it with `connect`.

    on_message: called with the bytes of every binary message. closed: done when the connection is
    gone, whoever ended it. status: of the HTTP answer, 0 before there was one; 101 is a WebSocket.
    """

    def __init__(
        self,
        address: str,
        on_message: Callable[[bytes], None],
        subprotocols: Sequence[str] = (),
        origin: str | None = None,
    ) -> None:
        self.on_message = on_message
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.opened: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.status = 0
        self.subprotocol: str | None = None
        self._protocol = ClientProtocol(
            parse_uri(address),
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            origin=Origin(origin) if origin else None,
        )
        self._transport: asyncio.Transport | None = None
        self.is_deaf = False
        """Nothing is read, written or answered any more, but the connection stays."""

    @property
    def close_code(self) -> int | None:
        """With which the server closed; None when it did not say."""
        code = self._protocol.close_code
        return None if code == 1006 else code

    @property
    def is_open(self) -> bool:
        return self._protocol.state is State.OPEN

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None, "connect first"
        return self._transport

    def send(self, *messages: bytes) -> None:
        """Binary messages, in one write. Nothing happens on a socket that is not open."""
        if self._protocol.state is not State.OPEN or self.is_deaf:
            return
        for message in messages:
            self._protocol.send_binary(message)
        self._flush()

    def send_raw(self, data: bytes) -> None:
        """Bytes that the protocol knows nothing of."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def close(self, code: int = 1000) -> None:
        """As a browser closes a tab."""
        if self._protocol.state is State.OPEN and not self.is_deaf:
            self._protocol.send_close(code)
            self._flush()

    def abort(self) -> None:
        """The connection is reset: a machine that crashed and came back."""
        if self._transport is not None:
            self._transport.abort()

    def go_deaf(self) -> None:
        """The machine sleeps: the connection stays, nobody is there."""
        self.is_deaf = True
        self.transport.pause_reading()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._protocol.send_request(self._protocol.connect())
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        self._take_events()
        self._flush()

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._take_events()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_result(False)
        if not self.closed.done():
            self.closed.set_result(None)

    def _take_events(self) -> None:
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                if event.opcode is Opcode.BINARY:
                    self.on_message(bytes(event.data))
            elif isinstance(event, Response):
                self._answered(event)

    def _answered(self, response: Response) -> None:
        self.status = response.status_code
        self.subprotocol = response.headers.get("Sec-WebSocket-Protocol")
        if isinstance(self._protocol.handshake_exc, InvalidStatus):
            self.status = self._protocol.handshake_exc.response.status_code
        if not self.opened.done():
            self.opened.set_result(self._protocol.handshake_exc is None)

    def _flush(self) -> None:
        transport, pieces = self._transport, self._protocol.data_to_send()
        if transport is None or transport.is_closing():
            return
        if data := b"".join(pieces):
            transport.write(data)
        if b"" in pieces and transport.can_write_eof():
            transport.write_eof()
        if self._protocol.close_expected() and self._protocol.state is State.CLOSED:
            transport.close()


async def connect(
    address: str,
    on_message: Callable[[bytes], None],
    source: str | None = None,
    **options: Any,
) -> Wire:
    """A socket to "ws://127.0.0.1:PORT/..."; whether it became a WebSocket is in `opened`. source:
    address to come from, another one of 127.0.0.0/8. Raises OSError where nothing listens.
    """
    loop = asyncio.get_running_loop()
    uri = parse_uri(address)
    wire = Wire(address, on_message, **options)
    local = (source, 0) if source else None
    await loop.create_connection(lambda: wire, uri.host, uri.port, local_addr=local)
    return wire
