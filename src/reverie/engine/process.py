"""An engine in a process of its own, seen from the server: the same surface as `Engine`.

So a crash takes down one engine and nothing else. What the sessions in it would lose is kept on
this side: their newest moments, less than a second of play old, with which another engine can go
on. Nothing here blocks whoever calls, but `start` and `stop`.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import multiprocessing
import pickle
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

from reverie.core import ReverieError
from reverie.engine.engine import Engine
from reverie.engine.mail import Act, Failed, Moment, News, Outbox, Ready, pack
from reverie.engine.opening import check_opening
from reverie.engine.pace import EngineStatus
from reverie.engine.process_child import run_engine
from reverie.engine.remote import RemoteHandle, portable
from reverie.engine.replay import Replay
from reverie.engine.saves import SavedSession
from reverie.session import FullError, SessionState
from reverie.world import Start, World

LOAD_WITHIN_S = 600.0
"""However large its weights."""
SILENT_S = 2.0
"""A process that says nothing for so long hangs, and is killed."""
CHECK_S = 0.25
STOP_WITHIN_S = 2.0
MAX_UNSENT = 20_000
"""So many messages wait only where nobody reads them."""
_GONE_WITHIN_S = 5.0

logger = logging.getLogger(__name__)


class EngineProcess:
    """See the module. load: makes the engine, in the process; it is pickled to get there. device:
    "cpu", "cpu:0-3", "cuda:1". on_death: called once, on a thread, when the process ended and
    nobody asked it to, with a line that says why. on_room: called on a thread when there is room
    where there was none.
    """

    def __init__(self, load: Callable[[], Engine], name: str, device: str | None = None) -> None:
        self.name = name
        self.on_death: Callable[[str], None] | None = None
        self.on_room: Callable[[], None] | None = None
        self.loads_quietly = False
        """Behind everybody else on this machine: others play while it loads."""
        self._load, self._device = load, device
        self._lock = threading.RLock()
        self._handles: dict[int, RemoteHandle] = {}
        self._asked: dict[int, tuple[RemoteHandle, Callable[[Any], None]]] = {}
        self._numbers, self._requests = count(1), count(1)
        self._num_moves = self._num_moves_there = 0  # sessions opened and closed
        self._status = EngineStatus()
        self._world: World | None = None
        self._kind = ""
        self._outbox: Outbox | None = None
        self._life = threading.Lock()  # held while it is started, and while it is cleared away
        self._stopping = self._dead = False
        self._over = threading.Event()
        self._why = f"the process of engine {name} ended"
        self._num_heard, self._listens = 0, False
        self._threads: dict[str, threading.Thread] = {}
        self._connections: list[Any] = []
        self._process: Any = None

    # Life.

    def start(self) -> None:
        """Back when the engine is loaded. Raises ReverieError with the line that says why it will
        never be.
        """
        with self._life:
            try:
                said = self._begin()
            except (EOFError, OSError):
                said = None
            if not isinstance(said, Ready):
                self._clear(0.0)
                line = "its process ended while it loaded"
                raise ReverieError(said.line if isinstance(said, Failed) else line)
            self._world, self._kind, self._status = said
            self._outbox = Outbox(self._world.config.action_space)
            if self._stopping:
                self._outbox.close()
            works = {
                "in": self._read,
                "moments": self._read_moments,
                "out": self._write,
                "watch": self._watch,
            }
            for what, work in works.items():
                name = f"engine {self.name}, {what}"
                self._threads[what] = threading.Thread(target=work, name=name, daemon=True)
            for thread in self._threads.values():
                thread.start()

    def _begin(self) -> object:
        """The first thing that the process says."""
        load, context = pickle.dumps(self._load), multiprocessing.get_context("spawn")
        connection, theirs = context.Pipe()
        moments, their_moments = context.Pipe(duplex=False)
        self._connections = [connection, moments]
        self._process = process = context.Process(
            target=run_engine,
            args=(theirs, their_moments, load, self._device, self.loads_quietly),
            name=f"engine {self.name}",
        )
        process.start()
        atexit.register(self._kill)
        theirs.close()
        their_moments.close()
        if self._stopping:  # while it was started
            self._kill()
        return pickle.loads(connection.recv_bytes()) if connection.poll(LOAD_WITHIN_S) else None

    def stop(self) -> None:
        """End every session and the process. A second time does nothing."""
        with self._lock:
            self._stopping = True
            outbox = self._outbox
        if outbox is None:
            self._kill()  # it loads
        else:
            outbox.close(("stop",))
        with self._life:
            self._clear(STOP_WITHIN_S)
        self._end_all("the engine stopped")

    def _clear(self, within_s: float) -> None:
        """Have nothing left of the process: itself, threads, pipes."""
        process = self._process
        if process is None:
            return
        if process.pid is not None:
            process.join(within_s)
            self._kill()
            process.join(_GONE_WITHIN_S)
        self._over.set()
        for thread in self._threads.values():
            if thread is not threading.current_thread():
                thread.join(_GONE_WITHIN_S)
        for connection in self._connections:
            connection.close()
        with contextlib.suppress(ValueError):  # it cannot be killed
            process.close()
        atexit.unregister(self._kill)
        self._process = None

    def _kill(self) -> None:
        with contextlib.suppress(AttributeError, ValueError):  # there is none, or it is closed
            self._process.kill()

    @property
    def pid(self) -> int | None:
        with contextlib.suppress(AttributeError, ValueError):
            return self._process.pid
        return None

    @property
    def world(self) -> World:
        assert self._world is not None, "start the engine first"
        return self._world

    @property
    def kind(self) -> str:
        """Of its runtime."""
        return self._kind

    @property
    def status(self) -> EngineStatus:
        """As it was a moment ago, with the places as they are now."""
        return replace(self._status, num_active=self.num_active, has_room=self.has_room)

    @property
    def num_active(self) -> int:
        return len(self._handles)

    @property
    def has_room(self) -> bool:
        """Whether `open` would give a place now, as far as is known here. The process sees what was
        opened and closed in the same order, so what is on its way counts.
        """
        if self._dead or self._stopping or len(self._handles) >= self._status.capacity:
            return False
        return self._status.has_room and self._num_moves == self._num_moves_there

    def open(
        self,
        start: str | Start | None = None,
        seed: int | None = None,
        num_steps: int | None = None,
        saved: SavedSession | None = None,
        replay: Replay | None = None,
        paused: bool = False,
        admitted: bool = False,
    ) -> RemoteHandle:
        """See `Engine.open`. A place that turns out to be gone ends the session as `refused`."""
        opening = check_opening(self.world, start, seed, num_steps, saved, replay)
        wanted = {
            "start": portable(self.world, opening.start),
            "seed": opening.seed,
            "num_steps": opening.num_steps,
            "saved": saved,
            "replay": opening.replay,
            "paused": paused,
            "admitted": admitted,
        }
        with self._lock:
            if self._stopping or self._dead:
                raise FullError("the engine has stopped")
            if not (self.has_room or admitted):  # whether there is a slot is seen there
                raise FullError("every place is taken")
            handle = RemoteHandle(self, next(self._numbers), opening.seed)
            handle.kept = saved
            self._handles[handle._number] = handle
            self._num_moves += 1
            self._send("open", handle._number, wanted)
        return handle

    # Out. The server's thread only leaves messages in a box.

    def _send(self, name: str, number: int, *arguments: Any) -> None:
        if self._outbox is not None:
            self._outbox.put(name, number, *arguments)

    def _act(self, act: Act) -> None:
        if self._outbox is not None:
            self._outbox.act(act)

    def _ask(
        self, handle: RemoteHandle, what: str, answer: Callable[[Any], None], *rest: Any
    ) -> None:
        with self._lock:
            is_there = handle._number in self._handles
            if is_there:
                request = next(self._requests)
                self._asked[request] = (handle, answer)
                self._send(what, handle._number, request, *rest)
        if not is_there:
            answer(None)

    def _close(self, handle: RemoteHandle, reason: str) -> None:
        with self._lock:
            had_room = self.has_room
            if self._handles.pop(handle._number, None) is None:
                return
            self._num_moves += 1
            self._send("close", handle._number, reason)
            handle._end(reason)
            answers = self._forget([handle])
        _call(*answers)
        handle._notify()
        self._tell_room(had_room)

    def _write(self) -> None:
        assert self._outbox is not None
        with contextlib.suppress(OSError, ValueError):  # the reader finds out, too
            while messages := self._outbox.take():
                self._connections[0].send_bytes(pack(messages))

    # In.

    def _read(self) -> None:
        try:
            while True:
                self._hear(self._listen())
        except (EOFError, OSError):
            pass  # it is gone
        except Exception:
            logger.exception("engine %s sent something unreadable", self.name)
        self._die()

    def _listen(self) -> News:
        self._listens = True
        data = self._connections[0].recv_bytes()
        self._listens = False
        self._num_heard += 1
        return pickle.loads(data)

    def _read_moments(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:  # no name for a moment here: it would keep the last one for ever
                self._remember(pickle.loads(self._connections[1].recv_bytes()))

    def _remember(self, moment: Moment) -> None:
        with self._lock:
            if (handle := self._handles.get(moment.number)) is not None:
                handle._remember(moment)

    def _hear(self, news: News) -> None:
        with self._lock:
            had_room = self.has_room
            told = [h for s in news.sessions if (h := self._handles.get(s.number)) is not None]
            for session in news.sessions:
                if (handle := self._handles.get(session.number)) is not None:
                    handle._update(session)
                    if handle.state is SessionState.ENDED:
                        del self._handles[session.number]
            if news.status is not None:
                self._status, self._num_moves_there = news.status, news.num_moves
            known = [(self._asked.pop(request, None), value) for request, value in news.answers]
        _call(*(partial(asked[1], value) for asked, value in known if asked is not None))
        for handle in told:
            handle._notify()
        self._tell_room(had_room)

    def _tell_room(self, had_room: bool) -> None:
        if self.on_room is not None and self.has_room and not had_room:
            _call(self.on_room)

    def _watch(self) -> None:
        """Kill the process when it says nothing, or listens to nothing. Counts checks in a row, not
        time: after a sleep of the whole machine everybody is late.
        """
        assert self._outbox is not None
        heard, silent_s = -1, 0.0
        while not self._over.wait(CHECK_S):
            silent_s = 0.0 if self._num_heard != heard or not self._listens else silent_s + CHECK_S
            heard = self._num_heard
            if silent_s >= SILENT_S:
                self._why = f"the process of engine {self.name} said nothing for {SILENT_S:g} s"
            elif len(self._outbox) > MAX_UNSENT:
                self._why = f"the process of engine {self.name} reads nothing any more"
            else:
                continue
            self._kill()
            return

    def _die(self) -> None:
        with self._lock:
            self._dead, stopping = True, self._stopping
        assert self._outbox is not None
        self._outbox.close()
        self._over.set()
        self._kill()  # what says nothing that can be read is of no use
        self._threads["moments"].join(_GONE_WITHIN_S)  # what it sent last
        self._end_all("the engine stopped" if stopping else self._why)
        if not stopping and self.on_death is not None:
            _call(partial(self.on_death, self._why))

    def _end_all(self, reason: str) -> None:
        with self._lock:
            handles, self._handles = list(self._handles.values()), {}
            for handle in handles:
                handle._end(reason)
            answers = self._forget(handles)
        _call(*answers)
        for handle in handles:
            handle._notify()

    def _forget(self, handles: list[RemoteHandle]) -> list[Callable[[], None]]:
        """Answers for who asked something of these sessions: there will be no other."""
        over = [request for request, (handle, _) in self._asked.items() if handle in handles]
        return [partial(self._asked.pop(request)[1], None) for request in over]


def _call(*callbacks: Callable[[], object]) -> None:
    """One that fails must not stop the others."""
    for callback in callbacks:
        try:
            callback()
        except Exception:
            logger.exception("a callback failed")
