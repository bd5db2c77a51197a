"""The engine's place in the server: loaded in the background while the page is already up, stopped
when the server stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from reverie.core import MAX_KEYS, ReverieError
from reverie.server.waiting_room import WaitingRoom
from reverie.world import OWN_FORMAT

if TYPE_CHECKING:
    from reverie.engine import Engine
    from reverie.world import World


class HostState(Enum):
    """How far loading has come."""

    WARMING = "warming"
    READY = "ready"
    FAILED = "failed"


class EngineHost:
    """Loads one engine on a thread of its own and hands it to whoever waits for it.

    load: makes the engine (reads weights); may raise. The engine is started here and stopped with
    `stop`. on_loaded: called on the event loop when loading has ended, well or badly.
    """

    def __init__(
        self,
        load: Callable[[], Engine],
        on_loaded: Callable[[EngineHost], Any] | None = None,
    ) -> None:
        self._load = load
        self._on_loaded = on_loaded
        self._settled = asyncio.Event()
        self.room = WaitingRoom()
        self.engine: Engine | None = None
        """The engine, once it is ready."""
        self.failure: BaseException | None = None

    @property
    def state(self) -> HostState:
        if self.failure is not None:
            return HostState.FAILED
        return HostState.WARMING if self.engine is None else HostState.READY

    def start(self) -> None:
        """Begins loading; call on the event loop. The thread is a daemon, so that Ctrl-C need not
        wait for a half-read world.
        """
        loop = asyncio.get_running_loop()

        def run() -> None:
            engine, failure = None, None
            try:
                engine = self._load()
                engine.start()
            except BaseException as error:
                failure = error
            with contextlib.suppress(RuntimeError):  # the server stopped meanwhile, loop and all
                loop.call_soon_threadsafe(self._settle, engine, failure)

        threading.Thread(target=run, name="engine-loader", daemon=True).start()

    def _settle(self, engine: Engine | None, failure: BaseException | None) -> None:
        self.engine = engine if failure is None else None
        self.failure = failure
        self._settled.set()
        if self._on_loaded is not None:
            self._on_loaded(self)

    async def wait(self) -> Engine:
        """The engine, when it is ready. Raises ReverieError that says why it never will be."""
        await self._settled.wait()
        if self.engine is None:
            raise ReverieError(f"the world did not load: {self.failure}")
        return self.engine

    async def stop(self) -> None:
        if self.engine is not None:
            await asyncio.to_thread(self.engine.stop)


def describe(world: World) -> Mapping[str, Any]:
    """What a client must know to play a world: the body of HELLO and of the world's REST page."""
    config = world.config
    if len(config.action_space.keys) > MAX_KEYS:
        raise ReverieError(
            f"world {config.name} has {len(config.action_space.keys)} keys; "
            f"the socket carries at most {MAX_KEYS}"
        )
    return {
        "world": config.name,
        "width": config.width,
        "height": config.height,
        "fps": config.fps,
        "action_space": config.action_space.to_json(),
        "steps": list(config.denoising_steps),
        # A simulator has no networks, and must not be shown as if a network dreamed it.
        "generated": bool(config.denoiser) or config.format != OWN_FORMAT,
        # What can be wished for; a world without attributes takes no prompts.
        "prompts": list(config.prompts),
        "starts": [{"name": start.name, "title": start.title} for start in world.starts],
    }
