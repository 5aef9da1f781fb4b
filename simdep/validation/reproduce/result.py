"""What a reproduction says: published figures beside predictions, and where every parameter comes
from.

A figure is *calibrated* if a parameter was fitted on it, *predicted* if not, *not-modelled* (with
the reason) if simdep gives no number for it. Predictions never use the figure that they stand
beside.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from simdep.calibration.measurements import read_table

ROLES = ("calibrated", "predicted", "not-modelled")


@dataclass(frozen=True)
class Columns:
    """Columns of the table of a publication: all, those that a user's table needs, those of words,
    those that count."""

    every: tuple[str, ...]
    needed: tuple[str, ...]
    words: tuple[str, ...]
    counts: tuple[str, ...]


@dataclass(frozen=True)
class Point:
    """One published figure: the columns that say what it is of, its value, and what simdep makes of
    it.

    `published` is None where a user asks for a prediction and has no measurement. `others` holds
    what other models make of it, by name.
    """

    columns: Mapping[str, Any]
    published: float | None
    predicted: float | None
    unit: str
    role: str
    reason: str = ""
    others: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.role in ROLES, self.role
        assert (self.predicted is None) == (self.role == "not-modelled"), self
        assert self.reason or self.role != "not-modelled", (
            f"{self.columns} is not modelled, for no stated reason"
        )

    @property
    def error_pct(self) -> float | None:
        if self.predicted is None or not self.published:
            return None
        return 100 * (self.predicted / self.published - 1)

    def to_dict(self) -> dict[str, Any]:
        own = {
            "predicted": self.predicted,
            "unit": self.unit,
            "role": self.role,
            "reason": self.reason,
        }
        return {**self.columns, **own, "error_pct": self.error_pct, **self.others}


@dataclass(frozen=True)
class Parameter:
    """A number that the prediction rests on; `label` is fitted, measured, published, datasheet or
    assumed."""

    name: str
    value: float | str
    unit: str
    label: str
    source: str


@dataclass(frozen=True)
class Check:
    """A statement about a group of points: what was wanted of it, what came out, and whether it
    holds."""

    statement: str
    wanted: str
    got: str
    holds: bool


@dataclass(frozen=True)
class Reproduction:
    """One publication, reproduced: its points, its parameters, checks on them, and remarks for the
    reader."""

    name: str
    title: str
    source: str
    points: tuple[Point, ...]
    parameters: tuple[Parameter, ...]
    checks: tuple[Check, ...]
    remarks: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """`rows`, one a point, and `summary`: errors by role, checks, parameters and remarks as
        labelled records."""
        rows = [{"reproduction": self.name, **point.to_dict()} for point in self.points]
        summary: list[dict[str, Any]] = []
        for role in ROLES:
            group = [point for point in self.points if point.role == role]
            summary.append(
                {"reproduction": self.name, "kind": "errors", "role": role, **errors(group)}
            )
        for kind, records in (("check", self.checks), ("parameter", self.parameters)):
            summary += [
                {"reproduction": self.name, "kind": kind, **asdict(record)} for record in records
            ]
        summary += [
            {"reproduction": self.name, "kind": "remark", "text": text} for text in self.remarks
        ]
        return {"rows": rows, "summary": summary}


def errors(points: Sequence[Point]) -> dict[str, Any]:
    """Number of points, mean absolute and largest percentage error, and bias; None where nothing
    was predicted."""
    found = [point.error_pct for point in points if point.error_pct is not None]
    if not found:
        return {"n": len(points), "mape_pct": None, "worst_pct": None, "bias_pct": None}
    sizes = [abs(error) for error in found]
    return {
        "n": len(points),
        "mape_pct": sum(sizes) / len(sizes),
        "worst_pct": max(sizes),
        "bias_pct": sum(found) / len(found),
    }


def out_of_range(caught: Iterable[warnings.WarningMessage]) -> list[str]:
    """A remark on the kernels that were used beyond the range that they were measured on; none if
    none was."""
    numbers = dict.fromkeys(str(each.message).split("=")[0] for each in caught)
    return (
        [f"Used beyond the range that its kernel was measured on: {', '.join(sorted(numbers))}."]
        if numbers
        else []
    )


def published(name: str) -> pd.DataFrame:
    """A table of published figures that ships with simdep, `name` without `.csv`."""
    text = (resources.files("simdep") / "data" / "published" / f"{name}.csv").read_text()
    return pd.read_csv(StringIO(text), comment="#")


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table by column, with None for an empty cell."""
    rows = table.astype(object).to_dict("records")
    return [{str(key): _plain(value) for key, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    """A cell as JSON has it: None where it is empty, whole numbers without a fraction."""
    if pd.isna(value):
        return None
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def read_measured(path: Path, kinds: Mapping[str, Columns]) -> tuple[str, pd.DataFrame]:
    """A user's table and which of `kinds` it is, by its columns; columns that it lacks but may lack
    come out empty.

    Numbers are above 0, and whole where they count something, where they are given. Raises
    ValueError naming the file, and the line and column at fault.
    """
    table = read_table(path)
    missing = {
        name: [column for column in kind.needed if column not in table]
        for name, kind in kinds.items()
    }
    which = min(missing, key=lambda name: len(missing[name]) / len(kinds[name].needed))
    kind = kinds[which]
    if missing[which]:
        known = "; ".join(f"{name}: {','.join(each.every)}" for name, each in kinds.items())
        has = f"columns {','.join(table.columns)} are of no reproduction ({known})"
        raise ValueError(f"{path}: {has}; {which} lacks {','.join(missing[which])}")
    if table.empty:
        raise ValueError(f"{path} has no rows; give at least one measurement")
    for column in kind.every:
        if column not in table:
            table[column] = None
        if column in kind.words:
            continue
        numbers, given = pd.to_numeric(table[column], errors="coerce"), table[column].notna()
        whole = column in kind.counts
        good = (
            np.isfinite(numbers)
            & (numbers > 0)
            & (~pd.Series(whole, table.index) | (numbers % 1 == 0))
        )
        if (given & ~good).any():
            line = (given & ~good).idxmax()
            rule = f"it is a {'whole ' if whole else ''}number above 0, or empty"
            raise ValueError(f"{path}:{line}: {column}={table[column][line]}; {rule}")
        table[column] = numbers
    return which, table.reset_index(drop=True)
