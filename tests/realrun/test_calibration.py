"""Calibration: what is made of the measurements of ranks, without measuring."""

from dataclasses import replace

import pytest

pytest.importorskip("torch")

from cases import small_case, speed

from realrun.calibration.effects import halves, interference
from realrun.calibration.jobs import stage_jobs
from realrun.calibration.points import PointKey, collect, new_points
from realrun.calibration.profile import profile_from, refusals

CASE = small_case(scale=0.125, layers=2, m_a=4, policy="naive")


def test_calibration_points_become_lines_for_their_ranks_and_shape() -> None:
    case, points = CASE, new_points()
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
    stages, host, link, interference = stage_jobs({"0": replace(CASE, link="lo")})
    assert host["chunks"] == stages["chunks"]
    assert len(stages["samples"]) >= 3
    assert 4 in stages["samples"]
    assert 64 in stages["chunks"]
    assert len(link["chunks"]) == 3
    assert interference["messages"] >= 4


def test_what_depends_on_the_speed_of_a_link_is_measured_for_each_speed() -> None:
    cases = {
        str(i): replace(CASE, link="shaped", speed=speed(rate)) for i, rate in enumerate((40, 100))
    }
    jobs = [(job["job"], job["case"]) for job in stage_jobs(cases)]
    assert jobs == [
        ("stages", "0"),
        *((name, i) for i in "01" for name in ("host", "link", "interference")),
    ]


def test_computation_beside_transfers_is_slower_by_what_two_directions_take_of_it() -> None:
    """Products of 2 us beside both directions, 1.5 us alone: 4/3 as long, so each direction takes
    1/8 of the speed."""
    case, points = replace(CASE, link="lo"), new_points()
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
