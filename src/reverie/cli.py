"""The command line: one thin verb for each thing Reverie does.

Everything heavy is imported inside the verb that needs it, so that `reverie --help` is instant.
What a person gets wrong is one line on standard error and exit code 2; Ctrl-C is quiet and exits
with 130. A traceback is a bug.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

INTERRUPTED = 130
USER_ERROR = 2
EXTRAS = {
    "av": "video",
    "gymnasium": "simulator",
    "huggingface_hub": "hub",
    "jaxtyping": "train",
    "numba": "simulator",
    "onnx": "train",
    "onnxscript": "train",
    "torch": "train",
}
"""Optional package -> the extra that brings it."""

app = typer.Typer(
    help="Play, train and serve neural worlds: every frame is generated from what the player did.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command (default: the process's own arguments) and returns its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        code = app(arguments, prog_name="reverie", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        line = _one_line(error)
        if line is None or "--traceback" in arguments:
            raise
        print(f"reverie: {line}", file=sys.stderr)
        return USER_ERROR
    return code if isinstance(code, int) else 0


def _one_line(error: Exception) -> str | None:
    """What the person at the keyboard should read; None when the error is a bug of ours."""
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            return None
        extra = f"reverie-worlds[{EXTRAS[package]}]"
        return f"this needs {package}, which is not installed: pip install '{extra}'"
    if isinstance(error, OSError):
        return _system_error(error)
    if isinstance(error, ValueError):
        return " ".join(str(error).split())
    # Usage errors are typer's own or click's, depending on typer's version; both format themselves.
    format_message = getattr(error, "format_message", None)
    return " ".join(format_message().split()) + " (see --help)" if format_message else None


def _system_error(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use; stop what uses it or choose another with --port"
    what = (error.strerror or str(error)).lower()
    return f"{error.filename}: {what}" if error.filename else what


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        print(f"reverie {metadata.version('reverie-worlds')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an error arose, for a bug report.")
    ] = False,
) -> None:
    pass
