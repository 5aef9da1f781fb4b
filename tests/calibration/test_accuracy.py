"""Measurements from files: read, fitted, judged, and refused by line and column."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from samples import gemms, saved

from simdep.calibration.accuracy import evaluate, fit_profile, speed_factor
from simdep.calibration.measurements import read_csv, series_of
from simdep.hardware.profile import HardwareProfile, load_hardware, profile_from_dict


def test_a_profile_of_measurements_predicts_them_and_comes_back_from_its_file(
    tmp_path: Path,
) -> None:
    table = read_csv(saved(gemms(), tmp_path))
    profile, told = fit_profile([("gemm.csv", table)], "mine", "h100", source="my lab")
    assert [row["kernel"] for row in told] == ["gemm bf16"]
    assert told[0]["held_out"]["mape_pct"] < told[0]["linear"]["mape_pct"]
    profile.save(tmp_path / "mine.json")
    read = load_hardware(str(tmp_path / "mine.json"))
    assert read == profile
    assert (read.gpu, read.kernels[0].source) == ("h100", "my lab")
    result = evaluate(table, read, "gemm.csv")
    assert set(result["by_operation"]["gemm"]) >= {
        "n",
        "mape_pct",
        "p50_pct",
        "p95_pct",
        "bias_pct",
    }
    assert result["by_operation"]["gemm"]["n"] == len(table)
    assert result["by_operation"]["gemm"]["mape_pct"] < 1
    assert sum(part["n"] for part in result["by_range"]["gemm"]) == len(table)


def test_the_worst_rows_come_first() -> None:
    table = gemms()
    table.loc[7, "us"] *= 3
    profile, _ = fit_profile([("t", gemms())], "mine", "h100", "roofline")
    worst = evaluate(table, profile, "t")["worst"]
    assert worst[0]["error_pct"] == pytest.approx(-200 / 3, abs=1)
    assert (worst[0]["m"], worst[0]["n"], worst[0]["k"]) == tuple(table.loc[7, ["m", "n", "k"]])


def test_a_machine_that_is_slower_throughout_is_met_by_a_factor_from_five_anchors() -> None:
    slow = gemms().assign(us=lambda table: 1.3 * table.us)
    profile, _ = fit_profile([("t", gemms())], "mine", "h100", "roofline")
    factor = speed_factor(slow, profile, 5, "t")
    assert factor == pytest.approx(1.3, rel=0.01)
    assert (
        evaluate(slow, replace(profile, speed_factor=factor), "t")["by_operation"]["gemm"][
            "mape_pct"
        ]
        < 1
    )


def test_rows_without_a_kernel_are_counted_and_a_file_without_any_is_refused() -> None:
    profile, _ = fit_profile([("t", gemms())], "mine", "h100", "roofline")
    both = pd.concat([gemms(), gemms(dtype="fp8")], ignore_index=True)
    assert evaluate(both, profile, "t")["not_priced"] == {"gemm fp8": 45}
    with pytest.raises(
        ValueError, match=r"^t: hardware mine has no kernel for gemm fp8; see simdep hardware show$"
    ):
        evaluate(gemms(dtype="fp8"), profile, "t")


def test_a_file_of_several_machines_needs_a_choice() -> None:
    both = pd.concat([gemms("h100"), gemms("a100")], ignore_index=True)
    with pytest.raises(ValueError, match=r"^t has rows of a100, h100; choose one with --gpu$"):
        fit_profile([("t", both)], "mine")
    with pytest.raises(ValueError, match=r"^t has no rows of b200; it has those of a100, h100$"):
        fit_profile([("t", both)], "mine", "b200")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "m,n,k,us\n1,2,3,4\n1,2,x,4\n",
            r"gemm\.csv: line 3: k=x; expected a finite number > 0$",
        ),
        (
            "# remark\nm,n,k,us\n1,2,3,0\n",
            r"gemm\.csv: line 3: us=0; expected a finite number > 0$",
        ),
        ("m,n,k\n1,2,3\n", r"gemm\.csv: column us is missing"),
        ("a,b,us\n1,2,3\n", r"gemm\.csv: columns a,b,us are of no known operation"),
        ("m,n,k,us\n", r"gemm\.csv: it has no rows"),
    ],
)
def test_a_malformed_file_is_refused_by_its_line_and_column(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "gemm.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_csv(tmp_path / "gemm.csv")


def test_an_unknown_data_type_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown dtype 'bf61'"):
        fit_profile([("t", gemms(dtype="bf61"))], "mine", "h100")


def test_a_series_is_one_operation_and_its_words() -> None:
    both = pd.concat([gemms(), gemms(dtype="fp8")], ignore_index=True)
    assert [(each.name, len(each.us)) for each in series_of(both, "t")] == [
        ("gemm bf16", 45),
        ("gemm fp8", 45),
    ]


def test_an_operation_along_one_axis_alone_has_a_table() -> None:
    size = 2.0 ** np.arange(10, 30)
    table = pd.DataFrame({"link": "nvlink", "bytes": size, "us": 10 + size / 3e5})
    profile, _ = fit_profile([("t", table)], "mine", form="table")
    assert profile.kernels[0].us(bytes=1e6) == pytest.approx(10 + 1e6 / 3e5, rel=0.05)


def test_a_profile_with_a_malformed_kernel_is_refused_by_the_field() -> None:
    profile, _ = fit_profile([("t", gemms())], "mine", "h100", "roofline")
    data = profile.to_dict()
    data["kernels"][0]["label"] = "guessed"
    with pytest.raises(ValueError, match=r"unknown kernels\[0\]\.label 'guessed'"):
        profile_from_dict(data)
    assert isinstance(profile_from_dict(profile.to_dict()), HardwareProfile)


SERIES = [f"bf16,{m},4096,4096,{10 + m / 20}" for m in (1, 16, 64, 128, 256, 512, 1024, 2048)]


def table_of(rows: list[str], folder: Path, header: str = "dtype,m,n,k,us") -> pd.DataFrame:
    file = folder / "mine.csv"
    file.write_text("\n".join([header, *rows]) + "\n")
    return read_csv(file)


def test_one_shape_is_split_by_row_and_few_rows_take_a_line(tmp_path: Path) -> None:
    many, _ = fit_profile([("t", table_of(SERIES, tmp_path))], "mine")
    assert many.kernels[0].held_out is not None
    few, told = fit_profile([("t", table_of(SERIES[2:5], tmp_path))], "mine")
    assert told[0]["form"] == "terms"
    assert few.kernels[0].us(m=128, n=4096, k=4096) == pytest.approx(16.4, rel=1e-3)
    with pytest.raises(
        ValueError, match=r"gemm bf16: too few rows \(1\) for 2 terms \(one, macs\)"
    ):
        fit_profile([("t", table_of(SERIES[:1], tmp_path))], "mine")


def test_the_one_machine_of_a_table_needs_no_name_and_gives_the_profile_its_gpu(
    tmp_path: Path,
) -> None:
    for machine, gpu in (("mi300x", ""), ("h100_sxm", "h100")):
        table = table_of([f"{machine},{row}" for row in SERIES], tmp_path, "gpu,dtype,m,n,k,us")
        profile, _ = fit_profile([("t", table)], "mine")
        assert profile.gpu == gpu
        assert evaluate(table, profile, "t")["by_operation"]["gemm"]["n"] == len(SERIES)


def test_rows_of_another_machine_are_not_taken_for_those_of_a_known_gpu(tmp_path: Path) -> None:
    table = table_of([f"mi300x,{row}" for row in SERIES], tmp_path, "gpu,dtype,m,n,k,us")
    with pytest.raises(ValueError, match="t has no rows of h100; it has those of mi300x"):
        evaluate(table, load_hardware("h100"), "t")


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("m,n,k,us", "1,2,3,4", "column dtype is missing"),
        ("dtype,m,n,k,us", ",1,2,3,4", r"mine.csv: line 2: dtype is empty"),
        ("dtype,m,n,k,us", "int4,1,2,3,4", r"mine.csv: unknown dtype in line 2 'int4'"),
        ("dtype,m,n,k,us", "bf16,1,,3,4", r"mine.csv: line 2: n=nan"),
        ("dtype,m,n,k,us", "bf16,1,2,3,4,5", "6 fields; expected 5, one for each column"),
    ],
)
def test_what_a_row_lacks_is_told(tmp_path: Path, header: str, row: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table_of([row], tmp_path, header)


def test_data_types_are_known_by_their_other_names(tmp_path: Path) -> None:
    table = table_of([row.replace("bf16", "BFloat16") for row in SERIES], tmp_path)
    assert set(table["dtype"]) == {"bf16"}


def test_messages_without_an_operation_are_point_to_point_and_a_phase_is_known(
    tmp_path: Path,
) -> None:
    rows = [f"{2**k},{10 + 2**k / 3e5}" for k in range(10, 30, 2)]
    assert [
        each.operation.name for each in series_of(table_of(rows, tmp_path, "bytes,us"), "t")
    ] == ["p2p"]
    table = table_of(["warmup,1,64,128,10"], tmp_path, "phase,batch_size,isl,num_heads,us")
    with pytest.raises(ValueError, match="no row has a known phase; it is context, prefill"):
        list(series_of(table, "t"))
