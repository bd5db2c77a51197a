"""Counters of the energy that a machine has used: RAPL for processor packages and their memory
(Linux, and only for who may read it), NVML for GPUs. Elsewhere there are none, and nothing is
guessed.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

POWERCAP = Path("/sys/class/powercap")
_ZONE = re.compile(r"intel-rapl:\d+(:\d+)?")  # AMD's go by the same name; -mmio repeats the others
_MICROJOULES, _MILLIJOULES = 1e-6, 1e-3

logger = logging.getLogger(__name__)


class Counter(Protocol):
    """Of one part of the machine, `name`: "package-0", "dram", "cuda:1"."""

    name: str

    def read_j(self) -> float:
        """Joules so far, from any beginning; may raise."""
        ...


class _RaplZone:
    """A counter that begins again at 0 when it is full; after hours without a reading it may have
    done so unseen, which counts too little, never too much.
    """

    def __init__(self, path: Path) -> None:
        self.name = (path / "name").read_text().strip()
        self._file = path / "energy_uj"
        self._range_uj = int((path / "max_energy_range_uj").read_text())
        self._last_uj = self._read()
        self._full_uj = 0

    def read_j(self) -> float:
        now_uj = self._read()
        if now_uj < self._last_uj:
            self._full_uj += self._range_uj
        self._last_uj = now_uj
        return (self._full_uj + now_uj) * _MICROJOULES

    def _read(self) -> int:
        return int(self._file.read_text())


class _Gpu:
    def __init__(self, nvml: Any, index: int) -> None:
        self._nvml = nvml
        self._handle = nvml.nvmlDeviceGetHandleByIndex(index)
        self.name = f"cuda:{index}"

    def read_j(self) -> float:
        return self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) * _MILLIJOULES


def processor_counters(powercap: Path) -> list[Counter]:
    """Packages, and memory where it is a zone of its own: a package's count leaves it out. The
    other zones lie within a package, or around all of them.
    """
    zones: list[Counter] = []
    for path in sorted(powercap.glob("intel-rapl:*")):
        if not _ZONE.fullmatch(path.name):
            continue
        try:
            zone = _RaplZone(path)
        except (OSError, ValueError) as error:  # mostly: only root may read it
            logger.info("no energy of %s: %s", path.name, error)
            continue
        if zone.name.startswith("package") or zone.name == "dram":
            zones.append(zone)
    return zones


def gpu_counters(devices: Iterable[str], nvml: Any = None) -> list[Counter]:
    """Of those among the devices ("cuda:1"). nvml: the module pynvml, or what stands in for it."""
    named = {int(device.partition(":")[2] or 0) for device in devices if device.startswith("cuda")}
    if not named:
        return []
    try:
        nvml = nvml or importlib.import_module("pynvml")
        nvml.nvmlInit()
        return [_Gpu(nvml, index) for index in sorted(named)]
    except Exception as error:  # not installed, no driver, no such GPU
        logger.info("no energy of GPUs: %s", error)
        return []
