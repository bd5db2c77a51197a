"""What a client may send, and how fast."""

from __future__ import annotations

import pytest

from reverie.server import SocketLimits
from reverie.server.limits import FloodGauge
from reverie.server.protocol import CloseCode, ProtocolError


def test_a_steady_stream_within_the_rate_is_never_refused():
    gauge = FloodGauge(100)
    for number in range(2000):
        gauge.count(number / 99)


def test_a_burst_of_two_seconds_is_forgiven_and_one_more_is_not():
    gauge = FloodGauge(100)
    for _ in range(200):
        gauge.count(5.0)
    with pytest.raises(ProtocolError, match="at most 100 a second") as caught:
        gauge.count(5.0)
    assert caught.value.code == CloseCode.FLOODING


def test_a_stream_above_the_rate_is_refused_in_the_end():
    gauge = FloodGauge(100)

    def stream() -> None:
        for number in range(1000):
            gauge.count(number / 150)

    with pytest.raises(ProtocolError):
        stream()


@pytest.mark.parametrize("name", ["messages_per_s", "frames_in_flight", "silent_s", "idle_s"])
def test_limits_are_positive(name: str):
    with pytest.raises(ValueError, match=f"{name} is 0; expected more than 0"):
        SocketLimits(**{name: 0})
