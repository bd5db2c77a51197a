"""The dashboard in a real Chromium: what it shows, and whom it asks for a key."""

from __future__ import annotations

import time

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import OpenPage
from tests.server.live import running_server
from tests.server.player_client import player

pytestmark = pytest.mark.browser


def number(page: Page, name: str) -> str:
    """What stands under that name at the top."""
    cell = page.locator("#numbers div", has=page.get_by_text(name, exact=True))
    return cell.locator("dd").inner_text()


def is_drawn(page: Page, title: str) -> bool:
    """Whether there is more in that plot than its gray grid."""
    canvas = page.locator(".plot", has=page.get_by_role("heading", name=title, exact=True))
    return canvas.locator("canvas").evaluate(
        """canvas => {
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            for (let i = 0; i < data.length; i += 4) {
                const color = [data[i], data[i + 1], data[i + 2]];
                const isGray = Math.max(...color) - Math.min(...color) < 60;
                if (data[i + 3] > 200 && !isGray) return true;
            }
            return false;
        }"""
    )


def test_it_shows_what_happens(open_page: OpenPage):
    with running_server() as url, player(url) as client:
        client.frame()
        page = open_page(f"{url}/admin")
        expect(page.locator("#state")).to_have_text("Ready")
        expect(page.locator("#engines tr")).to_have_count(1)
        assert number(page, "Playing") == "1"
        end_s = time.monotonic() + 8
        while not number(page, "Frames").startswith(("19", "20", "21")):
            assert time.monotonic() < end_s, number(page, "Frames")
            client.frames_within(0.3, acknowledge=True)
            page.wait_for_timeout(20)
        assert is_drawn(page, "Sessions by state")
        label = page.get_by_role("img", name="Sessions by state").get_attribute("aria-label")
        assert label is not None
        assert "playing 1" in label


def test_who_has_no_key_is_asked_for_it(open_page: OpenPage):
    with running_server() as url:
        page = open_page("about:blank")
        keys: list[str | None] = []

        def guard(route: Route) -> None:
            keys.append(route.request.headers.get("authorization"))
            if keys[-1] == "Bearer sesame":
                route.continue_()
            else:
                route.fulfill(status=401, json={"error": "a key, please"})

        page.route("**/api/status", guard)
        page.goto(f"{url}/admin")
        key = page.get_by_label("API key of an administrator")
        expect(key).to_be_focused()
        assert keys == [None]
        key.fill("wrong")
        key.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("This key does not open the dashboard.")
        key.fill("sesame")
        key.press("Enter")
        expect(page.locator("#state")).to_have_text("Ready")
        expect(key).to_be_hidden()
        page.reload()  # the tab remembers
        expect(page.locator("#state")).to_have_text("Ready")


def test_a_server_that_is_gone_is_said(open_page: OpenPage):
    with running_server() as url:
        page = open_page(f"{url}/admin")
        expect(page.locator("#state")).to_have_text("Ready")
        page.route("**/api/status", lambda route: route.abort())
        expect(page.locator("#state")).to_have_text("No answer")
        page.unroute("**/api/status")
        expect(page.locator("#state")).to_have_text("Ready")
