"""Who plays while a data set is recorded.

A policy is a callable `policy(rng, info) -> action vector`, a new one for each episode:

    scripted   a mixture for first-person building worlds: 50% options, 25% abrupt changes of keys
               and camera, 10% sticky random, 10% standing still and pure turns, 5% tests
    sticky     keys stay held or free for a while, the camera drifts; for every environment
    still      nothing
    turns      pure turns and standing still, for evaluation
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from reverie.core import ActionSpace, ReverieError
from reverie.data import options
from reverie.data.actions import CAMERA_STEP_DEG, ActionFormat, Vectors
from reverie.data.options import Option
from reverie.data.player import Body, Steps, Turn

WALKING_KEYS = frozenset({"forward", "back", "left", "right"})

MIX = {"options": 0.50, "switching": 0.25, "sticky": 0.10, "still": 0.10, "tests": 0.05}
"""Share of an episode's time."""
TYPICAL_TICKS = {"options": 36, "switching": 52, "sticky": 66, "still": 29, "tests": 74}
"""How long one option of each part takes; with it, shares of time become chances."""

OPTIONS: Mapping[str, Mapping[Option, float]] = {
    "options": {
        options.walk: 6.0,
        options.sprint_jump: 1.0,
        options.strafe: 1.8,
        options.single_key: 2.2,
        options.walk_back: 1.2,
        options.look_around: 1.6,
        options.look_up_and_down: 0.8,
        options.mine: 2.3,
        options.place: 2.4,
        options.pillar: 0.5,
        options.switch_slots: 0.6,
    },
    "switching": {options.switch_often: 1.0},
    "still": {options.stand: 1.0, options.turn_steadily: 1.6, options.away_and_back: 0.8},
    "tests": {options.full_circle: 2.0, options.wall: 1.5, options.tunnel: 0.4},
}
"""What is done in each part of the mixture, and how often compared to the others."""


class Policy(Protocol):
    """Who plays one episode; see the module."""

    def __call__(self, rng: np.random.Generator, info: dict[str, Any]) -> Vectors:
        """The encoded action [A] for the next frame, from the environment's last info."""
        ...


class Scripted:
    """The mixture: parts of `mix` by their share of time, options inside a part by their weight.

    part, current: the part of the mix and the name of the option that gave the last action.
    """

    def __init__(self, actions: ActionFormat, mix: Mapping[str, float] = MIX) -> None:
        assert actions.space is not None
        self.space, self.mix = actions.space, dict(mix)
        self.current = ""
        self.part = ""
        self._steps: Steps = iter(())
        self._body: Body | None = None
        self._walking = False

    def __call__(self, rng: np.random.Generator, info: dict[str, Any]) -> Vectors:
        if self._body is None:
            self._body = Body(self.space, rng)
        self._body.see(info, self._walking)
        action = next(self._steps, None)
        while action is None:
            self._steps = self._begin(rng, self._body)
            action = next(self._steps, None)
        self._walking = bool(action.keys & WALKING_KEYS)
        return self.space.encode(action)

    def _begin(self, rng: np.random.Generator, body: Body) -> Steps:
        """Draw the next option; first things first for who is lost or has their nose on a wall."""
        self.part = _draw(
            rng, {part: share / TYPICAL_TICKS[part] for part, share in self.mix.items()}
        )
        if body.chance(0.08):
            body.pick_slot()
        if self.part == "sticky":
            self.current = "sticky"
            return sticky(body, body.ticks(40, 120))
        if body.is_afloat and body.chance(0.75):
            option = options.swim
        elif self.part != "still" and body.is_trapped:
            option = options.way_out
        elif self.part != "tests" and body.faces_wall and body.chance(0.7):
            option = options.face_open
        else:
            option = _draw(rng, OPTIONS[self.part])
        self.current = getattr(option, "__name__", "option")
        return option(body)


class Sticky:
    """Random play for any environment: what is chosen stays for a while."""

    def __init__(self, actions: ActionFormat) -> None:
        self.actions = actions
        self._body: Body | None = None
        self._steps: Steps = iter(())
        self._vector = actions.idle()
        self._num_left = 0

    def __call__(self, rng: np.random.Generator, info: dict[str, Any]) -> Vectors:
        if self.actions.kind == "controls":
            assert self.actions.space is not None
            if self._body is None:
                self._body = Body(self.actions.space, rng)
                self._steps = sticky(self._body)
            self._body.see(info, walking=False)
            return self.actions.space.encode(next(self._steps))
        if self._num_left == 0:
            self._num_left = int(rng.integers(2, 16))
            self._vector = self._draw(rng)
        self._num_left -= 1
        return self._vector

    def _draw(self, rng: np.random.Generator) -> Vectors:
        width = self.actions.width
        if self.actions.kind == "discrete":
            return np.eye(width, dtype=np.float32)[rng.integers(width)]
        if self.actions.kind == "binary":
            return (rng.random(width) < 0.3).astype(np.float32)
        if self.actions.space is not None:
            return self._hold(rng, self.actions.space)
        return rng.uniform(self.actions.low, self.actions.high).astype(np.float32)

    def _hold(self, rng: np.random.Generator, space: ActionSpace) -> Vectors:
        """Up to two keys, and half of the time a turn of the camera."""
        vector = self.actions.idle()
        for _ in range(rng.integers(3)):
            vector[rng.integers(len(space.keys))] = 1.0
        if space.camera_limit and rng.random() < 0.5:
            vector[space.camera_columns] = np.clip(rng.normal(0, 0.3, 2), -1, 1)
        return vector


