"""Is a world good? What a player would notice.

Each measure has two halves: *observe* plays from some moments and notes what happened, one record
each; *figures* says what the records of all moments come to. Moments can so be shared out among
processes, and what was observed before a cut is kept. What cannot be judged (no simulator, nothing
that moves) leaves no record, and a figure without records is left out, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverie.core import Action, ActionSpace
from reverie.data.render import Rendered
from reverie.model.autoencoder import Autoencoder
from reverie.train.autoencoder import decode_frames, encode_frames
from reverie.train.motion import motion, speed_along
from reverie.train.players import Actions, Clip, Frames, Player, clips_at
from reverie.train.probe import Probe
from reverie.train.sheets import write_sheet

Record = dict[str, Any]
Figures = dict[str, float]

SIDE_BY_SIDE = 4
"""Sessions that play together."""
MOVING_MSE = 30.0
"""Pictures count as different where they differ by more than this (mean square of 0..255)."""
TURN_DEGREES = 4.0
HELD_FRAMES = 12
TURNS = {
    "right": (TURN_DEGREES, 0.0),
    "left": (-TURN_DEGREES, 0.0),
    "down": (0.0, TURN_DEGREES),
    "up": (0.0, -TURN_DEGREES),
}
WAYS = ("forward", "back", "left", "right")
JUMP_FRAMES = 5
"""Of a jump: those that go up."""
QUARTER = 0.25
"""Of what the simulator does: what a world must do at least to have done it."""
HALF = 0.5
"""What the probe must read of the simulator's own turn to judge another: a world's readings lie
around the simulator's, so a bound that both share would fail those that fall just below it.
"""
EDITS = {
    "breaks": ("break", [Action({"break"})] * HELD_FRAMES),
    "places": ("use", [Action({"use"})] * 2 + [Action()] * (HELD_FRAMES - 2)),
}
EDIT_LEVELS = 8.0
"""Mean colours of squares that differ by more than this have changed."""
STILL_FRAMES = 100
PROMPT_FRAMES = 40
EXCURSIONS = {
    # Once around in four seconds; a quarter turn away, half a second of something else, and back.
    "circle": [Action(mouse=(4.5, 0.0))] * 80,
    "away": [Action(mouse=(6.0, 0.0))] * 15 + [Action()] * 10 + [Action(mouse=(-6.0, 0.0))] * 15,
}


@dataclass(frozen=True)
class Setting:
    """What worlds are measured with. real: statistics of real pictures. context: frames that a
    session remembers at first.
    """

    player: Player
    simulator: Player | None
    probe: Probe | None
    autoencoder: Autoencoder
    test: Rendered
    real: Figures
    space: ActionSpace
    context: int
    fps: int


# -- the picture ----------------------------------------------------------------------------------


def observe_reconstruction(setting: Setting, clips: Sequence[Clip]) -> list[Record]:
    """The last frame of each clip through the world's encoder and decoder."""
    frames = np.concatenate([clip.last for clip in clips])
    latents = encode_frames(setting.autoencoder, frames)
    rebuilt = decode_frames(setting.autoencoder, latents)
    return [{"error": mean_square(*pair)} for pair in zip(frames, rebuilt, strict=True)]


def reconstruction_figures(records: Sequence[Record]) -> Figures:
    """PSNR of all frames at once: one mean squared error."""
    return {"reconstruction_psnr": decibels(mean(records, "error"))}


def observe_next_frame(setting: Setting, clips: Sequence[Clip]) -> list[Record]:
    """One frame after a true past, where the picture moves: its error, and that of the last."""
    moving = [c for c in clips if mean_square(c.frames[c.context], c.last[0]) >= MOVING_MSE]
    asked = [clip.actions[clip.context : clip.context + 1] for clip in moving]
    return [
        {
            "error": mean_square(clip.frames[clip.context], frames[0]),
            "last": mean_square(clip.frames[clip.context], clip.last[0]),
        }
        for clip, frames in zip(moving, play_all(setting.player, moving, asked), strict=True)
    ]


