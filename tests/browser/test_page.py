"""The page in a real Chromium, against the real server and engine, in a landscape."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import expect

from reverie.codec import JpegCodec
from tests.browser.conftest import (
    STILL,
    OpenPage,
    columns_moved,
    eventually,
    picture,
    play,
    stats,
    wait_for_frames,
    wait_until,
)
from tests.server.landscape import Landscape
from tests.server.live import PLACES, landscape_engine, running_server

pytestmark = pytest.mark.browser


# Seeing.


def test_the_title_stands_over_a_live_picture(served: Any, open_page: OpenPage):
    page = open_page(served[0])
    wait_until(page, "s.framesShown > 8")
    assert page.title() == "Landscape · Reverie"
    expect(page.get_by_role("img", name="Reverie")).to_be_visible()
    expect(page.get_by_text("AI-generated")).to_be_visible()
    expect(page.get_by_role("button", name="Play", exact=True)).to_be_enabled()
    assert page.get_by_role("radio").count() == len(PLACES) + 3
    assert stats(page)["differentFrames"] > 3  # it looks around by itself
    assert stats(page)["firstFrameMs"] < 3000
    assert picture(page).std() > 10


def test_a_simulator_is_not_called_generated(open_page: OpenPage):
    engine = landscape_engine()
    engine.world = replace(engine.world, config=replace(engine.world.config, denoiser={}))
    with running_server(lambda: engine) as url:
        page = open_page(url)
        wait_until(page, "s.framesShown > 0")
        expect(page.get_by_text("AI-generated")).to_have_count(0)
        expect(page.get_by_text("Simulator, not generated")).to_be_visible()


def test_less_motion_is_respected(served: Any, open_page: OpenPage):
    page = open_page(served[0], **STILL)
    wait_until(page, "s.framesShown > 10")
    assert stats(page)["differentFrames"] == 1


def test_different_frames_arrive_at_the_worlds_rate(served: Any, open_page: OpenPage):
    page = open_page(served[0])
    play(page)
    page.keyboard.down("l")
    page.wait_for_timeout(2500)
    measured = stats(page)
    assert 14 <= measured["fps"] <= 21
    assert measured["differentFps"] == pytest.approx(measured["fps"], abs=1)


# Wishing.


def test_a_wish_in_words_changes_the_world_while_it_is_played(served: Any, open_page: OpenPage):
    page = open_page(served[0])
    play(page)
    bright = picture(page).mean()
    page.keyboard.press("Enter")
    box = page.get_by_role("textbox", name="What shall the world be like?")
    expect(box).to_be_focused()
    page.keyboard.type("make it night")  # w, a, d and e are keys of the world, too
    page.keyboard.press("Enter")
    expect(box).to_be_hidden()
    expect(page.get_by_role("status").filter(has_text="night")).to_be_visible()
    assert eventually(lambda: picture(page).mean() < bright / 2)
    assert stats(page)["phase"] == "playing"
    assert not served[1].last_action.keys
    page.keyboard.press("Enter")
    page.get_by_role("button", name="a bright day").click()
    assert eventually(lambda: picture(page).mean() > bright / 2)


def test_an_unknown_wish_is_answered_with_what_there_is(served: Any, open_page: OpenPage):
    page = open_page(served[0])
    play(page)
    page.keyboard.press("Enter")
    page.keyboard.type("a castle")
    page.keyboard.press("Enter")
    line = "This world does not know 'a castle'; it can change time of day (day, night)"
    expect(page.get_by_text(line)).to_be_visible()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowUp")
    box = page.get_by_role("textbox", name="What shall the world be like?")
    expect(box).to_have_value("a castle")
    page.keyboard.press("Escape")
    expect(box).to_be_hidden()


# Playing.


@pytest.mark.parametrize(
    ("key", "direction"), [("l", -1), ("j", 1), ("Period", -1), ("Comma", 1), ("Numpad6", -1)]
)
def test_a_look_key_moves_the_picture_the_other_way(
    served: Any, open_page: OpenPage, key: str, direction: int
):
    page = open_page(served[0], **STILL)
    play(page)
    before = picture(page)
    page.keyboard.down(key)
    wait_for_frames(page, 2)
    page.keyboard.up(key)
    wait_for_frames(page, 2)
    assert np.sign(columns_moved(before, picture(page))) == direction


@pytest.mark.parametrize(("pixels", "direction"), [(80, -1), (-80, 1)])
def test_the_mouse_turns_the_view(served: Any, open_page: OpenPage, pixels: int, direction: int):
    page = open_page(served[0], **STILL)
    wait_until(page, "s.state === 'playing'")
    box = page.locator("#play").bounding_box()
    assert box
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.up()
    wait_for_frames(page, 3)
    before = picture(page)
    page.mouse.move(box["x"] + 20 + pixels, box["y"] + 20, steps=4)
    wait_for_frames(page, 3)
    moved = columns_moved(before, picture(page))
    # 0.15 degrees a pixel, 75 degrees over 160 columns
    assert moved == pytest.approx(direction * 80 * 0.15 * 160 / 75, abs=5)


def test_forward_goes_forward(served: Any, open_page: OpenPage):
    page = open_page(f"{served[0]}/?start=shore", **STILL)
    play(page)
    page.keyboard.down("w")
    wait_for_frames(page, 10)
    page.keyboard.up("w")
    wait_for_frames(page, 3)
    shown = picture(page).astype(int)
    _, seed, dusk, view = PLACES["shore"]
    scene = Landscape(seed=seed, dusk=dusk)
    step = type(served[1].last_action)({"forward"})
    errors = []
    for _ in range(40):
        errors.append(np.abs(scene.draw(view).astype(int) - shown).mean())
        view = view.moved(step)
    num_steps = int(np.argmin(errors))
    assert 8 <= num_steps <= 25
    assert errors[num_steps] < 4


@pytest.mark.parametrize(
    ("press", "held"),
    [
        (["w"], {"forward"}),
        (["ArrowUp", "ArrowLeft"], {"forward", "left"}),
        (["Space"], {"jump"}),
        (["Shift", "w"], {"sprint", "forward"}),
        (["q"], {"break"}),
        (["e"], {"use"}),
    ],
)
def test_held_keys_reach_the_world(
    served: Any, open_page: OpenPage, press: list[str], held: set[str]
):
    page = open_page(served[0], **STILL)
    play(page)
    for key in press:
        page.keyboard.down(key)
    assert eventually(lambda: served[1].last_action.keys == held)
    for key in press:
        page.keyboard.up(key)
    assert eventually(lambda: not served[1].last_action.keys)


def test_mouse_buttons_wheel_and_digits_reach_the_world(served: Any, open_page: OpenPage):
    page, runtime = open_page(served[0], **STILL), served[1]
    play(page)
    page.mouse.move(480, 270)
    page.mouse.down()
    assert eventually(lambda: runtime.last_action.keys == {"break"})
    page.mouse.down(button="right")
    assert eventually(lambda: runtime.last_action.keys == {"break", "use"})
    page.mouse.up()
    page.mouse.up(button="right")
    assert eventually(lambda: not runtime.last_action.keys)
    page.keyboard.press("4")
    assert eventually(lambda: runtime.last_action.slot == 4)
    page.mouse.wheel(0, 100)
    assert eventually(lambda: runtime.last_action.slot == 5)


def test_leaving_the_window_lets_go_of_the_keys(served: Any, open_page: OpenPage):
    page = open_page(served[0], **STILL)
    play(page)
    page.keyboard.down("w")
    assert eventually(lambda: served[1].last_action.keys == {"forward"})
    page.evaluate("window.dispatchEvent(new Event('blur'))")
    assert eventually(lambda: not served[1].last_action.keys)


def test_the_figures_are_there_and_add_up(served: Any, open_page: OpenPage):
    page = open_page(served[0], **STILL, viewport={"width": 1280, "height": 720})
    play(page)
    for _ in range(8):
        page.keyboard.down("w")
        page.wait_for_timeout(110)
        page.keyboard.up("w")
        page.wait_for_timeout(90)
    wait_until(page, "s.actionToPhoton.count >= 10")
    measured = stats(page)["actionToPhoton"]
    assert 5 < measured["p50"] <= measured["p95"] < 1000
    for sample in page.evaluate("reverie.samples(0)"):
        assert sum(sample.values()) - sample["total"] == pytest.approx(sample["total"])
        assert min(sample.values()) > -1
    page.wait_for_timeout(300)
    hud = page.get_by_label("Live figures")
    expect(hud).to_be_visible()
    assert float(page.inner_text("#hud-fps")) > 10
    assert float(page.inner_text("#hud-p50")) == pytest.approx(measured["p50"], abs=30)
    for part in ("Network", "Wait", "Generate", "Encode", "Decode", "Present"):
        expect(hud.get_by_text(part)).to_be_visible()
    page.keyboard.press("h")
    expect(hud.get_by_text("Wait")).to_be_hidden()
    page.keyboard.press("h")
    expect(hud).to_be_hidden()


def test_passes_per_frame_can_be_chosen(served: Any, open_page: OpenPage):
    page = open_page(served[0], **STILL)
    wait_until(page, "s.numSteps === 1")
    page.get_by_role("group", name="Passes per frame").get_by_text("4").click()
    wait_until(page, "s.numSteps === 4")


def test_another_start_can_be_chosen(served: Any, open_page: OpenPage):
    page = open_page(served[0], **STILL)
    wait_for_frames(page)
    before = picture(page).astype(int)
    page.get_by_text("Red basin").click()
    wait_until(page, "s.frameIndex !== null && s.state === 'playing'")
    wait_for_frames(page, 3)
    assert np.abs(picture(page) - before).mean() > 20


def test_any_picture_can_be_the_start(served: Any, open_page: OpenPage, tmp_path: Path):
    """A wide one, upright: its middle is what the world begins from, and what the choice shows."""
    wide = np.zeros((300, 1200, 3), np.uint8)
    wide[:, 350:850] = (200, 40, 60)
    (tmp_path / "wide.jpg").write_bytes(JpegCodec().encode_pixels(wide))
    page, runtime = open_page(served[0], **STILL), served[1]
    wait_until(page, "s.frameIndex > 5")
    page.set_input_files("#own-picture input", tmp_path / "wide.jpg")
    assert eventually(lambda: np.ptp(runtime.began_from[-1, ..., 0]) < 8)  # one colour
    np.testing.assert_allclose(runtime.began_from.mean((0, 1, 2)), (200, 40, 60), atol=4)
    assert page.locator("input[name=start]:checked").count() == 0
    expect(page.locator("#own-picture[data-chosen] img")).to_have_attribute(
        "src", re.compile("^blob:")
    )
    wait_until(page, "s.state === 'playing'")
    page.get_by_text("Red basin").click()
    assert eventually(lambda: np.ptp(runtime.began_from[-1]) > 20)
    assert page.locator("#own-picture[data-chosen]").count() == 0


def test_what_is_no_picture_is_said_and_nothing_is_lost(
    served: Any, open_page: OpenPage, tmp_path: Path
):
    (tmp_path / "notes.txt").write_text("hello")
    page = open_page(served[0], **STILL)
    wait_until(page, "s.framesShown > 0")
    page.set_input_files("#own-picture input", tmp_path / "notes.txt")
    expect(page.get_by_text("That file is not a picture")).to_be_visible()
    wait_for_frames(page, 3)
    assert page.locator("input[name=start]:checked").count() == 1


def test_start_again_leads_back(served: Any, open_page: OpenPage):
    page = open_page(served[0], **STILL)
    play(page)
    before = picture(page).astype(int)
    page.keyboard.down("l")
    wait_for_frames(page, 6)
    page.keyboard.up("l")
    page.keyboard.press("Escape")
    wait_until(page, "s.state === 'paused'")
    page.get_by_role("button", name="Start again").click()
    wait_until(page, "s.state === 'playing' && s.frameIndex < 4")
    wait_for_frames(page, 3)
    assert stats(page)["phase"] == "playing"
    assert np.abs(picture(page) - before).mean() < 2


# Without a mouse, with a thumb, with a gamepad.


def test_everything_works_with_the_keyboard_alone(served: Any, open_page: OpenPage):
    page, runtime = open_page(served[0], **STILL), served[1]
    wait_until(page, "s.state === 'playing'")
    page.keyboard.press("Enter")
    wait_until(page, "s.phase === 'playing'")
    page.keyboard.down("w")
    page.keyboard.down("l")
    assert eventually(lambda: runtime.last_action.keys == {"forward"})
    assert eventually(lambda: runtime.last_action.mouse[0] > 1)
    page.keyboard.up("w")
    page.keyboard.up("l")
    page.keyboard.press("Escape")
    wait_until(page, "s.phase === 'paused' && s.state === 'paused'")
    expect(page.get_by_role("button", name="Resume")).to_be_focused()
    reached = set()
    for _ in range(15):
        reached.add(page.evaluate("document.activeElement.name || document.activeElement.id"))
        page.keyboard.press("Tab")
    assert {"play", "restart", "help-open", "steps", "sensitivity", "start", "picture"} <= reached
    assert {"rewind", "save", "open", "fork", "share", "leave"} <= reached
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Controls")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Controls")).to_be_hidden()
    assert stats(page)["phase"] == "paused"
    page.keyboard.press("Escape")
    wait_until(page, "s.phase === 'playing' && s.state === 'playing'")


def test_every_control_has_a_name(served: Any, open_page: OpenPage):
    page = open_page(served[0])
    wait_until(page, "s.framesShown > 0")
    nameless = page.evaluate("""
        [...document.querySelectorAll('button, input, [role=img], fieldset, dialog')]
            .filter((e) => !(e.ariaLabel || e.innerText?.trim() || e.textContent.trim()
                || e.labels?.[0]?.textContent.trim() || e.getAttribute('aria-labelledby')))
            .map((e) => e.outerHTML)""")
    assert nameless == []


def test_the_help_is_built_from_the_worlds_keys(served: Any, open_page: OpenPage):
    page = open_page(served[0])
    wait_until(page, "s.framesShown > 0")
    page.get_by_role("button", name="Controls").click()
    text = page.inner_text("#help").split("\n")
    assert text[text.index("Jump") + 1] == "Space"
    assert text[text.index("Use") + 1 :][:2] == ["Right click", "E"]


def test_thumbs_walk_and_look(served: Any, open_page: OpenPage):
    page = open_page(
        served[0], **STILL, has_touch=True, is_mobile=True, viewport={"width": 390, "height": 844}
    )
    wait_until(page, "s.state === 'playing'")
    page.tap("#play")
    expect(page.get_by_role("button", name="Jump")).to_be_visible()
    touch = page.context.new_cdp_session(page)

    def thumbs(kind: str, *points: tuple[int, int, int]) -> None:
        listed = [{"x": x, "y": y, "id": i} for i, x, y in points]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": listed})

    thumbs("touchStart", (1, 90, 560))
    thumbs("touchMove", (1, 90, 520))
    assert eventually(lambda: served[1].last_action.keys == {"forward"})
    wait_for_frames(page, 3)
    thumbs("touchStart", (1, 90, 520), (2, 300, 400))
    before = picture(page)
    thumbs("touchMove", (1, 90, 520), (2, 340, 400))
    wait_for_frames(page, 3)
    assert columns_moved(before, picture(page)) < -5
    thumbs("touchEnd")
    assert eventually(lambda: not served[1].last_action.keys)
    page.get_by_role("button", name="Menu", exact=True).tap()
    wait_until(page, "s.phase === 'paused'")


GAMEPAD = """
    window.pad = { mapping: 'standard', axes: [0, 0, 0, 0], timestamp: 0,
        buttons: Array.from({ length: 17 }, () => ({ pressed: false, value: 0 })) };
    navigator.getGamepads = () => [window.pad];
    window.tilt = (axes, ...pressed) => { pad.axes = axes; pad.timestamp = performance.now();
        pad.buttons.forEach((button, index) => { button.pressed = pressed.includes(index); }); };
"""


def test_a_gamepad_plays(served: Any, open_page: OpenPage):
    page, runtime = open_page(served[0], GAMEPAD, **STILL), served[1]
    wait_until(page, "s.state === 'playing'")
    page.evaluate("window.dispatchEvent(new Event('gamepadconnected'))")
    page.evaluate("tilt([0, 0, 0, 0], 9)")  # Start
    wait_until(page, "s.phase === 'playing'")
    page.evaluate("tilt([0, -1, 0.9, 0], 0, 7)")  # left stick up, right stick right, A, trigger
    assert eventually(lambda: runtime.last_action.keys == {"forward", "jump", "break"})
    assert eventually(lambda: runtime.last_action.mouse[0] > 3)
    page.evaluate("tilt([0, 0, 0, 0], 5)")  # right bumper
    assert eventually(lambda: not runtime.last_action.keys and runtime.last_action.slot == 2)
