"""The command line: exit codes, one-line errors, and that each verb reaches its function."""

from __future__ import annotations

import errno
import os

import pytest

from reverie import cli
from reverie.core import ReverieError


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
