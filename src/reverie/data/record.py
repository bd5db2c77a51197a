"""Record an environment: play it with a policy, keep the world seeds and the actions.

    dataset = record("reverie/Meadow-v0", "data/meadow", episodes=400, validation=20, test=20)

Every episode is a pure function of (base seed, split, number), so a recording that was stopped goes
on where it was, and one that is asked for more episodes keeps those it has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from reverie.core import ReverieError
from reverie.data import card, mapping, policies
from reverie.data.environment import Simulator, code_hash, fingerprint, open_env
from reverie.data.episode import (
    CARD_FILE,
    CONFIG_FILE,
    SPLITS,
    Dataset,
    DatasetConfig,
    Episode,
    make_folder,
    replace_text,
    world_seed,
)
from reverie.data.parallel import map_in_order, progress_bar
from reverie.data.render import open_simulator, play_back

SAVE_EVERY_S = 20.0

Job = tuple[str, int]
"""Split and number of an episode."""


def record(
    env_id: str,
    out: str | Path,
    *,
    episodes: int = 400,
    validation: int = 20,
    test: int = 20,
    episode_actions: int = 600,
    seed: int = 0,
    policy: str = "auto",
    processes: int | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    reset_options: Mapping[str, Any] | None = None,
    size: tuple[int, int] | None = None,
    actions: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Dataset:
    """Record episodes of any Gymnasium environment with pixels into the folder `out`; returns the
    whole data set.

    env_id: as for `gymnasium.make` ("module:Name-v0" imports a module first). episodes, validation,
    test: how many of each split there shall be in the end; their worlds differ. episode_actions:
    longest episode, in actions. policy: "auto" (the scripted mixture where the environment has
    first-person controls, else sticky random), a name of `policies.NAMES`, or "module:factory".
    reset_options: for `env.reset`; where a value is a list, each episode draws one of it. size:
    (height, width) of the pictures to render. actions: file that says what a player's keys do
    (`data.mapping`); not needed where each choice or switch may be a key. overwrite: forget what
    `out` holds.

    Ctrl-C saves what is finished and raises KeyboardInterrupt; the same call goes on later.
    ReverieError for what cannot be recorded, does not fit the data set already in `out`, or cannot
    be written.
    """
    wanted = {"train": episodes, "validation": validation, "test": test}
    for split, count in wanted.items():
        if count < 0:
            raise ReverieError(f"{count} {split} episodes asked for; expected 0 or more")
    if episode_actions < 1:
        raise ReverieError(f"episode_actions is {episode_actions}; expected at least 1")
    out = Path(out)
    make_folder(out)
    config = _describe(
        env_id, env_kwargs or {}, reset_options or {}, size, actions, policy, seed, episode_actions
    )
    dataset = (None if overwrite else _existing(out, config)) or Dataset(out, config, ())
    have = {(episode.split, episode.number) for episode in dataset.episodes}
    jobs = [(split, i) for split in SPLITS for i in range(wanted[split]) if (split, i) not in have]
    done = list(dataset.episodes)
    saved_s = time.monotonic()
    total = len(jobs) * episode_actions
    try:
        with progress_bar(progress, f"recording {env_id}", total) as advance:
            for episode in map_in_order(_open_recorder, (dataset.config, size), jobs, processes):
                done.append(episode)
                advance(episode.num_actions)
                if time.monotonic() - saved_s > SAVE_EVERY_S:
                    _save(dataset, done)
                    saved_s = time.monotonic()
    finally:
        dataset = _save(dataset, done)
    return dataset


def write_actions(
    env_id: str,
    path: str | Path,
    env_kwargs: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> tuple[str, ...]:
    """Write the file that says what a player's keys do in an environment, one for every choice, to
    be edited; returns the names of its keys. Raises ReverieError where there is one already.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise ReverieError(f"{path} is there already; pass --overwrite to write it anew")
    env = open_env(env_id, dict(env_kwargs or {}))
    try:
        text = mapping.template(env_id, env)
        path.write_text(text, "utf-8")
        return mapping.read(path, env.action_space).space.keys
    except OSError as error:
        raise ReverieError(f"cannot write {path}: {error.strerror}") from None
    finally:
        env.close()


