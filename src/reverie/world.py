"""A world on disk: what it is, and whether it is whole.

    config.json          WorldConfig model.safetensors    every weight, fp16 encoder.onnx,
    decoder.onnx, denoiser.onnx    graphs; their weights are ranges of model.safetensors
    starts/NAME.jpg      a context clip: `context` frames, one below the other starts/NAME.json
    {"title": ..., "actions": [[A floats], ...]}; actions[i] led into frame i README.md
    the card: data, training, measured quality, licence

A world of another project's format (`formats.py`) has that project's files, and a config only where
something is to be other than usual.

`load` finds a world by bundled name, by path, or by Hugging Face id ("hf://user/world") and says in
one line what is wrong.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverie.core import Action, ActionSpace, ReverieError
from reverie.formats import FORMATS, recognise
from reverie.onnx_file import external_ranges
from reverie.prompts import PROMPTER_FILE, Prompter

FORMAT_VERSION = 1
OWN_FORMAT = "reverie"
GRAPHS = ("encoder.onnx", "decoder.onnx", "denoiser.onnx")
WEIGHTS = "model.safetensors"
BUNDLED = Path(__file__).parent / "worlds"
HUB_FILES = ["config.json", WEIGHTS, *GRAPHS, PROMPTER_FILE, "starts/*", "README.md"]
HUB_FILES += [f"{name}.*" for form in FORMATS.values() for name in form.checkpoints]
MAX_PICTURE_SIDE = 8192


@dataclass(frozen=True, slots=True)
class WorldConfig:
    """What a world is. Validated on creation: raises ReverieError that names the value and what was
    expected.

    width, height: of the picture, pixels. fps: frames per second that it was trained at.
    denoising_steps: how many passes per frame it was trained for, ascending. context: frames that
    it remembers. context_signal: signal level at which past frames are fed back to it (1 is clean).
    noise_scale: of the noise that a frame begins with; above 1, frames keep more detail in long
    play and follow their past less exactly. prompts: examples of what can be wished for.
    autoencoder, denoiser: the networks' own configs. format: of the files, ours or one of
    `formats.FORMATS`.
    """

    name: str
    width: int
    height: int
    fps: int
    action_space: ActionSpace
    denoising_steps: tuple[int, ...]
    context: int
    context_signal: float
    noise_scale: float = 1.0
    prompts: tuple[str, ...] = ()
    autoencoder: Mapping[str, Any] = field(default_factory=dict)
    denoiser: Mapping[str, Any] = field(default_factory=dict)
    format: str = OWN_FORMAT
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        object.__setattr__(self, "denoising_steps", tuple(self.denoising_steps))
        object.__setattr__(self, "prompts", tuple(self.prompts))
        object.__setattr__(self, "autoencoder", dict(self.autoencoder))
        object.__setattr__(self, "denoiser", dict(self.denoiser))
        _check_version(self.format_version)
        _expect("name", self.name, isinstance(self.name, str) and self.name.strip(), "a name")
        for side in ("width", "height"):
            _expect_count(side, getattr(self, side), MAX_PICTURE_SIDE)
        _expect_count("fps", self.fps, 1000)
        _expect_count("context", self.context, 65536)
        steps = self.denoising_steps
        _expect(
            "denoising_steps",
            list(steps),
            steps and all(_is_count(k) for k in steps) and list(steps) == sorted(set(steps)),
            "ascending whole numbers from 1, such as [1, 2, 4]",
        )
        signal = self.context_signal
        is_number = isinstance(signal, int | float) and not isinstance(signal, bool)
        _expect("context_signal", signal, is_number and 0 < signal <= 1, "a number in (0, 1]")
        scale = self.noise_scale
        is_number = isinstance(scale, int | float) and not isinstance(scale, bool)
        _expect("noise_scale", scale, is_number and 0 <= scale <= 2, "a number in [0, 2]")
        _expect("prompts", self.prompts, all(isinstance(p, str) for p in self.prompts), "texts")
        known = (OWN_FORMAT, *FORMATS)
        _expect("format", self.format, self.format in known, f"one of {', '.join(known)}")

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        return (self.height, self.width, 3)

    def to_json(self) -> dict[str, Any]:
        return {
            "format_version": self.format_version,
            "name": self.name,
            "width": self.width,
            "height": self.height,
            "fps": self.fps,
            "action_space": self.action_space.to_json(),
            "denoising_steps": list(self.denoising_steps),
            "context": self.context,
            "context_signal": self.context_signal,
            "noise_scale": self.noise_scale,
            "prompts": list(self.prompts),
            "autoencoder": dict(self.autoencoder),
            "denoiser": dict(self.denoiser),
            # Left out where it is ours, as in what was written before there were others.
            **({"format": self.format} if self.format != OWN_FORMAT else {}),
        }

    @classmethod
    def from_json(cls, data: Any) -> WorldConfig:
        """Raises ReverieError on a wrong version, unknown or missing keys, and wrong values."""
        if not isinstance(data, dict):
            raise ReverieError(f"holds {type(data).__name__}; expected an object of settings")
        _check_version(data.get("format_version"))  # before the keys: other versions differ
        known = {f.name for f in fields(cls)}
        optional = {"noise_scale", "prompts", "autoencoder", "denoiser", "format"}
        _check_keys("", data, known, known - optional)
        space = data["action_space"]
        if not isinstance(space, dict):
            raise ReverieError(f"action_space is {space!r}; expected an object")
        _check_keys("action_space.", space, {f.name for f in fields(ActionSpace)}, {"keys"})
        try:
            return cls(**{**data, "action_space": ActionSpace(**space)})
        except TypeError as error:
            raise ReverieError(f"a value has the wrong type: {error}") from None


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """Where a session can begin: a clip that the world remembers.

    frames: uint8 [t, h, w, 3]; actions: float32 [t, A], actions[i] led into frames[i]. pitch_deg:
    where the camera looked before the first of them, degrees down.
    """

    name: str
    title: str
    frames: NDArray[np.uint8]
    actions: NDArray[np.float32]
    pitch_deg: float = 0.0


@dataclass(frozen=True)
class World:
    """A world that was found whole. `path` is its folder. prompter: reads wishes; None for a world
    that takes no prompts.
    """

    path: Path
    config: WorldConfig
    starts: tuple[Start, ...] = ()
    prompter: Prompter | None = None

    def find_start(self, name: str | None = None) -> Start:
        """The start of that name, or the first. Raises ReverieError with the names there are."""
        for start in self.starts:
            if name is None or start.name == name:
                return start
        names = ", ".join(start.name for start in self.starts)
        what = "has no start" if name is None else f"has no start {name!r}"
        hint = f"choose one of: {names}" if names else "start it from an image"
        raise ReverieError(f"world {self.config.name!r} {what}; {hint}")

    def understand(self, prompt: str) -> dict[str, str]:
        """The attributes that a prompt asks for, at least one. Raises ReverieError, with what the
        world can do, where it asks for none that there is.
        """
        if self.prompter is None:
            raise ReverieError(f"world {self.config.name!r} takes no prompts")
        return self.prompter.understand(prompt)

    @property
    def card(self) -> str:
        """The text of README.md; empty without one."""
        card = self.path / "README.md"
        return card.read_text("utf-8") if card.is_file() else ""

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of config, weights and graphs: a snapshot fits only the very same world."""
        digest = hashlib.sha256()
        names = ("config.json", WEIGHTS, *GRAPHS, PROMPTER_FILE)
        form = FORMATS.get(self.config.format)
        if form is not None:  # its config may be the usual one, and no file
            digest.update(json.dumps(self.config.to_json()).encode())
        own = (self.path / name for name in names)
        for file in filter(Path.is_file, own) if form is None else form.files(self.path):
            digest.update(f"{file.name}:{file.stat().st_size}:".encode())
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
        return digest.hexdigest()


