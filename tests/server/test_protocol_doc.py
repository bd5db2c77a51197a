"""docs/protocol.md says everything that there is, and its client plays."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import pytest

from reverie.codec import JpegCodec
from reverie.server import messages, protocol
from reverie.server.protocol import ClientMessage, CloseCode, ServerMessage
from scripts import protocol_types
from tests.server.live import running_server

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
TYPES = {"B": "u8", "H": "u16", "I": "u32", "f": "f32", "d": "f64"}


def fields_of(body: type) -> set[str]:
    return set(typing.get_type_hints(body))


def section(title: str) -> str:
    return re.split(rf"^#+ {title}$", TEXT, flags=re.M)[1].partition("\n## ")[0]


@pytest.mark.parametrize("message", [*ClientMessage, *ServerMessage], ids=lambda m: m.name)
def test_every_message_is_described(message: ClientMessage | ServerMessage):
    side = "From the client" if isinstance(message, ClientMessage) else "From the server"
    assert f"**{message.name} = {message.value}**" in section(side)


@pytest.mark.parametrize("layout", protocol_types.LAYOUTS)
def test_every_field_is_where_the_document_says(layout: str):
    form, names = protocol_types.LAYOUTS[layout]
    letters = re.sub(r"\d*x|<", "", form.format)
    offsets = protocol_types.offsets_of(form.format, names.split())
    name = layout.removesuffix("_LAYOUT")
    described = TEXT.split(f"**{name} = ")[1]
    assert described.partition(",")[2].startswith(f" {form.size} bytes")
    told = re.findall(r"^\| (\d+) \| (\w+) \| (\w+) \|", described.split("\n**")[0], re.M)
    expected = [
        (str(at), TYPES[letter], field)
        for (field, at), letter in zip(offsets.items(), letters, strict=True)
        if not field.startswith("reserved")
    ]
    assert told == expected


@pytest.mark.parametrize("command", protocol.COMMANDS)
def test_every_command_is_described(command: str):
    rows = re.findall(r"^\| (`.*?) \|", section("From the client"), re.M)
    assert command in {name.strip("`") for row in rows for name in row.split(", ")}


def test_every_close_code_is_described_and_no_other():
    told = re.findall(r"^\| (\d{4}) \| (\w+) \|", section("Closing"), re.M)
    assert told == [(str(code.value), code.name) for code in CloseCode]


@pytest.mark.parametrize(
    "body",
    [
        *(messages.HelloBody, messages.ActionSpaceBody, messages.StartBody, messages.StateBody),
        *(messages.PromptBody, messages.AnswerBody, messages.ErrorBody),
        *typing.get_args(messages.Command),
    ],
    ids=lambda body: body.__name__,
)
def test_every_field_of_json_is_described(body: type):
    words = set(re.findall(r"[`\"](\w+)[`\"]", section("Messages")))
    assert fields_of(body) - words == set()


def test_numbers_are_those_of_the_protocol():
    assert f"This is version {protocol.PROTOCOL_VERSION};" in TEXT
    assert f"| `protocol` | {protocol.PROTOCOL_VERSION};" in TEXT
    sizes = f"may have {protocol.MAX_MESSAGE_BYTES} bytes, a PICTURE\n{protocol.MAX_PICTURE_BYTES}."
    assert sizes in TEXT


def test_the_client_in_the_document_plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (client,) = re.findall(r"^```py\n(.*?)^```", TEXT, re.M | re.S)
    with running_server() as url:
        there = url.replace("http", "ws", 1)
        exec(compile(client.replace("ws://127.0.0.1:8137", there), "protocol.md", "exec"), {})
    assert JpegCodec().decode((tmp_path / "frame.jpg").read_bytes()).shape == (96, 160, 3)
