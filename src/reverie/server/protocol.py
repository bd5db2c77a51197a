"""The messages of the socket, both ways; `web/src/protocol.ts` mirrors this file.

Binary, little endian, first byte is the type. Pure: bytes in, values out. Times that a client sends
are its own clock and are only ever echoed. What a message may not be is said here once, as a
`ProtocolError` with the line that the player reads.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reverie.core import Action, ActionSpace, Frame, ReverieError

PROTOCOL_VERSION = 3
MAX_MESSAGE_BYTES = 4096
MAX_PICTURE_BYTES = 256 * 1024
MAX_TURN_DEGREES = 3600.0
COMMANDS = (
    "end",
    "fork",
    "pause",
    "photon",
    "prompt",
    "restart",
    "resume",
    "rewind",
    "save",
    "share",
    "start",
    "steps",
)
SUBPROTOCOL = "reverie"
"""What a client that names subprotocols speaks; one with a token names that, too (`access`)."""

_ACTION = struct.Struct("<BBBxIIffd")
_ACK = struct.Struct("<B3xI")
_FRAME = struct.Struct("<BBHIIIdffff")


class ClientMessage(IntEnum):
    """First byte of what a client sends."""

    ACTION = 1
    ACK = 2
    COMMAND = 3
    PICTURE = 4


class ServerMessage(IntEnum):
    """First byte of what the server sends."""

    FRAME = 1
    STATE = 2
    HELLO = 3
    ERROR = 4
    PROMPT = 5
    ANSWER = 6


class CloseCode(IntEnum):
    """Why the server closes a socket. The last three digits follow HTTP where it has the idea."""

    MALFORMED = 4400
    UNAUTHORIZED = 4401
    FORBIDDEN = 4403
    UNKNOWN = 4404
    SILENT = 4408
    ELSEWHERE = 4409
    OVER = 4410
    OVERSIZED = 4413
    FLOODING = 4429
    FAILED = 4500
    BUSY = 4503


class ProtocolError(ReverieError):
    """A client did what it may not. `code` closes the socket, the message is one line for the
    player.
    """

    def __init__(self, code: CloseCode, line: str) -> None:
        super().__init__(line)
        self.code = code


@dataclass(frozen=True, slots=True)
class ActionMessage:
    """keys: bit i is `ActionSpace.keys[i]`. yaw_deg, pitch_deg: turn since the last message. slot:
    from 1, 0 for none.

    seq: grows with every message, from 1. client_time_ms: the client's clock, echoed with the frame
    that answers.
    """

    seq: int
    keys: int
    yaw_deg: float
    pitch_deg: float
    slot: int
    client_time_ms: float


@dataclass(frozen=True, slots=True)
class AckMessage:
    """The client has presented this frame."""

    frame_index: int


@dataclass(frozen=True, slots=True)
class CommandMessage:
    """One of `COMMANDS`, and what came with it: not checked yet."""

    command: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PictureMessage:
    """The session begins anew from this picture: a JPEG, not decoded yet."""

    jpeg: bytes


ClientValue = ActionMessage | AckMessage | CommandMessage | PictureMessage


def parse(message: bytes) -> ClientValue:
    """What a client sent. Raises ProtocolError on what is not a message of the protocol."""
    kind = message[0] if message else None
    limit = MAX_PICTURE_BYTES if kind == ClientMessage.PICTURE else MAX_MESSAGE_BYTES
    if len(message) > limit:
        raise ProtocolError(
            CloseCode.OVERSIZED, f"message of {len(message)} bytes; the limit is {limit}"
        )
    if kind == ClientMessage.ACTION:
        return _parse_action(message)
    if kind == ClientMessage.ACK:
        _expect_length(message, _ACK.size, "ACK")
        return AckMessage(_ACK.unpack(message)[1])
    if kind == ClientMessage.COMMAND:
        return _parse_command(message)
    if kind == ClientMessage.PICTURE:
        return PictureMessage(message[1:])
    known = ", ".join(f"{known.value} ({known.name})" for known in ClientMessage)
    raise _malformed(f"message type {kind}; expected one of {known}")


Vectors = dict[tuple[int, int], NDArray[np.float32]]
"""Encoded actions without their turns, by keys and slot."""
MAX_VECTORS = 256


def action_vector(
    message: ActionMessage, space: ActionSpace, known: Vectors | None = None
) -> NDArray[np.float32]:
    """float32 [A], as `ActionSpace.encode`, but with the camera left unclipped: the mailbox of the
    session adds turns up and hands out at most `camera_limit` a frame. Raises ProtocolError on keys
    or a slot that the world does not have. known: those of this
    space that were encoded before; grows up to MAX_VECTORS.
    """
    if message.keys >> len(space.keys):
        raise _malformed(f"keys {message.keys:#06x}; this world has {len(space.keys)} keys")
    known = {} if known is None else known
    if (vector := known.get((message.keys, message.slot))) is None:
        held = [name for bit, name in enumerate(space.keys) if message.keys >> bit & 1]
        try:
            vector = space.encode(Action(held, slot=message.slot))
        except ValueError as error:
            raise _malformed(str(error)) from None
        if len(known) < MAX_VECTORS:
            known[message.keys, message.slot] = vector
    vector = vector.copy()
    if space.camera_limit:
        turn = (message.yaw_deg, message.pitch_deg)
        vector[space.camera_columns] = np.divide(turn, space.camera_limit)
    return vector


def pack_action(message: ActionMessage) -> bytes:
    """The client's side of ACTION, for Python clients and tests."""
    return _ACTION.pack(
        ClientMessage.ACTION,
        0,
        message.slot,
        message.keys,
        message.seq,
        message.yaw_deg,
        message.pitch_deg,
        message.client_time_ms,
    )