def bundled() -> tuple[str, ...]:
    """Names of the worlds that came with Reverie."""
    if not BUNDLED.is_dir():
        return ()
    return tuple(sorted(p.name for p in BUNDLED.iterdir() if (p / "config.json").is_file()))


def find(name: str | Path) -> Path:
    """The folder of a world, by bundled name, path, or "hf://user/world" (downloaded if needed).

    Raises ReverieError that lists what there is.
    """
    text = str(name)
    if text.startswith("hf://"):
        return _download(text.removeprefix("hf://").strip("/"))
    if text in bundled():
        return BUNDLED / text
    path = Path(text).expanduser()
    if text and path.is_dir():
        return path
    names = ", ".join(bundled()) or "none"
    raise ReverieError(
        f"no world {text!r}; expected a bundled world ({names}), a folder, or hf://user/world"
    )


def load(name: str | Path) -> World:
    """Find a world and check that it is whole: config, weights, graphs, starts.

    Raises ReverieError: one line that names the file, what is wrong with it, and what to do.
    """
    path = find(name)
    config = read_config(path)
    if config.format == OWN_FORMAT:
        _check_weights(path)
    else:
        _check_checkpoints(path, config.format)
    folder = path / "starts"
    images = sorted(folder.glob("*.jpg")) if folder.is_dir() else []
    starts = tuple(_read_start(image, config) for image in images)
    attributes = config.action_space.attributes
    return World(path, config, starts, Prompter.load(path, attributes) if attributes else None)


