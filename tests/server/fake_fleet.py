"""A fleet, a lobby and a ledger as they are seen by whoever only looks at them."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from reverie.engine import EngineStatus
from reverie.server.fleet import HostState
from reverie.server.usage import UsageLedger
from reverie.session import SessionState


@dataclass
class FakeMeter:
    """Draws this many watts; None: nobody knows."""

    power: float | None = None
    energy: float | None = None
    sources: list[str] = field(default_factory=list)

    def watts(self) -> float | None:
        return self.power

    def joules(self) -> float | None:
        return self.energy


@dataclass
class FakeHost:
    """An engine's host. status: None while it is not ready."""

    name: str = "meadow/0"
    status: EngineStatus | None = None
    world_name: str = "meadow"
    device: str = "cpu"
    num_restarts: int = 0
    failure: BaseException | None = None
    has_standby: bool = False

    @property
    def engine(self) -> Any:
        if self.status is None:
            return None
        return SimpleNamespace(status=self.status, num_active=self.status.num_active, pid=4711)

    @property
    def state(self) -> HostState:
        if self.failure is not None:
            return HostState.FAILED
        return HostState.WARMING if self.status is None else HostState.READY


class FakeFleet:
    """Of these hosts."""

    def __init__(self, *hosts: FakeHost, num_waiting: int = 0) -> None:
        self.hosts = list(hosts)
        room = SimpleNamespace(num_waiting=num_waiting, expected_wait_s=lambda position: None)
        names = dict.fromkeys(host.world_name for host in hosts)
        self.pools = {name: SimpleNamespace(title=name, room=room) for name in names}
        self.state = HostState.READY

    def seat(self, world: str, state: SessionState) -> Any:
        return SimpleNamespace(pool=self.pools[world], state=state)


@dataclass
class FakeLobby:
    """With these seats."""

    seats: list[Any] = field(default_factory=list)
    num_recovered: int = 0
    draining: bool = False


def fake_ledger(meter: FakeMeter | None = None, **options: Any) -> UsageLedger:
    return UsageLedger(meter=meter or FakeMeter(), **options)  # type: ignore[arg-type]
