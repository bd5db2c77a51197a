"""Any Gymnasium environment with pixels, seen in one way: reset, step with an action vector, ask
for the picture.

Pictures come from the observation where it is one (uint8 [h, w, 3], alone or inside a Dict), else
from `render()`. Where an environment can step without drawing, a picture is drawn only when it is
asked for: it then offers `env.unwrapped.advance(action) -> info` beside `render()`.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reverie.core import ActionSpace, Pixels, ReverieError
from reverie.data.actions import ActionFormat, Vectors
from reverie.data.mapping import ActionMapping, layout_of, read
from reverie.prompts import Prompter

if TYPE_CHECKING:
    import gymnasium

DEFAULT_FPS = 20.0
FINGERPRINT_GRID = (4, 5)
FINGERPRINT_TOLERANCE = 3
"""Grey levels: another processor may round a shaded pixel differently, another world does not look
the same.
"""


class Simulator:
    """One opened environment.

    env_kwargs: for `gymnasium.make`. size: (height, width) of the pictures, area-averaged; None for
    the environment's own. actions: file that says what a player's keys do (`data.mapping`), or what
    was read from it. Raises ReverieError, in one line, where the environment is unknown, has no
    pixels or takes actions of a kind that is not recorded.
    """

    def __init__(
        self,
        env_id: str,
        env_kwargs: Mapping[str, Any] | None = None,
        size: tuple[int, int] | None = None,
        actions: str | Path | ActionMapping | None = None,
    ) -> None:
        self.env_id, self.size = env_id, size
        kwargs = dict(env_kwargs or {})
        env = open_env(env_id, kwargs)
        self._pixel_key = _pixel_key(env)
        if self._pixel_key is None and env.render_mode != "rgb_array":
            modes = env.metadata.get("render_modes") or []
            env.close()
            if "rgb_array" not in modes:
                raise ReverieError(
                    f"environment {env_id!r} has no pixels: neither a uint8 [h, w, 3] observation"
                    " nor render_mode 'rgb_array'"
                )
            env = open_env(env_id, {**kwargs, "render_mode": "rgb_array"})
        self._env = env
        self.actions = action_format(env, actions)
        self.fps = float(env.metadata.get("render_fps") or DEFAULT_FPS)
        self._observation: Any = None
        self._advance = _silent_step(env)
        self._is_drawn = False

    @property
    def env(self) -> gymnasium.Env[Any, Any]:
        return self._env

    def reset(self, seed: int, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Begin the episode of a world seed; returns the environment's info."""
        self._observation, info = self._env.reset(seed=seed, options=dict(options or {}) or None)
        self._is_drawn = True
        return info

    def step(self, vector: Vectors) -> tuple[dict[str, Any], bool]:
        """One frame with an encoded action [A]; returns the environment's info and whether the
        episode ended.
        """
        action = self.actions.to_env(vector)
        if self._advance:
            self._is_drawn = False
            return self._advance(action), False
        self._observation, _, terminated, truncated, info = self._env.step(action)
        return info, bool(terminated or truncated)

    def picture(self) -> Pixels:
        """The present picture, uint8 [h, w, 3]."""
        if self._pixel_key is None or not self._is_drawn:
            pixels: Any = self._draw()
        elif self._pixel_key == "":
            pixels = self._observation
        else:
            pixels = self._observation[self._pixel_key]
        pixels = np.asarray(pixels)
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise ReverieError(
                f"environment {self.env_id!r} drew {pixels.dtype} {pixels.shape};"
                " expected uint8 [h, w, 3]"
            )
        return resize(pixels, self.size) if self.size else pixels

    def _draw(self) -> Any:
        from gymnasium.error import DependencyNotInstalled

        try:
            return self._env.unwrapped.render()
        except DependencyNotInstalled as error:
            reason = str(error).splitlines()[0]
            raise ReverieError(f"environment {self.env_id!r} cannot draw: {reason}") from None

    def prompter(self) -> Prompter | None:
        """What understands wishes here: fitted to the environment's own `wordings`, where it has
        attributes at all.
        """
        space = self.actions.space
        if space is None or not space.attributes:
            return None
        return Prompter.fit(space.attributes, getattr(self._env.unwrapped, "wordings", None))

    @property
    def wishes(self) -> tuple[str, ...]:
        """Examples of prompts that the environment understands."""
        prompted = self.actions.space is not None and self.actions.space.attributes
        return tuple(getattr(self._env.unwrapped, "wishes", ())) if prompted else ()

    def clone(self) -> Simulator | None:
        """An independent copy at the same moment, where the environment offers `clone`."""
        copied = getattr(self._env.unwrapped, "clone", None)
        if copied is None:
            return None
        other = copy.copy(self)
        other._env = copied()
        other._advance = _silent_step(other._env)
        return other

    def close(self) -> None:
        self._env.close()


