"""The experiments of FinDEP: which schedules compete, and what is made of their makespans."""

import pytest

pytest.importorskip("torch")

from realrun.experiments import CANDIDATES, RATES, as_table, speedups


def test_candidates_of_one_row_do_the_same_work() -> None:
    for rows in CANDIDATES.values():
        for cases in rows().values():
            assert len({(case.workload, case.schedule.tokens) for case in cases}) == 1


def test_the_candidates_of_a_speedup_compete_over_the_same_link_on_the_same_samples() -> None:
    rows = CANDIDATES["speedup"]()
    assert list(rows) == [(rate, policy) for rate in RATES for policy in ("pppipe", "findep")]
    assert all(case.m_a * case.r1 == 8 and case.link_mbytes_per_s == key[0] for key in rows for case in rows[key])


def test_a_speedup_is_the_ratio_of_makespans_with_the_interval_of_both() -> None:
    rows = [
        {"policy": policy, "link_mbytes_per_s": rate, "label": policy, "predicted_us": p, "measured_us": m, "ci_us": ci}
        for rate in RATES
        for policy, p, m, ci in (("pppipe", 120.0, 130.0, [110.0, 143.0]), ("findep", 100.0, 104.0, [100.0, 110.0]))
    ]
    found = speedups(rows)
    assert [row["link_mbytes_per_s"] for row in found] == list(RATES)
    assert found[0]["predicted"] == pytest.approx(1.2)
    assert found[0]["measured"] == pytest.approx(1.25)
    assert found[0]["ci"] == pytest.approx([1.0, 1.43])
    assert found[0]["difference_points"] == pytest.approx(-5)
    assert as_table("speedup", {"speedups": found})["difference, points"].tolist() == ["-5.0"] * 3
