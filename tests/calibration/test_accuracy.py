"""Measurements from files: read, fitted, judged, and refused by line and column."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from samples import gemms, saved

from simdep.calibration.accuracy import evaluate, fit_profile, speed_factor
from simdep.calibration.measurements import MeasuredTable, read_measurements, series_of
from simdep.hardware.forms import Terms
from simdep.hardware.profile import HardwareProfile, load_hardware, profile_from_dict


def of(table: pd.DataFrame) -> list[MeasuredTable]:
    return [MeasuredTable("t", table)]


def test_a_profile_of_measurements_predicts_them_and_comes_back_from_its_file(
    tmp_path: Path,
) -> None:
    measured = read_measurements(saved(gemms(), tmp_path))
    profile, (fit,) = fit_profile([measured], "mine", "h100", source="my lab")
    assert fit.name == "gemm bf16"
    assert fit.kernel.held_out is not None
    assert fit.linear is not None
    assert fit.kernel.held_out.mape_pct < fit.linear.mape_pct
    profile.save(tmp_path / "mine.json")
    read = load_hardware(str(tmp_path / "mine.json"))
    assert read == profile
    assert (read.gpu, read.kernels[0].source) == ("h100", "my lab")
    evaluation = evaluate([measured], read)
    errors = evaluation.by_operation["gemm"]
    assert errors.n == len(measured.table)
    assert errors.mape_pct < 1
    assert sum(part.errors.n for part in evaluation.by_range["gemm"]) == len(measured.table)


def test_the_worst_rows_come_first() -> None:
    table = gemms()
    table.loc[7, "us"] *= 3
    profile, _ = fit_profile(of(gemms()), "mine", "h100", "roofline")
    worst = evaluate(of(table), profile).worst
    assert worst[0]["error_pct"] == pytest.approx(-200 / 3, abs=1)
    assert (worst[0]["m"], worst[0]["n"], worst[0]["k"]) == tuple(table.loc[7, ["m", "n", "k"]])


def test_a_machine_that_is_slower_throughout_is_met_by_a_factor_from_five_anchors() -> None:
    slow = gemms().assign(us=lambda table: 1.3 * table.us)
    profile, _ = fit_profile(of(gemms()), "mine", "h100", "roofline")
    factor = speed_factor(of(slow), profile, 5)
    assert factor == pytest.approx(1.3, rel=0.01)
    adapted = replace(profile, speed_factor=factor)
    assert evaluate(of(slow), adapted).by_operation["gemm"].mape_pct < 1


def test_rows_without_a_kernel_are_counted_and_a_file_without_any_is_refused() -> None:
    profile, _ = fit_profile(of(gemms()), "mine", "h100", "roofline")
    both = pd.concat([gemms(), gemms(dtype="fp8")], ignore_index=True)
    assert evaluate(of(both), profile).not_priced == {"gemm fp8": 45}
    with pytest.raises(
        ValueError, match=r"^t: hardware mine has no kernel for gemm fp8; see simdep hardware show$"
    ):
        evaluate(of(gemms(dtype="fp8")), profile)


def test_a_file_of_several_machines_needs_a_choice() -> None:
    both = pd.concat([gemms("h100"), gemms("a100")], ignore_index=True)
    with pytest.raises(ValueError, match=r"^t: rows of a100, h100; choose one with --gpu$"):
        fit_profile(of(both), "mine")
    with pytest.raises(
        ValueError, match=r"^t: it has no rows of b200; it has those of a100, h100$"
    ):
        fit_profile(of(both), "mine", "b200")


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
        read_measurements(tmp_path / "gemm.csv")


def test_an_unknown_data_type_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown dtype 'bf61'"):
        fit_profile(of(gemms(dtype="bf61")), "mine", "h100")


def test_a_series_is_one_operation_and_its_attributes() -> None:
    both = pd.concat([gemms(), gemms(dtype="fp8")], ignore_index=True)
    assert [(each.name, len(each.us)) for each in series_of(*of(both))] == [
        ("gemm bf16", 45),
        ("gemm fp8", 45),
    ]


def test_an_operation_along_one_axis_alone_has_a_table() -> None:
    size = 2.0 ** np.arange(10, 30)
    table = pd.DataFrame({"link": "nvlink", "bytes": size, "us": 10 + size / 3e5})
    profile, _ = fit_profile(of(table), "mine", form="table")
    assert profile.kernels[0].us(bytes=1e6) == pytest.approx(10 + 1e6 / 3e5, rel=0.05)


def test_a_profile_with_a_malformed_kernel_is_refused_by_the_field() -> None:
    profile, _ = fit_profile(of(gemms()), "mine", "h100", "roofline")
    data = profile.to_dict()
    data["kernels"][0]["label"] = "guessed"
    with pytest.raises(ValueError, match=r"unknown kernels\[0\]\.label 'guessed'"):
        profile_from_dict(data)
    assert isinstance(profile_from_dict(profile.to_dict()), HardwareProfile)


SERIES = [f"bf16,{m},4096,4096,{10 + m / 20}" for m in (1, 16, 64, 128, 256, 512, 1024, 2048)]


def table_of(rows: list[str], folder: Path, header: str = "dtype,m,n,k,us") -> MeasuredTable:
    file = folder / "mine.csv"
    file.write_text("\n".join([header, *rows]) + "\n")
    return read_measurements(file)


def test_one_shape_is_split_by_row_and_few_rows_take_a_line(tmp_path: Path) -> None:
    many, _ = fit_profile([table_of(SERIES, tmp_path)], "mine")
    assert many.kernels[0].held_out is not None
    few, _ = fit_profile([table_of(SERIES[2:5], tmp_path)], "mine")
    assert isinstance(few.kernels[0].form, Terms)
    assert few.kernels[0].us(m=128, n=4096, k=4096) == pytest.approx(16.4, rel=1e-3)
    with pytest.raises(
        ValueError, match=r"mine.csv: gemm bf16: too few rows \(1\) for 2 terms \(one, macs\)"
    ):
        fit_profile([table_of(SERIES[:1], tmp_path)], "mine")


def test_the_one_machine_of_a_table_needs_no_name_and_gives_the_profile_its_gpu(
    tmp_path: Path,
) -> None:
    for machine, gpu in (("mi300x", ""), ("h100_sxm", "h100")):
        measured = table_of([f"{machine},{row}" for row in SERIES], tmp_path, "gpu,dtype,m,n,k,us")
        profile, _ = fit_profile([measured], "mine")
        assert profile.gpu == gpu
        assert evaluate([measured], profile).by_operation["gemm"].n == len(SERIES)


def test_rows_of_another_machine_are_not_taken_for_those_of_a_known_gpu(tmp_path: Path) -> None:
    measured = table_of([f"mi300x,{row}" for row in SERIES], tmp_path, "gpu,dtype,m,n,k,us")
    with pytest.raises(
        ValueError, match=r"mine\.csv: it has no rows of h100; it has those of mi300x"
    ):
        evaluate([measured], load_hardware("h100"))


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("m,n,k,us", "1,2,3,4", "column dtype is missing"),
        ("dtype,m,n,k,us", ",1,2,3,4", r"mine.csv: line 2: dtype is empty"),
        ("gpu,dtype,m,n,k,us", ",bf16,1,2,3,4", r"mine.csv: line 2: gpu is empty"),
        ("dtype,m,n,k,us", "int4,1,2,3,4", r"mine.csv: unknown dtype in line 2 'int4'"),
        ("dtype,m,n,k,us", "bf16,1,,3,4", r"mine.csv: line 2: n=nan"),
        ("dtype,m,n,k,us", "bf16,1,2,3,4,5", "6 fields; expected 5, one for each column"),
    ],
)
def test_what_a_row_lacks_is_told(tmp_path: Path, header: str, row: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table_of([row], tmp_path, header)


def test_data_types_are_known_by_their_other_names(tmp_path: Path) -> None:
    measured = table_of([row.replace("bf16", "BFloat16") for row in SERIES], tmp_path)
    assert set(measured.table["dtype"]) == {"bf16"}


def test_messages_without_an_operation_are_point_to_point_and_a_phase_is_known(
    tmp_path: Path,
) -> None:
    rows = [f"{2**k},{10 + 2**k / 3e5}" for k in range(10, 30, 2)]
    (series,) = series_of(table_of(rows, tmp_path, "bytes,us"))
    assert series.operation.name == "p2p"
    measured = table_of(["warmup,1,64,128,10"], tmp_path, "phase,batch_size,isl,num_heads,us")
    with pytest.raises(ValueError, match="no row has a known phase; it is context, prefill"):
        list(series_of(measured))


# OperationColumns that tell measurements apart

DEEPEP = "mode,phase,node_num,sms,hidden_size,topk,num_experts,tokens_per_rank,us"
TOKENS = (256, 512, 1024, 2048, 4096)


def dispatches(nodes: str, us_per_token: float) -> list[str]:
    """Rows of a DeepEP table for some number of nodes."""
    return [f"normal,dispatch,{nodes},24,7168,8,256,{n},{n * us_per_token}" for n in TOKENS]


def test_messages_of_every_number_of_nodes_have_a_kernel_of_their_own(tmp_path: Path) -> None:
    """DeepEP over 4 nodes takes 5 times as long as over 2; a mean of both is that of neither."""
    measured = table_of([*dispatches("2", 1), *dispatches("4", 5)], tmp_path, DEEPEP)
    profile, _ = fit_profile([measured], "mine", form="linear")
    two, four = (profile.kernel("deepep", phase="dispatch", node_num=nodes) for nodes in "24")
    shape = {"hidden_size": 7168, "topk": 8, "num_experts": 256, "sms": 24}
    assert two is not None
    assert four is not None
    assert two.us(tokens_per_rank=1024, **shape) == pytest.approx(1024, rel=1e-3)
    assert four.us(tokens_per_rank=1024, **shape) == pytest.approx(5 * 1024, rel=1e-3)
    assert set(evaluate([measured], profile).by_kernel) == {
        "deepep dispatch 2",
        "deepep dispatch 4",
    }


def test_a_number_of_nodes_is_an_integer(tmp_path: Path) -> None:
    measured = table_of(dispatches("two", 1), tmp_path, DEEPEP)
    with pytest.raises(ValueError, match=r"node_num='two'; expected an integer >= 1"):
        fit_profile([measured], "mine", form="linear")


def test_a_column_that_tells_equal_rows_apart_is_refused(tmp_path: Path) -> None:
    rows = [f"{row},{version}" for version in ("a", "b") for row in SERIES]
    twice = table_of(rows, tmp_path, "dtype,m,n,k,us,version")
    assert [len(series.us) for series in series_of(twice)] == [2 * len(SERIES)]
    slow = twice.table.assign(us=twice.table.us * np.where(twice.table.version == "b", 2, 1))
    rule = r"^t: version \(a, b\) tells rows apart that are otherwise equal, by a factor of 2\.00"
    with pytest.raises(ValueError, match=rule):
        list(series_of(*of(slow)))
    one = of(slow[slow.version == "a"])
    assert [len(series.us) for series in series_of(*one)] == [len(SERIES)]


def test_remarks_and_results_beside_repeated_rows_are_left_alone(tmp_path: Path) -> None:
    rows = [f"{row},{index},{index / 7}" for index, row in enumerate([*SERIES, *SERIES])]
    measured = table_of(rows, tmp_path, "dtype,m,n,k,us,remark,mfu")
    measured.table["us"] *= np.repeat([1, 2], len(SERIES))
    assert [len(series.us) for series in series_of(measured)] == [2 * len(SERIES)]
