"""Options: short things a player does for 8 to 60 frames; the scripted policy strings them.

An option is a generator function `(body) -> Iterator[Action]`: it yields what is held and how the
camera turns in the next frame, and sees the consequences in `body` when it goes on.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reverie.data.player import (
    AVOIDED,
    PITCH_MOST,
    Body,
    Gaze,
    Steps,
    Turn,
    draw_pitch,
    ease,
    look,
    steady,
)

Option = Callable[[Body], Steps]


# -- going places ----------------------------------------


def go(body: Body, num_ticks: int, gaze: Gaze, *keys: str) -> Steps:
    """Hold walking keys as someone who sees where they go: hop over steps, turn off before walls,
    water and drops, look for a way when held up. One walk in ten is careless and bumps.
    """
    careful = not body.chance(0.1)
    steering: Steps = iter(())
    for _ in range(num_ticks):
        if body.num_blocked >= (8 if careful else 20):
            body.num_blocked = 0
            yield from face_open(body)
        heads_on = "forward" in keys and careful and not body.is_afloat
        turn = next(steering, None)
        if turn is None and heads_on and body.ahead in AVOIDED and body.chance(0.5):
            steering = face_open(body)
        hop = body.is_afloat or body.num_blocked >= 3 or (heads_on and body.ahead == "step")
        yield body.act(
            *keys, *(("jump",) if hop else ()), turn=gaze() if turn is None else turn.mouse
        )


def face_open(body: Body) -> Steps:
    """Turn until there is a way ahead; where there is none all round, climb out."""
    yield from level(body)
    if body.is_afloat:
        yield from swim(body)
        return
    sign, speed = body.sign(), float(body.rng.uniform(4, 11))
    turned, now = 0.0, 0.0
    while turned < 360:
        if turned > 25 and body.sees_open:
            break
        now = min(now + 1.5, speed)
        turned += now
        yield body.act(turn=(sign * round(2 * now) / 2, 0.0))
    else:
        yield from climb_out(body)
        return
    for turn in ease(sign * float(body.rng.uniform(5, 30)), 0.0, 4):
        yield body.act(turn=turn)


def swim(body: Body) -> Steps:
    """Up, and back to where one stood last, or at times on to whatever shore there is."""
    yaw = body.shore_yaw
    if yaw is None or body.chance(0.25):
        yaw = float(body.rng.normal(0, 40))
    yield from look(body, yaw, float(body.rng.normal(2, 6)), "jump")
    for _ in range(body.ticks(25, 80)):
        if body.num_blocked >= 10 or not body.is_afloat:
            break
        yield body.act("forward", "jump")
    if body.is_afloat:
        for turn in ease(body.sign() * float(body.rng.uniform(40, 120)), 0.0, 10):
            yield body.act("jump", turn=turn)
        return
    for _ in range(6):
        yield body.act("forward", "jump")


def way_out(body: Body) -> Steps:
    """Led nowhere for a while: go where it is open; if that leads nowhere either, climb out."""
    body.forget_trail()
    yield from face_open(body)
    start = body.position
    for _ in range(24):
        hop = body.is_afloat or body.ahead == "step" or body.num_blocked >= 2
        yield body.act("forward", *(("jump",) if hop else ()))
    if np.hypot(*(body.position - start)[[0, 2]]) < 2.0:
        yield from climb_out(body)


def climb_out(body: Body) -> Steps:
    """Out of a hole: open the ceiling, rise on a pillar, until there is a way ahead."""
    for _ in range(3):
        if body.is_afloat:
            yield from swim(body)
            return
        yield from look(body, 0.0, -PITCH_MOST)
        for _ in range(20):
            if body.target is None:
                break
            yield body.act("break")
        yield from pillar(body, 2.0)
        if body.sees_open:
            return


def walk(body: Body) -> Steps:
    """Ahead, with a wandering look; over a step where one is in the way."""
    keys = ["forward"]
    if body.chance(0.25):
        keys.append("sprint")
    if body.chance(0.12):
        keys.append(body.side())
    gaze = Gaze.draw(body, (0.25, 0.42, 0.13, 0.20))
    yield from go(body, body.ticks(16, 60), gaze, *keys)


def sprint_jump(body: Body) -> Steps:
    """A run with jump held down."""
    gaze = Gaze.draw(body, (0.4, 0.4, 0.0, 0.2))
    yield from go(body, body.ticks(16, 50), gaze, "forward", "sprint", "jump")


def strafe(body: Body) -> Steps:
    """Sideways, at times around a thing in front (turning against the walk)."""
    side = body.side()
    num_ticks = body.ticks(8, 40)
    if body.chance(0.4):
        rate = float(body.rng.uniform(0.5, 4)) * (-1 if side == "right" else 1)
        for turn in steady(rate, 0.0, num_ticks):
            yield body.act(side, turn=turn)
        return
    extra = ("forward",) if body.chance(0.2) else ()
    yield from go(body, num_ticks, Gaze.draw(body, (0.6, 0.3, 0.1, 0.0)), side, *extra)


def single_key(body: Body) -> Steps:
    """One key alone and the camera at rest: what each key does by itself."""
    key = str(
        body.rng.choice(
            ["forward", "back", "left", "right", "jump"], p=[0.25, 0.3, 0.17, 0.17, 0.11]
        )
    )
    yield from look(body, 0.0, draw_pitch(body)) if abs(body.pitch) > 35 else ()
    for _ in range(body.ticks(10, 60)):
        if body.num_blocked >= 12:
            return
        yield body.act(key)


def walk_back(body: Body) -> Steps:
    """Turn round and return to where one was, and at times go there again."""
    yield from look(
        body, body.sign() * float(body.rng.normal(180, 6)), float(body.rng.normal(6, 6))
    )
    yield from go(body, body.ticks(20, 60), Gaze.draw(body, (0.5, 0.5, 0.0, 0.0)), "forward")


def switch_often(body: Body) -> Steps:
    """Keys and camera that change abruptly and apart from each other: here what one just saw does
    not tell what comes next, and only the action does.
    """
    ways, chances = zip(*SWITCHED.items(), strict=True)
    keys: tuple[str, ...] = ()
    turn: Turn = (0.0, 0.0)
    keys_left = turn_left = 0
    for _ in range(body.ticks(30, 90)):
        if keys_left == 0:
            keys, keys_left = ways[int(body.rng.choice(len(ways), p=chances))], body.ticks(2, 14)
        if turn_left == 0:
            turn, turn_left = draw_turn(body), body.ticks(2, 14)
        yield body.act(*keys, turn=turn)
        keys_left, turn_left = keys_left - 1, turn_left - 1


SWITCHED = {
    (): 0.25, ("forward",): 0.25, ("back",): 0.1, ("left",): 0.1, ("right",): 0.1, ("jump",): 0.05,
    ("forward", "jump"): 0.05, ("forward", "sprint"): 0.04, ("forward", "left"): 0.03,
    ("forward", "right"): 0.03,
}  # fmt: skip
"""Keys held in `switch_often`, and how often."""


def draw_turn(body: Body) -> Turn:
    """A camera speed, degrees a frame: at rest, along one axis or slanted; from far up or down
    rather back than on.
    """
    speed = float(body.rng.uniform(0.5, 10))
    towards = -np.sign(body.pitch) if abs(body.pitch) > 40 else float(body.sign())
    kind = body.rng.random()
    yaw = 0.0 if kind < 0.6 else body.sign() * speed
    pitch = 0.0 if kind < 0.35 or 0.6 <= kind < 0.9 else towards * speed
    return round(2 * yaw) / 2, round(2 * pitch) / 2


# -- looking ----------------------------------------


def look_around(body: Body) -> Steps:
    """Standing, with turns of the head as people make them."""
    gaze = Gaze(body, "busy")
    for _ in range(body.ticks(16, 60)):
        yield body.act(turn=gaze())


def look_up_and_down(body: Body) -> Steps:
    """To a steep pitch and back to the horizon, at a speed anywhere up to the limit."""
    for pitch in (draw_steep(body), float(body.rng.normal(6, 6))):
        change = pitch - body.pitch
        speed = float(body.rng.uniform(1, 14))
        for turn in steady(0.0, np.sign(change) * speed, max(1, round(abs(change) / speed))):
            yield body.act(turn=turn)
        for _ in range(body.ticks(2, 14)):
            yield body.act()


def draw_steep(body: Body) -> float:
    """A pitch far from the horizon, degrees; more often down than up."""
    return float(body.rng.uniform(30, PITCH_MOST)) * (1 if body.chance(0.6) else -1)


def stand(body: Body) -> Steps:
    """Nothing at all: a world where nobody acts stays as it is."""
    for _ in range(body.ticks(8, 60)):
        yield body.act()


def turn_steadily(body: Body) -> Steps:
    """A pure turn at any speed that the camera knows, mostly level, some slanted."""
    rate = body.sign() * float(body.rng.uniform(0.5, 15))
    pitch_rate = 0.0
    if body.chance(0.3):
        pitch_rate = float(np.clip((draw_pitch(body) - body.pitch) / 12, -15, 15))
    for turn in steady(rate, pitch_rate, body.ticks(8, 40)):
        yield body.act(turn=turn if abs(body.pitch) < PITCH_MOST - 3 else (turn[0], 0.0))


def away_and_back(body: Body) -> Steps:
    """Turn away, wait, turn back by the same angle: what was there must be there again."""
    angle = body.sign() * float(body.rng.uniform(30, 180))
    if abs(body.pitch) > 35:
        yield from look(body, 0.0, float(body.rng.normal(6, 6)))
    speed = float(body.rng.uniform(3, 13))
    num_ticks = max(3, round(abs(angle) / speed))
    shape = ease if body.chance(0.5) else _steady_total
    for turn in shape(angle, 0.0, num_ticks):
        yield body.act(turn=turn)
    for _ in range(body.ticks(2, 40)):
        yield body.act()
    for turn in shape(-angle, 0.0, num_ticks):
        yield body.act(turn=turn)


def full_circle(body: Body) -> Steps:
    """All the way round on the spot, in 1.5 to 6 seconds."""
    yield from look(body, 0.0, float(body.rng.normal(5, 6)))
    angle = body.sign() * 360.0
    for turn in _steady_total(angle, 0.0, int(body.rng.integers(30, 121))):
        yield body.act(turn=turn)
    for _ in range(body.ticks(2, 12)):
        yield body.act()


def _steady_total(yaw: float, pitch: float, num_ticks: int) -> list[Turn]:
    return steady(yaw / num_ticks, pitch / num_ticks, num_ticks)


# -- building ----------------------------------------


def aim(body: Body, steepest: float = 62.0) -> Steps:
    """Look down until something is in reach."""
    while body.target is None and body.pitch < steepest:
        yield from look(body, 0.0, body.pitch + 9.0)


def mine(body: Body) -> Steps:
    """Aim at the ground or at what is in front, hold break until one or more blocks are gone."""
    ahead = body.target is not None and body.chance(0.6)
    pitch = float(body.rng.uniform(-12, 20) if ahead else body.rng.uniform(24, 48))
    yield from look(body, float(body.rng.normal(0, 15)), pitch)
    yield from aim(body)
    forward = ("forward",) if body.chance(0.2) else ()
    for _ in range(int(body.rng.integers(1, 4))):
        for _ in range(body.ticks(8, 30)):
            if body.target is None:
                break
            yield body.act("break", *forward)
        yaw, pitch = float(body.rng.normal(0, 14)), body.pitch + float(body.rng.normal(0, 6))
        yield from look(body, yaw, pitch, "break")
        yield from aim(body)
    yield from level(body)


def place(body: Body) -> Steps:
    """Put blocks on the ground ahead or onto what is there, stepping back to see them."""
    if body.chance(0.5):
        body.pick_slot()
    yield from look(body, float(body.rng.normal(0, 20)), float(body.rng.uniform(22, 50)))
    for _ in range(int(body.rng.integers(1, 6))):
        yield from aim(body)
        for _ in range(body.ticks(1, 8)):
            yield body.act("use")
        for _ in range(body.ticks(2, 8)):
            yield body.act(*(("back",) if body.chance(0.4) else ()))
        pitch = float(np.clip(body.pitch - body.rng.uniform(0, 9), 5, 55))
        yield from look(body, float(body.rng.normal(0, 12)), pitch)
    if body.chance(0.6):
        for _ in range(body.ticks(8, 24)):
            yield body.act("back")
    yield from level(body)


def pillar(body: Body, height: float | None = None) -> Steps:
    """Jump and put a block under oneself, a few times; then look round from up there."""
    yield from look(body, 0.0, PITCH_MOST)
    for _ in range(round(12 * (height or float(body.rng.integers(1, 5))))):
        yield body.act("jump", "use")
    yield from look(body, float(body.rng.normal(0, 50)), float(body.rng.normal(12, 10)))
    for _ in range(body.ticks(2, 12)):
        yield body.act("forward")


def wall(body: Body) -> Steps:
    """A row of blocks side by side, at times a second row on top; then step back and look."""
    body.pick_slot()
    yield from look(body, 0.0, float(body.rng.uniform(32, 42)))
    yield from aim(body)
    side = body.side()
    two_rows = body.chance(0.5)
    for _ in range(int(body.rng.integers(3, 7))):
        for _ in range(2):
            yield body.act("use")
        if two_rows:
            yield from look(body, 0.0, body.pitch - 12)
            for _ in range(2):
                yield body.act("use")
            yield from look(body, 0.0, body.pitch + 12)
        for _ in range(4):
            yield body.act(side)
        yield body.act()
    for _ in range(body.ticks(8, 24)):
        yield body.act("back")
    yield from level(body)


def tunnel(body: Body) -> Steps:
    """Into the ground or a hill at a shallow angle, and back out."""
    num_ticks = int(body.rng.integers(50, 110))
    yield from look(body, float(body.rng.normal(0, 30)), float(body.rng.uniform(10, 32)))
    yield from dig_forward(body, num_ticks)
    yield from look(body, 180.0, float(body.rng.normal(-8, 5)))
    for _ in range(num_ticks // 3):
        yield body.act("forward", *(("jump",) if body.num_blocked > 1 else ()))


def dig_forward(body: Body, num_ticks: int) -> Steps:
    """Break what is ahead at foot and at eye level by turns, walking into the gap."""
    low = float(body.rng.uniform(28, 42))
    while num_ticks > 0:
        for pitch in (low, 2.0):
            for action in look(body, 0.0, pitch, "break"):
                yield action
                num_ticks -= 1
            for _ in range(9):
                yield body.act("break", *(("forward",) if pitch < 10 else ()))
                num_ticks -= 1


def switch_slots(body: Body) -> Steps:
    """Run through the hotbar."""
    for _ in range(int(body.rng.integers(1, 5))):
        body.pick_slot()
        for _ in range(body.ticks(2, 12)):
            yield body.act()


def level(body: Body) -> Steps:
    """Eyes back toward the horizon."""
    if abs(body.pitch) > 20:
        yield from look(body, 0.0, float(body.rng.normal(6, 6)))
