"""A world, a runtime and a clock that need no weights and no waiting, to test what controls them.

The fake world is a pattern that scrolls: looking right moves it left by a pixel per degree, looking
down moves it up, walking forward makes it brighter. Every picture is a plain function of the
session's seed, its start and the actions it was given, so tests can say exactly what must be seen.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reverie.core import Action, ActionSpace, ReverieError
from reverie.engine.runtime import Batch, CostTable
from reverie.prompts import Attributes, Prompter, encode
from reverie.world import Start, World, WorldConfig

SPACE = ActionSpace(
    keys=("forward", "back", "left", "right", "jump", "sprint", "break", "use"),
    camera_limit=15.0,
    num_slots=6,
    keymap={
        "w": "forward",
        "s": "back",
        "a": "left",
        "d": "right",
        "space": "jump",
        "shift": "sprint",
        "mouse0": "break",
        "mouse2": "use",
    },
)


PROMPTED = replace(
    SPACE, attributes={"weather": ("clear", "rain"), "time_of_day": ("day", "night")}
)
"""The same for worlds that take prompts."""


class FakeClock:
    """Monotonic seconds that pass only when told to."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        assert seconds >= 0
        self.now_s += seconds


def fake_config(
    width: int = 16,
    height: int = 12,
    fps: int = 20,
    context: int = 3,
    denoising_steps: tuple[int, ...] = (1, 2, 4),
    space: ActionSpace = SPACE,
) -> WorldConfig:
    return WorldConfig(
        name="fake",
        width=width,
        height=height,
        fps=fps,
        action_space=space,
        denoising_steps=denoising_steps,
        context=context,
        context_signal=0.9,
    )


def fake_world(config: WorldConfig | None = None, num_starts: int = 2) -> World:
    """A world without a folder; its starts differ in brightness."""
    config = config or fake_config()
    idle = np.tile(config.action_space.encode(Action()), (config.context, 1))
    starts = []
    for i in range(num_starts):
        frames = np.full((config.context, *config.frame_shape), 50 * i, np.uint8)
        starts.append(Start(f"start-{i}", f"Start {i}", frames, idle))
    attributes = config.action_space.attributes
    prompter = fake_prompter(attributes) if attributes else None
    return World(Path("fake"), config, tuple(starts), prompter)


def fake_prompter(attributes: Attributes) -> Prompter:
    """One that knows every value by its name; `Prompter.fit` takes seconds."""
    names = [encode(value) for values in attributes.values() for value in values]
    return Prompter(attributes, np.stack([name / (name @ name) for name in names]))


def fake_picture(config: WorldConfig, place: NDArray[np.int64]) -> NDArray[np.uint8]:
    """uint8 [h, w, 3] at place [right, down, bright]."""
    h, w, _ = config.frame_shape
    columns = np.arange(w)[None, :, None] + place[0]
    rows = np.arange(h)[:, None, None] + place[1]
    channels = 40 * np.arange(3)[None, None, :]
    return ((columns * 7 + rows * 13 + channels + place[2]) % 256).astype(np.uint8)


def fake_move(action: NDArray[np.float32]) -> NDArray[np.int64]:
    """What one encoded action [A] of `SPACE` adds to a place."""
    keys = {name: action[i] > 0.5 for i, name in enumerate(SPACE.keys)}
    yaw, pitch = np.rint(action[8:10] * SPACE.camera_limit)
    strafe = int(keys["right"]) - int(keys["left"])
    return np.array([yaw + strafe, pitch, keys["forward"] - 1.0 * keys["back"]], np.int64)


