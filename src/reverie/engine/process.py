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
import os
import signal
import threading
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverie.core import Frame, ReverieError
from reverie.engine.engine import Engine
from reverie.engine.handle import Prompted
from reverie.engine.opening import check_opening, drawn_seed, find_start, known_steps
from reverie.engine.pace import EngineStatus
from reverie.engine.process_child import Failed, News, Ready, SessionNews, run_engine
from reverie.engine.replay import Replay
from reverie.engine.saves import SavedSession
from reverie.session import FullError, SessionState
from reverie.world import Start, World

LOAD_WITHIN_S = 600.0
"""However large its weights."""
SILENT_S = 2.0
"""A process that says nothing for so long hangs, and is killed."""
STOP_WITHIN_S = 2.0

logger = logging.getLogger(__name__)


class RemoteHandle:
    """One session in another process; see `Handle`, which it is a picture of."""

    def __init__(self, engine: EngineProcess, number: int, seed: int) -> None:
        self.state = SessionState.WARMING
        self.reason = ""
        self.refused = False
        self.seed = seed
        self.num_skipped = 0
        self.num_frames = 0
        self.device_s = 0.0
        self.kept: SavedSession | None = None
        self._engine = engine
        self._number = number
        self._num_begun = 0
        self._frame: Frame | None = None
        self._callbacks: list[Callable[[], None]] = []

    @property
    def session_id(self) -> str:
        return f"{self._number:06d}"

    def act(self, action: NDArray[np.floating], seq: int, time_s: float) -> None:
        """See `Handle.act`."""
        width = self._engine.world.config.action_space.width
        if action.shape != (width,) or not np.isfinite(action).all():
            raise ValueError(f"action {action.shape}; expected {width} finite numbers")
        self._send("act", action.astype(np.float32).tobytes(), seq, time_s)

    def take(self) -> Frame | None:
        """See `Handle.take`."""
        with self._engine._lock:
            frame, self._frame = self._frame, None
        return frame

    def on_frame(self, callback: Callable[[], None]) -> None:
        """See `Handle.on_frame`; called on the thread that reads from the process."""
        self._callbacks.append(callback)

    def set_steps(self, num_steps: int) -> None:
        """See `Handle.set_steps`."""
        self._send("set_steps", known_steps(self._engine.world, num_steps))

    def prompt(self, text: str, answer: Callable[[Prompted], None]) -> None:
        """See `Handle.prompt`."""
        self._engine.world.understand(text)
        if self.state is SessionState.ENDED:
            raise ReverieError("the session has ended; start another")

        def tell(done: Prompted | None) -> None:
            if done is not None:
                answer(done)

        self._engine._ask(self._number, "prompt", tell, text)

    def save(self, answer: Callable[[SavedSession | None], None]) -> None:
        """See `Handle.save`."""
        if self.state is SessionState.ENDED:
            answer(None)
        else:
            self._engine._ask(self._number, "save", answer)

    def pause(self) -> None:
        """See `Handle.pause`."""
        self._send("pause")

    def resume(self) -> None:
        """See `Handle.resume`."""
        self._send("resume")

    def rewind(self, seconds: float) -> None:
        """See `Handle.rewind`."""
        self._send("rewind", seconds)

    def restart(self, start: str | Start | None = None, seed: int | None = None) -> None:
        """See `Handle.restart`."""
        if start is not None:
            find_start(self._engine.world, start)
        self.seed = drawn_seed(seed)
        with self._engine._lock:
            self.kept, self._num_begun = None, self._num_begun + 1
        self._send("restart", start, self.seed)

    def close(self, reason: str = "closed") -> None:
        """See `Handle.close`."""
        self._engine._close(self, reason)
        self.kept = None

    def _send(self, name: str, *arguments: Any) -> None:
        if self.state is not SessionState.ENDED:
            self._engine._send(name, self._number, *arguments)

    def _update(self, news: SessionNews) -> None:
        """Under the engine's lock."""
        self.state, self.reason, self.refused = news.state, news.reason, news.refused
        self.num_skipped, self.num_frames = news.num_skipped, news.num_frames
        self.device_s = news.device_s
        self._frame = news.frame or self._frame
        if news.num_begun == self._num_begun:
            self.kept = news.kept or self.kept

    def _notify(self) -> None:
        for callback in self._callbacks:
            try:
                callback()
            except Exception:  # a player's end that fails must not stop the others
                logger.exception("a callback of session %s failed", self.session_id)


