"""What a reproduction says: published figures beside predictions, and where every parameter comes
from.

A figure is *calibrated* if a parameter was fitted on it, *predicted* if not, *not-modelled* (with
the reason) if simdep gives no number for it. Predictions never use the figure that they stand
beside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from simdep import files
from simdep.calibration.measurements import read_table
from simdep.checks import InputError, shown
from simdep.file_kinds import PUBLISHED
from simdep.hardware.extrapolation import Extrapolation

ROLES = ("calibrated", "predicted", "not-modelled")


@dataclass(frozen=True)
class MeasuredColumns:
    """The columns of a table of measurements that a user may give.

    `needed` have to be there. `text` hold words, all others numbers above 0; `counts` are integers.
    """

    names: tuple[str, ...]
    needed: tuple[str, ...]
    text: tuple[str, ...]
    counts: tuple[str, ...]


@dataclass(frozen=True)
class Publication:
    """A publication with a table of measurements: `table` under `simdep/data/published`.

    `columns` are those of a table of the user's own; None if there is no such table.
    """

    name: str
    title: str
    source: str
    table: str
    columns: MeasuredColumns | None = None


@dataclass(frozen=True)
class PublishedPoint:
    """One published figure: its columns, its value, and what simdep predicts for it.

    `published` is None where a user asks for a prediction and has no measurement. `others` holds
    predictions of other models, by name.
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
        """The error of the prediction; None without a prediction or a measurement."""
        if self.predicted is None or not self.published:
            return None
        return 100 * (self.predicted / self.published - 1)

    def to_dict(self) -> dict[str, Any]:
        """One row of `--json`."""
        return {
            **self.columns,
            "predicted": self.predicted,
            "unit": self.unit,
            "role": self.role,
            "reason": self.reason,
            "error_pct": self.error_pct,
            **self.others,
        }


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
    """A statement about a group of points: what was wanted, what came out, and whether it holds."""

    statement: str
    wanted: str
    got: str
    holds: bool


@dataclass(frozen=True)
class ErrorSummary:
    """Errors of a group of points in percent; None where nothing was predicted."""

    n: int
    mape_pct: float | None = None
    worst_pct: float | None = None
    bias_pct: float | None = None


@dataclass(frozen=True)
class Reproduction:
    """One publication, reproduced: points, parameters, checks on the points, and remarks."""

    publication: Publication
    points: tuple[PublishedPoint, ...]
    parameters: tuple[Parameter, ...]
    checks: tuple[Check, ...]
    remarks: tuple[str, ...] = ()

    def with_role(self, role: str) -> list[PublishedPoint]:
        """The points of a role."""
        return [point for point in self.points if point.role == role]

    def to_dict(self) -> dict[str, Any]:
        """`rows`, one for each point, and `summary`: labelled records of errors by role, checks,
        parameters and remarks."""
        label = {"reproduction": self.publication.name}
        summary: list[dict[str, Any]] = []
        for role in ROLES:
            errors = asdict(error_summary(self.with_role(role)))
            summary.append({**label, "kind": "errors", "role": role, **errors})
        summary += [{**label, "kind": "check", **asdict(check)} for check in self.checks]
        summary += [{**label, "kind": "parameter", **asdict(value)} for value in self.parameters]
        summary += [{**label, "kind": "remark", "text": remark} for remark in self.remarks]
        return {"rows": [{**label, **point.to_dict()} for point in self.points], "summary": summary}


def error_summary(points: Sequence[PublishedPoint]) -> ErrorSummary:
    """Number of points, mean absolute and largest percentage error, and bias."""
    errors = [point.error_pct for point in points if point.error_pct is not None]
    if not errors:
        return ErrorSummary(len(points))
    sizes = [abs(error) for error in errors]
    return ErrorSummary(
        n=len(points),
        mape_pct=sum(sizes) / len(sizes),
        worst_pct=max(sizes),
        bias_pct=sum(errors) / len(errors),
    )


def range_remarks(extrapolations: Iterable[Extrapolation]) -> list[str]:
    """A remark that names the kernels used beyond their measured range; none if none was."""
    attributes = {f"{use.kernel}: {use.feature}" for use in extrapolations}
    if not attributes:
        return []
    names = ", ".join(sorted(attributes))
    return [f"Used beyond the range that its kernel was measured on: {names}."]


def published(name: str) -> pd.DataFrame:
    """A table of published figures that ships with simdep, `name` without `.csv`."""
    text = (resources.files("simdep") / "data" / "published" / f"{name}.csv").read_text()
    return pd.read_csv(StringIO(text), comment="#")


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table by column, with None for an empty cell."""
    plain = []
    for row in table.astype(object).to_dict("records"):
        plain.append({str(column): _plain(cell) for column, cell in row.items()})
    return plain


def _plain(cell: Any) -> Any:
    """A cell as JSON has it: None where it is empty, integers without a fraction."""
    if pd.isna(cell):
        return None
    value = cell.item() if isinstance(cell, np.generic) else cell
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def read_measured(
    path: Path, publications: Sequence[Publication]
) -> tuple[Publication, pd.DataFrame]:
    """A user's table, and which of `publications` it belongs to by its columns.

    Optional columns that it lacks come out empty. Raises InputError naming the file, and the line
    and column at fault.
    """
    table = read_table(path, PUBLISHED)
    with files.context(path, PUBLISHED):
        publication, columns = _nearest(table, publications, path)
    if table.empty:
        raise InputError("no rows; give at least one measurement", path)
    for column in columns.names:
        if column not in table:
            table[column] = None
        if column not in columns.text:
            table[column] = _numbers(table[column], column in columns.counts, path)
    return publication, table.reset_index(drop=True)


def _nearest(
    table: pd.DataFrame, publications: Sequence[Publication], path: Path
) -> tuple[Publication, MeasuredColumns]:
    """The publication whose columns a table has. Raises InputError if it has those of none."""
    missing: dict[Publication, list[str]] = {}
    known = {each: each.columns for each in publications if each.columns is not None}
    for publication, columns in known.items():
        missing[publication] = [column for column in columns.needed if column not in table]
    best = min(known, key=lambda each: len(missing[each]) / len(known[each].needed))
    if missing[best]:
        columns = known[best]
        names = " or ".join(publication.name for publication in known)
        raise InputError(
            f"expected the columns of {names}; for {best.name} "
            f"({','.join(columns.needed)}) it lacks {','.join(missing[best])}",
            path,
        )
    return best, known[best]


def _numbers(cells: pd.Series[Any], is_count: bool, path: Path) -> pd.Series[Any]:
    """A column as numbers above 0, integers where it counts something, or empty cells.

    The index holds the lines of the file. Raises InputError naming the line and the column.
    """
    numbers = pd.to_numeric(cells, errors="coerce")
    good = np.isfinite(numbers) & (numbers > 0)
    if is_count:
        good &= numbers % 1 == 0
    wrong = cells.notna() & ~good
    if wrong.any():
        line = wrong.idxmax()
        kind = "an integer" if is_count else "a number"
        sentence = (
            f"{cells.name}={shown(_plain(cells[line]))}; expected {kind} > 0 or an empty cell"
        )
        raise InputError(sentence, f"{path}:{line}")
    return numbers
