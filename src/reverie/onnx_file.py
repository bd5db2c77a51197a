"""Where an ONNX file expects its weights, read without the `onnx` package.

An ONNX file is a protobuf message. Tensors whose data lies outside say so in
`TensorProto.external_data` (field 13), as key-value pairs: "location", "offset", "length"
(https://github.com/onnx/onnx/blob/main/docs/ExternalData.md). The path to them is ModelProto.graph
(7) -> GraphProto.initializer (5). Checking them when a world is loaded tells a person that two
files do not belong together; the runtime's own message would come later and be longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from reverie.core import ReverieError

GRAPH, INITIALIZER, EXTERNAL_DATA, KEY, VALUE = 7, 5, 13, 1, 2
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class ExternalRange(NamedTuple):
    """A stretch of another file: its name as written in the graph, first byte, number of bytes."""

    location: str
    offset: int
    length: int


def external_ranges(file: Path) -> list[ExternalRange]:
    """Every range of external weights that the graph in this file names.

    Raises ReverieError if it is not a whole ONNX file.
    """
    try:
        model = memoryview(file.read_bytes())
        graphs = list(_children(model, GRAPH))
        if not graphs:
            raise ValueError("no graph inside")
        return [
            _range(list(_children(tensor, EXTERNAL_DATA)))
            for graph in graphs
            for tensor in _children(graph, INITIALIZER)
            if any(_children(tensor, EXTERNAL_DATA))
        ]
    except (ValueError, IndexError, OSError) as error:
        raise ReverieError(
            f"{file} is not a whole ONNX graph ({error}); download or export it again"
        ) from None


def _range(entries: list[memoryview]) -> ExternalRange:
    values: dict[str, str] = {}
    for entry in entries:
        key = b"".join(_children(entry, KEY)).decode()
        values[key] = b"".join(_children(entry, VALUE)).decode()
    return ExternalRange(
        values.get("location", ""), int(values.get("offset", 0)), int(values.get("length", 0))
    )


def _children(message: memoryview, number: int) -> Iterator[memoryview]:
    """The length-delimited fields of that number in a message, in order."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == VARINT:
            _, position = _varint(message, position)
        elif kind == BYTES:
            size, position = _varint(message, position)
            if position + size > len(message):
                raise ValueError("cut short")
            if tag >> 3 == number:
                yield message[position : position + size]
            position += size
        elif kind in (FIXED64, FIXED32):
            position += 8 if kind == FIXED64 else 4
        else:
            raise ValueError(f"unknown field type {kind}")


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")
