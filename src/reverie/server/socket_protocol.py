"""WebSockets as a server of many players must read them: everybody in turn.

As it comes, uvicorn reads up to 256 KB at once from a socket, which is thousands of messages that
nobody else's socket is served in, and goes on reading after the server has closed, until the client
agrees: whoever floods does not.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

READ_BYTES = 1024
"""At once, from one socket: some thirty actions."""
MAX_UNREAD = 16
"""Messages that wait for the player's task; beyond that the socket is not read."""
REFUSED = 4400
"""Close codes from here on are for clients that did what they may not, and others that are over."""
LINGER_S = 0.3
"""After such a close, so that its reason arrives."""


class PlayerSocketProtocol(WebSocketsSansIOProtocol):
    """See the module."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.max_size = READ_BYTES  # type: ignore[attr-defined]  # asyncio's own reads this
        super().connection_made(transport)

    def send_receive_event_to_app(self) -> None:
        was_paused, self.read_paused = self.read_paused, True  # so that it does not pause
        super().send_receive_event_to_app()
        self.read_paused = was_paused
        if not was_paused and self.queue.qsize() > MAX_UNREAD:
            self.read_paused = True
            self.transport.pause_reading()

    async def send(self, message: Any) -> None:
        await super().send(message)
        is_close = message["type"] == "websocket.close"
        if is_close and message.get("code", 1000) >= REFUSED and not self.transport.is_closing():
            self.transport.pause_reading()
            self.loop.call_later(LINGER_S, self.transport.close)
