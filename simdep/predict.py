"""What a policy comes to on a scenario: its timeline, and the numbers that policies are compared by.

A policy is chosen by a word that may carry its degrees: `findep`, `findep:r1=2,r2=4,order=aass`, `pppipe:r1=3`. The
workload stays as it is: r1 cuts the samples of an AG GPU, whatever m_a that gives. Times are microseconds.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from simdep import recurrence, report
from simdep.checks import RangeWarning, known, whole
from simdep.costs import Costs
from simdep.engine import simulate
from simdep.policies import Policy, build, chunk_tokens, find, schedule_for
from simdep.policies.adapt import Adapted, adapted
from simdep.problem import Problem
from simdep.rank_times import simulate_ranks
from simdep.rank_work import scenario_work
from simdep.scenario import Scenario
from simdep.scenario_costs import ScenarioCosts
from simdep.schedule import Kind, Schedule, Task
from simdep.solver import Solution, solve
from simdep.timeline import Timeline

DEGREES = ("order", "r1", "r2")
_WARNINGS = threading.RLock()


@dataclass(frozen=True)
class Choice:
    """A policy with the degrees that it was given; one that is None is the scenario's, if the policy has it."""

    policy: str
    order: str | None = None
    r1: int | None = None
    r2: int | None = None

    @classmethod
    def parse(cls, text: str, find: Callable[[str], Policy] = find) -> Choice:
        """From `POLICY` or `POLICY:r1=2,r2=4,order=aass`; raises ValueError for the part at fault.

        `find` is what knows policies by their words; that of a command line also knows `FILE.py:POLICY`.
        """
        word, rest = _split(text)
        policy = find(word).name
        given: dict[str, Any] = {}
        for part in rest.split(",") if rest else ():
            key, equals, value = (each.strip() for each in part.partition("="))
            known(key, DEGREES, f"degree in policy {text!r}:")
            if not equals or not value or key in given:
                raise ValueError(f"policy {text!r}: write each degree once, as {key}=VALUE")
            given[key] = value if key == "order" else whole(int(value) if value.isdigit() else value, key)
        return cls(policy, **given)

    def of(self, scenario: Scenario) -> Adapted:
        """The scenario under this policy, on as many GPUs, and what else that changes.

        Raises ValueError if the policy can't be asked that, or if an r1 that was given does not divide the samples.
        """
        given = {key: getattr(self, key) for key in DEGREES}
        found = adapted(scenario, self.policy, **given)
        if self.r1 and found.scenario.deployment.ag == scenario.deployment.ag and not scenario.micro_batches:
            replace(scenario, r1=self.r1)  # raises
        return found

    def __str__(self) -> str:
        given = {key: getattr(self, key) for key in DEGREES if getattr(self, key) is not None}
        return self.policy + ":" * bool(given) + ",".join(f"{key}={value}" for key, value in given.items())


def best(scenario: Scenario) -> Choice:
    """The fastest policy, order and cut of the scenario's samples; raises ValueError for what the solver has not.

    InfeasibleError where they do not fit into memory.
    """
    return choice_of(solution(scenario))


def solution(scenario: Scenario) -> Solution:
    """What the solver finds for the scenario's samples."""
    with beyond():
        return solve(Problem.of(scenario, scenario.workload.samples))


def choice_of(solution: Solution) -> Choice:
    """The best policy of a solution, as a word can give it."""
    found = solution.best
    return Choice(found.policy, found.order if found.policy == "findep" else None, found.r1, found.r2)


def _split(text: str) -> tuple[str, str]:
    """The word of a policy, and its degrees; the word may be FILE.py:NAME."""
    word, _, rest = text.partition(":")
    if word.endswith(".py"):
        name, _, rest = rest.partition(":")
        word = f"{word}:{name}"
    return word.strip(), rest


