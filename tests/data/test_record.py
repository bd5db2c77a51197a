import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reverie.core import ReverieError
from reverie.data import Dataset, Episode
from reverie.data import record as record_module
from reverie.data.episode import SPLITS, split_of, world_seed
from reverie.data.record import record

TINY = "tiny_env:Tiny-v0"
SMALL: dict[str, Any] = {
    "episodes": 3,
    "validation": 1,
    "test": 1,
    "episode_actions": 40,
    "processes": 1,
    "progress": False,
}


def same_episodes(first: tuple[Episode, ...], second: tuple[Episode, ...]) -> bool:
    return len(first) == len(second) and all(
        (a.seed, a.split, a.number, a.options) == (b.seed, b.split, b.number, b.options)
        and all(np.array_equal(a.columns[name], b.columns[name]) for name in a.columns)
        and np.array_equal(a.fingerprints, b.fingerprints)
        for a, b in zip(first, second, strict=True)
    )


def test_a_recording_is_loaded_as_it_was_made(tmp_path: Path) -> None:
    made = record(TINY, tmp_path / "set", **SMALL)
    loaded = Dataset.load(tmp_path / "set")
    assert loaded.config == made.config
    assert same_episodes(loaded.episodes, made.episodes)
    assert loaded.totals()["train"] == {"episodes": 3, "frames": 3 * 41}
    assert {episode.split for episode in loaded.episodes} == set(SPLITS)
    card = (tmp_path / "set" / "README.md").read_text()
    assert "205 frames" in card
    assert "`forward` held" in card


@pytest.mark.parametrize("kind", ["controls", "discrete", "binary", "vector"])
def test_any_kind_of_action_is_recorded(tmp_path: Path, kind: str) -> None:
    dataset = record(TINY, tmp_path, env_kwargs={"kind": kind}, **SMALL)
    loaded = Dataset.load(tmp_path)
    episode = loaded.split("train")[0]
    actions = loaded.actions(episode)
    assert actions.shape == (40, dataset.config.actions.width)
    assert len(np.unique(actions, axis=0)) > 1
    assert dataset.config.policy == ("scripted" if kind == "controls" else "sticky")


def test_the_log_takes_at_most_four_bytes_a_frame(tmp_path: Path) -> None:
    dataset = record(TINY, tmp_path, **{**SMALL, "episodes": 10, "episode_actions": 600})
    num_frames = sum(total["frames"] for total in dataset.totals().values())
    assert (tmp_path / "actions.npz").stat().st_size < 4 * num_frames


def test_processes_change_nothing(tmp_path: Path) -> None:
    alone = record(TINY, tmp_path / "one", **SMALL)
    together = record(TINY, tmp_path / "two", **{**SMALL, "processes": 2})
    assert same_episodes(alone.episodes, together.episodes)


def test_more_episodes_keep_those_there_are(tmp_path: Path) -> None:
    record(TINY, tmp_path / "grown", **{**SMALL, "episodes": 2})
    grown = record(TINY, tmp_path / "grown", **{**SMALL, "episodes": 5})
    whole = record(TINY, tmp_path / "whole", **{**SMALL, "episodes": 5})
    assert same_episodes(grown.episodes, whole.episodes)


