"""From the command to a listening socket, and the lines for what goes wrong on the way."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from socket import has_dualstack_ipv6

import httpx
import pytest

from reverie.core import ReverieError
from reverie.engine import Engine
from reverie.server import serve
from reverie.server.serving import DEFAULT_PORT, address, listen

ONLY_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="has only one loopback address")
ONLY_IPV6 = pytest.mark.skipif(not has_dualstack_ipv6(), reason="has no sockets for both IPs")


def test_a_port_in_use_is_one_line_that_names_it():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = f"port {port} on 127.0.0.1 is in use; choose another with --port"
        with pytest.raises(ReverieError, match=f"^{line}$"):
            serve(lambda: pytest.fail("loaded for nothing"), port=port)


def test_without_a_wish_the_first_free_port_is_taken():
    with listen("127.0.0.1", None) as first, listen("127.0.0.1", None) as second:
        ports = [first.getsockname()[1], second.getsockname()[1]]
    assert DEFAULT_PORT <= ports[0] < ports[1] < DEFAULT_PORT + 10


@pytest.mark.parametrize(
    ("host", "port", "line"),
    [
        ("127.0.0.1", 70000, "port 70000 is not a port; expected 0 to 65535"),
        ("192.0.2.7", 0, "host '192.0.2.7' is not an address of this machine"),
        ("not a host", 0, "host 'not a host' has no address"),
    ],
)
def test_an_address_that_cannot_be_is_one_line(host: str, port: int, line: str):
    with pytest.raises(ReverieError, match=line):
        listen(host, port)


def test_the_address_to_open_is_on_this_machine():
    with listen("0.0.0.0", 0) as everywhere:
        assert address(everywhere, "0.0.0.0").startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    "host", [pytest.param("127.0.0.2", marks=ONLY_LINUX), pytest.param("::", marks=ONLY_IPV6)]
)
def test_what_is_announced_answers(host: str):
    pages: list[int] = []

    def load() -> Engine:
        pages.append(httpx.get(announced[0]).status_code)
        raise ReverieError("enough")

    announced: list[str] = []
    with pytest.raises(ReverieError, match="enough"):
        serve(load, host=host, port=0, announce=announced.append)
    assert pages == [200]


def test_a_world_that_does_not_load_ends_the_server_with_its_line():
    pages: list[int] = []

    def load() -> Engine:
        pages.append(httpx.get(announced[0]).status_code)  # the page is up before the world
        raise ReverieError("config.json is missing")

    announced: list[str] = []
    with pytest.raises(ReverieError, match=r"config\.json is missing"):
        serve(load, port=0, announce=announced.append)
    assert pages == [200]


def test_ctrl_c_ends_it_quietly_and_at_once():
    script = [sys.executable, "-m", "tests.server.live", "--port", "0"]
    with subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        url = run.stdout.readline().strip()
        assert httpx.get(url).status_code == 200
        began_s = time.monotonic()
        run.send_signal(2)
        _, errors = run.communicate(timeout=10)
    assert time.monotonic() - began_s < 4
    assert "ERROR" not in errors
