"""The verbs `reverie serve` and `reverie key`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Port = Annotated[
    int | None, typer.Option(help="Port to listen on; by default the first free one from 8137.")
]


def serve(
    worlds: Annotated[
        list[str] | None,
        typer.Argument(metavar="[WORLD]...", help="Bundled names, folders, or hf://user/world."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Settings as TOML; flags go before it.")
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on; 0.0.0.0 for all of this machine.  [127.0.0.1]"),
    ] = None,
    port: Port = None,
    players: Annotated[
        int | None, typer.Option(help="Places in each engine, at most.  [8]", min=1)
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="File of API keys: nobody plays without a token.")
    ] = None,
    open_access: Annotated[
        bool, typer.Option("--open", help="Let anybody play, also from elsewhere.")
    ] = False,
    log: Annotated[
        str | None, typer.Option(metavar="text|json", help="Form of the log.  [text]")
    ] = None,
) -> None:
    """Serve worlds to many players.

    Every engine is a process of its own; one that dies is replaced, and its players play on. Who
    comes when every place is taken waits in a queue. SIGTERM lets players go on for a while, Ctrl-C
    ends at once. Settings: flags, REVERIE_* in the environment, the file (docs/serving.md).
    """
    from reverie.server.serving import serve_settings
    from reverie.server.settings import read_settings

    flags: dict[str, Any] = {"host": host, "port": port, "log": log}
    places = {"players": players} if players is not None else {}
    if worlds or places:
        flags["engines"] = [{"world": world, **places} for world in worlds or ["meadow"]]
    access = {"keys": keys, "open": open_access or None}
    flags["access"] = {name: value for name, value in access.items() if value is not None} or None
    given = {name: value for name, value in flags.items() if value is not None}
    serve_settings(read_settings(config, given))


def key(
    name: Annotated[str | None, typer.Argument(help="Whose key; without, all are listed.")] = None,
    file: Annotated[Path, typer.Option(help="File of the keys.")] = Path("keys.json"),
    admin: Annotated[bool, typer.Option("--admin", help="It sees figures of everybody.")] = False,
    world: Annotated[list[str] | None, typer.Option(help="Only for this world.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Sockets at a time.", min=1)] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Withdraw it, at once.")] = False,
) -> None:
    """Make an API key for `reverie serve --keys`, and show it once: only its hash is stored."""
    from reverie.server import keys

    if name is None:
        for known in keys.read_keys(file):
            rights = [*(["admin"] if known.is_admin else []), *(known.worlds or ["every world"])]
            rights += [f"{known.concurrency} at a time"] if known.concurrency else []
            print(f"{known.name:<24} {known.created}  {', '.join(rights)}")
    elif remove:
        keys.remove_key(file, name)
    else:
        worlds = tuple(world) if world else None
        print(keys.add_key(file, name, worlds=worlds, concurrency=concurrency, is_admin=admin))
