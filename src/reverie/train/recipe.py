"""The stages from a data set to a world, as the command line and `runs/` call them.

    record -> train autoencoder -> train denoiser -> distill -> train decoder -> train refiner
    -> export -> evaluate

A run's folder holds one folder per stage; every stage goes on from its checkpoint, and does nothing
when it is finished.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from reverie.core import MAX_KEYS, ActionSpace, ReverieError
from reverie.data.episode import Dataset
from reverie.data.render import FRAMES_FOLDER, Rendered, led_into, open_simulator, play_back, render
from reverie.model.autoencoder import Autoencoder, AutoencoderConfig
from reverie.model.denoiser import Denoiser, DenoiserConfig
from reverie.model.weights import load_networks
from reverie.train import parallel
from reverie.train.autoencoder import Wished, load_autoencoder, settings_of, train_autoencoder
from reverie.train.denoiser import Forcing, ForcingConfig, load_denoiser, train_denoiser
from reverie.train.distill import Distillation, GuidanceConfig
from reverie.train.export import export_world
from reverie.train.provenance import describe
from reverie.train.refiner import WIDTHS, train_refiner
from reverie.train.run import Run, RunConfig, load_checkpoint, save_network
from reverie.world import Start, World

STAGES = ("autoencoder", "denoiser", "decoder", "refiner")
"""decoder: goes on alone, on the latents as they are, whenever pictures should get better. refiner:
learns to use the picture before.
"""
DISTILLED = "distilled"
"""The folder of a distilled denoiser, beside those of the stages."""
VIEW_DEG = 79.0
"""How wide a first-person picture is; Meadow's 74 degrees, whose edges move faster."""


@dataclass(frozen=True)
class Size:
    """Networks that fit each other, and the picture they are thought for; they take the data's."""

    autoencoder: AutoencoderConfig
    denoiser: Mapping[str, Any]


SIZES: Mapping[str, Size] = {
    "tiny": Size(
        AutoencoderConfig(64, 32, 8, (8, 16, 16, 32), (0, 1, 1, 1), (1, 1, 1, 1)),
        {"context": 4, "width": 32, "depth": 4, "head_width": 16},
    ),
    "mini": Size(
        AutoencoderConfig(64, 64, 16, (16, 32, 64, 128), (0, 1, 1, 1), (1, 1, 1, 2)),
        {"context": 8, "width": 128, "depth": 6},
    ),
    "small": Size(AutoencoderConfig(), {"context": 16, "width": 192, "depth": 8}),
    "large": Size(
        AutoencoderConfig(320, 192, 64, (32, 64, 128, 256, 256), (0, 1, 1, 1, 1), (1, 1, 1, 1, 1)),
        {"context": 24, "width": 320, "depth": 8},
    ),
}
"""tiny: for tests and rehearsals. mini: a small 2-D game, in minutes. small: two CPU cores. large:
a GPU; like small, under 40 MB.
"""


