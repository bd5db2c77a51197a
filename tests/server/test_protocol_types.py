"""What the page is told about the protocol is what Python says."""

from __future__ import annotations

import struct
import typing
from pathlib import Path

import pytest

from reverie.server import messages, protocol
from reverie.server.protocol import ActionMessage
from scripts import protocol_types


@pytest.mark.parametrize("path", protocol_types.files(), ids=lambda path: path.name)
def test_the_file_is_current(path: Path):
    written = path.read_text(encoding="utf-8")
    assert written == protocol_types.files()[path], "run `make docs`"


def test_every_command_has_a_type():
    typed = [
        name
        for body in typing.get_args(messages.Command)
        for name in typing.get_args(typing.get_type_hints(body)["command"])
    ]
    assert sorted(typed) == sorted(protocol.COMMANDS)


def test_fields_are_where_python_packs_them():
    """A client that knows nothing but the layouts reads what Python wrote."""
    packed = protocol.pack_action(ActionMessage(7, 0b101, 1.5, -2.0, 3, 1234.5))
    layout, names = protocol_types.LAYOUTS["ACTION_LAYOUT"]
    at = protocol_types.offsets_of(layout.format, names.split())
    read = {
        name: struct.unpack_from(form, packed, at[name])[0]
        for name, form in [("slot", "<B"), ("keys", "<I"), ("seq", "<I"), ("yaw_deg", "<f")]
    }
    assert read == {"slot": 3, "keys": 0b101, "seq": 7, "yaw_deg": 1.5}
    assert struct.unpack_from("<d", packed, at["client_time_ms"])[0] == 1234.5


def test_padding_has_no_field():
    assert protocol_types.offsets_of("<B3xI", ["type", "frame_index"]) == {
        "type": 0,
        "frame_index": 4,
    }
    with pytest.raises(ValueError, match="zip"):  # a field was added, and not named
        protocol_types.offsets_of("<B3xII", ["type", "frame_index"])


def test_a_type_that_json_does_not_have_is_refused():
    with pytest.raises(TypeError, match="no form in TypeScript"):
        protocol_types._type(bytes)