def action_format(
    env: gymnasium.Env[Any, Any], actions: str | Path | ActionMapping | None = None
) -> ActionFormat:
    """How this environment's actions are recorded; actions as for `Simulator`. ReverieError, naming
    the space, where they cannot be.
    """
    from gymnasium import spaces

    if isinstance(actions, ActionMapping):
        if layout_of(env.action_space) != actions.layout:
            raise ReverieError(
                f"actions of the environment are now {env.action_space}; record anew"
            )
        return ActionFormat.mapped(actions)
    if actions is not None:
        return ActionFormat.mapped(read(actions, env.action_space))
    controls = getattr(env.unwrapped, "controls", None)
    space = env.action_space
    if isinstance(controls, ActionSpace):
        return ActionFormat("controls", controls.width, controls)
    if isinstance(space, spaces.Discrete) and space.start == 0:
        names = _choice_names(env, int(space.n))
        keymap = {str(i): name for i, name in enumerate(names[:10])}
        return ActionFormat("discrete", len(names), ActionSpace(names, keymap=keymap))
    if isinstance(space, spaces.MultiBinary) and len(space.shape) == 1 and space.shape[0] <= 64:
        names = tuple(f"switch_{i}" for i in range(space.shape[0]))
        keymap = {str(i): name for i, name in enumerate(names[:10])}
        return ActionFormat("binary", len(names), ActionSpace(names, keymap=keymap))
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        # An unbounded axis is recorded as it is; the bounds only tell a random player where to
        # look.
        low, high = (
            tuple(float(bound) for bound in np.clip(bounds, -1e3, 1e3).reshape(-1))
            for bounds in (space.low, space.high)
        )
        return ActionFormat("vector", len(low), None, space.shape, low, high)
    raise ReverieError(
        f"actions of {env.spec.id if env.spec else 'the environment'} are {space}; recorded are Box"
        " of floats, Discrete from 0, MultiBinary, a `controls` ActionSpace; describe others in a"
        " file: --init writes it, --actions reads it"
    )


def code_hash(env: gymnasium.Env[Any, Any]) -> str:
    """Short hash of the source that defines the environment: its file, or all files of its package
    folder.
    """
    try:
        file = Path(inspect.getfile(type(env.unwrapped)))
    except (TypeError, OSError):
        return "unknown"
    files = sorted(file.parent.glob("*.py")) if (file.parent / "__init__.py").exists() else [file]
    digest = hashlib.sha256()
    for source in files:
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:16]


def fingerprint(pixels: Pixels) -> NDArray[np.uint8]:
    """A picture as the mean colours of a 4 x 5 grid, uint8 [60]: equal for the same scene, whatever
    rounded its last bit.
    """
    return resize(pixels, FINGERPRINT_GRID).reshape(-1)


