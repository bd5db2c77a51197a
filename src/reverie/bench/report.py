"""A benchmark's outcome: a table for people, JSON for programs, a section for a document."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reverie.bench.measure import machine_name
from reverie.core import ReverieError


@dataclass(frozen=True)
class Report:
    """command: that makes it. rows: of the table, as texts. figures: by name, with their units in
    the names. notes: sentences on what was done and what could not be measured. device: that did
    the work, "cpu" or "cuda".
    """

    command: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    figures: Mapping[str, Any]
    notes: Sequence[str] = ()
    device: str = "cpu"

    def to_json(self) -> str:
        """One line."""
        return json.dumps(
            {"command": self.command, "machine": machine_name(self.device), **self.figures}
        )


def print_report(report: Report) -> None:
    """The table and the notes; the JSON line last."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*report.columns, title=f"{report.command}  ({machine_name(report.device)})")
    for row in report.rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    for note in report.notes:
        console.print(note, highlight=False)
    print(report.to_json())


def check_writable(file: Path) -> None:
    """Raises ReverieError unless something can be added to this file."""
    try:
        file.open("a").close()
    except OSError as error:
        raise ReverieError(f"cannot write {file}: {error.strerror}") from None


def append_report(report: Report, file: Path) -> None:
    """A section in Markdown at the end of a file."""
    lines = [
        f"\n## `{report.command}`\n",
        f"{time.strftime('%Y-%m-%d')}, {machine_name(report.device)}.\n",
        f"| {' | '.join(report.columns)} |",
        f"|{'---|' * len(report.columns)}",
        *(f"| {' | '.join(row)} |" for row in report.rows),
        "",
        *(f"{note}\n" for note in report.notes),
    ]
    with file.open("a", encoding="utf-8") as document:
        document.write("\n".join(lines))
