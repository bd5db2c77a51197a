"""Does play stay like real play, for minutes and from the first attempt? As in `measures`: observe
notes, figures say what the notes come to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reverie.codec.video import write_video
from reverie.core import ActionSpace
from reverie.model.autoencoder import Autoencoder
from reverie.train.autoencoder import encode_frames
from reverie.train.measures import QUARTER, Figures, Record, Setting, mean
from reverie.train.players import Actions, Clip, Frames, course
from reverie.train.sheets import write_sheet

WINDOW_S = 5
"""Long play is judged in parts of so many seconds."""
COLLAPSE_WINDOWS = 3
"""Parts in a row, on average: who walks into a wall sees plain colour for less."""
FEATURE_STRIDE = 4
"""Features are read off every fourth frame: those between are nearly the same."""
DRIFT_SHARES = (0.01, 0.1, 1.0)
"""Of long play: 5, 50 and 500 s of 500."""


def observe_long_play(
    setting: Setting, clips: Sequence[Clip], play_s: float, film: Path, sheet: Path
) -> list[Record]:
    """Play on from clips by what held-out players did from there on: statistics of every window,
    and features of those that drift is read off. Writes a film of the first session's first minute,
    and a sheet of ten moments of each. At most SIDE_BY_SIDE clips.
    """
    window = WINDOW_S * setting.fps
    length = max(window, round(play_s * setting.fps) // window * window)
    num_windows = length // window
    shown = np.linspace(0, length - 1, 10).astype(int).tolist()
    watched = [max(0, round(num_windows * share) - 1) for share in DRIFT_SHARES]
    actions = [course(setting.test, clip, length) for clip in clips]
    stream = setting.player.stream(clips, actions)
    records: list[Record] = [{"statistics": [], "features": []} for _ in clips]
    moments, minute = [], []
    for number in range(num_windows):
        frames = np.stack(list(islice(stream, window)), 1)
        moments += [frames[:, i - number * window] for i in shown if i // window == number]
        if number * WINDOW_S < 60:
            minute.append(frames[0])
        for record, session in zip(records, frames, strict=True):
            record["statistics"].append(picture_statistics(session))
            if number in watched:
                seen = session[::FEATURE_STRIDE]
                features = latent_features(setting.autoencoder, seen).round(4).tolist()
                record["features"] += [features] * watched.count(number)
    write_video(film, iter(np.concatenate(minute)), setting.fps)
    write_sheet(sheet, list(np.stack(moments, 1)))
    return records


def long_play_figures(
    records: Sequence[Record],
    real: Figures,
    truth: NDArray[np.float64],
    boundaries: NDArray[np.int64],
) -> Figures:
    """Sessions that become mush, noise, one colour or one picture; how the last window looks; and
    Frechet distances to real frames. truth: features [n, f] of the test split's frames, every
    FEATURE_STRIDE-th; boundaries: of its episodes in there.

    So few sessions are never distributed as all frames are: drift counts over what as many real
    windows reach in one of twenty draws.
    """
    collapsed = [collapses(record["statistics"], real) for record in records]
    late = [record["statistics"][-1] for record in records]
    early, middle, end = (
        frechet(np.concatenate([np.array(record["features"][i]) for record in records]), truth)
        for i in range(len(DRIFT_SHARES))
    )
    floor = drift_floor(truth, boundaries, len(records), len(records[0]["features"][0]))
    return {
        "collapsed": round(float(np.mean(collapsed)), 4),
        "detail_ratio_late": round(mean(late, "detail") / real["detail"], 3),
        "contrast_ratio_late": round(mean(late, "contrast") / real["contrast"], 3),
        "drift_early": round(early, 3),
        "drift_middle": round(middle, 3),
        "drift_late": round(end, 3),
        "drift_floor": round(floor, 3),
        "drift_ratio": round(end / max(early, floor), 3),
    }


def long_play_course(records: Sequence[Record], real: Figures) -> list[Figures]:
    """Statistics of each window as shares of real frames', averaged over the sessions."""
    windows = zip(*(record["statistics"] for record in records), strict=True)
    return [
        {"second": float(WINDOW_S * (i + 1))}
        | {name: round(mean(window, name) / real[name], 3) for name in real}
        for i, window in enumerate(windows)
    ]


def drift_floor(
    truth: NDArray[np.float64], boundaries: NDArray[np.int64], num_windows: int, length: int
) -> float:
    """The Frechet distance that windows of real play, as many and as long, stay below in 19 of 20
    draws.
    """
    generator = np.random.default_rng(0)
    lasts = np.maximum(boundaries[1:] - length, boundaries[:-1])
    drawn = []
    for _ in range(100):
        episodes = generator.integers(len(lasts), size=num_windows)
        firsts = generator.integers(boundaries[episodes], lasts[episodes] + 1)
        rows = np.concatenate([np.arange(row, row + length) for row in firsts]) % len(truth)
        drawn.append(frechet(truth[rows], truth))
    return float(np.percentile(drawn, 95))


