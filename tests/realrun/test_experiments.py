"""The experiments of FinDEP: which schedules compete, and what is made of their makespans."""

from typing import Any

import pytest

pytest.importorskip("torch")

from realrun.validation.experiments import (
    CANDIDATES,
    FIXED_ORDERS,
    INSTANCES,
    LOOKAHEAD,
    RATES,
    as_table,
    gains,
    speedups,
)
from simdep.simulation.longest_path import longest_path_us


def test_candidates_of_one_row_do_the_same_work() -> None:
    for rows in CANDIDATES.values():
        for cases in rows().values():
            assert len({(case.workload, case.schedule.tokens) for case in cases}) == 1


def test_the_candidates_of_a_speedup_compete_over_the_same_link_on_the_same_samples() -> None:
    rows = CANDIDATES["speedup"]()
    assert list(rows) == [(rate, policy) for rate in RATES for policy in ("pppipe", "findep")]
    assert all(
        case.scenario.workload.samples == 8 and case.speed.mbytes_per_s == key[0]
        for key in rows
        for case in rows[key]
    )


def test_a_speedup_is_the_ratio_of_makespans_with_the_interval_of_both() -> None:
    def row(
        rate: float, policy: str, predicted: float, measured: float, ci: list[float]
    ) -> dict[str, Any]:
        found = {"policy": policy, "link_mbytes_per_s": rate, "label": policy}
        found |= {"predicted_us": predicted, "measured_us": measured, "ci_us": ci}
        return found | {
            "adjusted_predicted_us": predicted,
            "adjusted_measured_us": predicted,
            "adjusted_ci_us": [predicted, predicted],
        }

    makespans = (("pppipe", 120.0, 130.0, [110.0, 143.0]), ("findep", 100.0, 104.0, [100.0, 110.0]))
    rows = {(rate, makespan[0]): row(rate, *makespan) for rate in RATES for makespan in makespans}
    found = speedups(rows)
    assert [row["link_mbytes_per_s"] for row in found] == list(RATES)
    assert found[0]["predicted"] == pytest.approx(1.2)
    assert found[0]["measured"] == pytest.approx(1.25)
    assert found[0]["ci"] == pytest.approx([1.0, 1.43])
    assert found[0]["difference_points"] == pytest.approx(-5)
    assert found[0]["equal_speed_measured"] == pytest.approx(1.2)
    table = as_table("speedup", {"speedups": found})
    assert table["speed-up difference, points"].tolist() == ["-5.0"] * 3
    assert table["at equal speed: measured"].tolist() == ["1.200 (1.200 .. 1.200)"] * 3


def test_a_gain_is_that_over_the_fixed_order_which_is_predicted_to_be_faster() -> None:
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name in INSTANCES:
        for order, us in {"asas": 130.0, "aass": 110.0, "lookahead": 100.0}.items():
            times = {
                f"{prefix}{word}_us": us
                for prefix in ("", "adjusted_")
                for word in ("predicted", "measured")
            }
            rows[name, order] = times | {"ci_us": [us, us], "adjusted_ci_us": [us, us]}
    found = gains(rows)
    assert [row["instance"] for row in found] == list(INSTANCES)
    assert {row["fixed"] for row in found} == {"aass"}
    assert found[0]["predicted"] == found[0]["measured"] == 1.1
    assert as_table("orders", {"speedups": found})["look-ahead predicted"].tolist() == ["1.100"] * 3


def test_the_look_ahead_order_is_predicted_to_gain_where_the_experiment_says_so() -> None:
    found = []
    candidates = CANDIDATES["orders"]()
    for name, instance in INSTANCES.items():
        spans = {
            order: longest_path_us(candidates[name, order][0].schedule, instance.times)
            for order in (*FIXED_ORDERS, LOOKAHEAD)
        }
        found.append(min(spans[order] for order in FIXED_ORDERS) / spans[LOOKAHEAD])
    assert found[0] > 1.1
    assert found[1] > 1.1
    assert found[2] == 1
