"""The solver against brute force over every cut and order, its bounds, its caps, memory, Algorithm
1."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from random import Random
from statistics import median
from typing import Any

import numpy as np
import pytest
from schedules import findep

from simdep.checks import InfeasibleError
from simdep.costs import Line, StageCosts
from simdep.planning.problem import Problem
from simdep.planning.solver import Solution, solve
from simdep.policies import build, parse_order, schedule_for
from simdep.policies.lookahead import best_order, order_makespan
from simdep.scenario.memory import largest_r1
from simdep.scenario.spec import Scenario
from simdep.scenario.task_costs import ScenarioCosts
from simdep.simulation.batch import batch_makespans
from simdep.simulation.closed_form import asas
from simdep.simulation.engine import simulate_schedule
from simdep.simulation.longest_path import longest_path_us
from simdep.simulation.stage_table import StageTable


def random_costs(random: Random) -> StageCosts:
    """Lines of whole numbers, start-ups of a few samples or chunks, some of them 0."""

    def line(slope: int) -> Line:
        return Line(random.randint(0, 12), random.randint(0, slope))

    shared = line(5) if random.random() < 0.85 else Line(0, 0)
    return StageCosts(line(9), line(3), line(2), shared, tokens_per_sample=random.randint(1, 5))


def divisors(samples: int) -> Iterator[tuple[int, int]]:
    """Every (m_a, r1)."""
    return ((samples // r1, r1) for r1 in range(1, samples + 1) if samples % r1 == 0)


made = cache(findep)  # the same few schedules, thousands of times


def best_by_brute_force(costs: StageCosts, layers: int, samples: int) -> tuple[float, float]:
    """The least makespan over every m_a, r1 and r2: of ASAS and AASS by the recurrence, and with
    look-ahead."""
    two, ahead = [], []
    for m_a, r1 in divisors(samples):
        for r2 in range(1, m_a * costs.tokens_per_sample + 1):
            times = costs.times(m_a, r2)
            two += [
                longest_path_us(made(layers, r1, r2, order), times) for order in ("asas", "aass")
            ]
            stages = StageTable.of([times], [r2])
            ahead.append(order_makespan(stages, best_order(stages, layers, r1), r1))
    return min(two), min(*two, *ahead)


# Bare problems


def test_exact_is_brute_force_over_every_cut_and_order() -> None:
    """In 500 random problems; ASAS and AASS alone are never faster."""
    random = Random(0)
    for _ in range(500):
        costs, layers, samples = (
            random_costs(random),
            random.randint(1, 4),
            random.choice((1, 2, 3, 4)),
        )
        found = solve(Problem.bare(costs, layers, samples))
        of_two, best = best_by_brute_force(costs, layers, samples)
        assert found.best.makespan_us == pytest.approx(best, rel=1e-9), (costs, layers, samples)
        assert found.best.makespan_us <= of_two * (1 + 1e-9)
        assert found.lower_bound_us <= best * (1 + 1e-12)


def test_the_engine_runs_what_is_found_to_the_makespan_that_is_told() -> None:
    random = Random(1)
    orders = set()
    for _ in range(300):
        costs, layers, samples = (
            random_costs(random),
            random.randint(2, 6),
            random.choice((2, 4, 6)),
        )
        best = solve(Problem.bare(costs, layers, samples), max_r2=4).best
        times = costs.times(best.m_a, best.r2)
        order = "asas" if best.policy == "lookahead" else best.order
        schedule = build(best.policy, layers, best.r1, best.r2, order, costs=times)
        assert simulate_schedule(schedule, times).makespan_us == pytest.approx(
            best.makespan_us, rel=1e-9
        )
        assert best.r1 * best.m_a == samples
        assert best.throughput_tokens_per_s == pytest.approx(
            1e6 * samples * costs.tokens_per_sample / best.makespan_us
        )
        orders.add(best.order.lower())
    assert orders == {"asas", "aass", "lookahead"}


def test_caps_hold_and_a_tighter_one_is_never_faster() -> None:
    random = Random(2)
    for _ in range(100):
        problem = Problem.bare(random_costs(random), 3, 6)
        spans = []
        for r1, r2 in ((1, 1), (2, 2), (3, 4), (6, 8)):
            best = solve(problem, max_r1=r1, max_r2=r2).best
            assert best.r1 <= r1
            assert best.r2 <= r2
            spans.append(best.makespan_us)
        assert all(later <= earlier for earlier, later in itertools.pairwise(spans))


def test_runners_up_are_slower_in_turn_and_of_other_cuts() -> None:
    found = solve(
        Problem.bare(StageCosts(Line(20, 9), Line(4, 2), Line(3, 1), Line(5, 3), 4), 5, 12)
    )
    spans = [found.best.makespan_us, *(choice.makespan_us for choice in found.runner_up)]
    assert len(spans) > 3
    assert spans == sorted(spans)
    assert len(
        {(choice.m_a, choice.r1, choice.r2) for choice in (found.best, *found.runner_up)}
    ) == len(spans)


@pytest.mark.parametrize("word", ["max_r1", "max_r2"])
def test_a_cap_below_one_is_refused(word: str) -> None:
    caps: dict[str, Any] = {word: 0}
    with pytest.raises(ValueError, match=f"{word}=0; expected an integer >= 1"):
        solve(Problem.bare(StageCosts(Line(1, 1), Line(1, 1), Line(1, 1)), 1, 1), **caps)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown method 'exakt'; did you mean 'exact'"):
        solve(Problem.bare(StageCosts(Line(1, 1), Line(1, 1), Line(1, 1)), 1, 1), "exakt")


# Algorithm 1


def test_algorithm_1_is_never_faster_than_exact() -> None:
    """In 1,000 random problems; its loss is told beside it (`pytest -s`)."""
    random = Random(3)
    losses = []
    for _ in range(1000):
        problem = Problem.bare(
            random_costs(random), random.choice((2, 4, 8)), random.choice((2, 4, 6, 8))
        )
        exact, published = solve(problem, max_r2=8), solve(problem, "algorithm1", max_r2=8)
        if exact.best.makespan_us:
            losses.append(100 * (published.best.makespan_us / exact.best.makespan_us - 1))
        assert published.method == "algorithm1"
    assert min(losses) > -1e-9
    print(
        f"\nloss of Algorithm 1: median {median(losses):.2f} %, worst {max(losses):.1f} %, "
        f"of {len(losses)} problems"
    )


def test_algorithm_1_finds_the_r2_that_its_closed_form_of_asas_has() -> None:
    """With one micro-batch, ASAS and AASS are one: the r2 of the least makespan, among equals the
    least."""
    costs = StageCosts(Line(0, 10), Line(6, 2), Line(6, 1), Line(0, 1), tokens_per_sample=24)
    found = solve(Problem.bare(costs, 5, 1), "algorithm1")
    spans = {r2: asas(costs.times(1, r2), 5, 1, r2) for r2 in range(1, 25)}
    assert found.best.makespan_us == min(spans.values())
    assert found.best.r2 == min(spans, key=spans.__getitem__)


# Scenarios


def scenario(**changes: Any) -> Scenario:
    workload = {"seq_len": 16, **changes.pop("workload", {})}
    deployment = {"hardware": "h20", "ag": 3, "eg": 5, **changes.pop("deployment", {})}
    return Scenario.from_dict(
        {
            "model": "deepseek-v2",
            "layers": 3,
            "workload": workload,
            "deployment": deployment,
            **changes,
        }
    )


def with_cut(given: Scenario, order: str, m_a: int, r1: int, r2: int) -> Scenario:
    return replace(
        given, workload=replace(given.workload, samples=m_a * r1), order=order, r1=r1, r2=r2
    )


@pytest.mark.parametrize("shared_on", ["ag", "eg"])
def test_exact_on_a_scenario_is_brute_force_over_its_schedules(shared_on: str) -> None:
    """Every schedule of fixed samples, uneven whole tokens included, by the recurrence on the
    scenario's own costs."""
    given = scenario(deployment={"shared_on": shared_on})
    found = solve(Problem.of(given, 4), max_r2=6)
    spans = {}
    for m_a, r1 in divisors(4):
        for r2, order in itertools.product(range(1, 7), ("ASAS", "AASS")):
            cut = with_cut(given, order, m_a, r1, r2)
            spans[order, m_a, r1, r2] = longest_path_us(schedule_for(cut), ScenarioCosts(cut))
    best = found.best
    assert best.makespan_us <= min(spans.values()) * (1 + 1e-9)
    if best.policy == "findep":
        assert spans[best.order.upper(), best.m_a, best.r1, best.r2] == pytest.approx(
            best.makespan_us, rel=1e-9
        )
    assert found.lower_bound_us <= min(spans.values())
    assert best.m_e == pytest.approx(
        best.m_a * 3 * 6 * 16 / (best.r2 * 160)
    )  # m_a ag top_k S = m_e r2 E