def next_frame_figures(records: Sequence[Record]) -> Figures:
    """PSNR of all frames at once, and its margin over repeating the last frame."""
    level = decibels(mean(records, "error"))
    margin = round(level - decibels(mean(records, "last")), 2)
    return {"next_frame_psnr": level, "next_frame_margin": margin}


def observe_flicker(setting: Setting, clips: Sequence[Clip]) -> list[Record]:
    """Stand still: grey levels by which frames differ from the one before."""
    asked = [held(setting.space, Action(), clip, STILL_FRAMES) for clip in clips]
    energies = [
        [float(np.abs(np.diff(f.astype(np.float32), axis=0)).mean()) for f in frames]
        for frames in _of_both(setting, clips, asked)
    ]
    return [{"levels": levels, "real": real} for levels, real in zip(*energies, strict=True)]


def flicker_figures(records: Sequence[Record]) -> Figures:
    """Against the simulator's own; one level, which nobody sees, is the least that counts."""
    levels, real = mean(records, "levels"), mean(records, "real")
    ratio = round(max(levels, 1.0) / max(real, 1.0), 3)
    return {"flicker_levels": round(levels, 2), "flicker_ratio": ratio}


# -- obedience ------------------------------------------------------------------------------------


def observe_turns(setting: Setting, clips: Sequence[Clip]) -> list[Record]:
    """Turn each way from every clip; what does the probe read off? Judged where it reads the
    simulator's own turn right, and at least half of it: not at the end of looking up, not before a
    blank sky or a wall without texture.
    """
    probe = setting.probe
    assert probe is not None
    records = []
    for way, mouse in TURNS.items():
        asked = [held(setting.space, Action(mouse=mouse), clip) for clip in clips]
        real = [np.array(mouse, np.float32) * HELD_FRAMES for _ in clips]
        if setting.simulator:
            truths = play_all(setting.simulator, clips, asked)
            real = [read_turn(probe, *pair) for pair in zip(clips, truths, strict=True)]
        drawn = play_all(setting.player, clips, asked)
        for clip, expected, frames in zip(clips, real, drawn, strict=True):
            record: Record = {"way": way, "judged": turned_right(expected, mouse, HALF)}
            if record["judged"]:
                turn = read_turn(probe, clip, frames)
                record["right"] = turned_right(turn, mouse)
                record["ratio"] = turn_along(turn, mouse) / turn_along(expected, mouse)
            records.append(record)
    return records


def turn_figures(records: Sequence[Record]) -> Figures:
    """The share of each way, and the angle over the simulator's: the median of each way, and of
    those the median, and the furthest from one. Of all ways only where each was judged.
    """
    judged = [record for record in records if record["judged"]]
    scores = {f"turns_{way}": share for way, share in _shares(judged, "way").items()}
    figures = {**scores, "turns_judged": round(len(judged) / len(records), 4)}
    ratios = [
        float(np.median([record["ratio"] for record in judged if record["way"] == way]))
        for way in TURNS
        if f"turns_{way}" in scores
    ]
    if len(ratios) == len(TURNS):
        figures["turns_obeyed"] = min(scores.values())
        figures["turn_angle_ratio"] = round(float(np.median(ratios)), 3)
        figures["turn_angle_error"] = round(max(abs(ratio - 1) for ratio in ratios), 3)
    return figures


def observe_walking(setting: Setting, clips: Sequence[Clip]) -> list[Record]:
    """Walk every way and jump from every clip: does the picture move as the simulator's does?
    Right, as for turns, is a quarter of its speed along its motion, and no other way's motion
    nearer. Judged where the simulator is not blocked.
    """
    space, simulator = setting.space, setting.simulator
    assert simulator is not None
    ways = [key for key in (*WAYS, "jump") if key in space.keys]
    records = []
    for clip in clips:
        asked = [held(space, Action(keys), clip) for keys in ([], *([way] for way in ways))]
        still, *truths = play_all(simulator, [clip] * len(asked), asked)
        drawn = play_all(setting.player, [clip] * len(ways), asked[1:])
        for i, way in enumerate(ways):
            length = JUMP_FRAMES if way == "jump" else HELD_FRAMES
            moves = {
                other: motion(np.concatenate([clip.last, frames[:length]]))
                for other, frames in zip(ways, truths, strict=True)
                if mean_square(still[length - 1], frames[length - 1]) >= MOVING_MSE
            }
            record: Record = {"way": way, "judged": way in moves}
            if record["judged"]:
                moved = motion(np.concatenate([clip.last, drawn[i][:length]]))
                apart = {other: np.square(moved - move).sum() for other, move in moves.items()}
                record["speed"] = speed_along(moved, moves[way])
                nearest = min(apart, key=lambda other: apart[other])
                record["right"] = nearest == way and record["speed"] > QUARTER
            records.append(record)
    return records


