"""A session over everything that can happen to it: lost connections, evictions, engines that die,
files, forks and links. And that nothing of it is left when it is over.
"""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette

from reverie.engine import Engine, Handle, Replay, SavedSession
from reverie.server import SocketLimits
from reverie.server.lobby import Lobby, Seat
from reverie.server.protocol import CloseCode
from tests.server.live import landscape_engine, running_server
from tests.server.player_client import PlayerClient, player
from tests.server.test_player import FORWARD, eventually, picture


@contextmanager
def served(num_slots: int = 1, **limits: Any) -> Iterator[tuple[str, Engine, Lobby]]:
    """A server of its own, its engine and its lobby."""
    engine = landscape_engine(num_slots)
    apps: list[Starlette] = []
    with running_server(
        lambda: engine, limits=SocketLimits(**limits), on_app=apps.append
    ) as address:
        yield address, engine, apps[0].state.lobby


def play(client: PlayerClient, num_frames: int, keys: int = FORWARD) -> Any:
    """The last of so many frames."""
    client.act(keys)
    return [client.frame() for _ in range(num_frames)][-1]


def resume_of(client: PlayerClient) -> str:
    while not client.hello:
        client.receive()
    return f"?resume={client.hello['resume']}"


# Lost connections.


def test_a_lost_connection_goes_on_where_it_was():
    with served() as (url, engine, _):
        with player(url) as client:
            last = play(client, 12)
            token = resume_of(client)
        assert eventually(lambda: engine.num_active == 0)
        with player(url, token) as client:
            first = client.frame()
    assert last.frame_index <= first.frame_index <= last.frame_index + 4
    difference = np.abs(picture(last).astype(int) - picture(first))
    assert difference.mean() < 20  # not a world that began anew


def test_who_comes_back_goes_before_the_line():
    with served() as (url, _, _), player(url) as first:
        play(first, 5)
        token = resume_of(first)
        with player(url) as second, player(url) as third:
            second.until_state("queued")
            third.until_state("queued")
            first.socket.close()
            second.frame()
            with player(url, token) as back:
                assert back.until_state("queued")["position"] == 1
                second.socket.close()
                assert back.frame().frame_index > 3


def test_two_sockets_cannot_have_one_session():
    with served() as (url, _, _), player(url) as client:
        last = play(client, 5)
        with player(url, resume_of(client)) as other:
            assert other.frame().frame_index >= last.frame_index
            assert client.until_closed() == CloseCode.ELSEWHERE


def test_of_many_who_come_back_at_once_the_last_has_it():
    with served() as (url, _, lobby), player(url) as client:
        play(client, 5)
        token = resume_of(client)
        with contextlib.ExitStack() as stack:
            others = [stack.enter_context(player(url, token)) for _ in range(4)]
            codes: list[int | None] = []
            threads = [
                threading.Thread(target=lambda o=other: codes.append(o.until_closed(True)))
                for other in others
            ]
            for thread in threads:
                thread.start()
            assert eventually(lambda: len(codes) == 3, 5.0)
            assert codes == [CloseCode.ELSEWHERE] * 3
            assert len(lobby.seats) == 1
            lobby.close()
            for thread in threads:
                thread.join(5)


def test_a_lost_session_is_over_after_a_while():
    with served(resume_s=0.3) as (url, _, lobby):
        with player(url) as client:
            play(client, 5)
            token = resume_of(client)
        assert eventually(lambda: lobby.seats == [])
        with player(url, token) as client:
            assert client.until_closed() == CloseCode.UNKNOWN
    assert "this session is over" in client.error


@pytest.mark.parametrize("token", ["?resume=guess", "?resume=" + "x" * 500])
def test_a_token_that_nobody_gave_out_is_refused(token: str):
    with served() as (url, _, _), player(url, token) as client:
        assert client.until_closed() == CloseCode.UNKNOWN


def test_only_so_many_lost_sessions_are_kept():
    with served(num_slots=4, max_kept=2) as (url, _, lobby):
        tokens = []
        for _ in range(4):
            with player(url) as client:
                play(client, 3)
                tokens.append(resume_of(client))
        assert eventually(lambda: len(lobby.seats) == 2)
        with player(url, tokens[-1]) as client:
            client.frame()
        with player(url, tokens[0]) as client:
            assert client.until_closed() == CloseCode.UNKNOWN


