"""Fixtures for every test; being here also makes `tests` importable wherever pytest starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from reverie import world as worlds
from reverie.world import World
from tests.tiny_world import write_tiny_world


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole world with random weights. Tests that damage it copy it first."""
    return write_tiny_world(tmp_path_factory.mktemp("worlds") / "tiny")


@pytest.fixture(scope="session")
def tiny_world(tiny_path: Path) -> World:
    return worlds.load(tiny_path)
