"""Bytes of the socket: what is read, what is refused, and that the page packs the same."""

from __future__ import annotations

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reverie.core import ActionSpace, Frame
from reverie.server import protocol
from reverie.server.protocol import ActionMessage, CloseCode, ProtocolError
from tests.server.live import SPACE

ACTION = ActionMessage(7, 0b101, 1.5, -2.0, 3, 1234.5)
# The same bytes as in web/src/protocol.test.ts.
ACTION_BYTES = bytes.fromhex("0100030005000000070000000000c03f000000c000000000004a9340")
ACK_BYTES = bytes.fromhex("0200000002010000")
FRAME_BYTES = bytes.fromhex(
    "01020000050000000900000000000000000000000040594000002041000048420000003f00000000ffd8"
)


def test_messages_of_the_page_are_read():
    assert protocol.parse(ACTION_BYTES) == ACTION
    assert protocol.parse(ACK_BYTES) == protocol.AckMessage(258)
    command = protocol.parse(b'\x03{"command":"steps","steps":4}')
    assert command == protocol.CommandMessage("steps", {"steps": 4})
    assert protocol.parse(b"\x04\xff\xd8") == protocol.PictureMessage(b"\xff\xd8")


def test_python_clients_pack_the_same():
    assert protocol.pack_action(ACTION) == ACTION_BYTES
    assert protocol.pack_ack(258) == ACK_BYTES
    assert protocol.pack_picture(b"\xff\xd8") == b"\x04\xff\xd8"
    assert protocol.parse(protocol.pack_command("pause")) == protocol.CommandMessage("pause", {})


def test_a_frame_is_packed_as_the_page_reads_it():
    frame = Frame(
        np.zeros((1, 1, 3), np.uint8), 5, 9, action_time_s=1, started_s=1.01, finished_s=1.06,
        num_steps=2,
    )  # fmt: skip
    packed = protocol.pack_frame(frame, b"\xff\xd8", client_time_ms=101, encoded_s=1.0605)
    read, expected = protocol.parse_server(packed), protocol.parse_server(FRAME_BYTES)
    assert isinstance(read, protocol.FrameMessage)
    assert isinstance(expected, protocol.FrameMessage)
    assert packed[:24] == FRAME_BYTES[:24]
    times = (read.wait_ms, read.generate_ms, read.encode_ms)
    assert times == pytest.approx((expected.wait_ms, expected.generate_ms, expected.encode_ms))


def test_a_frame_that_answers_nothing_waited_for_nothing():
    frame = Frame(np.zeros((1, 1, 3), np.uint8), 0, started_s=100.0, finished_s=100.02)
    read = protocol.parse_server(protocol.pack_frame(frame, b"", 0.0, 100.02))
    assert isinstance(read, protocol.FrameMessage)
    assert read.wait_ms == 0.0


def test_an_action_becomes_a_vector_whose_turn_may_exceed_one_frame():
    vector = protocol.action_vector(ActionMessage(1, 0b11, 60.0, -3.0, 2, 0.0), SPACE)
    assert vector.dtype == np.float32
    assert vector.tolist() == pytest.approx(
        [1, 1, 0, 0, 0, 0, 0, 0, 4.0, -0.2, 0, 1, 0, 0, 0, 0, 1, 0]
    )


def test_a_world_without_camera_and_slots_ignores_both():
    space = ActionSpace(("left", "right"))
    vector = protocol.action_vector(ActionMessage(1, 0b10, 9.0, 9.0, 0, 0.0), space)
    assert vector.tolist() == [0, 1]


def action(**changes: float) -> bytes:
    values = {"flags": 0, "slot": 1, "keys": 0, "seq": 1, "yaw": 0.0, "pitch": 0.0, "time": 0.0}
    return struct.pack("<BBBxIIffd", 1, *{**values, **changes}.values())


@pytest.mark.parametrize(
    ("message", "code", "line"),
    [
        (b"", CloseCode.MALFORMED, "message type None"),
        (b"\x09", CloseCode.MALFORMED, "message type 9; expected one of 1 (ACTION)"),
        (ACTION_BYTES[:-1], CloseCode.MALFORMED, "ACTION of 27 bytes; expected 28"),
        (ACK_BYTES + b"\0", CloseCode.MALFORMED, "ACK of 9 bytes; expected 8"),
        (action(flags=1), CloseCode.MALFORMED, "ACTION flags 1"),
        (action(seq=0), CloseCode.MALFORMED, "ACTION seq 0"),
        (action(yaw=float("nan")), CloseCode.MALFORMED, "camera turn (nan, 0.0)"),
        (action(pitch=1e9), CloseCode.MALFORMED, "camera turn (0.0, 1000000000.0)"),
        (action(time=float("inf")), CloseCode.MALFORMED, "client time inf"),
        (b"\x03{", CloseCode.MALFORMED, "COMMAND is not JSON"),
        (b"\x03[]", CloseCode.MALFORMED, "unknown command None"),
        (b'\x03{"command":"fly"}', CloseCode.MALFORMED, "unknown command 'fly'"),
        (b'\x03{"command":[1]}', CloseCode.MALFORMED, "unknown command [1]"),
        (b"\x03" + b"[" * 4000, CloseCode.MALFORMED, "COMMAND is not JSON"),
        (b"\x02" * 5000, CloseCode.OVERSIZED, "message of 5000 bytes; the limit is 4096"),
        (b"\x04" * 262145, CloseCode.OVERSIZED, "message of 262145 bytes; the limit is 262144"),
    ],
)
def test_what_is_no_message_is_refused_in_one_line(message: bytes, code: CloseCode, line: str):
    with pytest.raises(ProtocolError) as caught:
        protocol.parse(message)
    assert caught.value.code == code
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "line"),
    [({"keys": 1 << 8}, "keys 0x0100; this world has 8 keys"), ({"slot": 7}, "slot 7 is not one")],
)
def test_keys_and_slots_that_the_world_lacks_are_refused(changes: dict[str, int], line: str):
    message = protocol.parse(action(**changes))
    assert isinstance(message, ActionMessage)
    with pytest.raises(ProtocolError, match=line):
        protocol.action_vector(message, SPACE)


@given(st.binary(max_size=64) | st.binary(max_size=60).map(lambda tail: b"\x03" + tail))
def test_no_bytes_do_more_than_be_refused(message: bytes):
    # What is refused is refused with a ProtocolError; anything else fails the test.
    with contextlib.suppress(ProtocolError):
        parsed = protocol.parse(message)
        if isinstance(parsed, ActionMessage):
            assert np.isfinite(protocol.action_vector(parsed, SPACE)).all()