def walking_figures(records: Sequence[Record]) -> Figures:
    """The speed is that of walking, the jump's is not in it."""
    judged = [record for record in records if record["judged"]]
    scores = {
        "jumps" if way == "jump" else f"walks_{way}": share
        for way, share in _shares(judged, "way").items()
    }
    figures = {**scores, "walks_judged": round(len(judged) / len(records), 4)}
    speeds = [record["speed"] for record in judged if record["way"] != "jump"]
    if speeds:
        figures["walk_speed_ratio"] = round(float(np.median(speeds)), 3)
    if scores:
        figures["keys_obeyed"] = min(scores.values())
    return figures


def observe_edits(setting: Setting, clips: Sequence[Clip], name: str) -> list[Record]:
    """Break or place at moments where someone did: does what changes in the simulator, against
    doing nothing, change in the same way? Right is a quarter of the change along it, in the
    mean colours of squares of 8 pixels wherever anything changes.
    """
    assert setting.simulator is not None
    acted = [script(setting.space, EDITS[name][1], clip) for clip in clips]
    idle = [held(setting.space, Action(), clip) for clip in clips]
    changes = []
    for who in (setting.simulator, setting.player):
        pairs = zip(play_all(who, clips, acted), play_all(who, clips, idle), strict=True)
        changes.append([_squares(done[-1]) - _squares(left[-1]) for done, left in pairs])
    records = []
    for expected, found in zip(*changes, strict=True):
        where = np.abs(expected).max(-1) > EDIT_LEVELS
        if where.any():
            wanted, seen = expected[where], found[where]
            along = float((seen * wanted).sum() / np.square(wanted).sum())
            norms = float(np.linalg.norm(wanted) / max(np.linalg.norm(seen), 1e-9))
            records.append({"way": name, "right": along > QUARTER and along * norms > 0.5})
    return records


def edit_figures(records: Sequence[Record]) -> Figures:
    """The share that is right, and of how many."""
    shares = _shares(records, "way")
    counts = {f"{way}_judged": sum(r["way"] == way for r in records) for way in shares}
    return {**shares, **counts}


def edit_moments(setting: Setting, name: str, count: int) -> list[Clip]:
    """Held-out moments just before the key of an edit is pressed, evenly spread; at most
    `count`.
    """
    test, column = setting.test, setting.space.keys.index(EDITS[name][0])
    pressed = test.actions[:, column] > 0
    rows = np.flatnonzero(pressed[1:] & ~pressed[:-1]) + 1
    episodes = np.searchsorted(test.boundaries, rows, side="right") - 1
    rows = rows[rows - setting.context >= test.boundaries[episodes]]
    if len(rows) > count:
        rows = rows[np.linspace(0, len(rows) - 1, count).astype(int)]
    return clips_at(test, setting.space, setting.context, rows - setting.context)


# -- prompts --------------------------------------------------------------------------------------


