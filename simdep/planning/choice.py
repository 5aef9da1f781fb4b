"""A choice: a policy with the parameters that it was given, and what it comes to on a scenario.

A policy is chosen by a word that may carry its parameters: `findep`, `findep:r1=2,r2=4,order=aass`,
`pppipe:r1=3`. The workload stays as it is: r1 cuts the samples of an AG GPU, whatever m_a that
gives. Times are microseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from simdep.checks import integer, known
from simdep.planning.problem import Problem
from simdep.planning.solver import Solution, solve
from simdep.policies import Adapted, Policy, adapted, find, set_up
from simdep.prediction import Prediction, predict
from simdep.scenario.spec import Scenario

DEGREES = ("order", "r1", "r2")


@dataclass(frozen=True)
class Choice:
    """A policy with the degrees that it was given; one that is None is the scenario's, if the
    policy has it."""

    policy: str
    order: str | None = None
    r1: int | None = None
    r2: int | None = None

    @classmethod
    def parse(cls, text: str, find: Callable[[str], Policy] = find) -> Choice:
        """From `POLICY` or `POLICY:r1=2,r2=4,order=aass`; raises ValueError for the part at fault.

        `find` is what knows policies by their words; that of a command line also knows
        `FILE.py:POLICY`.
        """
        word, rest = _split(text)
        policy = find(word).name
        given: dict[str, Any] = {}
        for part in rest.split(",") if rest else ():
            key, equals, value = (each.strip() for each in part.partition("="))
            known(key, DEGREES, f"degree in policy {text!r}:")
            if not equals or not value or key in given:
                raise ValueError(f"policy {text!r}: write each degree once, as {key}=VALUE")
            given[key] = (
                value if key == "order" else integer(int(value) if value.isdigit() else value, key)
            )
        return cls(policy, **given)

    def of(self, scenario: Scenario) -> Adapted:
        """The scenario under this policy, on as many GPUs, and what else that changes.

        Raises ValueError if the policy can't be asked that, or if an r1 that was given does not
        divide the samples.
        """
        given = {key: getattr(self, key) for key in DEGREES}
        found = adapted(scenario, self.policy, **given)
        if (
            self.r1
            and found.scenario.deployment.ag == scenario.deployment.ag
            and not scenario.micro_batches
        ):
            replace(set_up(scenario).scenario, r1=self.r1, chunks=())  # raises
        return found

    def __str__(self) -> str:
        given = {key: getattr(self, key) for key in DEGREES if getattr(self, key) is not None}
        return (
            self.policy
            + ":" * bool(given)
            + ",".join(f"{key}={value}" for key, value in given.items())
        )


def best(scenario: Scenario) -> Choice:
    """The fastest policy, order and cut of the scenario's samples; raises ValueError for what the
    solver has not.

    InfeasibleError where they do not fit into memory.
    """
    return choice_of(solution(scenario))


def solution(scenario: Scenario) -> Solution:
    """What the solver finds for the scenario's samples."""
    return solve(Problem.of(scenario, scenario.workload.samples))


def choice_of(solution: Solution) -> Choice:
    """The best policy of a solution, as a word can give it."""
    found = solution.best
    return Choice(
        found.policy, found.order if found.policy == "findep" else None, found.r1, found.r2
    )


def _split(text: str) -> tuple[str, str]:
    """The word of a policy, and its degrees; the word may be FILE.py:NAME."""
    word, _, rest = text.partition(":")
    if word.endswith(".py"):
        name, _, rest = rest.partition(":")
        word = f"{word}:{name}"
    return word.strip(), rest


def under(choice: Choice, scenario: Scenario) -> Prediction:
    """A policy simulated on a scenario, on as many GPUs; raises ValueError where it does not
    fit."""
    found = choice.of(scenario)
    own = tuple(f"{key}=" for key in DEGREES)
    prediction = predict(found.scenario)
    return replace(
        prediction,
        notes=(*found.assumptions, *prediction.notes),
        changes=tuple(each for each in found.changes if not each.startswith(own)),
    )
