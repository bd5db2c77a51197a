"""The values that travel from a key press to a picture: actions, controls, frames, deadlines.

Pure values: standard library and numpy only. Everything else in Reverie may import this module; it
imports nothing of Reverie.

Sign conventions, everywhere: yaw grows to the right, pitch grows downwards (as a mouse moves on a
screen), both in degrees. Slots are numbered from 1, as on the keyboard.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_KEYS = 32
"""Of a world that is played through the page: held keys are bits of a number on the way."""

Pixels = NDArray[np.uint8]
"""One picture, uint8 [h, w, 3], RGB."""


class ReverieError(ValueError):
    """Something a person asked for cannot be done: a bad value, a broken file, a missing extra.

    The message is one line for that person: it names the value, what was expected and what to do.
    Commands print it and exit with code 2. A subclass of ValueError, so that code which knows
    nothing of Reverie can catch it too.
    """


@dataclass(frozen=True, slots=True)
class Action:
    """What the world receives for one frame.

    keys: names of the world's keys that are held (`ActionSpace.keys`, or a device key that its
    keymap knows, such as "w"). mouse: camera turn in degrees for this frame, (yaw to the right,
    pitch downwards). slot: the selected hotbar slot, from 1; worlds without a hotbar ignore it.
    attributes: what the whole world is to be like (`ActionSpace.attributes`); those not named are
    as usual.
    """

    keys: frozenset[str] = frozenset()
    mouse: tuple[float, float] = (0.0, 0.0)
    slot: int = 1
    attributes: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __init__(
        self,
        keys: Iterable[str] = (),
        mouse: tuple[float, float] = (0.0, 0.0),
        slot: int = 1,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        if isinstance(keys, str):
            raise ValueError(
                f"keys is the string {keys!r}; expected a set of names, such as {{{keys!r}}}"
            )
        object.__setattr__(self, "keys", frozenset(keys))
        object.__setattr__(self, "mouse", (float(mouse[0]), float(mouse[1])))
        object.__setattr__(self, "slot", int(slot))
        object.__setattr__(self, "attributes", dict(attributes or {}))


@dataclass(frozen=True, slots=True)
class ActionSpace:
    """Everything a world can be told, and how that becomes numbers. Travels with the world
    (`config.json`).

    keys: names of the things that can be held, in the order of the encoded vector.
    camera_limit: greatest camera turn per frame in degrees, along yaw and along pitch; 0 for a
    world without a camera. num_slots: size of the hotbar; 0 for a world without one.
    pitch_limits: degrees down between which the camera can look, from where it looks when an
    episode begins.
    keymap: device key -> key name; the default bindings ("w" -> "forward"). Device keys are
    "a".."z", "0".."9", "arrowup", "arrowdown", "arrowleft", "arrowright", "space", "shift",
    "control", "mouse0" (left), "mouse1", "mouse2" (right).
    attributes: what prompts can change, name -> the values it can have, the usual one first
    ("weather": ("clear", "rain")).
    """

    keys: tuple[str, ...]
    camera_limit: float = 0.0
    num_slots: int = 0
    keymap: Mapping[str, str] = field(default_factory=dict)
    pitch_limits: tuple[float, float] = (-90.0, 90.0)
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", tuple(self.keys))
        object.__setattr__(self, "pitch_limits", tuple(self.pitch_limits))
        object.__setattr__(self, "keymap", dict(self.keymap))
        for name, values in self.attributes.items():
            if isinstance(values, str):
                raise ValueError(f"attribute {name!r} is the text {values!r}; expected its values")
        attributes = {name: tuple(values) for name, values in self.attributes.items()}
        object.__setattr__(self, "attributes", attributes)
        for name, values in attributes.items():
            if len(values) < 2 or len(set(values)) != len(values):
                raise ValueError(
                    f"attribute {name!r} has values {list(values)}; expected several, none twice"
                )
        if len(set(self.keys)) != len(self.keys):
            raise ValueError(f"action space names a key twice: {list(self.keys)}")
        if self.camera_limit < 0 or self.num_slots < 0:
            raise ValueError("action space: camera_limit and num_slots must not be negative")
        if len(self.pitch_limits) != 2 or not self.pitch_limits[0] <= 0 <= self.pitch_limits[1]:
            raise ValueError(
                f"action space: pitch_limits are {self.pitch_limits}; expected degrees around 0"
            )
        unknown = sorted(set(self.keymap.values()) - set(self.keys))
        if unknown:
            raise ValueError(
                f"keymap leads to unknown keys {unknown}; the world knows {list(self.keys)}"
            )

    @property
    def width(self) -> int:
        """Length of an encoded action: one per key, two for the camera if there is one, one per
        slot, one per value of every attribute.
        """
        return self.attribute_columns.stop

    @property
    def camera_columns(self) -> slice:
        """Of an encoded action: turn right and down; empty without a camera."""
        first = len(self.keys)
        return slice(first, first + 2 if self.camera_limit else first)

    @property
    def slot_columns(self) -> slice:
        """Of an encoded action: the selected slot, one-hot; empty without a hotbar."""
        first = self.camera_columns.stop
        return slice(first, first + self.num_slots)

    @property
    def attribute_columns(self) -> slice:
        """Of an encoded action: every attribute's value, one-hot, one after another."""
        first = self.slot_columns.stop
        return slice(first, first + sum(len(values) for values in self.attributes.values()))

    @property
    def told_width(self) -> int:
        """Length of what a network is told of a frame; see `tell`."""
        return self.attribute_columns.start + (1 if self.camera_limit else 0)

    def pitch_after(self, pitch_deg: float, vector: NDArray[np.floating]) -> float:
        """Where the camera looks after an encoded action [width]: degrees down."""
        if not self.camera_limit:
            return 0.0
        turned = pitch_deg + float(vector[len(self.keys) + 1]) * self.camera_limit
        return min(max(turned, self.pitch_limits[0]), self.pitch_limits[1])

    def tell(self, vector: NDArray[np.floating], pitch_deg: float) -> NDArray[np.float32]:
        """float32 [told_width]: an encoded action without attributes, which are how the picture is
        painted, and, with a camera, where it looks after it, in units of the camera's limit.
        """
        told = np.zeros(self.told_width, np.float32)
        told[: self.attribute_columns.start] = vector[: self.attribute_columns.start]
        if self.camera_limit:
            told[-1] = pitch_deg / self.camera_limit
        return told

    def turn(self, told: NDArray[np.floating], pitch_deg: float) -> NDArray[np.float32]:
        """float32 [3]: what the camera did in a frame that a network is `told` of, radians: how far
        it turned right, and where it looked before and after, down. Zeros without a camera.

        pitch_deg: where it looked before.
        """
        if not self.camera_limit:
            return np.zeros(3, np.float32)
        right, after = told[len(self.keys)] * self.camera_limit, told[-1] * self.camera_limit
        return np.deg2rad([right, pitch_deg, after]).astype(np.float32)

    def fade(
        self, shown: NDArray[np.floating], vector: NDArray[np.floating], share: float
    ) -> NDArray[np.float32]:
        """float32 [k]: attributes as a frame shows them (`attribute_columns`) after one that showed
        `shown`, straight on the way to what an encoded action says. share: of a whole way, in a
        frame.
        """
        ways = split_by_attribute(self.attributes, vector[self.attribute_columns] - shown)
        steps = [way * min(1.0, share / max(np.abs(way).max(), share)) for _, way in ways]
        return np.asarray(shown + np.concatenate([np.zeros(0), *steps]), np.float32)

    def encode(self, action: Action) -> NDArray[np.float32]:
        """float32 [width]: held keys as 0/1, camera clipped to [-1, 1] of the limit, slot and
        attributes one-hot.

        Raises ValueError on a key, slot or attribute that the world does not know, and on a camera
        that is not finite.
        """
        vector = np.zeros(self.width, np.float32)
        for name in action.keys:
            vector[self._key_index(name)] = 1.0
        if self.camera_limit:
            camera = np.asarray(action.mouse, np.float32) / self.camera_limit
            if not np.isfinite(camera).all():
                raise ValueError(f"camera turn {action.mouse} is not finite; expected degrees")
            vector[self.camera_columns] = np.clip(camera, -1.0, 1.0)
        if self.num_slots:
            if not 1 <= action.slot <= self.num_slots:
                raise ValueError(f"slot {action.slot} is not one of 1..{self.num_slots}")
            vector[self.slot_columns.start + action.slot - 1] = 1.0
        vector[self.attribute_columns] = self.encode_attributes(action.attributes)
        return vector

    def encode_attributes(self, attributes: Mapping[str, str]) -> NDArray[np.float32]:
        """float32 [k], for `attribute_columns`; those not named as usual. Raises ValueError on an
        attribute or a value that the world does not know.
        """
        unknown = sorted(set(attributes) - set(self.attributes))
        if unknown:
            raise ValueError(
                f"unknown attributes {unknown}; this world knows {list(self.attributes)}"
            )
        parts = [np.zeros(0, np.float32)]
        for name, values in self.attributes.items():
            value = attributes.get(name, values[0])
            if value not in values:
                raise ValueError(f"{name} is {value!r}; expected one of {list(values)}")
            parts.append(np.eye(len(values), dtype=np.float32)[values.index(value)])
        return np.concatenate(parts)

    def decode_attributes(self, columns: NDArray[np.floating]) -> dict[str, str]:
        """The opposite of `encode_attributes`: of every attribute its greatest value."""
        parts = split_by_attribute(self.attributes, columns)
        return {name: self.attributes[name][int(np.argmax(part))] for name, part in parts}

    def decode(self, vector: NDArray[np.floating]) -> Action:
        """The action that encodes to `vector`, float [width] (keys above 0.5 count as held)."""
        if vector.shape != (self.width,):
            raise ValueError(f"encoded action has shape {vector.shape}; expected ({self.width},)")
        keys = {name for name, held in zip(self.keys, vector, strict=False) if held > 0.5}
        mouse = (0.0, 0.0)
        if self.camera_limit:
            yaw, pitch = vector[self.camera_columns] * self.camera_limit
            mouse = (float(yaw), float(pitch))
        slot = 1 + int(np.argmax(vector[self.slot_columns])) if self.num_slots else 1
        return Action(keys, mouse, slot, self.decode_attributes(vector[self.attribute_columns]))

    def _key_index(self, name: str) -> int:
        key = self.keymap.get(name, name)
        try:
            return self.keys.index(key)
        except ValueError:
            known = sorted({*self.keys, *self.keymap})
            raise ValueError(f"unknown key {name!r}; this world knows {known}") from None

    def to_json(self) -> dict[str, Any]:
        # Left out where there are none, as in what was written before there were any.
        attributes = {name: list(values) for name, values in self.attributes.items()}
        return {
            "keys": list(self.keys),
            "camera_limit": self.camera_limit,
            "num_slots": self.num_slots,
            "keymap": dict(self.keymap),
            "pitch_limits": list(self.pitch_limits),
            **({"attributes": attributes} if attributes else {}),
        }


