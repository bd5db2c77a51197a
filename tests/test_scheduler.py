from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reverie.core import Deadline
from reverie.scheduler import (
    BATCH_GAIN,
    DWELL_S,
    GUARD,
    HYSTERESIS,
    LEAST_SLOWDOWN,
    LONGEST_DWELL_S,
    WINDOW,
    Costs,
    Demand,
    Ladder,
    Plan,
    Rung,
    Task,
    capacity,
    granted,
    has_room,
    load,
    next_tick,
    rungs,
    schedule,
    spend,
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


def demands(*steps: int) -> list[Demand]:
    return [Demand(k) for k in steps]


def test_a_replay_is_late_rather_than_different() -> None:
    late = Task(Deadline(0.05, "a"), 0.0, 4, exact=True)
    mate = Task(Deadline(0.06, "b"), 0.0, 4)
    assert schedule([late, mate], 0.04, table()) == Plan(("a",), 4)


@given(costs_strategy, st.integers(1, 24), st.sampled_from([1, 2, 4]))
def test_batches_are_split_as_well_as_can_be(costs: Costs, count: int, num_steps: int) -> None:
    """Against every way there is to split them, one by one."""
    least = [0.0]
    for n in range(1, count + 1):
        sizes = range(1, min(n, costs.max_batch) + 1)
        least.append(min(costs.frame_ms(b, num_steps) + least[n - b] for b in sizes))
    assert least[count] - 1e-9 <= costs.period_ms({num_steps: count})
    assert costs.period_ms({num_steps: count}) <= least[count] * (1 + BATCH_GAIN) + 1e-9
    drawn, left = 0.0, count
    while left:
        size = costs.batch(left, num_steps, math.inf)
        drawn, left = drawn + costs.frame_ms(size, num_steps), left - size
    assert drawn == pytest.approx(costs.period_ms({num_steps: count}))


def test_capacity_counts_the_commit_and_leaves_the_guard_band() -> None:
    # 21 ms a frame: two make 42 of 45 ms that may be promised, three do not fit.
    assert capacity(FPS, table(), 8) == 2
    assert capacity(FPS, table(8, 7), 8) == 1  # 46 of 45 ms
    assert capacity(FPS, table(0.1, 0.1), 8) == 8
    assert capacity(FPS, table(200, 5), 8) == 1  # too slow, but one may always play


def test_pictures_must_be_there_nearly_always_and_commits_mostly() -> None:
    costs = table()  # 13 ms a picture, 8 its commit
    assert costs.period_ms({1: 2}) == pytest.approx(2 * 21)
    costs.slowdown, costs.usual = 1.7, 1.05
    assert costs.period_ms({1: 2}) == pytest.approx(2 * 13 * 1.7)  # a commit may run over, at times
    costs.usual = 1.5
    assert costs.period_ms({1: 2}) == pytest.approx(2 * 21 * 1.5)
    assert costs.period_ms({1: 1, 2: 1}) == pytest.approx((21 + 29) * 1.5)


def test_of_many_who_come_at_once_no_more_are_new_than_are_not() -> None:
    costs, known, new = table(3, 2), Demand(1), Demand(1, is_new=True)  # 8 ms a frame
    assert capacity(FPS, costs, 8) == 5

    def may_come(*holders: Demand) -> bool:
        return has_room(holders, new, FPS, costs)

    assert may_come()
    assert may_come(new)  # 16 ms, and 32 on a machine that is twice as slow
    assert not may_come(new, new)
    assert may_come(known, known)
    assert may_come(known, known, new)
    assert not may_come(known, known, new, new)
    assert may_come(known, known, known, known)
    assert not may_come(*[known] * 5)


@given(costs_strategy, st.integers(1, 8))
def test_capacity_is_as_many_as_are_admitted(costs: Costs, num_slots: int) -> None:
    admitted: list[Demand] = []
    while len(admitted) < num_slots and has_room(admitted, Demand(4), FPS, costs):
        admitted.append(Demand(4, idle=True))
    assert len(admitted) == capacity(FPS, costs, num_slots)


def test_idle_sessions_share_the_ticks() -> None:
    costs = table()  # 21 ms a frame
    idle = [Demand(1, idle=True, offset=i) for i in range(4)]
    assert load(idle, Rung(1, 2), FPS, costs) == pytest.approx(2 * 21 / 50)
    assert load(idle, Rung(1, 4), FPS, costs) == pytest.approx(21 / 50)
    alike = [demand._replace(offset=0) for demand in idle]
    assert load(alike, Rung(1, 4), FPS, costs) == pytest.approx(4 * 21 / 50)


def test_the_ladder_goes_down_at_once_and_up_with_room() -> None:
    costs, ladder = table(6, 5), Ladder()  # a frame takes 17, 23, 35 ms
    assert rungs(costs) == [Rung(4, 2), Rung(2, 2), Rung(1, 2), Rung(1, 4)]
    assert ladder.update(demands(4), 0.0, FPS, costs) == Rung(4, 2)
    assert ladder.update(demands(4, 4), 0.0, FPS, costs) == Rung(1, 2)  # two of 23 are 46 ms
    assert ladder.update(demands(4), 1.0, FPS, costs) == Rung(1, 2)
    assert ladder.update(demands(4), 1.0 + DWELL_S, FPS, costs) == Rung(2, 2)
    costs.slowdown = costs.usual = 1.25  # 43.75 of 45 ms: would stay, but is not begun
    for later_s in range(10, 100):
        assert ladder.update(demands(4), later_s, FPS, costs) == Rung(2, 2)


def test_the_last_rung_is_that_idle_sessions_wait_longer() -> None:
    costs, ladder = table(), Ladder()  # 21 ms a frame
    both = [Demand(1), Demand(1, idle=True), Demand(1, idle=True, offset=1)]
    assert ladder.update(both, 0.0, FPS, costs).idle_every == 2
    both += [Demand(1, idle=True, offset=i) for i in (2, 3)]
    assert ladder.update(both, 0.1, FPS, costs) == Rung(1, 4)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0.6, 2.0), min_size=1, max_size=7), st.floats(0.1, 8))
