"""A player in Python for the tests of the socket: reads messages, acknowledges frames."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from reverie.server import protocol
from reverie.server.protocol import ActionMessage, FrameMessage, ServerMessage


class PlayerClient:
    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.states: list[dict[str, Any]] = []
        self.hello: dict[str, Any] = {}
        self.error = ""
        self.prompts: list[dict[str, Any]] = []
        self.answers: list[dict[str, Any]] = []
        self.seq = 0

    def receive(self, timeout_s: float = 5.0) -> FrameMessage | None:
        """The next message; a frame is returned, the others are kept."""
        data = self.socket.recv(timeout=timeout_s, decode=False)
        message = protocol.parse_server(data)
        if isinstance(message, FrameMessage):
            return message
        kind, body = message
        if kind is ServerMessage.STATE:
            self.states.append(body)
        elif kind is ServerMessage.HELLO:
            self.hello = body
        elif kind is ServerMessage.PROMPT:
            self.prompts.append(body)
        elif kind is ServerMessage.ANSWER:
            self.answers.append(body)
        else:
            self.error = body["error"]
        return None

    def frame(self, acknowledge: bool = True) -> FrameMessage:
        """The next frame."""
        while True:
            frame = self.receive()
            if frame is not None:
                if acknowledge:
                    self.send(protocol.pack_ack(frame.frame_index))
                return frame

    def frames_within(self, duration_s: float, acknowledge: bool = False) -> list[FrameMessage]:
        frames, end_s = [], time.monotonic() + duration_s
        while (rest_s := end_s - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                frame = self.receive(rest_s)
                if frame is not None:
                    frames.append(frame)
                    if acknowledge:
                        self.send(protocol.pack_ack(frame.frame_index))
        return frames

    def until_state(self, state: str) -> dict[str, Any]:
        while not self.states or self.states[-1]["state"] != state:
            self.receive()
        return self.states[-1]

    def ask(self, command: str) -> dict[str, Any]:
        """What came of save, fork or share."""
        self.command(command)
        while not self.answers:
            frame = self.receive()
            if frame is not None:
                self.send(protocol.pack_ack(frame.frame_index))
        return self.answers.pop(0)

    def until_closed(self, acknowledge: bool = False) -> int | None:
        """Reads whatever still comes and returns the code with which the server closed."""
        try:
            while True:
                frame = self.receive()
                if frame is not None and acknowledge:
                    self.send(protocol.pack_ack(frame.frame_index))
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else None

    def send(self, message: bytes | str) -> None:
        self.socket.send(message)

    def act(self, keys: int = 0, yaw: float = 0.0, slot: int = 1, time_ms: float = 0.0) -> int:
        self.seq += 1
        self.send(protocol.pack_action(ActionMessage(self.seq, keys, yaw, 0.0, slot, time_ms)))
        return self.seq

    def command(self, command: str, **arguments: Any) -> None:
        self.send(protocol.pack_command(command, **arguments))


@contextlib.contextmanager
def player(url: str, query: str = "", **options: Any) -> Iterator[PlayerClient]:
    """A client of the server at this address ("http://...")."""
    address = f"{url.replace('http', 'ws', 1)}/ws{query}"
    with connect(address, compression=None, **options) as socket:
        yield PlayerClient(socket)
