"""The engine against a longest path of our own, and its behaviour at the edges. Integers, so that
== holds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from itertools import product
from random import Random

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import SUPPORT
from schedules import findep, naive
from strategies import all_ag_orders, layers, policy_schedules, random_schedules, with_shared

from simdep.costs import StageTimes
from simdep.schedule import Kind, Schedule, Task
from simdep.simulation.engine import simulate_schedule, simulated_makespan_us
from simdep.simulation.longest_path import longest_path_us
from simdep.timeline import Timeline

Spans = dict[str, tuple[float, float]]  # task name -> start and end
thorough = settings(max_examples=1000, deadline=None, derandomize=True)  # three such tests


def spans(timeline: Timeline) -> Spans:
    rows = timeline.rows
    return dict(zip(rows["task"], zip(rows["start_us"], rows["end_us"], strict=True), strict=True))


def longest_path(schedule: Schedule, cost: Callable[[Task], float]) -> Spans:
    """Start and end of every task by recursion over the dependencies and the task before it in its
    stream."""
    tasks: dict[str, Task] = {}
    before: dict[str, list[str]] = {}
    for served in schedule.streams.values():
        for position, task in enumerate(served):
            tasks[task.name] = task
            before[task.name] = [*task.after, *([served[position - 1].name] if position else [])]

    @cache
    def end(name: str) -> float:
        return start(name) + cost(tasks[name])

    @cache
    def start(name: str) -> float:
        return max(map(end, before[name]), default=0)

    return {name: (start(name), end(name)) for name in tasks}


def attention(mb: int, *after: str) -> Task:
    return Task(Kind.ATTENTION, 0, mb, after=after)


# Equal to the longest path


orders = [(r1, order) for r1 in (1, 2, 3) for order in all_ag_orders(r1)]


@thorough
@given(st.sampled_from(orders), layers, st.integers(1, 2), with_shared)
def test_findep_in_any_order_takes_its_longest_path(
    ordered: tuple[int, str], T: int, r2: int, times: StageTimes
) -> None:
    """Every task starts and ends where the longest path through dependencies and streams says, for
    any AG order."""
    r1, order = ordered
    schedule = findep(T, r1, r2, order)
    assert spans(simulate_schedule(schedule, times)) == longest_path(schedule, times)


@thorough
@given(random_schedules())
def test_a_random_schedule_takes_its_longest_path(schedule: Schedule) -> None:
    """The same for tasks of any length spread at random over streams, with random dependencies."""

    def cost(task: Task) -> int:
        return task.tokens - 1  # 0 to 29

    assert spans(simulate_schedule(schedule, cost)) == longest_path(schedule, cost)


@thorough
@given(st.sampled_from(list(product((1, 2), repeat=3))), with_shared, st.integers(0, 2**32))
def test_tasks_issued_in_any_feasible_order_take_their_longest_path(
    shape: tuple[int, int, int], times: StageTimes, seed: int
) -> None:
    """The same for FinDEP's tasks issued by every stream in any order that respects the
    dependencies."""
    schedule = reissued(findep(*shape), Random(seed))
    assert spans(simulate_schedule(schedule, times)) == longest_path(schedule, times)


def reissued(schedule: Schedule, random: Random) -> Schedule:
    """The same tasks on the same streams, each stream in the order of one random way to run them
    one by one."""
    waiting, ended = list(schedule), set[str]()
    streams: dict[str, list[Task]] = {stream: [] for stream in schedule.streams}
    while waiting:
        task = random.choice([task for task in waiting if ended.issuperset(task.after)])
        streams[schedule.stream_of[task.name]].append(task)
        waiting.remove(task)
        ended.add(task.name)
    return Schedule({stream: tuple(tasks) for stream, tasks in streams.items()})


@settings(max_examples=100)
@given(policy_schedules(), with_shared)
def test_a_policy_with_unequal_chunks_takes_its_longest_path(
    schedule: Schedule, times: StageTimes
) -> None:
    """The same for every policy when the time of a task grows with its tokens."""

    def cost(task: Task) -> float:
        return times(task) + 3 * task.tokens

    assert spans(simulate_schedule(schedule, cost)) == longest_path(schedule, cost)


# The rule, one fact at a time


def run(schedule: Schedule, **costs: int) -> Spans:
    """Spans with a cost for each task, written A0=5 for A[0.0]."""
    return spans(simulate_schedule(schedule, lambda task: costs[f"{task.kind.value}{task.mb}"]))


def test_a_stream_is_a_fifo() -> None:
    schedule = Schedule({"X": (attention(1), attention(0))})
    assert run(schedule, A0=3, A1=5) == {"A[0.1]": (0, 5), "A[0.0]": (5, 8)}


def test_streams_run_side_by_side() -> None:
    schedule = Schedule({"X": (attention(0),), "Y": (attention(1),)})
    assert run(schedule, A0=3, A1=5) == {"A[0.0]": (0, 3), "A[0.1]": (0, 5)}


def test_a_task_waits_for_everything_it_names() -> None:
    schedule = Schedule(
        {"X": (attention(0),), "Y": (attention(1),), "Z": (attention(2, "A[0.0]", "A[0.1]"),)}
    )
    assert run(schedule, A0=3, A1=5, A2=1)["A[0.2]"] == (5, 6)


def test_a_waiting_task_holds_up_those_behind_it_in_its_stream() -> None:
    schedule = Schedule({"X": (attention(0, "A[0.2]"), attention(1)), "Y": (attention(2),)})
    assert run(schedule, A0=1, A1=1, A2=7) == {"A[0.2]": (0, 7), "A[0.0]": (7, 8), "A[0.1]": (8, 9)}


def test_a_task_may_wait_for_one_in_a_stream_that_comes_later() -> None:
    schedule = Schedule(
        {"X": (attention(0, "A[0.1]"),), "Y": (attention(1, "A[0.2]"),), "Z": (attention(2),)}
    )
    assert run(schedule, A0=1, A1=2, A2=3) == {"A[0.2]": (0, 3), "A[0.1]": (3, 5), "A[0.0]": (5, 6)}


def test_tasks_that_take_no_time_run_in_order_at_one_instant() -> None:
    timeline = simulate_schedule(naive(2), lambda task: 0)
    assert set(spans(timeline).values()) == {(0, 0)}
    assert list(timeline.rows.task) == [task.name for task in naive(2).in_order]


def test_naive_runs_one_task_at_a_time() -> None:
    timeline = simulate_schedule(
        naive(2), StageTimes(attention=7, shared=2, a2e=3, expert=5, e2a=4)
    )
    assert timeline.makespan_us == 2 * (7 + 2 + 3 + 5 + 4)


def test_whole_costs_give_whole_times() -> None:
    timeline = simulate_schedule(
        findep(2, 2, 2), StageTimes(attention=7, shared=2, a2e=3, expert=5, e2a=4)
    )
    assert type(timeline.makespan_us) is int
    assert str(timeline.rows.end_us.dtype) == "int64"


def test_an_empty_stream_holds_up_nothing() -> None:
    assert run(Schedule({"X": (), "Y": (attention(0),)}), A0=4) == {"A[0.0]": (0, 4)}


def test_an_empty_schedule_takes_no_time() -> None:
    empty = Schedule({"X": ()})
    assert simulate_schedule(empty, lambda task: 1).makespan_us == 0
    assert (
        simulated_makespan_us(empty, lambda task: 1) == longest_path_us(empty, lambda task: 1) == 0
    )


# The same input, the same timeline


@settings(max_examples=100)
@given(policy_schedules(), with_shared)
def test_two_runs_give_the_same_table(schedule: Schedule, times: StageTimes) -> None:
    """Same rows in the same order, ties included."""
    pd.testing.assert_frame_equal(
        simulate_schedule(schedule, times).rows,
        simulate_schedule(schedule, times).rows,
        check_exact=True,
    )


PRINT_TABLE = """
from simdep.costs import StageTimes
from simdep.simulation.engine import simulate_schedule
from schedules import findep
print(simulate_schedule(findep(2, 3, 2, "aass"), StageTimes(2, 2, 1, 1, 2)).rows.to_csv())
"""


def test_the_table_does_not_depend_on_the_hash_seed_of_the_process() -> None:
    tables = [
        subprocess.run(
            [sys.executable, "-c", PRINT_TABLE],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(SUPPORT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert tables[0] == tables[1]
    assert len(tables[0].splitlines()) > len(findep(2, 3, 2))


def test_a_run_leaves_the_schedule_as_it_was() -> None:
    schedule = findep(2, 2, 2)
    simulate_schedule(schedule, StageTimes(1, 1, 1, 1, 1))
    assert schedule == findep(2, 2, 2)


# Runs that can't go on


def test_a_deadlock_names_what_every_stuck_stream_waits_for() -> None:
    schedule = Schedule(
        {
            "AG": (attention(0), attention(1, "E[0.0.0]"), Task(Kind.SHARED, 0, 0)),
            "A2E": (Task(Kind.A2E, 0, 0, 0, after=("S[0.0]",)),),
            "EG": (Task(Kind.EXPERT, 0, 0, 0, after=("A[0.0]", "A2E[0.0.0]")),),
            "E2A": (Task(Kind.E2A, 0, 0, 0, after=("A[0.0]",)),),
        }
    )
    with pytest.raises(RuntimeError) as error:
        simulate_schedule(schedule, StageTimes(attention=5, shared=1, a2e=1, expert=1, e2a=7))
    waits = (
        "A2E waits at A2E[0.0.0] for S[0.0]; EG waits at E[0.0.0] for A2E[0.0.0]; AG waits "
        "at A[0.1] for E[0.0.0]"
    )
    assert str(error.value) == f"schedule is stuck at 12 us: {waits}"


def test_a_task_behind_the_one_that_it_waits_for_is_a_deadlock() -> None:
    schedule = Schedule({"AG": (Task(Kind.SHARED, 0, 0, after=("A[0.0]",)), attention(0))})
    with pytest.raises(RuntimeError) as error:
        simulate_schedule(schedule, StageTimes(1, 1, 1, 1, 1))
    assert str(error.value) == "schedule is stuck at 0 us: AG waits at S[0.0] for A[0.0]"


@settings(max_examples=500)
@given(random_schedules(can_finish=False))
def test_a_schedule_gets_stuck_just_where_it_has_a_circle(schedule: Schedule) -> None:
    """simulate raises RuntimeError if, and only if, in_order raises ValueError."""
    try:
        _ = schedule.in_order
    except ValueError:
        with pytest.raises(RuntimeError, match=r"^schedule is stuck at "):
            simulate_schedule(schedule, lambda task: 1)
    else:
        assert len(simulate_schedule(schedule, lambda task: 1).rows) == len(schedule)


@pytest.mark.parametrize("cost", [-1, -1e-9, float("nan"), float("inf")])
def test_a_cost_that_is_negative_or_not_finite_is_refused_by_its_task(cost: float) -> None:
    with pytest.raises(ValueError) as error:
        simulate_schedule(naive(1), lambda task: cost if task.kind is Kind.EXPERT else 1)
    assert str(error.value) == f"E[0.0.0]: cost {cost} us; expected a finite number >= 0"
