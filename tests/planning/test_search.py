"""The pruned search against every configuration evaluated in ASAS and AASS, nothing left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest

from simdep.costs import Line, StageCosts
from simdep.planning import search
from simdep.planning.problem import Problem
from simdep.planning.search import Order
from simdep.planning.solver import Configuration, Solution, solve, solve_splits
from simdep.planning.stage_cache import StageCache
from simdep.policies import parse_order
from simdep.scenario.memory import largest_r1
from simdep.scenario.spec import Scenario
from simdep.simulation.batch import batch_makespans
from simdep.simulation.bounds import makespan_bounds
from simdep.simulation.stage_table import StageTable

MODELS = ("deepseek-v2-lite", "qwen3-30b-a3b", "gpt-oss-120b", "llama-4-maverick")
Key = tuple[int, int, int, int]  # ag, m_a, r1, r2


def random_scenario(random: Random) -> Scenario:
    """A few layers on few GPUs whose memory holds a few samples."""
    return Scenario.from_dict(
        {
            "model": random.choice(MODELS),
            "layers": random.choice((1, 2, 5)),
            "deployment": {
                "hardware": random.choice(("h20", "h100")),
                "ag": 1,
                "eg": 1,
                "shared_on": random.choice(("ag", "eg")),
                "memory_gbytes": random.choice((12, 20, 30)),
            },
            "workload": {
                "phase": "prefill",
                "seq_len": random.choice((1024, 2048, 4096)),
            },
        }
    )


def splits(scenario: Scenario, gpus: int, samples: int | None) -> list[Problem]:
    cache = StageCache()
    return [
        Problem.of(
            replace(scenario, deployment=replace(scenario.deployment, ag=ag, eg=gpus - ag)),
            samples,
            cache=cache,
        )
        for ag in range(1, gpus)
    ]


def every_rate(problem: Problem, max_r1: int, max_r2: int) -> dict[Key, tuple[float, float]]:
    """The throughput of the better of ASAS and AASS, and the bound, of all that fits."""
    scenario = problem.scenario
    assert scenario is not None
    tokens, rates = problem.tokens_per_sample, {}
    for m_a in range(1, 10**6):
        if not largest_r1(scenario, m_a, min(max_r2, m_a * tokens)):
            return rates
        for r2 in range(1, min(max_r2, m_a * tokens) + 1):
            stages = problem.stages.table(np.array([m_a]), np.array([r2]))
            for r1 in range(1, min(max_r1, largest_r1(scenario, m_a, r2)) + 1):
                if problem.samples not in (None, m_a * r1):
                    continue
                us = min(
                    float(batch_makespans(stages, problem.layers, parse_order(order, r1))[0])
                    for order in ("asas", "aass")
                )
                least_us = float(makespan_bounds(stages, problem.layers, r1)[0])
                work = 1e6 * problem.total_tokens_per_sample * m_a * r1
                rates[scenario.deployment.ag, m_a, r1, r2] = work / us, work / least_us
    return rates


def key(configuration: Configuration) -> Key:
    assert configuration.ag is not None
    return configuration.ag, configuration.m_a, configuration.r1, configuration.r2


def listed(solution: Solution) -> tuple[Configuration, ...]:
    return (solution.best, *solution.runner_up)


@pytest.mark.parametrize("seed", range(12))
def test_nothing_that_is_left_out_is_among_the_best(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Splits searched together in small blocks: the listed ones are the best of all, in order, and
    the bound is the largest of all."""
    monkeypatch.setattr(search, "BLOCK_COLUMNS", 16)
    monkeypatch.setattr(search, "FIRST_BATCH", 2)
    random = Random(seed)
    problems = splits(random_scenario(random), random.randint(2, 5), random.choice((None, None, 6)))
    limits = {"max_r1": random.randint(1, 5), "max_r2": random.randint(1, 6)}
    rates: dict[Key, tuple[float, float]] = {}
    for problem in problems:
        rates |= every_rate(problem, **limits)
    if not rates:
        pytest.skip("nothing fits")
    found = solve_splits(problems, **limits)
    two_orders = [each for each in listed(found) if each.order != Order.LOOKAHEAD]
    for each in two_orders:
        assert each.throughput_tokens_per_s == pytest.approx(rates[key(each)][0], rel=1e-9)
    best = sorted((rate for rate, _ in rates.values()), reverse=True)
    for each, rate in zip(listed(found), best, strict=False):
        assert each.throughput_tokens_per_s >= rate * (1 - 1e-9)
    assert len(listed(found)) == min(search.KEPT, len(rates))
    assert found.max_tokens_per_s == pytest.approx(max(bound for _, bound in rates.values()))
    assert found.configurations == len(rates)


def test_splits_searched_together_have_the_best_of_each_searched_alone() -> None:
    """Look-ahead orders included; in 15 scenarios."""
    random = Random(1)
    for _ in range(15):
        problems = splits(random_scenario(random), 6, None)
        problems = [each for each in problems if search.Space(each, 8, 16).count]
        if not problems:
            continue
        alone = [solve(problem, max_r2=16) for problem in problems]
        together = solve_splits(problems, max_r2=16)
        rates = sorted(
            (each.throughput_tokens_per_s for one in alone for each in listed(one)), reverse=True
        )
        found = [each.throughput_tokens_per_s for each in listed(together)]
        assert found == pytest.approx(rates[: len(found)], rel=1e-12)
        assert together.max_tokens_per_s == max(one.max_tokens_per_s for one in alone)