def train_stage(
    stage: str,
    data: Path,
    out: Path,
    size: str,
    config: RunConfig,
    num_frames: int | None = None,
    begin_with: World | None = None,
) -> Run:
    """Train one stage of a run.

    num_frames: of the train split to render and use (default: all). begin_with: take its weights to
    begin with, its sizes in place of `size`, and of the stages before this one what `out` has not.
    Raises ReverieError on an unknown stage or size, pictures that do not fit the networks, or where
    the stage before is missing.
    """
    _expect_one_of("stage", stage, STAGES)
    _expect_one_of("size", size, SIZES)
    dataset, space = _open(data, config)
    networks = None
    if begin_with:
        networks = _networks_of(begin_with, space, data)
        begun_with = f"{begin_with.config.name} {begin_with.fingerprint[:8]}"
        config = replace(config, begun_with=begun_with)
    if networks and (stage == "autoencoder" or not _has(out, "autoencoder")):
        autoencoder = networks[0]
    elif stage == "autoencoder":
        autoencoder = Autoencoder(_drawing(SIZES[size].autoencoder, dataset))
    else:
        autoencoder = load_autoencoder(out / "autoencoder")
    train, validation = _render(dataset, autoencoder.config, num_frames)
    with parallel.first_alone():
        if networks and parallel.rank() == 0:
            _take_along(out, stage, *networks)
    wishes = None
    if stage in ("decoder", "refiner") and space.attributes:
        autoencoder = _painting(autoencoder, space)
        wished = _render(Dataset.load(data), autoencoder.config, num_frames)
        train, wished_train = _as_long(train, wished[0])
        validation, wished_validation = _as_long(validation, wished[1])
        fading = round(dataset.config.fps)
        wishes = (
            Wished.of(wished_train, space, fading),
            Wished.of(wished_validation, space, fading),
        )
    if stage == "refiner":
        pictures = _with_refiner(_load_pictures(out, refined=False))
        if pictures.config.attributes != tuple(map(len, space.attributes.values())):
            raise ReverieError(
                f"the decoder in {out} does not paint the wishes of {data}; train the decoder first"
            )
        part = (_load_last_denoiser(out), ForcingConfig(), config, (train, validation), space)
        return train_refiner(out / stage, pictures, *part, wishes)
    if stage != "denoiser":
        if autoencoder.config.refiner:  # of what another decoder drew
            autoencoder = _rebuilt(autoencoder, "refiner", refiner=())
        autoencoder.train().requires_grad_(True)
        part = (train, validation, stage == "decoder", wishes)
        return train_autoencoder(out / stage, autoencoder, config, *part)
    if networks:
        # It already knows the dynamics: it learns larger steps and its own frames at once.
        forcing = ForcingConfig(shortcuts_from=0.0, own_from=0.0)
        objective = Forcing(networks[1].train().requires_grad_(True), forcing)
    else:
        objective = Forcing(_new_denoiser(autoencoder.config, space, size), ForcingConfig())
    return train_denoiser(out / stage, objective, config, autoencoder, train, validation, space)


def distill_stage(
    data: Path,
    out: Path,
    config: RunConfig,
    guidance: GuidanceConfig,
    num_frames: int | None = None,
) -> Run:
    """Distill a run's denoiser; num_frames as in `train_stage`. Raises ReverieError where a stage
    before is missing, or was trained for other data.
    """
    dataset, space = _open(data, config)
    autoencoder, teacher = load_autoencoder(out / "autoencoder"), load_denoiser(out / "denoiser")
    if teacher.config.action_width != space.told_width:
        raise ReverieError(f"{data} has other actions than the denoiser of {out} was trained for")
    train, validation = _render(dataset, autoencoder.config, num_frames)
    objective = Distillation(teacher, guidance, ForcingConfig(), len(space.keys))
    return train_denoiser(out / DISTILLED, objective, config, autoencoder, train, validation, space)


def _networks_of(world: World, space: ActionSpace, data: Path) -> tuple[Autoencoder, Denoiser]:
    """A world's networks for actions like its own; attributes, which only the decoder hears of, may
    differ.
    """
    autoencoder, denoiser = load_networks(world)
    known = world.config.action_space
    if replace(space, attributes={}) != replace(known, attributes={}):
        raise ReverieError(
            f"{data} has other actions than the world {world.config.name!r}; "
            "record with the environment that the world was trained for, or train from scratch"
        )
    if list(space.attributes.items()) != list(known.attributes.items()):
        autoencoder = _rebuilt(autoencoder, "painter", attributes=())
    return autoencoder, denoiser


def _has(out: Path, stage: str) -> bool:
    return (out / stage / "checkpoint.pt").exists()


def _take_along(out: Path, stage: str, autoencoder: Autoencoder, denoiser: Denoiser) -> None:
    """What comes before a stage and is not there yet, out of a world. Raises ReverieError where its
    denoiser would meet another's latents.
    """
    if stage != "autoencoder" and not _has(out, "autoencoder"):
        save_network(out / "autoencoder", {"autoencoder": settings_of(autoencoder)}, autoencoder)
    if stage in ("decoder", "refiner") and not _has(out, "denoiser"):
        if not _same(load_autoencoder(out / "autoencoder").encoder, autoencoder.encoder):
            raise ReverieError(
                f"{out / 'autoencoder'} has other latents than the world's denoiser knows; "
                "train in another folder"
            )
        save_network(out / "denoiser", {"denoiser": asdict(denoiser.config)}, denoiser)


