"""What the machine draws, where it tells (`engine.energy`); elsewhere None: nothing is guessed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from reverie.engine.energy import POWERCAP, Counter, gpu_counters, processor_counters

WINDOW_S = 1.0
"""Counters are read at most so often, and watts are a mean over at least this long."""

logger = logging.getLogger(__name__)


class PowerMeter:
    """Energy and power of this machine's processors and of the GPUs among `devices` ("cuda:1").
    For one thread.

    powercap: where the RAPL zones are. nvml: the module pynvml, or what stands in for it.
    """

    def __init__(
        self,
        devices: Iterable[str] = (),
        *,
        powercap: Path = POWERCAP,
        nvml: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._last: dict[Counter, float] = {}
        for counter in [*processor_counters(powercap), *gpu_counters(devices, nvml)]:
            try:
                self._last[counter] = counter.read_j()
            except Exception as error:  # as above
                logger.info("no energy of %s: %s", counter.name, error)
        self._time_s = clock()
        self._joules = 0.0
        self._watts: float | None = None

    @property
    def sources(self) -> list[str]:
        """What is measured: "package-0", "dram", "cuda:1"; empty where nothing is."""
        return sorted(counter.name for counter in self._last)

    def joules(self) -> float | None:
        """Since this meter began; None where nothing is measured."""
        self._read()
        return self._joules if self._last else None

    def watts(self) -> float | None:
        """Mean between the last two readings; None where nothing is measured, or not yet."""
        self._read()
        return self._watts if self._last else None

    def _read(self) -> None:
        elapsed_s = self._clock() - self._time_s
        if elapsed_s < WINDOW_S:
            return
        spent_j = 0.0
        for counter, before_j in [*self._last.items()]:
            try:
                self._last[counter] = now_j = counter.read_j()
                spent_j += max(now_j - before_j, 0.0)  # a driver that was loaded anew counts from 0
            except Exception as error:  # a driver's, of any kind: a meter must not stop the server
                logger.warning("energy of %s cannot be read any more: %s", counter.name, error)
                del self._last[counter]
        self._joules += spent_j
        self._watts = spent_j / elapsed_s
        self._time_s += elapsed_s
