"""The page when things go wrong: other tabs, servers that go and come, worlds that do not load."""

from __future__ import annotations

import time
from typing import Any

import pytest
from playwright.sync_api import expect

from reverie.core import ReverieError
from reverie.engine import Engine
from reverie.server import SocketLimits
from tests.browser import chromium
from tests.browser.conftest import (
    STILL,
    OpenPage,
    play,
    stats,
    wait_for_frames,
    wait_until,
    world,
)
from tests.server.live import landscape_engine, running_server

pytestmark = pytest.mark.browser


def test_a_second_tab_waits_and_then_plays(served: Any, open_page: OpenPage):
    first = open_page(served[0])
    wait_for_frames(first)
    second = open_page(served[0])
    expect(second.get_by_role("status")).to_have_text("All places are taken. You are 1st in line")
    expect(second.get_by_role("button", name="Play", exact=True)).to_be_disabled()
    assert stats(second)["state"] == "queued"
    first.close()
    wait_until(second, "s.framesShown > 2")
    expect(second.get_by_role("status")).to_be_hidden()


def test_a_second_tab_plays_beside_the_first_where_there_is_room(open_page: OpenPage):
    with world(num_slots=2) as (url, _):
        first, second = open_page(url), open_page(url)
        for page in (first, second):
            wait_for_frames(page, 3)


def test_the_page_comes_back_when_the_server_does(open_page: OpenPage):
    with world() as (url, _):
        page = open_page(url, **STILL)
        play(page)
    expect(page.get_by_role("status")).to_contain_text("Disconnected. Trying again")
    assert stats(page)["state"] == "lost"
    port = int(url.rpartition(":")[2])
    with running_server(landscape_engine, port=port):
        wait_until(page, "s.state === 'playing'", timeout_s=12)
        wait_for_frames(page, 3)
        expect(page.get_by_role("status")).to_be_hidden()
        assert stats(page)["phase"] == "playing"


def test_a_world_that_wakes_up_says_so(open_page: OpenPage):
    def load() -> Engine:
        time.sleep(2)
        return landscape_engine()

    with running_server(load) as url:
        page = open_page(url)
        expect(page.get_by_role("status")).to_have_text("The world is waking up")
        expect(page.get_by_role("button", name="Play", exact=True)).to_be_disabled()
        wait_until(page, "s.framesShown > 2")


def test_a_world_that_does_not_load_says_why(open_page: OpenPage):
    def load() -> Engine:
        raise ReverieError("model.safetensors is cut short; export it again")

    with running_server(load) as url:
        page = open_page(url)
        expect(page.get_by_role("status")).to_contain_text(
            "The world did not load: model.safetensors is cut short; export it again"
        )


def test_whoever_was_away_for_long_comes_back_with_a_key(open_page: OpenPage):
    with running_server(landscape_engine, limits=SocketLimits(idle_s=0.7)) as url:
        page = open_page(url, **STILL)
        play(page)
        page.keyboard.press("Escape")
        expect(page.get_by_role("status")).to_contain_text(
            "Nobody played for 0.7 s; the place was given back"
        )
        expect(page.get_by_role("button", name="Continue", exact=True)).to_be_visible()
        page.wait_for_timeout(500)
        assert stats(page)["state"] == "released"
        page.keyboard.press("x")
        wait_until(page, "s.state === 'paused'")


def test_a_hidden_page_stands_still(served: Any, open_page: OpenPage):
    page = open_page(served[0], **STILL)
    play(page)
    hide = "Object.defineProperty(document, 'hidden', { value: true, configurable: true })"
    page.evaluate(f"{hide}; document.dispatchEvent(new Event('visibilitychange'))")
    wait_until(page, "s.state === 'paused' && s.phase === 'paused'")
    page.wait_for_timeout(300)  # frames that were on their way when the server stopped
    shown = stats(page)["framesShown"]
    page.wait_for_timeout(500)
    assert stats(page)["framesShown"] == shown


def test_a_start_that_there_is_not_says_so(served: Any, open_page: OpenPage):
    page = open_page(f"{served[0]}/?start=moon")
    expect(page.get_by_role("status")).to_contain_text("No start 'moon'; this world has shore")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()


def test_without_chromium_one_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CHROMIUM", raising=False)
    with pytest.raises(chromium.NoChromiumError, match="apt-get install chromium"):
        chromium.find_chromium()
    monkeypatch.setenv("CHROMIUM", "/nowhere/chrome")
    with pytest.raises(chromium.NoChromiumError, match="CHROMIUM=/nowhere/chrome cannot be run"):
        chromium.find_chromium()
