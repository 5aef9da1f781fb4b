"""Axes of a sweep: a field of a scenario and the values that it takes, from texts such as
`r1=1,2,4` or `ag=1..8`.

>>> Axis.parse("r1=1,2,4").values
(1, 2, 4)
>>> Axis.parse("link.gbytes_per_s=log:10..1000:3").values
(10.0, 100.0, 1000.0)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from simdep.checks import MAX_INTEGER, InputError, known, shown
from simdep.scenario.field import Boolean, Field, Integer
from simdep.scenario.fields import FIELDS

SPLIT = "ag:eg"  # an axis of both: as many GPUs, divided between the groups
MAX_AXIS_VALUES = 100_000  # of an axis
_RANGE = re.compile(r"(?:(lin|log):)?([^:]+)\.\.([^:]+?)(?::(\d{1,9}))?")


def axis_names() -> list[str]:
    """The fields that can vary, and the split of GPUs."""
    return [*(field.name for field in FIELDS.values() if field.can_vary), SPLIT]


def text_columns() -> set[str]:
    """The columns of a sweep that hold texts, not numbers."""
    texts = {
        field.column_name
        for field in FIELDS.values()
        if not field.is_number and not isinstance(field, Boolean)
    }
    return {*texts, Axis(SPLIT, ()).column}


@dataclass(frozen=True)
class Axis:
    """A field of a scenario and the values that it takes."""

    name: str
    values: tuple[Any, ...]

    @classmethod
    def parse(cls, text: str) -> Axis:
        """From `NAME=LIST` or `NAME=RANGE`; raises InputError for the part at fault.

        A list is `1024,2048`; a range of integers `1..8` or, with a step, `0..64:8`; of other
        numbers `lin:10..400:9` or `log:10..400:9`, nine of them, ends included. Splits of GPUs are
        `ag:eg=1:7,2:6`, or all from one to another of as many GPUs, `ag:eg=1:7..7:1`.
        """
        name, equals, listed = (part.strip() for part in text.partition("="))
        try:
            known(name, axis_names(), "parameter to vary")
        except InputError as error:
            raise InputError(f"--vary: {error}") from None
        if not equals or not listed:
            raise InputError(
                f"--vary {shown(text)}: write NAME=VALUES, such as r1=1,2,4 or ag=1..8"
            )
        values = _splits(listed) if name == SPLIT else _values(FIELDS[name], listed)
        if len(set(values)) < len(values):
            raise InputError(f"--vary {shown(text)}: a value appears twice")
        return cls(name, tuple(values))

    @property
    def column(self) -> str:
        """Its column in the table: the name with its unit."""
        return "ag_eg" if self.name == SPLIT else FIELDS[self.name].column_name

    @property
    def is_number(self) -> bool:
        return self.name != SPLIT and FIELDS[self.name].is_number


def _values(field: Field, text: str) -> Sequence[Any]:
    match = _RANGE.fullmatch(text) if field.is_number else None
    if match:
        return _range(field, text, match)
    return [_value(field, item.strip()) for item in text.split(",")]


def _value(field: Field, text: str) -> Any:
    if not text:
        raise InputError(f"--vary {field.name}: a value is empty")
    try:
        return field.parse(text)
    except InputError as error:
        raise InputError(f"--vary {error}") from None


def _split(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text.strip())
    if not match:
        raise InputError(f"--vary {SPLIT}: {shown(text)} is no split; write AG:EG, such as 3:5")
    return int(match[1]), int(match[2])


def _splits(text: str) -> list[str]:
    if ".." not in text:
        return [f"{ag}:{eg}" for ag, eg in map(_split, text.split(","))]
    first, _, last = text.partition("..")
    (ag, eg), (last_ag, last_eg) = _split(first), _split(last)
    if ag + eg != last_ag + last_eg or ag > last_ag:
        raise InputError(
            f"--vary {SPLIT}: {shown(text)}: write the first and the last split of as many GPUs, "
            "as 1:7..7:1"
        )
    _check_count(SPLIT, text, last_ag - ag + 1)
    return [f"{n}:{ag + eg - n}" for n in range(ag, last_ag + 1)]


def _range(field: Field, text: str, match: re.Match[str]) -> Sequence[Any]:
    spacing, count = match[1], match[4]
    low, high = _value(field, match[2]), _value(field, match[3])
    if high > MAX_INTEGER:
        raise InputError(f"--vary {field.name}: {shown(text)} ends above {MAX_INTEGER:,}")
    if low > high or (spacing == "log" and low <= 0):
        above = ", above 0," if spacing == "log" else ""
        raise InputError(
            f"--vary {field.name}: {shown(text)} runs from its smaller end{above} to its larger"
        )
    if spacing is None and isinstance(field, Integer):
        return _steps(field, text, range(low, high + 1), count)
    if count is None or int(count) < 2:
        example = f"{spacing or 'lin'}:{match[2]}..{match[3]}:9"
        raise InputError(
            f"--vary {field.name}: {shown(text)}: say how many, at least 2, as {example}"
        )
    _check_count(field.name, text, int(count))
    return _spaced(spacing, low, high, int(count), whole=isinstance(field, Integer))


def _steps(field: Field, text: str, integers: range, step: str | None) -> Sequence[int]:
    if step is not None and int(step) == 0:
        raise InputError(f"--vary {field.name}: {shown(text)} has a step of 0")
    values = integers[:: int(step or 1)]
    _check_count(field.name, text, (values[-1] - values[0]) // values.step + 1)
    return values


def _spaced(spacing: str, low: float, high: float, count: int, *, whole: bool) -> Sequence[float]:
    import numpy as np  # takes longer to load than the flags of a command take to read

    space = np.geomspace if spacing == "log" else np.linspace
    values = space(low, high, count)
    if whole:
        return list(dict.fromkeys(int(value) for value in values.round()))
    return [float(f"{value:.6g}") for value in values]


def _check_count(name: str, text: str, count: int) -> None:
    if count > MAX_AXIS_VALUES:
        raise InputError(f"--vary {name}: {shown(text)} has over {MAX_AXIS_VALUES:,} values")
