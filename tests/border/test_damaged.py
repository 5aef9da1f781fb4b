"""Files of the right kind that are damaged: the sentence names the fault, not the kind."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from cli import refused, run
from foreign import ROUTING, SCENARIO, SCHEDULE

STAGES = "--stage-times attention=9,a2e=1,expert=5,e2a=1"
SERVED = "--model deepseek-v2-lite --ag 3 --eg 5 --layers 2 --samples 2 --seq-len 8 --hardware h20"
SWEEP = "simdep sweep scenario.toml --vary r1=1,2 --out table.csv"
PACKED = gzip.compress(json.dumps(SCHEDULE).encode())


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scenario.toml").write_text(SCENARIO)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (PACKED[:-30], "its gzip compression ends early"),
        (PACKED[:40] + b"x" * 40, "its gzip compression is damaged"),
        (
            gzip.compress(b'{"format": 1, "streams": "' + b"x" * 60 * 2**20),
            "it unpacks to more than 48 MiB",
        ),
    ],
)
def test_a_damaged_gzip_file(content: bytes, rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("schedule.json.gz").write_bytes(content)
    sentence = refused(capsys, f"simdep simulate {STAGES} --schedule schedule.json.gz")
    assert sentence == f"simdep: schedule.json.gz: {rule}"


@pytest.mark.parametrize("cell", ["-3", "nan", "inf", "1e300"])
@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_a_routing_with_a_number_that_is_no_count_names_its_place(
    suffix: str, cell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    number = cell.replace("nan", "NaN").replace("inf", "Infinity")
    texts = {".csv": ROUTING.replace("1,1", f"1,{cell}"), ".json": f"[3, {number}, 2, 2]"}
    path = Path(f"routing{suffix}")
    path.write_text(texts[suffix])
    sentence = refused(capsys, f"simdep simulate {SERVED} --routing {path}")
    place = "line 3" if suffix == ".csv" else "layer 0, rank 0, expert 1"
    assert sentence.startswith(f"simdep: {path}: {place}: rows=")


def test_a_table_of_arrays_in_toml_is_no_list(capsys: pytest.CaptureFixture[str]) -> None:
    Path("arrays.toml").write_text("[[deployment]]\nag = 1\n")
    assert "expected a table of" in refused(capsys, "simdep simulate arrays.toml")


def test_measurements_beyond_the_range_of_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    Path("gemm.csv").write_text("gpu,dtype,m,n,k,us\nh100,bf16,1e300,1e300,1e300,1e300\n")
    for command in ("fit gemm.csv --out p.json", "costs evaluate gemm.csv --hardware h100"):
        sentence = refused(capsys, f"simdep {command}")
        assert sentence.startswith("simdep: gemm.csv: line 2: ")
        assert sentence.endswith("=1e+300; expected a number <= 1e+30")


def test_a_sweep_computes_rows_without_result_anew(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(SWEEP) == 0
    whole = Path("table.csv").read_text()
    header, first, second = whole.splitlines()
    makespan = first.split(",")[header.split(",").index("makespan_us")]
    Path("table.csv").write_text("\n".join([header, first.replace(makespan, ""), second, ""]))
    capsys.readouterr()
    assert run(SWEEP) == 0
    assert "table.csv: 1 rows hold no result and are left out" in capsys.readouterr().err
    assert Path("table.csv").read_text() == whole


@pytest.mark.parametrize("cell", ["nan", "zzz", "inf"])
def test_a_sweep_refuses_what_is_no_number(cell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(SWEEP) == 0
    header, first, second = Path("table.csv").read_text().splitlines()
    makespan = first.split(",")[header.split(",").index("makespan_us")]
    Path("table.csv").write_text("\n".join([header, first.replace(makespan, cell), second, ""]))
    capsys.readouterr()
    assert refused(capsys, SWEEP) == "simdep: table.csv: line 2: expected numbers"


@pytest.mark.parametrize("axis", ["=", "nothing=1", "r1=1..1000,r2"])
def test_a_wrong_axis_names_its_flag(axis: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--vary" in refused(capsys, f"simdep sweep scenario.toml --vary {axis}")


def test_a_pipe_that_nobody_reads_is_not_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("pipe.json")
    command = f"simdep simulate {SERVED} --trace pipe.json"
    assert refused(capsys, command) == "simdep: pipe.json: no program reads this pipe"


def test_too_few_rows_to_fit_name_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("gemm.csv").write_text("gpu,dtype,m,n,k,us\nh100,bf16,64,512,512,3.3\n")
    sentence = refused(capsys, "simdep fit gemm.csv --out p.json --form linear")
    assert sentence.startswith("simdep: gemm.csv: gemm bf16: too few rows (1)")