def _as_long(one: Rendered, other: Rendered) -> tuple[Rendered, Rendered]:
    """The episodes of both; there may be more of the one than of the other by now."""
    count = min(one.num_episodes, other.num_episodes)
    return one.first(count), other.first(count)


def _painting(autoencoder: Autoencoder, space: ActionSpace) -> Autoencoder:
    """One whose decoder paints the attributes; before it has learned to, everything as usual."""
    counts = tuple(len(values) for values in space.attributes.values())
    if autoencoder.config.attributes:
        return autoencoder
    return _rebuilt(autoencoder, "painter", attributes=counts)


def _with_refiner(autoencoder: Autoencoder) -> Autoencoder:
    if autoencoder.config.refiner:
        return autoencoder
    return _rebuilt(autoencoder, "refiner", refiner=WIDTHS)


def _rebuilt(autoencoder: Autoencoder, part: str, **sizes: tuple[int, ...]) -> Autoencoder:
    """The same with another such part, or none."""
    other = Autoencoder(replace(autoencoder.config, **sizes))
    weights = autoencoder.state_dict()
    kept = {name: w for name, w in weights.items() if not name.startswith(f"{part}.")}
    other.load_state_dict({**other.state_dict(), **kept})
    return other


def _open(data: Path, config: RunConfig) -> tuple[Dataset, ActionSpace]:
    """A data set that a player's actions fit, in every process of the run."""
    dataset = Dataset.load(data).as_usual()
    space = dataset.config.actions.space
    if space is None or len(space.keys) > MAX_KEYS:
        raise ReverieError(
            f"{data} has actions that no player could give; expected up to {MAX_KEYS} keys, "
            "and a camera or none: wrap the environment"
        )
    torch.manual_seed(config.seed)
    parallel.join_processes()
    parallel.share_of(config.batch_size)
    return dataset, space


def _drawing(pictures: AutoencoderConfig, dataset: Dataset) -> AutoencoderConfig:
    """For the pictures of a data set. Raises ReverieError where the latent grid does not fit."""
    width, height = dataset.config.width, dataset.config.height
    try:
        return replace(pictures, width=width, height=height)
    except ValueError as error:
        near = (pictures.stride * max(round(n / pictures.stride), 1) for n in (width, height))
        line = f"{dataset.path}: {error}; record with --picture {'x'.join(map(str, near))}"
        raise ReverieError(line) from None


def _render(
    dataset: Dataset, pictures: AutoencoderConfig, num_frames: int | None
) -> tuple[Rendered, Rendered]:
    """The train and validation splits, drawn once."""
    width, height = pictures.width, pictures.height
    if (dataset.config.width, dataset.config.height) != (width, height):
        raise ReverieError(
            f"{dataset.path} draws {dataset.config.width}x{dataset.config.height} pictures, the "
            f"network is for {width}x{height}: record with --picture {width}x{height}"
        )
    cache = dataset.path / FRAMES_FOLDER
    with parallel.first_alone():
        train = render(dataset, "train", num_frames=num_frames, cache=cache)
        validation = render(dataset, "validation", cache=cache)
    return train, validation


def _new_denoiser(pictures: AutoencoderConfig, space: ActionSpace, size: str) -> Denoiser:
    settings = DenoiserConfig(
        grid=pictures.grid,
        channels=pictures.channels,
        action_width=space.told_width,
        camera_column=len(space.keys) if space.camera_limit else None,
        camera_tokens=pictures.grid[1] * space.camera_limit / VIEW_DEG,
        **SIZES[size].denoiser,
    )
    return Denoiser(settings)


def export_run(
    data: Path, out: Path, path: Path, name: str, starts: Path | None = None, card: str = ""
) -> World:
    """A world folder from a run's finished (or unfinished) stages.

    starts: a JSON file that lists moments of recorded episodes, [{"name", "title", "split",
    "episode", "frame"}]; without it, a few of the validation split.
    """
    dataset = Dataset.load(data).as_usual()
    space = dataset.config.actions.space
    if not isinstance(space, ActionSpace):
        raise ReverieError(f"{data} has no action space that a player could use")
    autoencoder = _load_pictures(out)
    denoiser = _load_last_denoiser(out)
    wanted = json.loads(starts.read_text()) if starts else _default_starts(dataset)
    clips = [_cut_start(dataset, space, moment, denoiser.config.context) for moment in wanted]
    fps = round(dataset.config.fps)
    forcing, simulator = ForcingConfig(), open_simulator(dataset)
    prompter, wishes = simulator.prompter(), simulator.wishes
    simulator.close()
    return export_world(
        path,
        name,
        autoencoder,
        denoiser,
        space,
        starts=clips,
        card=card + _history(dataset, out),
        fps=fps,
        context_signal=forcing.context_signal,
        noise_scale=forcing.noise_scale,
        prompts=wishes,
        prompter=prompter,
        pictures=render(dataset, "validation", cache=data / FRAMES_FOLDER).frames,
    )


