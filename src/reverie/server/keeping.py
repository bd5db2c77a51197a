"""What a player takes along (a file, a fork, a link) and brings back. Nothing of it is written
here: a file lies in memory until its player has fetched it, a minute at most.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from reverie.core import ReverieError
from reverie.server import openapi
from reverie.server.lobby import Beginning, Lobby, Seat, saved_of

if TYPE_CHECKING:
    from reverie.engine import SavedSession
    from reverie.world import World

KEPT = ("save", "fork", "share")
"""The commands of the socket that ANSWER answers."""


async def keep(command: str, seat: Seat, lobby: Lobby, world: World) -> dict[str, Any]:
    """Body of the ANSWER to one of these commands. Raises ReverieError, with the line for the
    player, where there is nothing to keep yet.
    """
    saved = await _newest(seat)
    if command == "save":
        content = await asyncio.to_thread(saved.to_bytes, world)
        url = f"/api/saves/{lobby.put_file(seat, content)}"
        return {"url": url, "name": f"{world.config.name}.reverie", "bytes": len(content)}
    if command == "fork":
        return {"resume": lobby.fork(seat, saved).token}
    if saved.replay is None:
        raise ReverieError(
            "this session has no link: it began in a picture or a file without one, or is too long"
        )
    return {"replay": await asyncio.to_thread(saved.replay.to_link)}


async def _newest(seat: Seat) -> SavedSession:
    handle, saved = seat.handle, seat.beginning.saved
    if handle is not None:
        saved = await saved_of(handle) or handle.kept
    if saved is None:
        raise ReverieError("there is nothing to keep yet; play a moment first")
    return saved


async def bring_back(world: World, body: bytes, is_file: bool) -> Beginning:
    """What a session begins from that a player brings: the bytes of a saved session, or JSON with a
    replay link. Raises ReverieError on what is neither, or of another world.
    """
    from reverie.engine import Replay, SavedSession
    from reverie.engine.replay import check_replay

    if is_file:
        return Beginning(saved=await asyncio.to_thread(SavedSession.from_bytes, world, body))
    link = openapi.read(openapi.ReplayRequest, body).replay
    replay = await asyncio.to_thread(Replay.from_link, link)
    check_replay(world, replay)
    return Beginning(replay=replay)
