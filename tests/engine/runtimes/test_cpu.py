"""The CPU runtime, with every library, on the toy world of `tests.tiny_world`: three frames of
context, four tokens.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from reverie import world as worlds
from reverie.core import Action, ReverieError
from reverie.engine.runtime import Batch, Runtime, noise
from reverie.engine.runtimes.cpu import CpuRuntime
from reverie.engine.runtimes.graphs import Graphs
from reverie.engine.runtimes.onnx import OnnxGraphs
from reverie.engine.runtimes.openvino import OpenVinoGraphs
from reverie.engine.runtimes.sharing import share_out
from reverie.world import World
from tests.fakes import PROMPTED
from tests.tiny_world import CHANNELS, HEADS, TOKENS, write_tiny_world

SCRIPT = np.random.default_rng(5).random((40, 16)).astype(np.float32)
CONTEXT = 3


Ready = Callable[..., CpuRuntime]


@pytest.fixture(params=[OnnxGraphs, OpenVinoGraphs], ids=["onnx", "openvino"])
def library(request: pytest.FixtureRequest) -> type[Graphs]:
    return request.param


@pytest.fixture
def ready(library: type[Graphs]) -> Ready:
    def make(world: World, num_slots: int = 3, num_threads: int = 2) -> CpuRuntime:
        runtime = CpuRuntime(world, library, num_threads)
        runtime.allocate(num_slots)
        return runtime

    return make


@pytest.fixture
def runtime(ready: Ready, tiny_world: World) -> CpuRuntime:
    return ready(tiny_world)


def begin(runtime: Runtime, slot: int = 0, seed: int = 7, start: str = "start-0") -> None:
    clip = runtime.world.find_start(start)
    runtime.prefill(slot, clip.frames, clip.actions, seed)


def draw(
    runtime: Runtime, index: int, slot: int = 0, seed: int = 7, num_steps: int = 1
) -> np.ndarray:
    batch = Batch((slot,), SCRIPT[index : index + 1], (seed,), (index,), num_steps)
    return runtime.step(batch)[0]


def play(runtime: Runtime, count: int, first: int = 0, **options: int) -> list[np.ndarray]:
    return [draw(runtime, first + i, **options) for i in range(count)]


def test_pictures_are_not_constant_and_depend_on_everything(
    ready: Ready, tiny_world: World
) -> None:
    runtime = ready(tiny_world)

    def pictures(seed: int = 7, start: str = "start-0", num_steps: int = 1) -> np.ndarray:
        begin(runtime, seed=seed, start=start)
        return np.stack(play(runtime, 6, seed=seed, num_steps=num_steps))

    base = pictures()
    assert base.dtype == np.uint8
    assert base.shape == (6, 8, 8, 3)
    assert base.std() > 5
    assert (base[0] != base[1]).any()
    assert (base != pictures(seed=8)).any()
    assert (base != pictures(start="start-1")).any()
    assert (base != pictures(num_steps=4)).any()
    begin(runtime)
    other = runtime.step(Batch((0,), SCRIPT[9:10], (7,), (0,), 1))
    assert (other[0] != base[0]).any()


@pytest.mark.parametrize("num_steps", [1, 2, 4])
def test_same_seed_and_actions_same_frames(ready: Ready, tiny_world: World, num_steps: int) -> None:
    runs = []
    for _ in range(2):
        runtime = ready(tiny_world)
        begin(runtime)
        runs.append(play(runtime, 10, num_steps=num_steps))
    np.testing.assert_array_equal(runs[0], runs[1])


@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_session_does_not_depend_on_who_else_plays(
    ready: Ready, tiny_world: World, num_threads: int
) -> None:
    alone = ready(tiny_world, 1)
    begin(alone)
    expected = play(alone, 10)
    runtime = ready(tiny_world, 4, num_threads)
    for slot, seed in ((2, 7), (0, 1), (3, 2)):
        begin(runtime, slot, seed)
    pictures = []
    for i in range(10):
        slots = (2,) if i % 3 == 0 else (0, 2, 3)
        actions = np.stack([SCRIPT[i] if slot == 2 else SCRIPT[-1 - i] for slot in slots])
        seeds = tuple({0: 1, 2: 7, 3: 2}[slot] for slot in slots)
        frames = runtime.step(Batch(slots, actions, seeds, (i,) * len(slots), 1))
        pictures.append(frames[slots.index(2)])
        if i % 2:
            runtime.commit(slots)
    np.testing.assert_array_equal(pictures, expected)


def test_sessions_are_dealt_out_in_equal_shares_that_lie_beside_each_other() -> None:
    assert share_out([0, 1, 2, 3], 2) == [[0, 1], [2, 3]]
    assert share_out([0, 1, 2], 1) == [[0, 1], [2]]
    assert share_out([0, 2, 3, 7], 1) == share_out([0, 2, 3, 7], 2) == [[2, 3], [0], [7]]
    assert share_out(list(range(10)), 1) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert share_out([4, 5], 2) == [[4], [5]]
    # Three pairs would keep one of two threads busy with four.
    assert share_out(list(range(6)), 2) == [[0, 1], [2, 3], [4], [5]]
    assert share_out([], 2) == []


@given(st.sets(st.integers(0, 15), min_size=1), st.integers(1, 5))
def test_no_thread_has_more_than_its_share(slots: set[int], num_threads: int) -> None:
    groups = share_out(sorted(slots), num_threads)
    assert sorted(slot for group in groups for slot in group) == sorted(slots)
    busy = [0] * num_threads
    for group in groups:
        assert list(group) == list(range(group[0], group[0] + len(group)))
        busy[busy.index(min(busy))] += len(group)
    assert max(busy) == -(-len(slots) // num_threads)


def test_a_slot_forgets_its_last_session(ready: Ready, tiny_world: World) -> None:
    runtime = ready(tiny_world, 1)
    begin(runtime)
    expected = play(runtime, 5)
    begin(runtime, seed=99, start="start-1")
    play(runtime, 7, seed=99, num_steps=2)  # with a commit that is still pending
    begin(runtime)
    np.testing.assert_array_equal(play(runtime, 5), expected)


def test_frames_that_may_only_be_read(library: type[Graphs]) -> None:
    """Large ones, whose copy would be another's memory soon after it is let go."""
    world = worlds.load("meadow")
    graphs = library(world, 1)
    frames = world.starts[0].frames[:4].copy()
    expected = [graphs.encode(frame[None]) for frame in frames]
    frames.setflags(write=False)
    for frame, latents in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(graphs.encode(frame[None]), latents)


