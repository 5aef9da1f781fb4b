"""Policies side by side on one scenario: one row of results each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pandas as pd

from simdep.checks import InfeasibleError
from simdep.planning.choice import (
    Choice,
    simulate_choice,
    simulate_solution,
    solve_samples,
)
from simdep.planning.solver import Solution
from simdep.policies import Policy, find
from simdep.prediction import Prediction
from simdep.scenario.spec import Scenario
from simdep.units import human_bytes

BEST = "best"  # in place of a policy: what the solver finds for the scenario's samples
Compared = str | Choice | Prediction | Solution


def compare(scenario: Scenario, policies: Iterable[Compared]) -> pd.DataFrame:
    """One row of results for each policy on a scenario, with the speed-up of its throughput over
    the first.

    A policy is a text such as `pppipe:r1=3` or `best`, a prediction, or a solution of
    `simdep.solve`. Another policy than that of the scenario gets as many GPUs and the nearest
    samples that it allows; `changes` lists what that changed. Raises ValueError where a policy does
    not fit.
    """
    return pd.DataFrame(comparison_rows(compared_predictions(scenario, policies)))


def compared_predictions(
    scenario: Scenario, policies: Iterable[Compared], find: Callable[[str], Policy] = find
) -> list[Prediction]:
    """The prediction of every policy; `find` gives the policy of a name."""
    return [_prediction(scenario, policy, find) for policy in policies]


def comparison_rows(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """The rows of a comparison, ready for JSON."""
    rows: list[dict[str, Any]] = []
    for prediction in predictions:
        scenario, row = prediction.scenario, dict(prediction.results)
        deployment, missing = scenario.deployment, row["memory_missing_bytes"]
        row |= {
            "gpus": str(deployment.gpus)
            if deployment.colocated
            else f"{deployment.ag}+{deployment.eg}",
            "samples_per_ag_gpu": scenario.workload.samples,
            "speedup": _ratio(row, rows[0] if rows else row),
            "memory": f"{human_bytes(missing)} missing" if missing else "fits",
            "changes": list(prediction.changes),
        }
        rows.append(row)
    return rows


def _prediction(scenario: Scenario, policy: Compared, find: Callable[[str], Policy]) -> Prediction:
    if isinstance(policy, Prediction):
        return policy
    if isinstance(policy, Solution):
        return simulate_solution(policy)
    try:
        if policy == BEST:
            policy = Choice.of_solution(solve_samples(scenario))
        elif isinstance(policy, str):
            policy = Choice.parse(policy, find)
        return simulate_choice(policy, scenario)
    except ValueError as error:
        raise ValueError(f"{policy}: {error}") from None
    except InfeasibleError as error:
        raise InfeasibleError(f"{policy}: {error}") from None


def _ratio(row: dict[str, Any], first: dict[str, Any]) -> float | None:
    """The speed-up over the first: of the throughput, or without tokens of the makespan."""
    rate, base = row["throughput_tokens_per_s"], first["throughput_tokens_per_s"]
    return rate / base if rate and base else None
