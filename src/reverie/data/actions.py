"""Actions as they lie in a log: a few bytes a frame, and exactly what the environment was given.

Five kinds, by what the environment takes:

    controls   the encoded vector of a `core.ActionSpace`, which it offers as `unwrapped.controls`
    discrete   one of n choices (Discrete); a world sees n keys, of which at most one is held
    binary     n switches (MultiBinary); a world sees n keys
    vector     numbers (Box), stored as they are, float32; no `core.ActionSpace`
    mapped     anything else: a TOML file says what a player's keys set (`data.mapping`)

Recording rounds every action to what the log can hold *before* the environment sees it, so that a
replay is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverie.core import Action, ActionSpace, ReverieError, split_by_attribute
from reverie.data.mapping import ActionMapping

CAMERA_STEP_DEG = 0.5
"""The log's camera resolution. Coarser than a mouse, finer than a pixel of a small picture is
worth.
"""

KINDS = ("controls", "discrete", "binary", "vector", "mapped")

Vectors = NDArray[np.float32]
Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class ActionFormat:
    """How one environment's actions become vectors for training, [A] float32, and columns for the
    log.

    kind: one of `KINDS`. width: A, the length of a vector. space: what a player holds; None for
        plain numbers.
    shape, low, high: the environment's own shape and bounds of a "vector" action. mapping: what
        the keys of a "mapped" one set.
    """

    kind: str
    width: int
    space: ActionSpace | None = None
    shape: tuple[int, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    mapping: ActionMapping | None = None

    @classmethod
    def mapped(cls, mapping: ActionMapping) -> ActionFormat:
        return cls("mapped", mapping.space.width, mapping.space, mapping=mapping)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ReverieError(
                f"action kind {self.kind!r} is unknown; expected one of {list(KINDS)}"
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the log's columns, in the order of the file."""
        if self.kind == "vector":
            return ("vector",)
        if self.kind == "discrete":
            return ("choice",)
        space = self._space()
        camera = ("yaw", "pitch") if space.camera_limit else ()
        attributes = (attribute_column(name) for name in space.attributes)
        return ("keys", *camera, *(("slot",) if space.num_slots else ()), *attributes)

    def idle(self) -> Vectors:
        """float32 [A]: nothing held, camera at rest, first slot; all zeros where that has no
        meaning.
        """
        if self.kind in ("controls", "mapped"):
            return self._space().encode(Action())
        vector = np.zeros(self.width, np.float32)
        if self.kind == "discrete":
            vector[0] = 1.0
        return vector

    def pack(self, vectors: Vectors) -> Columns:
        """Vectors [t, A] -> columns, each [t] or [t, A]. Rounds to what the log holds (camera: 0.5
        degrees).

        Raises ReverieError where the shape is wrong or a number is not finite.
        """
        vectors = np.asarray(vectors, np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.width:
            raise ReverieError(f"actions have shape {vectors.shape}; expected [t, {self.width}]")
        if not np.isfinite(vectors).all():
            raise ReverieError("actions hold a number that is not finite; check the policy")
        if self.kind == "vector":
            return {"vector": vectors}
        if self.kind == "discrete":
            return {"choice": vectors.argmax(axis=1).astype(_unsigned(self.width))}
        return self._pack_controls(vectors)

    def unpack(self, columns: Mapping[str, NDArray[Any]]) -> Vectors:
        """Columns -> vectors float32 [t, A]; the inverse of `pack` up to its rounding."""
        if self.kind == "vector":
            return np.asarray(columns["vector"], np.float32)
        if self.kind == "discrete":
            return np.eye(self.width, dtype=np.float32)[columns["choice"]]
        space = self._space()
        num_keys = len(space.keys)
        bits = columns["keys"].astype(np.uint64)[:, None] >> np.arange(num_keys, dtype=np.uint64)
        parts = [(bits & np.uint64(1)).astype(np.float32)]
        if space.camera_limit:
            camera = np.stack([columns["yaw"], columns["pitch"]], axis=1).astype(np.float32)
            parts.append(camera * np.float32(CAMERA_STEP_DEG / space.camera_limit))
        if space.num_slots:
            parts.append(np.eye(space.num_slots, dtype=np.float32)[columns["slot"] - 1])
        for name, values in space.attributes.items():
            parts.append(np.eye(len(values), dtype=np.float32)[columns[attribute_column(name)]])
        return np.concatenate(parts, axis=1)

    def quantise(self, vector: Vectors) -> Vectors:
        """The action [A] that a replay of the log will give: what the environment must be stepped
        with.
        """
        return self.unpack(self.pack(np.asarray(vector, np.float32)[None]))[0]

    def to_env(self, vector: Vectors) -> Any:
        """The vector [A] in the form that `env.step` takes."""
        if self.kind == "discrete":
            return int(np.argmax(vector))
        if self.kind == "binary":
            return (vector > 0.5).astype(np.int8)
        if self.mapping is not None:
            return self.mapping.to_env(vector)
        return vector if self.kind == "controls" else vector.reshape(self.shape)

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "width": self.width,
            "shape": list(self.shape),
            "low": list(self.low),
            "high": list(self.high),
            "action_space": self.space.to_json() if self.space else None,
            **({"mapping": self.mapping.to_json()} if self.mapping else {}),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ActionFormat:
        space = ActionSpace(**values["action_space"]) if values["action_space"] else None
        if space and space.camera_limit and "pitch_limits" not in values["action_space"]:
            raise ReverieError(
                "the data set does not say how far the camera looks up and down (pitch_limits), "
                "so it is of an older Reverie; record it again"
            )
        if "mapping" in values:
            return cls.mapped(ActionMapping.from_json(values["mapping"]))
        shape, low, high = (tuple(values[name]) for name in ("shape", "low", "high"))
        return cls(values["kind"], int(values["width"]), space, shape, low, high)

    def _pack_controls(self, vectors: Vectors) -> Columns:
        space = self._space()
        num_keys = len(space.keys)
        weights = np.uint64(1) << np.arange(num_keys, dtype=np.uint64)
        held = vectors[:, :num_keys] > 0.5
        columns: Columns = {
            "keys": (held * weights).sum(axis=1, dtype=np.uint64).astype(_unsigned(1 << num_keys))
        }
        if space.camera_limit:
            camera = np.clip(vectors[:, num_keys : num_keys + 2], -1.0, 1.0) * space.camera_limit
            # Truncating at the limit keeps a limit that is no multiple of the step from being
            # exceeded.
            most = int(space.camera_limit / CAMERA_STEP_DEG + 1e-6)
            steps = np.clip(np.rint(camera / CAMERA_STEP_DEG), -most, most)
            steps = steps.astype(np.int8 if most < 128 else np.int16)
            columns["yaw"], columns["pitch"] = steps[:, 0], steps[:, 1]
        if space.num_slots:
            slots = vectors[:, space.slot_columns].argmax(axis=1) + 1
            columns["slot"] = slots.astype(_unsigned(space.num_slots + 1))
        told = vectors[:, space.attribute_columns]
        for name, part in split_by_attribute(space.attributes, told):
            columns[attribute_column(name)] = part.argmax(axis=1).astype(_unsigned(part.shape[1]))
        return columns

    def _space(self) -> ActionSpace:
        assert self.space is not None, f"actions of kind {self.kind!r} have no action space"
        return self.space


def attribute_column(name: str) -> str:
    """Name of the log's column that says which value an attribute has."""
    return f"attribute_{name}"


def _unsigned(num_values: int) -> np.dtype[Any]:
    """The smallest unsigned integer type that counts 0 .. num_values - 1."""
    return np.min_scalar_type(max(num_values - 1, 0))
