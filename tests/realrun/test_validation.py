"""Validation: what is made of measurements, without measuring, and once with."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from cases import SMALL, small_case
from schedules import naive

from realrun.calibration.profile import in_situ
from realrun.cases import Case, load_cases
from realrun.cli import main
from realrun.runtime.stamps import Stamps, timeline_of
from realrun.validation.campaign import CampaignMeasurements
from realrun.validation.case_sets import standard_cases
from realrun.validation.evaluate import Evidence, trained, validation_result
from realrun.validation.report import table_of
from realrun.validation.trial import model_of
from simdep.hardware.profile import Cost, HardwareProfile, load_hardware
from simdep.timeline import Timeline

CASES = [
    small_case(scale=0.125, layers=2, m_a=4, policy="naive"),
    small_case(scale=0.125, layers=2, m_a=2, policy="pppipe", r1=2),
    small_case(scale=0.125, layers=2, m_a=4, policy="findep", r2=2),
]
PROFILE = HardwareProfile(
    "made-up",
    "",
    tuple(Cost(op, 10.0, 1e-4, "assumed", "test") for op in ("gemm", "attention", "link")),
)


def stretched(timeline: Timeline, factor: float) -> Timeline:
    rows = timeline.rows.assign(
        start_us=timeline.rows["start_us"] * factor, end_us=timeline.rows["end_us"] * factor
    )
    return Timeline(timeline.schedule, "real", rows)


def result_of(factors: list[list[float]], cases: list[Case] = CASES) -> dict[str, Any]:
    return validation_result(Evidence(cases, PROFILE, measured(factors)))


def measured(factors: list[list[float]]) -> CampaignMeasurements:
    """Each case measured as its prediction times its factors."""
    runs = {
        i: [stretched(model_of(CASES[i], PROFILE).timeline(), f) for f in row]
        for i, row in enumerate(factors)
    }
    return CampaignMeasurements(timelines=runs)


def test_an_error_is_predicted_minus_measured_relative_to_measured() -> None:
    result = result_of([[2.0], [1.0], [0.8]])
    assert [row["error_pct"] for row in result["schedules"]] == pytest.approx([-50, 0, 25])
    assert result["median_abs_error_pct"] == pytest.approx(25)


def test_the_measured_makespan_is_the_median_and_its_interval_holds_it() -> None:
    row = result_of([[1.0, 1.1, 3.0], [1.0], [1.0]])["schedules"][0]
    assert row["measured_us"] == pytest.approx(1.1 * row["predicted_us"])
    low, high = row["ci_us"]
    assert low <= row["measured_us"] <= high


def test_rank_correlation_is_1_for_the_same_order_and_regret_0_for_the_right_choice() -> None:
    result = result_of([[1.1], [1.1], [1.1]])
    assert result["spearman"] == pytest.approx(1)
    assert result["regret_pct"] == 0


def test_regret_is_the_loss_of_trusting_the_prediction() -> None:
    honest = result_of([[1.0], [1.0], [1.0]])["schedules"]
    best = min(range(3), key=lambda i: honest[i]["predicted_us"])
    factors = [[1.0], [1.0], [1.0]]
    factors[best] = [10.0]
    result = result_of(factors)
    second = min(honest[i]["predicted_us"] for i in range(3) if i != best)
    assert result["regret_pct"] == pytest.approx(
        100 * (10 * honest[best]["predicted_us"] / second - 1)
    )


def test_statistics_that_one_schedule_cannot_have_are_null() -> None:
    result = result_of([[1.0]], CASES[:1])
    assert result["spearman"] is None
    assert result["regret_pct"] is None
    json.dumps(result)
    assert len(table_of(result)) == 1


def test_a_transfer_lasts_from_the_last_post_or_the_free_lane_to_its_arrival() -> None:
    """Two senders, one receiver; nanoseconds in, microseconds out; waiting before the posts does
    not count."""
    schedule = naive(1)
    ag = [
        Stamps(
            [("A[0.0]", 1000, 5000), ("S[0.0]", 5000, 6000)],
            {"A2E[0.0.0]": 6000},
            {"E2A[0.0.0]": 21000},
        ),
        Stamps(
            [("A[0.0]", 2000, 7000), ("S[0.0]", 7000, 8000)],
            {"A2E[0.0.0]": 8000},
            {"E2A[0.0.0]": 22000},
        ),
    ]
    eg = [Stamps([("E[0.0.0]", 11000, 18000)], {"E2A[0.0.0]": 18000}, {"A2E[0.0.0]": 10000})]
    timeline = timeline_of(schedule, 2, [*ag, *eg])
    tasks = timeline.by_task()
    assert tuple(tasks.loc["A2E[0.0.0]", ["start_us", "end_us"]]) == (7, 9)
    assert tuple(tasks.loc["E2A[0.0.0]", ["start_us", "end_us"]]) == (17, 21)
    assert tuple(tasks.loc["A[0.0]", ["start_us", "end_us"]]) == (0, 6)
    assert timeline.makespan_us == 21


def test_a_calibration_in_situ_brings_stage_costs_to_the_speed_of_training_runs() -> None:
    case = CASES[0]
    shape = case.scenario.shape
    stages = tuple(
        Cost(f"stage.{name}", 100.0, 1.0, "assumed", "test", 1, 1, shape)
        for name in ("attention", "combine", "shared", "expert")
    )
    profile = replace(PROFILE, costs=(*PROFILE.costs, *stages))
    runs = [stretched(model_of(case, profile).timeline(), 1.25)]
    corrected = in_situ(profile, [(case, runs)])
    expert = corrected.find("stage.expert", ag=1, eg=1, shape=shape)
    assert expert is not None
    assert expert.alpha_us == pytest.approx(125)
    assert corrected.find("link") == profile.find("link")


def test_training_schedules_are_left_out_of_the_score() -> None:
    evidence = Evidence(CASES, PROFILE, measured([[1.0], [1.0], [1.0]]))
    assert len(validation_result(trained(evidence, 1, seed=0))["schedules"]) == 2
    with pytest.raises(
        ValueError, match="--in-situ=3 leaves none of the 3 schedules of a shape to predict"
    ):
        trained(evidence, 3, seed=0)


def test_the_parts_of_an_error_sum_to_it() -> None:
    for row in result_of([[1.1, 1.2], [0.9], [1.3, 1.25, 1.0]])["schedules"]:
        assert sum(row["parts_pct"].values()) == pytest.approx(row["error_pct"])


def test_a_run_that_only_computes_slower_errs_in_tasks_and_link_alone() -> None:
    """Stretching all of a timeline lengthens tasks and transfers, but nothing between them."""
    parts = result_of([[1.25], [1.25], [1.25]])["schedules"][1]["parts_pct"]
    assert parts["tasks"] + parts["link"] == pytest.approx(-20)
    assert parts["host"] == pytest.approx(0, abs=1e-9)
    assert parts["waits"] == pytest.approx(0, abs=1e-9)


def test_the_standard_schedules_include_the_quick_ones() -> None:
    quick, more = standard_cases("quick"), standard_cases("full")
    assert len(quick) == 24
    assert len({json.dumps(case.to_dict()) for case in more}) == len(more) >= 150
    assert {case.scenario.policy for case in quick} == {"naive", "pppipe", "findep"}


def test_validate_runs_writes_and_says_when_the_tolerance_is_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = tmp_path / "cases.json"
    cases.write_text(
        json.dumps(
            [SMALL | {"policy": "naive", "order": None}, SMALL | {"policy": "findep", "r2": 3}]
        )
    )
    assert len(load_cases(cases)) == 2
    out = tmp_path / "out"
    command = [
        "validate",
        "--schedules",
        str(cases),
        "--rounds",
        "1",
        "--out",
        str(out),
        "--json",
        "--backend",
        "gloo",
    ]
    assert main([*command, "--tolerance", "0"]) == 4
    said = capsys.readouterr()
    assert "is above the tolerance of 0 %" in said.err
    result = json.loads(said.out)
    assert {"median_abs_error_pct", "p95_abs_error_pct", "spearman", "regret_pct"} <= set(result)
    for line in result["schedules"]:
        assert {
            *SMALL,
            "policy",
            "order",
            "r1",
            "r2",
            "predicted_us",
            "measured_us",
            "ci_us",
            "error_pct",
        } <= set(line)
    assert load_hardware(str(out / "profile.json")).find("stage.expert", ag=1, eg=1) is None
    assert (out / "cases" / "001" / "measured.csv").exists()
    assert "Predicted against measured" in (out / "report.html").read_text()
    assert (
        main([*command, "--tolerance", "1e9"]) == 0
    )  # goes on from what is in the folder: nothing is left to run
    assert json.loads(capsys.readouterr().out)["schedules"] == [
        {key: value for key, value in line.items()} for line in result["schedules"]
    ]