def test_the_bound_of_a_micro_batch_never_grows_with_r1() -> None:
    """So that the bound at the most micro-batches holds for fewer."""
    random = Random(2)
    problem = splits(random_scenario(random), 2, None)[0]
    m_a, r2 = np.arange(1, 9), np.arange(1, 9)
    stages = problem.stages.table(m_a, r2)
    bounds = [makespan_bounds(stages, problem.layers, r1) / r1 for r1 in range(1, 20)]
    assert (np.diff(bounds, axis=0) <= 1e-9 * bounds[0]).all()


# Ties


def test_of_equals_the_fewest_micro_batches_then_chunks_then_samples_are_best() -> None:
    """Attention alone takes time, each sample as much: every configuration is as fast."""
    costs = StageCosts(Line(0, 10), Line(0, 0), Line(0, 0), tokens_per_sample=3)
    found = solve(Problem.bare(costs, 2, 6))
    assert [(each.r1, each.r2, each.m_a) for each in listed(found)] == [
        (1, r2, 6) for r2 in range(1, 6)
    ]
    assert {each.makespan_us for each in listed(found)} == {120}


class AnySamples:
    """Memory for micro-batches of up to six samples, one of them at a time."""

    def largest_m_a(self, _: int) -> int:
        return 6

    def largest_r1(self, m_a: Any, _: Any) -> Any:
        return np.ones_like(m_a)


def test_of_equals_the_fewest_samples_are_best() -> None:
    costs = StageCosts(Line(0, 10), Line(0, 0), Line(0, 0), tokens_per_sample=2)
    problem = replace(Problem.bare(costs, 2, 1), samples=None, footprint=AnySamples())  # type: ignore[arg-type]
    found = listed(solve(problem, max_r2=2))
    assert [(each.r2, each.m_a) for each in found] == [(1, m_a) for m_a in range(1, 6)]


def small_problems(seed: int, count: int) -> Iterator[tuple[StageCosts, int, int]]:
    """Stage costs of small whole numbers, with many ties; layers and samples."""
    random = Random(seed)
    for _ in range(count):
        lines = [Line(random.randint(0, 2), random.randint(0, 4)) for _ in range(4)]
        costs = StageCosts(*lines, tokens_per_sample=random.randint(1, 3))
        yield costs, random.randint(1, 3), random.choice((2, 4, 6))


def makespans_of(costs: StageCosts, layers: int, m_a: int, r1: int, r2: int) -> dict[str, float]:
    """Makespans in the two orders of a layer."""
    stages = StageTable.of([costs.times(m_a, r2)], [r2])
    return {
        order: float(batch_makespans(stages, layers, parse_order(order, r1))[0])
        for order in ("asas", "aass")
    }


def test_the_best_comes_first_of_all_that_are_as_fast_in_either_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search, "FIRST_BATCH", 2)
    ties = 0
    for costs, layers, samples in small_problems(4, 400):
        best = solve(Problem.bare(costs, layers, samples)).best
        spans = {}
        for r1 in range(1, samples + 1):
            if samples % r1 == 0:
                m_a = samples // r1
                for r2 in range(1, m_a * costs.tokens_per_sample + 1):
                    spans[r1, r2] = makespans_of(costs, layers, m_a, r1, r2)
        fastest = min(min(each.values()) for each in spans.values())
        if best.order == Order.LOOKAHEAD:
            assert best.makespan_us <= fastest
            assert best.makespan_us < min(spans[best.r1, best.r2].values())
            continue
        equals = [each for each, us in spans.items() if min(us.values()) == fastest]
        assert (best.r1, best.r2) == min(equals)
        ties += len(equals) > 5
    assert ties > 10


