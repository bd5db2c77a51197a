"""Settings: where they come from, which goes first, and the line for each that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from reverie.core import ReverieError
from reverie.server.settings import read_settings


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "serve.toml"
    path.write_text(text)
    return path


def test_without_anything_it_serves_the_bundled_world_to_this_machine():
    settings = read_settings(None, {})
    assert settings.host == "127.0.0.1"
    assert [(engine.world, engine.device) for engine in settings.engines] == [("meadow", "cpu")]
    assert settings.access.keys is None
    assert settings.sessions.limits().resume_s == 30


def test_flags_go_before_the_environment_and_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = file(
        tmp_path,
        "port = 1\nhost = 'a'\nquality = 70\n[sessions]\nresume_s = 5\n[[engines]]\nworld = 'w'\n",
    )
    monkeypatch.setenv("REVERIE_HOST", "b")
    monkeypatch.setenv("REVERIE_PORT", "2")
    monkeypatch.setenv("REVERIE_SESSIONS__IDLE_S", "7")
    settings = read_settings(path, {"port": 3})
    assert (settings.port, settings.host, settings.quality) == (3, "b", 70)
    assert (settings.sessions.resume_s, settings.sessions.idle_s) == (5, 7)
    assert settings.engines[0].world == "w"


def test_several_worlds_on_several_devices(tmp_path: Path):
    path = file(
        tmp_path,
        "[[engines]]\nworld = 'meadow'\n[[engines]]\nworld = 'doom'\ndevice = 'cuda:1'\n"
        "players = 64\nstandby = false\n",
    )
    first, second = read_settings(path, {}).engines
    assert (first.world, first.standby) == ("meadow", True)
    assert (second.device, second.players, second.standby) == ("cuda:1", 64, False)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("prot = 1", "unknown setting 'prot'; expected one of access, engines, host"),
        ("[[engines]]\nword = 'm'", "unknown setting 'engines.0.word'; expected one of device"),
        ("[sessions]\nresume_s = -5", "sessions.resume_s is -5: input should be greater than 0"),
        ("port = 'x'", "port is 'x': input should be a valid integer"),
        ("log = 'xml'", "log is 'xml': input should be 'text' or 'json'"),
        ("port = ", "is not TOML"),
    ],
)
def test_a_wrong_setting_is_one_line(tmp_path: Path, text: str, line: str):
    with pytest.raises(ReverieError) as caught:
        read_settings(file(tmp_path, text), {})
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "serve.toml" in str(caught.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path):
    with pytest.raises(ReverieError, match=r"nothing\.toml is not a file; expected settings"):
        read_settings(tmp_path / "nothing.toml", {})


def test_an_environment_that_is_wrong_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REVERIE_ENGINES", "meadow")
    with pytest.raises(ReverieError, match="engines"):
        read_settings(None, {})
