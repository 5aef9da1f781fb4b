"""Measurements of operations in CSV files, checked and sorted into series that one kernel prices.

A file holds rows of one family of operations (`operations.OPERATIONS`), with the columns of that
family, `us` (measured microseconds) and, if it has rows of several machines, `gpu` (or `system`).
Lines that begin with # are remarks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from simdep import checks, files
from simdep.file_kinds import MEASUREMENTS
from simdep.hardware.forms import Array
from simdep.hardware.gpus import Gpu, find_gpu
from simdep.hardware.operations import (
    DTYPE_BYTES,
    DTYPE_NAMES,
    OPERATIONS,
    Operation,
    Rows,
    words_that_follow,
)

FAILED = 1.25  # an operation that takes so much longer than a larger one of its series ran with a wrong kernel


@dataclass(frozen=True)
class Series:
    """Measured rows that one kernel prices: an operation, its words, its columns, and
    microseconds."""

    operation: Operation
    variant: dict[str, str]
    rows: Rows
    us: Array
    skipped: dict[str, int]

    @property
    def name(self) -> str:
        return " ".join([self.operation.name, *self.variant.values()])


def read_table(path: Path, expected: str = MEASUREMENTS) -> pd.DataFrame:
    """The table of a CSV file, indexed by the lines of the file that its rows stand on.

    Lines that begin with # are remarks; blanks around names and words do not count. `expected` is
    the noun of the file, for errors. Raises InputError naming the file.
    """
    source = files.read_csv(path, expected, remarks=True)
    with files.context(path, expected):
        table = source.frame()
    words = table.select_dtypes(["object", "string"]).columns
    table[words] = table[words].map(lambda cell: cell.strip() if isinstance(cell, str) else cell)
    return table


def read_csv(path: Path) -> pd.DataFrame:
    """A checked table of measurements. Raises InputError naming file, line and column."""
    table = read_table(path)
    with files.context(path, MEASUREMENTS):
        return _checked(table)


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    operations = operations_of(list(table.columns))
    if "us" not in table:
        raise ValueError("column us is missing; it holds the measured microseconds")
    for column in ("us", *operations[0].numbers):
        low = -1 if column == "sms" else 0
        numbers = pd.to_numeric(table[column], errors="coerce")
        wrong = ~(np.isfinite(numbers) & (numbers > low))
        if wrong.any():
            line = wrong.idxmax()
            rule = f"expected a finite number > {low}"
            value = checks.shown_text(str(table[column][line]))
            raise ValueError(f"line {line}: {column}={value}; {rule}")
        table[column] = numbers.astype(float)
    if table.empty:
        raise ValueError("it has no rows; give at least one measurement")
    for column in operations[0].needs:
        if column not in table:
            raise ValueError(f"column {column} is missing; it says which kernel ran")
    for column in {word for op in operations for word in (*op.words, *op.where)} & set(
        table.columns
    ):
        if table[column].isna().any():
            raise ValueError(
                f"line {table[column].isna().idxmax()}: {column} is empty; it says which kernel ran"
            )
    if "dtype" in table:
        table["dtype"] = table["dtype"].astype(str).str.lower().replace(DTYPE_NAMES)
        for line, dtype in table["dtype"].drop_duplicates().items():
            checks.known(dtype, DTYPE_BYTES, f"dtype in line {line}")
    return table.reset_index(drop=True)


def operations_of(columns: Sequence[str]) -> list[Operation]:
    """The operations whose columns a table has, those with the most columns. Raises ValueError if
    there is none."""
    have = set(columns)
    fits = [op for op in OPERATIONS.values() if have >= set(op.columns)]
    if not fits:
        nearest = max(OPERATIONS.values(), key=lambda op: len(have & set(op.columns)))
        needed = f"{nearest.name} needs {','.join(nearest.columns)}"
        shown = checks.shown_text(",".join(columns))
        raise ValueError(f"columns {shown} are of no known operation; {needed}")
    fits = [op for op in fits if have >= set(op.needs)] or fits
    known_columns = [len(op.columns) + len(have & set(op.words)) for op in fits]
    return [
        op for op, count in zip(fits, known_columns, strict=True) if count == max(known_columns)
    ]


def of_gpu(table: pd.DataFrame, gpu: Gpu | None, name: str, where: str) -> pd.DataFrame:
    """The rows of one machine. Raises ValueError if a table of several machines has none of it."""
    column = next((each for each in ("gpu", "system") if each in table), None)
    if column is None:
        return table
    if table[column].isna().any():
        raise ValueError(f"{where}: a cell of {column} is empty; every row names its machine")
    names = table[column].astype(str)
    if gpu is None and not machines(table) and find_gpu(names.iloc[0]) is None:
        return table  # one machine, that nobody knows by name: it is the one that is meant
    wanted = {word.lower() for word in (name, *((gpu.name, *gpu.aliases) if gpu else ()))}
    rows = table[names.str.lower().isin(wanted)]
    if rows.empty:
        raise ValueError(
            f"{where} has no rows of {name}; it has those of {', '.join(sorted(set(names)))}"
        )
    return rows


def series_of(table: pd.DataFrame, where: str) -> Iterator[Series]:
    """The series of a table, one for every operation and combination of words. Rows out of the
    window are counted."""
    operations = operations_of(list(table.columns))
    for column in {column: None for op in operations for column in op.where}:
        known = [value for op in operations for value in op.where.get(column, ())]
        if not table[column].isin(known).any():
            raise ValueError(f"{where}: no row has a known {column}; it is {', '.join(known)}")
    for operation in operations:
        part = table
        for column, values in operation.where.items():
            part = part[part[column].isin(values)]
        if part.empty:
            continue
        follow = words_that_follow(
            operation, {name: part[name].to_numpy() for name in operation.numbers}
        )
        part = part.assign(**follow)
        words = [word for word in operation.words if word in part]
        key = part[words].astype(str).agg(" ".join, axis=1) if words else pd.Series("", part.index)
        for _, group in part.groupby(key, sort=False):
            variant = {word: str(group[word].iloc[0]) for word in words}
            kept, skipped = _window(operation, group)
            if not kept.any():
                continue
            rows = {name: group[name].to_numpy(float)[kept] for name in operation.numbers}
            rows |= {word: np.full(int(kept.sum()), value) for word, value in variant.items()}
            yield Series(operation, variant, rows, group["us"].to_numpy(float)[kept], skipped)


def _window(operation: Operation, group: pd.DataFrame) -> tuple[Any, dict[str, int]]:
    """Which rows are measurements of what the operation means; how many are not, by reason.

    Only grouped experts have such rows: a rank that no token reaches, and runs whose autotuner
    failed (slower by FAILED than the same operation with more tokens).
    """
    if operation.name != "moe_experts":
        return np.ones(len(group), bool), {}
    reached = (group.num_tokens * group.topk >= group.moe_ep_size).to_numpy()
    series = [*operation.shape, "moe_ep_size"]
    later = (
        group.sort_values("num_tokens", ascending=False)
        .groupby(series)["us"]
        .cummin()
        .reindex(group.index)
    )
    failed = (group.us > FAILED * later).to_numpy() & reached
    skipped = {
        "fewer than one copy of a token a rank": int((~reached).sum()),
        f"slower than {FAILED} x the same operation with more tokens": int(failed.sum()),
    }
    return reached & ~failed, {reason: count for reason, count in skipped.items() if count}


def machines(table: pd.DataFrame) -> list[str]:
    """The names of the machines in a table, if there are several."""
    names = machine_names(table)
    return names if len(names) > 1 else []


def machine_names(table: pd.DataFrame) -> list[str]:
    """The names of the machines in a table; none if it does not name any."""
    column = next((each for each in ("gpu", "system") if each in table), None)
    return sorted(set(table[column].astype(str))) if column else []
