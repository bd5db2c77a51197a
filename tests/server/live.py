"""The real server and the real engine around a landscape instead of networks, on a thread or alone.

python -m tests.server.live --port 8137      plays the landscape, to work on the page
"""

from __future__ import annotations

import argparse
import contextlib
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.applications import Starlette

from reverie import server
from reverie.core import Action, ActionSpace
from reverie.engine import Batch, CostTable, Engine
from reverie.prompts import Prompter
from reverie.server import EngineSpec, SocketLimits, create_app
from reverie.server.guard import LOOPBACK_HOSTS
from reverie.server.serving import listen, make_server
from reverie.world import Start, World, WorldConfig
from tests.server.landscape import Landscape, Viewpoint

SPACE = ActionSpace(
    keys=("forward", "back", "left", "right", "jump", "sprint", "break", "use"),
    camera_limit=15.0,
    num_slots=6,
    keymap={
        **{"w": "forward", "s": "back", "a": "left", "d": "right"},
        **{"arrowup": "forward", "arrowdown": "back", "arrowleft": "left", "arrowright": "right"},
        **{"space": "jump", "shift": "sprint", "mouse0": "break", "mouse2": "use"},
        **{"q": "break", "e": "use"},
    },
    attributes={"time_of_day": ("day", "night")},
)
PROMPTER = Prompter.fit(SPACE.attributes)
PLACES = {  # name: (title, seed of the hills, dusk, where one stands)
    "shore": ("Shore", 1, 0.2, Viewpoint(60, 60, 100)),
    "ridge": ("Evening ridge", 0, 0.7, Viewpoint(20, 40, 45)),
    "hills": ("Green hills", 4, 0.0, Viewpoint(10, 10, 10)),
    "basin": ("Red basin", 2, 1.0, Viewpoint(100, 30, 200)),
}


class LandscapeRuntime:
    """A `Runtime` whose slots hold a viewpoint. generate_s: how long one denoising step pretends to
    take; commit_s: how long a commit does. last_action: what the last frame was drawn from.
    began_from: the frames that a session was last prefilled with.
    """

    def __init__(self, generate_s: float = 0.0, commit_s: float = 0.0) -> None:
        self._generate_s, self._commit_s = generate_s, commit_s
        self._scenes = {
            name: (Landscape(seed=seed, dusk=dusk), view)
            for name, (_, seed, dusk, view) in PLACES.items()
        }
        self._slots: list[tuple[str, Viewpoint]] = []
        self.last_action = Action()
        self.began_from = np.zeros((1, 1, 1, 3), np.uint8)
        self.world = self._make_world()

    @property
    def kind(self) -> str:
        return "landscape"

    @property
    def num_slots(self) -> int:
        return len(self._slots)

    def allocate(self, num_slots: int) -> None:
        self._slots = [("shore", PLACES["shore"][3])] * num_slots

    def prefill(
        self,
        slot: int,
        frames: NDArray[np.uint8],
        actions: NDArray[np.float32],
        seed: int,
        first_index: int | None = None,
        pitch_deg: float = 0.0,
    ) -> None:
        self.began_from = frames
        for start in self.world.starts:
            if np.array_equal(start.frames[-1], frames[-1]):
                self._slots[slot] = (start.name, PLACES[start.name][3])

    def step(self, batch: Batch) -> NDArray[np.uint8]:
        time.sleep(self._generate_s * batch.num_steps)
        pictures = []
        for slot, vector in zip(batch.slots, batch.actions, strict=True):
            name, view = self._slots[slot]
            self.last_action = SPACE.decode(vector)
            view = view.moved(self.last_action)
            self._slots[slot] = (name, view)
            picture = self._scenes[name][0].draw(view)
            at_night = self.last_action.attributes["time_of_day"] == "night"
            pictures.append(picture // 4 if at_night else picture)
        return np.stack(pictures)

    def commit(self, slots: Sequence[int]) -> None:
        time.sleep(self._commit_s)

    def changes(self, slots: Sequence[int]) -> Sequence[float]:
        return [0.0] * len(slots)

    def snapshot(self, slot: int) -> bytes:
        return pickle.dumps(self._slots[slot])

    def restore(self, slot: int, snapshot: bytes) -> None:
        self._slots[slot] = pickle.loads(snapshot)

    def cost_table(self) -> CostTable:
        # What it takes, not what it pretends: several sessions shall fit.
        return {(b, k): 1.0 if k == 0 else 2.0 for b in range(1, 9) for k in (0, 1, 2, 4)}

    def _make_world(self) -> World:
        idle = SPACE.encode(Action())[None]
        starts = [
            Start(name, PLACES[name][0], scene.draw(view)[None], idle)
            for name, (scene, view) in self._scenes.items()
        ]
        # With a denoiser in its config it is shown as generated, as a real world is.
        config = WorldConfig(
            *("landscape", 160, 96, 20, SPACE, (1, 2, 4), 1, 1.0),
            prompts=("a dark night", "a bright day"),
            denoiser={"kind": "landscape"},
        )
        return World(Path(), config, tuple(starts), PROMPTER)


def landscape_engine(num_slots: int = 2, generate_s: float = 0.0, commit_s: float = 0.0) -> Engine:
    runtime = LandscapeRuntime(generate_s, commit_s)
    return Engine(runtime.world, runtime, num_slots)


@contextlib.contextmanager
def running_server(
    load: Callable[[], Engine] | Sequence[EngineSpec] = landscape_engine,
    *,
    port: int = 0,
    limits: SocketLimits | None = None,
    on_app: Callable[[Starlette], object] = lambda app: None,
    **options: Any,
) -> Iterator[str]:
    """Serves on a thread of this process and gives the address, "http://127.0.0.1:PORT". on_app:
    called with the app before it runs; further options are `create_app`'s.
    """
    listener = listen("127.0.0.1", port)
    specs = [EngineSpec(load)] if callable(load) else load
    app = create_app(specs, allowed_hosts=LOOPBACK_HOSTS, limits=limits, **options)
    on_app(app)
    web = make_server(app)
    thread = threading.Thread(target=web.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        web.should_exit = True
        thread.join(10)
        listener.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--generate-ms", type=float, default=20.0)
    parser.add_argument("--commit-ms", type=float, default=10.0)
    parser.add_argument("--warm-s", type=float, default=0.0, help="pretend to load for this long")
    options = parser.parse_args()

    def load() -> Engine:
        time.sleep(options.warm_s)
        return landscape_engine(options.slots, options.generate_ms / 1e3, options.commit_ms / 1e3)

    server.serve(load, port=options.port)


if __name__ == "__main__":
    main()
