"""The engines of a server: one for each world and device that it was told of, loaded in the
background while the page is already up, started again when one dies, stopped with the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from reverie.core import MAX_KEYS, ReverieError
from reverie.server.loop_gauge import LoopGauge
from reverie.server.protocol import CloseCode, ProtocolError
from reverie.server.waiting_room import WaitingRoom
from reverie.session import FullError
from reverie.world import OWN_FORMAT

if TYPE_CHECKING:
    from reverie.engine import Engine, EngineProcess, Handle, RemoteHandle, SavedSession
    from reverie.world import World

    AnyEngine = Engine | EngineProcess
    AnyHandle = Handle | RemoteHandle

MAX_WAITING = 1024
"""Players in the line of one world."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
"""Between two tries to start an engine that died: doubles from the first to the longest."""
STABLE_S = 60.0
"""An engine that lived for so long did not die of how it was started."""

logger = logging.getLogger(__name__)


class HostState(Enum):
    """How far loading has come."""

    WARMING = "warming"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """How to make an engine. make: not started yet; called on a thread, may raise. world: the name
    it will have, empty where only loading it tells. standby: keep another one, loaded and idle,
    that takes the place of one that dies.
    """

    make: Callable[[], AnyEngine]
    world: str = ""
    device: str = "cpu"
    standby: bool = False