def play(simulator: Simulator, config: DatasetConfig, split: str, number: int) -> Episode:
    """Play one episode of a data set: what `record` does for each."""
    seed = world_seed(config.seed, split, number)
    rng = np.random.default_rng([config.seed, SPLITS.index(split), number, 1])
    policy = policies.make(config.policy, config.actions)
    options = _draw_options(config.reset_options, rng)
    info = simulator.reset(seed, options)
    first = fingerprint(simulator.picture())
    vectors = []
    for _ in range(config.episode_actions):
        vector = config.actions.quantise(policy(rng, info))
        info, ended = simulator.step(vector)
        vectors.append(vector)
        if ended:
            break
    return Episode(
        seed=seed,
        columns=config.actions.pack(np.stack(vectors)),
        split=split,
        number=number,
        fingerprints=np.stack([first, fingerprint(simulator.picture())]),
        options=options,
    )


def _draw_options(choices: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """One episode's reset options: where a list is given, one of it."""
    return {
        name: value[int(rng.integers(len(value)))] if isinstance(value, list) else value
        for name, value in choices.items()
    }


def _open_recorder(config: DatasetConfig, size: tuple[int, int] | None) -> Callable[[Job], Episode]:
    simulator = Simulator(config.env_id, config.env_kwargs, size, config.actions.mapping)
    return lambda job: play(simulator, config, *job)


def _describe(
    env_id: str,
    env_kwargs: Mapping[str, Any],
    reset_options: Mapping[str, Any],
    size: tuple[int, int] | None,
    actions: str | Path | None,
    policy: str,
    seed: int,
    episode_actions: int,
) -> DatasetConfig:
    """Open the environment once, to fail early and to learn what the data set says of it."""
    simulator = Simulator(env_id, env_kwargs, size, actions)
    try:
        policy = policies.resolve(policy, simulator.actions)
        simulator.reset(
            world_seed(seed, "train", 0), _draw_options(reset_options, np.random.default_rng(0))
        )
        # One step too: what is compiled on first use is in its cache before processes start.
        simulator.step(simulator.actions.idle())
        height, width, _ = simulator.picture().shape
        return DatasetConfig(
            env_id=env_id,
            env_kwargs=dict(env_kwargs),
            actions=simulator.actions,
            fps=simulator.fps,
            height=height,
            width=width,
            seed=seed,
            policy=policy,
            policy_mix=policies.mix(policy),
            episode_actions=episode_actions,
            code=code_hash(simulator.env),
            reset_options=dict(reset_options),
        )
    finally:
        simulator.close()


def _existing(out: Path, config: DatasetConfig) -> Dataset | None:
    """The data set that `out` already holds. ReverieError, naming what differs, if it was recorded
    otherwise; if only the environment's source has changed, its first episode must still replay.
    """
    if not (out / CONFIG_FILE).exists():
        return None
    found = Dataset.load(out)
    mine, theirs = config.to_json(), found.config.to_json()
    differing = [name for name in mine if mine[name] != theirs[name]]
    if differing == ["code"] and found.episodes:
        for _ in play_back(open_simulator(found), found, found.episodes[0]):
            pass
    elif differing and found.episodes:
        name = differing[0]
        raise ReverieError(
            f"{out} holds a data set with {name} {theirs[name]!r}, not {mine[name]!r};"
            " choose another folder or pass overwrite"
        )
    return found if found.episodes else None


def _save(dataset: Dataset, episodes: list[Episode]) -> Dataset:
    order = sorted(episodes, key=lambda episode: (SPLITS.index(episode.split), episode.number))
    dataset = replace(dataset, episodes=tuple(order))
    dataset.save()
    replace_text(dataset.path / CARD_FILE, card.write(dataset))
    return dataset
