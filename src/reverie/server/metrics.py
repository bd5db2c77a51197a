"""What Prometheus reads at /metrics. One registry per app, so that two apps in one process do not
add up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from reverie.core import Frame

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS_MS = (
    0.1,
    0.25,
    0.5,
    1,
    2,
    4,
    8,
    12,
    16,
    20,
    25,
    30,
    40,
    50,
    60,
    75,
    100,
    150,
    250,
    500,
    1000,
)
_LATE_FACTOR = 1.5


class Metrics:
    """Counters and histograms of one app; times in milliseconds, as everywhere in Reverie."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.frame_gap_ms = self._histogram("frame_gap_ms", "Between two frames of a session")
        self.wait_ms = self._histogram(
            "wait_ms", "From an action's arrival to the generating of its frame"
        )
        self.generate_ms = self._histogram("generate_ms", "Generating one frame")
        self.encode_ms = self._histogram("encode_ms", "From a generated frame to its JPEG")
        self.sessions = Gauge(
            "reverie_sessions", "Open sessions by state", ["state"], registry=self.registry
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

    def observe_frame(
        self, frame: Frame, previous: Frame | None, encoded_s: float, fps: float
    ) -> None:
        """Counts a frame that was sent. previous: the frame sent before it in the same unpaused
        run, if any.
        """
        self.frames_sent.inc()
        self.generate_ms.observe(1e3 * (frame.finished_s - frame.started_s))
        self.encode_ms.observe(1e3 * (encoded_s - frame.finished_s))
        if frame.action_seq and (previous is None or frame.action_seq != previous.action_seq):
            self.wait_ms.observe(1e3 * (frame.started_s - frame.action_time_s))
        if previous is not None:
            gap_s = frame.finished_s - previous.finished_s
            self.frame_gap_ms.observe(1e3 * gap_s)
            if gap_s > _LATE_FACTOR / fps:
                self.late_frames.inc()

    @contextlib.contextmanager
    def session_gauge(self) -> Iterator[Callable[[str], None]]:
        """Counts one session for as long as it lasts: call what this gives with its new state."""
        counted = None

        def move(state: str | None) -> None:
            nonlocal counted
            if counted is not None:
                self.sessions.labels(counted).dec()
            if state is not None:
                self.sessions.labels(state).inc()
            counted = state

        try:
            yield move
        finally:
            move(None)

    def render(self) -> bytes:
        return generate_latest(self.registry)

    def _histogram(self, name: str, what: str) -> Histogram:
        return Histogram(f"reverie_{name}", what, buckets=_BUCKETS_MS, registry=self.registry)

    def _counter(self, name: str, what: str) -> Counter:
        return Counter(f"reverie_{name}", what, registry=self.registry)
