from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from safetensors.numpy import save_file

from reverie import world as worlds
from reverie.core import ReverieError
from reverie.world import Start, WorldConfig, load, save, start_from_image
from tests.fakes import SPACE, fake_config
from tests.tiny_world import write_tiny_world


@pytest.fixture
def broken(tiny_path: Path, tmp_path: Path) -> Path:
    """A whole world that a test may damage."""
    return shutil.copytree(tiny_path, tmp_path / "broken")


def refusal(name: str | Path) -> str:
    with pytest.raises(ReverieError) as caught:
        load(name)
    line = str(caught.value)
    assert "\n" not in line
    return line


def edit_config(path: Path, **changes: Any) -> None:
    file = path / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def test_a_whole_world_loads(tiny_path: Path) -> None:
    world = load(tiny_path)
    assert world.config.name == "tiny"
    assert world.config.frame_shape == (8, 8, 3)
    assert world.card.startswith("# Tiny")
    assert [start.name for start in world.starts] == ["start-0", "start-1"]
    start = world.find_start("start-1")
    assert start.title == "Start 1"
    assert start.frames.shape == (3, 8, 8, 3)
    assert start.actions.shape == (3, 16)
    assert world.find_start() is world.starts[0]


def test_saving_and_loading_keep_the_config_and_nearly_the_pixels(tmp_path: Path) -> None:
    config = fake_config(width=32, height=16)
    gradient = np.linspace(0, 255, 3 * 16 * 32 * 3).reshape(3, 16, 32, 3).astype(np.uint8)
    start = Start("here", "Here", gradient, np.full((3, 16), 0.25, np.float32))
    save(tmp_path, config, [start], "card")
    assert worlds.read_config(tmp_path) == config
    image = tmp_path / "starts" / "here.jpg"
    tall = simplejpeg.decode_jpeg(image.read_bytes(), "RGB").reshape(3, 16, 32, 3)
    assert np.abs(tall.astype(int) - gradient).max() <= 6
    assert json.loads(image.with_suffix(".json").read_text())["actions"] == [[0.25] * 16] * 3


def test_the_fingerprint_tells_weights_apart(tmp_path: Path, tiny_path: Path) -> None:
    same = write_tiny_world(tmp_path / "same", seed=0)
    other = write_tiny_world(tmp_path / "other", seed=1)
    assert load(same).fingerprint == load(tiny_path).fingerprint
    assert load(other).fingerprint != load(tiny_path).fingerprint


def test_an_unknown_world_is_told_what_there_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_tiny_world(tmp_path / "garden")
    monkeypatch.setattr(worlds, "BUNDLED", tmp_path)
    assert worlds.bundled() == ("garden",)
    assert load("garden").path == tmp_path / "garden"
    line = refusal("gardn")
    assert "no world 'gardn'" in line
    assert "garden" in line
    assert "hf://user/world" in line


@pytest.mark.parametrize("name", ["hf://", "hf://user", "hf://a/b/c"])
def test_a_wrong_hub_address(name: str) -> None:
    assert "expected hf://user/world" in refusal(name)


def test_the_hub_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install 'reverie-worlds[hub]'" in refusal("hf://user/world")


