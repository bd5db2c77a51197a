"""What the server says of itself on standard error: lines of JSON for machines, or text for people.

Whoever logs never waits and never fails: lines are written on a thread, and where nobody takes them
they are dropped. Keys and tokens are cut out of every line, whoever wrote it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import queue
import re
import sys
import time
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from typing import Any, Literal, TextIO

MAX_PENDING = 1000
"""Lines that wait for a slow reader; later ones are dropped."""
FLUSH_WITHIN_S = 1.0
_OWN_FIELDS = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
_SECRETS = re.compile(
    r"(?P<before>bearer\s+|resume[=:\"'\s]+|token[=:.\"'\s]+|/api/saves/)[\w.~+/-]{12,}=*"
    r"|\beyJ[\w-]+\.[\w-]+\.[\w-]+"  # a JWT, wherever it stands
    r"|\brv_[\w-]{8,}"  # an API key
    , re.IGNORECASE,
)  # fmt: skip


def setup_logging(
    form: Literal["text", "json"] = "text",
    stream: TextIO | None = None,
    level: int = logging.INFO,
) -> None:
    """Everything that is logged in this process goes to standard error from now on, in this form,
    and nowhere else. Call it again to change it.
    """
    root = logging.getLogger()
    for handler in [*root.handlers]:
        root.removeHandler(handler)
        handler.close()
    target = _SilentStreamHandler(stream or sys.stderr)
    target.setFormatter(JsonForm() if form == "json" else TextForm())
    root.addHandler(_PatientHandler(target))
    root.setLevel(level)


class JsonForm(logging.Formatter):
    """One line of JSON: time, level, logger, message, then what was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return without_secrets(json.dumps(line, default=str))


class TextForm(logging.Formatter):
    """A line for people; what a client sent cannot begin a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        said = record.getMessage().replace("\r", "\\r").replace("\n", "\\n")
        extra = "".join(f" {name}={value!r}" for name, value in _extra(record).items())
        line = f"{_time(record)} {record.levelname.lower():<8} {record.name}: {said}{extra}"
        if record.exc_info:
            line += f"\n{self.formatException(record.exc_info)}"
        return without_secrets(line)


def without_secrets(text: str) -> str:
    """Without anything in it that looks like a key, a token, or the id of a saved file."""
    return _SECRETS.sub(lambda found: f"{found['before'] or ''}[cut]", text)


class _SilentStreamHandler(logging.StreamHandler[TextIO]):
    """Whose stream may be full, closed or gone."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        pass


class _PatientHandler(QueueHandler):
    """Hands lines to a thread that writes them."""

    def __init__(self, target: logging.Handler) -> None:
        self._lines: queue.Queue[logging.LogRecord] = queue.Queue(MAX_PENDING)
        super().__init__(self._lines)
        self._writer = QueueListener(self._lines, target)
        self._writer.start()
        atexit.register(self.flush)

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """What is said is settled now: the values may change before the thread comes to it."""
        record.msg, record.args = record.getMessage(), None
        return record

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        pass  # the queue is full: whoever logs has other things to do

    def flush(self) -> None:
        """Until all is written, or the reader has had its time."""
        until_s = time.monotonic() + FLUSH_WITHIN_S
        while self._lines.unfinished_tasks and time.monotonic() < until_s:
            time.sleep(0.005)

    def close(self) -> None:
        self.flush()
        atexit.unregister(self.flush)
        with contextlib.suppress(queue.Full):  # a thread that is stuck dies with the process
            self._writer.enqueue_sentinel()
        super().close()


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _OWN_FIELDS}
