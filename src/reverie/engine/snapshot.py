"""The state of a session as bytes.

A snapshot is a safetensors file in memory: arrays, and text metadata that says what it is, which
format, and the fingerprint of the world it belongs to. Runtimes and saved sessions both use it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from reverie.core import ReverieError

SNAPSHOT_VERSION = 2


def pack(
    kind: str,
    fingerprint: str,
    arrays: Mapping[str, NDArray[Any]],
    values: Mapping[str, int | float | str],
) -> bytes:
    """Arrays and values as bytes. kind: what they are. fingerprint: of the world they fit."""
    about = {
        "version": SNAPSHOT_VERSION,
        "kind": kind,
        "world": fingerprint,
        "values": dict(values),
    }
    # One entry: safetensors writes several in random order, and equal states are equal bytes.
    header = {"reverie": json.dumps(about, sort_keys=True)}
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, header)


def unpack(
    kind: str, fingerprint: str, data: bytes
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """What was packed. Raises ReverieError if it is not a snapshot, or not one of this world."""
    try:
        about = _about(data)
        version, found, world = about["version"], about["kind"], about["world"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ReverieError("this is not a Reverie session, or it is damaged") from None
    if version != SNAPSHOT_VERSION:
        raise ReverieError(
            f"the session was saved in format {version}; this Reverie reads {SNAPSHOT_VERSION}"
        )
    if found != kind:
        raise ReverieError(
            f"the session was saved by {found!r}; expected {kind!r}: open it with the runtime that "
            "saved it"
        )
    if world != fingerprint:
        raise ReverieError(
            "the session belongs to another world, or to other weights of it "
            f"({world[:12]}...); this one is {fingerprint[:12]}..."
        )
    try:
        arrays, values = load(data), about["values"]
    except (SafetensorError, KeyError):
        arrays, values = {}, None
    if not isinstance(values, dict):
        raise ReverieError("the saved session is damaged or cut short")
    return arrays, values


def kind_of(data: bytes) -> str:
    """What packed it; empty where that cannot be told."""
    try:
        return str(_about(data)["kind"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def check_pending(
    arrays: Mapping[str, NDArray[Any]],
    values: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """Of a slot whose newest frame is not in its memory yet: what is known of that frame. A file
    may come from anywhere, and what breaks a step breaks it for everybody who is drawn in it.

    shapes: of its arrays, by name. Raises ReverieError unless all of it can be.
    """
    good = set(values) == {"frame_index", "seed"} and all(
        type(value) is int and 0 <= value < limit
        for value, limit in ((values["frame_index"], 2**31), (values["seed"], 2**64))
    )
    for name, shape in shapes.items():
        array = arrays.get(name)
        good = good and array is not None and array.shape == shape
        good = good and array is not None and array.dtype == np.float32
        good = good and array is not None and bool(np.isfinite(array).all())
    if not good:
        raise ReverieError("the saved session has a newest frame that cannot be")


def _about(data: bytes) -> dict[str, Any]:
    size = int.from_bytes(data[:8], "little")
    return json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["reverie"])
