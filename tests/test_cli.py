"""The command line: exit codes, one-line errors, and that each verb reaches its function."""

from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reverie import cli, server, world
from reverie.core import ReverieError
from reverie.data.episode import Dataset
from reverie.train.evaluate import FULL, QUICK


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `reverie ARGUMENTS`."""
    code = cli.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_help(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]):
    code, out, err = run(capsys, *arguments)
    assert (code, err) == (0, "")
    assert out.startswith("Usage: reverie")


def test_version(capsys: pytest.CaptureFixture[str]):
    code, out, _ = run(capsys, "--version")
    assert code == 0
    assert out.startswith("reverie 0.")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("dance",), "dance"),
        (("--loud",), "--loud"),
        (("play", "--port", "many"), "many"),
        (("play", "--colour", "red"), "--colour"),
        (("generate",), "ACTIONS"),
    ],
)
def test_wrong_usage_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], named: str
):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("reverie: ")
    assert err.count("\n") == 1
    assert named in err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ReverieError("no world 'moon'; expected meadow"), "no world 'moon'; expected meadow"),
        (ValueError("two\nlines"), "two lines"),
        (OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)), "port is in use"),
        (
            PermissionError(errno.EACCES, os.strerror(errno.EACCES), "out.mp4"),
            "out.mp4: permission denied",
        ),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), "'reverie-worlds[train]'"),
        (
            ModuleNotFoundError("No module named 'numba.core'", name="numba.core"),
            "'reverie-worlds[simulator]'",
        ),
    ],
)
def test_errors_are_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    code, out, err = run(capsys)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "error", [RuntimeError("ours"), ModuleNotFoundError("gone", name="reverie.gone")]
)
def test_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch, error: Exception):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(type(error)):
        cli.main([])


def test_interrupt_is_quiet(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupt)
    assert run(capsys) == (130, "", "")


class Calls(list[tuple[tuple[Any, ...], dict[str, Any]]]):
    """Stands where a function was, and remembers how it was called."""

    def __init__(self, answer: Any = None) -> None:
        super().__init__()
        self._answer = answer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.append((args, kwargs))
        return self._answer


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """How `server.serve` was called; the world `meadow` is there, and nothing listens."""
    config = SimpleNamespace(name="meadow", denoising_steps=(1, 2, 4))
    monkeypatch.setattr(world, "load", Calls(SimpleNamespace(config=config)))
    calls = Calls()
    monkeypatch.setattr(server, "serve", calls)
    return calls


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses that a browser was sent to, at once rather than on a thread."""
    addresses: list[str] = []
    monkeypatch.setattr("webbrowser.open", addresses.append)
    monkeypatch.setattr(
        "threading.Thread",
        lambda target, args, daemon: SimpleNamespace(start=lambda: target(*args)),
    )
    return addresses


def announce(served: Calls, capsys: pytest.CaptureFixture[str]) -> str:
    served[0][1]["announce"]("http://127.0.0.1:8137")
    return capsys.readouterr().out


def test_play_opens_the_page(capsys: pytest.CaptureFixture[str], served: Calls, opened: list[str]):
    assert run(capsys, "play")[0] == 0
    assert served[0][1]["host"] == "127.0.0.1"
    assert served[0][1]["port"] is None
    assert "http://127.0.0.1:8137 " in announce(served, capsys)
    assert opened == ["http://127.0.0.1:8137"]


def test_play_passes_wishes_to_the_page(
    capsys: pytest.CaptureFixture[str], served: Calls, opened: list[str]
):
    run(capsys, "play", "--no-browser", "--port", "9000", "--steps", "2", "--seed", "7")
    assert served[0][1]["port"] == 9000
    assert "http://127.0.0.1:8137/?steps=2&seed=7" in announce(served, capsys)
    assert opened == []


