"""A timeline as a table in a .csv or .parquet file, with the columns of `simdep.timeline`. Times
are microseconds, and every number reads back exactly as it was written."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from simdep import files
from simdep.checks import InputError
from simdep.file_kinds import TIMELINE
from simdep.schedule import Schedule
from simdep.timeline import COLUMNS, Timeline

TABLE_SUFFIXES = (".csv", ".parquet")
_NUMERIC = ("layer", "mb", "chunk", "rank", "tokens", "start_us", "end_us")
_FROM_SCHEDULE = ("kind", "layer", "mb", "chunk", "stream", "tokens")  # a task's name decides them


def write_table(path: Path, timeline: Timeline) -> None:
    """Write a timeline to a .csv or .parquet file."""
    table = timeline.rows[list(COLUMNS)]
    suffix = _suffix(path)
    with files.replacing(path) as file:
        if suffix == ".csv":
            table.to_csv(file, index=False)
        else:
            table.to_parquet(file, index=False)


def read_timeline(path: Path, schedule: Schedule, source: Literal["sim", "real"]) -> Timeline:
    """The timeline of `schedule` in a .csv or .parquet table; rows count from 1, further columns
    are ignored.

    Raises InputError that begins with the file's name and gives the row at fault.
    """
    if _suffix(path) == ".csv":
        table = _read_csv(path)
    else:
        table = files.read_parquet(path, TIMELINE)
    with files.context(path, TIMELINE):
        table = _checked(table, schedule)
    columns = (table[name].tolist() for name in ("task", "rank", "start_us", "end_us"))
    return Timeline.from_times(schedule, source, zip(*columns, strict=True))


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        rule = f"suffix {path.suffix!r} is not one of {', '.join(TABLE_SUFFIXES)}"
        raise InputError(rule, path)
    return suffix


def _read_csv(path: Path) -> pd.DataFrame:
    """Read as text first: pandas 2 reads some floats a bit off, and takes a stream called NA for a
    missing value."""
    text = files.read_csv(path, TIMELINE)
    with files.context(path, TIMELINE):
        table = text.frame(dtype=str, keep_default_na=False).reset_index(drop=True)
    for name in _NUMERIC:
        if name in table:
            table[name] = [_number(cell) for cell in table[name]]
    return table


def _number(cell: str) -> float | str:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(cell)
    return cell


def _checked(table: pd.DataFrame, schedule: Schedule) -> pd.DataFrame:
    """The table, if its rows are those of `schedule`; raises InputError naming the first row that
    is not."""
    for name in COLUMNS:
        if name not in table:
            raise InputError(
                f"column {name} is missing; a timeline has the columns {', '.join(COLUMNS)}"
            )
    timeless = [(task.name, 0, 0, 0) for task in schedule]
    expected = Timeline.from_times(schedule, "sim", timeless).rows.set_index("task")
    unknown = ~table["task"].isin(expected.index)
    _refuse(table, unknown, "task", "the schedule has no task of that name")
    for column in _FROM_SCHEDULE:
        differs = table[column].to_numpy() != expected.loc[table["task"], column].to_numpy()
        _refuse(table, differs, column, f"the task has another {column} in the schedule")
    rank, start, end = (
        pd.to_numeric(table[name], errors="coerce") for name in ("rank", "start_us", "end_us")
    )
    _refuse(table, ~(rank >= 0) | (rank % 1 != 0), "rank", "expected an integer >= 0")
    again = table.duplicated(["task", "rank"])
    _refuse(table, again, "rank", "the task has a row of this rank already")
    _refuse(table, ~np.isfinite(start), "start_us", "expected a finite number")
    _refuse(table, ~np.isfinite(end), "end_us", "expected a finite number")
    _refuse(table, end < start, "end_us", "a task ends at or after its start_us")
    of_one_rank = np.array(["@" in schedule.stream_of[name] for name in table["task"]], dtype=bool)
    differs = rank.to_numpy() != expected.loc[table["task"], "rank"].to_numpy()
    _refuse(table, of_one_rank & differs, "rank", "the task has another rank in the schedule")
    if absent := set(expected.index) - set(table["task"]):
        raise InputError(f"there is no row for {min(absent)}; every task of the schedule has one")
    return table.assign(rank=rank.astype(int), start_us=start, end_us=end)


def _refuse(table: pd.DataFrame, wrong: Any, column: str, rule: str) -> None:
    """Raise InputError for the first row that is `wrong`, with its value in `column` and the
    rule."""
    positions = np.flatnonzero(wrong)
    if len(positions):
        first = positions[0]
        row = table.iloc[first]
        raise InputError(f"row {first + 1} ({row['task']}): {column}={row[column]}; {rule}")
