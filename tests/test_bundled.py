"""The world that comes with Reverie: whole, small, the same in both runtimes, and it obeys."""

from __future__ import annotations

import numpy as np
import pytest

from reverie import world as worlds
from reverie.core import Action
from reverie.engine.runtime import Batch, Runtime
from reverie.engine.runtimes.cpu import CpuRuntime
from reverie.engine.runtimes.graphs import Graphs
from reverie.engine.runtimes.onnx import OnnxGraphs
from reverie.engine.runtimes.openvino import OpenVinoGraphs
from reverie.engine.runtimes.torch import TorchRuntime
from reverie.train.measures import decibels, mean_square
from reverie.world import World

ROUNDED_DB = 38
"""PSNR to frames of the slow twin, whose decoder does not multiply in 8 bits, of every frame."""
PIXELS_PER_DEGREE = 160 / 73.7
"""Near the middle of a picture with a field of view of 74 degrees it is a little less."""


@pytest.fixture(scope="module")
def meadow() -> World:
    return worlds.load("meadow")


@pytest.fixture(scope="module")
def runtime(meadow: World) -> Runtime:
    runtime = CpuRuntime(meadow, OnnxGraphs)
    runtime.allocate(2)
    return runtime


def play(
    runtime: Runtime, start: str, action: Action, num_frames: int, seed: int = 0
) -> np.ndarray:
    """The last real frame, then generated ones: uint8 [num_frames + 1, h, w, 3]."""
    world = runtime.world
    clip = world.find_start(start)
    runtime.prefill(0, clip.frames, clip.actions, seed, pitch_deg=clip.pitch_deg)
    slot = world.config.action_space.decode(clip.actions[-1]).slot
    said = (action.keys, action.mouse, slot, action.attributes)
    vector = world.config.action_space.encode(Action(*said))
    batches = (Batch((0,), vector[None], (seed,), (index,), 1) for index in range(num_frames))
    return np.stack([clip.frames[-1], *(runtime.step(batch)[0] for batch in batches)])


def sideways(before: np.ndarray, after: np.ndarray, reach: int = 40) -> int:
    """Pixels by which the scene moved to the right, from the pictures' columns above the hotbar."""
    a, b = (picture[:80].astype(float).mean(2) for picture in (before, after))
    width = a.shape[1]
    errors = {
        shift: np.square(
            a[:, max(0, -shift) : width - max(0, shift)]
            - b[:, max(0, shift) : width - max(0, -shift)]
        ).mean()
        for shift in range(-reach, reach + 1)
    }
    return min(errors, key=lambda shift: errors[shift])


def test_it_is_whole_and_small(meadow: World) -> None:
    assert (meadow.config.width, meadow.config.height, meadow.config.fps) == (160, 96, 20)
    assert meadow.config.denoising_steps == (1, 2, 4)
    assert len(meadow.starts) >= 4
    assert meadow.card
    assert sum(f.stat().st_size for f in meadow.path.rglob("*") if f.is_file()) < 40e6


def test_the_two_runtimes_agree_frame_by_frame(meadow: World, runtime: Runtime) -> None:
    twin = TorchRuntime(meadow, "cpu")
    twin.allocate(1)
    start = meadow.starts[0].name
    action = Action({"w"}, (3.0, 0.5))
    fast, slow = (play(r, start, action, 12) for r in (runtime, twin))
    apart = [decibels(mean_square(*pair)) for pair in zip(fast, slow, strict=True)]
    assert min(apart) > ROUNDED_DB
    for remembering in (runtime, twin):
        remembering.commit((0,))
    assert isinstance(runtime, CpuRuntime)
    assert twin._sampler is not None
    for i, keys in enumerate(runtime._memory.k):  # what play goes on from is not rounded
        layer = sorted(name for name in twin._sampler.rings if name.startswith("k"))[i]
        np.testing.assert_allclose(keys[0], twin._sampler.rings[layer][0].numpy(), atol=1e-3)


@pytest.mark.parametrize("library", [OnnxGraphs, OpenVinoGraphs])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_sessions_that_are_drawn_in_one_pass_do_not_change_each_other(
    meadow: World, library: type[Graphs], num_threads: int
) -> None:
    alone, together = CpuRuntime(meadow, library, num_threads), CpuRuntime(meadow, library, 1)
    alone.allocate(1)
    together.allocate(4)
    starts = [(start.frames, start.actions) for start in meadow.starts[:4]]
    actions = np.stack([clip[-1] for _, clip in starts])
    for slot, clip in enumerate(starts):
        together.prefill(slot, *clip, slot)
    slots = (3, 1, 0, 2)
    drawn = [
        together.step(Batch(slots, actions[list(slots)], slots, (i,) * 4, 1)) for i in range(4)
    ]
    for row, slot in enumerate(slots):
        alone.prefill(0, *starts[slot], slot)
        for i, frames in enumerate(drawn):
            own = alone.step(Batch((0,), actions[slot : slot + 1], (slot,), (i,), 1))
            np.testing.assert_array_equal(own[0], frames[row])


@pytest.mark.parametrize("side", [1, -1], ids=["right", "left"])
def test_turning_moves_the_scene_the_other_way(meadow: World, runtime: Runtime, side: int) -> None:
    """Three frames of 5 degrees from every start: most scenes move by about that much."""
    moved = []
    for start in meadow.starts:
        frames = play(runtime, start.name, Action(mouse=(5.0 * side, 0)), 3)
        moved.append(-side * sideways(frames[0], frames[-1]))
    wanted = 15 * PIXELS_PER_DEGREE
    assert 0.6 * wanted < np.median(moved) < 1.3 * wanted


def test_standing_still_keeps_the_scene(meadow: World, runtime: Runtime) -> None:
    """After a while of nothing, the picture is far nearer to its start than to any other."""
    firsts = [start.frames[-1].astype(float) for start in meadow.starts]
    for i, start in enumerate(meadow.starts):
        last = play(runtime, start.name, Action(), 20)[-1].astype(float)
        changes = [float(np.abs(last - first).mean()) for first in firsts]
        assert changes[i] < min(changes[:i] + changes[i + 1 :]) / 3


def colours(picture: np.ndarray) -> np.ndarray:
    """Mean red, green and blue of the scene above the hotbar."""
    return picture[:84].astype(float).mean((0, 1))


def test_wishes_are_painted_within_two_seconds(runtime: Runtime) -> None:
    def after(**attributes: str) -> np.ndarray:
        return play(runtime, "1-meadow", Action(attributes=attributes), 40)[-1]

    usual = after()
    assert colours(after(time_of_day="night")).mean() < 0.5 * colours(usual).mean()
    red, _, blue = colours(after(time_of_day="dusk")) / colours(usual)
    assert red > 1.1 * blue
    assert after(weather="fog")[:84].std() < 0.9 * usual[:84].std()
    assert colours(after(biome="snowy")).mean() > 1.1 * colours(usual).mean()
    red, green, _ = colours(after(biome="desert")) / colours(usual)
    assert red > 1.2 * green


def test_the_same_seed_and_actions_draw_the_same_frames(meadow: World, runtime: Runtime) -> None:
    start, action = meadow.starts[0].name, Action({"w"}, (2.0, 0))
    once, twice = (play(runtime, start, action, 4, seed=5) for _ in range(2))
    assert np.array_equal(once, twice)
    assert not np.array_equal(once, play(runtime, start, action, 4, seed=6))