@dataclass(frozen=True)
class Prediction:
    """A scenario, simulated: `timeline`, the `tokens` of the whole AG, and what was assumed for want of a measurement.

    With ranks, the timeline has a row for every rank. `changes` say what a policy needed besides its own cut.
    """

    scenario: Scenario
    timeline: Timeline
    tokens: int
    notes: tuple[str, ...]
    changes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return self.timeline.schedule.label

    def row(self) -> dict[str, Any]:
        """The numbers that policies are compared by, units in the names.

        The bubble of a group is the share of the makespan in which it does not compute; colocated GPUs are both groups.
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
    """Simulate a scenario. Equal to `engine.simulate`, without its events where the hosts add nothing to the model.

    Raises ValueError where policy, cut and workload do not fit, or the hardware profile lacks a cost.
    """
    costs = ScenarioCosts(scenario)
    with beyond() as notes:
        schedule = scheduled(scenario)
        tokens = schedule.tokens * scenario.deployment.ag
        if scenario.ranks:
            work = scenario_work(scenario, schedule)
            timeline, tokens = simulate_ranks(work, costs.host).timeline, work.total_tokens
        elif costs.host.terms:
            timeline = simulate(schedule, priced(costs), costs.host)
        else:
            times = recurrence.times(schedule, priced(costs))
            timeline = Timeline.from_times(schedule, "sim", ((name, 0, *each) for name, each in times.items()))
    return Prediction(scenario, timeline, tokens, (*costs.notes, *notes))


REGULAR = ("naive", "pppipe", "findep")  # policies whose order does not depend on costs


def is_regular(scenario: Scenario) -> bool:
    """Whether costs do not change the schedule: equal micro-batches, chunks as equal as can be, in the four streams."""
    uneven = scenario.micro_batches or scenario.chunks or scenario.merge_last or scenario.split != "token"
    where = scenario.deployment
    alike = scenario.ranks is None and where.shared_on == "ag" and not where.colocated
    return scenario.policy in REGULAR and alike and not uneven


def scheduled(scenario: Scenario) -> Schedule:
    """`simdep.policies.schedule_for`; of a regular scenario, the streams are made once, whatever its tokens are."""
    if not is_regular(scenario):
        return schedule_for(scenario)
    cut = (scenario.policy, scenario.layers, scenario.r1, scenario.r2, scenario.order, scenario.model.has_shared)
    sizes = chunk_tokens(scenario.tokens, scenario.r2)
    return _streams(*cut).with_tokens(lambda task: scenario.tokens if task.chunk is None else sizes[task.chunk])


@functools.lru_cache(maxsize=64)
def _streams(policy: str, layers: int, r1: int, r2: int, order: str, shared: bool) -> Schedule:
    return build(policy, layers, r1, r2, order, shared=shared)


def under(choice: Choice, scenario: Scenario) -> Prediction:
    """A policy simulated on a scenario, on as many GPUs; raises ValueError where it does not fit."""
    found = choice.of(scenario)
    own = tuple(f"{key}=" for key in DEGREES)
    return replace(predict(found.scenario), changes=tuple(each for each in found.changes if not each.startswith(own)))


@contextmanager
def beyond() -> Iterator[dict[str, None]]:
    """Collects what is said of costs that are asked for beyond what they were measured on, in place of warnings.

    One thread at a time: how Python treats warnings is common to all of them.
    """
    found: dict[str, None] = {}
    with _WARNINGS, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RangeWarning)
        try:
            yield found
        finally:
            found |= dict.fromkeys(str(each.message) for each in caught)


def priced(costs: Costs) -> Costs:
    """The same costs, each distinct task priced once: what tells tasks apart is their work, not where they stand.

    Layers after the first may differ in attention alone.
    """
    known_us: dict[tuple[Any, ...], float] = {}

    def us(task: Task) -> float:
        attends = not task.kind.is_chunked and task.kind is not Kind.SHARED
        work = (task.kind, task.layer if attends else min(task.layer, 1), task.tokens, task.groups, task.rank)
        found = known_us.get(work)
        if found is None:
            found = known_us[work] = costs(task)
        return found

    return us
