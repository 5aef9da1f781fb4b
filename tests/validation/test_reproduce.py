"""Reproductions: what was promised of each publication holds, roles are honest, and other tables
are predicted."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from simdep.validation.reproduce import PUBLICATIONS, reproduce
from simdep.validation.reproduce.eps_moe import pipelined_ms
from simdep.validation.reproduce.fastafd import COLOCATED, FASTAFD, DecodeSetup, decode_step_us
from simdep.validation.reproduce.findep import FINDEP
from simdep.validation.reproduce.findep_kernels import inversions
from simdep.validation.reproduce.result import (
    Publication,
    PublishedPoint,
    Reproduction,
    error_summary,
    published,
)


def header(publication: Publication) -> str:
    assert publication.columns is not None
    return ",".join(publication.columns.names)


@cache
def of(name: str) -> Reproduction:
    (found,) = reproduce(name)
    return found


@pytest.mark.parametrize("name", PUBLICATIONS)
def test_every_row_has_a_role_and_a_prediction_or_a_reason(name: str) -> None:
    told = of(name).to_dict()
    assert len(told["rows"]) == len(published(name.replace("-", "_")))
    for row in told["rows"]:
        assert row["role"] in ("calibrated", "predicted", "not-modelled")
        assert (row["predicted"] is None) == (row["role"] == "not-modelled")
        assert row["unit"]
        assert row["reason"] or row["role"] != "not-modelled"
    kinds = {record["kind"] for record in told["summary"]}
    assert {"errors", "check", "parameter"} <= kinds


@pytest.mark.parametrize("name", PUBLICATIONS)
def test_every_parameter_has_a_label_and_a_source(name: str) -> None:
    for parameter in of(name).parameters:
        assert parameter.label in ("fitted", "measured", "published", "datasheet", "assumed")
        assert parameter.source


@pytest.mark.parametrize("name", ["fastafd", "eps-moe"])
def test_every_check_of_a_reproduction_holds(name: str) -> None:
    assert all(check.holds for check in of(name).checks), of(name).checks


def test_findep_on_h20_is_within_its_bounds() -> None:
    """Tables 3 and 4 in and out of sample, Table 5, and all but the last few pairs of route (b) in
    order."""
    *firm, order = of("findep").checks
    assert [check.holds for check in firm] == [True] * 4
    assert order.statement.startswith("route (b), order")


def test_at_most_eight_parameters_are_fitted_for_findep() -> None:
    assert sum(parameter.label == "fitted" for parameter in of("findep").parameters) <= 8


def test_points_that_route_b_puts_in_the_wrong_order_were_measured_within_1_5_pct() -> None:
    for testbed in ("C", "D"):
        points = [
            p
            for p in of("findep").points
            if p.columns["table"] in (3, 4) and p.columns["testbed"] == testbed
        ]
        told = [p.others["predicted_from_kernels"] for p in points]
        assert max(inversions([p.columns["value"] for p in points], told), default=0) < 1.5


def test_table_5_is_predicted_and_never_calibrated_on() -> None:
    assert {p.role for p in of("findep").points if p.columns["table"] == 5} == {"predicted"}


def test_the_order_of_points_is_right_where_no_pair_is_inverted() -> None:
    assert inversions([1, 2, 3], [10, 20, 30]) == []
    assert inversions([100, 110], [2, 1]) == [pytest.approx(10)]


# Other tables


def test_rows_that_were_not_calibrated_on_are_predictions(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    rows = [
        "3,C,deepseek-v2,2,2048,2,1,3,5,findep,245.33,ktoken/s",  # as published
        "3,C,deepseek-v2,2,2048,2,1,3,5,findep,250.0,ktoken/s",  # measured again
        "3,C,deepseek-v2,2,1024,8,1,3,5,findep,290.0,ktoken/s",
        "5,D,qwen3-235b-a22b,48,2048,,,,,pppipe,400,ktoken/s",
        "5,B,deepseek-v2,4,1024,,,,,findep,20,ktoken/s",
        "5,E,deepseek-v2,4,1024,,,,,findep,20,ktoken/s",
        "5,C,deepseek-v2,4,1024,,,,,findep,20,seconds",
    ]
    file.write_text("\n".join([header(FINDEP), *rows]) + "\n")
    (found,) = reproduce("all", file)
    assert [point.role for point in found.points] == [
        "calibrated",
        *["predicted"] * 4,
        *["not-modelled"] * 2,
    ]
    assert (
        found.points[0].predicted == found.points[1].predicted
    )  # the measurement it stands beside plays no part
    assert (
        "a new measurement of a configuration that the four constants are fitted on"
        in found.points[1].reason
    )
    assert "testbed 'E' is not modelled; use A, B, C, D" in found.points[5].reason
    assert "unit 'seconds' is not modelled" in found.points[6].reason


def test_a_table_of_fastafd_is_known_by_its_columns(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    rows = [
        "qwen3-235b-a22b,8192,5,1,2,96,33",
        "qwen3-235b-a22b,16384,5,1,2,48,33",
        "glm-4.5,8192,5,1,2,96,33",
    ]
    file.write_text("\n".join([header(FASTAFD), *rows]) + "\n")
    (found,) = reproduce("all", file)
    assert found.publication.name == "fastafd"
    assert [point.role for point in found.points] == ["predicted", "predicted", "not-modelled"]
    assert [point.columns["context"] for point in found.points] == [8192, 16384, 8192]


def test_columns_may_come_in_any_order_among_others_and_words_in_any_case(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    table = published("findep")
    table = table.assign(note="x", testbed=table.testbed.str.lower(), model="DeepSeek-V2")[
        [*table.columns[::-1], "note"]
    ]
    file.write_text(
        "# remark, with commas\n\n"
        + table.drop(columns="table").head(3).to_csv(index=False)
        + "# end\n"
    )
    (found,) = reproduce("all", file)
    same = of("findep").points[:3]
    assert [p.predicted for p in found.points] == [p.predicted for p in same]
    assert [p.role for p in found.points] == [p.role for p in same]
    assert found.points[0].columns["testbed"] == "c"
    assert found.points[0].columns["note"] == "x"


def test_a_row_without_a_measurement_is_predicted_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(header(FASTAFD) + "\nqwen3-235b-a22b,8192,5,1,2,96,\n")
    (point,) = reproduce("fastafd", file)[0].points
    assert (point.published, point.role, point.error_pct) == (None, "predicted", None)
    assert point.predicted is not None
    assert 30 < point.predicted < 40


def test_what_cannot_be_configured_or_simulated_is_not_modelled_row_by_row(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    rows = [
        "3,C,deepseek-v2,2,2048,1,1,3,500,findep,200,ktoken/s",
        "3,C,deepseek-v2,99999,2048,1,1,3,5,findep,200,ktoken/s",
    ]
    file.write_text("\n".join([header(FINDEP), *rows]) + "\n")
    experts, tasks = reproduce("findep", file)[0].points
    assert "only 160 experts" in experts.reason
    assert "at most 200,000 are simulated" in tasks.reason
    file.write_text(header(FASTAFD) + "\nqwen3-235b-a22b,8192,5,1,200,96,33\n")
    assert (
        reproduce("fastafd", file)[0].points[0].reason.startswith("micro_batches=200; at most 64")
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "expected the columns of findep or fastafd"),
        (header(FASTAFD) + "\n", "no rows; give at least one"),
        (
            header(FASTAFD) + "\nqwen3-235b-a22b,8192,-3,1,2,96,33\n",
            "nodes=-3; expected an integer > 0",
        ),
        (
            header(FASTAFD) + "\nqwen3-235b-a22b,8192,three,1,2,96,33\n",
            r"mine.csv:2: attention_nodes='three'",
        ),
        (
            header(FASTAFD) + "\n# remark\nqwen3-235b-a22b,8192,2.5,1,2,96,33\n",
            r"mine.csv:3: .*expected an integer",
        ),
        (header(FASTAFD).removeprefix("model,") + "\n8192,2,1,2,96,33\n", "it lacks model"),
        (
            header(FASTAFD) + "\nqwen3-235b-a22b,8192,2,1,2,96,33,4,5\n",
            "9 fields; expected 7, one for each column",
        ),
        ("", "it looks like an empty file; expected a table of published figures"),
    ],
)
def test_a_malformed_table_is_refused_by_row_and_column(
    tmp_path: Path, content: str, message: str
) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(content)
    with pytest.raises(ValueError, match=message):
        reproduce("all", file)


def test_a_name_that_is_unknown_or_reads_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown reproduction 'findpe'; did you mean 'findep'"):
        reproduce("findpe")
    with pytest.raises(ValueError, match="eps-moe reads no file"):
        reproduce("eps-moe", tmp_path / "mine.csv")


# The parts


def test_an_eps_moe_layer_of_one_group_runs_in_sequence() -> None:
    assert (
        pipelined_ms(1, before=5, communication=8, products=10, group=0, contention=0) == 5 + 8 + 10
    )


def test_groups_of_experts_overlap_their_communication() -> None:
    whole, parts = (
        pipelined_ms(n, before=0, communication=8, products=10, group=0, contention=0)
        for n in (1, 4)
    )
    assert whole == 18
    assert parts == 1 + 10 + 1  # the first dispatch and the last combine stand alone


def test_a_step_of_fastafd_with_a_hidden_ffn_is_attention_alone() -> None:
    """T = m (B/m core + dense): the identity of the write-up, but for one pass through the other
    stages."""
    setup = DecodeSetup("minimax-m2.5", 8192, 3, 1, 2, 72)
    base = COLOCATED["minimax-m2.5"]
    identity = base.step_us * (72 / base.batch * base.core + 2 * base.dense)
    assert decode_step_us(setup, 0.0) == pytest.approx(identity, rel=0.015)


def test_errors_of_no_points_are_none() -> None:
    assert error_summary([]).mape_pct is None
    point = PublishedPoint({}, 2.0, 3.0, "us", "predicted")
    assert error_summary([point]).mape_pct == pytest.approx(50)


def test_published_tables_carry_their_source() -> None:
    for name in PUBLICATIONS:
        table = published(name.replace("-", "_"))
        assert isinstance(table, pd.DataFrame)
        assert len(table) >= 10