def test_the_ladder_never_oscillates(loads: list[float], each_s: float) -> None:
    """A load that swings for ten minutes: what goes up more often than a few times stays up."""
    costs, ladder, rises, falls = table(6, 5), Ladder(), [], []
    for i in range(int(600 / 0.2)):
        now_s, level = i * 0.2, ladder.level
        costs.slowdown = costs.usual = loads[int(now_s / each_s) % len(loads)]
        ladder.update(demands(4), now_s, FPS, costs)
        (rises if ladder.level < level else falls if ladder.level > level else []).append(now_s)
    # Tries are 2, 4, 8 ... 64 s apart while none of them lasts for LONGEST_DWELL_S.
    assert len(rises) <= math.log2(LONGEST_DWELL_S) + len(rungs(costs)) * 600 / LONGEST_DWELL_S
    if len(set(loads)) == 1:
        assert not rises


@given(
    st.lists(st.tuples(st.sampled_from([1, 2, 4]), st.booleans(), st.booleans()), max_size=8),
    costs_strategy,
    st.randoms(use_true_random=False),
)
def test_spare_time_is_spent_where_the_picture_changes_most(
    asked: list[tuple[int, bool, bool]], costs: Costs, random: Random
) -> None:
    sessions = [Demand(k, exact, idle, i) for i, (k, exact, idle) in enumerate(asked)]
    changes = [random.random() for _ in sessions]
    rung = Rung(1, 2)
    given = [granted(demand, rung, costs) for demand in sessions]
    steps = spend(sessions, changes, given, rung, FPS, costs)
    for demand, before, after in zip(sessions, given, steps, strict=True):
        assert before <= after <= max(before, demand.num_steps)
        assert after == before or not (demand.exact or demand.idle)
    if steps != given:
        busy = [Demand(k, exact=True) for k in steps]
        assert load(busy, rung, FPS, costs) <= 1 - GUARD - HYSTERESIS
    alike = [i for i, d in enumerate(sessions) if d.num_steps > 1 and not (d.exact or d.idle)]
    alike.sort(key=lambda i: -changes[i])
    raised = [steps[i] > given[i] for i in alike]
    assert raised == sorted(raised, reverse=True)  # nobody is passed over for a calmer picture
    assert spend(sessions, changes, steps, rung, FPS, costs) == steps


