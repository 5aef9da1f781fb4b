"""Scores of predictions over many schedules: how large the errors are, and how well they rank.

Regret is what choosing by prediction costs: how much slower the schedule predicted to be best
really is than the one that really is best, averaged over workloads. Ranks within a group are those
of schedules of one shape over one link.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
from scipy import stats

from realrun.cases import Case

BOOTSTRAPS = 2000
MEDIAN_ERROR = 1.25  # standard error of a median over that of a mean
T = TypeVar("T")


@dataclass(frozen=True)
class Comparison:
    """The predicted makespan of a case beside the measured ones."""

    case: Case
    predicted_us: float
    measured_us: Sequence[float]

    @cached_property
    def median_us(self) -> float:
        """The measured makespan."""
        return float(np.median(self.measured_us))

    @property
    def error_pct(self) -> float:
        return error_pct(self.predicted_us, self.median_us)

    @cached_property
    def standard_error_us(self) -> float:
        """Of the median; several runs are needed."""
        runs = len(self.measured_us)
        return MEDIAN_ERROR * float(np.std(self.measured_us, ddof=1)) / math.sqrt(runs)


def error_pct(predicted: float, measured: float) -> float:
    return 100 * (predicted - measured) / measured


def error_sizes(errors: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile of the absolute error, and the mean error, in percent."""
    absolute = np.abs(errors)
    return {
        "median_abs_pct": float(np.median(absolute)),
        "p95_abs_pct": float(np.quantile(absolute, 0.95)),
        "bias_pct": float(np.mean(errors)),
    }


def scores(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Every score of some predictions; null where there are too few schedules for it."""
    in_group = []
    for group in grouped(comparisons, lambda one: one.case.link_group):
        correlation = spearman(group) if len(group) > 2 else None
        if correlation is not None:
            in_group.append(correlation)
    workloads = grouped(comparisons, lambda one: one.case.workload)
    regrets = [_regret_pct(group) for group in workloads if len(group) > 1]
    distinct, wrong = order_errors(workloads)
    return error_sizes([comparison.error_pct for comparison in comparisons]) | {
        "spearman": spearman(comparisons),
        "spearman_in_group": float(np.mean(in_group)) if in_group else None,
        "pairs": {"told_apart": distinct, "ordered_wrongly": wrong},
        "regret_pct": float(np.mean(regrets)) if regrets else None,
        "regret_max_pct": max(regrets, default=None),
    }


def grouped(items: Iterable[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    """The items of each key, in order of the first of them."""
    groups: dict[Hashable, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return list(groups.values())


def spearman(comparisons: Sequence[Comparison]) -> float | None:
    """Rank correlation of predicted and measured; None for fewer than two different values of
    either."""
    predicted = [comparison.predicted_us for comparison in comparisons]
    measured = [comparison.median_us for comparison in comparisons]
    if min(len(set(predicted)), len(set(measured))) < 2:
        return None
    return float(stats.spearmanr(predicted, measured).statistic)


def median_interval(makespans: Sequence[float], seed: int) -> list[float]:
    """95 % bootstrap interval of the median of some makespans."""
    draws = np.random.default_rng(seed).choice(np.asarray(makespans), (BOOTSTRAPS, len(makespans)))
    return [float(q) for q in np.quantile(np.median(draws, axis=1), [0.025, 0.975])]


def noise_pct(makespans: Sequence[float]) -> float:
    """Test-retest difference: between the medians of the even and of the odd runs, relative; 0 for
    one run."""
    if len(makespans) < 2:
        return 0.0
    even, odd = np.median(makespans[::2]), np.median(makespans[1::2])
    return float(200 * abs(even - odd) / (even + odd))


def order_errors(workloads: Sequence[Sequence[Comparison]]) -> tuple[int, int]:
    """(pairs of schedules of one workload that the measurement distinguishes, those that the
    prediction orders wrongly).

    A pair is distinct if its medians differ by more than two standard errors of both.
    """
    distinct = wrong = 0
    for workload in workloads:
        repeated = [comparison for comparison in workload if len(comparison.measured_us) > 1]
        for one, other in combinations(repeated, 2):
            measured = one.median_us - other.median_us
            error = np.hypot(one.standard_error_us, other.standard_error_us)
            if abs(measured) > 2 * error:
                distinct += 1
                wrong += (one.predicted_us - other.predicted_us) * measured < 0
    return distinct, wrong


def _regret_pct(workload: Sequence[Comparison]) -> float:
    chosen = min(workload, key=lambda one: (one.predicted_us, one.median_us))
    return 100 * (chosen.median_us / min(one.median_us for one in workload) - 1)
