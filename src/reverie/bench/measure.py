"""Time, energy, and the name of the machine."""

from __future__ import annotations

import importlib
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

RAPL = Path("/sys/class/powercap")
MICROJOULES = 1e6
MILLIJOULES = 1e3


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
    """The value that this share of them does not exceed; one of them."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def machine_name() -> str:
    """The processor, how many of its cores this process may use, and the first GPU if
    NVIDIA's library (nvidia-ml-py) is there.
    """
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = _open_nvml()
    gpu = f", {found[0].nvmlDeviceGetName(found[1])}" if found else ""
    return f"{name}, {cores} cores{gpu}"


class EnergyMeter:
    """Joules that the processor (RAPL) or the GPU (NVML) has used, where the machine says so.

    source: what is read; empty where there is nothing to read.
    """

    def __init__(self) -> None:
        files = RAPL.glob("intel-rapl:*/energy_uj") if RAPL.is_dir() else ()
        # Whole packages; intel-rapl:0:1 is a part of intel-rapl:0.
        packages = (file for file in files if file.parent.name.count(":") == 1)
        self._packages = [file for file in packages if _is_readable(file)]
        self._gpu = _open_nvml()
        self.source = "NVML" if self._gpu else "RAPL" if self._packages else ""

    def joules(self) -> float | None:
        """Since some moment in the past; None where nothing can be read. Differences count."""
        if self._gpu is not None:
            library, device = self._gpu
            return library.nvmlDeviceGetTotalEnergyConsumption(device) / MILLIJOULES
        if self._packages:
            return sum(int(file.read_text()) for file in self._packages) / MICROJOULES
        return None


def _is_readable(file: Path) -> bool:
    try:
        file.read_text()
    except OSError:
        return False
    return True


def _open_nvml() -> tuple[Any, Any] | None:
    """NVIDIA's library and the first GPU, where there are both and it counts its energy."""
    try:
        library: Any = importlib.import_module("pynvml")
        library.nvmlInit()
        device = library.nvmlDeviceGetHandleByIndex(0)
        library.nvmlDeviceGetTotalEnergyConsumption(device)
    except Exception:  # not installed, no driver, no meter; its errors are its own
        return None
    return library, device
