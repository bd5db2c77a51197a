"""REST, health, metrics, and who may ask."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import InvalidStatus

from reverie.codec import JpegCodec
from reverie.core import ActionSpace, ReverieError
from reverie.engine import Engine
from reverie.server.fleet import describe
from reverie.server.usage import UsageLedger
from reverie.world import World, WorldConfig
from tests.server.live import landscape_engine, running_server
from tests.server.player_client import player


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_server() as address:
        with player(address) as client:
            client.frame()
        yield address


def metrics(url: str) -> dict[str, float]:
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    return {" ".join([sample.name, *sample.labels.values()]): sample.value for sample in samples}


def test_the_world_is_described(url: str):
    (world,) = httpx.get(f"{url}/api/worlds").json()
    assert world == httpx.get(f"{url}/api/worlds/landscape").json()
    assert (world["world"], world["steps"]) == ("landscape", [1, 2, 4])


def test_a_start_has_a_thumbnail(url: str):
    answer = httpx.get(f"{url}/api/worlds/landscape/starts/ridge.jpg")
    assert answer.headers["content-type"] == "image/jpeg"
    expected = landscape_engine().world.find_start("ridge").frames[-1]
    assert np.abs(JpegCodec().decode(answer.content).astype(int) - expected).mean() < 5


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("/api/worlds/atlantis", "no world 'atlantis'; this server plays landscape"),
        ("/api/worlds/landscape/starts/moon.jpg", "no start 'moon'; this world has shore"),
        ("/api/nothing", "Not Found"),
    ],
)
def test_what_there_is_not_is_said_in_one_line(url: str, path: str, line: str):
    answer = httpx.get(url + path)
    assert answer.status_code == 404
    assert line in answer.json()["error"]


def test_health_follows_the_engine():
    woken = threading.Event()

    def load() -> Engine:
        woken.wait(5)
        return landscape_engine()

    with running_server(load) as url:
        assert httpx.get(f"{url}/healthz").json() == {"state": "warming"}
        assert httpx.get(f"{url}/api/worlds").status_code == 503
        assert httpx.get(url).status_code == 200  # the page is there at once
        woken.set()
        with player(url) as client:
            client.frame()
        assert httpx.get(f"{url}/healthz").json() == {"state": "ready"}


def test_health_tells_of_a_world_that_did_not_load():
    def load() -> Engine:
        raise ReverieError("no weights")

    with running_server(load) as url:
        with player(url) as client:
            client.until_closed()
        answer = httpx.get(f"{url}/healthz")
    assert answer.status_code == 503
    assert answer.json() == {"state": "failed", "error": "no weights"}


def test_metrics_count_what_players_get():
    with running_server() as url:
        with player(url) as client:
            client.frame()
            client.act()
            client.frames_within(0.6, acknowledge=True)
            while_playing = metrics(url)
            client.send(b"\xff")
            client.until_closed()
        after = metrics(url)
    assert while_playing["reverie_sessions playing landscape"] == 1
    assert after.get("reverie_sessions playing landscape", 0) == 0
    assert after["reverie_refusals_total malformed"] == 1
    sent = after["reverie_frames_sent_total"]
    assert sent >= 8
    assert after["reverie_generate_ms_count"] == after["reverie_encode_ms_count"] == sent
    assert after["reverie_frame_gap_ms_count"] == sent - 1
    assert after["reverie_wait_ms_count"] == 1
    assert after["reverie_frame_gap_ms_sum"] / (sent - 1) == pytest.approx(50, abs=10)


def test_what_a_session_costs_is_told_wherever_figures_are():
    with running_server(ledger=UsageLedger(2.0)) as url, player(url) as client:
        client.frame()
        status = httpx.get(f"{url}/api/status").json()
        assert (status["price_per_hour"], status["dollars_per_session_hour"]) == (2.0, 2.0)
        assert metrics(url)["reverie_dollars_per_session_hour"] == 2.0
        assert httpx.get(f"{url}/api/usage").json()["price_per_hour"] == 2.0


def test_the_page_may_run_nothing_but_its_own_files(url: str):
    answer = httpx.get(url)
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-cache"
    # together they make the page's clock fine enough to measure with
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["cross-origin-embedder-policy"] == "require-corp"
    again = httpx.get(url, headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://["]
)
def test_a_page_from_elsewhere_is_refused(url: str, origin: str):
    with pytest.raises(InvalidStatus) as caught, player(url, origin=origin):
        pass
    assert caught.value.response.status_code == 403
    answer = httpx.get(f"{url}/api/worlds", headers={"origin": origin})
    assert answer.status_code == 403
    assert "is not this server" in answer.json()["error"]


def test_the_servers_own_page_is_welcome(url: str):
    with player(url, origin=url) as client:
        client.frame()


def test_a_foreign_name_for_this_machine_is_refused(url: str):
    answer = httpx.get(url, headers={"host": "evil.example"})
    assert answer.status_code == 403
    assert "host 'evil.example' is not one of" in answer.json()["error"]


def test_a_world_with_too_many_keys_for_the_socket_is_refused():
    space = ActionSpace(tuple(f"key{i}" for i in range(33)))
    config = WorldConfig("organ", 160, 96, 20, space, (1,), 1, 1.0)
    world = World(landscape_engine().world.path, config, ())
    with pytest.raises(ReverieError, match="world organ has 33 keys; the socket carries at most"):
        describe(world)