class EngineProcess:
    """See the module. load: makes the engine, in the process; it is pickled to get there. device:
    "cpu", "cpu:0-3", "cuda:1". on_death: called once, on a thread, when the process ended and
    nobody asked it to, with a line that says why. on_room: called on a thread when there is room
    where there was none.
    """

    def __init__(self, load: Callable[[], Engine], name: str, device: str = "cpu") -> None:
        self.name = name
        self.on_death: Callable[[str], None] | None = None
        self.on_room: Callable[[], None] | None = None
        self._load, self._device = load, device
        self._lock = threading.Lock()
        self._outbox: deque[tuple[Any, ...]] = deque()
        self._has_mail = threading.Condition(self._lock)
        self._handles: dict[int, RemoteHandle] = {}
        self._asked: dict[int, Callable[[Any], None]] = {}
        self._numbers, self._requests = count(1), count(1)
        self._num_opened = 0
        self._num_open_there = 0
        self._status = EngineStatus()
        self._world: World | None = None
        self._kind = ""
        self._stopping = self._dead = False
        self._threads: list[threading.Thread] = []
        self._process: Any = None
        self._first_status = threading.Event()

    # Life.

    def start(self) -> None:
        """Back when the engine is loaded. Raises ReverieError with the line that says why it will
        never be.
        """
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=run_engine, args=(theirs, self._load, self._device), name=f"engine {self.name}"
        )
        try:
            self._process.start()
            atexit.register(self._kill)
            theirs.close()
            said = self._connection.recv() if self._connection.poll(LOAD_WITHIN_S) else None
        except (EOFError, OSError):
            said = None
        if not isinstance(said, Ready):
            self.stop()
            line = said.line if isinstance(said, Failed) else "its process ended while it loaded"
            raise ReverieError(line)
        self._world, self._kind = said
        self._threads = [
            threading.Thread(target=work, name=f"engine {self.name}, {what}", daemon=True)
            for work, what in ((self._read, "in"), (self._write, "out"))
        ]
        for thread in self._threads:
            thread.start()
        self._first_status.wait(SILENT_S)

    def stop(self) -> None:
        """End every session and the process. A second time does nothing."""
        with self._lock:
            if not self._stopping:
                self._stopping = True
                self._outbox.append(("stop",))
            self._has_mail.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(STOP_WITHIN_S)
        process, self._process = self._process, None
        if process is None:
            return
        if process.pid is not None:
            process.join(0.1 if self._dead or not self._threads else STOP_WITHIN_S)
            if process.is_alive():
                process.kill()
                process.join()
        self._connection.close()
        process.close()
        atexit.unregister(self._kill)
        self._end_all("the engine stopped")

    def _kill(self) -> None:
        """At exit, where nobody has stopped it."""
        with contextlib.suppress(Exception):
            self._process.kill()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

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
        """As it was a moment ago."""
        return self._status

    @property
    def num_active(self) -> int:
        return len(self._handles)

    @property
    def has_room(self) -> bool:
        """Whether `open` would give a place now, as far as is known here: not while sessions that
        were opened are on their way to the process.
        """
        settled = self._num_opened == self._num_open_there
        return settled and self._status.has_room and not (self._dead or self._stopping)

    def open(
        self,
        start: str | Start | None = None,
        seed: int | None = None,
        num_steps: int | None = None,
        saved: SavedSession | None = None,
        replay: Replay | None = None,
        paused: bool = False,
    ) -> RemoteHandle:
        """See `Engine.open`. A place that turns out to be gone ends the session as `refused`."""
        opening = check_opening(self.world, start, seed, num_steps, saved, replay)
        if self._stopping or self._dead:
            raise ReverieError("the engine has stopped")
        if not self.has_room:
            raise FullError("every place is taken")
        handle = RemoteHandle(self, next(self._numbers), opening.seed)
        handle.kept = saved
        own = all(start is not opening.start for start in self.world.starts)
        wanted = {
            "start": opening.start if own else opening.start.name,
            "seed": opening.seed,
            "num_steps": opening.num_steps,
            "saved": saved,
            "replay": opening.replay,
            "paused": paused,
        }
        with self._lock:
            self._handles[handle._number] = handle
            self._num_opened += 1
        self._send("open", handle._number, wanted)
        return handle

    # Out.

    def _send(self, *message: Any) -> None:
        with self._lock:
            if not (self._dead or self._stopping):
                self._outbox.append(message)
                self._has_mail.notify()

    def _ask(self, number: int, what: str, answer: Callable[[Any], None], *rest: Any) -> None:
        with self._lock:
            over = self._dead or self._stopping
            request = next(self._requests)
            if not over:
                self._asked[request] = answer
        if over:
            answer(None)
        else:
            self._send(what, number, request, *rest)

    def _close(self, handle: RemoteHandle, reason: str) -> None:
        with self._lock:
            if self._handles.pop(handle._number, None) is None:
                return
        handle._send("close", reason)
        handle.state, handle.reason, handle._frame = SessionState.ENDED, reason, None
        handle._notify()

    def _write(self) -> None:
        while True:
            with self._lock:
                while not (self._outbox or self._dead):
                    self._has_mail.wait()
                if self._dead:
                    return
                messages, self._outbox = list(self._outbox), deque()
            try:
                self._connection.send(messages)
            except (OSError, ValueError):
                return  # the reader finds out, too
            if messages[-1][0] == "stop":
                return

    # In.

    def _read(self) -> None:
        why = f"the process of engine {self.name} ended"
        try:
            while True:
                if not self._connection.poll(SILENT_S):
                    why = f"the process of engine {self.name} said nothing for {SILENT_S:g} s"
                    break
                self._hear(self._connection.recv())
        except (EOFError, OSError):
            pass
        except Exception:  # what came was cut off in the middle
            logger.exception("engine %s sent something unreadable", self.name)
        self._die(why)

    def _hear(self, news: News) -> None:
        told: list[RemoteHandle] = []
        with self._lock:
            had_room = self.has_room
            if news.status is not None:
                self._status, self._num_open_there = news.status, news.num_opened
            for session in news.sessions:
                handle = self._handles.get(session.number)
                if handle is not None:
                    handle._update(session)
                    told.append(handle)
                    if session.state is SessionState.ENDED:
                        self._handles.pop(session.number)
            answers = [(self._asked.pop(request, None), value) for request, value in news.answers]
            has_room = self.has_room
        self._first_status.set()
        for handle in told:
            handle._notify()
        for answer, value in answers:
            if answer is not None:
                answer(value)
        if has_room and not had_room and self.on_room is not None:
            self.on_room()

    def _die(self, why: str) -> None:
        with self._lock:
            self._dead = True
            self._has_mail.notify_all()
            stopping, process = self._stopping, self._process
        if not stopping and process is not None and process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)  # hung, perhaps
        self._end_all("the engine stopped" if stopping else why)
        if not stopping and self.on_death is not None:
            self.on_death(why)

    def _end_all(self, reason: str) -> None:
        with self._lock:
            handles, self._handles = list(self._handles.values()), {}
            asked, self._asked = list(self._asked.values()), {}
            for handle in handles:
                handle.state, handle.reason = SessionState.ENDED, reason
        for answer in asked:
            answer(None)
        for handle in handles:
            handle._notify()
