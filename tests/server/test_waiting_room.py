"""Who gets a place when: in order, those who had one before first."""

from __future__ import annotations

import asyncio

import pytest

from reverie.server.waiting_room import WaitingRoom
from reverie.session import FullError
from tests.fakes import FakeClock


class Places:
    """So many places; `open` takes one."""

    def __init__(self, num_free: int = 0) -> None:
        self.num_free = num_free
        self.opened: list[str] = []

    def open(self, name: str) -> str | None:
        if not self.num_free:
            return None
        self.num_free -= 1
        self.opened.append(name)
        return name


def test_places_go_to_whoever_waits_longest_and_first_to_those_who_had_one():
    async def story() -> list[str]:
        room: WaitingRoom[str] = WaitingRoom()
        places = Places()
        told: dict[str, list[int]] = {}

        def enter(name: str, returning: bool = False) -> asyncio.Task[str]:
            async def tell(position: int, wait_s: float | None) -> None:
                told.setdefault(name, []).append(position)

            return asyncio.ensure_future(
                room.enter(lambda: places.open(name), tell, returning=returning)
            )

        tasks = [enter("ann"), enter("ben")]
        await asyncio.sleep(0.01)
        tasks += [enter("cleo", returning=True), enter("dora", returning=True)]
        await asyncio.sleep(1.2)
        assert told == {"ann": [1, 3], "ben": [2, 4], "cleo": [1], "dora": [2]}
        places.num_free = 4
        room.wake()
        await asyncio.gather(*tasks)
        assert room.num_waiting == 0
        return places.opened

    assert asyncio.run(story()) == ["cleo", "dora", "ann", "ben"]


def test_who_gives_up_makes_room_in_the_line():
    async def story() -> None:
        room: WaitingRoom[str] = WaitingRoom()
        places = Places()
        positions: list[int] = []

        async def tell(position: int, wait_s: float | None) -> None:
            positions.append(position)

        first = asyncio.ensure_future(room.enter(lambda: places.open("first"), tell))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(room.enter(lambda: places.open("second"), tell))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0.01)
        assert positions == [1, 2, 1]  # who is first now is told at once
        places.num_free = 1
        assert await asyncio.wait_for(second, 1) == "second"  # found without being woken

    asyncio.run(story())


def test_a_full_line_takes_only_those_who_had_a_place():
    async def story() -> None:
        room: WaitingRoom[str] = WaitingRoom(max_waiting=1)
        places = Places()

        async def tell(position: int, wait_s: float | None) -> None:
            pass

        first = asyncio.ensure_future(room.enter(lambda: places.open("first"), tell))
        await asyncio.sleep(0)
        with pytest.raises(FullError, match="1 players are waiting already"):
            await room.enter(lambda: places.open("second"), tell)
        places.num_free = 1
        assert await room.enter(lambda: places.open("back"), tell, returning=True) == "back"
        first.cancel()

    asyncio.run(story())


def test_the_expected_wait_is_a_share_of_how_long_people_stay():
    clock = FakeClock()
    room: WaitingRoom[str] = WaitingRoom(clock=clock)
    assert room.expected_wait_s(1) is None
    with room.stay(), room.stay():
        with room.stay():
            clock.advance(60)
        assert room.expected_wait_s(1) == 30  # two play, each for a minute
        assert room.expected_wait_s(3) == 90