def same_scene(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> bool:
    """Whether two fingerprints show the same picture, up to `FINGERPRINT_TOLERANCE` grey levels."""
    difference = np.abs(first.astype(np.int16) - second.astype(np.int16))
    return bool(difference.max() <= FINGERPRINT_TOLERANCE)


def resize(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Area average to (height, width): each new pixel is the mean of the old ones it covers."""
    if pixels.shape[:2] == tuple(size):
        return pixels
    rows, columns = (_coverage(old, new) for old, new in zip(pixels.shape[:2], size, strict=True))
    scaled = np.einsum("yh,hwc,xw->yxc", rows, pixels.astype(np.float32), columns, optimize=True)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _coverage(old: int, new: int) -> NDArray[np.float32]:
    """Weights [new, old]: the share of each old pixel in each new one; rows sum to 1."""
    edges = np.linspace(0, old, new + 1)
    pixel = np.arange(old)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    weights = np.clip(overlap, 0, None)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def open_env(env_id: str, kwargs: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    """Of a Gymnasium id, "module:Name-v0" or "module:function". Raises ReverieError."""
    try:
        import gymnasium
    except ModuleNotFoundError:
        raise ReverieError(
            "recording needs Gymnasium; install it with `pip install 'reverie-worlds[simulator]'`"
        ) from None
    # Pygame greets on stdout and wants a display; neither belongs in a recorder.
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    try:
        if env_id.startswith("reverie/"):
            importlib.import_module("reverie.envs")
        if (factory := _factory(env_id)) is not None:
            return factory(**kwargs)
        return gymnasium.make(env_id, disable_env_checker=True, **kwargs)
    except (gymnasium.error.Error, ImportError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ReverieError(
            f"cannot open environment {env_id!r}: {reason}"
            " (of another package: 'module:Name-v0', or 'module:function' that makes one)"
        ) from None


def _factory(env_id: str) -> Callable[..., gymnasium.Env[Any, Any]] | None:
    """The function or class of "module:name", where the module has it; also a module of the folder
    that one works in.
    """
    module, colon, name = env_id.partition(":")
    if colon and (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    return getattr(importlib.import_module(module), name, None) if colon else None


def _silent_step(
    env: gymnasium.Env[Any, Any],
) -> Callable[[NDArray[np.float32]], dict[str, Any]] | None:
    """A step that draws nothing, where the environment has one. Such an environment never ends."""
    inner: Any = env.unwrapped
    if hasattr(type(inner), "advance"):
        return inner.advance
    if not hasattr(type(inner), "meadow"):
        return None

    def advance(action: NDArray[np.float32]) -> dict[str, Any]:
        inner.meadow.advance(action)
        return inner.meadow.info()

    return advance


def _pixel_key(env: gymnasium.Env[Any, Any]) -> str | None:
    """Where the picture is in an observation: "" for all of it, a key of a Dict, None for
    nowhere.
    """
    from gymnasium import spaces

    space = env.observation_space
    parts = space.spaces if isinstance(space, spaces.Dict) else {"": space}
    for name, part in parts.items():
        if isinstance(part, spaces.Box) and part.dtype == np.uint8 and part.shape[2:] == (3,):
            return name
    return None


def _choice_names(env: gymnasium.Env[Any, Any], num_choices: int) -> tuple[str, ...]:
    """Names for the choices of a Discrete space: the environment's own (Atari gives them), else
    numbers.
    """
    meanings = getattr(env.unwrapped, "get_action_meanings", None)
    given: Any = meanings() if callable(meanings) else ()
    names = tuple(str(name).lower() for name in given)
    if len(names) == num_choices and len(set(names)) == num_choices:
        return names
    return tuple(f"choice_{i}" for i in range(num_choices))


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) of "WIDTHxHEIGHT"."""
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise ReverieError(f"picture {text!r}; expected width and height in pixels, such as 160x96")
    return int(height), int(width)


def parse_setting(text: str) -> tuple[str, Any]:
    """What "prompts=true" names, and its value; a value that is no JSON is a text."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ReverieError(f"{text!r} names no value; expected NAME=VALUE, such as prompts=true")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
