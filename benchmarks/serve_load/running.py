"""A server in a process of its own: started, looked at, and gone at the end with all it started."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent.parent
START_S = 120.0
STOP_S = 10.0
ASK_S = 5.0
MB = 1e6


class ServerDiedError(RuntimeError):
    """The server is gone, or never came up; with the end of what it said."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident, in MB: of the server's own process, and of all those it started."""

    server: float
    engines: float


class RunningServer:
    """url: "http://127.0.0.1:PORT"; ws: of its socket. log: where its standard error goes."""

    def __init__(self, process: psutil.Popen, url: str, log: Path | None) -> None:
        self.process = process
        self.url = url
        self.ws = f"{url.replace('http', 'ws', 1)}/ws"
        self.log = log

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        source: str = "127.0.0.1",
    ) -> tuple[int, bytes]:
        """Status and body. source: address to come from. Raises OSError or
        http.client.HTTPException when nobody answers.
        """
        local = (source, 0)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, ASK_S, local)
        try:
            content = None if body is None else json.dumps(body)
            kind = {} if body is None else {"Content-Type": "application/json"}
            connection.request(method, path, content, {**kind, **(headers or {})})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def status(self, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """What the dashboard shows. Raises ServerDiedError where there is no answer."""
        try:
            code, body = self.request("GET", "/api/status", headers=headers)
        except (OSError, http.client.HTTPException) as error:
            raise ServerDiedError(f"no answer from /api/status: {error!r}") from None
        if code != 200:
            raise ServerDiedError(f"/api/status answers {code}: {body[:200]!r}")
        return json.loads(body)

    def metric(self, name: str) -> float:
        """Sum of a Prometheus metric over its labels; 0 for one that is not there."""
        _, body = self.request("GET", "/metrics")
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", body.decode(), re.MULTILINE)
        return sum(map(float, found))

    def memory(self) -> Memory:
        own = self.process.memory_info().rss / MB
        others = 0.0
        for child in self.process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                others += child.memory_info().rss / MB
        return Memory(own, others)

    def said(self) -> str:
        """The end of its standard error."""
        return self.log.read_text(errors="replace")[-2000:] if self.log else ""


def wait_for_standby(server: RunningServer, timeout_s: float = START_S) -> bool:
    """Whether, within this time, every engine has another one that stands by, loaded and idle."""
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        if all(engine["standby"] for engine in server.status()["engines"]):
            return True
        time.sleep(0.2)
    return False


def engine_figures(status: dict[str, Any]) -> list[dict[str, Any]]:
    """Of those engines that play; the others' are not known."""
    found = [engine["figures"] for engine in status["engines"]]
    return [figures for figures in found if figures is not None]


def serve_command(world: str | Path) -> tuple[list[str], dict[str, Any]]:
    """`reverie serve` of a real world, with its settings."""
    return [sys.executable, "-m", "reverie", "serve"], {"engines": [{"world": str(world)}]}


@contextmanager
def running(
    command: Sequence[str],
    settings: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    stderr: str | None = None,
) -> Iterator[RunningServer]:
    """Ready to play. settings: of `reverie serve`. stderr: a file or device that its log goes to,
    instead of a file that is kept until the end. Raises ServerDiedError.
    """
    variables = {
        f"REVERIE_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in {"port": 0, **(settings or {})}.items()
    }
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    variables = {
        **os.environ,
        "PYTHONPATH": path,
        "PYTHONUNBUFFERED": "1",
        **variables,
        **(environment or {}),
    }
    with tempfile.TemporaryDirectory() as folder:
        log = None if stderr else Path(folder) / "log"
        with Path(stderr or str(log)).open("ab") as errors:
            process = psutil.Popen(
                list(command),
                stdout=subprocess.PIPE,
                stderr=errors,
                env=variables,
                start_new_session=True,  # so that all it starts can be ended with it
            )
        try:
            server = RunningServer(process, _announced(process, log), log)
            _wait_until_ready(server)
            yield server
        finally:
            _stop(process)


def _announced(process: psutil.Popen, log: Path | None) -> str:
    """The address that it prints once it listens."""
    lines: list[bytes] = []
    stdout: Any = process.stdout

    def read() -> None:  # to the end: a full pipe would stop the server
        with stdout:
            lines.extend(stdout)

    threading.Thread(target=read, daemon=True).start()
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s:
        found = re.search(rb"http://[\d.]+:\d+", b"".join(lines))
        if found:
            return found[0].decode()
        if process.poll() is not None:
            break
        time.sleep(0.02)
    said = log.read_text(errors="replace")[-2000:] if log else ""
    raise ServerDiedError(f"the server did not come up: {said}")


def _wait_until_ready(server: RunningServer) -> None:
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s:
        if not server.is_alive:
            break
        with contextlib.suppress(OSError, http.client.HTTPException):
            code, body = server.request("GET", "/readyz")
            if code == 200:
                return
            if b"failed" in body:
                break
        time.sleep(0.05)
    with contextlib.suppress(OSError, http.client.HTTPException):
        raise ServerDiedError(f"the server failed: {server.request('GET', '/healthz')[1]!r}")
    raise ServerDiedError(f"the server did not become ready: {server.said()}")


def _stop(process: psutil.Popen) -> None:
    """Asks, then insists: nothing of it is left."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGINT)
    with contextlib.suppress(psutil.TimeoutExpired):
        process.wait(STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # engines that were stopped, too
    process.wait(STOP_S)


@dataclass(frozen=True, slots=True)
class Sample:
    """What the server said of itself at one moment. time_s: monotonic."""

    time_s: float
    status: dict[str, Any]
    memory: Memory


class Watch:
    """Looks at a server once a second, on a thread. failures: times that it did not answer."""

    def __init__(self, server: RunningServer, period_s: float = 1.0) -> None:
        self.samples: list[Sample] = []
        self.num_failures = 0
        self._server, self._period_s = server, period_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._thread.join(2 * ASK_S)

    def between(self, from_s: float, until_s: float) -> list[Sample]:
        return [sample for sample in self.samples if from_s <= sample.time_s < until_s]

    def _run(self) -> None:
        while not self._stopped.wait(self._period_s):
            try:
                status = self._server.status()
                memory = self._server.memory()
            except (ServerDiedError, psutil.NoSuchProcess):
                self.num_failures += 1
                continue
            self.samples.append(Sample(time.monotonic(), status, memory))
