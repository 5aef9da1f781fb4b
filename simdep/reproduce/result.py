"""What a reproduction says: published figures beside predictions, and where every parameter comes from.

A figure is *calibrated* if a parameter was fitted on it, *predicted* if not, *not-modelled* (with the reason) if simdep
gives no number for it. Predictions never use the figure that they stand beside.
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

ROLES = ("calibrated", "predicted", "not-modelled")


@dataclass(frozen=True)
class Point:
    """One published figure: the columns that say what it is of, its value, and what simdep makes of it.

    `others` holds what other models make of it, by name.
    """

    columns: Mapping[str, Any]
    published: float
    predicted: float | None
    unit: str
    role: str
    reason: str = ""
    others: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.role in ROLES, self.role
        assert (self.predicted is None) == (self.role == "not-modelled"), self
        assert self.reason or self.role != "not-modelled", f"{self.columns} is not modelled, for no stated reason"

    @property
    def error_pct(self) -> float | None:
        return None if self.predicted is None or not self.published else 100 * (self.predicted / self.published - 1)

    def to_dict(self) -> dict[str, Any]:
        own = {"predicted": self.predicted, "unit": self.unit, "role": self.role, "reason": self.reason}
        return {**self.columns, **own, "error_pct": self.error_pct, **self.others}


@dataclass(frozen=True)
class Parameter:
    """A number that the prediction rests on; `label` is fitted, measured, published, datasheet or assumed."""

    name: str
    value: float | str
    unit: str
    label: str
    source: str


@dataclass(frozen=True)
class Check:
    """A statement about a group of points: what was wanted of it, what came out, and whether it holds."""

    statement: str
    wanted: str
    got: str
    holds: bool


@dataclass(frozen=True)
class Reproduction:
    """One publication, reproduced: its points, its parameters, checks on them, and remarks for the reader."""

    name: str
    title: str
    source: str
    points: tuple[Point, ...]
    parameters: tuple[Parameter, ...]
    checks: tuple[Check, ...]
    remarks: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """`rows`, one a point, and `summary`: errors by role, checks, parameters and remarks as labelled records."""
        rows = [{"reproduction": self.name, **point.to_dict()} for point in self.points]
        summary: list[dict[str, Any]] = []
        for role in ROLES:
            group = [point for point in self.points if point.role == role]
            summary.append({"reproduction": self.name, "kind": "errors", "role": role, **errors(group)})
        for kind, records in (("check", self.checks), ("parameter", self.parameters)):
            summary += [{"reproduction": self.name, "kind": kind, **asdict(record)} for record in records]
        summary += [{"reproduction": self.name, "kind": "remark", "text": text} for text in self.remarks]
        return {"rows": rows, "summary": summary}


def errors(points: Sequence[Point]) -> dict[str, Any]:
    """Number of points, mean absolute and largest percentage error, and bias; None where nothing was predicted."""
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
    """A remark on the kernels that were used beyond the range that they were measured on; none if none was."""
    numbers = dict.fromkeys(str(each.message).split("=")[0] for each in caught)
    return [f"Used beyond the range that its kernel was measured on: {', '.join(sorted(numbers))}."] if numbers else []


def published(name: str) -> pd.DataFrame:
    """A table of published figures that ships with simdep, `name` without `.csv`."""
    text = (resources.files("simdep") / "data" / "published" / f"{name}.csv").read_text()
    return pd.read_csv(StringIO(text), comment="#")


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table by column, with None for an empty cell."""
    rows = table.to_dict("records")
    return [{str(key): None if pd.isna(value) else value for key, value in row.items()} for row in rows]


def read_measured(path: Path, kinds: Mapping[str, tuple[Sequence[str], Sequence[str]]]) -> tuple[str, pd.DataFrame]:
    """A user's table and which of `kinds` it is: each has its columns, and those of them that hold words.

    Numbers are above 0 where they are given. Raises ValueError naming the file, and the row and column at fault.
    """
    try:
        table = pd.read_csv(path, comment="#")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    which = next((name for name, (columns, _) in kinds.items() if list(table.columns) == list(columns)), None)
    if which is None:
        known = "; ".join(f"{name}: {','.join(columns)}" for name, (columns, _) in kinds.items())
        raise ValueError(f"{path}: columns {','.join(map(str, table.columns))} are of no reproduction ({known})")
    if table.empty:
        raise ValueError(f"{path} has no rows; give at least one measurement")
    columns, words = kinds[which]
    for column in columns:
        if column in words:
            continue
        numbers = pd.to_numeric(table[column], errors="coerce")
        wrong = table[column].notna() & ~(np.isfinite(numbers) & (numbers > 0))
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            raise ValueError(
                f"{path}: row {row + 1}: {column}={table[column].iloc[row]}; it is a number above 0, or empty"
            )
        table[column] = numbers
    return which, table
