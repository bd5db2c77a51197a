"""A session in a real Chromium: over lost connections, reloads and other tabs; back in time; taken
along as a file, a fork and a link; left; and behind a token.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, expect
from starlette.applications import Starlette

from reverie.core import Pixels
from reverie.engine import pace
from reverie.server import SocketLimits
from reverie.server.access import Access
from reverie.server.keys import add_key
from tests.browser.conftest import (
    STILL,
    OpenPage,
    eventually,
    picture,
    play,
    stats,
    wait_for_frames,
    wait_until,
)
from tests.server.live import PLACES, landscape_engine, running_server

pytestmark = pytest.mark.browser

# Keeps the sockets of the page, so that a test can cut them.
SOCKETS = """
    window.sockets = [];
    window.WebSocket = class extends WebSocket {
        constructor(...from) { super(...from); sockets.push(this); }
    };
"""


def walk(page: Page) -> None:
    """Plays on for a while, to where nobody would be by chance."""
    page.keyboard.down("w")
    page.keyboard.down("l")
    wait_for_frames(page, 12)
    page.keyboard.up("l")
    page.keyboard.up("w")
    wait_for_frames(page, 3)


def pause(page: Page) -> Pixels:
    """Pauses, and gives the picture that stands still."""
    page.keyboard.press("Escape")
    wait_until(page, "s.phase === 'paused' && s.state === 'paused'")
    page.wait_for_timeout(150)  # frames that were on their way
    return picture(page)


def index(page: Page) -> int:
    return stats(page)["frameIndex"]


def visit(page: Page) -> Any:
    return json.loads(page.evaluate("sessionStorage.getItem('reverie.visit')") or "null")


def differs(a: Pixels, b: Pixels) -> float:
    return float(np.abs(a.astype(int) - b).mean())


# Lost, and found again.


def test_a_lost_connection_comes_back_to_where_one_was(served: Any, open_page: OpenPage):
    page = open_page(served[0], SOCKETS, **STILL)
    play(page)
    walk(page)
    before, seen = index(page), picture(page)
    page.evaluate("sockets.at(-1).close()")
    expect(page.locator("#hint.shown")).to_have_text("Connected again: you are where you were")
    wait_until(page, "s.state === 'playing'")
    wait_for_frames(page, 2)
    assert before - 2 <= index(page) < before + 60
    assert stats(page)["phase"] == "playing"
    assert differs(picture(page), seen) < 2
    page.keyboard.down("w")  # and it still listens
    assert eventually(lambda: served[1].last_action.keys == {"forward"})


def test_a_pause_survives_a_lost_connection(served: Any, open_page: OpenPage):
    page = open_page(served[0], SOCKETS, **STILL)
    play(page)
    walk(page)
    seen, before = pause(page), index(page)
    page.evaluate("sockets.at(-1).close()")
    expect(page.get_by_text("Connected again: you are where you were")).to_be_visible()
    wait_until(page, "s.state === 'paused' && s.phase === 'paused'")
    page.wait_for_timeout(300)
    assert index(page) == before
    assert differs(picture(page), seen) < 2


def test_a_reload_goes_on(served: Any, open_page: OpenPage):
    page = open_page(served[0], **STILL)
    play(page)
    walk(page)
    seen, before = pause(page), index(page)
    page.reload()
    expect(page.get_by_text("You are where you were")).to_be_visible()
    wait_until(page, "s.phase === 'paused' && s.state === 'paused' && s.framesShown > 0")
    assert index(page) == before
    assert differs(picture(page), seen) < 2
    page.keyboard.press("Enter")
    wait_until(page, f"s.phase === 'playing' && s.frameIndex > {before + 3}")


def test_a_session_that_was_not_kept_begins_anew_and_says_so(open_page: OpenPage):
    with running_server(landscape_engine, limits=SocketLimits(resume_s=0.01)) as url:
        page = open_page(url, SOCKETS, **STILL)
        play(page)
        walk(page)
        before = index(page)
        page.evaluate("sockets.at(-1).close()")
        expect(page.locator("#hint.shown")).to_have_text(re.compile("the world begins anew"))
        wait_until(page, f"s.state === 'playing' && s.frameIndex < {before}")
        assert stats(page)["phase"] == "playing"


def test_another_tab_takes_a_session_over_and_gives_it_back(served: Any, open_page: OpenPage):
    first = open_page(served[0], **STILL)
    play(first)
    walk(first)
    second = first.context.new_page()
    second.goto(f"{served[0]}/#resume={visit(first)['resume']}")
    wait_until(second, "s.state === 'paused' && s.framesShown > 0")
    assert second.url == f"{served[0]}/"  # nothing is left to be copied out of the bar
    wait_until(first, "s.state === 'elsewhere' && s.phase === 'paused'")
    expect(first.get_by_role("status")).to_have_text("The session was continued elsewhere.")
    first.wait_for_timeout(600)
    assert stats(first)["state"] == "elsewhere"  # nobody fights for it
    first.get_by_role("button", name="Play here").click()
    wait_until(first, "s.state === 'playing' && s.phase === 'playing'")
    wait_until(second, "s.state === 'elsewhere'")


def test_a_page_that_stood_still_for_a_moment_plays_on(open_page: OpenPage):
    with running_server(landscape_engine, limits=SocketLimits(silent_s=0.5)) as url:
        page = open_page(url, **STILL)
        play(page)
        walk(page)
        before = index(page)
        page.evaluate(
            "() => { const end = performance.now() + 1500; while (performance.now() < end); }"
        )
        wait_until(page, f"s.state === 'playing' && s.frameIndex > {before + 20}")
        assert stats(page)["phase"] == "playing"


def test_who_does_nothing_for_long_finds_the_menu(
    open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pace, "IDLE_S", 0.3)
    with running_server(landscape_engine, limits=SocketLimits(pause_after_s=0.3)) as url:
        # The page's clock runs ahead of its events': what was done last was done long ago.
        page = open_page(url, "performance.now = () => Date.now() + 1e6", **STILL)
        play(page)
        wait_until(page, "s.phase === 'paused'")
        expect(page.get_by_text("Nobody played for a while.")).to_be_visible()


# Back in time.


def test_one_step_back_while_one_plays(served: Any, open_page: OpenPage):
    page = open_page(served[0], **STILL)
    play(page)
    wait_until(page, "s.frameIndex > 65")
    page.keyboard.press("r")
    wait_until(page, "s.frameIndex < 45")
    expect(page.locator("#hint.shown")).to_have_text("5 s back")
    wait_until(page, "s.frameIndex > 50")
    assert stats(page)["phase"] == "playing"


def test_steps_back_in_the_menu_show_where_one_gets(served: Any, open_page: OpenPage):
    page = open_page(served[0], **STILL)
    play(page)
    at_first = picture(page)
    walk(page)
    wait_until(page, "s.frameIndex > 60")
    pause(page)
    before = index(page)
    back = page.get_by_role("button", name="Back 5 s")
    back.focus()
    page.keyboard.press("Enter")
    wait_until(page, f"s.frameIndex < {before - 30}")
    expect(page.get_by_text("5 s back")).to_be_visible()
    expect(back).to_be_focused()  # for another step
    wait_until(page, "s.phase === 'paused' && s.state === 'paused'")
    assert eventually(lambda: differs(picture(page), at_first) < 4)


# Taken along.


def saved(page: Page, folder: Path) -> Path:
    with page.expect_download() as download:
        page.get_by_role("button", name="Save", exact=True).click()
    assert download.value.suggested_filename == "landscape.reverie"
    download.value.save_as(folder / "landscape.reverie")
    expect(page.locator("#said")).to_have_text(re.compile(r"Saved as landscape.reverie, \d+ KB"))
    return folder / "landscape.reverie"


@pytest.mark.parametrize("way", ["choose", "drop"])
def test_a_saved_session_is_opened_again(
    served: Any, open_page: OpenPage, tmp_path: Path, way: str
):
    first = open_page(served[0], **STILL)
    play(first)
    walk(first)
    seen, before = pause(first), index(first)
    file = saved(first, tmp_path)
    first.close()
    second = open_page(served[0], **STILL)
    wait_until(second, "s.framesShown > 2")
    if way == "choose":
        second.set_input_files("#open-file", file)
    else:
        second.evaluate(
            """text => {
                const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
                const carried = new DataTransfer();
                carried.items.add(new File([bytes], 'mine.reverie'));
                window.dispatchEvent(new DragEvent('drop', { dataTransfer: carried }));
            }""",
            base64.b64encode(file.read_bytes()).decode(),
        )
    expect(second.get_by_text("Opened: it goes on where it was saved")).to_be_visible()
    wait_until(second, f"s.state === 'paused' && {before} <= s.frameIndex")
    assert index(second) <= before + 5  # it may play until it hears of the pause
    assert differs(picture(second), seen) < 2
    second.keyboard.press("Enter")
    wait_until(second, f"s.phase === 'playing' && s.frameIndex > {before + 3}")


def test_a_file_that_is_none_is_said_and_nothing_is_lost(
    served: Any, open_page: OpenPage, tmp_path: Path
):
    (tmp_path / "x.reverie").write_text("hello")
    page = open_page(served[0], **STILL)
    play(page)
    walk(page)
    pause(page)
    before = index(page)
    page.set_input_files("#open-file", tmp_path / "x.reverie")
    expect(page.locator("#said")).to_have_text(re.compile("not a Reverie session"))
    page.keyboard.press("Enter")
    wait_until(page, f"s.state === 'playing' && s.frameIndex > {before}")


def test_a_fork_goes_on_beside_the_first(open_page: OpenPage):
    with running_server(lambda: landscape_engine(2)) as url:
        first = open_page(url, **STILL)
        play(first)
        walk(first)
        seen, before = pause(first), index(first)
        with first.context.expect_page() as opened:
            first.get_by_role("button", name="Continue in a new tab").click()
        second = opened.value
        expect(second.get_by_text("The session goes on here")).to_be_visible()
        wait_until(second, f"s.state === 'paused' && {before} <= s.frameIndex")
        assert index(second) <= before + 5  # it may play until it hears of the pause
        assert differs(picture(second), seen) < 2
        assert second.url == f"{url}/"
        assert visit(first)["resume"] != visit(second)["resume"]
        for page in (first, second):
            page.get_by_role("button", name="Resume").click()
            wait_until(page, f"s.phase === 'playing' && s.frameIndex > {before + 5}")


def test_where_no_tab_may_be_opened_the_fork_has_an_address(open_page: OpenPage):
    with running_server(lambda: landscape_engine(2)) as url:
        page = open_page(url, "window.open = () => null", **STILL)
        play(page)
        walk(page)
        pause(page)
        page.get_by_role("button", name="Continue in a new tab").click()
        address = page.get_by_role("textbox", name="Link")
        expect(address).to_have_value(re.compile(f"^{url}/#resume=.{{20,}}"))


def test_a_shared_link_plays_what_was_played(open_page: OpenPage):
    with running_server(lambda: landscape_engine(2)) as url:
        first = open_page(f"{url}/?start=ridge&seed=5", **STILL)
        first.context.grant_permissions(["clipboard-read", "clipboard-write"])
        play(first)
        walk(first)
        seen, length = pause(first), index(first)
        first.get_by_role("button", name="Share").click()
        said = first.locator("#said")
        expect(said).to_have_text(re.compile(r"^Link copied, \d+ char.* exactly what was played"))
        link = first.evaluate("navigator.clipboard.readText()")
        assert link.startswith(f"{url}/#world=landscape&replay=")
        second = open_page(link, **STILL)
        wait_until(second, "s.phase === 'playing' && s.state === 'playing'")
        expect(second.get_by_text("Replay", exact=True)).to_be_visible()
        expect(second.locator("#hint.shown")).to_have_text(re.compile("you can take over when it"))
        second.keyboard.down("s")  # nobody listens yet
        wait_until(second, f"s.frameIndex >= {length - 1}")
        second.keyboard.up("s")
        expect(second.get_by_text("Replay", exact=True)).to_be_hidden()
        expect(second.locator("#hint.shown")).to_have_text("The replay is over: go on yourself")
        assert differs(picture(second), seen) < 3
        second.keyboard.down("l")
        assert eventually(lambda: differs(picture(second), seen) > 5)


def test_a_link_that_cannot_be_copied_is_shown(served: Any, open_page: OpenPage):
    page = open_page(served[0], **STILL)
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error()) }")
    play(page)
    walk(page)
    pause(page)
    page.get_by_role("button", name="Share").click()
    link = page.get_by_role("textbox", name="Link")
    expect(link).to_be_focused()
    assert page.evaluate("getSelection().toString()") in (link.input_value(), "")
    page.keyboard.press("r")  # in there it means nothing
    expect(link).to_be_visible()


def test_a_link_that_is_none_says_so_and_the_world_begins(served: Any, open_page: OpenPage):
    page = open_page(f"{served[0]}/#world=landscape&replay=xyz", **STILL)
    expect(page.locator("#said")).to_have_text(re.compile("link"))
    wait_until(page, "s.state === 'playing' && s.phase === 'title'")


# Over.


def test_leaving_drops_everything(open_page: OpenPage):
    apps: list[Starlette] = []
    with running_server(landscape_engine, on_app=apps.append) as url:
        page = open_page(url, **STILL)
        play(page)
        walk(page)
        pause(page)
        page.get_by_role("button", name="Leave").click()
        expect(page.get_by_role("status")).to_have_text(
            "You left, and everything of this session is gone."
        )
        assert eventually(lambda: apps[0].state.lobby.seats == [])
        assert visit(page) is None
        page.get_by_role("button", name="Play again").click()
        wait_until(page, "s.phase === 'playing' && s.frameIndex !== null")
        assert index(page) < 10
        expect(page.get_by_role("status")).to_be_hidden()


def test_a_time_limit_is_announced_and_final(open_page: OpenPage):
    with running_server(landscape_engine, limits=SocketLimits(time_limit_s=3)) as url:
        page = open_page(url, **STILL)
        expect(page.locator("#said")).to_have_text(re.compile("^This session ends in 3 s. Save it"))
        expect(page.get_by_role("timer")).to_have_text(re.compile("^0:0[0-3] left$"))
        play(page)
        expect(page.get_by_role("status")).to_have_text("The time limit of 3 s is over.")
        expect(page.get_by_role("timer")).to_be_hidden()
        page.wait_for_timeout(600)
        assert stats(page)["state"] == "over"
        page.get_by_role("button", name="Play again").click()
        wait_until(page, "s.phase === 'playing' && s.state === 'playing'")


# Behind a token.


def test_a_token_comes_with_the_address_and_stays_out_of_it(open_page: OpenPage, tmp_path: Path):
    key = add_key(tmp_path / "keys.json", "shop")
    with running_server(landscape_engine, access=Access(tmp_path / "keys.json")) as url:
        asked = httpx.post(f"{url}/api/tokens", json={}, headers={"authorization": f"Bearer {key}"})
        page = open_page(f"{url}/#token={asked.json()['token']}", **STILL)
        play(page)
        assert page.url == f"{url}/"
        decoded = """all => Promise.all(all.map(async (one) => {
            await one.decode();
            return one.src.slice(0, 5) + one.naturalWidth;
        }))"""
        starts = page.eval_on_selector_all("label:has([name=start]) img", decoded)
        assert starts == ["blob:160"] * len(PLACES)
        walk(page)
        pause(page)
        page.reload()  # the tab still has it
        wait_until(page, "s.phase === 'paused' && s.framesShown > 0")
        saved(page, tmp_path)


def test_without_a_token_one_is_told_and_nothing_knocks_on(open_page: OpenPage, tmp_path: Path):
    add_key(tmp_path / "keys.json", "shop")
    with running_server(landscape_engine, access=Access(tmp_path / "keys.json")) as url:
        page = open_page(url, SOCKETS)
        expect(page.get_by_role("status")).to_have_text(
            "This server asks for a token: open the link that you were given."
        )
        page.wait_for_timeout(1000)
        assert page.evaluate("sockets.length") == 1
        wrong = open_page(f"{url}/#token=e.y.J", SOCKETS)
        expect(wrong.get_by_role("status")).to_contain_text("is not one of this server")


# What the page tells the server.


def test_the_server_hears_how_long_actions_take(open_page: OpenPage):
    apps: list[Starlette] = []
    with running_server(landscape_engine, on_app=apps.append) as url:
        page = open_page(url, **STILL)
        play(page)
        for _ in range(3):
            page.keyboard.press("w", delay=150)
            page.wait_for_timeout(150)
        count = re.compile(r"^reverie_action_to_photon_ms_count ([1-9].*)$", re.M)
        assert eventually(
            lambda: count.search(apps[0].state.metrics.render().decode()) is not None, 8
        )