def _history(dataset: Dataset, out: Path) -> str:
    """The end of a card: what every stage of a run says of itself; nothing where none does."""
    stages = ("autoencoder", "denoiser", DISTILLED, "decoder", "refiner")
    finished = [stage for stage in stages if (out / stage / "checkpoint.pt").exists()]
    states = {stage: load_checkpoint(out / stage) for stage in finished}
    made = {stage: state["provenance"] for stage, state in states.items() if "provenance" in state}
    return f"\n{describe(dataset, made)}" if made else ""


def _load_last_denoiser(out: Path) -> Denoiser:
    """Distilled, if it is."""
    return load_denoiser(out / (DISTILLED if _has(out, DISTILLED) else "denoiser"))


def _load_pictures(out: Path, refined: bool = True) -> Autoencoder:
    """The autoencoder, with its decoder and its refiner as they were trained last."""
    first = last = load_autoencoder(out / "autoencoder")
    if _has(out, "decoder"):
        last = load_autoencoder(out / "decoder")
        if not _same(first.encoder, last.encoder):
            raise ReverieError(
                f"{out / 'decoder'} reads the latents of another encoder than "
                f"{out / 'autoencoder'}; delete it and train the decoder again"
            )
    if refined and _has(out, "refiner"):
        refining = load_autoencoder(out / "refiner")
        if not (_same(last.encoder, refining.encoder) and _same(last.decoder, refining.decoder)):
            raise ReverieError(
                f"{out / 'refiner'} refines what another decoder draws than the last in {out}; "
                "delete it and train the refiner again"
            )
        last = refining
    return last


def _same(one: nn.Module, other: nn.Module) -> bool:
    """Whether the weights are the same."""
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(w, theirs[n]) for n, w in mine.items())


def _default_starts(dataset: Dataset, count: int = 4) -> list[dict[str, Any]]:
    episodes = len(dataset.split("validation"))
    chosen = np.linspace(0, episodes - 1, min(count, episodes)).astype(int)
    return [
        {
            "name": f"start-{i + 1}",
            "title": f"Start {i + 1}",
            "split": "validation",
            "episode": int(e),
            "frame": 60,
        }
        for i, e in enumerate(chosen)
    ]


def _cut_start(
    dataset: Dataset, space: ActionSpace, moment: Mapping[str, Any], context: int
) -> Start:
    """The clip of `context` frames that ends at one frame of an episode, drawn again."""
    try:
        name, title, split = moment["name"], moment["title"], moment["split"]
        number, last = int(moment["episode"]), int(moment["frame"])
    except KeyError as missing:
        raise ReverieError(f"start {dict(moment)} lacks {missing}") from None
    episodes = dataset.split(split)
    if not 0 <= number < len(episodes) or not context - 1 <= last <= episodes[number].num_actions:
        raise ReverieError(
            f"start {name!r}: {split} has no episode {number} with {context} frames up to {last}"
        )
    simulator = open_simulator(dataset)
    try:
        frames = []
        for index, pixels in enumerate(play_back(simulator, dataset, episodes[number])):
            if index > last - context:
                frames.append(pixels.copy())
            if index == last:
                break
    finally:
        simulator.close()
    actions = np.ascontiguousarray(led_into(dataset, episodes[number]), np.float32)
    first, pitch_deg = last - context + 1, 0.0
    for action in actions[:first]:
        pitch_deg = space.pitch_after(pitch_deg, action)
    return Start(name, title, np.stack(frames), actions[first : last + 1], pitch_deg)


def _expect_one_of(what: str, value: str, known: Any) -> None:
    if value not in known:
        raise ReverieError(f"{what} is {value!r}; expected one of {', '.join(known)}")
