"""Engines that come, die, and are replaced; worlds by name; rooms in several engines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from reverie.core import ReverieError
from reverie.engine import Engine
from reverie.server.fleet import EngineSpec, Fleet, HostState
from reverie.server.protocol import ProtocolError
from tests.server.live import LandscapeRuntime


class MortalEngine(Engine):
    """An engine that can be killed, as a process can."""

    def __init__(self, num_slots: int = 2) -> None:
        runtime = LandscapeRuntime()
        super().__init__(runtime.world, runtime, num_slots)
        self.on_death: Callable[[str], None] | None = None
        self.num_stops = 0

    def stop(self) -> None:
        self.num_stops += 1
        super().stop()

    def die(self) -> None:
        assert self.on_death is not None
        self.on_death("killed")


class Maker:
    """Makes mortal engines, and keeps them. failing: of the next ones, how many do not start."""

    def __init__(self, num_slots: int = 2) -> None:
        self.made: list[MortalEngine] = []
        self.failing = 0
        self._num_slots = num_slots

    def __call__(self) -> MortalEngine:
        if self.failing:
            self.failing -= 1
            raise ReverieError("no memory")
        self.made.append(MortalEngine(self._num_slots))
        return self.made[-1]


async def until(holds: Callable[[], bool], timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.01)


def test_an_engine_that_dies_is_started_again():
    async def story() -> None:
        make = Maker()
        fleet = Fleet([EngineSpec(make)])
        fleet.start()
        (host,) = fleet.hosts
        await until(lambda: host.engine is not None)
        first = make.made[0]
        first.die()
        await until(lambda: host.engine is make.made[-1] and len(make.made) == 2)
        assert (host.num_restarts, host.state, first.num_stops) == (1, HostState.READY, 1)
        first.die()  # the dead die once
        await asyncio.sleep(0.05)
        assert host.num_restarts == 1
        await fleet.stop()
        assert make.made[1].num_stops == 1

    asyncio.run(story())


def test_a_standby_takes_the_place_at_once(monkeypatch: pytest.MonkeyPatch):
    async def story() -> None:
        make = Maker()
        fleet = Fleet([EngineSpec(make, standby=True)])
        fleet.start()
        (host,) = fleet.hosts
        await until(lambda: host.has_standby)
        first, second = make.made
        assert host.engine is first
        monkeypatch.setattr("reverie.server.fleet.FIRST_PAUSE_S", 60.0)
        first.die()
        await until(lambda: host.engine is second, 0.2)
        await fleet.stop()

    asyncio.run(story())


def test_a_standby_that_dies_is_replaced_and_nobody_notices():
    async def story() -> None:
        make = Maker()
        fleet = Fleet([EngineSpec(make, standby=True)])
        fleet.start()
        (host,) = fleet.hosts
        await until(lambda: host.has_standby)
        make.made[1].die()
        await until(lambda: len(make.made) == 3 and host.has_standby)
        assert host.engine is make.made[0]
        await fleet.stop()

    asyncio.run(story())


def test_a_restart_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("reverie.server.fleet.LONGEST_PAUSE_S", 0.1)

    async def story() -> None:
        make = Maker()
        fleet = Fleet([EngineSpec(make)])
        fleet.start()
        (host,) = fleet.hosts
        await until(lambda: host.engine is not None)
        make.failing = 3
        make.made[0].die()
        await until(lambda: host.engine is None)
        assert host.state is HostState.WARMING  # and not failed: players wait
        await until(lambda: host.engine is not None)
        await fleet.stop()

    asyncio.run(story())


def test_a_fleet_that_never_plays_has_failed():
    async def story() -> None:
        make = Maker()
        make.failing = 1
        changes: list[Fleet] = []
        fleet = Fleet([EngineSpec(make)], changes.append)
        fleet.start()
        with pytest.raises(ReverieError, match="the world did not load: no memory"):
            await fleet.pool().wait()
        assert fleet.state is HostState.FAILED
        assert changes == [fleet]
        await fleet.stop()

    asyncio.run(story())


def test_sessions_go_to_the_engine_with_room():
    async def story() -> None:
        make = Maker(num_slots=1)
        fleet = Fleet([EngineSpec(make, "landscape"), EngineSpec(make, "landscape")])
        fleet.start()
        pool = fleet.pool("landscape")
        await until(lambda: all(host.engine is not None for host in fleet.hosts))
        handles = [pool.open(), pool.open()]
        assert all(handle is not None for handle in handles)
        assert sorted(engine.num_active for engine in make.made) == [1, 1]
        assert pool.open() is None
        make.made[0].die()
        await until(lambda: len(make.made) == 3 and fleet.is_ready)
        await until(lambda: pool.open() is not None)
        await fleet.stop()

    asyncio.run(story())


def test_worlds_are_found_by_name():
    async def story() -> None:
        fleet = Fleet([EngineSpec(Maker(), "meadow"), EngineSpec(Maker(), "doom")])
        assert fleet.pool("doom").name == "doom"
        assert fleet.pool().name == "meadow"
        with pytest.raises(ProtocolError, match="no world 'x'; this server plays meadow, doom"):
            fleet.pool("x")

    asyncio.run(story())


def test_an_engine_that_loads_while_the_server_stops_is_stopped_too():
    async def story() -> None:
        make = Maker()
        fleet = Fleet([EngineSpec(make)])
        fleet.start()
        await fleet.stop()
        await until(lambda: bool(make.made))
        await until(lambda: make.made[0].num_stops == 1)
        assert fleet.hosts[0].engine is None

    asyncio.run(story())
