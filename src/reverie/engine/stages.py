"""How long the stages of an engine's work take, as histograms that cost nothing to keep."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

STAGES = ("draw", "commit", "warm", "snapshot")
"""Drawing a batch, remembering it, one frame or one saved session put into a slot, one moment taken
out of it.
"""
STAGE_BUCKETS_MS = (
    0.5,
    1.0,
    2.0,
    3.0,
    5.0,
    7.5,
    10.0,
    15.0,
    20.0,
    30.0,
    50.0,
    100.0,
    250.0,
    1000.0,
)
"""Upper ends; one more bucket takes what is longer."""

Histogram = tuple[tuple[int, ...], float]
"""Counts by bucket, and the sum in milliseconds."""


class StageTimes:
    """Counts by bucket of every stage. One thread writes; another may read a moment ago's."""

    def __init__(self) -> None:
        self.busy_s = 0.0
        """Of all stages together."""
        self._counts = {stage: [0] * (len(STAGE_BUCKETS_MS) + 1) for stage in STAGES}
        self._sums_ms: dict[str, float] = dict.fromkeys(STAGES, 0.0)

    def observe(self, stage: str, seconds: float) -> None:
        """One run of a stage took so long."""
        self._counts[stage][bisect_left(STAGE_BUCKETS_MS, 1e3 * seconds)] += 1
        self._sums_ms[stage] += 1e3 * seconds
        self.busy_s += seconds

    def histograms(self) -> Mapping[str, Histogram]:
        """Of every stage."""
        return {stage: (tuple(self._counts[stage]), self._sums_ms[stage]) for stage in STAGES}