def test_one_that_is_as_fast_as_the_last_listed_only_in_aass_is_not_overlooked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """r1 = r2 = 2 is as fast as r1 = 6 and r2 = 2, which ASAS finds first."""
    monkeypatch.setattr(search, "FIRST_BATCH", 2)
    costs = StageCosts(Line(2, 5), Line(1, 0), Line(2, 2), Line(0, 2), tokens_per_sample=3)
    found = [(each.r1, each.r2) for each in listed(solve(Problem.bare(costs, 1, 6)))]
    assert found == [(6, 1), (3, 1), (3, 2), (2, 2), (3, 3)]
    spans = [min(makespans_of(costs, 1, 6 // r1, r1, r2).values()) for r1, r2 in found]
    assert spans == sorted(spans)
    assert spans[3] == spans[4] == min(makespans_of(costs, 1, 1, 6, 2).values())


def test_an_order_is_named_only_where_it_is_faster_than_the_simpler_ones() -> None:
    named = set()
    for costs, layers, samples in small_problems(5, 300):
        for each in listed(solve(Problem.bare(costs, layers, samples))):
            spans = makespans_of(costs, layers, each.m_a, each.r1, each.r2)
            if each.order == Order.AASS:
                assert spans["aass"] < spans["asas"]
            if each.order == Order.LOOKAHEAD:
                assert each.makespan_us < min(spans.values())
            named.add(each.order)
    assert named == set(Order)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e9])
def test_throughputs_equal_to_twelve_digits_are_equal(scale: float) -> None:
    """Sums of tenths differ in their last digit, not in rank."""
    costs = StageCosts(Line(0.0, 0.1 * scale), Line(0, 0), Line(0, 0))
    best = solve(Problem.bare(costs, 3, 30)).best
    assert (best.r1, best.r2) == (1, 1)


# Algorithm 1


def test_algorithm_1_skips_m_a_whose_r1_is_that_of_the_m_a_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the largest m_a down: of those with as many micro-batches only the largest."""
    given = random_scenario(Random(0))
    given = replace(
        given,
        deployment=replace(given.deployment, ag=2, eg=4, memory_gbytes=60, shared_on="ag"),
    )
    problem = Problem.of(given)
    space = search.Space(problem, 6, 4)
    visited: list[tuple[int, int]] = []
    evaluate = search.Candidates.evaluate

    def seen(candidates: Any, order: Order, places: Any) -> Any:
        visited.append((int(candidates.m_a[places[0]]), int(candidates.r1[places[0]])))
        candidates.max_rate[:] = np.inf  # so that no order is left out
        return evaluate(candidates, order, places)

    monkeypatch.setattr(search.Candidates, "evaluate", seen)
    solve(problem, "algorithm1", max_r1=6, max_r2=4)
    expected, before = [], 0
    for m_a in space.m_a[::-1].tolist():
        r1 = min(6, largest_r1(given, m_a, 4))
        if r1 and r1 != before:
            expected.append((m_a, r1))
            before = r1
    assert list(dict.fromkeys(visited)) == expected
    assert len({r1 for _, r1 in expected}) > 2
    assert len(expected) < len(space.m_a)


def algorithm1_by_hand(costs: StageCosts, layers: int, samples: int) -> float:
    """The makespan that the published algorithm ends with: r2 grows while it does not rise."""
    best = float("inf")
    for m_a in range(samples, 0, -1):
        if samples % m_a:
            continue
        r1 = samples // m_a
        for order in ("asas", "aass"):
            before = float("inf")
            for r2 in range(1, m_a * costs.tokens_per_sample + 1):
                us = makespans_of(costs, layers, m_a, r1, r2)[order]
                best = min(best, us)
                if us > before:
                    break
                before = us
    return best


def test_algorithm_1_evaluates_r2_up_to_the_first_that_is_slower() -> None:
    """And lists none beyond it."""
    costs = StageCosts(Line(0, 10), Line(6, 2), Line(6, 1), Line(0, 1), tokens_per_sample=24)
    us = [makespans_of(costs, 5, 1, 1, r2)["asas"] for r2 in range(1, 25)]
    slower = next(r2 for r2 in range(2, 25) if us[r2 - 1] > us[r2 - 2])
    found = solve(Problem.bare(costs, 5, 1), "algorithm1")
    assert found.evaluated == slower < 24
    assert sorted(each.r2 for each in listed(found))[-1] == slower


def test_algorithm_1_goes_on_while_r2_makes_no_difference() -> None:
    costs = StageCosts(Line(0, 10), Line(0, 0), Line(0, 0), tokens_per_sample=7)
    assert solve(Problem.bare(costs, 2, 1), "algorithm1").evaluated == 7


def test_algorithm_1_ends_with_the_makespan_that_it_has_by_hand() -> None:
    worse = 0
    for costs, layers, samples in small_problems(6, 400):
        problem = Problem.bare(costs, layers, samples)
        found = solve(problem, "algorithm1").best.makespan_us
        assert found == pytest.approx(algorithm1_by_hand(costs, layers, samples), rel=1e-12)
        worse += found > solve(problem).best.makespan_us * (1 + 1e-9)
    assert worse


# The proof


def test_the_gap_is_how_far_the_makespan_lies_above_the_bound_in_percent() -> None:
    random, gaps = Random(3), []
    for _ in range(30):
        lines = [Line(random.randint(0, 9), random.randint(0, 9)) for _ in range(4)]
        found = solve(Problem.bare(StageCosts(*lines), 3, 6), "algorithm1", max_r2=2)
        least = found.lower_bound_us
        assert found.best.makespan_us >= least * (1 - 1e-12)
        gaps.append(100 * (found.best.makespan_us - least) / least)
        assert found.gap_pct == pytest.approx(gaps[-1], abs=1e-9)
    assert max(gaps) > 1


def test_a_makespan_that_is_the_bound_has_no_gap() -> None:
    costs = StageCosts(Line(0, 10), Line(0, 1), Line(0, 1))
    found = solve(Problem.bare(costs, 3, 4))
    assert found.best.makespan_us == found.lower_bound_us
    assert found.gap_pct == 0
