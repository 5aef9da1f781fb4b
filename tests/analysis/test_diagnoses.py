"""Findings: each holds where its numbers say so."""

from __future__ import annotations

import pytest
from scenarios import linked_scenario

from simdep.analysis.diagnoses import Diagnosis, diagnoses, start_up_shares
from simdep.costs import StageTimes
from simdep.policies import build, schedule_for
from simdep.scenario.memory import memory
from simdep.scenario.task_costs import ScenarioCosts
from simdep.schedule import Task
from simdep.simulation.engine import simulate_schedule


def named(found: list[Diagnosis]) -> dict[str, Diagnosis]:
    return {each.name: each for each in found}


def test_start_up_of_a_line_is_its_alpha() -> None:
    def line(task: Task) -> float:
        return 30 + 2 * task.tokens

    shares = start_up_shares(build("findep", 1, 1, 2, tokens=20), line)
    assert shares == {
        "attention": 30 / 70,
        "shared": 30 / 70,
        "a2e": 30 / 50,
        "expert": 30 / 50,
        "e2a": 30 / 50,
    }
    timeline = simulate_schedule(build("findep", 1, 1, 2, tokens=20), line)
    finding = named(diagnoses(timeline, start_up=shares))["start-up cost dominates"]
    assert finding.found
    assert finding.numbers["critical_path_fraction"] == pytest.approx((30 + 4 * 30) / (70 + 4 * 50))


def test_no_finding_holds_for_a_scenario_that_runs_well() -> None:
    own = linked_scenario(r1=2, r2=2, seq_len=2048, link={"alpha_us": 20, "gbytes_per_s": 5})
    costs, schedule = ScenarioCosts(own), schedule_for(own)
    timeline = simulate_schedule(schedule, costs)
    found = named(
        diagnoses(timeline, start_up=start_up_shares(schedule, costs), needed=memory(own))
    )
    assert {name: each.found for name, each in found.items()} == {
        "start-up cost dominates": False,
        "memory infeasible": False,
        "communication already hidden": False,
        "costs out of range": False,
    }


def test_each_finding_holds_where_its_numbers_say_so() -> None:
    timeline = simulate_schedule(
        build("findep", 8, 4, 2), StageTimes(attention=90, shared=40, a2e=1, expert=20, e2a=1)
    )
    found = named(
        diagnoses(
            timeline,
            needed=memory(linked_scenario(memory_gbytes=1)),
            out_of_range=["m=8 is out of range"],
        )
    )
    assert "start-up cost dominates" not in found  # costs do not say
    assert found["memory infeasible"].found
    assert "are missing" in found["memory infeasible"].text
    assert found["communication already hidden"].found
    assert found["communication already hidden"].numbers["exposed_fraction"] <= 0.02
    assert found["costs out of range"].text == "m=8 is out of range"