def observe_prompts(setting: Setting, clips: Sequence[Clip]) -> list[Record]:
    """Stand still and wish for every value of every attribute: what does the picture look like two
    seconds later? Right: like the simulator's with that value, and no other. Kept: like this
    place in the simulator, and none of the clips' observed with it, if there are any. Judged where
    the wish changes the simulator's picture.
    """
    assert setting.simulator is not None
    records = []
    for name, values in setting.space.attributes.items():
        seen: dict[str, list[NDArray[np.float32]]] = {}
        truths: dict[str, list[Frames]] = {}
        for value in values:
            wish = Action(attributes={name: value})
            asked = [held(setting.space, wish, clip, PROMPT_FRAMES) for clip in clips]
            drawn, truths[value] = _of_both(setting, clips, asked)
            seen[value] = [_squares(frames[-1]) for frames in drawn]
        for i, clip in enumerate(clips):
            ends = {value: frames[i][-1] for value, frames in truths.items()}
            now = setting.space.decode(clip.actions[clip.context - 1]).attributes[name]
            for value in values:
                if mean_square(ends[value], ends[now]) < MOVING_MSE:
                    continue
                found = seen[value][i]
                apart = {v: np.square(found - _squares(end)).sum() for v, end in ends.items()}
                places = [np.square(found - _squares(f[-1])).sum() for f in truths[value]]
                nearest = min(apart, key=lambda v: apart[v])
                kept = int(np.argmin(places)) == i if len(clips) > 1 else None
                # Summer and spring look the same where nothing grows.
                right = mean_square(ends[nearest], ends[value]) < MOVING_MSE
                records.append({"way": name, "right": right, "kept": kept})
    return records


def prompt_figures(records: Sequence[Record]) -> Figures:
    """The share of wishes that came true, by attribute, and of those that kept the place where
    there was another to take it for.
    """
    scores = {f"prompts_{name}": share for name, share in _shares(records, "way").items()}
    figures = {**scores, "prompts_obeyed": min(scores.values())}
    if told := [record for record in records if record["kept"] is not None]:
        figures["prompts_keep_place"] = round(mean(told, "kept"), 4)
    return figures


# -- memory ---------------------------------------------------------------------------------------


def observe_memory(setting: Setting, clips: Sequence[Clip]) -> list[Record]:
    """Turn once around, and look away and back: PSNR of the view to what is there, over the mean
    PSNR of what the other clips' sessions show after the same. Judged where the simulator comes
    back to the view it left: who falls or swims does not.
    """
    records = []
    for name, actions in EXCURSIONS.items():
        asked = [script(setting.space, actions, clip) for clip in clips]
        drawn, truths = _of_both(setting, clips, asked)
        ends = [frames[-1] for frames in truths]
        pairs = zip(clips, ends, strict=True)
        judged = [mean_square(end, clip.last[0]) < MOVING_MSE for clip, end in pairs]
        for i in np.flatnonzero(judged).tolist():
            levels = [decibels(mean_square(ends[i], frames[-1])) for frames in drawn]
            others = levels[:i] + levels[i + 1 :]
            # Who never looked away remembered nothing.
            away = max(mean_square(clips[i].last[0], frame) for frame in drawn[i][::5])
            if others:
                margin = levels[i] - float(np.mean(others)) if away >= MOVING_MSE else 0.0
                records.append({"way": name, "margin": margin})
    return records


def memory_figures(records: Sequence[Record]) -> Figures:
    """The mean margin of each excursion, in dB."""
    figures = {
        f"memory_{way}": round(mean([r for r in records if r["way"] == way], "margin"), 2)
        for way in EXCURSIONS
        if any(r["way"] == way for r in records)
    }
    return {**figures, "memory_margin": min(figures.values())} if figures else {}


# -- pictures to look at --------------------------------------------------------------------------


def draw_obedience(setting: Setting, clips: Sequence[Clip], file: Path) -> None:
    """A contact sheet of turning each way and walking forward: the simulator above, generated
    below.
    """
    actions = [*(Action(mouse=mouse) for mouse in TURNS.values()), Action({"forward"})]
    rows = []
    for clip in clips:
        asked = [held(setting.space, action, clip) for action in actions]
        drawn, truths = _of_both(setting, [clip] * len(asked), asked)
        for pair in zip(truths, drawn, strict=True):
            rows += [np.concatenate([clip.last, frames[1::2]]) for frames in pair]
    write_sheet(file, rows)


def draw_rollouts(setting: Setting, clips: Sequence[Clip], file: Path) -> None:
    """A contact sheet: truth above, generated by the same actions below. Clips with 64 frames after
    their context.
    """
    shown = [0, 2, 5, 9, 14, 20, 30, 45, 63]
    after = slice(setting.context, setting.context + 64)
    drawn = play_all(setting.player, clips, [clip.actions[after] for clip in clips])
    rows = [
        frames[shown]
        for clip, guess in zip(clips, drawn, strict=True)
        for frames in (clip.frames[after], guess)
    ]
    write_sheet(file, rows)


