"""Scores of predictions over many schedules: how large the errors are, and how well they rank.

A schedule is (predicted makespan, measured makespans). Regret is what choosing by prediction costs:
how much slower the schedule predicted to be best really is than the one that really is best,
averaged over workloads. Ranks within a group are those of schedules of one shape over one link.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from realrun.cases import Case

BOOTSTRAPS = 2000
Found = tuple[float, Sequence[float]]  # predicted makespan, measured ones


def error_pct(predicted: float, measured: float) -> float:
    return 100 * (predicted - measured) / measured


def size(errors: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile of the absolute error, and the mean error, in percent."""
    absolute = np.abs(errors)
    return {
        "median_abs_pct": float(np.median(absolute)),
        "p95_abs_pct": float(np.quantile(absolute, 0.95)),
        "bias_pct": float(np.mean(errors)),
    }


def scores(cases: Sequence[Case], found: Sequence[Found]) -> dict[str, Any]:
    """Every score of some predictions; null where there are too few schedules for it."""
    medians = [(predicted, float(np.median(spans))) for predicted, spans in found]
    in_group = [
        spearman(group)
        for group in grouped([c.link_group for c in cases], medians)
        if len(group) > 2
    ]
    known = [value for value in in_group if value is not None]
    workloads = [c.workload for c in cases]
    regrets = [_regret(group) for group in grouped(workloads, medians) if len(group) > 1]
    apart, wrong = order_errors(grouped(workloads, found))
    return size([error_pct(*pair) for pair in medians]) | {
        "spearman": spearman(medians),
        "spearman_in_group": float(np.mean(known)) if known else None,
        "pairs": {"told_apart": apart, "ordered_wrongly": wrong},
        "regret_pct": float(np.mean(regrets)) if regrets else None,
        "regret_max_pct": max(regrets, default=None),
    }


def grouped(keys: Sequence[Hashable], items: Sequence[Any]) -> list[list[Any]]:
    """The items of each key, in order of the first of them."""
    groups: dict[Hashable, list[Any]] = defaultdict(list)
    for key, item in zip(keys, items, strict=True):
        groups[key].append(item)
    return list(groups.values())


def spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Rank correlation of predicted and measured; None for fewer than two different values of
    either."""
    predicted, measured = zip(*pairs, strict=True)
    if min(len(set(predicted)), len(set(measured))) < 2:
        return None
    return float(stats.spearmanr(predicted, measured).statistic)


def interval(spans: Sequence[float], seed: int) -> list[float]:
    """95 % bootstrap interval of the median of some makespans."""
    draws = np.random.default_rng(seed).choice(np.asarray(spans), (BOOTSTRAPS, len(spans)))
    return [float(q) for q in np.quantile(np.median(draws, axis=1), [0.025, 0.975])]


def noise_pct(spans: Sequence[float]) -> float:
    """Test-retest difference: between the medians of the even and of the odd runs, relative; 0 for
    one run."""
    if len(spans) < 2:
        return 0.0
    even, odd = np.median(spans[::2]), np.median(spans[1::2])
    return float(200 * abs(even - odd) / (even + odd))


def order_errors(groups: Sequence[Sequence[Found]]) -> tuple[int, int]:
    """(pairs of schedules of one workload that the measurement tells apart, those that the
    prediction orders wrongly).

    Each schedule is (predicted, makespans measured); a pair is told apart if the medians differ by
    more than two standard errors of a median, 1.25 s / sqrt(n), taken together.
    """
    apart = wrong = 0
    for group in groups:
        several = [(p, m) for p, m in group if len(m) > 1]
        rows = [
            (p, float(np.median(m)), 1.25 * float(np.std(m, ddof=1)) / len(m) ** 0.5)
            for p, m in several
        ]
        for index, (p1, m1, e1) in enumerate(rows):
            for p2, m2, e2 in rows[index + 1 :]:
                if abs(m1 - m2) > 2 * np.hypot(e1, e2):
                    apart += 1
                    wrong += (p1 - p2) * (m1 - m2) < 0
    return apart, wrong


def _regret(group: Sequence[tuple[float, float]]) -> float:
    _, chosen = min(group)
    return 100 * (chosen / min(measured for _, measured in group) - 1)
