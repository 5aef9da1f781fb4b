"""A prediction: the timeline of a scenario, and the numbers that scenarios are compared by. Microseconds."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from simdep.analysis import summary as report
from simdep.costs import Costs
from simdep.hardware.extrapolation import Assumption
from simdep.policies import build, chunk_tokens, schedule_for, set_up
from simdep.scenario.spec import Scenario
from simdep.scenario.task_costs import ScenarioCosts
from simdep.schedule import Schedule
from simdep.simulation.engine import simulate_schedule
from simdep.simulation.longest_path import earliest_times
from simdep.simulation.rank_times import simulate_ranks
from simdep.simulation.rank_work import scenario_work
from simdep.timeline import Timeline


@dataclass(frozen=True)
class Prediction:
    """A scenario, simulated: `timeline`, the `tokens` of the whole AG, and what was assumed for
    want of a measurement.

    With ranks, the timeline has a row for every rank. `changes` say what a policy needed besides
    its own cut.
    """

    scenario: Scenario
    timeline: Timeline
    tokens: int
    notes: tuple[Assumption, ...]
    changes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return self.timeline.schedule.label

    def row(self) -> dict[str, Any]:
        """The numbers that policies are compared by, units in the names.

        The bubble of a group is the share of the makespan in which it does not compute; colocated
        GPUs are both groups.
        """
        scenario, makespan = self.scenario, self.timeline.makespan_us
        rate = 1e6 * self.tokens / makespan if makespan else None
        exposed, hidden = report.communication(self.timeline)
        streams = report.streams(self.timeline)
        ag, eg = (streams.get(name, streams.get("GPU")) for name in ("AG", "EG"))
        return {
            "policy": scenario.policy,
            "schedule": self.label,
            "m_a": scenario.m_a,
            "r1": scenario.r1,
            "r2": scenario.r2,
            "makespan_us": makespan,
            "throughput_tokens_per_s": rate,
            "throughput_tokens_per_s_per_gpu": rate / scenario.deployment.gpus if rate else None,
            "ag_bubble_pct": 100 * (1 - ag["busy_fraction"]) if ag else None,
            "eg_bubble_pct": 100 * (1 - eg["busy_fraction"]) if eg else None,
            "exposed_communication_us": exposed,
            "hidden_communication_pct": 100 * hidden,
        }


def predict(scenario: Scenario) -> Prediction:
    """Simulate a scenario, with the set-up of its policy (`simdep.policies.set_up`).

    Equal to `simulate_schedule`, without its events where the hosts add nothing to the model.

    Raises ValueError where policy, cut and workload do not fit, or the hardware profile lacks a
    cost.
    """
    completed = set_up(scenario)
    scenario = completed.scenario
    costs = ScenarioCosts(scenario)
    schedule = scheduled(scenario, costs)
    tokens = schedule.tokens * scenario.deployment.ag
    if scenario.ranks:
        work = scenario_work(scenario, schedule, costs)
        timeline, tokens = simulate_ranks(work, costs.host).timeline, work.total_tokens
    elif costs.host.terms:
        timeline = simulate_schedule(schedule, costs, costs.host)
    else:
        times = earliest_times(schedule, costs)
        timeline = Timeline.from_times(
            schedule, "sim", ((name, 0, *each) for name, each in times.items())
        )
    return Prediction(scenario, timeline, tokens, (*completed.assumptions, *costs.assumptions))


REGULAR = ("naive", "pppipe", "findep")  # policies whose order does not depend on costs


def is_regular(scenario: Scenario) -> bool:
    """Whether costs do not change the schedule: equal micro-batches, chunks as equal as can be, in
    the four streams."""
    uneven = (
        scenario.micro_batches
        or scenario.chunks
        or scenario.merge_last
        or scenario.split != "token"
    )
    where = scenario.deployment
    alike = scenario.ranks is None and where.shared_on == "ag" and not where.colocated
    return scenario.policy in REGULAR and alike and not uneven


def scheduled(scenario: Scenario, costs: Costs | None = None) -> Schedule:
    """`simdep.policies.schedule_for`; of a regular scenario, the streams are made once, whatever
    its tokens are."""
    if not is_regular(scenario):
        return schedule_for(scenario, costs)
    cut = (
        scenario.policy,
        scenario.layers,
        scenario.r1,
        scenario.r2,
        scenario.order,
        scenario.model.has_shared,
    )
    sizes = chunk_tokens(scenario.tokens, scenario.r2)
    return _streams(*cut).with_tokens(
        lambda task: scenario.tokens if task.chunk is None else sizes[task.chunk]
    )


@functools.lru_cache(maxsize=64)
def _streams(policy: str, layers: int, r1: int, r2: int, order: str, shared: bool) -> Schedule:
    return build(policy, layers, r1, r2, order, shared=shared)
