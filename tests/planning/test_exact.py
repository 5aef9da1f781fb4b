"""The exact optimum against every order tried one by one, and its schedules against the engine."""

from __future__ import annotations

import sys
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import random_schedules, with_shared, without_shared

from simdep.costs import Costs, HostOverheads, StageTimes
from simdep.planning.exact import Optimum, optimum
from simdep.policies import build
from simdep.scenario.imbalance import Ranks, Straggler
from simdep.schedule import Kind, Schedule, Task
from simdep.simulation.engine import simulate_schedule, simulated_makespan_us
from simdep.simulation.longest_path import longest_path_us
from simdep.simulation.rank_costs import RankCosts
from simdep.simulation.rank_work import rank_work


def exactly(task: Task) -> int:
    return task.tokens


def best_of_every_order(schedule: Schedule, costs: Costs) -> float:
    """The least makespan of all orders of all streams: each next task, of all that may be next,
    tried in turn."""
    needs = {task.name: set(task.after) for task in schedule}
    us = {task.name: costs(task) for task in schedule}
    seen: set[object] = set()
    best = float("inf")

    def serve(done: dict[str, float], free: dict[str, float]) -> None:
        nonlocal best
        state = (frozenset(done.items()), tuple(free.values()))
        if state in seen or max(free.values()) >= best:
            return
        seen.add(state)
        if len(done) == len(needs):
            best = max(free.values())
            return
        for name, needed in needs.items():
            if name not in done and needed <= done.keys():
                stream = schedule.stream_of[name]
                end = max([free[stream], *(done[each] for each in needed)]) + us[name]
                serve(done | {name: end}, free | {stream: end})

    serve({}, dict.fromkeys(schedule.streams, 0))
    return best


def agrees(found: Optimum, costs: Costs, scale: float = 0) -> None:
    """The engine runs the schedule to the solver's makespan, which is the lower bound; `scale`
    allows for rounding."""
    assert found.optimal
    assert found.verdict == "optimal"
    ran = simulated_makespan_us(found.schedule, costs)
    assert ran == found.makespan_us == pytest.approx(found.objective_us, rel=scale, abs=0)
    assert found.lower_bound_us == pytest.approx(ran, rel=scale, abs=0)
    assert found.lower_bound_us <= ran


@settings(max_examples=150)
@given(random_schedules())
def test_no_order_of_any_streams_is_better(schedule: Schedule) -> None:
    found = optimum(schedule, exactly)
    agrees(found, exactly)
    assert found.makespan_us == best_of_every_order(schedule, exactly)


@settings(max_examples=100)
@given(st.sampled_from([(1, 1, 2), (1, 2, 1), (2, 1, 2), (2, 2, 1)]), with_shared)
def test_no_order_of_the_four_streams_is_better(
    shape: tuple[int, int, int], times: StageTimes
) -> None:
    schedule = build("findep", *shape)
    assert optimum(schedule, times).makespan_us == best_of_every_order(schedule, times)


@settings(max_examples=2000)
@given(
    st.sampled_from([(layers, r1, r2) for layers in (1, 2) for r1 in (1, 2) for r2 in (1, 2)]),
    with_shared,
)
def test_the_engine_runs_the_optimum_to_the_solvers_makespan(
    shape: tuple[int, int, int], times: StageTimes
) -> None:
    agrees(optimum(build("findep", *shape), times), times)


@settings(max_examples=150)
@given(
    st.sampled_from([(2, 2, 1), (2, 2, 2), (3, 2, 1)]),
    st.lists(st.floats(0, 1e4), min_size=5, max_size=5),
)
def test_times_that_are_no_whole_numbers_lose_less_than_a_billionth(
    shape: tuple[int, int, int], us: list[float]
) -> None:
    times = StageTimes(*us)
    found = optimum(build("findep", *shape), times)
    agrees(found, times, scale=1e-9)
    assert found.rounding_us <= 1e-9 * found.makespan_us


@settings(max_examples=150)
@given(random_schedules(), st.sampled_from([2, 3, 7]))
def test_a_common_unit_of_fractions_loses_nothing(schedule: Schedule, parts: int) -> None:
    def costs(task: Task) -> Fraction:
        return Fraction(task.tokens, parts)

    found = optimum(schedule, costs)  # type: ignore[arg-type]
    assert found.rounding_us == 0
    assert found.makespan_us * parts == optimum(schedule, exactly).makespan_us


