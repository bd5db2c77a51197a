"""Writes docs/cli.md from the command line itself, so that the page says what the program does.

python scripts/cli_page.py            writes the page
python scripts/cli_page.py --check    exits with 1 when the page is not what the program says
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer.main

from reverie.cli import app

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
OPENING = """\
# The command line

This page is written by `make docs` from the program itself; a test keeps it current.

Errors are one line on standard error and exit code 2; Ctrl-C exits with 130.
`reverie --traceback COMMAND ...` shows where an error arose. Where a program would read the answer,
`--json` prints it as JSON.
"""


def page() -> str:
    """The whole page, Markdown."""
    root: Any = typer.main.get_command(app)
    lines = [OPENING, "| command | does |", "|---|---|"]
    for name, command in sorted(root.commands.items()):
        lines.append(f"| [`reverie {name}`](#reverie-{name}) | {_first_line(command.help)} |")
    for name, command in sorted(root.commands.items()):
        lines += ["", *_section(name, command)]
    return "\n".join(lines) + "\n"


def _section(name: str, command: Any) -> list[str]:
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option"]
    synopsis = " ".join([f"reverie {name}", *(_metavar(param) for param in arguments), "[OPTIONS]"])
    lines = [f"## reverie {name}", "", f"    {synopsis}", "", _prose(command.help), ""]
    lines += ["| | | default |", "|---|---|---|"]
    for param in [*arguments, *options]:
        flags = [_metavar(param)] if param in arguments else [*param.opts, *param.secondary_opts]
        spelled = " ".join(f"`{flag}`" for flag in flags)
        lines.append(f"| {spelled} | {_prose(param.help)} | {_default(param)} |")
    return lines


def _metavar(param: Any) -> str:
    name = (param.metavar or param.name).strip("[]").upper()
    return name if param.required else f"[{name}]"


def _default(param: Any) -> str:
    if param.required:
        return "required"
    if param.default is None or param.default is False or callable(param.default):
        return ""
    return f"`{param.opts[0]}`" if param.default is True else f"`{param.default}`"


def _prose(text: str | None) -> str:
    paragraphs = (text or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _first_line(text: str | None) -> str:
    return _prose(text).split("\n\n")[0]


def main() -> int:
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page():
        return 0
    print("docs/cli.md is not what the program says; run `make docs`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
