"""A data set on disk: `dataset.json` (what it is), `actions.npz` (the log), `README.md` (its card).

An episode is a world seed and the actions that were played in it. Action t leads from frame t to
frame t + 1, so an episode of T actions has T + 1 frames. No picture is stored, only a fingerprint
of the first and the last frame, to notice an environment whose code has changed since.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverie.core import ReverieError
from reverie.data.actions import ActionFormat, Columns, Vectors

FORMAT_VERSION = 1
SPLITS = ("train", "validation", "test")
CONFIG_FILE, LOG_FILE, CARD_FILE = "dataset.json", "actions.npz", "README.md"

_NUM_BUCKETS = 20
_BUCKETS = {"validation": range(18, 19), "test": range(19, 20), "train": range(18)}


def split_of(seed: int) -> str:
    """The split that a world seed belongs to, in every data set ever recorded: so two of them
    together never leak.
    """
    bucket = seed % _NUM_BUCKETS
    return next(split for split, buckets in _BUCKETS.items() if bucket in buckets)


def world_seed(base_seed: int, split: str, number: int) -> int:
    """World seed of a data set's episode `number` of `split`: 31 bits, spread evenly, and of that
    split by `split_of`.
    """
    draw = np.random.SeedSequence([base_seed, SPLITS.index(split), number]).generate_state(2)
    buckets = _BUCKETS[split]
    top = int(draw[0]) % (2**31 // _NUM_BUCKETS)
    return top * _NUM_BUCKETS + buckets[int(draw[1]) % len(buckets)]


@dataclass(frozen=True, slots=True)
class Episode:
    """One recorded play of one world.

    seed: given to `env.reset`. columns: the packed actions of T frames (`ActionFormat.pack`).
    split, number: which episode of which split. options: given to `env.reset`. fingerprints: uint8
        [2, k], first and last frame (`environment.fingerprint`).
    """

    seed: int
    columns: Columns
    split: str
    number: int
    fingerprints: NDArray[np.uint8]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_actions(self) -> int:
        return len(next(iter(self.columns.values())))

    @property
    def num_frames(self) -> int:
        return self.num_actions + 1


@dataclass(frozen=True, slots=True)
class DatasetConfig:
    """What a data set says of itself (`dataset.json`).

    env_id, env_kwargs: for `gymnasium.make`. actions: how the log is read. fps, height, width: of
        the frames as rendered.
    seed: the base seed; policy, policy_mix: who played, and the share of time of each part.
        episode_actions: longest episode.
    code: hash of the environment's source when recorded. reset_options: for `env.reset`; of a list,
        each episode draws one.
    """

    env_id: str
    env_kwargs: Mapping[str, Any]
    actions: ActionFormat
    fps: float
    height: int
    width: int
    seed: int
    policy: str
    policy_mix: Mapping[str, float]
    episode_actions: int
    code: str
    reset_options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {"format_version": FORMAT_VERSION, **values, "actions": self.actions.to_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DatasetConfig:
        """Raises ReverieError on another format version and on missing or unknown keys."""
        version = values.get("format_version")
        if version != FORMAT_VERSION:
            raise ReverieError(
                f"data set has format version {version!r}; this Reverie reads version"
                f" {FORMAT_VERSION}: record it again"
            )
        known = set(cls.__dataclass_fields__)
        given = set(values) - {"format_version", "totals", "split_by"}
        if given != known:
            raise ReverieError(
                f"{CONFIG_FILE} has unknown keys {sorted(given - known)} and lacks"
                f" {sorted(known - given)}; expected {sorted(known)}"
            )
        fields = {name: values[name] for name in known}
        return cls(**{**fields, "actions": ActionFormat.from_json(values["actions"])})


@dataclass(frozen=True, slots=True)
class Dataset:
    """A recorded data set: its config and all its episodes, in memory (a few bytes a frame).

    has_wishes: False for the same play as if nobody had wished for anything.
    """

    path: Path
    config: DatasetConfig
    episodes: tuple[Episode, ...]
    has_wishes: bool = True

    @classmethod
    def load(cls, path: str | Path) -> Dataset:
        """Read a data set folder. ReverieError where there is none, it is damaged or of another
        version.
        """
        path = Path(path)
        try:
            values = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ReverieError(
                f"{path} is not a data set: it has no {CONFIG_FILE}; make one with `reverie record`"
            ) from None
        except json.JSONDecodeError as error:
            raise ReverieError(
                f"{path / CONFIG_FILE} is not JSON ({error}); record the data set again"
            ) from None
        config = DatasetConfig.from_json(values)
        episodes = _read_log(path / LOG_FILE, config)
        expected = sum(total["episodes"] for total in values["totals"].values())
        if len(episodes) < expected:
            raise ReverieError(
                f"{path / LOG_FILE} holds {len(episodes)} episodes; {CONFIG_FILE} says {expected}:"
                " copy it again, or record again with overwrite"
            )
        return cls(path, config, episodes)

    def as_usual(self) -> Dataset:
        """The same play as if nobody had wished for anything; itself where nobody could."""
        space = self.config.actions.space
        return replace(self, has_wishes=False) if space and space.attributes else self

    def split(self, split: str) -> tuple[Episode, ...]:
        """Episodes of "train", "validation" or "test", in the order of their numbers."""
        if split not in SPLITS:
            raise ReverieError(f"split {split!r} is unknown; expected one of {list(SPLITS)}")
        return tuple(episode for episode in self.episodes if episode.split == split)

    def actions(self, episode: Episode) -> Vectors:
        """The actions of an episode as the environment got them, float32 [T, A]; row t leads from
        frame t to t + 1.
        """
        vectors, space = self.config.actions.unpack(episode.columns), self.config.actions.space
        if space and not self.has_wishes:
            vectors[:, space.attribute_columns] = space.encode_attributes({})
        return vectors

    def totals(self) -> dict[str, dict[str, int]]:
        return {
            split: {
                "episodes": len(self.split(split)),
                "frames": sum(episode.num_frames for episode in self.split(split)),
            }
            for split in SPLITS
        }

    def save(self) -> None:
        """Write the folder so that a reader, or a crash, at any moment finds a whole data set (the
        log first).
        """
        make_folder(self.path)
        write_log(self.path / LOG_FILE, self.episodes, self.config.actions)
        values = {
            **self.config.to_json(),
            "split_by": f"world seed mod {_NUM_BUCKETS}: 0-17 train, 18 validation, 19 test",
            "totals": self.totals(),
        }
        replace_text(self.path / CONFIG_FILE, json.dumps(values, indent=2) + "\n")


def make_folder(path: Path) -> None:
    """Create a folder that can be written to, or raise ReverieError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ReverieError(
            f"cannot write to {path} ({error.strerror}); choose another folder with --out"
        ) from None