def test_the_policy_lookahead_has_the_order_that_the_solver_evaluates() -> None:
    """Chunks of 48 tokens in 5 differ by one."""
    given, problem = scenario(), Problem.of(scenario(), 9)
    for r2 in (1, 4, 5):
        cut = replace(with_cut(given, "ASAS", 3, 3, r2), policy="lookahead")
        stages = problem.stages.table(np.array([3]), np.array([r2]))
        assert longest_path_us(schedule_for(cut), ScenarioCosts(cut)) == pytest.approx(
            order_makespan(stages, best_order(stages, 3, 3), 3), rel=1e-12
        )


def test_without_samples_memory_says_how_many() -> None:
    """Every choice fits, and the largest m_a that fits is among those searched."""
    given = scenario(workload={"seq_len": 2048}, layers=59)
    found = solve(Problem.of(given), max_r1=2, max_r2=4)
    for choice in (found.best, *found.runner_up):
        assert choice.r1 <= largest_r1(given, choice.m_a, choice.r2)
    more = with_cut(given, "ASAS", found.best.m_a, 1, 1)
    assert solve(
        Problem.of(more, found.best.m_a * found.best.r1), max_r1=2, max_r2=4
    ).best.makespan_us <= (found.best.makespan_us * (1 + 1e-9))


