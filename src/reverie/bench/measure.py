"""Time, energy, and the name of the machine."""

from __future__ import annotations

import importlib
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reverie.engine.machine import processor_name

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
        self._gpu = _open_nvml() if device == "cuda" else None
        files = RAPL.glob("intel-rapl:*/name") if device == "cpu" and RAPL.is_dir() else ()
        # Whole packages: their parts, and what holds them all (psys), would count twice.
        packages = (file.parent for file in files if file.read_text().startswith("package"))
        self._packages = [folder for folder in packages if _is_readable(folder / "energy_uj")]
        self.source = "NVML" if self._gpu else "RAPL" if self._packages else ""

    def joules(self) -> float | None:
        """Since some moment in the past; None where nothing can be read. Differences count."""
        if self._gpu is not None:
            library, device = self._gpu
            return library.nvmlDeviceGetTotalEnergyConsumption(device) / MILLIJOULES
        if self._packages:
            counts = [int((folder / "energy_uj").read_text()) for folder in self._packages]
            return sum(counts) / MICROJOULES
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
