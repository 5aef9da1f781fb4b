"""The fast path against the engine, the recurrence and the closed forms. Whole numbers, so that ==
holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import numpy as np
import pytest
from schedules import dep_streams, findep, pppipe
from strategies import all_ag_orders

from simdep.costs import Costs, HostOverheads, StageTimes
from simdep.policies import in_every_layer, parse_order
from simdep.schedule import Kind, Schedule, Task
from simdep.simulation.batch import CACHED_CONFIGURATIONS, batch_makespans
from simdep.simulation.closed_form import asas, pingpong
from simdep.simulation.engine import simulate_schedule
from simdep.simulation.longest_path import longest_path_us
from simdep.simulation.stage_table import StageTable

Draw = Callable[[], float]
ORDERS = {r1: ["asas", "aass", *all_ag_orders(r1)] for r1 in (1, 2, 3)}
STAGES = (Kind.A2E, Kind.EXPERT, Kind.E2A)


def random_times(random: Random, most: int = 12) -> StageTimes:
    return StageTimes(*(random.randint(0, most) for _ in range(5)))


def random_order(random: Random, r1: int) -> str:
    """Any order of a layer, however many micro-batches."""
    if r1 <= 3:
        return random.choice(ORDERS[r1])
    waiting: list[int] = []
    left, steps = random.sample(range(r1), r1), []
    while left or waiting:
        if left and (not waiting or random.random() < 0.5):
            waiting.append(left.pop())
            steps.append(f"A{waiting[-1]}")
        else:
            steps.append(f"S{waiting.pop(random.randrange(len(waiting)))}")
    return " ".join(steps)


class Cut:
    """One micro-batch in runs of equal chunks: times of attention by layer, of shared experts, of a
    chunk by its run.

    The tokens of a chunk name its run: 1 of the first, 2 of the second.
    """

    def __init__(self, draw: Draw, layers: int, counts: Sequence[int]) -> None:
        self.attention = [draw() for _ in range(layers)]
        self.shared = draw()
        self.counts = counts
        self.runs = [[draw() for _ in counts] for _ in STAGES]

    @property
    def batch(self) -> StageTable:
        counts, *stages = (np.array(each, float)[:, None] for each in (self.counts, *self.runs))
        return StageTable(
            np.array(self.attention, float)[:, None],
            np.array([self.shared], float),
            counts,
            *stages,
        )

    @property
    def costs(self) -> Costs:
        def us(task: Task) -> float:
            if task.kind is Kind.ATTENTION:
                return self.attention[task.layer]
            return (
                self.shared
                if task.kind is Kind.SHARED
                else self.runs[STAGES.index(task.kind)][task.tokens - 1]
            )

        return us

    def schedule(self, order: str, r1: int, *, wait_for_shared: bool = False) -> Schedule:
        chunks = tuple(run + 1 for run, n in enumerate(self.counts) for _ in range(n))
        layers = len(self.attention)
        sequence = in_every_layer(parse_order(order, r1), layers)
        return dep_streams(
            "cut",
            sequence,
            (chunks,) * r1,
            layers=layers,
            shared=True,
            wait_for_shared=wait_for_shared,
        )


# One cut at a time, exactly


def test_any_order_of_equal_chunks_takes_as_long_as_by_the_recurrence() -> None:
    """makespans == recurrence in 2,000 cases of whole numbers: ASAS, AASS, free orders, with ties
    and zeros."""
    random = Random(0)
    for _ in range(2000):
        layers, r1, r2 = random.randint(1, 6), random.randint(1, 4), random.randint(1, 4)
        times, order = random_times(random), random_order(random, r1)
        found = batch_makespans(StageTable.of([times], [r2]), layers, parse_order(order, r1))
        assert found == longest_path_us(findep(layers, r1, r2, order), times), (
            times,
            layers,
            r1,
            r2,
            order,
        )


def test_chunks_and_layers_that_differ_take_as_long_as_by_the_recurrence() -> None:
    """The same with attention of its own in every layer, two runs of chunks, either of them maybe
    empty."""
    random = Random(1)
    for _ in range(2000):
        counts = random.choice([(1, 1), (2, 1), (1, 3), (2, 2), (0, 2), (3, 0)])
        cut = Cut(lambda: random.randint(0, 12), random.randint(1, 5), counts)
        r1 = random.randint(1, 3)
        order, waits = random.choice(ORDERS[r1]), random.random() < 0.2
        found = batch_makespans(
            cut.batch, len(cut.attention), parse_order(order, r1), wait_for_shared=waits
        )
        schedule = cut.schedule(order, r1, wait_for_shared=waits)
        assert found == longest_path_us(schedule, cut.costs), (vars(cut), r1, order, waits)


def test_a_few_hundred_cuts_take_as_long_as_in_the_engine() -> None:
    """Within 1e-9 of `simulate` for times that are no whole numbers."""
    random = Random(2)
    for _ in range(300):
        cut = Cut(
            lambda: random.uniform(0, 20),
            random.randint(1, 6),
            random.choice([(3,), (2, 1), (1, 3)]),
        )
        r1 = random.randint(1, 4)
        order = random_order(random, r1)
        found = float(batch_makespans(cut.batch, len(cut.attention), parse_order(order, r1))[0])
        assert found == pytest.approx(
            simulate_schedule(cut.schedule(order, r1), cut.costs).makespan_us, rel=1e-9
        )


def test_pppipe_and_naive_are_asas_that_waits_for_shared_experts() -> None:
    random = Random(3)
    for _ in range(500):
        layers, r1, times = random.randint(1, 6), random.randint(1, 4), random_times(random)
        found = batch_makespans(
            StageTable.of([times], [1]), layers, parse_order("asas", r1), wait_for_shared=True
        )
        assert found == pingpong(times, layers, r1) == longest_path_us(pppipe(layers, r1), times)


# Many cuts at once, many layers


@pytest.mark.parametrize("order", ["aass", "A0 A1 S1 S0", "A1 S1 A0 S0"])
def test_sixty_layers_at_once_take_as_long_as_layer_after_layer(order: str) -> None:
    """What repeats is multiplied, what does not goes on; 200 cuts of whole numbers agree with the
    recurrence."""
    random = Random(4)
    times = [random_times(random, 40) for _ in range(200)]
    r2 = [random.randint(1, 3) for _ in times]
    found = batch_makespans(StageTable.of(times, r2), 60, parse_order(order, 2))
    schedules = {n: findep(60, 2, n, order) for n in set(r2)}
    assert found.tolist() == [
        longest_path_us(schedules[n], each) for each, n in zip(times, r2, strict=True)
    ]


def test_times_that_are_no_whole_numbers_agree_to_rounding() -> None:
    random = Random(5)
    times = [StageTimes(*(random.uniform(0, 30) for _ in range(5))) for _ in range(100)]
    found = batch_makespans(StageTable.of(times, [2] * 100), 60, parse_order("aass", 3))
    schedule = findep(60, 3, 2, "aass")
    assert found.tolist() == pytest.approx(
        [longest_path_us(schedule, each) for each in times], rel=1e-12
    )


def test_a_cut_takes_as_long_alone_as_among_more_than_a_block() -> None:
    rows = np.random.default_rng(6).integers(1, 50, (5, CACHED_CONFIGURATIONS + 77)).astype(float)
    batch = StageTable(
        rows[:1],
        rows[1],
        np.full((1, CACHED_CONFIGURATIONS + 77), 3.0),
        rows[2:3],
        rows[3:4],
        rows[4:5],
    )
    together = batch_makespans(batch, 30, parse_order("aass", 2))
    for at in (0, 1, CACHED_CONFIGURATIONS - 1, CACHED_CONFIGURATIONS, CACHED_CONFIGURATIONS + 76):
        assert batch_makespans(batch[at : at + 1], 30, parse_order("aass", 2)) == together[at]


def test_asas_of_equal_chunks_is_its_closed_form() -> None:
    random = Random(7)
    times = [random_times(random) for _ in range(500)]
    assert batch_makespans(StageTable.of(times, [3] * 500), 9, parse_order("asas", 2)).tolist() == [
        asas(each, 9, 2, 3) for each in times
    ]


def test_a_batch_of_nothing_has_no_makespans() -> None:
    assert len(batch_makespans(StageTable.of([], []), 3, parse_order("aass", 2))) == 0


@pytest.mark.parametrize(
    "host",
    [
        HostOverheads(gap_us=1),
        HostOverheads(contention=0.1),
        HostOverheads(half_duplex=True),
        HostOverheads(noise=0.1),
    ],
)
def test_what_the_fast_path_does_not_model_it_refuses(host: HostOverheads) -> None:
    with pytest.raises(ValueError, match=r"the fast path does not model \w+"):
        batch_makespans(
            StageTable.of([StageTimes(1, 1, 1, 1)], [1]), 1, parse_order("asas", 1), host=host
        )
