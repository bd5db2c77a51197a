from typing import Any

import numpy as np
import pytest
from gymnasium.error import DependencyNotInstalled

from reverie.core import ReverieError
from reverie.data.environment import (
    FINGERPRINT_TOLERANCE,
    Simulator,
    code_hash,
    fingerprint,
    resize,
    same_scene,
)


@pytest.mark.parametrize("picture", ["observation", "dict", "render"])
@pytest.mark.parametrize("kind", ["controls", "discrete", "binary", "vector"])
def test_pictures_and_actions_of_every_kind(kind: str, picture: str) -> None:
    simulator = Simulator("tiny_env:Tiny-v0", {"kind": kind, "picture": picture})
    simulator.reset(3)
    first = simulator.picture()
    assert (simulator.actions.kind, first.shape, simulator.fps) == (kind, (12, 20, 3), 10.0)
    vector = np.zeros(simulator.actions.width, np.float32)
    vector[1] = 1
    for _ in range(20):
        simulator.step(vector if kind != "controls" else forward(simulator))
    assert not np.array_equal(simulator.picture(), first)
    simulator.reset(3)
    assert np.array_equal(simulator.picture(), first)
    simulator.close()


def forward(simulator: Simulator) -> np.ndarray:
    vector = simulator.actions.idle()
    vector[0] = 1
    return vector


def test_nothing_is_drawn_until_it_is_asked_for() -> None:
    simulator = Simulator("tiny_env:TinyAdvance-v0")
    env: Any = simulator.env.unwrapped
    simulator.reset(0)
    drawn = env.num_drawn
    for _ in range(10):
        simulator.step(forward(simulator))
    assert env.num_drawn == drawn
    twin = Simulator("tiny_env:Tiny-v0")
    twin.reset(0)
    for _ in range(10):
        twin.step(forward(twin))
    assert np.array_equal(simulator.picture(), twin.picture())


@pytest.mark.parametrize(
    ("env_id", "kwargs", "message"),
    [
        ("Nowhere-v0", {}, "cannot open environment 'Nowhere-v0': "),
        ("no_such_module:Tiny-v0", {}, "cannot open environment 'no_such_module:Tiny-v0': "),
        ("tiny_env:Tiny-v0", {"colour": 1}, "cannot open environment 'tiny_env:Tiny-v0': "),
        ("tiny_env:Tiny-v0", {"picture": "none"}, "has no pixels"),
        ("tiny_env:Tiny-v0", {"kind": "dict"}, "recorded are Box of floats"),
    ],
)
def test_what_cannot_be_recorded_is_said_in_one_line(
    env_id: str, kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ReverieError) as caught:
        Simulator(env_id, kwargs)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_library_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    simulator = Simulator("tiny_env:Tiny-v0", {"picture": "render"})
    simulator.reset(0)

    def render() -> None:
        raise DependencyNotInstalled("pygame is not installed, run `pip install x`\nmore")

    monkeypatch.setattr(simulator.env.unwrapped, "render", render)
    with pytest.raises(ReverieError, match=r"'tiny_env:Tiny-v0' cannot draw: pygame is not .* x`$"):
        simulator.picture()


def test_resizing_averages_areas() -> None:
    pixels = np.arange(6 * 9 * 3, dtype=np.uint8).reshape(6, 9, 3)
    blocks = pixels.reshape(3, 2, 3, 3, 3).mean(axis=(1, 3))
    assert np.abs(resize(pixels, (3, 3)).astype(float) - blocks).max() <= 0.5
    uneven = resize(np.full((7, 11, 3), 200, np.uint8), (3, 4))
    assert uneven.shape == (3, 4, 3)
    assert (uneven == 200).all()
    assert resize(pixels, (6, 9)) is pixels


def test_fingerprints_forgive_rounding_and_nothing_else() -> None:
    pixels = np.random.default_rng(0).integers(10, 240, (96, 160, 3)).astype(np.uint8)
    rounded = pixels + (np.random.default_rng(1).random(pixels.shape) < 0.5)
    brighter = pixels + FINGERPRINT_TOLERANCE + 2
    assert same_scene(fingerprint(pixels), fingerprint(rounded.astype(np.uint8)))
    assert not same_scene(fingerprint(pixels), fingerprint(brighter.astype(np.uint8)))


def test_code_hash_names_the_source() -> None:
    tiny, advance = Simulator("tiny_env:Tiny-v0"), Simulator("tiny_env:TinyAdvance-v0")
    assert code_hash(tiny.env) == code_hash(advance.env)
    assert len(code_hash(tiny.env)) == 16
