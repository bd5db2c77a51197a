"""`reverie serve` around a fake world, for `bench_serve.py`.

python -m benchmarks.serve_load.fake_server '[{"fps": 10, "num_slots": 200}]'

The argument is a list of `FakeDevice`; everything else is told by REVERIE_*, as to `reverie serve`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.serve_load.fake_world import FakeDevice

if TYPE_CHECKING:
    from reverie.engine import EngineProcess
    from reverie.server import EngineSpec


def fake_command(names: Sequence[str] = ("fake",), **device: Any) -> list[str]:
    """One engine for each of these worlds. For the rest see `FakeDevice`."""
    module = "benchmarks.serve_load.fake_server"
    devices = [{"name": name, **device} for name in names]
    return [sys.executable, "-m", module, json.dumps(devices)]


def main() -> None:
    """Until Ctrl-C."""
    from reverie.server import create_app
    from reverie.server.guard import LOOPBACK_HOSTS
    from reverie.server.logs import setup_logging
    from reverie.server.serving import address, listen, make_server, open_access
    from reverie.server.settings import read_settings
    from reverie.server.usage import UsageLedger

    settings = read_settings(None, {})
    setup_logging(settings.log)
    devices = [FakeDevice(**values) for values in json.loads(sys.argv[1])]
    app = create_app(
        [_spec(device, settings.engines[0].standby) for device in devices],
        allowed_hosts=LOOPBACK_HOSTS,
        limits=settings.sessions.limits(),
        access=open_access(settings),
        ledger=UsageLedger(settings.price_per_hour, settings.usage_file),
    )
    listener = listen(settings.host, settings.port)
    with listener:
        print(address(listener, settings.host), flush=True)
        make_server(app, settings.sessions.drain_s).run(sockets=[listener])


def _spec(device: FakeDevice, standby: bool) -> EngineSpec:
    from reverie.engine import EngineProcess
    from reverie.server import EngineSpec

    def make() -> EngineProcess:
        return EngineProcess(device.engine, device.name, "cpu")

    return EngineSpec(make, device.name, "cpu", standby)


if __name__ == "__main__":
    main()
