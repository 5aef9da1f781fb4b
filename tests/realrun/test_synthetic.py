"""The short form of the validation: timed waits in place of computation (synthetic), real ranks,
posts and deliveries.

What it asserts are the structure of the prediction and the order of the schedules, on 1+1, 2+2 and
3+5 ranks. It is the one test that depends on a clock: a machine that is busy with something else
for a moment gets a second chance.
"""

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from cases import small_case

from realrun.calibration.profile import profile_from
from realrun.cases import Case
from realrun.validation.campaign import Campaign, measure
from realrun.validation.evaluate import Evidence, validation_result

WAITS = {"attention": 18000.0, "shared": 6000.0, "expert": 12000.0}  # us
DEGREES = [("naive", "asas", 1, 1), ("pppipe", "asas", 2, 1), ("pppipe", "asas", 3, 1)]
DEGREES += [("findep", "asas", 1, 2), ("findep", "aass", 2, 2), ("findep", "asas", 2, 3)]
RANKS = [(1, 1), (2, 2), (3, 5)]


def cases() -> list[Case]:
    """Every policy and granularity on every number of ranks."""
    base = {"scale": 0.125, "layers": 2, "seq_len": 32, "link_mbytes_per_s": 14}
    made = []
    for ag, eg in RANKS:
        for policy, order, r1, r2 in DEGREES:
            cut = {"policy": policy, "order": order, "r1": r1, "r2": r2}
            made.append(replace(small_case(ag=ag, eg=eg, **base, **cut), synthetic=WAITS))
    return made


CASES = cases()


def errors(folder: Path) -> tuple[float, float, list[float]]:
    """(median and 95th percentile of the absolute error, rank correlation on each number of
    ranks)."""
    found = measure(Campaign(CASES, 2, backend="gloo"), folder)
    result = validation_result(Evidence(CASES, profile_from(found.points, "synthetic", ""), found))
    correlations = [group["spearman"] for group in result["by_group"]]
    return result["median_abs_error_pct"], result["p95_abs_error_pct"], correlations


def test_predictions_of_synthetic_runs_hold(tmp_path: Path) -> None:
    for attempt in ("first", "second"):
        median, p95, correlations = found = errors(tmp_path / attempt)
        if median <= 1.5 and p95 <= 5 and min(correlations) >= 0.98:
            return
    pytest.fail(f"median %, p95 %, Spearman by ranks: {found}")
