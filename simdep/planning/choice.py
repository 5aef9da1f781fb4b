"""A choice: a policy with the parameters that it was given, and what it comes to on a scenario.

A policy is chosen by a text that may carry its parameters: `findep`, `findep:r1=2,r2=4,order=aass`,
`pppipe:r1=3`. The workload stays as it is: r1 divides the samples of an AG GPU, whatever m_a that
gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from simdep.checks import InputError, integer, known
from simdep.planning.problem import Problem
from simdep.planning.solver import Solution, solve
from simdep.policies import Adapted, Policy, adapted, changes_between, find, set_up
from simdep.prediction import Prediction, simulate
from simdep.scenario.spec import Scenario

CHOICE_PARAMETERS = ("order", "r1", "r2")


@dataclass(frozen=True)
class Choice:
    """A policy with the parameters that it was given; one that is None is the scenario's, if the
    policy has it."""

    policy: str
    order: str | None = None
    r1: int | None = None
    r2: int | None = None

    @classmethod
    def parse(cls, text: str, find: Callable[[str], Policy] = find) -> Choice:
        """From `POLICY` or `POLICY:r1=2,r2=4,order=aass`; raises InputError for the part at fault.

        `find` gives the policy of a name; that of a command line also knows `FILE.py:POLICY`.
        """
        name, rest = _split(text)
        policy = find(name).name
        parameters: dict[str, Any] = {}
        for part in rest.split(",") if rest else ():
            key, equals, value = (word.strip() for word in part.partition("="))
            known(key, CHOICE_PARAMETERS, f"parameter in policy {text!r}:")
            if not equals or not value or key in parameters:
                raise InputError(f"policy {text!r}: write each parameter once, as {key}=VALUE")
            if key == "order":
                parameters[key] = value
            else:
                parameters[key] = integer(int(value) if value.isdigit() else value, key)
        return cls(policy, **parameters)

    @classmethod
    def of_solution(cls, solution: Solution) -> Choice:
        """The policy and the parameters of the best configuration."""
        best = solution.best
        order = best.order if best.policy == "findep" else None
        return cls(best.policy, order, best.r1, best.r2)

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that were given."""
        values = {name: getattr(self, name) for name in CHOICE_PARAMETERS}
        return {name: value for name, value in values.items() if value is not None}

    def of(self, scenario: Scenario) -> Adapted:
        """The scenario under this policy, on as many GPUs, and what else that changes.

        Raises InputError if the policy can't be asked that, or if an r1 that was given does not
        divide the samples.
        """
        found = adapted(scenario, self.policy, **self.parameters)
        same_groups = found.scenario.deployment.ag == scenario.deployment.ag
        if self.r1 and same_groups and scenario.has_model and not scenario.micro_batches:
            replace(set_up(scenario).scenario, r1=self.r1, chunks=())  # raises
        return found

    def __str__(self) -> str:
        listed = ",".join(f"{name}={value}" for name, value in self.parameters.items())
        return f"{self.policy}:{listed}" if listed else self.policy


def simulate_choice(choice: Choice, scenario: Scenario) -> Prediction:
    """A policy simulated on a scenario, on as many GPUs; raises InputError where it does not
    fit."""
    found = choice.of(scenario)
    prediction = simulate(found.scenario)
    return replace(
        prediction,
        assumed=(*found.assumptions, *prediction.assumed),
        changes=_besides_parameters(found.changes),
    )


def simulate_solution(solution: Solution) -> Prediction:
    """The best configuration of a solution, simulated; raises InputError for one of stage costs
    alone."""
    scenario, best = solution.problem.scenario, solution.best
    if scenario is None:
        raise InputError("the solution is one of stage costs alone; give one of a scenario")
    choice = Choice.of_solution(solution)
    samples = replace(scenario.workload, samples=best.r1 * best.m_a)
    chosen = replace(
        scenario,
        workload=samples,
        policy=choice.policy,
        order=choice.order or scenario.order,
        r1=best.r1,
        r2=best.r2,
        micro_batches=(),
        chunks=(),
    )
    changes = changes_between(scenario, chosen, find(choice.policy))
    return replace(simulate(chosen), changes=_besides_parameters(changes))


def solve_samples(scenario: Scenario) -> Solution:
    """The fastest policy, order and granularity of the scenario's samples.

    Raises InputError for what the solver does not model, InfeasibleError where the samples do not
    fit into memory.
    """
    return solve(Problem.of(scenario, scenario.workload.samples))


def _besides_parameters(changes: Iterable[str]) -> tuple[str, ...]:
    """Changes without those of parameters, which stand in the label of the schedule."""
    starts = tuple(f"{name}=" for name in CHOICE_PARAMETERS)
    return tuple(change for change in changes if not change.startswith(starts))


def _split(text: str) -> tuple[str, str]:
    """The name of a policy, and its parameters; the name may be FILE.py:NAME."""
    name, _, rest = text.partition(":")
    if name.endswith(".py"):
        inner, _, rest = rest.partition(":")
        name = f"{name}:{inner}"
    return name.strip(), rest