def test_a_world_from_the_hub(monkeypatch: pytest.MonkeyPatch, tiny_path: Path) -> None:
    class Hub:
        asked: tuple[Any, ...] = ()

        @classmethod
        def snapshot_download(cls, repo: str, allow_patterns: list[str]) -> str:
            cls.asked = (repo, allow_patterns)
            if repo == "user/gone":
                raise RuntimeError("404\nlong story")
            return str(tiny_path)

    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)
    assert load("hf://user/world").config.name == "tiny"
    assert Hub.asked[0] == "user/world"
    assert refusal("hf://user/gone").endswith("cannot download hf://user/gone: 404")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "format_version is 2; this Reverie reads 1"),
        ({"format_version": None}, "format_version is None"),
        ({"colour": "red"}, "unknown setting 'colour'; expected"),
        ({"fps": None}, "missing setting 'fps'"),
        ({"fps": 0}, "fps is 0; expected a whole number from 1 to"),
        ({"fps": "20"}, "fps is '20'"),
        ({"width": -4}, "width is -4"),
        ({"name": " "}, "name is ' '; expected a name"),
        ({"denoising_steps": []}, r"denoising_steps is \[\]"),
        ({"denoising_steps": [4, 2]}, "expected ascending whole numbers"),
        ({"denoising_steps": 4}, "denoising_steps|wrong type"),
        ({"noise_scale": "loud"}, r"noise_scale is 'loud'; expected a number in \[0, 2\]"),
        ({"context_signal": 1.5}, r"context_signal is 1.5; expected a number in \(0, 1\]"),
        ({"prompts": [3]}, "prompts"),
        ({"action_space": ["w"]}, "action_space"),
        ({"action_space": {"keys": ["a"], "mouse": 3}}, "unknown setting 'action_space.mouse'"),
        ({"action_space": {"camera_limit": 3}}, "missing setting 'action_space.keys'"),
        ({"action_space": {"keys": ["a", "a"]}}, "names a key twice"),
        ({"action_space": {"keys": ["a"], "keymap": {"w": "b"}}}, "unknown keys"),
        ({"autoencoder": 3}, "wrong type|autoencoder"),
    ],
)
def test_a_wrong_config(broken: Path, changes: dict[str, Any], message: str) -> None:
    edit_config(broken, **changes)
    with pytest.raises(ReverieError, match=message) as caught:
        load(broken)
    assert "config.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_a_config_that_is_not_an_object(broken: Path, text: str) -> None:
    (broken / "config.json").write_text(text)
    assert "config.json" in refusal(broken)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "encoder.onnx", "decoder.onnx", "denoiser.onnx"]
)
def test_a_missing_file(broken: Path, name: str) -> None:
    (broken / name).unlink()
    assert refusal(broken).startswith(f"{broken / name} is missing")


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_weights_that_are_cut_short(broken: Path, keep: int) -> None:
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert "model.safetensors is damaged or cut short" in refusal(broken)


def test_weights_that_are_rubbish(broken: Path) -> None:
    (broken / "model.safetensors").write_bytes(b"\xff" * 5000)
    assert "model.safetensors is damaged" in refusal(broken)


def test_weights_of_another_export(broken: Path) -> None:
    save_file({"a": np.zeros(4, np.float16)}, broken / "model.safetensors")
    assert "they belong to different exports" in refusal(broken)


def test_graphs_that_reach_for_other_files_are_refused(broken: Path) -> None:
    file = broken / "encoder.onnx"
    file.write_bytes(file.read_bytes().replace(b"model.safetensors", b"../../etc/secret0"))
    assert "keeps weights in '../../etc/secret0'" in refusal(broken)


def test_a_graph_that_is_rubbish(broken: Path) -> None:
    (broken / "decoder.onnx").write_bytes(b"not a graph")
    assert "decoder.onnx is not a whole ONNX graph" in refusal(broken)


def test_a_start_of_the_wrong_size(broken: Path) -> None:
    small = simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8))
    (broken / "starts" / "start-0.jpg").write_bytes(small)
    assert "is 8 x 8 pixels; expected 8 x 24" in refusal(broken)