def read_config(path: Path) -> WorldConfig:
    """Only the config of the world in this folder, without looking at its weights."""
    file = path / "config.json"
    if not file.is_file() and (form := recognise(path)):
        return WorldConfig(format=form, **FORMATS[form].settings)
    try:
        return WorldConfig.from_json(_read_json(file))
    except ValueError as error:  # ActionSpace raises plain ValueError
        message = str(error)
        raise ReverieError(message if str(file) in message else f"{file}: {message}") from None


def save(path: Path, config: WorldConfig, starts: Sequence[Start] = (), card: str = "") -> None:
    """Write everything of a world but its weights and graphs, which are the exporter's.

    Raises ReverieError on a start that does not fit the config, or a folder that cannot be written.
    """
    import simplejpeg

    for start in starts:
        _check_start(start, config, start.name)
    try:
        folder = path / "starts"
        folder.mkdir(parents=True, exist_ok=True)
        for old in (*folder.glob("*.jpg"), *folder.glob("*.json")):
            old.unlink()  # starts of an earlier export would still be offered
        for start in starts:
            tall = start.frames.reshape(-1, config.width, 3)
            jpeg = simplejpeg.encode_jpeg(
                np.ascontiguousarray(tall), quality=95, colorsubsampling="444"
            )
            (folder / f"{start.name}.jpg").write_bytes(jpeg)
            actions = [[round(float(x), 6) for x in row] for row in start.actions]
            about = {"title": start.title, "pitch_deg": start.pitch_deg, "actions": actions}
            text = json.dumps(about)
            (folder / f"{start.name}.json").write_text(text + "\n", "utf-8")
        if card:
            (path / "README.md").write_text(card, "utf-8")
        text = json.dumps(config.to_json(), indent=2) + "\n"
        (path / "config.json").write_text(text, "utf-8")
    except OSError as error:
        raise ReverieError(f"cannot write the world to {path}: {error.strerror}") from None


