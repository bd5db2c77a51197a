from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from tiny_env import CONTROLS

from reverie.core import Action, ReverieError
from reverie.data import ActionFormat, options, policies
from reverie.data.environment import Simulator
from reverie.data.player import BLOCKED_MOVE, TRAIL, Body, Gaze, ease, look, steady

ACTIONS = ActionFormat("controls", CONTROLS.width, CONTROLS)


def play(
    name: str, seed: int, num_ticks: int, env_id: str = "tiny_env:TinyAdvance-v0"
) -> np.ndarray:
    """Encoded actions [num_ticks, A] of one episode."""
    simulator = Simulator(env_id)
    policy = policies.make(name, simulator.actions)
    rng = np.random.default_rng(seed)
    info = simulator.reset(seed)
    vectors = []
    for _ in range(num_ticks):
        vector = simulator.actions.quantise(policy(rng, info))
        info, _ = simulator.step(vector)
        vectors.append(vector)
    return np.array(vectors)


@pytest.fixture(scope="module")
def played() -> np.ndarray:
    """Eight long scripted episodes, end to end."""
    return np.concatenate([play("scripted", seed, 2000) for seed in range(8)])


def turns(vectors: np.ndarray) -> np.ndarray:
    return vectors[:, 8:10] * 15


@pytest.mark.parametrize("name", sorted(policies.NAMES))
def test_a_policy_is_a_function_of_its_seed(name: str) -> None:
    first = play(name, 1, 300)
    assert np.array_equal(first, play(name, 1, 300))
    if name != "still":
        assert not np.array_equal(first, play(name, 2, 300))


def test_scripted_players_hold_every_key_alone_and_together(played: np.ndarray) -> None:
    held = played[:, :8] > 0.5
    alone = held.sum(axis=1) == 1
    for key, name in enumerate(CONTROLS.keys):
        assert held[:, key].mean() > 0.01, name
        if name != "sprint":
            assert (alone & held[:, key]).sum() > 20, name
    assert (held.sum(axis=1) >= 2).mean() > 0.1
    assert 0.25 < (~held.any(axis=1)).mean() < 0.6


def test_scripted_players_turn_at_every_speed_both_ways(played: np.ndarray) -> None:
    yaw, pitch = turns(played).T
    edges = [0.25, 2, 4, 6, 8, 10, 12, 15.1]
    for axis in (yaw, -yaw):
        for low, high in pairwise(edges):
            assert ((axis >= low) & (axis < high)).sum() > 20, (low, high)
    assert (np.abs(pitch) > 8).sum() > 40
    assert abs(yaw.mean()) < 0.3


def test_scripted_players_also_do_nothing(played: np.ndarray) -> None:
    nothing = ~played[:, :10].any(axis=1)
    assert 0.05 < nothing.mean() < 0.25
    runs = np.diff(np.flatnonzero(np.diff(np.r_[0, nothing, 0])))[::2]
    assert runs.max() >= 30


def test_scripted_players_change_slots_now_and_then(played: np.ndarray) -> None:
    slots = played[:, 10:].argmax(axis=1)
    assert np.bincount(slots, minlength=6).min() > 0.03 * len(slots)
    assert 0.001 < (np.diff(slots) != 0).mean() < 0.03


def test_scripted_players_come_back_to_the_horizon(played: np.ndarray) -> None:
    pitches = []
    for episode in turns(played).reshape(8, -1, 2):
        pitch = 0.0
        for turn in episode[:, 1]:
            pitch = float(np.clip(pitch + turn, -89, 89))
            pitches.append(pitch)
    assert np.mean(np.abs(pitches) < 35) > 0.7
    assert np.mean(np.abs(pitches) > 80) < 0.1
    assert min(pitches) < -40
    assert max(pitches) > 60


def test_the_mix_is_a_mix_of_time() -> None:
    simulator = Simulator("tiny_env:TinyAdvance-v0")
    spent: Counter[str] = Counter()
    for seed in range(20):
        policy = policies.Scripted(simulator.actions)
        rng, info = np.random.default_rng(seed), simulator.reset(seed)
        for _ in range(1500):
            info, _ = simulator.step(simulator.actions.quantise(policy(rng, info)))
            spent[policy.part] += 1
    for part, share in policies.MIX.items():
        assert spent[part] / spent.total() == pytest.approx(share, rel=0.35), part


def test_sticky_players_hold_what_they_hold() -> None:
    vectors = play("sticky", 0, 3000)
    held = vectors[:, :8] > 0.5
    for key in range(6):
        runs = np.diff(np.flatnonzero(np.diff(np.r_[0, held[:, key], 0])))[::2]
        assert np.mean(runs) > 5, CONTROLS.keys[key]
    assert np.abs(turns(vectors)[:, 0]).max() > 3


@pytest.mark.parametrize("degrees", [0.0, 3.5, -90.0, 360.0])
def test_turns_add_up(degrees: float) -> None:
    for shape in (ease(degrees, -degrees / 4, 40), steady(degrees / 40, -degrees / 160, 40)):
        steps = np.array(shape)
        assert np.array_equal(steps * 2, np.rint(steps * 2))
        assert steps[:, 0].sum() == pytest.approx(degrees)
        assert steps[:, 1].sum() == pytest.approx(-degrees / 4, abs=0.5)
    eased = np.abs(np.array(ease(degrees, 0.0, 40))[:, 0])
    assert eased[18:22].sum() >= eased[:4].sum()


