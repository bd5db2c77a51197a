"""What the server's own event loop can carry."""

from __future__ import annotations

import asyncio
import time

from reverie.server.loop_gauge import EVERY_S, LoopGauge


def gauge(busy: float, num_seen: int, lag_s: float = 0.0) -> LoopGauge:
    made = LoopGauge()
    made.busy, made._num_seen = busy, num_seen
    made._lags_s.extend([lag_s] * 20)
    return made


def test_one_may_always_play():
    assert gauge(1.0, 0, 1.0).has_room(0)


def test_there_is_room_until_the_loop_is_busy():
    assert gauge(0.3, 50).has_room(50)
    assert gauge(0.3, 50).has_room(80)
    assert not gauge(0.3, 50).has_room(84)  # more than half of a core
    assert not gauge(0.6, 50).has_room(50)


def test_a_loop_that_comes_late_has_none():
    assert not gauge(0.1, 50, 0.06).has_room(50)
    late_now_and_then = gauge(0.1, 50)
    late_now_and_then._lags_s.append(0.5)
    assert late_now_and_then.has_room(50)


def test_a_crowd_comes_in_steps_that_can_be_seen():
    made = gauge(0.0, 4)
    assert made.has_room(11)
    assert not made.has_room(12)


def test_it_sees_what_the_loop_does():
    async def story() -> tuple[float, float]:
        made = LoopGauge()
        made.start()
        await asyncio.sleep(2.2 * EVERY_S)
        quiet = made.busy
        end_s = time.monotonic() + 2.2 * EVERY_S
        while time.monotonic() < end_s:
            sum(range(20_000))
            await asyncio.sleep(0)
        made.stop()
        return quiet, made.busy

    quiet, busy = asyncio.run(story())
    assert quiet < 0.3
    assert busy > quiet + 0.2
