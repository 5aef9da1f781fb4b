"""Sensitivities: slopes are the differences that a small change of a cost makes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from scenarios import linked_scenario, varied_us
from strategies import policy_schedules, random_schedules

from simdep.analysis.sensitivity import link_parts, sensitivities
from simdep.costs import HostOverheads, StageTimes
from simdep.policies import build, schedule_for
from simdep.scenario.task_costs import ScenarioCosts
from simdep.schedule import Kind, Schedule, Task
from simdep.simulation.engine import simulated_makespan_us
from simdep.simulation.longest_path import longest_path_us

SMALL = 10**6  # parts of a cost of 1: a change too small to make another path the longest


@settings(max_examples=300)
@given(policy_schedules() | random_schedules())
def test_slopes_are_exact_differences_of_a_small_change(schedule: Schedule) -> None:
    base = longest_path_us(schedule, varied_us)
    for each in sensitivities(schedule, varied_us):

        def changed(by: int, name: str = each.name) -> float:
            def costs(task: Task) -> int:
                return varied_us(task) * (SMALL + by * (task.kind.label == name))

            return longest_path_us(schedule, costs) - SMALL * base

        assert each.up_us_per_pct == changed(1) / 100
        assert each.down_us_per_pct == changed(-1) / 100


@settings(max_examples=100)
@given(policy_schedules())
def test_a_whole_percent_is_evaluated_and_never_less_than_its_slope(schedule: Schedule) -> None:
    base = longest_path_us(schedule, varied_us)
    for each in sensitivities(schedule, varied_us):
        kind = next(kind for kind in Kind if kind.label == each.name)

        def changed(pct: int, kind: Kind = kind) -> float:
            def costs(task: Task) -> float:
                return varied_us(task) * (100 + pct * (task.kind is kind))

            return longest_path_us(schedule, costs) / 100

        assert (each.up_us, each.down_us) == (changed(1), changed(-1))
        assert each.up_us_per_pct is not None
        assert each.down_us_per_pct is not None
        assert each.up_us - base >= each.up_us_per_pct - 1e-9
        assert each.down_us - base >= each.down_us_per_pct - 1e-9


def test_with_two_longest_paths_the_slopes_of_more_and_less_differ() -> None:
    """A2E and S both take 4 after A: a longer S alone is longer, a shorter one no shorter."""
    tasks = (Task(Kind.ATTENTION, 0, 0), Task(Kind.SHARED, 0, 0, after=("A[0.0]",)))
    schedule = Schedule({"AG": tasks, "A2E": (Task(Kind.A2E, 0, 0, 0, after=("A[0.0]",)),)})
    shared = next(
        each
        for each in sensitivities(
            schedule, StageTimes(attention=1, expert=0, a2e=4, e2a=0, shared=4)
        )
        if each.name == "shared"
    )
    assert (shared.up_us_per_pct, shared.down_us_per_pct) == (0.04, 0)
    assert (shared.up_us, shared.down_us) == (5.04, 5)


def test_with_terms_of_hosts_a_percent_is_simulated() -> None:
    host = HostOverheads(gap_us=3, contention=0.1)
    schedule, times = build("findep", 2, 2, 2), StageTimes(10, 8, 4, 4, 6)
    expert = next(each for each in sensitivities(schedule, times, host) if each.name == "expert")
    assert expert.up_us_per_pct is expert.down_us_per_pct is None
    assert expert.up_us == simulated_makespan_us(schedule, replace(times, expert=8.08), host)


@pytest.mark.parametrize("cut", [{"r1": 1}, {"r1": 2, "r2": 4}, {"policy": "pppipe", "r1": 2}])
def test_a_percent_of_bandwidth_or_start_up_is_that_of_a_changed_link(cut: dict[str, Any]) -> None:
    own = linked_scenario(**cut)
    costs, schedule = ScenarioCosts(own), schedule_for(own)
    found = {each.name: each for each in sensitivities(schedule, costs, more=link_parts(costs))}
    for name, key, sign in (
        ("link bandwidth", "gbytes_per_s", -1),
        ("link start-up", "alpha_us", 1),
    ):
        for pct, us in ((1, found[name].up_us), (-1, found[name].down_us)):
            link = {"alpha_us": 20.0, "gbytes_per_s": 25.0}
            link[key] *= 1 + pct / 100
            assert us == pytest.approx(
                simulated_makespan_us(schedule, ScenarioCosts(linked_scenario(**cut, link=link))),
                rel=1e-12,
            )
        slope = found[name].up_us_per_pct
        assert slope is not None
        assert sign * slope >= 0
