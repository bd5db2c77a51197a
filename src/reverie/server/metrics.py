"""What is observed while players play, and what Prometheus reads at /metrics. One registry per app,
so that two apps in one process do not add up.

Lives on the event loop, a few microseconds a frame. What can be asked for when it is wanted, of the
engines and the machine, is not observed here but read then (`collector`).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from reverie.core import Frame

if TYPE_CHECKING:
    from prometheus_client import Metric

    from reverie.server.fleet import Fleet
    from reverie.server.lobby import Lobby
    from reverie.server.status import Past
    from reverie.server.usage import UsageLedger

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SHORT_MS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 12, 16, 20, 25, 30, 40, 50, 60, 75, 100)
_BUCKETS_MS = (*_SHORT_MS, 150, 250, 500, 1000)
_QUEUE_BUCKETS_MS = tuple(1e3 * s for s in (0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800))
_LATE_FACTOR = 1.5
RECENT_S = 5.0
"""The dashboard tells of the last so many seconds."""
MAX_RECENT = 8192
MAX_PHOTON_MS = 10_000.0
"""Nobody plays like this: a clock was set, or a number made up."""


class Metrics:
    """Counters and histograms of one app; times in milliseconds, as everywhere in Reverie."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry = CollectorRegistry()
        self.frame_gap_ms = self._histogram("frame_gap_ms", "Between two frames of a session")
        self.wait_ms = self._histogram(
            "wait_ms", "From an action's arrival to the generating of its frame"
        )
        self.generate_ms = self._histogram("generate_ms", "Generating one frame")
        self.encode_ms = self._histogram("encode_ms", "From a generated frame to its JPEG")
        self.action_to_frame_ms = self._histogram(
            "action_to_frame_ms", "From an action's arrival to its frame at the socket"
        )
        self.action_to_photon_ms = self._histogram(
            "action_to_photon_ms", "From an action to its picture, as clients report it"
        )
        self.queue_ms = self._histogram(
            "queue_ms", "From asking for a place to having one", _QUEUE_BUCKETS_MS
        )
        self.frames_sent = self._counter("frames_sent", "Frames sent to clients")
        self.late_frames = self._counter(
            "late_frames", "Frames more than half a frame time later than the frame rate asks"
        )
        self.refusals = Counter(
            "reverie_refusals",
            "Sockets closed because of what the client did, by close code",
            ["code"],
            registry=self.registry,
        )
        self.num_frames = self.num_late = 0
        """As `frames_sent` and `late_frames`."""
        self.began_s = clock()
        self._clock = clock
        self._num_unclaimed = 0  # frames that no client has told the latency of
        self._gaps: deque[tuple[float, float]] = deque(maxlen=MAX_RECENT)  # when, and milliseconds
        self._queued: deque[tuple[float, float]] = deque(maxlen=MAX_RECENT)
        self.past: list[Past] = []
        """Of `status`: what it compares with."""

    def watch(self, fleet: Fleet, lobby: Lobby, ledger: UsageLedger) -> None:
        """Tell Prometheus of these, too."""
        from reverie.server.collector import FleetCollector

        self.registry.register(FleetCollector(fleet, lobby, self, ledger))

    def observe_frame(
        self,
        frame: Frame,
        previous: Frame | None,
        encoded_s: float,
        fps: float,
        sent_s: float | None = None,
    ) -> None:
        """Counts a frame that was sent. previous: the frame sent before it in the same unpaused
        run, if any. sent_s: when the socket had taken it; when it was encoded, if not given.
        """
        self.frames_sent.inc()
        self.num_frames += 1
        self._num_unclaimed = min(self._num_unclaimed + 1, MAX_RECENT)
        self.generate_ms.observe(1e3 * (frame.finished_s - frame.started_s))
        self.encode_ms.observe(1e3 * (encoded_s - frame.finished_s))
        if frame.action_seq and (previous is None or frame.action_seq != previous.action_seq):
            self.wait_ms.observe(1e3 * (frame.started_s - frame.action_time_s))
            sent_s = encoded_s if sent_s is None else sent_s
            self.action_to_frame_ms.observe(1e3 * (sent_s - frame.action_time_s))
        if previous is not None:
            gap_s = frame.finished_s - previous.finished_s
            self.frame_gap_ms.observe(1e3 * gap_s)
            self._gaps.append((frame.finished_s, 1e3 * gap_s))
            if gap_s > _LATE_FACTOR / fps:
                self.late_frames.inc()
                self.num_late += 1

    def observe_queue(self, wait_s: float) -> None:
        """A player got a place, after so long."""
        self.queue_ms.observe(1e3 * wait_s)
        self._queued.append((self._clock(), 1e3 * wait_s))

    def observe_photon(self, photon_ms: float) -> None:
        """A client says how long it took from an action to its picture. It is believed within
        bounds, and once for each frame that was sent.
        """
        if self._num_unclaimed and math.isfinite(photon_ms) and photon_ms >= 0.0:
            self._num_unclaimed -= 1
            self.action_to_photon_ms.observe(min(photon_ms, MAX_PHOTON_MS))

    def recent_gaps_ms(self) -> list[float]:
        """Between two frames of a session, of the last seconds; of a part of them in a crowd."""
        return self._recent(self._gaps, RECENT_S)

    def recent_fps(self) -> float:
        """Frames of all sessions together, a second."""
        since_s = self._clock() - RECENT_S
        if len(self._gaps) == MAX_RECENT:
            since_s = max(since_s, self._gaps[0][0])
        return len(self.recent_gaps_ms()) / max(self._clock() - since_s, 1e-3)

    def recent_waits_ms(self, within_s: float = 300.0) -> list[float]:
        """In the queue, of whoever got a place lately."""
        return self._recent(self._queued, within_s)

    def render(self) -> bytes:
        """In the text form of Prometheus."""
        return generate_latest(self.registry)

    async def render_aside(self) -> bytes:
        """The same for a server that plays: what takes longest is done on a thread."""
        collected: Any = _Collected(list(self.registry.collect()))
        return await asyncio.to_thread(generate_latest, collected)

    def _recent(self, ring: deque[tuple[float, float]], within_s: float) -> list[float]:
        since_s = self._clock() - within_s
        return [value for time_s, value in ring if time_s >= since_s]

    def _histogram(
        self, name: str, what: str, buckets: tuple[float, ...] = _BUCKETS_MS
    ) -> Histogram:
        return Histogram(f"reverie_{name}", what, buckets=buckets, registry=self.registry)

    def _counter(self, name: str, what: str) -> Counter:
        return Counter(f"reverie_{name}", what, registry=self.registry)


class _Collected:
    """A registry of what was collected already."""

    def __init__(self, found: list[Metric]) -> None:
        self._found = found

    def collect(self) -> list[Metric]:
        return self._found
