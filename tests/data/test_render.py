import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reverie.core import ReverieError
from reverie.data import Dataset
from reverie.data import render as render_module
from reverie.data.environment import Simulator
from reverie.data.record import record
from reverie.data.render import Rendered, default_cache, render

QUIET: dict[str, Any] = {"processes": 1, "progress": False}
TINY = "tiny_env:Tiny-v0"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("set")
    return record(TINY, folder, episodes=4, validation=1, test=0, episode_actions=30, **QUIET)


def test_frames_are_what_the_environment_draws(dataset: Dataset, tmp_path: Path) -> None:
    rendered = render(dataset, cache=tmp_path, **QUIET)
    assert rendered.frames.shape == (4 * 31, 12, 20, 3)
    assert rendered.boundaries.tolist() == [0, 31, 62, 93, 124]
    simulator = Simulator(TINY)
    for k, episode in enumerate(dataset.split("train")):
        row = rendered.boundaries[k]
        simulator.reset(episode.seed)
        assert np.array_equal(rendered.frames[row], simulator.picture())
        assert np.array_equal(rendered.actions[row], dataset.config.actions.idle())
        for t, vector in enumerate(dataset.actions(episode), start=1):
            simulator.step(vector)
            assert np.array_equal(rendered.frames[row + t], simulator.picture())
            assert np.array_equal(rendered.actions[row + t], vector)


def test_segments_show_actions_with_the_frames_they_led_into(
    dataset: Dataset, tmp_path: Path
) -> None:
    rendered = render(dataset, cache=tmp_path, **QUIET)
    segment = rendered.segments(5)[3]
    assert np.array_equal(segment["frames"], rendered.frames[3:8])
    assert np.array_equal(segment["actions"], dataset.actions(dataset.split("train")[0])[2:7])


def test_processes_change_nothing(dataset: Dataset, tmp_path: Path) -> None:
    alone = render(dataset, cache=tmp_path / "one", **QUIET)
    together = render(dataset, cache=tmp_path / "two", **{**QUIET, "processes": 2})
    assert np.array_equal(alone.frames, together.frames)
    assert np.array_equal(alone.boundaries, together.boundaries)


def count_played(monkeypatch: pytest.MonkeyPatch, stop_at: int = 0) -> list[int]:
    played: list[int] = []
    play_back = render_module.play_back

    def counted(simulator: Any, dataset: Any, episode: Any) -> Any:
        played.append(episode.number)
        if len(played) == stop_at:
            raise KeyboardInterrupt
        return play_back(simulator, dataset, episode)

    monkeypatch.setattr(render_module, "play_back", counted)
    return played


def test_a_part_is_rendered_first_and_the_rest_later(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = render(dataset, cache=tmp_path / "whole", **QUIET)
    played = count_played(monkeypatch)
    part = render(dataset, cache=tmp_path / "part", num_frames=40, **QUIET)
    assert (part.num_episodes, len(part.frames), len(part.actions)) == (2, 62, 62)
    rest = render(dataset, cache=tmp_path / "part", **QUIET)
    assert played == [0, 1, 2, 3]
    assert np.array_equal(rest.frames, whole.frames)
    render(dataset, cache=tmp_path / "part", num_frames=40, **QUIET)
    assert played == [0, 1, 2, 3]


def test_a_stopped_render_goes_on(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = render(dataset, cache=tmp_path / "whole", **QUIET)
    with monkeypatch.context() as patch:
        count_played(patch, stop_at=3)
        with pytest.raises(KeyboardInterrupt):
            render(dataset, cache=tmp_path / "half", **QUIET)
    assert Rendered.load(tmp_path / "half" / "train").num_episodes == 2
    played = count_played(monkeypatch)
    assert np.array_equal(render(dataset, cache=tmp_path / "half", **QUIET).frames, whole.frames)
    assert played == [2, 3]


def test_a_grown_data_set_keeps_its_frames(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(dataset.path, tmp_path / "set")
    render(Dataset.load(tmp_path / "set"), cache=tmp_path / "grown", **QUIET)
    grown = record(
        TINY, tmp_path / "set", episodes=6, validation=1, test=0, episode_actions=30, **QUIET
    )
    played = count_played(monkeypatch)
    frames = render(grown, cache=tmp_path / "grown", **QUIET).frames
    assert played == [4, 5]
    assert np.array_equal(frames, render(grown, cache=tmp_path / "new", **QUIET).frames)


def test_another_data_set_is_rendered_from_the_start(dataset: Dataset, tmp_path: Path) -> None:
    render(dataset, cache=tmp_path / "frames", **QUIET)
    other = record(
        TINY,
        tmp_path / "other",
        episodes=2,
        validation=0,
        test=0,
        seed=9,
        episode_actions=5,
        **QUIET,
    )
    frames = render(other, cache=tmp_path / "frames", **QUIET).frames
    assert frames.shape[0] == 12
    assert np.array_equal(frames, render(other, cache=tmp_path / "new", **QUIET).frames)


def test_pictures_come_in_the_size_of_the_data_set(tmp_path: Path) -> None:
    small = record(
        TINY, tmp_path, episodes=1, validation=0, test=0, episode_actions=3, size=(6, 10), **QUIET
    )
    assert render(small, cache=tmp_path / "frames", **QUIET).frames.shape == (4, 6, 10, 3)


def test_a_changed_environment_is_noticed(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tiny_env

    draw = tiny_env.Tiny.render
    monkeypatch.setattr(tiny_env.Tiny, "render", lambda env: draw(env) // 2)
    with pytest.raises(ReverieError, match="no longer draws the first frame of train episode 0"):
        render(dataset, cache=tmp_path, **QUIET)


def test_a_changed_rule_is_noticed_at_the_end(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tiny_env

    step = tiny_env.Tiny.step

    def faster(env: Any, action: Any) -> Any:
        env.x += 0.3
        return step(env, action)

    monkeypatch.setattr(tiny_env.Tiny, "step", faster)
    with pytest.raises(ReverieError, match=r"the last frame .* not deterministic"):
        render(dataset, cache=tmp_path, **QUIET)


def test_bad_requests_are_said_in_one_line(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ReverieError, match="has no test episodes"):
        render(dataset, "test", cache=tmp_path, **QUIET)
    with pytest.raises(ReverieError, match="split 'dev' is unknown"):
        render(dataset, "dev", cache=tmp_path, **QUIET)
    with pytest.raises(ReverieError, match="holds no rendered frames"):
        Rendered.load(tmp_path / "nothing")


def test_a_full_disk_is_said_before_rendering(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(ReverieError, match=r"GB for 124 frames, 0\.0 GB are free"):
        render(dataset, cache=tmp_path, **QUIET)


def test_the_cache_is_found_by_content(dataset: Dataset, tmp_path: Path) -> None:
    shutil.copytree(dataset.path, tmp_path / "moved")
    assert default_cache(Dataset.load(tmp_path / "moved")) == default_cache(dataset)
    assert default_cache(dataset).name.startswith("Tiny-v0-")