def test_play_refuses_steps_the_world_does_not_know(
    capsys: pytest.CaptureFixture[str], served: Calls
):
    code, _, err = run(capsys, "play", "--steps", "3")
    assert (code, served) == (2, [])
    assert "[1, 2, 4]" in err


@pytest.mark.parametrize("verb", ["play", "serve"])
def test_unknown_world_is_said_before_anything_listens(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verb: str
):
    calls = Calls()
    monkeypatch.setattr(server, "serve", calls)
    code, _, err = run(capsys, verb, "atlantis")
    assert (code, calls) == (2, [])
    assert "no world 'atlantis'" in err
    assert err.count("\n") == 1


def test_play_simulator_without_its_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = run(capsys, "play", "--simulator", "--no-browser")
    assert code == 2
    assert "pip install 'reverie-worlds[simulator]'" in err
    assert err.count("\n") == 1


def test_serve_takes_flags_before_its_file_and_opens_no_browser(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    opened: list[str],
    tmp_path: Path,
):
    calls = Calls()
    monkeypatch.setattr("reverie.server.serving.serve_settings", calls)
    file = tmp_path / "serve.toml"
    file.write_text("port = 1\n[sessions]\nresume_s = 5\n")
    flags = ["--config", str(file), "--port", "0", "--players", "3", "--log", "json"]
    assert run(capsys, "serve", "meadow", "tiny", *flags)[0] == 0
    ((settings,), _) = calls[0]
    assert (settings.port, settings.sessions.resume_s, settings.log) == (0, 5, "json")
    assert [(e.world, e.players) for e in settings.engines] == [("meadow", 3), ("tiny", 3)]
    assert opened == []


def test_play_does_not_open_to_others_by_accident(
    capsys: pytest.CaptureFixture[str], served: Calls
):
    code, _, err = run(capsys, "play", "--host", "0.0.0.0", "--no-browser")
    assert (code, served) == (2, [])
    assert "give --open" in err
    assert run(capsys, "play", "--host", "0.0.0.0", "--open", "--no-browser")[0] == 0
    assert served[0][1]["host"] == "0.0.0.0"


def test_serve_does_not_open_to_others_by_accident(capsys: pytest.CaptureFixture[str]):
    code, _, err = run(capsys, "serve", "--host", "0.0.0.0", "--port", "0")
    assert code == 2
    assert "give --keys FILE" in err
    assert err.count("\n") == 1