def split_by_attribute(
    attributes: Mapping[str, Sequence[str]], columns: NDArray[Any]
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Columns [*b, k], one for every value of every attribute, by attribute: [*b, values] each."""
    first = 0
    for name, values in attributes.items():
        yield name, columns[..., first : first + len(values)]
        first += len(values)


@dataclass(frozen=True, slots=True)
class Controls:
    """Raw state of the player's devices for one frame, before a keymap gives it meaning.

    held: device keys (see `ActionSpace.keymap`). pointer: movement since the last frame, pixels
    (right, down). slot: from 1.
    """

    held: frozenset[str] = frozenset()
    pointer: tuple[float, float] = (0.0, 0.0)
    slot: int = 1


@dataclass(frozen=True, slots=True)
class Keymap:
    """Turns `Controls` into an `Action`: device key -> key name, and degrees of camera per pixel of
    pointer movement.
    """

    bindings: Mapping[str, str]
    degrees_per_pixel: float = 0.15

    def action(self, controls: Controls) -> Action:
        """Keys without a binding are ignored: a player may hold whatever they like."""
        keys = {self.bindings[key] for key in controls.held if key in self.bindings}
        yaw, pitch = (axis * self.degrees_per_pixel for axis in controls.pointer)
        return Action(keys, (yaw, pitch), controls.slot)


@dataclass(frozen=True, slots=True)
class Frame:
    """One generated picture and where it belongs.

    pixels: uint8 [h, w, 3]. frame_index: 0 for the first generated frame of a session. action_seq:
    sequence number of the newest action that the frame answers (0: none yet). action_time_s: when
    that action arrived; started_s, finished_s: when generating began and ended; all on the
    monotonic clock of the machine that generates.
    """

    pixels: Pixels
    frame_index: int
    action_seq: int = 0
    action_time_s: float = 0.0
    started_s: float = 0.0
    finished_s: float = 0.0
    num_steps: int = 1


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
    """When a session's next frame is due, on the monotonic clock. Orders by time, then by session,
    so ties are stable.
    """

    deadline_s: float
    session_id: str
