"""What the machine draws, where it tells: RAPL for processor packages and their memory (Linux, and
only for who may read it), NVML for the GPUs that are served from. Elsewhere None, and nothing is
guessed.
"""

from __future__ import annotations

import importlib
import logging
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

POWERCAP = Path("/sys/class/powercap")
WINDOW_S = 1.0
"""Counters are read at most so often, and watts are a mean over at least this long."""
_ZONE = re.compile(r"intel-rapl:\d+(:\d+)?")  # AMD's go by the same name; -mmio repeats the others
_MICROJOULES, _MILLIJOULES = 1e-6, 1e-3

logger = logging.getLogger(__name__)


class _Counter(Protocol):
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
        self._last: dict[_Counter, float] = {}
        for counter in [*_rapl_zones(powercap), *_gpus(devices, nvml)]:
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


def _rapl_zones(powercap: Path) -> list[_Counter]:
    """Packages, and memory where it is a zone of its own: a package's count leaves it out. The
    other zones lie within a package, or around all of them.
    """
    zones: list[_Counter] = []
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


def _gpus(devices: Iterable[str], nvml: Any) -> list[_Counter]:
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