def start_from_image(config: WorldConfig, image: NDArray[np.uint8]) -> Start:
    """A start out of one picture, uint8 [h, w, 3]: it stands still for the whole context.

    A picture larger than the world's is cropped to its shape around the middle and averaged down.
    Raises ReverieError on any other type, shape, or a picture that is smaller than the world's.
    """
    h, w, _ = config.frame_shape
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        got = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise ReverieError(f"start image is {got}; expected a uint8 array [h, w, 3]")
    if image.ndim != 3 or image.shape[2] != 3:
        raise ReverieError(f"start image has shape {image.shape}; expected [h, w, 3], RGB")
    if image.shape[0] < h or image.shape[1] < w:
        raise ReverieError(
            f"start image is {image.shape[1]} x {image.shape[0]} pixels; "
            f"expected at least {w} x {h}, the world's size"
        )
    frame = image if image.shape == config.frame_shape else _resize(image, h, w)
    frames = np.repeat(frame[None], config.context, axis=0)
    idle = np.tile(config.action_space.encode(Action()), (config.context, 1))
    return Start("image", "Your picture", frames, idle)


def _resize(image: NDArray[np.uint8], h: int, w: int) -> NDArray[np.uint8]:
    """Crop around the middle to the shape w : h, then average areas. Only ever smaller."""
    scale = min(image.shape[0] / h, image.shape[1] / w)
    crop_h, crop_w = round(scale * h), round(scale * w)
    top, left = (image.shape[0] - crop_h) // 2, (image.shape[1] - crop_w) // 2
    picture = image[top : top + crop_h, left : left + crop_w].astype(np.float32)
    rows = np.tensordot(_area_weights(crop_h, h), picture, 1)
    columns = np.einsum("xw,hwc->hxc", _area_weights(crop_w, w), rows, optimize=True)
    return np.clip(np.rint(columns), 0, 255).astype(np.uint8)


def _area_weights(size: int, new_size: int) -> NDArray[np.float32]:
    """[new_size, size]: how much of each old pixel lies inside each new one; rows sum to 1."""
    edges = np.arange(new_size + 1) * (size / new_size)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.clip(overlap, 0, 1)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _download(repo: str) -> Path:
    """A world from the Hugging Face hub, in its cache."""
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise ReverieError(f"hf://{repo} is not a world's address; expected hf://user/world")
    try:
        from huggingface_hub import snapshot_download  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ReverieError(
            f"hf://{repo} needs huggingface_hub: pip install 'reverie-worlds[hub]'"
        ) from None
    try:
        return Path(snapshot_download(repo, allow_patterns=HUB_FILES))
    except Exception as error:  # the hub raises its own, requests' and httpx's errors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ReverieError(f"cannot download hf://{repo}: {reason}") from None


def _check_weights(path: Path) -> None:
    """Weights and graphs are there, complete, and fit each other."""
    from safetensors import SafetensorError, safe_open

    weights = path / WEIGHTS
    _expect_file(weights)
    try:
        with safe_open(weights, framework="numpy"):
            pass  # opening reads the header and compares it with the file's length
    except (SafetensorError, OSError) as error:
        raise ReverieError(
            f"{weights} is damaged or cut short ({error}); download or export it again"
        ) from None
    size = weights.stat().st_size
    for name in GRAPHS:
        graph = path / name
        _expect_file(graph)
        for part in external_ranges(graph):
            if part.location != WEIGHTS:
                raise ReverieError(
                    f"{graph} keeps weights in {part.location!r}; expected {WEIGHTS!r}: "
                    "export it again"
                )
            if part.offset + part.length > size:
                raise ReverieError(
                    f"{graph} expects {part.offset + part.length} bytes of weights but {weights} "
                    f"has {size}: they belong to different exports; export the world again"
                )


def _check_checkpoints(path: Path, form: str) -> None:
    """Those of another format are there; what is in them is for its adapter to say."""
    names = FORMATS[form].checkpoints
    found = {file.stem for file in FORMATS[form].files(path)}
    for name in names:
        if name not in found:
            raise ReverieError(
                f"{path} has no {name}.safetensors and no {name}.pt; "
                f"a world of the format {form!r} has both of {', '.join(names)}"
            )


