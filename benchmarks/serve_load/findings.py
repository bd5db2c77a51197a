"""What a scenario found, and what it is held to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.serve_load.player import Visit

COLUMNS = ("scenario", "figure", "measured", "held to", "met")


@dataclass(slots=True)
class Outcome:
    """rows: of the table. figures: for programs. failed: what was not met. left_out: why a scenario
    could not run here; empty where it ran.
    """

    scenario: str
    rows: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    left_out: str = ""

    def say(self, figure: str, measured: str) -> None:
        """A row that nothing is held to."""
        self.rows.append((self.scenario, figure, measured, "", ""))

    def note(self, name: str, value: Any, figure: str = "", unit: str = "") -> None:
        """A figure that nothing is held to. A row, too, if `figure` names one."""
        self.figures[name] = _json(value)
        if figure:
            self.say(figure, show(value, unit))

    def at_most(self, name: str, value: float, limit: float, figure: str, unit: str = "") -> None:
        self._hold(name, value, value <= limit, figure, f"<= {show(limit, unit)}", unit)

    def at_least(self, name: str, value: float, limit: float, figure: str, unit: str = "") -> None:
        self._hold(name, value, value >= limit, figure, f">= {show(limit, unit)}", unit)

    def must(self, name: str, is_so: bool, figure: str, detail: str = "") -> None:
        """Something that is so or not."""
        self.figures[name] = is_so
        detail = " ".join(detail.replace("|", "/").split())  # it is a cell of a table
        self._row(name, is_so, figure, f"{'yes' if is_so else 'no'}{detail and f': {detail}'}", "")

    def _hold(
        self, name: str, value: float, met: bool, figure: str, held_to: str, unit: str
    ) -> None:
        self.figures[name] = _json(value)
        self._row(name, met, figure, show(value, unit), held_to)

    def _row(self, name: str, met: bool, figure: str, measured: str, held_to: str) -> None:
        self.rows.append((self.scenario, figure, measured, held_to, "yes" if met else "NO"))
        if not met:
            self.failed.append(name)


def _json(value: Any) -> Any:
    """Rounded, and without what JSON does not know."""
    if not isinstance(value, float):
        return value
    return None if math.isnan(value) else round(value, 4)


def show(value: object, unit: str = "") -> str:
    """A value as a person reads it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float) and unit == "%":
        return f"{100 * value:.2f}%"
    text = f"{value:.3g}" if isinstance(value, float) and abs(value) < 1000 else f"{value}"
    return f"{text} {unit}".strip()


def percentile(values: Sequence[float], share: float) -> float:
    """The least of the values that this share of them does not exceed; nan of none."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else math.nan


def spread(values: Sequence[float], unit: str) -> str:
    """Median, 95th percentile and largest in one text."""
    if not values:
        return "-"
    p50, p95, most = (percentile(values, share) for share in (0.5, 0.95, 1.0))
    return f"{p50:.3g} / {p95:.3g} / {most:.3g} {unit}"


def hit_rate(visits: Sequence[Visit]) -> float:
    """Frames that came in time, of those that were due to the players; nan where none was."""
    due = sum(visit.due for visit in visits)
    return sum(visit.hits for visit in visits) / due if due else math.nan


def was_dropped(visit: Visit) -> bool:
    """Its socket was closed from the other side after it had played."""
    return visit.num_frames > 0 and not visit.left