def test_a_clip_in_parts_is_the_same_clip(ready: Ready, tiny_world: World) -> None:
    whole, parts = ready(tiny_world), ready(tiny_world)
    begin(whole)
    clip = tiny_world.find_start()
    for i in range(CONTEXT):
        part = slice(i, i + 1)
        parts.prefill(0, clip.frames[part], clip.actions[part], 7, first_index=i - CONTEXT)
    np.testing.assert_array_equal(play(parts, 4), play(whole, 4))


def test_committing_early_late_or_twice_is_the_same(ready: Ready, tiny_world: World) -> None:
    early, late = ready(tiny_world), ready(tiny_world)
    begin(early)
    begin(late)
    for i in range(8):
        np.testing.assert_array_equal(draw(early, i), draw(late, i))
        early.commit([0])
        early.commit([0, 1, 2])


@pytest.mark.parametrize("committed", [True, False])
def test_a_snapshot_goes_on_bit_for_bit_anywhere(
    ready: Ready, tiny_world: World, committed: bool
) -> None:
    runtime = ready(tiny_world)
    begin(runtime)
    play(runtime, 5)
    if committed:
        runtime.commit([0])
    saved = runtime.snapshot(0)
    expected = play(runtime, 8, first=5)
    elsewhere = ready(tiny_world, 1)
    elsewhere.restore(0, saved)
    np.testing.assert_array_equal(play(elsewhere, 8, first=5), expected)
    runtime.restore(2, saved)
    np.testing.assert_array_equal(play(runtime, 8, first=5, slot=2), expected)
    runtime.restore(0, saved)
    assert runtime.snapshot(0) == saved