@settings(max_examples=2000)
@given(
    st.sampled_from([(1, 2, 1), (2, 2, 1), (1, 2, 2)]),
    without_shared,
    st.sampled_from([(1, 2), (2, 1), (2, 2)]),
    st.sampled_from(["AG", "EG"]),
    st.integers(1, 3),
)
def test_streams_of_ranks_are_ordered_each_on_its_own(
    shape: tuple[int, int, int], times: StageTimes, ranks: tuple[int, int], slow: str, factor: int
) -> None:
    stragglers = (Straggler(slow, 0, factor),)
    work = rank_work(
        build("findep", *shape, shared=False),
        *ranks,
        Ranks(stragglers=stragglers),
        RankCosts.of_stages(times),
    )
    schedule, costs = work.expand()
    found = optimum(schedule, costs)
    agrees(found, costs)
    assert found.makespan_us <= simulate_schedule(schedule, costs).makespan_us
    assert set(found.schedule.streams) == set(schedule.streams)


def test_a_long_schedule_is_proven_optimal() -> None:
    """6 layers, 3 micro-batches in 3 chunks: 198 tasks whose times have no common unit."""
    times = StageTimes(attention=97.3, shared=41.7, a2e=17.9, expert=31.1, e2a=17.9)
    found = optimum(build("findep", 6, 3, 3), times)
    agrees(found, times, scale=1e-9)
    assert found.makespan_us <= min(
        simulated_makespan_us(build("findep", 6, 3, 3, order), times) for order in ("asas", "aass")
    )


def test_it_beats_both_orders_of_findep_where_these_are_not_optimal() -> None:
    times = StageTimes(attention=3, shared=8, a2e=9, expert=7, e2a=1)
    orders = {order: build("findep", 3, 2, 1, order) for order in ("asas", "aass")}
    best = min(longest_path_us(schedule, times) for schedule in orders.values())
    found = optimum(orders["asas"], times)
    assert (found.makespan_us, best) == (73, 75)
    assert found.distance_pct(best) == pytest.approx(100 * (best / found.makespan_us - 1))


def test_what_took_too_long_is_within_a_share_of_the_bound() -> None:
    times = StageTimes(attention=101.3, shared=53.9, a2e=40.7, expert=25.3, e2a=41.9)
    given_one = build("findep", 12, 4, 4)
    found = optimum(given_one, times, time_limit_s=1e-3)
    assert not found.optimal
    assert 0 < found.lower_bound_us <= found.makespan_us <= simulated_makespan_us(given_one, times)
    assert found.verdict == f"within {found.gap_pct:.2g} %"


def test_a_better_start_is_what_it_goes_on_from() -> None:
    times = StageTimes(attention=9, shared=7, a2e=4, expert=2, e2a=4)
    slow, fast = (build("findep", 3, 3, 2, order) for order in ("aass", "asas"))
    better, worse = sorted(longest_path_us(each, times) for each in (slow, fast))
    assert worse > better
    for one, other in ((slow, fast), (fast, slow)):
        assert optimum(one, times, starts=[other], time_limit_s=1e-6).makespan_us <= better
    with pytest.raises(ValueError, match="other tasks"):
        optimum(slow, times, starts=[build("findep", 3, 3, 1)])


def test_tasks_stay_on_their_streams_and_wait_for_the_same_ones() -> None:
    schedule = build("findep", 2, 2, 2)
    found = optimum(schedule, StageTimes(3, 2, 1, 1, 1)).schedule
    assert found.stream_of == schedule.stream_of
    assert {task.name: task.after for task in found} == {task.name: task.after for task in schedule}
    assert found.label == f"optimum of {schedule.label}"


def test_an_empty_schedule_is_optimal() -> None:
    found = optimum(Schedule({"AG": ()}), exactly)
    assert (found.makespan_us, found.lower_bound_us, found.optimal, found.gap_pct) == (
        0,
        0,
        True,
        0,
    )


def test_a_schedule_that_can_never_finish_is_refused() -> None:
    stuck = Schedule(
        {"AG": (Task(Kind.ATTENTION, 0, 0, after=("S[0.0]",)), Task(Kind.SHARED, 0, 0))}
    )
    with pytest.raises(ValueError, match="can never finish"):
        optimum(stuck, exactly)


def test_terms_of_hosts_are_refused() -> None:
    with pytest.raises(ValueError, match="the exact optimum does not model gap_us"):
        optimum(build("naive", 1), exactly, HostOverheads(gap_us=1))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"time_limit_s": 0}, "time_limit_s=0"),
        ({"workers": 0}, "workers=0"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        optimum(build("naive", 1), exactly, **wrong)  # type: ignore[arg-type]


def test_without_or_tools_it_says_how_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ortools.sat.python", None)
    with pytest.raises(ValueError, match=r"pip install 'simdep\[exact\]'"):
        optimum(build("naive", 1), exactly)


def test_the_same_problem_has_the_same_result_in_every_run() -> None:
    times = StageTimes(attention=7, shared=5, a2e=3, expert=4, e2a=3)
    one, other = (optimum(build("findep", 3, 3, 2), times) for _ in range(2))
    assert replace(one, solve_s=0) == replace(other, solve_s=0)
