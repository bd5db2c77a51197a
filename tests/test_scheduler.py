from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reverie.core import Deadline
from reverie.scheduler import (
    GUARD,
    LEAST_SLOWDOWN,
    REST_S,
    Costs,
    Task,
    capacity,
    ladder,
    load,
    next_tick,
    rung,
    schedule,
)

FPS = 20.0
PERIOD_S = 1 / FPS


def table(
    step_ms: float = 8.0, decode_ms: float = 5.0, gain: float = 0.0, largest: int = 4
) -> Costs:
    """Costs of a device whose batches of b take b ** (1 - gain) times as long as one."""
    entries: dict[tuple[int, int], float] = {}
    for b in range(1, largest + 1):
        growth = b ** (1 - gain)
        entries[b, 0] = step_ms * growth
        for num_steps in (1, 2, 4):
            entries[b, num_steps] = (step_ms * num_steps + decode_ms) * growth
    return Costs(entries)


def task(name: str, opens_s: float, num_steps: int = 1) -> Task:
    return Task(Deadline(opens_s + PERIOD_S, name), opens_s, num_steps)


costs_strategy = st.builds(
    table, st.floats(0.5, 60), st.floats(0.5, 30), st.floats(0, 0.95), st.integers(1, 6)
)
tasks_strategy = st.lists(
    st.builds(lambda o, k: (o, k), st.floats(0, 0.3), st.sampled_from([1, 2, 4])), max_size=8
).map(lambda items: [task(f"s{i}", o, k) for i, (o, k) in enumerate(items)])


def test_nothing_is_due() -> None:
    assert schedule([], 0.0, table()) is None
    assert schedule([task("a", 1.0)], 0.99, table()) is None


def test_the_earliest_deadline_runs_first() -> None:
    plan = schedule([task("late", 0.02), task("early", 0.0)], 0.03, table())
    assert plan is not None
    assert plan.session_ids == ("early",)


def test_a_batch_forms_where_it_saves_time_and_not_where_it_does_not() -> None:
    tasks = [task(name, 0.0) for name in "abcd"]
    saving, plain = schedule(tasks, 0.0, table(2, 1, gain=0.9)), schedule(tasks, 0.0, table(2, 1))
    assert saving is not None
    assert plain is not None
    assert saving.session_ids == ("a", "b", "c", "d")
    assert plain.session_ids == ("a",)


def test_a_batch_is_no_larger_than_its_deadline_allows() -> None:
    tasks = [task(name, 0.0) for name in "abcd"]
    plan = schedule(tasks, 0.0, table(20, 10, gain=0.4))  # 30 ms, 45 ms, 58 ms, 69 ms
    assert plan is not None
    assert len(plan.session_ids) == 2


def test_a_late_frame_spends_fewer_steps() -> None:
    plan = schedule([task("a", 0.0, 4)], 0.025, table())  # 25 ms left; 4 steps 37, 2 steps 21
    assert plan is not None
    assert plan.num_steps == 2


@given(tasks_strategy, st.floats(0, 0.4), costs_strategy)
def test_plans_are_always_sound(tasks: list[Task], now_s: float, costs: Costs) -> None:
    plan = schedule(tasks, now_s, costs)
    due = [t for t in tasks if t.opens_s <= now_s]
    if not due:
        assert plan is None
        return
    assert plan is not None
    chosen = [t for t in tasks if t.deadline.session_id in plan.session_ids]
    assert len(chosen) == len(plan.session_ids) == len(set(plan.session_ids)) <= costs.max_batch
    assert all(t in due for t in chosen)
    assert min(due, key=lambda t: t.deadline) in chosen
    assert len({t.num_steps for t in chosen}) == 1
    assert plan.num_steps <= chosen[0].num_steps
    assert plan.num_steps in costs.steps
    left_ms = (min(t.deadline.deadline_s for t in chosen) - now_s) * 1000
    if costs.step_ms(1, 1) <= left_ms:
        assert costs.step_ms(len(chosen), plan.num_steps) <= left_ms


def play(requested: list[int], costs: Costs, num_ticks: int = 40) -> tuple[int, int]:
    """Simulate sessions on one grid with the engine's rules. Returns frames drawn and frames late.

    Commits are paid at the end of each tick's last frame, when there is time, or before the next.
    """
    now_s, limit, drawn, late = 0.0, max(costs.steps), 0, 0
    ticks = dict.fromkeys(range(len(requested)), 0)
    owed_ms: list[float] = []
    while min(ticks.values()) < num_ticks:
        limit = ladder(requested, limit, FPS, costs)
        tasks = [
            Task(
                Deadline((tick + 1) * PERIOD_S, f"{i}"),
                tick * PERIOD_S,
                rung(requested[i], limit, costs),
            )
            for i, tick in ticks.items()
        ]
        plan = schedule(tasks, now_s, costs)
        if plan is None and owed_ms:
            now_s += owed_ms.pop() / 1000
            continue
        if plan is None:
            now_s = min(t.opens_s for t in tasks)
            continue
        size, started_s = len(plan.session_ids), now_s
        now_s += costs.step_ms(size, plan.num_steps) / 1000
        owed_ms.append(costs.table[size, 0])
        for i in map(int, plan.session_ids):
            drawn += 1
            late += now_s > (ticks[i] + 1) * PERIOD_S + 1e-9
            ticks[i] = next_tick(ticks[i], started_s, now_s, FPS)
    return drawn, late