def test_a_changed_source_is_fine_if_it_draws_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tiny_env

    first = record(TINY, tmp_path, **SMALL)
    monkeypatch.setattr(record_module, "code_hash", lambda _: "reformatted")
    grown = record(TINY, tmp_path, **{**SMALL, "episodes": 4})
    assert grown.config == first.config
    assert len(grown.episodes) == len(first.episodes) + 1
    draw = tiny_env.Tiny.render
    monkeypatch.setattr(tiny_env.Tiny, "render", lambda env: draw(env) // 2)
    with pytest.raises(ReverieError, match="no longer draws the first frame"):
        record(TINY, tmp_path, **{**SMALL, "episodes": 5})


def test_ctrl_c_leaves_a_data_set_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = record(TINY, tmp_path / "whole", **SMALL)
    play = record_module.play
    num_played = 0

    def stopped(*arguments: Any) -> Episode:
        nonlocal num_played
        num_played += 1
        if num_played == 3:
            raise KeyboardInterrupt
        return play(*arguments)

    monkeypatch.setattr(record_module, "play", stopped)
    with pytest.raises(KeyboardInterrupt):
        record(TINY, tmp_path / "half", **SMALL)
    assert len(Dataset.load(tmp_path / "half").episodes) == 2
    resumed = record(TINY, tmp_path / "half", **SMALL)
    assert num_played == 3 + 3
    assert same_episodes(resumed.episodes, whole.episodes)


def test_an_episode_ends_where_the_environment_ends_it(tmp_path: Path) -> None:
    dataset = record(TINY, tmp_path, env_kwargs={"ends_after": 7}, **SMALL)
    assert {episode.num_actions for episode in dataset.episodes} == {7}


def test_reset_options_are_drawn_from_lists(tmp_path: Path) -> None:
    dataset = record(TINY, tmp_path, reset_options={"x": [1.0, 2.0]}, **{**SMALL, "episodes": 12})
    assert {episode.options["x"] for episode in dataset.episodes} == {1.0, 2.0}
    assert same_episodes(Dataset.load(tmp_path).episodes, dataset.episodes)


def test_worlds_of_two_splits_never_meet() -> None:
    seeds = {
        split: {world_seed(base, split, i) for base in (0, 1) for i in range(300)}
        for split in SPLITS
    }
    for split, worlds in seeds.items():
        assert len(worlds) == 600
        assert {split_of(seed) for seed in worlds} == {split}
        assert min(worlds) >= 0
        assert max(worlds) < 2**31


def test_a_policy_of_ones_own(tmp_path: Path) -> None:
    dataset = record(TINY, tmp_path, policy="tiny_env:OnlyForward", **SMALL)
    assert (dataset.actions(dataset.episodes[0])[:, 0] == 1).all()
    assert dataset.config.policy_mix == {"tiny_env:OnlyForward": 1.0}


def test_bad_requests_are_said_in_one_line(tmp_path: Path) -> None:
    record(TINY, tmp_path / "set", **SMALL)
    file = tmp_path / "file"
    file.write_text("")
    for message, request in {
        "seed 0, not 1": {"out": tmp_path / "set", "seed": 1},
        "cannot write to": {"out": file / "set"},
        "policy 'nobody' is unknown; expected one of": {"policy": "nobody"},
        "policy 'no_module:Nobody' cannot be imported": {"policy": "no_module:Nobody"},
        "needs an environment with a camera": {
            "policy": "scripted",
            "env_kwargs": {"kind": "vector"},
        },
        "-1 train episodes": {"episodes": -1},
        "episode_actions is 0": {"episode_actions": 0},
        "processes is 0": {"processes": 0},
    }.items():
        with pytest.raises(ReverieError) as caught:
            record(TINY, **{"out": tmp_path / "new", **SMALL, **request})
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    record(TINY, tmp_path / "set", seed=1, overwrite=True, **SMALL)
    assert Dataset.load(tmp_path / "set").config.seed == 1


def damage_version(folder: Path) -> None:
    edit_config(folder, format_version=2)


def damage_keys(folder: Path) -> None:
    edit_config(folder, colour="red")


def damage_config(folder: Path) -> None:
    (folder / "dataset.json").write_text("{")


def damage_log(folder: Path) -> None:
    log = folder / "actions.npz"
    log.write_bytes(log.read_bytes()[: log.stat().st_size // 2])


def damage_columns(folder: Path) -> None:
    edit_log(folder, action_keys=np.zeros(3, np.uint8))


def damage_count(folder: Path) -> None:
    values = json.loads((folder / "dataset.json").read_text())
    values["totals"]["train"]["episodes"] += 1
    (folder / "dataset.json").write_text(json.dumps(values))


def damage_missing_log(folder: Path) -> None:
    (folder / "actions.npz").unlink()


def damage_missing(folder: Path) -> None:
    (folder / "dataset.json").unlink()


def edit_config(folder: Path, **changes: Any) -> None:
    values = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**values, **changes}))


def edit_log(folder: Path, **changes: Any) -> None:
    with np.load(folder / "actions.npz") as log:
        table = {name: log[name] for name in log.files}
    np.savez_compressed(folder / "actions.npz", allow_pickle=False, **{**table, **changes})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_version, "format version 2; this Reverie reads version 1"),
        (damage_keys, "unknown keys ['colour']"),
        (damage_config, "is not JSON"),
        (damage_log, "damaged or cut short"),
        (damage_columns, "cut short: column 'keys' has 3 actions"),
        (damage_count, "holds 5 episodes; dataset.json says 6"),
        (damage_missing_log, "actions.npz is missing"),
        (damage_missing, "is not a data set"),
    ],
)
def test_damaged_data_sets_say_what_is_wrong(tmp_path: Path, damage: Any, message: str) -> None:
    record(TINY, tmp_path, **SMALL)
    damage(tmp_path)
    with pytest.raises(ReverieError) as caught:
        Dataset.load(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
