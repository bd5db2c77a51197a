"""A wire between a player and the server that can be cut without either side being told: both
connections stay open, and nothing comes through any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class SilentProxy:
    """port: to connect to instead of the server's."""

    def __init__(self, server_port: int) -> None:
        self.port = 0
        self._server_port = server_port
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_silent = False

    def cut(self) -> None:
        """From now on nothing comes through, on any connection."""
        self._is_silent = True

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, both ways."""
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        pumps = self._pump(reader, far_writer), self._pump(far_reader, writer)
        tasks = {asyncio.ensure_future(pump) for pump in pumps}
        self._tasks |= tasks
        try:
            await asyncio.gather(*tasks)
        except (OSError, asyncio.CancelledError):
            pass  # the end of the test, or of one side
        finally:
            for end in (writer, far_writer):
                end.transport.abort()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            if self._is_silent:
                await asyncio.get_running_loop().create_future()  # neither data nor their end
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def silent_proxy(server_port: int) -> AsyncIterator[SilentProxy]:
    """Listens on a port of its own while it is used."""
    proxy = SilentProxy(server_port)
    listener = await asyncio.start_server(proxy.relay, "127.0.0.1", 0)
    proxy.port = listener.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        listener.close()
        await proxy.close()