@settings(deadline=None, max_examples=60)
@given(costs_strategy, st.lists(st.sampled_from([1, 2, 4]), min_size=1, max_size=6))
def test_admitted_sessions_are_never_late(costs: Costs, requested: list[int]) -> None:
    if costs.frame_ms(1, 1) > (1 - GUARD) * PERIOD_S * 1000:
        return  # not even one session fits this machine
    admitted = requested[: capacity(FPS, costs, 16)]
    _, late = play(admitted, costs)
    assert late == 0


def test_too_many_sessions_are_late() -> None:
    """The simulation can fail: without admission, frames are late."""
    _, late = play([1] * 6, table())
    assert late > 0


def test_capacity_counts_the_commit_and_leaves_the_guard_band() -> None:
    # 21 ms a frame: two make 42 of 45 ms that may be promised, three do not fit.
    assert capacity(FPS, table(), 8) == 2
    assert capacity(FPS, table(8, 7), 8) == 1  # 46 of 45 ms
    assert capacity(FPS, table(0.1, 0.1), 8) == 8
    assert capacity(FPS, table(200, 5), 8) == 1  # too slow, but one may always play


@given(costs_strategy, st.integers(1, 8))
def test_capacity_fits_and_one_more_does_not(costs: Costs, num_slots: int) -> None:
    fits = capacity(FPS, costs, num_slots)
    assert 1 <= fits <= num_slots
    if fits > 1:
        assert load([1] * fits, 1, FPS, costs) <= 1 - GUARD
    if fits < num_slots:
        assert load([1] * (fits + 1), 1, FPS, costs) > 1 - GUARD


def test_the_ladder_goes_down_at_once_and_up_with_room() -> None:
    costs = table(6, 5)  # a frame takes 17, 23, 35 ms
    assert ladder([4], 4, FPS, costs) == 4
    assert ladder([4, 4], 4, FPS, costs) == 1  # two of 23 are 46 ms
    costs.slowdown = 1.25  # 43.75 of 45 ms: stays, but would not be started
    assert ladder([4], 4, FPS, costs) == 4
    assert ladder([4], 2, FPS, costs) == 2


def test_nobody_gets_more_steps_than_asked_for() -> None:
    assert rung(1, 4, table()) == 1
    assert rung(4, 2, table()) == 2


def test_the_machine_is_believed_when_it_is_slow() -> None:
    costs = table()
    for _ in range(200):
        costs.observe(1, 1, 26.0)  # the table says 13
    assert costs.slowdown == pytest.approx(2, abs=0.01)
    costs.observe(9, 1, 1000.0)  # an entry that was never measured
    assert costs.slowdown == pytest.approx(2, abs=0.01)


def test_a_table_that_was_measured_on_a_busy_machine_is_corrected() -> None:
    costs = table()
    for _ in range(200):
        costs.observe(1, 1, 9.1)  # the table says 13
    assert costs.slowdown == pytest.approx(0.7, abs=0.01)
    for _ in range(200):
        costs.observe(1, 1, 1.0)
    assert costs.slowdown == LEAST_SLOWDOWN


@pytest.mark.parametrize("slowdown", [0.5, 1.0, 10.0])
def test_a_slowdown_that_nobody_measures_fades(slowdown: float) -> None:
    costs = Costs(table().table, slowdown)
    costs.rest(1.0)
    assert abs(costs.slowdown - 1) == pytest.approx(abs(slowdown - 1) * math.exp(-1.0 / REST_S))
    costs.rest(100.0)
    assert costs.slowdown == 1


def test_ticks_do_not_drift() -> None:
    tick = 0
    for i in range(1, 100_000):
        tick = next_tick(tick, (i - 1) * PERIOD_S + 1e-4, (i - 1) * PERIOD_S + 0.02, FPS)
        assert tick == i


@pytest.mark.parametrize(
    ("started_ms", "finished_ms", "expected"),
    [
        (0, 20, 1),
        (0, 50, 1),
        (0, 74, 1),
        (0, 76, 2),  # tick 1 is over by more than half
        (24, 40, 1),
        (26, 40, 2),  # tick 1 would follow in less than half a period
        (1010, 1030, 21),
    ],
)
def test_late_ticks_are_skipped(started_ms: float, finished_ms: float, expected: int) -> None:
    assert next_tick(0, started_ms / 1000, finished_ms / 1000, FPS) == expected


@given(
    st.integers(0, 10**6), st.floats(0, 1e5), st.floats(0, 1), st.sampled_from([20.0, 30.0, 60.0])
)
def test_the_next_tick_is_ahead_and_hardly_late(
    tick: int, started_s: float, took_s: float, fps: float
) -> None:
    finished_s = started_s + took_s
    following = next_tick(tick, started_s, finished_s, fps)
    assert following > tick
    assert finished_s * fps - following <= 0.5 + 1e-6
    assert following - started_s * fps >= 0.5 - 1e-6
    if following > tick + 1:
        assert following - max(started_s * fps + 0.5, finished_s * fps - 0.5) < 1


def test_an_empty_table_is_refused() -> None:
    with pytest.raises(ValueError, match="cost table is empty"):
        Costs({})
    assert math.isfinite(table().step_ms(1, 1))