def test_a_wish_is_painted_within_a_second_and_the_past_knows_nothing_of_it(
    ready: Ready, tmp_path: Path
) -> None:
    world = worlds.load(write_tiny_world(tmp_path / "prompted", space=PROMPTED))
    usual, night = (
        PROMPTED.encode(Action({"forward"}, attributes=attributes))
        for attributes in ({}, {"time_of_day": "night"})
    )

    def film(actions: list[np.ndarray], runtime: Runtime, first: int = 0) -> np.ndarray:
        if not first:
            begin(runtime)
        numbered = enumerate(actions, first)
        batches = (Batch((0,), action[None], (7,), (i,), 1) for i, action in numbered)
        return np.stack([runtime.step(batch)[0].astype(int) for batch in batches])

    runtime = ready(world)
    bright, dark = (film([action] * 30, runtime) for action in (usual, night))
    back = film([usual] * 2 + [night] * 10 + [usual] * 18, runtime)
    apart = np.abs(dark - bright).mean((1, 2, 3))
    assert apart[0] < 0.2 * apart[19]
    assert 0.25 * apart[19] < apart[9] < 0.75 * apart[19]
    assert apart[20:].min() > 0.5 * apart[19]
    assert np.abs(back - bright)[[0, 1, 22, 29]].max() == 0
    for committed in (False, True):
        film([usual] * 2 + [night] * 5, runtime)
        if committed:
            runtime.commit([0])
        saved = runtime.snapshot(0)
        expected = film([night] * 8, runtime, 7)
        runtime.restore(0, saved)
        np.testing.assert_array_equal(film([night] * 8, runtime, 7), expected)


def test_snapshots_of_other_weights_are_refused(
    ready: Ready, tiny_world: World, tmp_path: Path
) -> None:
    other = ready(worlds.load(write_tiny_world(tmp_path / "other", seed=1)))
    begin(other)
    runtime = ready(tiny_world)
    with pytest.raises(ReverieError, match="another world, or to other weights"):
        runtime.restore(0, other.snapshot(0))
    with pytest.raises(ReverieError, match="not a Reverie session"):
        runtime.restore(0, b"hello")


