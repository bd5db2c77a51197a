"""What a world is held to: bounds of figures, said in its card, or those of a release.

The card is Markdown with YAML before it, as model hubs expect it:

    ---
    license: apache-2.0
    thresholds:
      next_frame_margin: ">= 6"
      drift_ratio: "<= 1.5"
    ---
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from reverie.core import ReverieError


@dataclass(frozen=True)
class Threshold:
    """A bound that a figure must keep."""

    bound: float
    at_most: bool = False

    def is_met_by(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound

    def __str__(self) -> str:
        return f"{'at most' if self.at_most else 'at least'} {self.bound:g}"


RELEASE = {
    "reconstruction_psnr": Threshold(30),
    "next_frame_margin": Threshold(6),
    "turns_obeyed": Threshold(0.95),
    "turn_angle_error": Threshold(0.1, at_most=True),
    "keys_obeyed": Threshold(0.95),
    "walk_speed_ratio": Threshold(0.75),
    "breaks": Threshold(0.8),
    "places": Threshold(0.8),
    "prompts_obeyed": Threshold(0.95),
    "memory_margin": Threshold(3),
    "flicker_ratio": Threshold(1.2, at_most=True),
    "collapsed": Threshold(0, at_most=True),
    "drift_ratio": Threshold(1.5, at_most=True),
    "first_attempt": Threshold(0.99),
}
"""For worlds whose card says nothing."""


def read_thresholds(card: str, known: Collection[str]) -> dict[str, Threshold] | None:
    """The thresholds of a card; None where it has none. Raises ReverieError on ones that cannot be
    read, or are of no known figure.
    """
    front = re.match(r"\ufeff?---\r?\n(.*?)\r?\n---\s", card, re.DOTALL)
    if not front:
        return None
    import yaml

    try:
        data: Any = yaml.safe_load(front[1])
    except (yaml.YAMLError, ValueError) as error:  # a date that there is not is a ValueError
        reason = str(error).replace("\n", " ")
        raise ReverieError(f"the card does not begin with YAML: {reason}") from None
    found = data.get("thresholds") if isinstance(data, dict) else None
    if found is None:
        return None
    if not isinstance(found, dict):
        raise ReverieError(f'thresholds of the card are {found!r}; expected lines of name: ">= 1"')
    if unknown := sorted({str(name) for name in found} - set(known)):
        raise ReverieError(f"no figure {unknown[0]!r}; thresholds are of {', '.join(known)}")
    return {str(name): _parse(str(name), text) for name, text in found.items()}


def _parse(name: str, text: object) -> Threshold:
    parts = re.fullmatch(r"\s*(>=|<=)\s*(-?[0-9.]+)\s*", str(text))
    try:
        if parts:
            return Threshold(float(parts[2]), parts[1] == "<=")
    except ValueError:
        pass
    raise ReverieError(f'threshold {name} of the card is {text!r}; expected such as ">= 0.95"')


def missed(figures: Mapping[str, Any], thresholds: Mapping[str, Threshold]) -> list[str]:
    """Names of thresholds whose figure was measured and lies beyond them, sorted."""
    return sorted(
        name
        for name, threshold in thresholds.items()
        if name in figures
        and not (math.isfinite(figures[name]) and threshold.is_met_by(figures[name]))
    )
