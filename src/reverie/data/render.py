"""Render a data set: play its action log again and keep the pictures in one memory-mapped array.

    rendered = render(Dataset.load("data/meadow"), "train", num_frames=120_000)
    rendered.frames          uint8 [N, h, w, 3], a memory map
    rendered.actions         float32 [N, A]; row i led INTO frame i
    rendered.boundaries      int64 [e + 1], rows of the episodes
    rendered.segments(16)    -> Segments

The cache folder of a split holds frames.npy (sparse: episodes that are not rendered take no disk),
actions.npy, boundaries.npy and rendered.json, which says how many episodes are finished and is
replaced in one step after their pictures are on disk. A stopped render goes on where it was, a
larger one keeps what it has, and a trainer may open it while it grows.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from reverie.core import ActionSpace, Pixels, ReverieError
from reverie.data.environment import Simulator, code_hash, fingerprint, same_scene
from reverie.data.episode import Dataset, Episode, make_folder, replace_text
from reverie.data.parallel import map_in_order, progress_bar
from reverie.data.segments import Segments

STATE_FILE = "rendered.json"
FRAMES_FOLDER = "frames"
"""Inside a data set's folder, where training and evaluation keep its frames."""

Job = tuple[int, int, int]
"""Index of an episode in its split, its first row, and the row after its last."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """The finished episodes of a rendered split. frames: uint8 [N, h, w, 3], actions: float32 [N,
    A], boundaries: int64 [e + 1].
    """

    path: Path
    frames: NDArray[np.uint8]
    actions: NDArray[np.float32]
    boundaries: NDArray[np.int64]

    @classmethod
    def load(cls, path: str | Path) -> Rendered:
        """Open a folder that `render` filled, or is filling. ReverieError where there is none."""
        path = Path(path)
        state = _read_state(path)
        if state is None:
            raise ReverieError(f"{path} holds no rendered frames; call reverie.data.render first")
        boundaries = np.load(path / "boundaries.npy")[: state["num_episodes"] + 1]
        rows = int(boundaries[-1])
        frames = np.load(path / "frames.npy", mmap_mode="r")[:rows]
        actions = np.load(path / "actions.npy")[:rows]
        return cls(path, frames, actions, boundaries)

    @property
    def num_episodes(self) -> int:
        return len(self.boundaries) - 1

    def pitches(self, space: ActionSpace) -> NDArray[np.float64]:
        """Where the camera looks in every frame: degrees down from an episode's first, [N]."""
        pitches = np.zeros(len(self.actions))
        firsts = set(self.boundaries.tolist())
        for row in range(len(pitches)):
            before = 0.0 if row in firsts else pitches[row - 1]
            pitches[row] = space.pitch_after(before, self.actions[row])
        return pitches

    def first(self, num_episodes: int) -> Rendered:
        """Only the first episodes."""
        boundaries = self.boundaries[: num_episodes + 1]
        rows = int(boundaries[-1])
        return Rendered(self.path, self.frames[:rows], self.actions[:rows], boundaries)

    def segments(self, length: int) -> Segments:
        """Segments of frames and actions; for latents make a `Segments` of your own over the same
        boundaries.
        """
        arrays = {"frames": self.frames, "actions": self.actions}
        return Segments(arrays, self.boundaries, length)


def render(
    dataset: Dataset,
    split: str = "train",
    *,
    num_frames: int | None = None,
    cache: str | Path | None = None,
    processes: int | None = None,
    progress: bool = True,
) -> Rendered:
    """Render a split, or its first episodes until `num_frames` are reached, and open it. Does only
    what is still missing.

    cache: folder to fill, `<cache>/<split>`, or `<split>_as_usual` (`Dataset.as_usual`); default is
    the user's cache folder, by the data set's content. ReverieError where an episode no longer
    looks as it did when recorded, or the disk has no room.
    """
    episodes = dataset.split(split)
    if not episodes:
        raise ReverieError(f"{dataset.path} has no {split} episodes; record some")
    boundaries = np.cumsum([0, *(episode.num_frames for episode in episodes)], dtype=np.int64)
    wanted = len(episodes)
    if num_frames is not None:
        wanted = min(wanted, int(np.searchsorted(boundaries, num_frames)))
    folder = (Path(cache) if cache else default_cache(dataset)) / split
    if not dataset.has_wishes:
        folder = folder.with_name(f"{split}_as_usual")
    finished = _prepare(folder, dataset, episodes, boundaries)
    _check_room(folder, dataset, int(boundaries[max(wanted, finished)] - boundaries[finished]))
    jobs = [
        (i, int(boundaries[i]), int(boundaries[i + 1]))
        for i in range(finished, max(wanted, finished))
    ]
    total = sum(end - first for _, first, end in jobs)
    arguments = (dataset, split, str(folder))
    with progress_bar(progress and bool(jobs), f"rendering {folder.name}", total) as advance:
        for i, rows in map_in_order(_open_renderer, arguments, jobs, processes):
            _write_state(folder, dataset, i + 1)
            advance(rows)
    return Rendered.load(folder)


def play_back(simulator: Simulator, dataset: Dataset, episode: Episode) -> Iterator[Pixels]:
    """Frames of one episode, uint8 [h, w, 3], num_actions + 1 of them.

    ReverieError where the first or the last does not look as it did when recorded.
    """
    simulator.reset(episode.seed, episode.options)
    pixels = simulator.picture()
    _check(simulator, dataset, episode, pixels, 0)
    yield pixels
    for vector in dataset.actions(episode):
        simulator.step(vector)
        pixels = simulator.picture()
        yield pixels
    if dataset.has_wishes:
        _check(simulator, dataset, episode, pixels, 1)