def test_what_does_not_fit_is_infeasible_and_says_what_would() -> None:
    given = scenario(workload={"seq_len": 2048}, layers=59, deployment={"memory_gbytes": 60})
    with pytest.raises(InfeasibleError, match=r"(?s)are missing.*it fits with"):
        solve(Problem.of(given))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"deployment": {"duplex": "half"}}, "half_duplex"),
        ({"deployment": {"contention": 0.1}}, "contention"),
    ],
)
def test_what_the_solver_does_not_model_it_refuses(change: dict[str, Any], word: str) -> None:
    """Unless it is left out on purpose, as what hosts add may be; the link is what it is."""
    given = scenario(**change)
    with pytest.raises(ValueError, match=f"the solver does not model {word}"):
        Problem.of(given, 2)
    if word == "half_duplex":
        with pytest.raises(ValueError, match="the solver does not model half_duplex"):
            Problem.of(given, 2, ideal=True)
    else:
        assert Problem.of(given, 2, ideal=True).samples == 2


def test_colocated_groups_are_refused() -> None:
    given = Scenario.from_dict(
        {
            "model": "deepseek-v2",
            "deployment": {"hardware": "h20", "gpus": 8},
            "schedule": {"policy": "ep"},
        }
    )
    with pytest.raises(ValueError, match="colocated"):
        Problem.of(given, 2)


# What is told


def test_a_solution_says_what_the_interface_promises() -> None:
    found: Solution = solve(
        Problem.bare(StageCosts(Line(20, 9), Line(4, 2), Line(3, 1), Line(5, 3), 4), 5, 6)
    )
    told = found.to_dict()
    assert {"policy", "order", "m_a", "r1", "r2", "m_e"} <= set(told["best"])
    assert told["makespan_us"] == told["best"]["makespan_us"] >= told["lower_bound_us"]
    assert told["gap_pct"] == pytest.approx(
        100 * (told["makespan_us"] / told["lower_bound_us"] - 1)
    )
    assert told["throughput_tokens_per_s"] == pytest.approx(1e6 * 6 * 4 / told["makespan_us"])
    assert told["method"] == "exact"
    assert told["evaluated"] > 0
    assert told["solve_ms"] > 0


def test_a_look_ahead_order_is_told_whole() -> None:
    random = Random(5)
    while True:
        costs = random_costs(random)
        found = solve(Problem.bare(costs, 4, 6), max_r2=3)
        if found.best.policy == "lookahead":
            break
    words = found.to_dict()["best"]["ag_order"].split()
    assert len(words) == len(set(words)) == 2 * 4 * found.best.r1
    stages = StageTable.of([costs.times(found.best.m_a, found.best.r2)], [found.best.r2])
    assert order_makespan(stages, found.sequence, found.best.r1) == pytest.approx(
        found.best.makespan_us
    )
    both = (
        batch_makespans(stages, 4, parse_order(word, found.best.r1))[0] for word in ("asas", "aass")
    )
    assert found.best.makespan_us < min(both)
