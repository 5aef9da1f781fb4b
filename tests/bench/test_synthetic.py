"""The short form of the validation, with timed waits in place of computation (synthetic): schedules, links and hosts.

Durations are milliseconds, so that what is asserted is the structure of the prediction and the order of the schedules.
"""

from pathlib import Path

import pytest

pytest.importorskip("torch")

from realrun import campaign
from realrun.calibrate import profile_from
from realrun.cases import Case
from realrun.validate import evaluate

WAITS = {"attention": 3000.0, "shared": 1000.0, "expert": 2500.0}
DEGREES = [("naive", "asas", 1, 1), ("pppipe", "asas", 2, 1), ("pppipe", "asas", 3, 1)]
DEGREES += [("findep", order, r1, r2) for order in ("asas", "aass") for r1 in (1, 2, 3) for r2 in (2, 3)]
DEGREES += [("findep", "A0 A1 S0 A2 S1 S2", 3, 2)]


def test_predictions_of_synthetic_runs_hold(tmp_path: Path) -> None:
    cases = [
        Case("deepseek-v2-lite", 3, 32, 1, 1, 1, policy, order, r1, r2, 0.125, synthetic=WAITS, link_mbytes_per_s=100)
        for policy, order, r1, r2 in DEGREES
    ]
    found = campaign.measure(campaign.Campaign(cases, 3, backend="gloo"), tmp_path)
    result = evaluate(cases, profile_from(found.points, "synthetic", ""), found)
    errors = (result["median_abs_error_pct"], result["p95_abs_error_pct"], result["spearman"])
    assert result["median_abs_error_pct"] <= 1.5, errors
    assert result["p95_abs_error_pct"] <= 5, errors
    assert result["spearman"] >= 0.98, errors


def test_wrong_models_of_a_synthetic_run_are_rejected(tmp_path: Path) -> None:
    """Over a link that decides, the data tells every wrong model from the right one."""
    waits = {"attention": 1500.0, "shared": 1500.0, "expert": 700.0}
    cases = [
        Case("deepseek-v2-lite", 3, 32, 1, 1, 1, policy, order, r1, r2, 0.125, synthetic=waits, link_mbytes_per_s=rate)
        for policy, order, r1, r2 in DEGREES
        for rate in (40, 120)
    ]
    found = campaign.measure(campaign.Campaign(cases, 3, backend="gloo"), tmp_path)
    result = evaluate(cases, profile_from(found.points, "synthetic", ""), found)
    assert {row["model"]: row["rejected"] for row in result["power"]} == {
        "the model": None,
        "link 10 % slower": True,
        "half duplex": True,
        "unlimited link concurrency": True,
        "AASS and ASAS swapped": True,
        "one dependency removed": True,
        "experts 1.2 times as long": True,
    }