def test_key_shows_a_key_once_and_lists_names(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    file = ["--file", str(tmp_path / "keys.json")]
    code, shown, _ = run(capsys, "key", "shop", *file, "--world", "meadow", "--admin")
    assert code == 0
    assert shown.startswith("rv_")
    listed = run(capsys, "key", *file)[1]
    assert listed.split()[0] == "shop"
    assert "admin, meadow" in listed
    assert shown.strip() not in listed
    assert run(capsys, "key", "shop", *file)[0] == 2
    assert run(capsys, "key", "shop", *file, "--remove")[0] == 0
    assert run(capsys, "key", "ann", *file, "--remove")[0] == 2


def test_port_in_use_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    config = SimpleNamespace(name="meadow", denoising_steps=(1,))
    monkeypatch.setattr(world, "load", Calls(SimpleNamespace(config=config)))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, _, err = run(capsys, "play", "--no-browser", "--port", port)
    assert code == 2
    assert port in err
    assert err.count("\n") == 1


def test_worlds_lists_what_is_bundled(capsys: pytest.CaptureFixture[str]):
    code, out, _ = run(capsys, "worlds", "--json")
    assert code == 0
    assert tuple(listed["name"] for listed in json.loads(out)) == world.bundled()
    assert len(run(capsys, "worlds")[1].splitlines()) == len(world.bundled())


def test_record_says_what_it_made(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    made = SimpleNamespace(episodes=[SimpleNamespace(num_actions=9)] * 3)
    calls = Calls(made)
    monkeypatch.setattr("reverie.data.record.record", calls)
    arguments = ("record", "reverie/Meadow-v0", "--out", str(tmp_path), "--episodes", "3")
    code, out, _ = run(capsys, *arguments, "--seed", "5", "--processes", "2", "--json")
    assert code == 0
    assert json.loads(out) == {"path": str(tmp_path), "episodes": 3, "frames": 30}
    ((env_id, folder), settings) = calls[0]
    assert (env_id, folder) == ("reverie/Meadow-v0", tmp_path)
    assert settings | {"episodes": 3, "seed": 5, "processes": 2, "progress": False} == settings


def test_record_names_an_unknown_environment(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    code, _, err = run(capsys, "record", "tests/Nowhere-v0", "--out", str(tmp_path / "data"))
    assert code == 2
    assert "tests/Nowhere-v0" in err
    assert err.count("\n") == 1


def test_record_reads_the_picture_size(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    calls = Calls(SimpleNamespace(episodes=[]))
    monkeypatch.setattr("reverie.data.record.record", calls)
    assert run(capsys, "record", "a/B-v0", "--out", "data", "--picture", "160x96")[0] == 0
    assert calls[0][1]["size"] == (96, 160)
    for wrong in ("160", "160x", "0x96", "wide x high"):
        code, _, err = run(capsys, "record", "a/B-v0", "--out", "data", "--picture", wrong)
        assert code == 2
        assert repr(wrong) in err


TRAIN = ("train", "autoencoder", "--data", "data", "--out", "run", "--steps", "100")


@pytest.mark.parametrize(("reached", "code"), [(100, 0), (40, 130)], ids=["done", "stopped"])
def test_train_tells_a_stopped_run_from_a_finished_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, reached: int, code: int
):
    config = SimpleNamespace(steps=100)
    calls = Calls(SimpleNamespace(folder=Path("run/autoencoder"), step=reached, config=config))
    monkeypatch.setattr("reverie.train.recipe.train_stage", calls)
    given = run(capsys, *TRAIN, "--size", "tiny", "--save-every", "60", "--json")
    assert given[0] == code
    stage, data, folder, size, config, num_frames, begin_with = calls[0][0]
    assert (stage, data, folder, size) == ("autoencoder", Path("data"), Path("run"), "tiny")
    assert (config.steps, config.save_every_s) == (100, 60.0)
    assert (num_frames, begin_with) == (None, None)
    if code == 0:
        assert json.loads(given[1])["steps"] == 100


def test_distill_tells_how_much_to_guide(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    config = SimpleNamespace(steps=100)
    calls = Calls(SimpleNamespace(folder=Path("run/distilled"), step=100, config=config))
    monkeypatch.setattr("reverie.train.recipe.distill_stage", calls)
    given = run(capsys, "distill", *TRAIN[2:], "--guidance", "0.5", "--json")
    assert given[0] == 0
    data, folder, config, guidance, num_frames = calls[0][0]
    assert (data, folder, config.steps, num_frames) == (Path("data"), Path("run"), 100, None)
    assert guidance.amount == 0.5
    assert json.loads(given[1]) == {"path": "run/distilled", "stage": "distilled", "steps": 100}


def test_distill_needs_a_denoiser(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, meadow_set: Dataset
):
    code, _, err = run(
        capsys, "distill", "--steps", "1", "--data", str(meadow_set.path), "--out", str(tmp_path)
    )
    assert code == 2
    assert "train this stage first" in err
    assert err.count("\n") == 1


def test_train_without_a_data_set_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    arguments = ("train", "denoiser", "--steps", "1", "--out", str(tmp_path))
    code, _, err = run(capsys, *arguments, "--data", str(tmp_path / "nothing"))
    assert code == 2
    assert "nothing" in err
    assert err.count("\n") == 1


def test_export_names_the_world_it_wrote(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "config.json").write_text("{}")
    calls = Calls(SimpleNamespace(path=tmp_path, starts=(1, 2)))
    monkeypatch.setattr("reverie.train.recipe.export_run", calls)
    card = tmp_path / "card.md"
    card.write_text("# Brook\n", "utf-8")
    arguments = ("r", str(tmp_path), "--data", "d", "--name", "brook")
    code, out, _ = run(capsys, "export", *arguments, "--card", str(card))
    assert code == 0
    assert f"reverie play {tmp_path}" in out
    assert calls[0][0] == (Path("d"), Path("r"), tmp_path, "brook", None, "# Brook\n")


def test_export_without_its_card_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    arguments = ("r", str(tmp_path), "--data", "d")
    code, _, err = run(capsys, "export", *arguments, "--card", str(tmp_path / "card.md"))
    assert code == 2
    assert "card.md: no such file or directory" in err


@pytest.mark.parametrize(("missed", "code"), [([], 0), (["turns_obeyed"], 3)])
def test_evaluate_fails_where_a_threshold_is_missed(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    served: Calls,
    missed: list[str],
    code: int,
):
    report = {"turns_obeyed": 0.9, "missed": missed, "not_measured": []}
    calls = Calls(report)
    monkeypatch.setattr("reverie.train.evaluate.evaluate", calls)
    arguments = ("evaluate", "meadow", "--data", "d", "--out", "o", "--steps", "2")
    given = run(capsys, *arguments, "--json")
    assert (given[0], json.loads(given[1])) == (code, report)
    assert calls[0][1] == {"num_steps": 2, "runtime": None, "effort": FULL}
    assert "turns_obeyed" in run(capsys, *arguments)[1]
    run(capsys, *arguments, "--quick")
    assert calls[-1][1]["effort"] == QUICK


def test_evaluate_refuses_steps_the_world_does_not_know(
    capsys: pytest.CaptureFixture[str], served: Calls
):
    code, _, err = run(capsys, "evaluate", "m", "--data", "d", "--out", "o", "--steps", "3")
    assert code == 2
    assert "[1, 2, 4]" in err


def test_generate_writes_a_film(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_path: Path
):
    script, film = tmp_path / "script.json", tmp_path / "clip.mp4"
    script.write_text('[{"keys": ["w"], "frames": 5}, {"frames": 3}]')
    arguments = ("generate", str(script), "-o", str(film), "--world", str(tiny_path))
    code, out, _ = run(capsys, *arguments, "--steps", "2", "--json")
    assert code == 0
    assert json.loads(out)["frames"] == 8
    assert film.stat().st_size > 0
    assert "8 frames" in run(capsys, *arguments)[1]


@pytest.mark.parametrize(
    ("script", "more", "named"),
    [
        ('[{"keys": ["fly"]}]', (), "'fly'"),
        ("[", (), "script.json is not JSON"),
        (None, (), "script.json"),
        ('[{"frames": 2}]', ("--start", "nowhere"), "'nowhere'"),
        ('[{"frames": 2}]', ("--steps", "3"), "3"),
    ],
    ids=["unknown key", "no JSON", "no file", "unknown start", "unknown steps"],
)
def test_generate_names_what_is_wrong(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tiny_path: Path,
    script: str | None,
    more: tuple[str, ...],
    named: str,
):
    file = tmp_path / "script.json"
    if script is not None:
        file.write_text(script)
    film = tmp_path / "clip.mp4"
    arguments = ("generate", str(file), "-o", str(film), "--world", str(tiny_path), *more)
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert named in err
    assert err.count("\n") == 1
    assert not film.exists()


def test_generate_into_a_folder_that_may_not_be_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_path: Path
):
    (tmp_path / "script.json").write_text('[{"frames": 1}]')
    blocked = tmp_path / "file"
    blocked.touch()  # not a folder: refused for root too
    arguments = ("generate", str(tmp_path / "script.json"), "-o", str(blocked / "clip.mp4"))
    code, _, err = run(capsys, *arguments, "--world", str(tiny_path), "--json")
    assert code == 2
    assert "clip.mp4" in err
    assert err.count("\n") == 1