class FakeRuntime:
    """See the module. Also checks that it is used as the protocol says.

    clock: if given, work takes time on it: step_ms per denoising step and session, commit_ms per
    commit and session, prefill_ms per frame of a clip. `calls` records what was asked for, in
    order. A slot in `failing` raises.
    """

    def __init__(
        self,
        world: World | None = None,
        clock: FakeClock | None = None,
        step_ms: float = 5.0,
        commit_ms: float = 2.0,
        prefill_ms: float = 2.0,
    ) -> None:
        self._world = world or fake_world()
        self._clock = clock
        self._step_ms, self._commit_ms, self._prefill_ms = step_ms, commit_ms, prefill_ms
        self._num_warmed: list[int] = []
        self._places: list[NDArray[np.int64]] = []
        self._pending: list[NDArray[np.int64] | None] = []
        self._changes: list[float] = []
        self.calls: list[tuple[str, object]] = []
        self.failing: set[int] = set()

    @property
    def world(self) -> World:
        return self._world

    @property
    def kind(self) -> str:
        return "fake"

    @property
    def num_slots(self) -> int:
        return len(self._places)

    def allocate(self, num_slots: int) -> None:
        assert not self._places, "allocated twice"
        self._num_warmed = [0] * num_slots
        self._places = [np.zeros(3, np.int64) for _ in range(num_slots)]
        self._pending = [None] * num_slots
        self._changes = [0.0] * num_slots

    def prefill(
        self,
        slot: int,
        frames: NDArray[np.uint8],
        actions: NDArray[np.float32],
        seed: int,
        first_index: int | None = None,
        pitch_deg: float = 0.0,
    ) -> None:
        first = -len(frames) if first_index is None else first_index
        assert len(frames) == len(actions)
        self._fail(slot)
        self.calls.append(("prefill", slot))
        self._work(self._prefill_ms * len(frames))
        self._pending[slot] = None
        self._num_warmed[slot] = first + len(frames) + self._world.config.context
        self._places[slot] = np.array([seed % 97, 0, int(frames[-1].mean())], np.int64)

    def step(self, batch: Batch) -> NDArray[np.uint8]:
        self.commit(batch.slots)
        self.calls.append(("step", batch))
        for slot in batch.slots:
            assert self._num_warmed[slot] == self._world.config.context, "step before prefill"
            self._fail(slot)
        self._work(self._step_ms * batch.num_steps * len(batch.slots))
        pictures = []
        for slot, action, seed in zip(batch.slots, batch.actions, batch.seeds, strict=True):
            place = self._places[slot] + fake_move(action)
            self._changes[slot] = float(np.abs(fake_move(action)).sum())
            self._pending[slot] = place
            pictures.append(fake_picture(self._world.config, place + np.array([seed % 97, 0, 0])))
        return np.stack(pictures)

    def commit(self, slots: Sequence[int]) -> None:
        for slot in slots:
            place = self._pending[slot]
            if place is not None:
                self.calls.append(("commit", slot))
                self._work(self._commit_ms)
                self._places[slot], self._pending[slot] = place, None

    def changes(self, slots: Sequence[int]) -> Sequence[float]:
        return [self._changes[slot] for slot in slots]

    def snapshot(self, slot: int) -> bytes:
        pending = self._pending[slot]
        values = {
            "place": self._places[slot].tolist(),
            "pending": None if pending is None else pending.tolist(),
            "num_warmed": self._num_warmed[slot],
        }
        return json.dumps(values).encode()

    def restore(self, slot: int, snapshot: bytes) -> None:
        try:
            values = json.loads(snapshot)
        except ValueError:
            raise ReverieError("this is not a Reverie session, or it is damaged") from None
        self._places[slot] = np.array(values["place"], np.int64)
        pending = values["pending"]
        self._pending[slot] = None if pending is None else np.array(pending, np.int64)
        self._num_warmed[slot] = values["num_warmed"]

    def cost_table(self) -> CostTable:
        table: dict[tuple[int, int], float] = {}
        for b in range(1, min(self.num_slots, 4) + 1):
            table[b, 0] = b * self._commit_ms
            for num_steps in self._world.config.denoising_steps:
                table[b, num_steps] = b * num_steps * self._step_ms
        return table

    def _work(self, ms: float) -> None:
        if self._clock is not None:
            self._clock.advance(ms / 1000)

    def _fail(self, slot: int) -> None:
        if slot in self.failing:
            raise RuntimeError(f"slot {slot} burst")
