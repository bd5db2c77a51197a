"""Fixtures for every test; being here also makes `tests` importable wherever pytest starts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from reverie import world as worlds
from reverie.data.episode import Dataset
from reverie.data.record import record
from reverie.world import World
from tests.tiny_world import write_tiny_world
from tests.turns import FOLDER, place, turn

# Networks of tests are tiny: a second thread only waits for the first. Read when torch is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        locks = tempfile.TemporaryDirectory()
        os.environ[FOLDER] = locks.name  # for the workers
        config.add_cleanup(locks.cleanup)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: place(item.path))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    with turn(item.path):
        return (yield)


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole world with random weights. Tests that damage it copy it first."""
    return write_tiny_world(tmp_path_factory.mktemp("worlds") / "tiny")


@pytest.fixture(scope="session")
def tiny_world(tiny_path: Path) -> World:
    return worlds.load(tiny_path)


@pytest.fixture(scope="session")
def meadow_set(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Two short test episodes of Meadow, in small pictures."""
    return record(
        "reverie/Meadow-v0",
        tmp_path_factory.mktemp("meadow"),
        episodes=0,
        validation=0,
        test=2,
        episode_actions=200,
        processes=1,
        size=(24, 40),
        progress=False,
    )
