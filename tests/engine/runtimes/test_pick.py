"""Which runtime plays a world."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reverie.core import ReverieError
from reverie.engine import runtimes
from reverie.engine.runtimes import load_runtime, pick_runtime
from reverie.world import World


def test_the_fastest_that_is_installed(tiny_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_runtime(tiny_world) == "openvino"
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    assert pick_runtime(tiny_world) == "onnx"
    with pytest.raises(ReverieError, match=r"pip install 'reverie-worlds\[openvino\]'"):
        load_runtime(tiny_world, "openvino")


def test_only_torch_plays_other_formats(tiny_world: World) -> None:
    other = World(tiny_world.path, replace(tiny_world.config, format="oasis"))
    assert pick_runtime(other) == "torch"
    with pytest.raises(ReverieError, match="'onnx' plays no world of the format 'oasis'"):
        pick_runtime(other, "onnx")
