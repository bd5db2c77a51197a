"""Who used how much: sessions, seconds, frames, device time, energy and money, by the name of a key
and by world. Sums only: nothing of what was played is in here.

Lives on the event loop, all but the thread that writes the file.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from reverie.core import ReverieError
from reverie.server.power import PowerMeter
from reverie.server.usage_file import UsageFile

MAX_ROWS = 1000
"""Of names and worlds; who comes after that is counted together, as OTHERS."""
OTHERS = "(others)"
_S_PER_HOUR = 3600.0
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins so is run by a spreadsheet."""


@dataclass(slots=True)
class Usage:
    """What was used. seconds: with a place in an engine. device_s: of a device's time; a frame that
    was drawn together with b - 1 others counts a b-th part. joules, dollars: None where there is no
    meter, no price.
    """

    sessions: int = 0
    seconds: float = 0.0
    frames: int = 0
    device_s: float = 0.0
    joules: float | None = None
    dollars: float | None = None

    def add(self, other: Usage) -> None:
        """Add what another one counted."""
        for field in fields(self):
            more, so_far = getattr(other, field.name), getattr(self, field.name)
            if more is not None:
                setattr(self, field.name, more + (so_far or 0))

    def to_json(self) -> UsageBody:
        """As it is told: to the millisecond, and to a millionth of a dollar."""
        return {
            "sessions": self.sessions,
            "seconds": round(self.seconds, 3),
            "frames": self.frames,
            "device_s": round(self.device_s, 3),
            "joules": None if self.joules is None else round(self.joules, 3),
            "dollars": None if self.dollars is None else round(self.dollars, 6),
        }


class UsageBody(TypedDict):
    """What was used, as it is told; see `Usage`."""

    sessions: int
    seconds: float
    frames: int
    device_s: float
    joules: float | None
    dollars: float | None


class UsageRow(UsageBody):
    """Of one key and world."""

    who: str
    world: str


class LedgerBody(TypedDict):
    """Everybody's usage since the server began. price_per_hour: dollars, of one device. energy_of:
    what the joules are measured of; nothing is where that is empty.
    """

    since: str
    price_per_hour: float | None
    energy_of: list[str]
    rows: list[UsageRow]
    total: UsageBody


class UsageLedger:
    """Everybody's usage since the server began.

    price_per_hour: dollars, of one device. file: gets a line of JSON for each session that ended.
    meter: of this machine's energy. num_devices: that sessions are drawn on, over which the
    machine's power is spread. Raises ReverieError where the file cannot be.
    """

    def __init__(
        self,
        price_per_hour: float | None = None,
        file: Path | None = None,
        *,
        meter: PowerMeter | None = None,
        num_devices: int = 1,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if file is not None and not file.parent.is_dir():
            raise ReverieError(f"usage file {file}: there is no folder {file.parent}; make it")
        self.price_per_hour = price_per_hour
        self.meter = meter or PowerMeter()
        self.total = Usage()
        self._num_devices = max(num_devices, 1)
        self._rows: dict[tuple[str, str], Usage] = {}
        self._wall = wall
        self._since_s = wall()
        self._file = None if file is None else UsageFile(file)

    def open(self, who: str, world: str) -> Account:
        """A session's own account. It counts as a session when it is charged first."""
        return Account(self, who, world)

    def charge(
        self, who: str, world: str, *, seconds: float, frames: int, device_s: float
    ) -> Usage:
        """Count what was used since the last charge; returns it with what it cost.

        Its energy is the machine's mean power over its device time: what the machine draws while
        nobody's frame is drawn is nobody's.
        """
        used = Usage(0, seconds, frames, device_s)
        if self.price_per_hour is not None:
            used.dollars = self.price_per_hour * device_s / _S_PER_HOUR
        watts = self.meter.watts()
        if watts is not None:
            used.joules = watts / self._num_devices * device_s
        self._count(who, world, used)
        return used

    def rows(self) -> Iterator[tuple[str, str, Usage]]:
        """Name, world and usage of each, sorted."""
        for (who, world), usage in sorted(self._rows.items()):
            yield who, world, usage

    def to_json(self) -> LedgerBody:
        """Everything."""
        return {
            "since": _iso(self._since_s),
            "price_per_hour": self.price_per_hour,
            "energy_of": self.meter.sources,
            "rows": [
                {"who": who, "world": world, **usage.to_json()} for who, world, usage in self.rows()
            ],
            "total": self.total.to_json(),
        }

    def to_csv(self) -> str:
        """A table with a line for each name and world."""
        table = io.StringIO()
        writer = csv.writer(table)
        writer.writerow(["who", "world", *(field.name for field in fields(Usage))])
        for who, world, usage in self.rows():
            writer.writerow([_cell(who), _cell(world), *usage.to_json().values()])
        return table.getvalue()

    def close(self) -> None:
        """Write what was not written yet, for as long as a server that stops can wait."""
        if self._file is not None:
            self._file.close()

    def _count(self, who: str, world: str, used: Usage) -> None:
        key = (who, world)
        if key not in self._rows and len(self._rows) >= MAX_ROWS:
            key = (OTHERS, world)
        self._rows.setdefault(key, Usage()).add(used)
        self.total.add(used)

    def _ended(self, who: str, world: str, usage: Usage) -> None:
        if self._file is not None:
            line = {"ended": _iso(self._wall()), "who": who, "world": world, **usage.to_json()}
            self._file.append(json.dumps(line))


class Account:
    """What one session used, from its first place to its end."""

    def __init__(self, ledger: UsageLedger, who: str, world: str) -> None:
        self.who, self.world = who, world
        self.usage = Usage()
        self._ledger = ledger
        self._closed = False

    def charge(self, *, seconds: float, frames: int, device_s: float) -> None:
        """See `UsageLedger.charge`."""
        if not self.usage.sessions:
            self._ledger._count(self.who, self.world, Usage(sessions=1))
            self.usage.sessions = 1
        used = self._ledger.charge(
            self.who, self.world, seconds=seconds, frames=frames, device_s=device_s
        )
        self.usage.add(used)

    def close(self) -> None:
        """The session is over. A second time does nothing, and one that never played is not told
        of.
        """
        if not self._closed and self.usage.sessions:
            self._ledger._ended(self.who, self.world, self.usage)
        self._closed = True


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _iso(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