class Still:
    """Never does anything."""

    def __init__(self, actions: ActionFormat) -> None:
        self._vector = actions.idle()

    def __call__(self, rng: np.random.Generator, info: dict[str, Any]) -> Vectors:
        return self._vector


def turns(actions: ActionFormat) -> Policy:
    """Only pure turns and standing still."""
    return Scripted(actions, {"still": 1.0})


Factory = Callable[[ActionFormat], Policy]
NAMES: dict[str, Factory] = {"scripted": Scripted, "sticky": Sticky, "still": Still, "turns": turns}


def resolve(name: str, actions: ActionFormat) -> str:
    """The name of the policy that `name` means for an environment; "auto" picks. Raises
    ReverieError if it cannot play there.
    """
    first_person = (
        actions.kind == "controls"
        and actions.space is not None
        and "forward" in actions.space.keys
        and actions.space.camera_limit > 0
    )
    if name == "auto":
        return "scripted" if first_person else "sticky"
    if name in ("scripted", "turns") and not first_person:
        raise ReverieError(
            f"policy {name!r} needs an environment with a camera and a key 'forward';"
            " use 'sticky' or 'module:factory'"
        )
    make(name, actions)
    return name


def make(name: str, actions: ActionFormat) -> Policy:
    """A new policy for one episode. name: of `NAMES`, or "module:factory" of your own, called with
    the action format.
    """
    if name in NAMES:
        return NAMES[name](actions)
    module, _, attribute = name.partition(":")
    try:
        factory: Factory | None = (
            getattr(importlib.import_module(module), attribute) if attribute else None
        )
    except (ImportError, AttributeError) as error:
        raise ReverieError(f"policy {name!r} cannot be imported: {error}") from None
    if not callable(factory):
        raise ReverieError(
            f"policy {name!r} is unknown; expected one of {sorted(NAMES)} or 'module:factory'"
        )
    return factory(actions)


def mix(name: str) -> dict[str, float]:
    """Share of time of each part of a policy, for the data set's record."""
    return dict(MIX) if name == "scripted" else {name: 1.0}


def sticky(body: Body, num_ticks: int | None = None) -> Steps:
    """Each key is pressed and released at its own random times; the camera speeds up and slows down
    at random.
    """
    rng = body.rng
    keys = body.space.keys
    held = np.zeros(len(keys), bool)
    # Forward more than back, so that sticky players travel too; break and use are short.
    press = np.array([{"forward": 0.08, "back": 0.015}.get(key, 0.02) for key in keys])
    release = np.array([{"forward": 0.04, "break": 0.1, "use": 0.4}.get(key, 0.08) for key in keys])
    speed, restlessness = np.zeros(2), float(rng.uniform(0.3, 3.0))
    tick = 0
    while num_ticks is None or (tick < num_ticks and not (body.is_afloat and body.chance(0.04))):
        draw = rng.random(len(keys))
        held = np.where(held, draw > release, draw < press)
        speed = 0.85 * speed + rng.normal(0, [restlessness, restlessness / 2])
        if rng.random() < 0.04:
            speed[:] = 0
        # A weak pull to just below the horizon; without it, pitch ends at its limit.
        turn = _to_steps(speed[0], speed[1] + 0.03 * (8 - body.pitch))
        if rng.random() < 0.01:
            body.pick_slot()
        yield body.act(
            *(key for key, is_held in zip(keys, held, strict=True) if is_held), turn=turn
        )
        tick += 1


def _to_steps(yaw: float, pitch: float) -> Turn:
    return round(yaw / CAMERA_STEP_DEG) * CAMERA_STEP_DEG, round(
        pitch / CAMERA_STEP_DEG
    ) * CAMERA_STEP_DEG


def _draw(rng: np.random.Generator, weights: Mapping[Any, float]) -> Any:
    choices = list(weights)
    chances = np.array([weights[choice] for choice in choices], float)
    return choices[int(rng.choice(len(choices), p=chances / chances.sum()))]
