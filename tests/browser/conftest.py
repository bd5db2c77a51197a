"""A real Chromium, and pages that fail the test when their scripts fail."""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from reverie.codec import JpegCodec
from reverie.core import Pixels
from tests.browser.chromium import ARGUMENTS, NoChromiumError, find_chromium
from tests.server.live import LandscapeRuntime, landscape_engine, running_server

OpenPage = Callable[..., Page]
STILL = {"reduced_motion": "reduce"}  # the title screen does not turn the view


# One per module, not per run: while Playwright is open, other tests cannot use asyncio.run.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    try:
        path = find_chromium()
    except NoChromiumError as error:
        pytest.fail(str(error), pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[OpenPage]:
    """Opens an address in a fresh profile; options as for `Browser.new_context`."""
    errors: list[str] = []
    with contextlib.ExitStack() as stack:

        def open_page(url: str, before: str = "", **options: Any) -> Page:
            context = chromium.new_context(**{"viewport": {"width": 960, "height": 540}, **options})
            stack.callback(context.close)
            page = context.new_page()
            page.on("pageerror", lambda error: errors.append(str(error)))
            if before:
                page.add_init_script(before)
            page.goto(url)
            return page

        yield open_page
    assert errors == []


def stats(page: Page) -> dict[str, Any]:
    return page.evaluate("reverie.stats()")


def wait_until(page: Page, condition: str, timeout_s: float = 8.0) -> None:
    """condition: JavaScript over `s`, the statistics of the page."""
    # Not `wait_for_function`: it evaluates text in the page, whose security policy forbids that.
    end_s = time.monotonic() + timeout_s
    while not page.evaluate(f"(s => {condition})(reverie.stats())"):
        assert time.monotonic() < end_s, f"not within {timeout_s} s: {condition}; {stats(page)}"
        page.wait_for_timeout(20)


def wait_for_frames(page: Page, count: int = 1) -> None:
    """Until this many more frames were shown."""
    wait_until(page, f"s.framesShown >= {stats(page)['framesShown'] + count}")


def picture(page: Page) -> Pixels:
    """What is on the canvas, uint8 [h, w, 3]."""
    script = "document.getElementById('picture').toDataURL('image/jpeg', 1).split(',')[1]"
    return JpegCodec().decode(base64.b64decode(page.evaluate(script)))


def columns_moved(before: Pixels, after: Pixels) -> int:
    """By how many columns the picture moved to the right, up to 40; the bottom may stay."""
    a, b = before[20:60].astype(float), after[20:60].astype(float)
    w = a.shape[1]
    errors = {
        d: np.abs(a[:, 40 - d : w - 40 - d] - b[:, 40 : w - 40]).mean() for d in range(-40, 41)
    }
    return min(errors, key=lambda d: errors[d])


@contextlib.contextmanager
def world(num_slots: int = 1) -> Iterator[tuple[str, LandscapeRuntime]]:
    engine = landscape_engine(num_slots)
    assert isinstance(engine.runtime, LandscapeRuntime)
    with running_server(lambda: engine) as url:
        yield url, engine.runtime


def play(page: Page) -> None:
    wait_until(page, "s.state === 'playing'")
    page.click("#play")
    wait_for_frames(page, 2)


def eventually(holds: Callable[[], bool], timeout_s: float = 5.0) -> bool:
    end_s = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < end_s:
        time.sleep(0.02)
    return holds()


@pytest.fixture
def served() -> Iterator[tuple[str, LandscapeRuntime]]:
    with world() as found:
        yield found