def test_nobody_gets_more_steps_than_asked_for() -> None:
    assert granted(Demand(1), Rung(4, 2), table()) == 1
    assert granted(Demand(4), Rung(2, 2), table()) == 2
    assert granted(Demand(4, exact=True), Rung(1, 2), table()) == 4


def run_periods(costs: Costs, factor: float, count: int, since_s: float = 0.0) -> None:
    for i in range(count):
        costs.observe(1, 1, 13.0 * factor)  # the table says 13
        costs.end_period(since_s + i * PERIOD_S)


def test_the_machine_is_believed_when_it_is_slow() -> None:
    costs = table()
    run_periods(costs, 1.0, 100)
    run_periods(costs, 9.0, 3, 5.0)
    assert costs.slowdown == 1.0  # three stalls are no slow machine
    assert costs.usual == 1.0
    run_periods(costs, 2.0, 1, 5.2)
    assert costs.slowdown == pytest.approx(2)
    run_periods(costs, 2.0, 4, 5.3)
    assert costs.usual == pytest.approx(2)  # five of the last nine, and three stalls
    run_periods(costs, 1.0, 9, 5.6)
    assert costs.usual == 1.0  # eight of 121 are not one of ten
    run_periods(costs, 1.5, 20, 6.1)
    run_periods(costs, 1.0, 9, 7.2)
    assert costs.usual == pytest.approx(1.5)
    costs.observe(9, 1, 1000.0)  # an entry that was never measured
    costs.end_period(6.0)
    assert costs.slowdown == pytest.approx(2)
    costs.end_period(30.0)  # nobody plays, and what was is long ago
    assert costs.slowdown == costs.usual == 1.0


def test_a_machine_that_is_met_for_the_first_time_may_stall_three_times() -> None:
    costs = table()
    run_periods(costs, 3.0, 3)
    assert costs.slowdown == costs.usual == 1.0
    run_periods(costs, 3.0, 1, 0.2)
    assert costs.slowdown == costs.usual == pytest.approx(3)


def test_what_is_done_while_nobody_plays_counts_for_nothing() -> None:
    costs = table()
    for i in range(30):
        costs.occupy(40.0)  # a paused session is saved, again and again
        costs.end_period(i * PERIOD_S)
    run_periods(costs, 1.0, 1, 2.0)
    assert costs.usual == 1.0


def test_what_the_engine_does_besides_counts() -> None:
    costs = table()
    for i in range(WINDOW):
        costs.observe(1, 1, 13.0)
        costs.observe(1, 0, 8.0)
        costs.occupy(21.0 + 4.2)  # pictures are sent, moments are kept
        costs.end_period(i * PERIOD_S)
    assert costs.slowdown == pytest.approx(1)
    assert costs.usual == pytest.approx(1.2)
    assert costs.period_ms({1: 1}) == pytest.approx(25.2)


def test_a_table_that_was_measured_on_a_busy_machine_is_corrected() -> None:
    costs = table()
    run_periods(costs, 0.7, WINDOW)
    assert costs.slowdown == pytest.approx(0.7) == costs.usual
    run_periods(costs, 0.1, WINDOW, 100.0)
    assert costs.slowdown == costs.usual == LEAST_SLOWDOWN


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
        (40, 49, 1),  # in time, however late in its tick it was drawn
        (26, 51, 2),  # tick 1 would follow in less than half a period
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
    if finished_s * fps > tick + 1:
        assert following - started_s * fps >= 0.5 - 1e-6
    if following > tick + 1:
        assert following - max(started_s * fps + 0.5, finished_s * fps - 0.5) < 1


def test_an_empty_table_is_refused() -> None:
    with pytest.raises(ValueError, match="cost table is empty"):
        Costs({})
    assert math.isfinite(table().step_ms(1, 1))