def body(**info: object) -> Body:
    there = Body(CONTROLS, np.random.default_rng(0))
    there.see({"position": (0.0, 0.0, 0.0), "pitch": 0.0, **info}, walking=False)
    return there


def test_looking_reaches_the_pitch_that_was_meant() -> None:
    steps = list(look(body(pitch=-20.0), 45.0, 30.0, "forward"))
    assert sum(step.mouse[0] for step in steps) == pytest.approx(45)
    assert sum(step.mouse[1] for step in steps) == pytest.approx(50)
    assert all(step.keys == {"forward"} for step in steps)


def test_a_still_gaze_is_refused_far_from_the_horizon() -> None:
    assert Gaze.draw(body(pitch=5.0), (1, 0, 0, 0)).style == "still"
    assert Gaze.draw(body(pitch=80.0), (1, 0, 0, 0)).style == "calm"


def test_who_walks_into_a_wall_hops_and_then_turns() -> None:
    walker = body(ahead="clear")
    walker.rng = np.random.default_rng(3)
    hopped, turned = False, False
    steps = options.go(walker, 40, Gaze(walker, "still"), "forward")
    for step in steps:
        hopped |= "jump" in step.keys
        turned |= step.mouse[0] != 0
        walker.see({"position": (0.0, 0.0, 0.0)}, walking=True)
        assert hopped or walker.num_blocked < 5
    assert hopped
    assert turned


def test_who_walks_in_a_cage_is_trapped() -> None:
    caged, free = body(), body()
    for tick in range(TRAIL):
        caged.see({"position": (tick % 2, 0.0, 0.0)}, walking=True)
        free.see({"position": (tick * 0.2, 0.0, 0.0)}, walking=True)
    assert caged.is_trapped
    assert not free.is_trapped
    assert caged.moved > BLOCKED_MOVE


@pytest.mark.parametrize(
    ("yaw", "turn"), [(0.0, 90.0), (90.0, 0.0), (350.0, 100.0), (180.0, -90.0)]
)
def test_a_swimmer_knows_where_the_shore_is(yaw: float, turn: float) -> None:
    swimmer = body(position=(10.0, 0.0, 0.0))
    swimmer.see({"position": (3.0, 0.0, 0.0), "yaw": yaw, "in_water": True}, walking=True)
    assert swimmer.shore_yaw == pytest.approx(turn)


def test_a_world_without_a_key_is_played_without_it() -> None:
    bare = Body(type(CONTROLS)(("forward",), camera_limit=10.0), np.random.default_rng(0))
    assert bare.act("forward", "jump") == Action({"forward"})


def test_bad_names_are_said() -> None:
    with pytest.raises(
        ReverieError, match=r"expected one of \['scripted', 'sticky', 'still', 'turns'\]"
    ):
        policies.make("nobody", ACTIONS)
    with pytest.raises(ReverieError, match="'no_module:x' cannot be imported"):
        policies.make("no_module:x", ACTIONS)
    assert policies.resolve("auto", ACTIONS) == "scripted"


def test_switching_changes_keys_and_camera_abruptly_and_apart() -> None:
    player = body()
    actions = [action for _ in range(60) for action in options.switch_often(player)]
    keys = np.array([hash(action.keys) for action in actions])
    mice = np.array([action.mouse for action in actions])
    switched, turned = keys[1:] != keys[:-1], (mice[1:] != mice[:-1]).any(1)
    assert 0.08 < switched.mean() < 0.4
    assert 0.08 < turned.mean() < 0.4
    assert (switched & turned).mean() < 0.5 * min(switched.mean(), turned.mean())
    jumps = np.abs(np.diff(mice[:, 0]))[turned]
    assert np.mean(jumps > 3) > 0.3  # no hand eases into it


def test_players_wish_every_few_seconds() -> None:
    space = replace(CONTROLS, attributes={"weather": ("clear", "rain", "fog", "snow")})
    changes = []
    for seed in range(40):
        player = Body(space, np.random.default_rng(seed))
        told = []
        for _ in range(600):
            player.see({}, walking=False)
            told.append(player.act().attributes)
        changes.append(sum(a != b for a, b in pairwise(told)))
    assert 7 < np.mean(changes) < 12


def test_a_world_without_attributes_is_wished_nothing() -> None:
    player = Body(CONTROLS, np.random.default_rng(0))
    for _ in range(50):
        player.see({}, walking=False)
    assert player.act().attributes == {}


def test_players_wish_for_all_there_is_and_go_back_to_the_usual() -> None:
    space = replace(CONTROLS, attributes={"weather": ("clear", "rain", "fog")})
    player = Body(space, np.random.default_rng(0))
    told = []
    for _ in range(300):
        player.wish()
        told.append(player.act().attributes.get("weather", "clear"))
    assert 0.25 < np.mean([value == "clear" for value in told]) < 0.45
    assert set(told) == {"clear", "rain", "fog"}
