"""Lines that are added to a file whatever the disk does: one that is full, slow or gone costs
memory, as much as is allowed, and nobody's frame.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from pathlib import Path

MAX_PENDING = 10_000
"""Lines that are kept for a disk that does not take them; later ones are lost, and counted."""
RETRY_S = 1.0
COMPLAIN_S = 60.0
"""Between two lines in the log that say that the disk does not take them."""
CLOSE_WITHIN_S = 2.0

logger = logging.getLogger(__name__)


class UsageFile:
    """Adds lines to a file, on a thread of its own. The file is opened for each batch of lines, so
    that it can be moved away at any time.
    """

    def __init__(self, path: Path, retry_s: float = RETRY_S) -> None:
        self._path = path
        self._retry_s = retry_s
        self._pending: deque[bytes] = deque()
        self._num_lost = 0
        self._complained_s = -COMPLAIN_S
        self._wake = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    @property
    def num_pending(self) -> int:
        """Lines that are not written yet."""
        return len(self._pending)

    def append(self, line: str) -> None:
        """Returns at once."""
        with self._wake:
            if len(self._pending) >= MAX_PENDING:
                self._num_lost += 1
                return
            self._pending.append(f"{line}\n".encode())
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="usage file", daemon=True)
                self._thread.start()
            self._wake.notify()

    def close(self) -> None:
        """Write what is left, in two seconds at most."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(CLOSE_WITHIN_S)
        if self._pending:
            logger.error("%d lines of usage were not written to %s", len(self._pending), self._path)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._pending and not self._closing:
                    self._wake.wait()
            try:
                self._write()
            except OSError as error:
                self._complain(error)
                with self._wake:
                    if self._closing:
                        return
                    self._wake.wait(self._retry_s)
            if self._closing and not self._pending:
                return

    def _write(self) -> None:
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            while self._pending:
                num_written = os.write(file, self._pending[0])
                # A disk may take half a line; the other half follows when there is room.
                rest = self._pending[0][num_written:]
                if rest:
                    self._pending[0] = rest
                else:
                    self._pending.popleft()
        finally:
            os.close(file)

    def _complain(self, error: OSError) -> None:
        now_s = time.monotonic()
        if now_s - self._complained_s < COMPLAIN_S:
            return
        self._complained_s = now_s
        logger.error(
            "usage file %s: %s; %d lines wait, %d are lost",
            self._path,
            error.strerror,
            len(self._pending),
            self._num_lost,
        )