def normalise(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def heads(x: np.ndarray) -> np.ndarray:
    return x.reshape(TOKENS, HEADS, -1).transpose(1, 0, 2)


class Reference:
    """One session in plain numpy on the world's weights, with caches that are lists of frames.

    Written from the description of the graphs and the sampler, not from the runtime.
    """

    def __init__(self, world: World) -> None:
        weights = load_file(world.path / "model.safetensors")
        self.weights = {name: value.astype(np.float64) for name, value in weights.items()}
        self.frequencies = np.array(world.config.denoiser["frequencies"])
        self.past: list[list[tuple[np.ndarray, np.ndarray]]] = []
        self.actions: list[np.ndarray] = []  # every one since the session began
        clip = world.find_start()
        for i in range(CONTEXT):
            patches = clip.frames[i].reshape(2, 4, 2, 4, 3).transpose(0, 2, 1, 3, 4).reshape(4, 48)
            latents = normalise(patches / 255 @ self.weights["autoencoder.encode"])
            self.remember(latents, clip.actions[i], i - CONTEXT)

    def look(self, action: np.ndarray) -> tuple[float, float]:
        """Row and column that the camera looks at after this action, in tokens of 2 per limit."""
        pitch = column = 0.0
        for acted in [*self.actions, action]:
            pitch = min(max(pitch + 15.0 * float(acted[9]), -90.0), 90.0)
            column += 2.0 * float(acted[8])
        return 2.0 * pitch / 15.0, column

    def denoise(
        self, z: np.ndarray, signal: float, step: float, action: np.ndarray, t: int
    ) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
        w = self.weights
        row, column = self.look(action)
        told = np.append(action, row / 2.0)
        condition = np.array([signal, step]) @ w["denoiser.levels"] + told @ w["denoiser.action"]
        x = z @ w["denoiser.embed"] + condition
        phases = np.array([row, column, t]) @ self.frequencies
        made = []
        zero = np.zeros((HEADS, (CONTEXT - len(self.past)) * TOKENS, 4))
        for i in range(2):
            q, k, v = (heads(x @ w[f"denoiser.{part}.{i}"]) for part in "qkv")
            k = k + np.cos(phases) - np.sin(phases)
            keys = np.concatenate([zero, *(frame[i][0] for frame in self.past), k], 1)
            values = np.concatenate([zero, *(frame[i][1] for frame in self.past), v], 1)
            scores = np.exp(q @ keys.transpose(0, 2, 1))
            mixed = (scores / scores.sum(-1, keepdims=True)) @ values
            x = x + np.tanh(mixed.transpose(1, 0, 2).reshape(TOKENS, -1) @ w[f"denoiser.o.{i}"])
            made.append((k, v))
        return x @ w["denoiser.unembed"], made

    def remember(self, z: np.ndarray, action: np.ndarray, t: int) -> None:
        drawn = noise(7, t, 1, (TOKENS, CHANNELS))
        _, made = self.denoise(0.9 * normalise(z) + 0.1 * drawn, 0.9, 0.125, action, t)
        self.past.append(made)
        self.actions.append(action)
        del self.past[:-CONTEXT]

    def draw(self, t: int, num_steps: int) -> np.ndarray:
        z = 1.25 * noise(7, t, 0, (TOKENS, CHANNELS)).astype(np.float64)
        for k in range(num_steps):
            signal = k / num_steps
            clean, _ = self.denoise(z, signal, 1 / num_steps, SCRIPT[t], t)
            z = z + (clean - z) / (1 - signal) / num_steps
        self.remember(z, SCRIPT[t], t)
        patches = 255 / (1 + np.exp(-z @ self.weights["autoencoder.decode"]))
        return patches.reshape(2, 2, 4, 4, 3).transpose(0, 2, 1, 3, 4).reshape(8, 8, 3)


@pytest.mark.parametrize("num_steps", [1, 4])
def test_it_agrees_with_plain_numpy(ready: Ready, tiny_world: World, num_steps: int) -> None:
    runtime = ready(tiny_world)
    begin(runtime)
    reference = Reference(tiny_world)
    tolerance = 0.6 if runtime._memory.cache_type == np.float32 else 8.0  # of bfloat16
    for t, picture in enumerate(play(runtime, 12, num_steps=num_steps)):
        np.testing.assert_allclose(picture, reference.draw(t, num_steps), atol=tolerance)


def test_the_cache_is_read_where_it_lies(ready: Ready, tiny_world: World) -> None:
    """A pass allocates nothing of the size of the cache: memory stays flat, and no copies."""
    runtime = ready(tiny_world, 1)
    begin(runtime)
    before = draw(runtime, 0)
    runtime._pending[0] = None
    for array in runtime._memory.k + runtime._memory.v:
        array[:] = 0  # in the pool itself, behind the binding's back
    assert (draw(runtime, 0) != before).any()


def test_costs_cover_what_may_be_asked_for(runtime: CpuRuntime) -> None:
    costs = runtime.cost_table()
    assert set(costs) == {(b, k) for b in (1, 2, 3) for k in (0, 1, 2, 4)}
    assert all(ms > 0 for ms in costs.values())
    assert costs[1, 4] > costs[1, 2] > costs[1, 1]
    assert all(costs[b, k] <= costs[b + 1, k] for b in (1, 2) for k in (0, 1, 2, 4))
    assert runtime.cost_table() == costs


def test_wrong_frames_are_refused(runtime: CpuRuntime) -> None:
    clip = runtime.world.find_start()
    with pytest.raises(ReverieError, match=r"frames are float32 .* expected uint8"):
        runtime.prefill(0, clip.frames.astype(np.float32), clip.actions, 0)  # type: ignore[arg-type]
    with pytest.raises(ReverieError, match="frames are uint8"):
        runtime.prefill(0, clip.frames[:, :4], clip.actions, 0)
    with pytest.raises(ReverieError, match=r"actions have shape \(3, 4\); expected \(3, 16\)"):
        runtime.prefill(0, clip.frames, clip.actions[:, :4], 0)
    with pytest.raises(ReverieError, match="before the context of 3 frames"):
        runtime.prefill(0, clip.frames, clip.actions, 0, first_index=-4)


def test_allocating_twice_is_a_bug(runtime: CpuRuntime) -> None:
    with pytest.raises(RuntimeError, match="3 slots are allocated already"):
        runtime.allocate(2)


def test_graphs_of_another_config_are_refused(
    library: type[Graphs], tiny_path: Path, tmp_path: Path
) -> None:
    write_tiny_world(tmp_path / "longer", context=5)
    mixed = shutil.copytree(tiny_path, tmp_path / "mixed")
    shutil.copy(tmp_path / "longer" / "denoiser.onnx", mixed)
    with pytest.raises(ReverieError, match=r"cache entries \[20\], the config wants \[12\]"):
        CpuRuntime(worlds.load(mixed), library)


def test_a_config_without_what_the_denoiser_needs(library: type[Graphs], tiny_world: World) -> None:
    settings = dict(tiny_world.config.denoiser)
    del settings["min_step_size"]
    config = replace(tiny_world.config, denoiser=settings)
    with pytest.raises(ReverieError, match=r"no denoiser\.min_step_size"):
        CpuRuntime(World(tiny_world.path, config), library)


def test_a_graph_that_cannot_be_run(library: type[Graphs], tiny_path: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(tiny_path, tmp_path / "broken")
    file = broken / "denoiser.onnx"
    file.write_bytes(file.read_bytes().replace(b"Softmax", b"Softmix"))
    with pytest.raises(ReverieError, match=r"denoiser\.onnx cannot be run") as caught:
        CpuRuntime(worlds.load(broken), library)
    assert "\n" not in str(caught.value)


def test_a_graph_with_an_open_past_begins_with_an_empty_one(
    library: type[Graphs], ready: Ready, tiny_path: Path, tmp_path: Path
) -> None:
    """Such a graph never sees the zeros of a memory that is not full yet."""
    import onnx

    path = shutil.copytree(tiny_path, tmp_path / "open")
    model = onnx.load(str(path / "denoiser.onnx"), load_external_data=False)
    for item in model.graph.input:
        if item.name.startswith("cache_"):
            item.type.tensor_type.shape.dim[2].dim_param = "m"
    (path / "denoiser.onnx").write_bytes(model.SerializeToString())
    runtime = CpuRuntime(worlds.load(path), library)
    runtime.allocate(1)
    assert runtime.shape.has_open_past
    seen: list[int] = []
    inner = runtime._passes[0, 1].remember_early

    def watched(*arguments: object) -> None:
        seen.append(arguments[-1])  # type: ignore[arg-type]
        inner(*arguments)  # type: ignore[arg-type]

    runtime._passes[0, 1].remember_early = watched  # type: ignore[method-assign]
    begin(runtime)
    assert seen == [0, 4, 8]
    full = ready(worlds.load(tiny_path), 1)
    begin(full)
    assert (runtime._memory.v[1][0] != full._memory.v[1][0]).any()
    np.testing.assert_array_equal(runtime._memory.v[0][0], full._memory.v[0][0])