def test_what_is_brought_throws_out_nobody():
    with served(num_slots=2) as (url, _, lobby):
        with player(url) as client:
            play(client, 10)
            link = client.ask("share")["replay"]
            token = resume_of(client)
        sessions = f"{url}/api/worlds/landscape/sessions"
        codes = [httpx.post(sessions, json={"replay": link}).status_code for _ in range(12)]
        assert codes == [201] * 10 + [429] * 2
        assert sum(seat.is_offer for seat in lobby.seats) <= 8
        with player(url, token) as client:
            client.frame()


# Places that are given away, and got back.


def test_a_silent_players_place_goes_to_the_next_and_comes_back():
    with served(silent_s=0.5) as (url, _, _), player(url) as silent, player(url) as next_one:
        last = play(silent, 8)
        since_s = time.monotonic()
        next_one.until_state("playing")
        assert time.monotonic() - since_s < 2.0
        next_one.frame()
        silent.act()  # there again
        assert silent.until_state("queued")["position"] == 1
        next_one.socket.close()
        assert silent.frame().frame_index > last.frame_index


def test_a_paused_session_is_evicted_and_back_within_a_second():
    with served(evict_after_s=0.3) as (url, engine, _), player(url) as client:
        last = play(client, 8)
        client.command("pause")
        client.until_state("paused")
        assert eventually(lambda: engine.num_active == 0)
        since_s = time.monotonic()
        client.command("resume")
        while client.frame().frame_index <= last.frame_index:
            pass
        assert time.monotonic() - since_s < 1.0


def test_nobody_steers_so_it_is_paused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("reverie.engine.pace.IDLE_S", 0.3)
    with served(pause_after_s=0.5) as (url, engine, _), player(url) as client:
        while not client.states or client.states[-1]["state"] != "paused":
            client.frames_within(0.2, acknowledge=True)
        assert "nobody played" in client.states[-1]["reason"]
        assert engine.num_active == 0
        client.command("resume")
        assert client.frame().jpeg


def test_commands_to_an_evicted_session_take_effect_when_it_is_back():
    with served(evict_after_s=0.2) as (url, engine, _), player(url, "?start=shore") as client:
        play(client, 5)
        client.command("pause")
        assert eventually(lambda: engine.num_active == 0)
        client.command("start", name="basin")
        client.command("resume")
        while client.frame().frame_index:
            pass
        assert client.frame().frame_index == 1


# Engines that fail.


def test_a_session_is_carried_on_when_its_engine_fails_once(monkeypatch: pytest.MonkeyPatch):
    with served() as (url, engine, lobby), player(url) as client:
        last = play(client, 30)
        step = engine.runtime.step

        def fail_once(batch: Any) -> Any:
            monkeypatch.setattr(engine.runtime, "step", step)
            raise RuntimeError("out of paint")

        monkeypatch.setattr(engine.runtime, "step", fail_once)
        since_s = time.monotonic()
        while lobby.num_recovered == 0:
            last = client.frame()
        frame = client.frame()
        assert time.monotonic() - since_s < 2
        assert last.frame_index - 20 <= frame.frame_index  # at most a second of play is lost


# Time limits, leaving.


def test_the_time_limit_is_said_and_kept():
    with served(time_limit_s=1.0) as (url, _, lobby), player(url) as client:
        since_s = time.monotonic()
        assert client.until_closed(acknowledge=True) == CloseCode.OVER
        assert 0.9 < time.monotonic() - since_s < 3.5
        assert client.states[-1]["left_s"] <= 1.0
        assert client.error == "the time limit of 1 s is over"
        assert eventually(lambda: lobby.seats == [])


def test_a_fork_does_not_begin_the_time_limit_anew():
    with served(num_slots=2, time_limit_s=3.0) as (url, _, _), player(url) as client:
        end_s = time.monotonic() + 2.2
        while time.monotonic() < end_s:
            client.frame()
        fork = f"?resume={client.ask('fork')['resume']}"
        since_s = time.monotonic()
        with player(url, fork) as other:
            assert other.until_closed(acknowledge=True) == CloseCode.OVER
        assert time.monotonic() - since_s < 2.5