def _read_start(image: Path, config: WorldConfig) -> Start:
    """A clip with its actions, or in a world of another format a picture."""
    import simplejpeg

    text = image.with_suffix(".json")
    if config.format != OWN_FORMAT and not text.is_file():
        try:
            start = start_from_image(config, simplejpeg.decode_jpeg(image.read_bytes(), "RGB"))
        except (ValueError, OSError) as error:
            raise ReverieError(f"{image}: {error}") from None
        return replace(start, name=image.stem, title=image.stem.replace("_", " "))
    data = _read_json(text)
    if not isinstance(data, dict) or set(data) != {"title", "pitch_deg", "actions"}:
        raise ReverieError(f'{text}: expected {{"title": ..., "pitch_deg": ..., "actions": [...]}}')
    try:
        actions, pitch_deg = np.array(data["actions"], np.float32), float(data["pitch_deg"])
    except (ValueError, TypeError):
        raise ReverieError(f"{text}: actions and pitch_deg are not all numbers") from None
    try:
        tall = simplejpeg.decode_jpeg(image.read_bytes(), "RGB")
    except (ValueError, OSError) as error:
        raise ReverieError(f"{image} is not a readable JPEG: {error}") from None
    w, h, count = config.width, config.height, config.context
    if tall.shape != (count * h, w, 3):
        raise ReverieError(
            f"{image} is {tall.shape[1]} x {tall.shape[0]} pixels; expected {w} x {count * h}: "
            f"{count} frames of {w} x {h}, one below the other"
        )
    frames = tall.reshape(count, h, w, 3)
    start = Start(image.stem, str(data["title"]), frames, actions, pitch_deg)
    _check_start(start, config, text)
    return start


def _check_start(start: Start, config: WorldConfig, where: object) -> None:
    frames, actions = (
        (config.context, *config.frame_shape),
        (
            config.context,
            config.action_space.width,
        ),
    )
    if start.frames.shape != frames or start.frames.dtype != np.uint8:
        raise ReverieError(
            f"{where}: frames are {start.frames.dtype} {list(start.frames.shape)}; "
            f"expected uint8 {list(frames)}"
        )
    if start.actions.shape != actions:
        raise ReverieError(
            f"{where}: actions have shape {list(start.actions.shape)}; expected {list(actions)}"
        )
    if not np.isfinite(start.actions).all():
        raise ReverieError(f"{where}: actions are not all finite numbers")
    low, high = config.action_space.pitch_limits
    if not low <= start.pitch_deg <= high:
        raise ReverieError(
            f"{where}: pitch_deg is {start.pitch_deg}; "
            f"the camera looks {low} to {high} degrees down"
        )


def _read_json(file: Path) -> Any:
    _expect_file(file)
    try:
        return json.loads(file.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise ReverieError(f"{file} is not readable JSON: {error}") from None


def _expect_file(file: Path) -> None:
    if not file.is_file():
        raise ReverieError(f"{file} is missing; the folder is not a whole world: export it again")


def _check_version(version: object) -> None:
    if version != FORMAT_VERSION:
        raise ReverieError(
            f"format_version is {version!r}; this Reverie reads {FORMAT_VERSION}: "
            "update reverie-worlds, or export the world again"
        )


def _check_keys(prefix: str, data: dict[str, Any], known: set[str], required: set[str]) -> None:
    for what, names in (("unknown", set(data) - known), ("missing", required - set(data))):
        if names:
            listed = ", ".join(repr(prefix + name) for name in sorted(names))
            raise ReverieError(f"{what} setting {listed}; expected {sorted(known)}")


def _expect(name: str, value: object, fits: object, expected: str) -> None:
    if not fits:
        raise ReverieError(f"{name} is {value!r}; expected {expected}")


def _expect_count(name: str, value: int, limit: int) -> None:
    fits = _is_count(value) and value <= limit
    _expect(name, value, fits, f"a whole number from 1 to {limit}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
