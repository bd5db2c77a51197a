"""Writes what others are told of the server from what Python says: the page's types of the socket's
protocol and of the dashboard's figures (TypeScript), and docs/openapi.json.

python scripts/protocol_types.py            writes the files
python scripts/protocol_types.py --check    exits with 1 when one is not what Python says
"""

from __future__ import annotations

import json
import struct
import sys
import types
import typing
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal, NotRequired, Union

from reverie.server import messages, openapi, protocol, status, usage

ROOT = Path(__file__).resolve().parent.parent
PROTOCOL_FILE = ROOT / "web" / "src" / "protocol.generated.ts"
STATUS_FILE = ROOT / "web" / "src" / "status.generated.ts"
OPENAPI_FILE = ROOT / "docs" / "openapi.json"
OPENING = "// Written by scripts/protocol_types.py from {}: change that instead.\n"
NUMBERS = (
    "PROTOCOL_VERSION",
    "MAX_MESSAGE_BYTES",
    "MAX_PICTURE_BYTES",
    "MAX_TURN_DEGREES",
)
LAYOUTS = {
    "ACTION_LAYOUT": (
        protocol._ACTION,
        "type flags slot keys seq yaw_deg pitch_deg client_time_ms",
    ),
    "ACK_LAYOUT": (protocol._ACK, "type frame_index"),
    "FRAME_LAYOUT": (
        protocol._FRAME,
        "type num_steps reserved frame_index action_seq reserved2 "
        "client_time_ms wait_ms generate_ms encode_ms reserved3",
    ),
}
"""What the fields of a binary message are called, in their order."""
BODIES = (
    messages.ActionSpaceBody,
    messages.StartBody,
    messages.WorldBody,
    messages.HelloBody,
    messages.StateBody,
    messages.PromptBody,
    messages.AnswerBody,
    messages.ErrorBody,
    *typing.get_args(messages.Command),
)


STATUS_BODIES = (
    status.Percentiles,
    status.StageFigures,
    status.EngineFigures,
    status.EngineBody,
    status.WorldSessions,
    status.FrameFigures,
    status.PowerFigures,
    usage.UsageBody,
    status.StatusBody,
)


def files() -> dict[Path, str]:
    """Every file that is written here, and its text."""
    return {
        PROTOCOL_FILE: protocol_types(),
        STATUS_FILE: status_types(),
        OPENAPI_FILE: json.dumps(openapi.document(), indent=1, ensure_ascii=False) + "\n",
    }


def status_types() -> str:
    """The figures of the dashboard, TypeScript."""
    parts = [OPENING.format("status.py and usage.py")]
    for body in STATUS_BODIES:
        parts += [*_interface(body), ""]
    return "\n".join(parts)


def protocol_types() -> str:
    """The protocol of the socket, TypeScript."""
    parts = [OPENING.format("protocol.py and messages.py")]
    parts += [f"export const {name} = {_number(getattr(protocol, name))};" for name in NUMBERS]
    parts.append(f"export const SUBPROTOCOL = {json.dumps(protocol.SUBPROTOCOL)};")
    for enum in (protocol.ClientMessage, protocol.ServerMessage, protocol.CloseCode):
        parts += ["", *_enum(enum)]
    parts += ["", "/** Bytes from the start of each field; all numbers are little endian. */"]
    parts += [_layout(name, *layout) for name, layout in LAYOUTS.items()]
    commands = [json.dumps(command) for command in protocol.COMMANDS]
    parts += ["", f"export const COMMANDS = [{', '.join(commands)}] as const;"]
    parts.append("export type CommandName = (typeof COMMANDS)[number];")
    for name in ("StateName", "KeptName"):
        parts += ["", f"export type {name} = {_type(getattr(messages, name))};"]
    for body in BODIES:
        parts += ["", *_interface(body)]
    parts += ["", "/** The JSON of COMMAND. */"]
    parts.append(f"export type Command = {_type(messages.Command)};")
    return "\n".join(parts) + "\n"


def _number(value: float) -> str:
    return json.dumps(int(value) if value == int(value) else value)


def _enum(enum: type[IntEnum]) -> list[str]:
    """Its members as a constant object, and the type of their values."""
    members = [f"  {member.name}: {member.value}," for member in enum]
    return [
        *_comment(enum),
        f"export const {enum.__name__} = {{",
        *members,
        "} as const;",
        f"export type {enum.__name__} = (typeof {enum.__name__})[keyof typeof {enum.__name__}];",
    ]


def _layout(name: str, layout: struct.Struct, fields: str) -> str:
    offsets = offsets_of(layout.format, fields.split())
    inside = ", ".join(
        f"{field}: {at}" for field, at in offsets.items() if not field.startswith("reserved")
    )
    return f"export const {name} = {{ {inside}, bytes: {layout.size} }} as const;"


def offsets_of(form: str, fields: list[str]) -> dict[str, int]:
    """Where each field of a packed struct begins; padding ("3x") has no field."""
    offsets, at, count = [], 0, ""
    for letter in form.removeprefix("<"):
        if letter.isdigit():
            count += letter
            continue
        if letter != "x":
            assert not count, f"{form}: a field is written once for each"
            offsets.append(at)
        at += struct.calcsize(f"<{count}{letter}")
        count = ""
    return dict(zip(fields, offsets, strict=True))


def _interface(body: type) -> list[str]:
    """Its fields, inherited ones too: TypeScript compares by shape."""
    fields = [
        f"  {name}{'?' if typing.get_origin(hint) is NotRequired else ''}: {_type(hint)};"
        for name, hint in typing.get_type_hints(body, include_extras=True).items()
    ]
    return [*_comment(body), f"export interface {body.__name__} {{", *fields, "}"]


def _comment(documented: type) -> list[str]:
    return [f"/** {' '.join((documented.__doc__ or '').split())} */"]


def _type(hint: Any) -> str:
    """A Python type in TypeScript. Raises TypeError on one that no message has."""
    plain = {str: "string", int: "number", float: "number", bool: "boolean", type(None): "null"}
    if hint in plain:
        return plain[hint]
    if hint in (*BODIES, *STATUS_BODIES):
        return hint.__name__
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is NotRequired:
        return _type(arguments[0])
    if origin is Literal:
        return " | ".join(json.dumps(value) for value in arguments)
    if origin in (Union, types.UnionType):
        return " | ".join(_type(argument) for argument in arguments)
    if origin is list:
        return f"{_type(arguments[0])}[]"
    if origin is dict and arguments[0] is str:
        return f"Record<string, {_type(arguments[1])}>"
    raise TypeError(f"{hint} has no form in TypeScript here")


def main() -> int:
    wrong = {
        path: text
        for path, text in files().items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    }
    if "--check" in sys.argv[1:]:
        for path in wrong:
            name = path.relative_to(ROOT).as_posix()
            print(f"{name} is not what Python says; run `make docs`", file=sys.stderr)
        return 1 if wrong else 0
    for path, text in wrong.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
