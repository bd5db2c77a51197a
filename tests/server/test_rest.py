"""What the REST part tells whom."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.server.player_client import player
from tests.server.test_access import guarded, offered


def test_only_the_worlds_that_one_may_play_are_listed(tmp_path: Path):
    with guarded(tmp_path) as (url, door):
        with player(url, **offered(door.token())) as client:
            client.frame()  # it is warm
        secrets = {
            "a key": (door.key, ["landscape"]),
            "a token": (door.token(), ["landscape"]),
            "a key of another world": (door.narrow, []),
            "its token": (door.token(door.narrow), []),
            "a token of another world": (door.token(world="meadow"), []),
        }
        for name, (secret, expected) in secrets.items():
            headers = {"authorization": f"Bearer {secret}"}
            worlds = httpx.get(f"{url}/api/worlds", headers=headers).json()
            assert [world["world"] for world in worlds] == expected, name
