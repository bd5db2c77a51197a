"""One player's socket against the real server and engine: play, flow control, and every way to
misbehave.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from reverie.codec import JpegCodec
from reverie.core import Pixels, ReverieError
from reverie.engine import Engine
from reverie.server import SocketLimits, protocol
from reverie.server.protocol import CloseCode, FrameMessage
from tests.server.live import PLACES, LandscapeRuntime, landscape_engine, running_server
from tests.server.player_client import PlayerClient, player

FORWARD = 1


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_server(lambda: landscape_engine(num_slots=3)) as address:
        yield address


@contextlib.contextmanager
def served(
    num_slots: int = 1, silent_s: float = 10.0, idle_s: float = 900.0
) -> Iterator[tuple[str, Engine]]:
    """A server of its own, and the engine behind it."""
    engine = landscape_engine(num_slots)
    with running_server(
        lambda: engine, limits=SocketLimits(silent_s=silent_s, idle_s=idle_s)
    ) as address:
        yield address, engine


def eventually(holds: Callable[[], bool], timeout_s: float = 3.0) -> bool:
    end_s = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < end_s:
        time.sleep(0.01)
    return holds()


def picture(frame: FrameMessage) -> Pixels:
    return JpegCodec().decode(frame.jpeg)


def jpeg(height: int, width: int) -> bytes:
    return JpegCodec().encode_pixels(np.full((height, width, 3), (220, 30, 30), np.uint8))


def shift(before: Pixels, after: Pixels) -> int:
    """By how many columns the picture moved to the right."""
    rows = slice(20, 60)
    a, b = before[rows].astype(float), after[rows].astype(float)
    errors = {d: np.abs(a[:, 30 - d : 130 - d] - b[:, 30:130]).mean() for d in range(-25, 26)}
    return min(errors, key=lambda d: errors[d])


# Play.


def test_hello_comes_first_and_says_all_that_a_page_needs(url: str):
    with player(url) as client:
        client.until_state("playing")
    assert client.hello["protocol"] == protocol.PROTOCOL_VERSION
    assert (client.hello["world"], client.hello["width"], client.hello["fps"]) == (
        "landscape",
        160,
        20,
    )
    assert client.hello["action_space"]["keymap"]["w"] == "forward"
    assert [start["name"] for start in client.hello["starts"]] == list(PLACES)


def test_frames_come_at_the_worlds_rate_from_index_0(url: str):
    with player(url) as client:
        first = client.frame()
        frames = client.frames_within(1.0, acknowledge=True)
    assert first.frame_index == 0
    indices = [frame.frame_index for frame in frames]
    assert indices == sorted(set(indices))
    assert 10 <= len(frames) <= 22  # 20 a second; fewer where the machine has no time for tests
    assert picture(first).shape == (96, 160, 3)


def test_a_frame_answers_the_newest_action_and_echoes_its_time(url: str):
    with player(url) as client:
        client.frame()
        client.act(FORWARD, time_ms=41.0)
        seq = client.act(FORWARD, time_ms=42.5)
        frames = [client.frame() for _ in range(3)]
    answer = next(frame for frame in frames if frame.action_seq == seq)
    assert answer.client_time_ms == 42.5
    assert 0 <= answer.wait_ms < 60
    assert answer.generate_ms > 0
    assert 0 < answer.encode_ms < 20


@pytest.mark.parametrize(("yaw", "direction"), [(4.0, -1), (-4.0, 1)])
def test_turning_one_way_moves_the_picture_the_other_way(url: str, yaw: float, direction: int):
    with player(url, "?start=shore") as client:
        before = client.frame()
        seq = client.act(yaw=yaw)
        while (after := client.frame()).action_seq < seq:
            pass
    assert np.sign(shift(picture(before), picture(after))) == direction


def test_camera_turns_between_two_frames_add_up(url: str):
    with player(url, "?start=shore") as client:
        before = client.frame()
        seqs = [client.act(yaw=2.0) for _ in range(4)]
        while (after := client.frame()).action_seq < seqs[-1]:
            pass
    # 8 degrees, of 75 over 160 columns
    assert shift(picture(before), picture(after)) == pytest.approx(-15, abs=3)


def test_a_prompt_is_answered_with_what_it_set_and_from_which_frame(url: str):
    with player(url) as client:
        frame = client.frame()
        bright = picture(frame).mean()
        client.send(protocol.pack_command("prompt", text="a dark night"))
        client.send(protocol.pack_command("prompt", text="a castle"))
        while len(client.prompts) < 2:
            frame = client.frame()
        done, refused = client.prompts
        assert done["attributes"] == {"time_of_day": "night"}
        assert refused["error"].startswith(
            "this world does not know 'a castle'; it can change time"
        )
        while frame.frame_index < done["frame_index"]:
            frame = client.frame()
        assert picture(frame).mean() < bright / 2
    assert client.hello["prompts"] == ["a dark night", "a bright day"]


@pytest.mark.parametrize("text", [None, 5, "  "])
def test_a_prompt_without_words_is_malformed(url: str, text: object):
    with player(url) as client:
        client.frame()
        client.send(protocol.pack_command("prompt", text=text))
        assert client.until_closed() == CloseCode.MALFORMED
    assert "expected a wish in words" in client.error


def test_the_start_is_the_one_that_was_asked_for(url: str):
    with player(url, "?start=ridge") as ridge, player(url, "?start=hills") as hills:
        pictures = picture(ridge.frame()), picture(hills.frame())
    assert np.abs(pictures[0].astype(int) - pictures[1]).mean() > 20


# Commands.


def test_pause_stops_the_frames_and_resume_continues_where_it_stood(url: str):
    with player(url) as client:
        client.frame()
        client.command("pause")
        client.until_state("paused")
        last = client.frames_within(0.2)
        assert client.frames_within(0.3) == []
        client.command("resume")
        after = client.frame()
    assert after.frame_index <= (last[-1].frame_index if last else 0) + 3


def test_restart_begins_at_index_0(url: str):
    with player(url) as client:
        for _ in range(5):
            client.frame()
        client.command("restart", seed=3)
        while client.frame().frame_index:
            pass
        assert client.frame().frame_index == 1


def test_another_start_can_be_chosen_while_playing(url: str):
    with player(url, "?start=shore") as client, player(url, "?start=basin") as other:
        client.frame()
        client.command("start", name="basin")
        while (frame := client.frame()).frame_index:
            pass
        pictures = picture(frame), picture(other.frame())
    assert np.abs(pictures[0].astype(int) - pictures[1]).mean() < 5


def test_a_picture_can_be_the_start():
    with served() as (url, engine), player(url) as client:
        assert isinstance(engine.runtime, LandscapeRuntime)
        client.frame()
        client.send(protocol.pack_picture(jpeg(96, 160)))
        while client.frame().frame_index:
            pass
        client.command("restart")  # from the same picture
        while client.frame().frame_index:
            pass
        assert client.frame().frame_index == 1
        assert np.ptp(engine.runtime.began_from[..., 0]) < 8


@pytest.mark.parametrize(
    ("picture", "line"),
    [
        (b"hello", "the picture is not a whole JPEG"),
        (jpeg(96, 160)[:400], "the picture is not a whole JPEG"),
        (jpeg(8, 8), "picture of 8 x 8 pixels; expected 160 x 96, the world's size"),
        (jpeg(96, 1400), "picture of 1400 x 96 pixels; expected 160 x 96"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(url: str, picture: bytes, line: str):
    with player(url) as client:
        client.frame()
        client.send(protocol.pack_picture(picture))
        assert client.until_closed() == CloseCode.MALFORMED
    assert line in client.error


def test_pictures_cost_more_than_messages(url: str):
    with player(url) as client:
        client.frame()
        with contextlib.suppress(Exception):  # the server hangs up in the middle
            for _ in range(12):
                client.send(protocol.pack_picture(jpeg(96, 160)))
        assert client.until_closed() == CloseCode.FLOODING


def test_the_number_of_passes_can_be_changed(url: str):
    with player(url, "?steps=2") as client:
        assert client.frame().num_steps == 2
        client.command("steps", steps=4)
        assert [client.frame().num_steps for _ in range(4)][-1] == 4


# Flow control.


def test_never_more_than_two_frames_are_on_their_way(url: str):
    with player(url) as client:
        frames = client.frames_within(0.6)
        assert [frame.frame_index for frame in frames] == [0, 1]


def test_what_waits_is_the_newest_frame_and_not_a_queue(url: str):
    with player(url) as client:
        client.frames_within(0.6)
        client.send(protocol.pack_ack(1))
        newest = client.frame(acknowledge=False)
        assert newest.frame_index >= 8
        following = client.frame(acknowledge=False)
        assert following.frame_index == newest.frame_index + 1


def test_an_acknowledgement_covers_the_frames_before_it(url: str):
    with player(url) as client:
        client.frame(acknowledge=False)
        client.frame()
        assert len(client.frames_within(0.3)) == 2


def test_acknowledging_what_was_never_sent_makes_no_room(url: str):
    with player(url) as client:
        client.frames_within(0.3)
        client.send(protocol.pack_ack(999))
        assert client.frames_within(0.3) == []


# Places.


def test_a_second_tab_waits_where_one_can_see_it_and_moves_up():
    with served(num_slots=1) as (url, _), player(url) as first:
        first.frame()
        with player(url) as second, player(url) as third:
            assert second.until_state("queued")["position"] == 1
            assert third.until_state("queued")["position"] == 2
            first.socket.close()
            second.until_state("playing")
            assert second.frame().frame_index == 0
            while third.states[-1].get("position") != 1:
                third.receive()


def test_a_second_tab_plays_its_own_world_where_there_is_room(url: str):
    with player(url) as first, player(url) as second:
        first.frame()
        assert second.frame().frame_index == 0
        assert "queued" not in [state["state"] for state in second.states]


def test_waiting_in_the_queue_is_no_silence():
    with served(num_slots=1, silent_s=0.6, idle_s=0.6) as (url, _), player(url) as first:
        first.frame()
        with player(url) as second:
            second.until_state("queued")
            first.frames_within(1.5, acknowledge=True)
            first.socket.close()
            assert second.frame().frame_index == 0
            assert second.error == ""


def test_a_full_queue_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("reverie.server.fleet.MAX_WAITING", 1)
    with served(num_slots=1) as (url, _), player(url) as first:
        first.frame()
        with player(url) as second, player(url) as third:
            second.until_state("queued")
            assert third.until_closed() == CloseCode.BUSY
            assert "waiting already; try again later" in third.error


# Whatever ends a socket, its place is free again.


def hang_up(client: PlayerClient) -> None:
    client.socket.close()


def vanish(client: PlayerClient) -> None:
    """The other end is gone without a word, as when a browser is killed."""
    client.socket.socket.shutdown(socket.SHUT_RDWR)


def misbehave(client: PlayerClient) -> None:
    client.send(b"\xff")


def fall_silent(client: PlayerClient) -> None:
    client.frames_within(1.0)


@pytest.mark.parametrize("end", [hang_up, vanish, misbehave, fall_silent])
def test_the_place_is_given_back(end: Callable[[PlayerClient], None]):
    with served(num_slots=1, silent_s=0.6) as (url, engine), player(url) as client:
        client.frame()
        assert engine.num_active == 1
        end(client)
        assert eventually(lambda: engine.num_active == 0)


def test_a_dead_tab_is_told_why():
    with served(silent_s=0.5, idle_s=1.0) as (url, _), player(url) as client:
        assert client.until_closed() == CloseCode.SILENT
        assert client.error == "nobody played for 1 s; the place was given back"


def test_a_tab_that_only_acknowledges_is_alive():
    with served(silent_s=0.8) as (url, _), player(url) as client:
        assert len(client.frames_within(2.0, acknowledge=True)) > 10


def test_a_paused_tab_keeps_its_place_for_longer():
    with served(silent_s=0.3, idle_s=1.5) as (url, _), player(url) as client:
        client.frame()
        client.command("pause")
        client.until_state("paused")
        paused_s = time.monotonic()
        assert client.until_closed() == CloseCode.SILENT
        assert time.monotonic() - paused_s > 1.2


def test_the_server_stops_while_somebody_plays():
    with served() as (url, engine), player(url) as client:
        client.frame()
        address = url
    assert engine.num_active == 0
    with pytest.raises(OSError, match="refused"), player(address):
        pass


# Misbehaviour: one line, one code.


@pytest.mark.parametrize(
    ("messages", "code", "line"),
    [
        ([b"\xff"], CloseCode.MALFORMED, "message type 255"),
        (["forward"], CloseCode.MALFORMED, "text message; this protocol is binary"),
        ([b"\x01short"], CloseCode.MALFORMED, "ACTION of 6 bytes; expected 28"),
        ([bytes(4097)], CloseCode.OVERSIZED, "message of 4097 bytes; the limit is 4096"),
        ([b'\x03{"command":"start","name":"moon"}'], CloseCode.UNKNOWN, "no start 'moon'"),
        ([b'\x03{"command":"start","name":[]}'], CloseCode.UNKNOWN, "no start []"),
        ([b'\x03{"command":"steps","steps":3}'], CloseCode.MALFORMED, "steps 3; this world"),
        ([b'\x03{"command":"restart","seed":-1}'], CloseCode.MALFORMED, "seed -1; expected"),
        (
            [protocol.pack_action(protocol.ActionMessage(seq, 0, 0, 0, 1, 0)) for seq in (2, 2)],
            CloseCode.MALFORMED,
            "ACTION seq 2 after 2; expected it to grow",
        ),
    ],
)
def test_misbehaviour_ends_with_one_line(
    url: str, messages: list[bytes | str], code: CloseCode, line: str
):
    with player(url) as client:
        client.frame()
        for message in messages:
            client.send(message)
        assert client.until_closed() == code
    assert line in client.error
    assert "\n" not in client.error


def test_flooding_ends_with_one_line(url: str):
    with player(url) as client:
        client.frame()
        with contextlib.suppress(Exception):  # the server hangs up in the middle
            for _ in range(3000):
                client.act()
        assert client.until_closed() == CloseCode.FLOODING
    assert client.error == "too many messages; at most 300 a second"


def test_a_fast_player_is_no_flood(url: str):
    with player(url) as client:
        end_s = time.monotonic() + 1.5
        while time.monotonic() < end_s:
            client.act(FORWARD, yaw=0.5)
            time.sleep(1 / 160)
        assert client.frame().jpeg


@pytest.mark.parametrize(
    ("query", "code", "line"),
    [
        ("?world=atlantis", CloseCode.UNKNOWN, "no world 'atlantis'; this server plays"),
        ("?start=moon", CloseCode.UNKNOWN, "no start 'moon'; this world has shore, ridge"),
        ("?steps=3", CloseCode.MALFORMED, "steps 3; this world was trained for [1, 2, 4]"),
        ("?steps=many", CloseCode.MALFORMED, "steps 'many'"),
        ("?seed=x", CloseCode.MALFORMED, "seed 'x'; expected a whole number"),
        ("?seed=99999999999999999999", CloseCode.MALFORMED, "seed 99999999999999999999"),
    ],
)
def test_what_the_world_lacks_is_said_in_one_line(url: str, query: str, code: CloseCode, line: str):
    with player(url, query) as client:
        assert client.until_closed() == code
    assert line in client.error


# Loading.


def test_a_player_who_comes_early_sees_the_world_waking_up():
    woken = threading.Event()

    def load() -> Engine:
        woken.wait(5)
        return landscape_engine()

    with running_server(load) as url, player(url) as client:
        client.receive()
        assert client.states == [{"state": "warming"}]
        client.act(FORWARD)  # nobody to steer yet: no offence
        woken.set()
        client.frame()


def test_a_world_that_does_not_load_is_said_in_one_line():
    def load() -> Engine:
        raise ReverieError("model.safetensors is damaged or cut short; export it again")

    with running_server(load) as url, player(url) as client:
        assert client.until_closed() == CloseCode.FAILED
    assert client.error == (
        "the world did not load: model.safetensors is damaged or cut short; export it again"
    )


def test_an_engine_that_fails_says_why(monkeypatch: pytest.MonkeyPatch):
    engine = landscape_engine()
    with running_server(lambda: engine) as url, player(url) as client:
        client.frame()

        def fail(batch: object) -> None:
            raise RuntimeError("out of paint")

        monkeypatch.setattr(engine.runtime, "step", fail)
        assert client.until_closed() == CloseCode.FAILED
    assert "out of paint" in client.error
