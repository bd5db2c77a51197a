"""An engine's own process: what runs behind `EngineProcess`.

Its main thread reads what the server wants, the engine's thread draws, and one more sends what is
new: the newest frame of every session that has one, in one message. While that is on its way
frames replace each other in their mailboxes, so a server that is slow, or stopped, stalls nothing
here and fills no memory.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from reverie.core import Frame, ReverieError
from reverie.engine.engine import Engine
from reverie.engine.handle import DRAWN, Handle
from reverie.engine.pace import EngineStatus
from reverie.engine.saves import SavedSession
from reverie.session import FullError, SessionState
from reverie.world import World

STATUS_S = 0.25
"""Between two reports of the engine's status; they are its sign of life, too."""
STUCK_S = 5.0
"""A device that draws nothing for so long while somebody plays is given up."""
LONGEST_LOG = 2000
"""Moments carry the actions so far only up to this many that differ: they are copied twice a
second.
"""

logger = logging.getLogger(__name__)


class Ready(NamedTuple):
    """The engine is loaded."""

    world: World
    kind: str


class Failed(NamedTuple):
    """It never will be, and why."""

    line: str


class SessionNews(NamedTuple):
    """What became of a session: everything but frame and kept as it is now, those where new."""

    number: int
    state: SessionState
    reason: str
    refused: bool
    num_skipped: int
    num_frames: int
    device_s: float
    frame: Frame | None
    kept: SavedSession | None
    num_begun: int = 0
    """Restarts so far, so that what is from before one is recognised."""


class News(NamedTuple):
    """Of sessions, answers by number, and the engine itself. num_opened: sessions that had been
    asked for when the status was taken.
    """

    sessions: list[SessionNews]
    answers: list[tuple[int, Any]]
    status: EngineStatus | None
    num_opened: int


def bind_device(device: str) -> None:
    """Have this process use that device: "cpu", "cpu:0-3" (those cores), "cuda:1". Before anything
    else is imported that counts devices. Raises ReverieError on anything else.
    """
    kind, _, which = device.partition(":")
    first, _, last = which.partition("-")
    if kind == "cuda" and which.isdecimal():
        os.environ["CUDA_VISIBLE_DEVICES"] = which
    elif kind == "cpu" and first.isdecimal() and (last.isdecimal() or not last):
        if not hasattr(os, "sched_setaffinity"):
            raise ReverieError(f"device {device!r}: this system binds no cores; use cpu")
        cores = set(range(int(first), int(last or first) + 1))
        if not cores or not cores <= os.sched_getaffinity(0):
            raise ReverieError(f"device {device!r}: this machine has no such cores")
        os.sched_setaffinity(0, cores)
    elif device not in ("cpu", "cuda"):
        raise ReverieError(f"device {device!r}; expected cpu, cpu:0-3 or cuda:1")