def test_a_start_that_is_no_picture(broken: Path) -> None:
    (broken / "starts" / "start-0.jpg").write_bytes(b"GIF89a")
    assert "start-0.jpg is not a readable JPEG" in refusal(broken)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"title": "x"}', "expected {"),
        ('{"title": "x", "pitch_deg": 0, "actions": [["a"]]}', "not all numbers"),
        ('{"title": "x", "pitch_deg": 0, "actions": [[1, 2], [1]]}', "not all numbers"),
        (
            '{"title": "x", "pitch_deg": 0, "actions": [[0]]}',
            r"actions have shape [1, 1]; expected [3, 16]",
        ),
        (
            json.dumps({"title": "x", "pitch_deg": 0, "actions": [[float("nan")] * 16] * 3}),
            "not all finite",
        ),
        (
            json.dumps({"title": "x", "pitch_deg": 99, "actions": [[0.0] * 16] * 3}),
            "pitch_deg is 99",
        ),
        (
            json.dumps({"title": "x", "pitch_deg": float("nan"), "actions": [[0.0] * 16] * 3}),
            "is nan",
        ),
        ("nonsense", "not readable JSON"),
    ],
)
def test_a_start_with_wrong_actions(broken: Path, text: str, message: str) -> None:
    (broken / "starts" / "start-1.json").write_text(text)
    assert message in refusal(broken)


def test_a_start_without_its_actions(broken: Path) -> None:
    (broken / "starts" / "start-1.json").unlink()
    assert "start-1.json is missing" in refusal(broken)


def test_an_unknown_start_lists_the_known_ones(tiny_path: Path) -> None:
    with pytest.raises(ReverieError, match="no start 'moon'; choose one of: start-0, start-1"):
        load(tiny_path).find_start("moon")


def test_a_world_without_starts(broken: Path) -> None:
    shutil.rmtree(broken / "starts")
    with pytest.raises(ReverieError, match="has no start; start it from an image"):
        load(broken).find_start()


def test_saving_where_one_may_not_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ReverieError, match="cannot write the world to"):
        save(tmp_path / "file" / "world", fake_config())


def test_an_image_of_the_worlds_size_stands_still() -> None:
    config = fake_config()
    image = np.random.default_rng(0).integers(0, 256, config.frame_shape, np.uint8)
    start = start_from_image(config, image)
    assert (start.frames == image).all()
    assert len(start.frames) == len(start.actions) == config.context
    assert SPACE.decode(start.actions[0]).keys == frozenset()
    assert SPACE.decode(start.actions[0]).slot == 1


def test_a_larger_image_is_averaged_down() -> None:
    config = fake_config(width=16, height=12)
    image = np.random.default_rng(0).integers(0, 256, (36, 48, 3), np.uint8)
    frame = start_from_image(config, image).frames[0]
    expected = image.reshape(12, 3, 16, 3, 3).mean((1, 3))
    np.testing.assert_allclose(frame, expected, atol=0.5 + 1e-3)


def test_a_wider_image_loses_its_sides() -> None:
    config = fake_config(width=16, height=12)
    image = np.zeros((12, 40, 3), np.uint8)
    image[:, 12:28] = 200
    assert (start_from_image(config, image).frames == 200).all()


@pytest.mark.parametrize("size", [(13, 17), (100, 333), (999, 50)])
def test_any_larger_size_keeps_a_plain_colour(size: tuple[int, int]) -> None:
    start = start_from_image(fake_config(), np.full((*size, 3), 77, np.uint8))
    assert (start.frames == 77).all()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((12, 16, 3), np.float32), "float32; expected a uint8 array"),
        ([[1]], "list; expected a uint8 array"),
        (np.zeros((12, 16), np.uint8), r"shape \(12, 16\); expected \[h, w, 3\]"),
        (np.zeros((12, 16, 4), np.uint8), r"shape \(12, 16, 4\)"),
        (np.zeros((11, 16, 3), np.uint8), "16 x 11 pixels; expected at least 16 x 12"),
    ],
)
def test_an_image_that_cannot_be_a_start(image: Any, message: str) -> None:
    with pytest.raises(ReverieError, match=message):
        start_from_image(fake_config(), image)


def test_the_config_is_frozen_and_round_trips() -> None:
    config = fake_config()
    assert WorldConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    with pytest.raises(AttributeError):
        config.fps = 3  # type: ignore[misc]