def replace_text(path: Path, text: str) -> None:
    """Write a text file in one step: readers see the old or the new one, never half."""
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_log(path: Path, episodes: Sequence[Episode], actions: ActionFormat) -> None:
    """All episodes as one npz: a table with a row per episode, and the action columns end to end.
    Replaced in one step.
    """
    table: dict[str, NDArray[Any]] = {
        "seed": np.array([episode.seed for episode in episodes], np.int64),
        "split": np.array([SPLITS.index(episode.split) for episode in episodes], np.uint8),
        "number": np.array([episode.number for episode in episodes], np.int64),
        "num_actions": np.array([episode.num_actions for episode in episodes], np.int64),
        "options": np.array([json.dumps(dict(episode.options)) for episode in episodes], np.str_),
        "fingerprints": np.array([episode.fingerprints for episode in episodes], np.uint8),
    }
    for name in actions.columns:
        parts = [episode.columns[name] for episode in episodes]
        table[f"action_{name}"] = np.concatenate(parts) if parts else np.zeros(0, np.uint8)
    temporary = path.with_name(path.name + ".partial")
    with temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **table)
    temporary.replace(path)


def _read_log(path: Path, config: DatasetConfig) -> tuple[Episode, ...]:
    try:
        # Opened here: numpy leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as log:
            table = {name: log[name] for name in log.files}
        ends = np.cumsum(table["num_actions"])
        columns = {name: table[f"action_{name}"] for name in config.actions.columns}
    except FileNotFoundError:
        raise ReverieError(
            f"{path} is missing; the data set is not whole: record it again"
        ) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError) as error:
        raise ReverieError(
            f"{path} is damaged or cut short ({error}); copy or record it again"
        ) from None
    num_actions = int(ends[-1]) if len(ends) else 0
    for name, column in columns.items():
        if len(column) != num_actions:
            raise ReverieError(
                f"{path} is cut short: column {name!r} has {len(column)} actions, its episodes"
                f" {num_actions}; copy or record it again"
            )
    return tuple(
        Episode(
            seed=int(table["seed"][i]),
            columns={
                name: column[end - table["num_actions"][i] : end]
                for name, column in columns.items()
            },
            split=SPLITS[table["split"][i]],
            number=int(table["number"][i]),
            fingerprints=table["fingerprints"][i],
            options=json.loads(str(table["options"][i])),
        )
        for i, end in enumerate(ends)
    )
