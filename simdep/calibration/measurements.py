"""Measurements of operations in CSV files, checked and sorted into series that one kernel predicts.

A file holds rows of one family of operations (`operations.OPERATIONS`), with the columns of that
family, `us` (measured microseconds) and, if it has rows of several machines, `gpu` (or `system`).
Lines that begin with # are remarks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simdep import checks, files
from simdep.arrays import Array
from simdep.checks import InputError
from simdep.file_kinds import MEASUREMENTS
from simdep.hardware.gpus import Gpu, find_gpu
from simdep.hardware.operations import (
    DTYPE_BYTES,
    DTYPE_NAMES,
    OPERATIONS,
    Operation,
    OperationColumns,
    implied_attributes,
)

_MACHINE_COLUMNS = ("gpu", "system")
_FAILED = 1.25  # times a larger operation of its series: it ran with a wrong kernel
_SEPARATE = 1.1  # ratio of times from which a column tells different measurements apart


@dataclass(frozen=True)
class MeasuredTable:
    """A checked table of measured operations, and where it is from."""

    origin: str
    table: pd.DataFrame

    @property
    def machines(self) -> list[str]:
        """The names of the machines that the table states."""
        column = self._machine_column
        return sorted(set(self.table[column].astype(str))) if column else []

    @property
    def _machine_column(self) -> str | None:
        return next((column for column in _MACHINE_COLUMNS if column in self.table), None)

    def of_gpu(self, gpu: Gpu | None, name: str) -> MeasuredTable:
        """The rows of one machine, by its name or a name of its GPU.

        Raises InputError if a table of several machines has none of it.
        """
        column = self._machine_column
        if column is None:
            return self
        if gpu is None and len(self.machines) == 1 and find_gpu(self.machines[0]) is None:
            return self  # one machine that nobody knows by name: it is the one that is meant
        names = {name.lower()}
        if gpu is not None:
            names |= {gpu.name, *gpu.aliases}
        names = {alias.lower() for alias in names}
        rows = self.table[self.table[column].astype(str).str.lower().isin(names)]
        if rows.empty:
            machines = checks.listed(self.machines)
            rule = f"it has no rows of {checks.shown_text(name)}; it has those of {machines}"
            raise InputError(rule, self.origin)
        return MeasuredTable(self.origin, rows)


@dataclass(frozen=True)
class Series:
    """Measured rows that one kernel predicts.

    `columns` are features and attributes, `variant` the attributes, which are the same in all
    rows. `skipped` counts the rows out of the window, by reason.
    """

    operation: Operation
    variant: dict[str, str]
    columns: OperationColumns
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
    texts = table.select_dtypes(["object", "string"]).columns
    table[texts] = table[texts].map(_stripped)
    return table


def _stripped(cell: Any) -> Any:
    return cell.strip() if isinstance(cell, str) else cell


def read_measurements(path: Path) -> MeasuredTable:
    """The measurements of a CSV file; raises InputError naming file, line and column."""
    table = read_table(path)
    with files.context(path, MEASUREMENTS):
        return MeasuredTable(path.name, _checked(table))


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table with features as numbers and data types by their names here."""
    operations = operations_of(table.columns)
    if "us" not in table:
        raise InputError("column us is missing; it holds the measured microseconds")
    for column in ("us", *operations[0].features):
        table[column] = _numbers(table[column])
    if table.empty:
        raise InputError("it has no rows; give at least one measurement")
    for column in operations[0].required:
        if column not in table:
            raise InputError(f"column {column} is missing; it says which kernel ran")
    _check_filled(table, operations)
    if "dtype" in table:
        table["dtype"] = table["dtype"].astype(str).str.lower().replace(DTYPE_NAMES)
        for line, dtype in table["dtype"].drop_duplicates().items():
            checks.known(dtype, DTYPE_BYTES, f"dtype in line {line}")
    return table.reset_index(drop=True)


def _numbers(cells: pd.Series[Any]) -> pd.Series[float]:
    """The cells of a column as numbers above 0, of `sms` at least 0, and at most MAX_NUMBER."""
    low = -1 if cells.name == "sms" else 0
    numbers = pd.to_numeric(cells, errors="coerce")
    wrong = ~(np.isfinite(numbers) & (numbers > low))
    if wrong.any():
        line = wrong.idxmax()
        value = checks.shown_text(str(cells[line]))
        raise InputError(f"line {line}: {cells.name}={value}; expected a finite number > {low}")
    if numbers.max() > checks.MAX_NUMBER:
        rule = f"expected a number <= {checks.MAX_NUMBER:g}"
        place = f"line {numbers.idxmax()}: {cells.name}"
        raise InputError(f"{place}={numbers.max():g}; {rule}")
    return numbers.astype(float)


def _check_filled(table: pd.DataFrame, operations: list[Operation]) -> None:
    """Raise InputError for an empty cell that should say which kernel ran, or on which machine."""
    rules = dict.fromkeys(_MACHINE_COLUMNS, "every row names its machine")
    for operation in operations:
        kernel = (*operation.attributes, *operation.selects)
        rules |= dict.fromkeys(kernel, "it says which kernel ran")
    for column, rule in rules.items():
        if column in table and table[column].isna().any():
            line = table[column].isna().idxmax()
            raise InputError(f"line {line}: {column} is empty; {rule}")


