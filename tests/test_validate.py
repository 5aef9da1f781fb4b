"""Calibration and validation: what is made of measurements, without measuring, and once with."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from realrun.__main__ import main
from realrun.calibrate import collect, new_points, profile_from, stage_jobs
from realrun.campaign import Measurements
from realrun.cases import Case, load_cases, standard_cases
from realrun.executor import Stamps
from realrun.measured import timeline_of
from realrun.validate import evaluate, predict, table_of
from simdep.hardware import Cost, HardwareProfile, load_hardware
from simdep.policies import naive
from simdep.timeline import Timeline

CASES = [
    Case("deepseek-v2-lite", 2, 16, 4, 1, 1, "naive", scale=0.125),
    Case("deepseek-v2-lite", 2, 16, 2, 1, 1, "pppipe", r1=2, scale=0.125),
    Case("deepseek-v2-lite", 2, 16, 4, 1, 1, "findep", r2=2, scale=0.125),
]
PROFILE = HardwareProfile(
    "made-up", "", tuple(Cost(op, 10.0, 1e-4, "assumed", "test") for op in ("gemm", "attention", "link"))
)


def stretched(timeline: Timeline, factor: float) -> Timeline:
    rows = timeline.rows.assign(start_us=timeline.rows["start_us"] * factor, end_us=timeline.rows["end_us"] * factor)
    return Timeline(timeline.schedule, "real", rows)


def measured(factors: list[list[float]]) -> Measurements:
    """Each case measured as its prediction times its factors."""
    runs = {i: [stretched(predict(CASES[i], PROFILE), f) for f in row] for i, row in enumerate(factors)}
    return Measurements(timelines=runs)


def test_an_error_is_predicted_minus_measured_relative_to_measured() -> None:
    result = evaluate(CASES, PROFILE, measured([[2.0], [1.0], [0.8]]))
    assert [row["error_pct"] for row in result["schedules"]] == pytest.approx([-50, 0, 25])
    assert result["median_abs_error_pct"] == pytest.approx(25)


def test_the_measured_makespan_is_the_median_and_its_interval_holds_it() -> None:
    row = evaluate(CASES, PROFILE, measured([[1.0, 1.1, 3.0], [1.0], [1.0]]))["schedules"][0]
    assert row["measured_us"] == pytest.approx(1.1 * row["predicted_us"])
    low, high = row["ci_us"]
    assert low <= row["measured_us"] <= high


def test_rank_correlation_is_1_for_the_same_order_and_regret_0_for_the_right_choice() -> None:
    result = evaluate(CASES, PROFILE, measured([[1.1], [1.1], [1.1]]))
    assert result["spearman"] == pytest.approx(1)
    assert result["regret_pct"] == 0


def test_regret_is_the_loss_of_trusting_the_prediction() -> None:
    honest = evaluate(CASES, PROFILE, measured([[1.0], [1.0], [1.0]]))["schedules"]
    best = min(range(3), key=lambda i: honest[i]["predicted_us"])
    factors = [[1.0], [1.0], [1.0]]
    factors[best] = [10.0]
    result = evaluate(CASES, PROFILE, measured(factors))
    second = min(honest[i]["predicted_us"] for i in range(3) if i != best)
    assert result["regret_pct"] == pytest.approx(100 * (10 * honest[best]["predicted_us"] / second - 1))


def test_statistics_that_one_schedule_cannot_have_are_null() -> None:
    result = evaluate(CASES[:1], PROFILE, measured([[1.0]]))
    assert result["spearman"] is None
    assert result["regret_pct"] is None
    json.dumps(result)
    assert len(table_of(result)) == 1


def test_a_transfer_lasts_from_the_last_post_or_the_free_lane_to_its_arrival() -> None:
    """Two senders, one receiver; nanoseconds in, microseconds out; waiting before the posts does not count."""
    schedule = naive(1)
    ag = [
        Stamps([("A[0.0]", 1000, 5000), ("S[0.0]", 5000, 6000)], {"A2E[0.0.0]": 6000}, {"E2A[0.0.0]": 21000}),
        Stamps([("A[0.0]", 2000, 7000), ("S[0.0]", 7000, 8000)], {"A2E[0.0.0]": 8000}, {"E2A[0.0.0]": 22000}),
    ]
    eg = [Stamps([("E[0.0.0]", 11000, 18000)], {"E2A[0.0.0]": 18000}, {"A2E[0.0.0]": 10000})]
    timeline = timeline_of(schedule, 2, [*ag, *eg])
    tasks = timeline.by_task()
    assert tuple(tasks.loc["A2E[0.0.0]", ["start_us", "end_us"]]) == (7, 9)
    assert tuple(tasks.loc["E2A[0.0.0]", ["start_us", "end_us"]]) == (17, 21)
    assert tuple(tasks.loc["A[0.0]", ["start_us", "end_us"]]) == (0, 6)
    assert timeline.makespan_us == 21


def test_calibration_points_become_lines_for_their_ranks_and_shape() -> None:
    case, points = CASES[0], new_points()
    ag = {
        "times": {kind: {"16": [10, 10], "32": [20, 20], "64": [40, 41]} for kind in ("attention", "shared", "combine")}
    }
    eg = {"times": {"expert": {"8": [5, 6], "16": [7, 7], "32": [9, 9]}}}
    collect(points, {"job": "stages"}, [ag, eg], case)
    trains = [
        {"stream": s, "bytes": b, "posted": [0, 0], "arrived": [b, 3 * b]}
        for s in ("A2E", "E2A")
        for b in (1e3, 2e3, 3e3)
    ]
    collect(points, {"job": "link"}, [{"trains": trains}] * 2, case)
    profile = profile_from(points, "p", "")
    expert = profile.find("stage.expert", ag=1, eg=1, shape="deepseek-v2-lite@0.125 prefill seq_len=16 fp32")
    assert expert is not None
    assert expert(16) == pytest.approx(7)
    link = profile.find("a2e", ag=1, eg=1)
    assert link is not None
    assert link(1e3) == pytest.approx(2)  # the second message of a train: from the arrival of the first
    assert all(cost.label == "measured" and cost.fit is not None for cost in profile.costs)


def test_calibration_measures_the_sizes_of_the_schedules_and_enough_of_them_for_a_line() -> None:
    host, stages, link = stage_jobs("0", [replace(CASES[0], link="lo")])
    assert host["chunks"] == stages["chunks"]
    assert len(stages["samples"]) >= 3
    assert 4 in stages["samples"]
    assert 64 in stages["chunks"]
    assert link["chunks"] == stages["chunks"]


def test_the_standard_schedules_include_the_quick_ones() -> None:
    quick, more = standard_cases("quick"), standard_cases("full")
    assert len(quick) == 24
    assert len(set(more)) == len(more) >= 150
    assert {case.policy for case in quick} == {"naive", "pppipe", "findep"}


def test_validate_runs_writes_and_says_when_the_tolerance_is_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row: dict[str, Any] = {
        "model": "deepseek-v2-lite",
        "scale": 0.0625,
        "layers": 1,
        "seq_len": 16,
        "m_a": 1,
        "ag": 1,
        "eg": 1,
    }
    cases = tmp_path / "cases.json"
    cases.write_text(json.dumps([{**row, "policy": "naive", "order": None}, {**row, "policy": "findep", "r2": 3}]))
    assert len(load_cases(cases)) == 2
    out = tmp_path / "out"
    command = ["validate", "--schedules", str(cases), "--rounds", "1", "--out", str(out), "--json", "--backend", "gloo"]
    assert main([*command, "--tolerance", "0"]) == 4
    said = capsys.readouterr()
    assert "is above the tolerance of 0 %" in said.err
    result = json.loads(said.out)
    assert {"median_abs_error_pct", "p95_abs_error_pct", "spearman", "regret_pct"} <= set(result)
    for line in result["schedules"]:
        assert {*row, "policy", "order", "r1", "r2", "predicted_us", "measured_us", "ci_us", "error_pct"} <= set(line)
    assert load_hardware(str(out / "profile.json")).find("stage.expert", ag=1, eg=1) is None
    assert (out / "cases" / "001" / "measured.csv").exists()
    assert "Predicted against measured" in (out / "report.html").read_text()
    assert main([*command, "--tolerance", "1e9"]) == 0  # goes on from what is in the folder: nothing is left to run
    assert json.loads(capsys.readouterr().out)["schedules"] == [
        {key: value for key, value in line.items()} for line in result["schedules"]
    ]
