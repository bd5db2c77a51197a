"""Engines for tests to put behind processes, and how to look at what plays there."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from reverie.core import Action, ActionSpace, Frame, ReverieError
from reverie.engine import (
    Engine,
    EngineProcess,
    Handle,
    RemoteHandle,
    SavedSession,
    process_child,
)
from tests.fakes import SPACE, FakeRuntime, fake_config, fake_world


def fake_engine(num_slots: int = 3, space: ActionSpace = SPACE) -> Engine:
    runtime = FakeRuntime(fake_world(fake_config(space=space)), step_ms=1.0, commit_ms=1.0)
    return Engine(runtime.world, runtime, num_slots)


def no_engine() -> Engine:
    raise ReverieError("model.safetensors is missing")


def dying_engine() -> Engine:
    os._exit(3)


def large_engine() -> Engine:
    """Whose pictures are larger than what fits into a pipe."""
    runtime = FakeRuntime(fake_world(fake_config(width=1280, height=800)))
    return Engine(runtime.world, runtime, 2)


def endless_engine() -> Engine:
    time.sleep(60)
    raise AssertionError


def stuck_engine() -> Engine:
    process_child.STUCK_S = process_child.STUCK_STEPS = 0.5
    engine = fake_engine()
    engine.runtime.commit = lambda slots: time.sleep(60)  # type: ignore[method-assign]
    return engine


class Looking:
    """Looks for devices as soon as it is there, as libraries do."""

    def __setstate__(self, state: object) -> None:
        self.seen = os.environ.get("CUDA_VISIBLE_DEVICES")

    def __getstate__(self) -> bool:
        return True

    def __call__(self) -> Engine:
        raise ReverieError(f"sees {self.seen}")


def eventually(holds: Callable[[], bool], timeout_s: float = 5.0) -> bool:
    end_s = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < end_s:
        time.sleep(0.005)
    return holds()


def open_when_free(engine: EngineProcess, **wanted: Any) -> RemoteHandle:
    """A session, as soon as it is known here that there is room."""
    assert eventually(lambda: engine.has_room)
    return engine.open(**wanted)


def frames(handle: Handle | RemoteHandle, count: int, timeout_s: float = 5.0) -> list[Frame]:
    """The next ones, each as soon as it is there."""
    news, taken = threading.Event(), []
    handle.on_frame(news.set)
    end_s = time.monotonic() + timeout_s
    while len(taken) < count:
        assert time.monotonic() < end_s, f"{len(taken)} of {count} frames"
        news.wait(0.1)
        news.clear()
        if (frame := handle.take()) is not None:
            taken.append(frame)
    return taken


def saved(handle: Handle | RemoteHandle) -> SavedSession | None:
    answers: list[SavedSession | None] = []
    there = threading.Event()

    def answer(session: SavedSession | None) -> None:
        answers.append(session)
        there.set()

    handle.save(answer)
    assert there.wait(3)
    return answers[0]


def act(handle: Handle | RemoteHandle, seq: int, **action: Any) -> None:
    space = handle._engine.world.config.action_space
    handle.act(space.encode(Action(**action)), seq, time.monotonic())