def operations_of(columns: Collection[str]) -> list[Operation]:
    """The operations whose columns a table has, those with the most columns.

    Raises InputError if there is none.
    """
    present = set(columns)
    fitting = [op for op in OPERATIONS.values() if present >= set(op.columns)]
    if not fitting:
        nearest = max(OPERATIONS.values(), key=lambda op: len(present & set(op.columns)))
        needed = f"{nearest.name} needs {','.join(nearest.columns)}"
        listed = checks.shown_text(",".join(columns))
        raise InputError(f"columns {listed} are of no known operation; {needed}")
    fitting = [op for op in fitting if present >= set(op.required)] or fitting
    counts = [len(op.columns) + len(present & set(op.attributes)) for op in fitting]
    most = max(counts)
    return [op for op, count in zip(fitting, counts, strict=True) if count == most]


def series_of(measured: MeasuredTable) -> Iterator[Series]:
    """The series of a table, one for every operation and combination of attributes.

    Raises InputError where a column that is neither tells different measurements apart.
    """
    table, origin = measured.table, measured.origin
    operations = operations_of(table.columns)
    _check_selected(table, operations, origin)
    for operation in operations:
        selected = table
        for column, values in operation.selects.items():
            selected = selected[selected[column].isin(values)]
        if selected.empty:
            continue
        features = {name: selected[name].to_numpy() for name in operation.features}
        selected = selected.assign(**implied_attributes(operation, features))
        attributes = [name for name in operation.attributes if name in selected]
        key = pd.Series("", selected.index)
        if attributes:
            key = selected[attributes].astype(str).agg(" ".join, axis=1)
        for _, rows in selected.groupby(key, sort=False):
            kept, skipped = _window(operation, rows)
            if kept.any():
                _check_separating(operation, rows[kept], origin)
                yield _series(operation, attributes, rows[kept], skipped)


def _check_selected(table: pd.DataFrame, operations: list[Operation], origin: str) -> None:
    """Raise ValueError where no row has a known value of a column that selects operations."""
    known: dict[str, list[str]] = {}
    for operation in operations:
        for column, values in operation.selects.items():
            known.setdefault(column, []).extend(values)
    for column, names in known.items():
        if not table[column].isin(names).any():
            raise InputError(f"no row has a known {column}; it is {', '.join(names)}", origin)


def _check_separating(operation: Operation, rows: pd.DataFrame, origin: str) -> None:
    """Raise ValueError where an unknown column tells different measurements of one operation apart.

    Such a column has few values, each in several rows, and rows that are equal but for it have
    different times. Their mean would be that of neither.
    """
    features = list(operation.features)
    if not rows.duplicated(features).any():
        return
    known = {"us", *_MACHINE_COLUMNS, *features, *operation.attributes, *operation.selects}
    for column in rows.columns:
        if column in known or rows[column].value_counts().min() < 2:
            continue
        times = rows.pivot_table("us", features, column, aggfunc="median").dropna(thresh=2)
        ratio = (times.max(axis=1) / times.min(axis=1)).median()
        if ratio > _SEPARATE:
            values = checks.listed(str(value) for value in times.columns)
            raise InputError(
                f"{column} ({values}) tells rows apart that are otherwise equal, by a factor of "
                f"{ratio:.2f} in us; give rows of one {column}",
                origin,
            )


def _series(
    operation: Operation, attributes: list[str], rows: pd.DataFrame, skipped: dict[str, int]
) -> Series:
    variant = {name: str(rows[name].iloc[0]) for name in attributes}
    columns: dict[str, NDArray[Any]] = {}
    for name in operation.features:
        columns[name] = rows[name].to_numpy(float)
    for name, value in variant.items():
        columns[name] = np.full(len(rows), value)
    return Series(operation, variant, columns, rows["us"].to_numpy(float), skipped)


def _window(operation: Operation, rows: pd.DataFrame) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Which rows are measurements of what the operation means; how many are not, by reason.

    Only grouped experts have such rows: a rank that no token reaches, and runs whose autotuner
    failed (slower by `_FAILED` than the same operation with more tokens).
    """
    if operation.name != "moe_experts":
        return np.ones(len(rows), bool), {}
    is_reached = (rows.num_tokens * rows.topk >= rows.moe_ep_size).to_numpy()
    by_tokens = rows.sort_values("num_tokens", ascending=False)
    shapes = by_tokens.groupby([*operation.shape, "moe_ep_size"])
    with_more = shapes["us"].cummin().reindex(rows.index)
    is_failed = (rows.us > _FAILED * with_more).to_numpy() & is_reached
    counts = {
        "fewer than one routed token a rank": int((~is_reached).sum()),
        f"slower than {_FAILED} x the same operation with more tokens": int(is_failed.sum()),
    }
    skipped = {reason: count for reason, count in counts.items() if count}
    return is_reached & ~is_failed, skipped