def open_simulator(dataset: Dataset) -> Simulator:
    """The environment of a data set, drawing at the data set's size."""
    config = dataset.config
    size = (config.height, config.width)
    return Simulator(config.env_id, config.env_kwargs, size, config.actions.mapping)


def led_into(dataset: Dataset, episode: Episode) -> NDArray[np.float32]:
    """The action that led into each frame of an episode, float32 [T + 1, A]; the first frame has
    the idle action.
    """
    return np.concatenate([dataset.config.actions.idle()[None], dataset.actions(episode)])


def default_cache(dataset: Dataset) -> Path:
    """Where the frames of this data set lie if nobody says otherwise: by environment and content,
    not by place.
    """
    name = dataset.config.env_id.rpartition("/")[2].rpartition(":")[2]
    root = Path(platformdirs.user_cache_dir("reverie", appauthor=False))
    return root / "frames" / f"{name}-{_key(dataset.config.to_json())}"


def _open_renderer(dataset: Dataset, split: str, folder: str) -> Callable[[Job], tuple[int, int]]:
    simulator = open_simulator(dataset)
    episodes = dataset.split(split)
    frames = np.load(Path(folder) / "frames.npy", mmap_mode="r+")

    def fill(job: Job) -> tuple[int, int]:
        i, first, end = job
        for row, pixels in zip(
            range(first, end), play_back(simulator, dataset, episodes[i]), strict=True
        ):
            frames[row] = pixels
        frames.flush()
        return i, end - first

    return fill


def _prepare(
    folder: Path, dataset: Dataset, episodes: tuple[Episode, ...], boundaries: NDArray[np.int64]
) -> int:
    """Make the arrays of a split; returns how many episodes of an earlier render are still good."""
    make_folder(folder)
    logs = [_log_key(episode) for episode in episodes]
    state = _read_state(folder)
    finished = 0
    if state is not None and state["config"] == _key(dataset.config.to_json()):
        same = [mine == theirs for mine, theirs in zip(logs, state["logs"], strict=False)]
        good = same.index(False) if False in same else len(same)
        finished = min(good, state["num_episodes"])
        if logs == state["logs"]:
            return finished
    config = dataset.config
    shape = (int(boundaries[-1]), config.height, config.width, 3)
    _write_state(folder, dataset, 0, logs)
    _resize_frames(folder / "frames.npy", shape, keep=finished > 0)
    actions = [led_into(dataset, episode) for episode in episodes]
    np.save(folder / "actions.npy", np.concatenate(actions))
    np.save(folder / "boundaries.npy", boundaries)
    _write_state(folder, dataset, finished, logs)
    return finished


def _resize_frames(path: Path, shape: tuple[int, ...], keep: bool) -> None:
    """Make frames.npy of this shape, sparse; with `keep`, its first rows stay (npy headers leave
    room for more rows).
    """
    if not keep or not path.exists():
        open_memmap(path, "w+", np.uint8, shape)
        return
    with path.open("r+b") as file:
        major, _ = np.lib.format.read_magic(file)
        assert major == 1, "open_memmap wrote another header version than expected"
        np.lib.format.read_array_header_1_0(file)
        header_bytes = file.tell()
        file.seek(0)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        assert file.tell() == header_bytes, "the npy header has grown"
        file.truncate(header_bytes + int(np.prod(shape)))


def _check_room(folder: Path, dataset: Dataset, rows: int) -> None:
    needed = rows * dataset.config.height * dataset.config.width * 3
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ReverieError(
            f"{folder} needs {needed / 1e9:.1f} GB for {rows} frames, {free / 1e9:.1f} GB are free;"
            " render fewer or elsewhere"
        )


def _check(
    simulator: Simulator, dataset: Dataset, episode: Episode, pixels: Pixels, which: int
) -> None:
    if same_scene(fingerprint(pixels), episode.fingerprints[which]):
        return
    now, then = code_hash(simulator.env), dataset.config.code
    cause = "its code has not changed, so it is not deterministic"
    if now != then:
        cause = f"its code has changed since ({then} then, {now} now)"
    raise ReverieError(
        f"{dataset.config.env_id} no longer draws the {('first', 'last')[which]} frame of"
        f" {episode.split} episode {episode.number} as recorded: {cause}; record the data set again"
    )


def _log_key(episode: Episode) -> str:
    digest = hashlib.sha256(str((episode.seed, sorted(episode.columns))).encode())
    for name in sorted(episode.columns):
        digest.update(np.ascontiguousarray(episode.columns[name]).tobytes())
    digest.update(episode.fingerprints.tobytes())
    return digest.hexdigest()[:12]


def _key(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _read_state(folder: Path) -> dict[str, Any] | None:
    try:
        return json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except json.JSONDecodeError:
        return None


def _write_state(
    folder: Path, dataset: Dataset, num_episodes: int, logs: list[str] | None = None
) -> None:
    if logs is None:
        state = _read_state(folder)
        logs = state["logs"] if state else []
    values = {
        "config": _key(dataset.config.to_json()),
        "num_episodes": num_episodes,
        "logs": logs,
    }
    replace_text(folder / STATE_FILE, json.dumps(values) + "\n")