class EngineHost:
    """One engine and who takes its place. Lives on the event loop; engines load on threads.

    on_change: called on the loop whenever the engine came, went, or failed for good.
    """

    def __init__(self, name: str, spec: EngineSpec, on_change: Callable[[], None]) -> None:
        self.name = name
        self.spec = spec
        self.engine: AnyEngine | None = None
        """The engine, while it is ready."""
        self.failure: BaseException | None = None
        """Why the first engine never came up."""
        self.num_restarts = 0
        self._on_change = on_change
        self._standby: AnyEngine | None = None
        self._dead_early: AnyEngine | None = None
        self._kind = ""  # of its engines
        self._loading = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pause_s = FIRST_PAUSE_S
        self._ready_s = self._standby_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._stopping = False

    @property
    def world_name(self) -> str:
        return self.engine.world.config.name if self.engine is not None else self.spec.world

    @property
    def device(self) -> str:
        return self.spec.device

    def fits(self, saved: SavedSession) -> bool:
        """Whether a session can go on here; it may, as long as no engine of this host was seen."""
        return self._kind == "" or saved.fits(self._kind)

    @property
    def has_standby(self) -> bool:
        return self._standby is not None

    @property
    def state(self) -> HostState:
        if self.failure is not None:
            return HostState.FAILED
        return HostState.WARMING if self.engine is None else HostState.READY

    def start(self) -> None:
        """Begins loading; call on the event loop. The thread is a daemon, so that Ctrl-C need not
        wait for a half-read world.
        """
        self._loop = loop = asyncio.get_running_loop()
        self._loading += 1

        def run() -> None:
            engine, failure = None, None
            try:
                engine = self.spec.make()
                engine.on_death = partial(self._call, self._died, engine)
                engine.on_room = partial(self._call, self._on_change)
                engine.loads_quietly = self.engine is not None
                engine.start()
            except BaseException as error:
                failure = error
            self._call(self._settle, engine, failure)
            if loop.is_closed() and engine is not None:  # the server stopped meanwhile
                engine.stop()

        threading.Thread(target=run, name=f"loader {self.name}", daemon=True).start()

    def _call(self, what: Callable[..., None], *arguments: object) -> None:
        """On the loop, from any thread; nothing once that is closed."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(what, *arguments)

    def _settle(self, engine: AnyEngine | None, failure: BaseException | None) -> None:
        assert self._loop is not None
        self._loading -= 1
        if self._stopping:
            if engine is not None and failure is None:
                threading.Thread(target=engine.stop, daemon=True).start()
            return
        if failure is None and engine is not None and engine is self._dead_early:
            failure = ReverieError("its process ended as soon as it was loaded")
        if failure is not None or engine is None:
            if self.num_restarts == 0 and self.engine is None:
                self.failure = failure
                self._on_change()
                return
            logger.error("engine %s did not start: %s", self.name, failure)
            self._start_later()
            return
        self._kind = engine.kind
        if self.engine is None:
            self.engine, self._ready_s = engine, self._loop.time()
        else:
            self._standby, self._standby_s = engine, self._loop.time()
        self._on_change()
        if self.spec.standby and self._standby is None and not self._loading:
            self.start()

    def _died(self, engine: AnyEngine, reason: str) -> None:
        assert self._loop is not None
        if self._stopping or engine not in (self.engine, self._standby):
            self._dead_early = engine  # between being loaded and being known here
            return
        logger.error("engine %s died: %s", self.name, reason)
        self.num_restarts += 1
        since_s = self._ready_s if engine is self.engine else self._standby_s
        if self._loop.time() - since_s > STABLE_S:
            self._pause_s = FIRST_PAUSE_S
        if engine is self._standby:
            self._standby = None
        else:
            self.engine, self._standby = self._standby, None
            self._ready_s = self._standby_s
        self._on_change()
        self._start_later()
        threading.Thread(target=engine.stop, daemon=True).start()  # nothing of it is left behind

    def _start_later(self) -> None:
        assert self._loop is not None
        if self._timer is not None:
            self._timer.cancel()
        at_once = self.engine is None and self._pause_s == FIRST_PAUSE_S
        self._timer = self._loop.call_later(0.0 if at_once else self._pause_s, self._start_again)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def _start_again(self) -> None:
        self._timer = None
        missing = (self.engine is None) + (self.spec.standby and self._standby is None)
        if not self._stopping and self._loading < missing:
            self.start()

    async def stop(self) -> None:
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        engines = [engine for engine in (self.engine, self._standby) if engine is not None]
        self.engine = self._standby = None
        await asyncio.gather(*(asyncio.to_thread(engine.stop) for engine in engines))


class Pool:
    """The engines of one world, and who waits for a place in them."""

    def __init__(self, name: str, gauge: LoopGauge) -> None:
        self.name = name
        self._gauge = gauge
        self.hosts: list[EngineHost] = []
        self.room: WaitingRoom[AnyHandle] = WaitingRoom(MAX_WAITING)
        self._changed = asyncio.Event()
        self._world: World | None = None
        self._stopping = False

    @property
    def world(self) -> World | None:
        """The world, once any engine of it was ready."""
        return self._world

    @property
    def title(self) -> str:
        """Name of the world, as far as it is known."""
        return self._world.config.name if self._world is not None else self.name

    @property
    def is_ready(self) -> bool:
        """Whether any engine plays it now."""
        return any(host.engine is not None for host in self.hosts)

    async def wait(self) -> World:
        """The world, when an engine has loaded it. Raises ReverieError when none ever will."""
        while self._world is None:
            failures = [host.failure for host in self.hosts if host.failure is not None]
            if self._stopping or len(failures) == len(self.hosts):
                why = failures[0] if failures else "the server stops"
                raise ReverieError(f"the world did not load: {why}")
            await self._changed.wait()
        return self._world

    def open(self, returning: bool = False, **wanted: Any) -> AnyHandle | None:
        """A session in the engine that has most room; None while none has any. returning: this
        process carried it before, and will again. wanted: see `Engine.open`.
        """
        if self._stopping:
            raise ReverieError("the server stops")
        if not (self._gauge.has_room(self.room.num_staying) or returning):
            return None
        saved: SavedSession | None = wanted.get("saved")
        hosts = [host for host in self.hosts if saved is None or host.fits(saved)]
        if not hosts:
            raise ReverieError("the session was saved by another kind of engine than is here")
        engines = [host.engine for host in hosts if host.engine is not None]
        for engine in sorted(engines, key=lambda engine: engine.status.load):
            if engine.has_room or wanted.get("admitted"):
                with contextlib.suppress(FullError):  # what fitted a moment ago
                    return engine.open(**wanted)
        return None

    def changed(self) -> None:
        for host in self.hosts:
            if self._world is None and host.engine is not None:
                self._world = host.engine.world
        self._changed.set()
        self._changed.clear()
        self.room.wake()

    def stop(self) -> None:
        self._stopping = True
        self.changed()


class Fleet:
    """All engines of a server, by world.

    on_loaded: called on the event loop when an engine came up, or failed to for good.
    """

    def __init__(
        self, specs: Sequence[EngineSpec], on_loaded: Callable[[Fleet], Any] | None = None
    ) -> None:
        self.hosts: list[EngineHost] = []
        self.pools: dict[str, Pool] = {}
        self._on_loaded = on_loaded
        self.gauge = LoopGauge()
        for spec in specs:
            pool = self.pools.setdefault(spec.world, Pool(spec.world, self.gauge))
            name = f"{spec.world or 'world'}/{len(pool.hosts)}"
            pool.hosts.append(EngineHost(name, spec, lambda pool=pool: self._changed(pool)))
            self.hosts.append(pool.hosts[-1])

    def pool(self, world: str | None = None) -> Pool:
        """The pool of that world, or the first. Raises ProtocolError with the names there are."""
        first, *others = self.pools.values()
        if world is None or (not others and first.world is None):
            return first  # its name is not known yet; whoever asks looks again
        names = [pool.title for pool in self.pools.values()]
        for pool in self.pools.values():
            if pool.title == world:
                return pool
        raise ProtocolError(
            CloseCode.UNKNOWN, f"no world {world!r:.60}; this server plays {', '.join(names)}"
        )

    @property
    def worlds(self) -> list[World]:
        """Those that can be played now."""
        return [pool.world for pool in self.pools.values() if pool.world is not None]

    @property
    def failure(self) -> BaseException | None:
        """Why nothing can be played at all, ever."""
        failures = [host.failure for host in self.hosts]
        return failures[0] if all(failures) else None

    @property
    def is_ready(self) -> bool:
        """Whether every world can be played."""
        return all(pool.is_ready for pool in self.pools.values())

    @property
    def state(self) -> HostState:
        if self.failure is not None:
            return HostState.FAILED
        return HostState.READY if self.is_ready else HostState.WARMING

    def start(self) -> None:
        """Call on the event loop."""
        self.gauge.start()
        for host in self.hosts:
            host.start()

    def _changed(self, pool: Pool) -> None:
        pool.changed()
        if self._on_loaded is not None:
            self._on_loaded(self)

    async def stop(self) -> None:
        self.gauge.stop()
        for pool in self.pools.values():
            pool.stop()
        await asyncio.gather(*(host.stop() for host in self.hosts))


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