def test_leaving_drops_everything_at_once():
    with served() as (url, engine, lobby), player(url) as client:
        play(client, 5)
        token = resume_of(client)
        client.command("end")
        assert client.until_closed() == 1000
        assert client.states[-1]["state"] == "ended"
        assert eventually(lambda: engine.num_active == 0 and lobby.seats == [])
        with player(url, token) as back:
            assert back.until_closed() == CloseCode.UNKNOWN


# What a player takes along.


def test_rewind_goes_back_by_seconds():
    with served() as (url, _, _), player(url) as client:
        last = play(client, 50)
        client.command("rewind", seconds=1.0)
        while (frame := client.frame()).frame_index > last.frame_index - 10:
            pass
        assert frame.frame_index <= last.frame_index - 15


@pytest.mark.parametrize("seconds", [None, 0, -1, True, "1", 1e9])
def test_rewinding_by_no_time_is_malformed(seconds: Any):
    with served() as (url, _, _), player(url) as client:
        client.frame()
        client.command("rewind", seconds=seconds)
        assert client.until_closed() == CloseCode.MALFORMED


def test_a_saved_file_goes_on_bit_for_bit():
    with served(num_slots=2) as (url, _, _), player(url) as client:
        play(client, 10)
        client.command("pause")
        client.until_state("paused")
        shown = client.frames_within(0.3)
        answer = client.ask("save")
        file = httpx.get(url + answer["url"])
        assert file.headers["content-disposition"] == 'attachment; filename="landscape.reverie"'
        assert len(file.content) == answer["bytes"]
        assert httpx.get(url + answer["url"]).status_code == 404  # once
        opened = httpx.post(
            f"{url}/api/worlds/landscape/sessions",
            content=file.content,
            headers={"content-type": "application/octet-stream"},
        )
        assert opened.status_code == 201
        client.act(0)
        client.command("resume")
        with player(url, f"?resume={opened.json()['resume']}") as other:
            there = other.frame()
        here = client.frame()
        while here.frame_index < there.frame_index:
            here = client.frame()
    assert there.frame_index > (shown[-1].frame_index if shown else 8)
    assert here.jpeg == there.jpeg


def test_a_fork_goes_its_own_way():
    with served(num_slots=2) as (url, _, _), player(url) as client:
        play(client, 10)
        answer = client.ask("fork")
        with player(url, f"?resume={answer['resume']}") as other:
            assert other.frame().frame_index >= 8
            other.act(yaw=10)
            client.frame()
            assert other.hello["resume"] != client.hello["resume"]


def test_a_link_plays_back_bit_for_bit_and_then_hands_over():
    with served(num_slots=2) as (url, _, _), player(url, "?seed=7&start=ridge") as client:
        seen = {}
        for keys in (FORWARD, 0, FORWARD | 4):
            client.act(keys, yaw=3)
            for _ in range(6):
                frame = client.frame()
                seen[frame.frame_index] = frame.jpeg
        link = client.ask("share")["replay"]
        assert len(link) < 4096
        num_frames = len(Replay.from_link(link).log)
        opened = httpx.post(f"{url}/api/worlds/landscape/sessions", json={"replay": link})
        with player(url, f"?resume={opened.json()['resume']}") as other:
            again = {}
            while len(again) < num_frames + 5:
                frame = other.frame()
                again[frame.frame_index] = frame.jpeg
            states = [(state["state"], state.get("replay", False)) for state in other.states]
    common = [index for index in seen if index in again and index < num_frames]
    assert len(common) > 10
    assert all(seen[index] == again[index] for index in common)
    assert states[-2:] == [("playing", True), ("playing", False)]


@pytest.mark.parametrize(
    ("body", "kind", "status", "line"),
    [
        (b"hello", "application/octet-stream", 400, "this is not a Reverie session"),
        (b"", "application/octet-stream", 400, "this is not a Reverie session"),
        (b'{"replay": "AAAA"}', "application/json", 400, "this is not a replay link"),
        (b'{"replay": 5}', "application/json", 400, "replay is 5: input should be a valid string"),
        (
            b"[" * 100_000,
            "application/json",
            400,
            "the body is not JSON; expected an object with replay",
        ),
        (b"hello", "text/plain", 415, "content-type 'text/plain'; expected"),
    ],
)
def test_what_is_no_session_is_refused_in_one_line(body: bytes, kind: str, status: int, line: str):
    with served() as (url, _, lobby), player(url) as client:
        client.frame()
        answer = httpx.post(
            f"{url}/api/worlds/landscape/sessions", content=body, headers={"content-type": kind}
        )
        assert answer.status_code == status
        assert line in answer.json()["error"]
        assert len(lobby.seats) == 1