def latent_features(autoencoder: Autoencoder, frames: Frames) -> NDArray[np.float64]:
    """Mean and spread of each latent channel over the picture: [n, 2 channels]."""
    parts = []
    for i in range(0, len(frames), 32):
        latents = encode_frames(autoencoder, frames[i : i + 32]).cpu().numpy().astype(np.float64)
        parts.append(np.concatenate([latents.mean(1), latents.std(1)], 1))
    return np.concatenate(parts)


def frechet(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Frechet distance of two sets of features [n, f], each taken as a Gaussian (Heusel et al.
    2017, arXiv 1706.08500, eq. 6).
    """
    spread_a, spread_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # The trace of the square root of a product of covariances is the sum of the roots of its
    # eigenvalues, which are real and not negative but for rounding.
    roots = np.sqrt(np.linalg.eigvals(spread_a @ spread_b).real.clip(0))
    apart = np.square(a.mean(0) - b.mean(0)).sum()
    return float(apart + np.trace(spread_a) + np.trace(spread_b) - 2 * roots.sum())


def observe_attempts(setting: Setting, clips: Sequence[Clip], play_s: float) -> list[Record]:
    """One session from each clip: does it pass every check of play at once? It does not collapse
    and, with a probe, the turns read off it go with those that were asked for. At most SIDE_BY_SIDE
    clips.
    """
    window = WINDOW_S * setting.fps
    length = max(window, round(play_s * setting.fps))
    actions = [course(setting.test, clip, length) for clip in clips]
    sessions = np.stack(list(setting.player.stream(clips, actions)), 1)
    records = []
    for clip, acted, frames in zip(clips, actions, sessions, strict=True):
        parts = [frames[i : i + window] for i in range(0, length - window + 1, window)]
        holds = not collapses([picture_statistics(part) for part in parts], setting.real)
        obeys = True
        if setting.probe is not None:
            camera = setting.probe.read(np.concatenate([clip.last, frames])).camera
            obeys = goes_with(camera, turns_asked(setting.space, clip, acted))
        records.append({"holds": holds, "obeys": obeys})
    return records


def attempt_figures(records: Sequence[Record]) -> Figures:
    """The share of sessions that pass."""
    passed = [record["holds"] and record["obeys"] for record in records]
    return {"first_attempt": round(float(np.mean(passed)), 4), "attempts": float(len(passed))}


def turns_asked(space: ActionSpace, clip: Clip, actions: Actions) -> NDArray[np.float64]:
    """Degrees right and down by which actions after a clip turn the camera, which stops at the
    limits of the neck: [t, 2].
    """
    pitches = [clip.pitch_deg]
    for action in (*clip.actions[: clip.context], *actions):
        pitches.append(space.pitch_after(pitches[-1], action))
    yaws = [space.decode(action).mouse[0] for action in actions]
    return np.stack([yaws, np.diff(pitches)[clip.context :]], 1)


def goes_with(camera: NDArray[np.float32], asked: NDArray[np.float64]) -> bool:
    """Turns that were read against those that were asked for, degrees [t, 2]: correlated along
    every axis that was turned, by far more than chance would have it.
    """
    turned = [(camera[:, axis], asked[:, axis]) for axis in np.flatnonzero(asked.std(0) > 0.1)]
    return all(read.std() > 1e-3 and np.corrcoef(read, a)[0, 1] > QUARTER for read, a in turned)


def picture_statistics(frames: Frames) -> Figures:
    """detail: mean absolute difference of neighbouring pixels. contrast: spread inside a picture.
    variety: spread between pictures.
    """
    some = frames[:, ::2, ::2].astype(np.float32)
    across = _difference(frames[:, :, 1:], frames[:, :, :-1])
    return {
        "detail": across + _difference(frames[:, 1:], frames[:, :-1]),
        "contrast": float(some.std((1, 2)).mean()),
        "variety": float(some[:, ::4, ::4].std(0).mean()),
    }


def _difference(one: Frames, other: Frames) -> float:
    return float((np.maximum(one, other) - np.minimum(one, other)).mean())


def collapses(statistics: Sequence[Figures], real: Figures) -> bool:
    """Whether play is collapsed for COLLAPSE_WINDOWS windows on end."""
    size = min(COLLAPSE_WINDOWS, len(statistics))
    parts = [statistics[i : i + size] for i in range(len(statistics) - size + 1)]
    return any(is_collapsed({k: mean(part, k) for k in real}, real) for part in parts)


def is_collapsed(now: Mapping[str, float], real: Mapping[str, float]) -> bool:
    """Mush, one colour, noise, or a picture that stands still although the player moves."""
    mush = now["detail"] < 0.4 * real["detail"] or now["contrast"] < 0.4 * real["contrast"]
    noise = now["detail"] > 2.5 * real["detail"]
    frozen = now["variety"] < 0.1 * real["variety"]
    return mush or noise or frozen
