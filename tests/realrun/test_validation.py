"""Calibration and validation: what is made of measurements, without measuring, and once with."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from cases import small_case, speed

from realrun.__main__ import main
from realrun.calibration.effects import halves, interference
from realrun.calibration.jobs import stage_jobs
from realrun.calibration.points import PointKey, collect, new_points
from realrun.calibration.profile import in_situ, profile_from, refusals
from realrun.cases import Case, load_cases
from realrun.runtime.stamps import Stamps, timeline_of
from realrun.validation.campaign import Measurements
from realrun.validation.case_sets import standard_cases
from realrun.validation.evaluate import Evidence, trained, validation_result
from realrun.validation.report import table_of
from realrun.validation.trial import model_of
from simdep.hardware.profile import Cost, HardwareProfile, load_hardware
from simdep.policies import naive
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


def measured(factors: list[list[float]]) -> Measurements:
    """Each case measured as its prediction times its factors."""
    runs = {
        i: [stretched(model_of(CASES[i], PROFILE).timeline(), f) for f in row]
        for i, row in enumerate(factors)
    }
    return Measurements(timelines=runs)


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


def test_calibration_points_become_lines_for_their_ranks_and_shape() -> None:
    case, points = CASES[0], new_points()
    ag = {
        "times": {
            kind: {"16": [10, 10], "32": [20, 20], "64": [40, 41]}
            for kind in ("attention", "shared", "combine")
        }
    }
    eg = {"times": {"expert": {"8": [5, 6], "16": [7, 7], "32": [9, 9]}}}
    collect(points, {"job": "stages"}, [ag, eg], case)
    trains = [
        {"streams": [s], "bytes": b, "posted": [0, 0], "arrived": [b, 3 * b]}
        for s in ("A2E", "E2A")
        for b in (1e3, 2e3, 3e3)
    ]
    collect(points, {"job": "link"}, [{"trains": trains}] * 2, replace(case, link="lo"))
    profile = profile_from(points, "p", "")
    expert = profile.find(
        "stage.expert", ag=1, eg=1, shape="deepseek-v2-lite@0.125 prefill seq_len=16 fp32"
    )
    assert expert is not None
    assert expert(16) == pytest.approx(7)
    link = profile.find("a2e", ag=1, eg=1, shape="lo")
    assert link is not None
    assert link(1e3) == pytest.approx(
        2
    )  # the second message of a train: from the arrival of the first
    assert all(cost.label == "measured" and cost.fit is not None for cost in profile.costs)


def test_calibration_measures_the_sizes_of_the_schedules_and_enough_of_them_for_a_line() -> None:
    stages, host, link, interference = stage_jobs({"0": replace(CASES[0], link="lo")})
    assert host["chunks"] == stages["chunks"]
    assert len(stages["samples"]) >= 3
    assert 4 in stages["samples"]
    assert 64 in stages["chunks"]
    assert len(link["chunks"]) == 3
    assert interference["messages"] >= 4


def test_what_depends_on_the_speed_of_a_link_is_measured_for_each_speed() -> None:
    cases = {
        str(i): replace(CASES[0], link="shaped", speed=speed(rate))
        for i, rate in enumerate((40, 100))
    }
    jobs = [(job["job"], job["case"]) for job in stage_jobs(cases)]
    assert jobs == [
        ("stages", "0"),
        *((name, i) for i in "01" for name in ("host", "link", "interference")),
    ]


def test_computation_beside_transfers_is_slower_by_what_two_directions_take_of_it() -> None:
    """Products of 2 us beside both directions, 1.5 us alone: 4/3 as long, so each direction takes
    1/8 of the speed."""
    case, points = replace(CASES[0], link="lo"), new_points()
    rank = {
        "bytes": 1000,
        "compute": {"products": [0, 1500, 3000], "posted": [], "arrived": []},
        "transfer": {"products": [0], "posted": [0, 0], "arrived": [10_000, 20_000]},
        "both": {
            "products": [0, 2000, 4000, 40_000],
            "posted": [0, 0],
            "arrived": [10_000, 25_000],
        },
    }
    for _ in range(2):
        collect(points, {"job": "interference"}, [rank, rank], case)
    (row,) = interference(points)
    assert row["compute_slowdown"] == {
        group: pytest.approx((4 / 3, 4 / 3, 4 / 3)) for group in ("AG", "EG")
    }
    assert row["contention"] == pytest.approx(1 / 8)
    assert row["mbytes_per_s_alone"]["A2E"][1] == pytest.approx(100)
    assert row["mbytes_per_s_computing"]["E2A"][1] == pytest.approx(80)
    cost = profile_from(points, "p", "").find("host.contention", ag=1, eg=1, shape="lo")
    assert cost is not None
    assert cost(0) == pytest.approx(1 / 8)


def test_a_line_that_misses_its_own_points_is_refused_with_the_reason() -> None:
    points = new_points()
    for work, us in ((1.0, 10.0), (2.0, 10.0), (4.0, 40.0)):
        points[PointKey("gemm")][work] += [us] * 4
    (reason,) = refusals(profile_from(points, "p", "")).values()
    assert "gemm: its line misses its own points by" in reason
    assert "R2" in reason


def test_halves_of_a_measurement_that_differ_are_reported() -> None:
    points = new_points()
    for work in (1.0, 2.0, 4.0):
        points[PointKey("stage.expert", 1, 1, "shape")][work] += [10.0, 10.0, 11.0, 11.0]
    (row,) = halves(points)
    assert row["halves_pct"] == pytest.approx(100 / 10.5)


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
    cases.write_text(
        json.dumps(
            [{**row, "policy": "naive", "order": None}, {**row, "policy": "findep", "r2": 3}]
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
            *row,
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