def test_a_file_that_breaks_every_frame_ends_its_own_session_only():
    """The slot's memory in it is nonsense, of which nothing can be told before it is restored."""
    with served(num_slots=2) as (url, engine, _), player(url) as client:
        play(client, 10)
        client.command("pause")
        client.until_state("paused")
        content = httpx.get(url + client.ask("save")["url"]).content
        saved = SavedSession.from_bytes(engine.world, content)
        broken = replace(saved, snapshot=b"nonsense").to_bytes(engine.world)
        headers = {"content-type": "application/octet-stream"}
        sessions = f"{url}/api/worlds/landscape/sessions"
        opened = httpx.post(sessions, content=broken, headers=headers)
        with player(url, f"?resume={opened.json()['resume']}") as other:
            assert other.until_closed(acknowledge=True) == CloseCode.FAILED
        assert "the saved session does not play" in other.error
        client.command("resume")
        client.frame()
        far = replace(saved, frame_index=2**32).to_bytes(engine.world)
        assert httpx.post(sessions, content=far, headers=headers).status_code == 400


def test_a_body_without_end_is_cut_off():
    with served(max_saved_bytes=1000) as (url, _, _), player(url) as client:
        client.frame()
        answer = httpx.post(
            f"{url}/api/worlds/landscape/sessions",
            content=(bytes(100) for _ in range(100)),
            headers={"content-type": "application/octet-stream"},
        )
    assert answer.status_code == 413


def test_nothing_to_keep_yet_is_said(monkeypatch: pytest.MonkeyPatch):
    with served() as (url, _, _), player(url) as first:
        first.frame()
        with player(url) as waiting:
            waiting.until_state("queued")
            assert "nothing to keep yet" in waiting.ask("save")["error"]


def test_only_the_newest_save_waits_to_be_fetched():
    with served() as (url, _, _), player(url) as client:
        play(client, 5)
        first, second = client.ask("save"), client.ask("save")
        assert httpx.get(url + first["url"]).status_code == 404
        assert httpx.get(url + second["url"]).status_code == 200


# Nothing of a player is stored.


def left(before: set[int]) -> list[object]:
    """Whatever there is of any player in this process, but what was there before."""
    gc.collect()
    of_a_player = (Seat, SavedSession, Handle, Replay)
    things = [thing for thing in gc.get_objects() if type(thing) in of_a_player]
    return [thing for thing in things if id(thing) not in before]


def test_nothing_of_a_player_is_left_when_the_session_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    written: list[str] = []
    real_open = os.open

    def spy(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            written.append(str(path))
        return real_open(path, flags, *rest, **more)

    before = {id(thing) for thing in left(set())}
    with served(num_slots=2, resume_s=2.0) as (url, _, lobby):
        monkeypatch.setattr(os, "open", spy)
        with player(url) as client:
            play(client, 30)
            client.ask("share")
            client.command("pause")
            client.until_state("paused")
        assert eventually(lambda: any(seat.beginning.saved for seat in lobby.seats))
        assert left(before) != []
        assert eventually(lambda: lobby.seats == [], 6.0)
        del client
        assert eventually(lambda: left(before) == [], 8.0)
        monkeypatch.undo()
    assert written == []
    assert list(tmp_path.iterdir()) == []


def test_a_drained_server_takes_nobody_and_lets_players_finish():
    with served(num_slots=2) as (url, _, lobby), player(url) as client:
        play(client, 5)
        lobby.draining, lobby.closing_s = True, time.monotonic() + 1.5
        assert httpx.get(f"{url}/readyz").status_code == 503
        with player(url) as late:
            assert late.until_closed() == CloseCode.BUSY
        assert client.frame().jpeg
        assert client.until_closed(acknowledge=True) == CloseCode.BUSY
        assert client.states[-1]["left_s"] <= 1.5