def run_engine(connection: Connection, load: Callable[[], Engine], device: str) -> None:
    """Main of the process: load, then do what comes through the connection until it closes."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the server decides when to end
    try:
        bind_device(device)
        engine = load()
        engine.start()
        connection.send(Ready(engine.world, engine.kind))
    except BaseException as error:
        with contextlib.suppress(OSError):
            line = str(error).strip() or type(error).__name__
            connection.send(Failed(line))
        if not isinstance(error, ReverieError | OSError):
            logger.exception("the engine did not start")
        return
    try:
        _Child(connection, engine).run()
    finally:
        engine.stop()


class _Child:
    """The sessions of this process, by the numbers that the server gave them."""

    def __init__(self, connection: Connection, engine: Engine) -> None:
        self._connection, self._engine = connection, engine
        self._news = threading.Condition()
        self._handles: dict[int, Handle] = {}
        self._told: set[int] = set()  # have something new
        self._kept: dict[int, SavedSession | None] = {}  # that was sent last
        self._num_begun: Counter[int] = Counter()
        self._refused: list[int] = []
        self._answers: list[tuple[int, Any]] = []
        self._places_changed = False
        self._num_opened = 0
        self._over = False

    def run(self) -> None:
        sender = threading.Thread(target=self._send_on, name="news", daemon=True)
        sender.start()
        try:
            while True:
                for name, *arguments in self._connection.recv():
                    if name == "stop":
                        return
                    self._do_safely(name, arguments)
        except (EOFError, OSError):
            return  # the server is gone
        finally:
            with self._news:
                self._over = True
                self._news.notify_all()
            sender.join(1.0)

    def _do_safely(self, name: str, arguments: list[Any]) -> None:
        try:
            self._do(name, arguments)
        except Exception:  # a bug in what one session asked for must not end the others
            logger.exception("%s failed", name)

    def _do(self, name: str, arguments: list[Any]) -> None:
        number, *rest = arguments
        if name == "open":
            self._open(number, *rest)
            return
        handle = self._handles.get(number)
        if name in ("save", "prompt"):
            self._ask(name, handle, *rest)
        elif handle is None:
            return  # it has ended already
        elif name == "act":
            vector, seq, time_s = rest
            handle.act(np.frombuffer(vector, np.float32), seq, time_s)
        elif name == "close":
            self._handles.pop(number)
            self._num_begun.pop(number, None)
            handle.close(*rest)
            self._note(None)
        else:
            getattr(handle, name)(*rest)
            if name == "restart":
                self._num_begun[number] += 1

    def _open(self, number: int, wanted: dict[str, Any]) -> None:
        try:
            handle = self._engine.open(**wanted)
        except FullError:
            with self._news:
                self._refused.append(number)
        else:
            self._handles[number] = handle
            handle.on_frame(partial(self._note, number))
        self._num_opened += 1
        self._note(None)

    def _ask(self, name: str, handle: Handle | None, request: int, text: str = "") -> None:
        def answer(value: object) -> None:
            with self._news:
                self._answers.append((request, value))
                self._news.notify_all()

        if handle is None:
            answer(None)
        elif name == "save":
            handle.save(answer)
        else:
            try:
                handle.prompt(text, answer)
            except ReverieError:  # ended meanwhile: what it asks for was understood before
                answer(None)

    def _note(self, number: int | None) -> None:
        """Something is new with a session, or with the places."""
        with self._news:
            if number is None:
                self._places_changed = True
            else:
                self._told.add(number)
            self._news.notify_all()

    # What is new, out.

    def _send_on(self) -> None:
        status_s, drawn, drawn_s = 0.0, -1, time.monotonic()
        while True:
            with self._news:
                if not (self._has_news or self._over):
                    self._news.wait(STATUS_S)
                if self._over:
                    return
                told, self._told = self._told, set()
                answers, self._answers = self._answers, []
                refused, self._refused = self._refused, []
                now_s = time.monotonic()
                report = self._places_changed or now_s - status_s >= STATUS_S
                self._places_changed = False
            num_opened = self._num_opened
            status = self._engine.status if report else None
            if status is not None:
                status_s = now_s
                if status.num_frames != drawn or not self._somebody_plays():
                    drawn, drawn_s = status.num_frames, now_s
                elif now_s - drawn_s > STUCK_S:
                    logger.error("the device has drawn nothing for %.0f s", STUCK_S)
                    os._exit(1)
            sessions = [self._refusal(number) for number in refused]
            sessions += [news for number in told if (news := self._tell(number)) is not None]
            try:
                self._connection.send(News(sessions, answers, status, num_opened))
            except (OSError, ValueError):
                return  # the server is gone; the other end of the pipe says so, too

    @property
    def _has_news(self) -> bool:
        return bool(self._told or self._answers or self._refused or self._places_changed)

    def _somebody_plays(self) -> bool:
        return any(handle.state in DRAWN for handle in list(self._handles.values()))

    def _refusal(self, number: int) -> SessionNews:
        ended, reason = SessionState.ENDED, "every place is taken"
        return SessionNews(number, ended, reason, True, 0, 0, 0.0, None, None)

    def _tell(self, number: int) -> SessionNews | None:
        handle = self._handles.get(number)
        if handle is None:
            return None
        num_begun = self._num_begun.get(number, 0)
        state, frame, kept = handle.state, handle.take(), handle.kept
        if kept is self._kept.get(number):
            kept = None
        elif kept is not None:
            self._kept[number] = kept
            if kept.replay is not None and kept.replay.log.num_runs > LONGEST_LOG:
                kept = replace(kept, replay=None)
        if state is SessionState.ENDED:
            self._handles.pop(number, None)
        if number not in self._handles:
            self._kept.pop(number, None)
        return SessionNews(
            number,
            state,
            handle.reason,
            False,
            handle.num_skipped,
            handle.num_frames,
            handle.device_s,
            frame,
            kept,
            num_begun,
        )