def pack_ack(frame_index: int) -> bytes:
    """The client's side of ACK."""
    return _ACK.pack(ClientMessage.ACK, frame_index)


def pack_picture(jpeg: bytes) -> bytes:
    """The client's side of PICTURE."""
    return bytes([ClientMessage.PICTURE]) + jpeg


def pack_command(command: str, **arguments: Any) -> bytes:
    """The client's side of COMMAND."""
    return _pack_json(ClientMessage.COMMAND, {"command": command, **arguments})


def pack_frame(frame: Frame, jpeg: bytes, client_time_ms: float, encoded_s: float) -> bytes:
    """FRAME. client_time_ms: of the answered action. encoded_s: when the JPEG was ready; its encode
    time counts from the end of generating, so that waiting for the encoder is not lost between two
    numbers.
    """
    wait_s = frame.started_s - frame.action_time_s if frame.action_seq else 0.0
    header = _FRAME.pack(
        ServerMessage.FRAME,
        frame.num_steps,
        0,
        frame.frame_index,
        frame.action_seq,
        0,
        client_time_ms,
        1e3 * wait_s,
        1e3 * (frame.finished_s - frame.started_s),
        1e3 * (encoded_s - frame.finished_s),
        0.0,
    )
    return header + jpeg


@dataclass(frozen=True, slots=True)
class FrameMessage:
    """FRAME as a client reads it."""

    num_steps: int
    frame_index: int
    action_seq: int
    client_time_ms: float
    wait_ms: float
    generate_ms: float
    encode_ms: float
    jpeg: bytes


def parse_server(message: bytes) -> FrameMessage | tuple[ServerMessage, dict[str, Any]]:
    """The client's side: a frame, or (STATE | HELLO | ERROR | PROMPT | ANSWER, its JSON)."""
    if message[0] != ServerMessage.FRAME:
        return ServerMessage(message[0]), json.loads(message[1:])
    _, num_steps, _, index, seq, _, client_time_ms, wait, generate, encode, _ = _FRAME.unpack_from(
        message
    )
    jpeg = message[_FRAME.size :]
    return FrameMessage(num_steps, index, seq, client_time_ms, wait, generate, encode, jpeg)


def pack_state(state: str, **details: Any) -> bytes:
    """STATE: of the session, with a reason or a place in the queue where there is one.
    replay: a replay still runs. left_s: until the time limit, where that is near.
    """
    return _pack_json(ServerMessage.STATE, {"state": state, **details})


def pack_queued(position: int, wait_s: float | None) -> bytes:
    """STATE of a session in the line: its place, from 1, and seconds that it may take, if known."""
    expected = {} if wait_s is None else {"expected_wait_s": round(wait_s)}
    return pack_state("queued", position=position, **expected)


def pack_hello(description: Mapping[str, Any]) -> bytes:
    """HELLO: what a client must know to play (`engine_host.describe`)."""
    return _pack_json(ServerMessage.HELLO, {"protocol": PROTOCOL_VERSION, **description})


def pack_prompt(text: str, **answer: Any) -> bytes:
    """PROMPT: the answer to a wish. Either the attributes it set and the frame_index that shows
    them first, or an error: one line that says what could be wished for.
    """
    return _pack_json(ServerMessage.PROMPT, {"text": text, **answer})


def pack_answer(command: str, **answer: Any) -> bytes:
    """ANSWER: what came of save, fork or share: where the file is, a token, a link, or an error."""
    return _pack_json(ServerMessage.ANSWER, {"command": command, **answer})


def pack_error(line: str) -> bytes:
    """ERROR: one line for the player; the socket closes after it."""
    return _pack_json(ServerMessage.ERROR, {"error": line})


def _pack_json(kind: IntEnum, value: Mapping[str, Any]) -> bytes:
    return bytes([kind]) + json.dumps(value, separators=(",", ":")).encode()


def _parse_action(message: bytes) -> ActionMessage:
    _expect_length(message, _ACTION.size, "ACTION")
    _, flags, slot, keys, seq, yaw, pitch, client_time_ms = _ACTION.unpack(message)
    if flags:
        raise _malformed(f"ACTION flags {flags}; this protocol has none, expected 0")
    if not seq:
        raise _malformed("ACTION seq 0; expected a number that grows from 1")
    if not (abs(yaw) <= MAX_TURN_DEGREES and abs(pitch) <= MAX_TURN_DEGREES):
        raise _malformed(f"camera turn ({yaw}, {pitch}); expected degrees within a few turns")
    if not math.isfinite(client_time_ms):
        raise _malformed(f"client time {client_time_ms}; expected milliseconds")
    return ActionMessage(seq, keys, yaw, pitch, slot, client_time_ms)


def _parse_command(message: bytes) -> CommandMessage:
    try:
        value = json.loads(message[1:])
    except (ValueError, RecursionError):
        raise _malformed("COMMAND is not JSON") from None
    command = value.get("command") if isinstance(value, dict) else None
    if command not in COMMANDS:
        raise _malformed(f"unknown command {command!r:.40}; expected one of {', '.join(COMMANDS)}")
    return CommandMessage(command, {key: value[key] for key in value if key != "command"})


def _expect_length(message: bytes, length: int, name: str) -> None:
    if len(message) != length:
        raise _malformed(f"{name} of {len(message)} bytes; expected {length}")


def _malformed(line: str) -> ProtocolError:
    return ProtocolError(CloseCode.MALFORMED, line)
