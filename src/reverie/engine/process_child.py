"""An engine's own process: what runs behind `EngineProcess`.

Its main thread reads what the server wants, the engine's thread draws, and two more send what is
new: one the newest frame of every session that has one, in one message, the other moments, which
are large. While something is on its way frames replace each other in their mailboxes, and so do
moments: a server that is slow, or stopped, stalls nothing here and fills no memory.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from reverie.core import ReverieError
from reverie.engine.engine import Engine
from reverie.engine.handle import DRAWN, Handle
from reverie.engine.mail import Act, Failed, Moment, News, Ready, SessionNews, log_of, pack
from reverie.engine.pace import EngineStatus
from reverie.engine.replay import ActionLog
from reverie.engine.saves import SavedSession
from reverie.session import FullError, SessionState

STATUS_S = 0.25
"""Between two reports of the engine's status; they are its sign of life, too."""
SWITCH_S = 0.0005
"""After which a thread here lets another in: a picture must not wait for what comes after it."""
LOADING_NICE = 10
LEAST_RLIMIT_NICE = 20
"""Of a process that may be as nice as all are usually."""
STUCK_S = 5.0
STUCK_STEPS = 10.0
"""A device that has done nothing for so long while somebody plays is given up; no sooner than in
the time of so many of its longest steps.
"""
_GONE_WITHIN_S = 0.5

logger = logging.getLogger(__name__)


def bind_device(device: str | None) -> None:
    """Have this process use that device: "cpu", "cpu:0-3" (those cores), "cuda:1". Before anything
    else is imported that counts devices. Raises ReverieError on anything else.
    """
    kind, _, which = ("cpu" if device is None else device).partition(":")
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
    elif device not in (None, "cpu", "cuda"):
        raise ReverieError(f"device {device!r}; expected cpu, cpu:0-3 or cuda:1")


def run_engine(
    connection: Connection, moments: Connection, load: bytes, device: str | None, quietly: bool
) -> None:
    """Main of the process: load, then do what comes through the connection until it closes.

    load: makes the engine, pickled, because to know what it is may import what counts devices.
    quietly: behind everybody else on this machine, until it is loaded.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the server decides when to end
    threading.Thread(target=_leave_with_server, name="server", daemon=True).start()
    sys.setswitchinterval(SWITCH_S)
    try:
        bind_device(device)
        quietly = quietly and _may_come_back()
        if quietly:
            os.setpriority(os.PRIO_PROCESS, 0, LOADING_NICE)  # threads to come, too
        engine: Engine = pickle.loads(load)()
        engine.start()
        if quietly:
            for task in Path("/proc/self/task").iterdir():
                os.setpriority(os.PRIO_PROCESS, int(task.name), 0)
        connection.send_bytes(pack(Ready(engine.world, engine.kind, engine.status)))
    except BaseException as error:
        with contextlib.suppress(OSError):
            line = (str(error).strip() or type(error).__name__).splitlines()[0]
            connection.send_bytes(pack(Failed(line)))
        if not isinstance(error, ReverieError | OSError):
            logger.exception("the engine did not start")
        return
    try:
        _Child(connection, moments, engine).run()
    finally:
        engine.stop()
        logging.shutdown()
        os._exit(0)  # libraries that tear their devices down on the way out are known to hang


def _leave_with_server() -> None:
    """Nobody is left to play for, whatever the device is in the middle of."""
    server = multiprocessing.parent_process()
    if server is not None:
        server.join()
        os._exit(1)


def _may_come_back() -> bool:
    """Whether this process may take back the priority that it gives up."""
    if not sys.platform.startswith("linux"):
        return False
    import resource

    return os.geteuid() == 0 or resource.getrlimit(resource.RLIMIT_NICE)[0] >= LEAST_RLIMIT_NICE


@dataclass(slots=True)
class _Seen:
    """A session, and what the server has seen of it: the newest moment, and that one's log."""

    handle: Handle
    num_begun: int = 0
    kept: SavedSession | None = None
    log: ActionLog = field(default_factory=ActionLog)


