"""Policies side by side on one scenario: one row of results each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd

from simdep.analysis.metrics import headed
from simdep.checks import InfeasibleError, InputError
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
SHOWN_METRICS = (  # of a comparison that people read
    "makespan_us",
    "throughput_tokens_per_s",
    "throughput_tokens_per_s_per_gpu",
    "ag_bubble_pct",
    "eg_bubble_pct",
    "exposed_communication_us",
)
Compared = str | Choice | Prediction | Solution


def compare(scenario: Scenario, policies: Iterable[Compared]) -> pd.DataFrame:
    """One row of results for each policy on a scenario, with the speed-up of its throughput over
    the first.

    A policy is a text such as `pppipe:r1=3` or `best`, a prediction, or a solution of
    `simdep.solve`. Another policy than that of the scenario gets as many GPUs and the nearest
    samples that it allows; `changes` lists what that changed. Raises InputError where a policy does
    not fit.
    """
    return pd.DataFrame(comparison_rows(compared_predictions(scenario, policies)))


def compared_predictions(
    scenario: Scenario, policies: Iterable[Compared], find: Callable[[str], Policy] = find
) -> list[Prediction]:
    """The prediction of every policy; `find` gives the policy of a name."""
    return [_prediction(scenario, policy, find) for policy in policies]


def comparison_rows(predictions: Iterable[Prediction]) -> list[dict[str, Any]]:
    """The rows of a comparison, ready for JSON."""
    return with_speedups(map(comparison_row, predictions))


def comparison_row(prediction: Prediction) -> dict[str, Any]:
    """The row of one policy, without its speed-up."""
    row = dict(prediction.results)
    return row | {
        "gpus": _gpus(prediction.scenario),
        "samples_per_ag_gpu": prediction.scenario.workload.samples,
        "speedup": None,
        "memory": _memory(row),
        "changes": list(prediction.changes),
    }


def with_speedups(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the speed-up of each throughput over the first."""
    compared: list[dict[str, Any]] = []
    for row in rows:
        first = compared[0] if compared else row
        compared.append({**row, "speedup": _ratio(row, first)})
    return compared


def readable_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a comparison as people read it, by the headings of its columns."""
    policy = {"policy": row["schedule"], "GPUs": row["gpus"], "m_a": row["m_a"]}
    metrics = headed(row, SHOWN_METRICS)
    return policy | metrics | {"speed-up": row["speedup"], "memory": row["memory"]}


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
        raise InputError(f"{policy}: {error}") from None
    except InfeasibleError as error:
        raise InfeasibleError(f"{policy}: {error}") from None


def _gpus(scenario: Scenario) -> str | None:
    """The GPUs of a deployment, AG+EG; None where only stage times are given."""
    deployment = scenario.deployment
    if not scenario.has_model:
        return None
    if deployment.colocated:
        return str(deployment.gpus)
    return f"{deployment.ag}+{deployment.eg}"


def _memory(row: Mapping[str, Any]) -> str | None:
    """What a table says of memory; None where it is not known."""
    if row["memory_fits"] is None:
        return None
    return "fits" if row["memory_fits"] else f"{human_bytes(row['memory_missing_bytes'])} missing"


def _ratio(row: Mapping[str, Any], first: Mapping[str, Any]) -> float | None:
    """The speed-up of the throughput over the first; None without tokens."""
    rate, base = row["throughput_tokens_per_s"], first["throughput_tokens_per_s"]
    return rate / base if rate and base else None
