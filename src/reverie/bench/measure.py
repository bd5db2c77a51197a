"""Time, energy, and the name of the machine."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence

from reverie.engine.energy import POWERCAP, gpu_counters, processor_counters
from reverie.engine.machine import processor_name

RAPL = POWERCAP


def times_ms(work: Callable[[], object], count: int, warm_up: int = 1) -> list[float]:
    """Milliseconds of each of `count` calls, after a few that are not counted."""
    for _ in range(warm_up):
        work()
    times = []
    for _ in range(count):
        started_s = time.perf_counter()
        work()
        times.append((time.perf_counter() - started_s) * 1000)
    return times


def percentile(values: Sequence[float], share: float) -> float:
    """The least of the values that this share of them does not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def machine_name(device: str = "cpu") -> str:
    """The processor and how many of its cores this process may use, or the GPU where the work was
    done on one ("cuda").
    """
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor_name()}, {cores} cores"


class EnergyMeter:
    """Joules that a device has used, where the machine says so: a processor by RAPL, a GPU ("cuda")
    by NVML.

    source: what is read; empty where there is nothing to read.
    """

    def __init__(self, device: str = "cpu") -> None:
        is_gpu = device == "cuda"
        self._counters = gpu_counters([device]) if is_gpu else processor_counters(RAPL)
        self.source = ("NVML" if is_gpu else "RAPL") if self._counters else ""

    def joules(self) -> float | None:
        """Since some moment in the past; None where nothing can be read. Differences count."""
        return sum(counter.read_j() for counter in self._counters) if self._counters else None
