"""Lower bounds against the best of all orders, and schedules of any kind. Whole numbers, so that <=
is exact."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import findep
from strategies import all_ag_orders, random_schedules, with_shared

from simdep.costs import StageTimes
from simdep.planning.exact import optimum
from simdep.policies import build, parse_order
from simdep.policies.lookahead import order_makespan
from simdep.schedule import Kind, Schedule, Task
from simdep.simulation.batch import batch_makespans
from simdep.simulation.bounds import lower_bound_us, makespan_bounds
from simdep.simulation.closed_form import asas
from simdep.simulation.longest_path import longest_path_us
from simdep.simulation.stage_table import StageTable


def bound(times: StageTimes, layers: int, r1: int, r2: int) -> float:
    return float(makespan_bounds(StageTable.of([times], [r2]), layers, r1)[0])


def random_times(random: Random, most: int = 20) -> StageTimes:
    return StageTimes(*(random.randint(0, most) for _ in range(5)))


@cache
def whole_orders(layers: int, r1: int) -> tuple[tuple[tuple[Kind, int, int], ...], ...]:
    """Every order of the AG's whole stream, shared experts anywhere; equal micro-batches begin in
    turn."""
    found = []

    def grow(
        done: tuple[tuple[Kind, int, int], ...], begun: tuple[int, ...], pending: frozenset[int]
    ) -> None:
        if len(done) == 2 * layers * r1:
            found.append(done)
        for mb in range(r1):
            if mb in pending:
                grow((*done, (Kind.SHARED, begun[mb] - 1, mb)), begun, pending - {mb})
            elif begun[mb] < layers and (begun[mb] or not mb or begun[mb - 1]):
                more = (*begun[:mb], begun[mb] + 1, *begun[mb + 1 :])
                grow((*done, (Kind.ATTENTION, begun[mb], mb)), more, pending | {mb})

    grow((), (0,) * r1, frozenset())
    return tuple(found)


def best_of_all_orders(times: StageTimes, layers: int, r1: int, r2: int) -> float:
    """The least makespan over all orders of the AG, others in the order of attention."""
    stages = StageTable.of([times], [r2])
    return min(order_makespan(stages, sequence, r1) for sequence in whole_orders(layers, r1))


def test_a_bound_never_exceeds_the_best_of_all_orders_of_the_ag() -> None:
    """And it is that makespan in most of 400 cases."""
    random = Random(0)
    tight = 0
    for _ in range(400):
        layers, r1 = random.choice([(1, 2), (1, 3), (2, 1), (2, 2), (3, 1), (3, 2)])
        times, r2 = random_times(random), random.randint(1, 3)
        least, optimum = bound(times, layers, r1, r2), best_of_all_orders(times, layers, r1, r2)
        assert least <= optimum, (times, layers, r1, r2)
        tight += least == optimum
    assert tight > 360


@pytest.mark.parametrize(
    ("times", "layers", "r1", "r2", "optimum"),
    [
        # G of two layers, then E2A in the last one
        (StageTimes(attention=12, expert=6, a2e=12, e2a=12, shared=11), 3, 1, 2, 162),
        # E2A, after the first attention and the shortest A2E and E
        (StageTimes(attention=8, expert=4, a2e=7, e2a=9, shared=2), 1, 2, 2, 55),
        # EG of both layers, after the first attention and A2E and before the last E2A
        (StageTimes(attention=1, expert=9, a2e=7, e2a=6, shared=7), 2, 2, 2, 86),
        # A2E of both layers, and the shortest E and E2A
        (StageTimes(attention=3, expert=3, a2e=5, e2a=2, shared=6), 2, 2, 2, 48),
        # A2E of the last layer, after G of the first
        (StageTimes(attention=10, expert=11, a2e=12, e2a=6, shared=2), 2, 2, 1, 90),
        # AG, all shared experts among it
        (StageTimes(attention=3, expert=1, a2e=1, e2a=4, shared=4), 1, 3, 1, 21),
        # AG but for its shared experts, then the way of the last micro-batch
        (StageTimes(attention=12, expert=3, a2e=1, e2a=5, shared=1), 1, 3, 2, 50),
    ],
)
def test_each_bound_is_the_best_of_all_orders_somewhere(
    times: StageTimes, layers: int, r1: int, r2: int, optimum: float
) -> None:
    assert best_of_all_orders(times, layers, r1, r2) == optimum
    assert bound(times, layers, r1, r2) == optimum
    assert lower_bound_us(findep(layers, r1, r2), times) == optimum


def test_the_bound_of_a_stream_counts_what_comes_before_and_after_it() -> None:
    """Two tasks of 5 us, each after one of 2 us and before one of 1 us on streams of their own."""
    first, last = Task(Kind.ATTENTION, 0, 0, tokens=2), Task(Kind.ATTENTION, 0, 1, tokens=2)
    works = [Task(Kind.SHARED, 0, mb, tokens=5, after=(f"A[0.{mb}]",)) for mb in (0, 1)]
    ends = [Task(Kind.CORE, 0, mb, tokens=1, after=(f"S[0.{mb}]",)) for mb in (0, 1)]
    schedule = Schedule(
        {"P": (first,), "Q": (last,), "X": tuple(works), "R": (ends[0],), "S": (ends[1],)}
    )
    assert lower_bound_us(schedule, exactly) == 2 + 5 + 5 + 1 == longest_path_us(schedule, exactly)


def test_the_bound_of_a_chain_is_its_length() -> None:
    """Three tasks that wait for each other, on streams of their own."""
    schedule = Schedule(
        {
            "X": (Task(Kind.ATTENTION, 0, 0, tokens=3),),
            "Y": (Task(Kind.SHARED, 0, 0, tokens=4, after=("A[0.0]",)),),
            "Z": (Task(Kind.ATTENTION, 1, 0, tokens=5, after=("S[0.0]",)),),
        }
    )
    assert lower_bound_us(schedule, exactly) == 3 + 4 + 5


def test_the_bound_of_an_empty_schedule_is_0() -> None:
    assert lower_bound_us(Schedule({}), exactly) == 0


def test_a_bound_never_exceeds_a_schedule_that_executes_every_stream_in_an_order_of_its_own() -> (
    None
):
    """Orders of A2E, EG and E2A that differ from that of attention, drawn as random list
    schedules."""
    random = Random(1)
    for _ in range(300):
        layers, r1, r2 = random.randint(1, 3), random.randint(1, 3), random.randint(1, 3)
        times = random_times(random)
        schedule = shuffled(findep(layers, r1, r2, "asas"), random)
        assert bound(times, layers, r1, r2) <= longest_path_us(schedule, times)


def shuffled(schedule: Schedule, random: Random) -> Schedule:
    """The same tasks, each stream in the order of a random topological sort of what waits for
    what."""
    left: dict[str, Task] = {task.name: task for task in schedule}
    order: list[Task] = []
    while left:
        ready = [task for task in left.values() if not any(needed in left for needed in task.after)]
        order.append(left.pop(random.choice(ready).name))
    streams = {
        name: tuple(t for t in order if schedule.stream_of[t.name] == name)
        for name in schedule.streams
    }
    return Schedule(streams, "shuffled")


def test_a_bound_never_exceeds_any_order_of_a_layer() -> None:
    random = Random(2)
    for _ in range(300):
        layers, r1, r2 = random.randint(1, 8), random.randint(1, 3), random.randint(1, 4)
        times = random_times(random)
        batch = StageTable.of([times], [r2])
        least = bound(times, layers, r1, r2)
        assert all(
            least <= batch_makespans(batch, layers, parse_order(each, r1))[0]
            for each in all_ag_orders(r1)[:12]
        )


def test_a_bound_of_layers_and_chunks_that_differ_never_exceeds_asas_or_aass() -> None:
    rng = np.random.default_rng(3)
    n, layers, r1 = 2000, 5, 3
    counts = rng.integers(0, 3, (2, n)).astype(float)
    counts[0] += counts.sum(axis=0) == 0
    stages = rng.integers(0, 20, (3, 2, n)).astype(float)
    batch = StageTable(
        rng.integers(0, 20, (layers, n)).astype(float),
        rng.integers(0, 20, n).astype(float),
        counts,
        *stages,
    )
    least = makespan_bounds(batch, layers, r1)
    for order in ("asas", "aass"):
        assert (least <= batch_makespans(batch, layers, parse_order(order, r1))).all()


def test_a_bound_is_the_makespan_where_attention_alone_is_the_bottleneck() -> None:
    times = StageTimes(attention=10, shared=4, expert=1, a2e=1, e2a=1)
    assert (
        bound(times, 6, 3, 2)
        == batch_makespans(StageTable.of([times], [2]), 6, parse_order("aass", 3))[0]
    )


def test_a_bound_of_one_micro_batch_is_that_of_its_chain() -> None:
    times = StageTimes(attention=5, shared=3, expert=4, a2e=2, e2a=2)
    assert bound(times, 7, 1, 3) == asas(times, 7, 1, 3) == 7 * (5 + 2 + 2 + 3 * 4)


def exactly(task: Task) -> int:
    return task.tokens


@settings(max_examples=150)
@given(random_schedules())
def test_no_order_of_any_streams_is_below_the_bound(schedule: Schedule) -> None:
    assert lower_bound_us(schedule, exactly) <= optimum(schedule, exactly).makespan_us


@settings(max_examples=100)
@given(st.sampled_from([(1, 2, 2), (2, 2, 1), (2, 2, 2), (2, 1, 3)]), with_shared)
def test_no_order_of_the_four_streams_is_below_the_bound(
    shape: tuple[int, int, int], times: StageTimes
) -> None:
    schedule = build("findep", *shape)
    assert lower_bound_us(schedule, times) <= optimum(schedule, times).makespan_us


def test_the_bound_of_a_busy_ag_is_its_work_and_what_follows() -> None:
    times = StageTimes(attention=10, shared=5, a2e=1, expert=1, e2a=1)
    schedule = build("findep", 4, 3, 1)
    assert lower_bound_us(schedule, times) == 4 * 3 * 15 == longest_path_us(schedule, times)


def test_a_schedule_that_does_not_wait_for_its_data_has_no_bound_of_micro_batches() -> None:
    """Without dependencies, all streams begin at 0 and none is idle."""
    schedule, times = build("findep", 2, 2, 2), StageTimes(3, 8, a2e=9, e2a=1, shared=7)
    streams = {
        stream: tuple(replace(task, after=()) for task in tasks)
        for stream, tasks in schedule.streams.items()
    }
    free = Schedule(streams)
    assert lower_bound_us(free, times) == longest_path_us(free, times) == 2 * 2 * 2 * 9
    assert lower_bound_us(schedule, times) > 2 * 2 * 2 * 9