class _Child:
    """The sessions of this process, by the numbers that the server gave them."""

    def __init__(self, connection: Connection, moments: Connection, engine: Engine) -> None:
        self._connection, self._moments, self._engine = connection, moments, engine
        self._space = engine.world.config.action_space
        self._sessions: dict[int, _Seen] = {}
        self._begins = threading.Lock()  # held while a session begins again
        self._num_moves = 0
        self._news = threading.Condition()
        self._told: set[int] = set()  # have something new
        self._refused: list[SessionNews] = []
        self._answers: list[tuple[int, Any]] = []
        self._places_changed = False
        self._moved = threading.Condition()
        self._unsent: dict[int, None] = {}  # have another moment
        self._over = False
        self._reported_s, self._busy_s, self._num_stuck = 0.0, 0.0, 0

    def run(self) -> None:
        senders = [
            threading.Thread(target=_or_die, args=[work], name=name, daemon=True)
            for work, name in ((self._send_on, "news"), (self._send_moments, "moments"))
        ]
        for sender in senders:
            sender.start()
        with contextlib.suppress(EOFError, OSError):  # then the server is gone
            while not self._over:  # no names for messages here: the last ones would stay
                self._do_all(pickle.loads(self._connection.recv_bytes()))
        for condition in (self._news, self._moved):
            with condition:
                self._over = True
                condition.notify_all()
        for sender in senders:
            sender.join(_GONE_WITHIN_S)

    def _do_all(self, messages: list[Any]) -> None:
        for message in messages:
            try:
                if isinstance(message, Act):
                    self._act(message)
                else:
                    self._do(*message)
            except Exception:  # a bug in what one session asked for must not end the others
                what = "an action" if isinstance(message, Act) else message[0]
                logger.exception("%s failed", what)

    def _act(self, act: Act) -> None:
        if (session := self._sessions.get(act.number)) is not None:
            for vector in act.vectors(self._space):
                session.handle.act(vector, act.seq, act.time_s)

    def _do(self, name: str, number: int = 0, *arguments: Any) -> None:
        session = self._sessions.get(number)
        if name == "stop":
            self._over = True
        elif name == "open":
            self._open(number, *arguments)
        elif name in ("save", "prompt"):
            self._ask(name, session, *arguments)
        elif name == "close":
            self._sessions.pop(number, None)
            if session is not None:  # it may have ended by itself
                session.handle.close(*arguments)
            self._count_move()
        elif session is not None and name == "restart":
            with self._begins:
                session.num_begun += 1
                session.handle.restart(*arguments)
        elif session is not None:
            getattr(session.handle, name)(*arguments)
            if name == "rewind":
                self._note_kept(number)

    def _open(self, number: int, wanted: dict[str, Any]) -> None:
        try:
            handle = self._engine.open(**wanted)
        except Exception as error:
            if not isinstance(error, ReverieError):
                logger.exception("a session could not be opened")
            ended, refused = SessionState.ENDED, isinstance(error, FullError)
            with self._news:
                self._refused.append(SessionNews(number, 0, ended, str(error), refused))
        else:
            self._sessions[number] = _Seen(handle, kept=handle.kept)
            handle.on_frame(partial(self._note, number))
            handle.on_kept(partial(self._note_kept, number))
            if handle.state is not SessionState.WARMING:
                self._note(number)  # it was quick
        self._count_move()

    def _count_move(self) -> None:
        self._num_moves += 1
        with self._news:
            self._places_changed = True
            self._news.notify()

    def _ask(self, name: str, session: _Seen | None, request: int, text: str = "") -> None:
        def answer(value: object) -> None:
            with self._news:
                self._answers.append((request, value))
                self._news.notify()

        if session is None:
            answer(None)
        elif name == "save":
            session.handle.save(answer)
        else:
            try:
                session.handle.prompt(text, answer)
            except ReverieError:  # ended meanwhile: what it asks for was understood before
                answer(None)

    def _note(self, number: int) -> None:
        """A session has a frame, or another state."""
        with self._news:
            self._told.add(number)
            self._news.notify()

    def _note_kept(self, number: int) -> None:
        with self._moved:
            self._unsent[number] = None
            self._moved.notify()

    # What is new, out.

    def _send_on(self) -> None:
        while True:
            with self._news:
                if not (self._told or self._answers or self._refused or self._places_changed):
                    self._news.wait(STATUS_S)
                if self._over:
                    return
            self._send_news()

    def _send_news(self) -> None:
        with self._news:
            told, self._told = self._told, set()
            answers, self._answers = self._answers, []
            sessions, self._refused = self._refused, []
            changed, self._places_changed = self._places_changed, False
            num_moves = self._num_moves
        sessions += [news for number in told if (news := self._tell(number)) is not None]
        changed |= any(news.state is SessionState.ENDED for news in sessions)
        due = time.monotonic() - self._reported_s >= STATUS_S
        status = self._engine.status if changed or due else None
        if due and status is not None:
            self._reported_s = time.monotonic()
            self._expect_work(status)
        self._connection.send_bytes(pack(News(sessions, answers, status, num_moves)))

    def _tell(self, number: int) -> SessionNews | None:
        with self._begins:
            session = self._sessions.get(number)
            if session is None:
                return None
            handle, num_begun = session.handle, session.num_begun
            state, frame = handle.state, handle.take()
        kept = None
        if state is SessionState.ENDED:
            self._sessions.pop(number, None)
            kept = handle.kept  # the other pipe may be slower
        counts = (handle.num_skipped, handle.num_frames, handle.device_s)
        return SessionNews(number, num_begun, state, handle.reason, False, *counts, frame, kept)

    def _expect_work(self, status: EngineStatus) -> None:
        """Leave when the device hangs. Counts reports, not time: all may have been asleep."""
        sessions = list(self._sessions.values())
        working = any(s.handle.state in (*DRAWN, SessionState.WARMING) for s in sessions)
        if status.busy_s != self._busy_s or not working:
            self._busy_s, self._num_stuck = status.busy_s, 0
            return
        self._num_stuck += 1
        costs = self._engine.costs
        step_s = max(costs.table.values(), default=0.0) / 1000 if costs else 0.0
        if self._num_stuck * STATUS_S > max(STUCK_S, STUCK_STEPS * step_s):
            logger.error("the device hangs; its process ends")
            os._exit(1)

    def _send_moments(self) -> None:
        while True:
            with self._moved:
                while not (self._unsent or self._over):
                    self._moved.wait()
                if self._over:
                    return
                number = next(iter(self._unsent))
                del self._unsent[number]
            self._send_moment(number)

    def _send_moment(self, number: int) -> None:
        with self._begins:
            session = self._sessions.get(number)
            if session is None:
                return
            num_begun, kept = session.num_begun, session.handle.kept
        if kept is None or kept is session.kept:
            return
        log, session.kept, session.log = session.log, kept, log_of(kept)
        self._moments.send_bytes(pack(Moment.after(log, number, num_begun, kept)))


def _or_die(work: Callable[[], None]) -> None:
    """A process that tells nothing any more had better not be there."""
    try:
        work()
    except (EOFError, OSError):
        os._exit(1)  # the server is gone
    except BaseException:
        logger.exception("what is new cannot be told")
        os._exit(1)