# -- parts ----------------------------------------------------------------------------------------


def play_all(player: Player, clips: Sequence[Clip], actions: Sequence[Actions]) -> list[Frames]:
    """Every clip with its actions, SIDE_BY_SIDE at a time: uint8 [t, h, w, 3] each."""
    drawn: list[Frames] = []
    for first in range(0, len(clips), SIDE_BY_SIDE):
        part = slice(first, first + SIDE_BY_SIDE)
        drawn += list(np.stack(list(player.stream(clips[part], actions[part])), 1))
    return drawn


def _of_both(
    setting: Setting, clips: Sequence[Clip], asked: Sequence[Actions]
) -> tuple[list[Frames], list[Frames]]:
    """What the player draws, and the simulator; a picture that stands still where there is none."""
    drawn = play_all(setting.player, clips, asked)
    if setting.simulator:
        return drawn, play_all(setting.simulator, clips, asked)
    return drawn, [clip.last.repeat(len(a), 0) for clip, a in zip(clips, asked, strict=True)]


def held(space: ActionSpace, action: Action, clip: Clip, num_frames: int = HELD_FRAMES) -> Actions:
    """The same action for some frames, with the slot and the attributes of the clip."""
    return script(space, [action] * num_frames, clip)


def script(space: ActionSpace, actions: Sequence[Action], clip: Clip) -> Actions:
    """Actions one after another, with the clip's slot, and its attributes where they name none."""
    now = space.decode(clip.actions[clip.context - 1])
    said = (Action(a.keys, a.mouse, now.slot, {**now.attributes, **a.attributes}) for a in actions)
    return np.stack([space.encode(action) for action in said])


def _squares(frame: NDArray[np.uint8], side: int = 8) -> NDArray[np.float32]:
    """Mean colours of squares, [h // side, w // side, 3]."""
    rows, columns = frame.shape[0] // side, frame.shape[1] // side
    inside = frame[: rows * side, : columns * side].astype(np.float32)
    return inside.reshape(rows, side, columns, side, 3).mean((1, 3))


def read_turn(probe: Probe, clip: Clip, frames: Frames) -> NDArray[np.float32]:
    """Degrees right and down, in all, that the probe reads between frames that follow the clip and
    each other: [2].
    """
    return probe.read(np.concatenate([clip.last, frames])).camera.sum(0)


def turn_along(turn: NDArray[np.float32], mouse: tuple[float, float]) -> float:
    """The turn's degrees along the axis that was asked for, in the direction that was asked."""
    axis = 0 if mouse[0] else 1
    return float(turn[axis] * np.sign(mouse[axis]))


def turned_right(
    turn: NDArray[np.float32], mouse: tuple[float, float], share: float = QUARTER
) -> bool:
    """The camera turned along the axis that was asked for, the way that was asked, by at least this
    share of it.
    """
    along = turn_along(turn, mouse)
    across = abs(float(turn[1 if mouse[0] else 0]))
    return along > share * TURN_DEGREES * HELD_FRAMES and along > across


def mean_square(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Mean squared difference of pixels, 0..255 each."""
    return float(np.square(a.astype(np.float32) - b).mean())


def mean(records: Sequence[Mapping[str, float]], name: str) -> float:
    """Of one value of all records."""
    return float(np.mean([record[name] for record in records]))


def decibels(error: float) -> float:
    """PSNR of a mean squared error, at most 60: what is equal to the eye is equal."""
    return round(float(min(60.0, 10 * np.log10(255.0**2 / max(error, 1e-9)))), 2)


def _shares(records: Sequence[Record], by: str) -> Figures:
    """Of the records of each kind: the share that is right."""
    found: dict[str, list[bool]] = {}
    for record in records:
        found.setdefault(record[by], []).append(record["right"])
    return {kind: round(float(np.mean(rights)), 4) for kind, rights in found.items()}
