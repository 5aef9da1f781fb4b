"""A table reads back exactly as it was, and a bad one is refused with its row."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import findep, naive
from timelines import measured_timelines

from simdep.schedule import Kind, Schedule, Task
from simdep.simulation.engine import simulate_schedule
from simdep.timeline import COLUMNS, Timeline
from simdep.traces.export import save_timelines
from simdep.traces.table import read_timeline


@settings(deadline=None, max_examples=50)
@given(
    timeline=measured_timelines(st.one_of(st.floats(-1e15, 1e15), st.integers(-(10**15), 10**15)))
)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_of_any_times_reads_back_exactly(suffix: str, timeline: Timeline) -> None:
    """read_timeline(save_timelines(timeline)) has the same rows in the same order with the same
    types, to the last bit."""
    with TemporaryDirectory() as folder:
        path = Path(folder, f"run.of.today{suffix}")
        save_timelines(path, timeline)
        back = read_timeline(path, timeline.schedule, "real")
    pd.testing.assert_frame_equal(back.rows, timeline.rows, check_exact=True)
    assert (back.source, back.schedule) == ("real", timeline.schedule)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_whole_numbers_stay_whole_numbers_in_a_table(tmp_path: Path, suffix: str) -> None:
    timeline = simulate_schedule(findep(2, 2, 2), lambda task: 5)
    save_timelines(tmp_path / f"t{suffix}", timeline)
    back = read_timeline(tmp_path / f"t{suffix}", timeline.schedule, "sim")
    assert type(back.makespan_us) is int
    assert back.makespan_us == timeline.makespan_us


def test_a_stream_may_be_called_na(tmp_path: Path) -> None:
    timeline = simulate_schedule(Schedule({"NA": (Task(Kind.ATTENTION, 0, 0),)}), lambda task: 1)
    save_timelines(tmp_path / "t.csv", timeline)
    pd.testing.assert_frame_equal(
        read_timeline(tmp_path / "t.csv", timeline.schedule, "sim").rows, timeline.rows
    )


def test_a_trace_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"t\.json: suffix '\.json' is not one of \.csv, \.parquet$"
    ):
        read_timeline(tmp_path / "t.json", naive(1), "sim")


BAD_CELLS = [
    ("task", "A[9.9]", "row 2 (A[9.9]): task=A[9.9]; the schedule has no task of that name"),
    ("kind", "expert", "row 2 (S[0.0]): kind=expert; the task has another kind in the schedule"),
    ("layer", 1, "row 2 (S[0.0]): layer=1; the task has another layer in the schedule"),
    ("chunk", 0, "row 2 (S[0.0]): chunk=0; the task has another chunk in the schedule"),
    ("stream", "EG", "row 2 (S[0.0]): stream=EG; the task has another stream in the schedule"),
    ("tokens", 4, "row 2 (S[0.0]): tokens=4; the task has another tokens in the schedule"),
    ("rank", -1, "row 2 (S[0.0]): rank=-1; expected an integer >= 0"),
    ("rank", 0.5, "row 2 (S[0.0]): rank=0.5; expected an integer >= 0"),
    ("start_us", float("nan"), "row 2 (S[0.0]): start_us=nan; expected a finite number"),
    ("end_us", float("inf"), "row 2 (S[0.0]): end_us=inf; expected a finite number"),
    ("end_us", 1, "row 2 (S[0.0]): end_us=1; a task ends at or after its start_us"),
]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(("column", "value", "message"), BAD_CELLS)
def test_a_bad_cell_is_refused_with_file_row_value_and_rule(
    tmp_path: Path, suffix: str, column: str, value: Any, message: str
) -> None:
    timeline = simulate_schedule(naive(1), lambda task: 2)
    path = tmp_path / f"t{suffix}"
    rows = timeline.rows.copy()
    rows[column] = [value if number == 1 else cell for number, cell in enumerate(rows[column])]
    save_timelines(path, Timeline(timeline.schedule, "sim", rows))
    with pytest.raises(
        ValueError,
        match="^"
        + re.escape(f"{path}: {message}").replace("=1;", r"=1(\.0)?;").replace("=nan", "=(nan)?")
        + "$",
    ):
        read_timeline(path, timeline.schedule, "sim")


def test_a_cell_that_is_no_number_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv")
    path.write_text(path.read_text().replace(",2,4\n", ",soon,4\n", 1))
    with pytest.raises(
        ValueError, match=r"t\.csv: row 2 \(S\[0\.0\]\): start_us=soon; expected a finite number$"
    ):
        read_timeline(path, naive(1), "sim")


def test_a_row_that_appears_twice_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv")
    path.write_text(path.read_text() + path.read_text().splitlines()[3] + "\n")
    refused(path, r"row 6 \(A2E\[0\.0\.0\]\): rank=0; the task has a row of this rank already")


def test_a_task_without_a_row_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    refused(path, r"t\.csv: there is no row for E2A\[0\.0\.0\]; every task of the schedule has one")


@pytest.mark.parametrize("column", COLUMNS)
def test_a_missing_column_is_refused_by_name(tmp_path: Path, column: str) -> None:
    path = written(tmp_path / "t.csv")
    pd.read_csv(path).drop(columns=column).to_csv(path, index=False)
    refused(path, rf"t\.csv: column {column} is missing; a timeline has the columns task, kind,.*")


def test_further_columns_are_ignored(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv")
    pd.read_csv(path).assign(note="warm").to_csv(path, index=False)
    assert list(read_timeline(path, naive(1), "sim").rows) == list(COLUMNS)


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00nonsense"])
def test_a_file_that_is_absent_or_no_table_is_refused_by_name(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: "):
        read_timeline(path, naive(1), "sim")


def written(path: Path) -> Path:
    save_timelines(path, simulate_schedule(naive(1), lambda task: 2))
    return path


def refused(path: Path, sentence: str) -> None:
    """The table is no timeline of the schedule, and the error ends with this sentence."""
    with pytest.raises(ValueError, match=f"{sentence}$"):
        read_timeline(path, naive(1), "sim")
