"""What happens in Meadow when the player does something."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reverie.core import Action
from reverie.envs.meadow import MEADOW_ACTIONS, Conditions, Meadow, physics
from reverie.envs.meadow import blocks as b
from reverie.envs.meadow.appearance import FADE_TICKS
from tests.envs.arena import FLOOR, MIDDLE, act, arena, at, changed_cells

AHEAD = (0, 1, -2)  # the cell two blocks north at the height of the eye: aimed at with pitch 0


def test_the_same_seed_and_actions_give_the_same_pictures():
    first, second = Meadow(5, 80, 48), Meadow(5, 80, 48)
    rng = np.random.default_rng(0)
    for _ in range(30):
        vector = rng.uniform(-1, 1, MEADOW_ACTIONS.width)
        np.testing.assert_array_equal(first.step(vector), second.step(vector))


def test_another_seed_is_another_world():
    assert (Meadow(1, 80, 48).cells != Meadow(2, 80, 48).cells).any()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), data=st.data())
def test_the_player_is_never_inside_a_block(seed, data):
    meadow = Meadow(seed, 80, 48)
    keys = st.lists(st.sampled_from(MEADOW_ACTIONS.keys), max_size=5)
    turns = st.tuples(st.floats(-15, 15), st.floats(-15, 15))
    for _ in range(20):
        action = Action(set(data.draw(keys)), data.draw(turns), data.draw(st.integers(1, 6)))
        for _ in range(12):
            meadow.advance(MEADOW_ACTIONS.encode(action))
            x, y, z = meadow.info()["position"]
            assert not physics.overlaps(meadow.cells, x, y, z), (x, y, z)
            assert y >= 0


def test_walking_and_sprinting_speed():
    meadow = arena()
    act(meadow, "forward", 5)
    z = meadow.info()["position"][2]
    act(meadow, "forward", 20)
    assert z - meadow.info()["position"][2] == pytest.approx(4.3, abs=0.02)
    act(meadow, "forward sprint", 5)
    z = meadow.info()["position"][2]
    act(meadow, "forward sprint", 20)
    assert z - meadow.info()["position"][2] == pytest.approx(5.8, abs=0.02)


@pytest.mark.parametrize(
    ("key", "direction"),
    [("forward", (0, -1)), ("back", (0, 1)), ("left", (-1, 0)), ("right", (1, 0))],
)
def test_keys_move_where_they_say(key, direction):
    meadow = arena()
    act(meadow, key, 6)
    moved_x, _, moved_z = meadow.info()["moved"]
    np.testing.assert_allclose((moved_x, moved_z), np.multiply(direction, 0.215), atol=1e-3)


def test_yaw_ninety_looks_east():
    meadow = arena(yaw=90)
    act(meadow, "forward", 6)
    np.testing.assert_allclose(meadow.info()["moved"], (0.215, 0, 0), atol=1e-3)


def test_a_jump_rises_one_block_and_a_quarter_and_lands():
    meadow = arena()
    heights = []
    for _ in range(20):
        act(meadow, "jump" if not heights else "")
        heights.append(meadow.info()["position"][1])
    assert 1.2 < max(heights) - (FLOOR + 1) < 1.3
    assert heights[-1] == FLOOR + 1
    assert meadow.info()["on_ground"]


def test_a_wall_stops_and_a_step_is_jumped():
    wall = {(east, up, -3): b.STONE for east in range(-3, 4) for up in range(3)}
    meadow = arena(wall)
    act(meadow, "forward", 40)
    assert meadow.info()["position"][2] == pytest.approx(MIDDLE - 2 + 0.3)
    assert meadow.info()["blocked"]
    assert meadow.info()["ahead"] == "wall"
    step = {(east, 0, south): b.STONE for east in range(-3, 4) for south in range(-9, -2)}
    meadow = arena(step)
    act(meadow, "forward", 12)
    assert meadow.info()["ahead"] == "step"
    act(meadow, "forward jump", 2)
    act(meadow, "forward", 18)
    assert meadow.info()["position"][1] == FLOOR + 2


def test_the_camera_is_quantised_and_clipped():
    meadow = arena()
    act(meadow, mouse=(3.3, -1.2))
    assert (meadow.info()["yaw"], meadow.info()["pitch"]) == (3.5, -1.0)
    act(meadow, mouse=(90, 0))
    assert meadow.info()["yaw"] == 18.5
    act(meadow, ticks=20, mouse=(0, 15))
    assert meadow.info()["pitch"] == 85
    act(meadow, ticks=20, mouse=(0, -15))
    assert meadow.info()["pitch"] == -85


def test_turning_right_moves_the_scene_left():
    post = {(0, up, -4): b.BRICK for up in range(4)}
    meadow = arena(post)

    def brick_column() -> float:
        red = meadow.render()[:30].astype(int)  # above the hotbar and the floor
        columns = np.where((red[..., 0] - red[..., 2] > 40).any(0))[0]
        return float(columns.mean())

    before = brick_column()
    act(meadow, mouse=(10, 0))
    assert brick_column() < before - 5


def test_looking_down_moves_the_scene_up():
    meadow = arena({(east, 1, -5): b.BRICK for east in range(-4, 5)})
    rows = []
    for _ in range(2):
        picture = meadow.render().astype(int)
        rows.append(np.where((picture[:36, ..., 0] - picture[:36, ..., 2] > 40).any(1))[0].mean())
        act(meadow, mouse=(0, 5))
    assert rows[1] < rows[0] - 3


def test_breaking_takes_six_ticks_and_the_cracks_grow():
    meadow = arena({AHEAD: b.STONE})
    pictures = [meadow.render()]
    for tick in range(1, 6):
        act(meadow, "break")
        assert at(meadow, *AHEAD) == b.STONE
        assert meadow.info()["break_ticks"] == tick
        pictures.append(meadow.render())
    differences = [
        np.abs(after.astype(int) - before).sum() for before, after in itertools.pairwise(pictures)
    ]
    assert min(differences) > 200
    act(meadow, "break")
    assert at(meadow, *AHEAD) == b.AIR
    assert meadow.info()["break_ticks"] == 0


def test_letting_go_or_looking_away_starts_breaking_over():
    meadow = arena({AHEAD: b.STONE})
    act(meadow, "break", 5)
    act(meadow)
    act(meadow, "break", 5)
    assert at(meadow, *AHEAD) == b.STONE
    act(meadow, mouse=(15, 0), ticks=4)
    act(meadow, "break", mouse=(-15, 0), ticks=4)
    assert at(meadow, *AHEAD) == b.STONE


def test_bedrock_cannot_be_broken():
    meadow = arena({AHEAD: b.BEDROCK})
    act(meadow, "break", 20)
    assert at(meadow, *AHEAD) == b.BEDROCK


@pytest.mark.parametrize("slot", range(1, 7))
def test_use_puts_one_block_of_the_slot_on_the_aimed_face(slot):
    meadow = arena({(0, 1, -3): b.STONE})
    before = meadow.cells.copy()
    act(meadow, "use", slot=slot)
    assert at(meadow, *AHEAD) == b.HOTBAR[slot - 1]
    assert changed_cells(before, meadow) == 1


def test_held_use_places_every_fourth_tick():
    meadow = arena(pitch=45)
    before = meadow.cells.copy()
    counts = []
    for _ in range(9):
        act(meadow, "use", slot=2, mouse=(15, 0))
        counts.append(changed_cells(before, meadow))
    assert counts == [1, 1, 1, 1, 2, 2, 2, 2, 3]


def test_nothing_is_placed_into_the_player():
    meadow = arena(pitch=85)
    before = meadow.cells.copy()
    act(meadow, "use", 10)
    assert changed_cells(before, meadow) == 0


def test_jumping_and_placing_downwards_builds_a_pillar():
    meadow = arena(pitch=85)
    for _ in range(3):
        act(meadow, "jump", 5)
        act(meadow, "use", 1, slot=2)
        act(meadow, "", 10)
    assert meadow.info()["position"][1] == FLOOR + 4


@pytest.mark.parametrize(("away", "reached"), [(4, True), (5, False)])
def test_reach(away, reached):
    # The eye is in the middle of its cell: the near face of a block `away` is 0.5 nearer.
    meadow = arena({(0, 1, -away - 1): b.STONE, (0, 1, -away): b.STONE})
    target = meadow.info()["target"]
    assert (target is not None) == reached
    act(meadow, "break", 6)
    assert (at(meadow, 0, 1, -away) == b.AIR) == reached


def test_target_says_where_what_and_which_face():
    target = arena({AHEAD: b.BRICK}).info()["target"]
    assert target["position"] == (MIDDLE, FLOOR + 2, MIDDLE - 2)
    assert (target["block"], target["face"]) == ("brick", "south")
    assert target["distance"] == pytest.approx(1.5)


def test_a_lamp_is_switched_by_use():
    meadow = arena({AHEAD: b.LAMP})
    lit = meadow.render().mean()
    act(meadow, "use")
    assert at(meadow, *AHEAD) == b.LAMP_OFF
    assert meadow.render().mean() < lit
    act(meadow)
    act(meadow, "use")
    assert at(meadow, *AHEAD) == b.LAMP


def test_a_door_turns_as_a_whole_and_lets_the_player_pass():
    walls = {
        (east, up, -2): b.PLANKS for east in (-2, -1, 1, 2) for up in range(3)
    } | {(0, 2, -2): b.PLANKS}  # fmt: skip
    meadow = arena(walls | {(0, 0, -2): b.DOOR_Z, (0, 1, -2): b.DOOR_Z})
    act(meadow, "forward", 30)
    assert meadow.info()["position"][2] > MIDDLE - 2
    act(meadow, "use")
    assert at(meadow, 0, 0, -2) == at(meadow, 0, 1, -2) == b.DOOR_X
    act(meadow, "forward", 30)
    assert meadow.info()["position"][2] < MIDDLE - 2


def test_swimming_up_and_sinking():
    pool = {
        (east, up, south): b.WATER
        for east in range(-5, 6)
        for up in range(6)
        for south in range(-5, 6)
    }
    meadow = arena(pool)
    act(meadow, "jump", 60)
    heights = []
    for _ in range(20):
        act(meadow, "jump")
        heights.append(meadow.info()["position"][1] - FLOOR - 1)
    assert 5.3 < min(heights) < max(heights) < 5.8  # the eye just above the surface at 6
    act(meadow, "", 10)
    height = meadow.info()["position"][1]
    act(meadow, "", 20)
    assert 1.2 < height - meadow.info()["position"][1] < 2.0


def test_a_swimmer_climbs_a_bank():
    pool = {
        (east, up, south): b.WATER if south > -3 else b.STONE
        for east in range(-5, 6)
        for up in range(3)
        for south in range(-8, 6)
    }
    meadow = arena(pool)
    act(meadow, "forward jump", 60)
    assert meadow.info()["position"][1] >= FLOOR + 4


def test_water_flows_into_what_is_dug_beside_it():
    meadow = arena({AHEAD: b.STONE, (0, 1, -3): b.WATER})
    act(meadow, "break", 6)
    assert at(meadow, *AHEAD) == b.WATER


def test_a_flower_goes_with_its_ground():
    meadow = arena({(0, 0, -2): b.TURF, (0, 1, -2): b.FLOWER_RED}, pitch=45)
    assert meadow.info()["target"]["block"] == "turf"
    act(meadow, "break", 6)
    assert at(meadow, 0, 0, -2) == at(meadow, 0, 1, -2) == b.AIR


def test_the_world_has_no_edge():
    meadow = Meadow(0, 80, 48)
    column = slice(20, 40)
    cells = meadow.cells.reshape(128, 128, 64)
    cells[:, :, 56:] = b.AIR
    cells[:, 60, column.start : 58] = b.AIR
    cells[:, :, 55] = b.STONE
    from reverie.envs.meadow import light

    light.fill_skip(meadow.cells, meadow._skip)
    meadow.place_player((127.5, 56.0, 60.5), yaw=90)
    act(meadow, "forward", 20)
    assert 2 < meadow.info()["position"][0] < 5


def test_a_clone_goes_its_own_way():
    meadow = arena({AHEAD: b.STONE})
    act(meadow, "break", 3)
    other = meadow.clone()
    np.testing.assert_array_equal(meadow.render(), other.render())
    act(other, "break", 3)
    assert at(other, *AHEAD) == b.AIR
    assert at(meadow, *AHEAD) == b.STONE
    act(meadow, "break", 3)
    np.testing.assert_array_equal(meadow.render(), other.render())


def test_standing_still_changes_nothing():
    meadow = Meadow(3, 80, 48)
    act(meadow, ticks=3)
    picture = meadow.render()
    act(meadow, ticks=20)
    np.testing.assert_array_equal(picture, meadow.render())


def test_conditions_change_the_picture_and_nothing_else():
    meadow = Meadow(3, 80, 48)
    seen = {meadow.render().tobytes()}
    cells = meadow.cells.copy()
    for conditions in (
        Conditions("night"), Conditions("dusk"), Conditions("dawn"), Conditions(weather="rain"),
        Conditions(weather="fog"), Conditions(weather="snow"), Conditions(season="winter"),
        Conditions(season="autumn"), Conditions(season="spring"),
    ):  # fmt: skip
        meadow.set_conditions(conditions)
        act(meadow, ticks=FADE_TICKS)
        seen.add(meadow.render().tobytes())
    assert len(seen) == 10
    np.testing.assert_array_equal(cells, meadow.cells)
    meadow.set_conditions(Conditions())
    act(meadow, ticks=FADE_TICKS)
    np.testing.assert_array_equal(meadow.render(), Meadow(3, 80, 48).render())


def test_conditions_fade_into_each_other():
    meadow, target = Meadow(3, 80, 48), Conditions("dusk", "snow", "autumn", "desert")
    before = meadow.render().astype(int)
    pictures, half_way = [before], meadow
    meadow.set_conditions(target)
    for tick in range(FADE_TICKS):
        act(meadow)
        if tick == 9:  # another wish half way begins from what is shown
            half_way = meadow.clone()
            half_way.set_conditions(Conditions())
            act(half_way)
        pictures.append(meadow.render().astype(int))
    np.testing.assert_array_equal(meadow.render(), arrived(target, FADE_TICKS).render())
    whole = np.abs(pictures[-1] - before).mean()
    steps = [np.abs(b - a).mean() for a, b in itertools.pairwise(pictures)]
    assert whole > 20
    assert max(steps) < 0.3 * whole
    assert np.abs(half_way.render() - pictures[10]).mean() < 0.3 * whole


def arrived(conditions, tick):
    """The same meadow where it has always been like that."""
    meadow = Meadow(3, 80, 48, conditions)
    act(meadow, ticks=tick)
    return meadow


def test_unknown_conditions_name_the_known_ones():
    with pytest.raises(ValueError, match=r"weather is 'hail'; expected one of \['clear'"):
        Conditions(weather="hail")


@pytest.mark.parametrize("vector", [np.zeros(15), np.zeros((1, 16)), np.zeros(0)])
def test_an_action_of_another_shape_is_one_clear_error(vector):
    with pytest.raises(ValueError, match=r"action has shape .*; expected \(16,\)"):
        Meadow(0, 80, 48).advance(vector)


def test_an_action_that_is_not_finite_is_an_error():
    with pytest.raises(ValueError, match="not finite"):
        Meadow(0, 80, 48).advance(np.full(16, np.nan))


def test_a_start_inside_a_block_is_an_error():
    with pytest.raises(ValueError, match="inside a block"):
        Meadow(0, 80, 48, position=(64, 1, 64))
