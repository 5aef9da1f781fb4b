"""The short form of the validation: timed waits in place of computation (synthetic), real ranks,
posts and deliveries.

What it asserts are the structure of the prediction and the order of the schedules, on 1+1, 2+2 and
3+5 ranks. It is the one test that depends on a clock: a machine that is busy with something else
for a moment gets a second chance.
"""

from pathlib import Path

import pytest

pytest.importorskip("torch")

from realrun.calibration.profile import profile_from
from realrun.cases import Case
from realrun.validation.campaign import Campaign, measure
from realrun.validation.evaluate import Evidence, evaluate

WAITS = {"attention": 18000.0, "shared": 6000.0, "expert": 12000.0}  # us
DEGREES = [("naive", "asas", 1, 1), ("pppipe", "asas", 2, 1), ("pppipe", "asas", 3, 1)]
DEGREES += [("findep", "asas", 1, 2), ("findep", "aass", 2, 2), ("findep", "asas", 2, 3)]
RANKS = [(1, 1), (2, 2), (3, 5)]
CASES = [
    Case(
        "deepseek-v2-lite", 2, 32, 1, ag, eg, *degree, 0.125, synthetic=WAITS, link_mbytes_per_s=14
    )
    for ag, eg in RANKS
    for degree in DEGREES
]


def errors(folder: Path) -> tuple[float, float, list[float]]:
    """(median and 95th percentile of the absolute error, rank correlation on each number of
    ranks)."""
    found = measure(Campaign(CASES, 2, backend="gloo"), folder)
    result = evaluate(Evidence(CASES, profile_from(found.points, "synthetic", ""), found))
    correlations = [group["spearman"] for group in result["by_group"]]
    return result["median_abs_error_pct"], result["p95_abs_error_pct"], correlations


def test_predictions_of_synthetic_runs_hold(tmp_path: Path) -> None:
    for attempt in ("first", "second"):
        median, p95, correlations = found = errors(tmp_path / attempt)
        if median <= 1.5 and p95 <= 5 and min(correlations) >= 0.98:
            return
    pytest.fail(f"median %, p95 %, Spearman by ranks: {found}")
