"""What a player holds, as the action of any Gymnasium space: a short TOML file.

    idle = { "stick.0" = 0.0 }              # of a part, when nothing is held; 0 if not given

    [[keys]]
    name = "fire"                           # what the world calls it
    press = "space"                         # on a keyboard or mouse; may be left out
    sets = { "buttons" = 1 }                # parts of the action while it is held

    [[together]]                            # held at once: instead of what each sets alone
    keys = ["fire", "right"]
    sets = { "buttons" = 4 }

    [camera]                                # a mouse that turns; may be left out
    limit = 15.0                            # degrees in a frame, at most
    pitch_limits = [-60.0, 60.0]
    yaw = { "stick.1" = 0.1 }               # added to a part for every degree right
    pitch = { "stick.2" = 0.1 }             # and down

A space is made of parts: a number of a Box (float), a choice of a Discrete, MultiDiscrete or
MultiBinary. Where a space has one part it is "action"; of several, "0", "1", ...; of a Dict, the
name inside comes after its own ("stick.0"). What several keys set adds up in a Box, from its idle
value, within its bounds; of a choice the last key of the file decides.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reverie.core import ActionSpace, ReverieError

if TYPE_CHECKING:
    import gymnasium

DEVICE_KEYS = (
    *"abcdefghijklmnopqrstuvwxyz0123456789",
    *("arrowup", "arrowdown", "arrowleft", "arrowright", "space", "shift", "control"),
    *("mouse0", "mouse1", "mouse2"),
)
ALONE = "action"
"""Name of the part of a space that has one."""
MAX_KEYS = 64
USUAL_PRESS = {
    "up": "arrowup",
    "down": "arrowdown",
    "left": "arrowleft",
    "right": "arrowright",
    "fire": "space",
}
"""For keys that environments often name."""

Values = dict[str, float]


@dataclass(frozen=True, slots=True)
class Part:
    """A number of an action. choices: how many there are, from `low`; 0 for any number between."""

    name: str
    low: float
    high: float
    choices: int = 0

    @property
    def idle(self) -> float:
        """When nothing is held and the file says nothing: 0, or what is nearest to it."""
        return min(max(0.0, self.low), self.high)


@dataclass(frozen=True, slots=True)
class ActionMapping:
    """Made by `read`; `to_env` of it is what the environment takes. layout: of the space, as JSON
    has it. values: the file's own, checked.
    """

    space: ActionSpace
    layout: dict[str, Any]
    values: dict[str, Any]

    def to_env(self, vector: NDArray[np.floating]) -> Any:
        """The action [A] in the form that `env.step` takes."""
        action = self.space.decode(np.asarray(vector))
        parts = {part.name: part for part in parts_of(self.layout)}
        held, now = set(action.keys), dict(self._idle)
        steps: list[Mapping[str, float]] = []
        for entry in self.values.get("together", ()):
            if held.issuperset(entry["keys"]):
                held -= set(entry["keys"])
                steps.append(entry["sets"])
        steps += [entry["sets"] for entry in self.values["keys"] if entry["name"] in held]
        for sets in steps:
            for name, value in sets.items():
                now[name] = value if parts[name].choices else now[name] + value
        camera = self.values.get("camera", {})
        for axis, degrees in zip(("yaw", "pitch"), action.mouse, strict=True):
            for name, per_degree in camera.get(axis, {}).items():
                now[name] += per_degree * degrees
        clipped = {n: min(max(v, parts[n].low), parts[n].high) for n, v in now.items()}
        return _assemble(self.layout, "", clipped)

    @property
    def _idle(self) -> Values:
        idle = self.values.get("idle", {})
        return {part.name: float(idle.get(part.name, part.idle)) for part in parts_of(self.layout)}

    def to_json(self) -> dict[str, Any]:
        return {"layout": self.layout, "values": self.values}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ActionMapping:
        return make(data["layout"], data["values"], "the data set's mapping of actions")


def read(path: str | Path, space: gymnasium.Space[Any]) -> ActionMapping:
    """The mapping of a file for an environment's action space. Raises ReverieError, in one line, on
    what is not in the space, is said twice, or is no TOML.
    """
    try:
        values = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ReverieError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ReverieError(f"{path} is not TOML: {error}") from None
    return make(layout_of(space), values, str(path))


def make(layout: dict[str, Any], values: dict[str, Any], where: str) -> ActionMapping:
    """A mapping of checked values; `where` begins the line of an error."""
    try:
        _check(values, {part.name: part for part in parts_of(layout)})
        camera = values.get("camera", {})
        space = ActionSpace(
            tuple(entry["name"] for entry in values["keys"]),
            camera_limit=float(camera.get("limit", 0.0)),
            keymap={entry["press"]: entry["name"] for entry in values["keys"] if "press" in entry},
            pitch_limits=tuple(camera.get("pitch_limits", (-90.0, 90.0))),
        )
    except (ValueError, TypeError) as error:
        raise ReverieError(f"{where}: {error}") from None
    return ActionMapping(space, layout, values)


def layout_of(space: gymnasium.Space[Any]) -> dict[str, Any]:
    """An action space as JSON has it. Raises ReverieError on spaces that are none of these."""
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return {"type": "discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        starts = np.broadcast_to(getattr(space, "start", 0), space.nvec.shape)
        return {"type": "multi", "n": space.nvec.tolist(), "start": starts.tolist()}
    if isinstance(space, spaces.MultiBinary) and len(space.shape) == 1:
        return {"type": "binary", "n": int(space.shape[0])}
    if isinstance(space, spaces.Box) and space.shape:
        low, high = (
            np.clip(np.asarray(bound, np.float64), -1e6, 1e6).reshape(-1).tolist()
            for bound in (space.low, space.high)
        )
        dtype = np.dtype(space.dtype).name
        return {"type": "box", "shape": list(space.shape), "low": low, "high": high, "dtype": dtype}
    if isinstance(space, spaces.Dict):
        return {"type": "dict", "spaces": {k: layout_of(v) for k, v in space.spaces.items()}}
    raise ReverieError(
        f"actions are {space}; expected Discrete, MultiDiscrete, MultiBinary, Box or a Dict of them"
    )


def parts_of(layout: Mapping[str, Any], prefix: str = "") -> Iterator[Part]:
    """The numbers of an action, in order."""
    kind = layout["type"]
    if kind == "dict":
        for name, inside in layout["spaces"].items():
            yield from parts_of(inside, f"{prefix}{name}.")
        return
    if kind == "box":
        bounds = [(low, high, 0) for low, high in zip(layout["low"], layout["high"], strict=True)]
    elif kind == "binary":
        bounds = [(0, 1, 2)] * layout["n"]
    else:
        counts, starts = layout["n"], layout["start"]
        if kind == "discrete":
            counts, starts = [counts], [starts]
        bounds = [(s, s + n - 1, n) for n, s in zip(counts, starts, strict=True)]
    for i, (low, high, choices) in enumerate(bounds):
        alone = prefix.removesuffix(".") or ALONE
        yield Part(f"{prefix}{i}" if len(bounds) > 1 else alone, low, high, choices)


def _assemble(layout: Mapping[str, Any], prefix: str, values: Mapping[str, float]) -> Any:
    if layout["type"] == "dict":
        inside = layout["spaces"].items()
        return {name: _assemble(part, f"{prefix}{name}.", values) for name, part in inside}
    numbers = [values[part.name] for part in parts_of(layout, prefix)]
    if layout["type"] == "box":
        return np.asarray(numbers, layout["dtype"]).reshape(layout["shape"])
    whole = np.rint(numbers).astype(np.int8 if layout["type"] == "binary" else np.int64)
    return int(whole[0]) if layout["type"] == "discrete" else whole


def _check(values: Mapping[str, Any], parts: Mapping[str, Part]) -> None:
    """Raises ValueError or TypeError with what is wrong, what is expected."""
    _only(values, ("idle", "keys", "together", "camera"), "the file")
    entries = values.get("keys")
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_KEYS:
        raise ValueError(f"expected 1 to {MAX_KEYS} tables [[keys]]")
    _check_sets(values.get("idle", {}), parts, "idle")
    pressed: set[str] = set()
    for entry in entries:
        name = entry.get("name")
        if not isinstance(name, str) or not name or len(name) > 40:
            raise ValueError(f"a [[keys]] has name {name!r}; expected up to 40 letters")
        _only(entry, ("name", "press", "sets"), f"key {name!r}")
        _check_sets(entry.get("sets"), parts, f"key {name!r}")
        press = entry.get("press", "")
        if press and press not in DEVICE_KEYS:
            raise ValueError(f"key {name!r} is pressed by {press!r}; expected a letter, a digit or "
                             f"one of {', '.join(DEVICE_KEYS[36:])}")  # fmt: skip
        if press and press in pressed:
            raise ValueError(f"{press!r} presses two keys")
        pressed.add(press)
    names = {entry["name"] for entry in entries}
    for entry in values.get("together", []):
        held = entry.get("keys")
        if not isinstance(held, list) or len(held) < 2 or not names.issuperset(held):
            raise ValueError(f"[[together]] has keys {held!r}; expected two or more of {names}")
        _only(entry, ("keys", "sets"), "[[together]]")
        _check_sets(entry.get("sets"), parts, f"together {held}")
    camera = values.get("camera", {})
    _only(camera, ("limit", "pitch_limits", "yaw", "pitch"), "[camera]")
    if camera and not _is_number(camera.get("limit")):
        raise ValueError(f"[camera] has limit {camera.get('limit')!r}; expected degrees in a frame")
    for axis in ("yaw", "pitch"):
        for name, per_degree in camera.get(axis, {}).items():
            if name not in parts or parts[name].choices or not _is_number(per_degree):
                numbers = [part.name for part in parts.values() if not part.choices]
                raise ValueError(f"[camera] {axis} turns {name!r} by {per_degree!r}; expected a "
                                 f"number for one of {numbers}")  # fmt: skip


def _check_sets(sets: Any, parts: Mapping[str, Part], whose: str) -> None:
    if not isinstance(sets, dict) or not (sets or whose == "idle"):
        raise ValueError(f"{whose} sets {sets!r}; expected parts of the action and their values")
    for name, value in sets.items():
        part = parts.get(name)
        if part is None:
            raise ValueError(f"{whose} sets {name!r}; the action has {', '.join(parts)}")
        if not _is_number(value) or (
            part.choices and value not in range(int(part.low), int(part.high) + 1)
        ):
            expected = (
                f"a choice from {part.low:g} to {part.high:g}" if part.choices else "a number"
            )
            raise ValueError(f"{whose} sets {name!r} to {value!r}; expected {expected}")


def _only(table: Mapping[str, Any], known: Sequence[str], whose: str) -> None:
    if unknown := sorted(set(table) - set(known)):
        raise ValueError(f"{whose} has {unknown[0]!r}; expected {', '.join(known)}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def template(env_id: str, env: gymnasium.Env[Any, Any]) -> str:
    """The file that `reverie record --init` writes: every choice and both directions of every
    number have a key.
    """
    space = env.action_space
    parts = list(parts_of(layout_of(space)))
    lines = [
        f"# What a player's keys do in {env_id}, whose actions are",
        *(f"#   {line}" for line in str(space).splitlines()),
        "# Rename keys, press others, leave out what nobody needs; docs/own-game.md has the rest.",
    ]
    spare = [key for key in DEVICE_KEYS if key not in USUAL_PRESS.values()][:36]
    for part in parts:
        for name, value in _ways(part, len(parts), env):
            press = USUAL_PRESS.get(name)
            if press is None:
                press = spare.pop(0) if spare else ""
            pressed = [f'press = "{press}"'] if press else []
            lines += ["", "[[keys]]", f'name = "{name}"', *pressed,
                      f'sets = {{ "{part.name}" = {value:g} }}']  # fmt: skip
    return "\n".join(lines) + "\n"


def _ways(part: Part, num_parts: int, env: gymnasium.Env[Any, Any]) -> Iterator[tuple[str, float]]:
    """Names of keys, and what each sets the part to."""
    title = part.name.replace(".", "_")
    if not part.choices:
        ways = {"more": min(part.high - part.idle, 1.0), "less": max(part.low - part.idle, -1.0)}
        yield from ((f"{title}_{way}", value) for way, value in ways.items() if value)
        return
    meanings: Any = getattr(env.unwrapped, "get_action_meanings", None)
    said: Any = meanings() if callable(meanings) else ()
    given = [str(name).lower() for name in said]
    if num_parts > 1 or len(given) != part.choices or len(set(given)) != part.choices:
        given = [f"{title}_{i}" for i in range(part.choices)]
    for i, name in enumerate(given):
        if part.low + i != part.idle:  # which needs no key
            yield (title if part.choices == 2 else name), part.low + i
