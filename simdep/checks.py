"""Checks at the border: what a user gave, told in one sentence with the value, the rule and the
place."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any


class InfeasibleError(Exception):
    """What is asked for is well-formed but can't be done, for example for want of memory; exit code
    3."""


class RangeWarning(UserWarning):
    """A cost is asked for an operation beyond those that it was measured on."""


MOST_WHOLE, MOST = (
    10**9,
    1e30,
)  # of a whole number, of any other: sums and products of them stay finite
_VALUE = re.compile(
    r"(.*?=)([0-9.e+-]+)( is out of .*)"
)  # of a note on a cost asked beyond its measurements


def known(word: str, choices: Collection[str], what: str) -> str:
    """`word` if it is one of `choices`; else ValueError with the nearest one, or all."""
    if isinstance(word, str) and word in choices:
        return word
    near = difflib.get_close_matches(str(word), choices, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"use {', '.join(sorted(choices))}"
    raise ValueError(f"unknown {what} {word!r}; {hint}")


def table(value: Any, keys: Collection[str], where: str) -> Mapping[str, Any]:
    """`value` if it is a table without unknown keys; else ValueError."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}={value!r} is not a table of {', '.join(keys)}")
    for key in value:
        known(key, keys, f"key of {where}")
    return value


def whole(value: Any, where: str, low: int = 1) -> int:
    """`value` if it is a whole number of at least `low` and at most a billion; else ValueError."""
    if type(value) is not int or value < low:
        raise ValueError(f"{where}={value!r}; it is a whole number of at least {low}")
    if value > MOST_WHOLE:
        raise ValueError(f"{where}={value!r}; it is at most {MOST_WHOLE:,}")
    return value


def finite(value: Any, where: str) -> float:
    """`value` if it is a finite number; else ValueError."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{where}={value!r}; it is a finite number")
    return value  # type: ignore[no-any-return]


def number(value: Any, where: str, *, above: float | None = None) -> float:
    """`value` if it is a finite number of at least 0 (or above `above`); else ValueError."""
    good = type(value) in (int, float) and math.isfinite(value)
    if not good or value < 0 or (above is not None and value <= above):
        rule = "at least 0" if above is None else f"more than {above}"
        raise ValueError(f"{where}={value!r}; it is a finite number of {rule}")
    if value > MOST:
        raise ValueError(f"{where}={value!r}; it is at most {MOST:g}")
    return value  # type: ignore[no-any-return]


def pair(value: Any, where: str) -> tuple[float, float]:
    """`value` if it is a pair of numbers of at least 0; else ValueError."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError(f"{where}={value!r}; it is a pair of numbers")
    low, high = (number(each, where) for each in value)
    return low, high


def truth(value: Any, where: str) -> bool:
    """`value` if it is true or false; else ValueError."""
    if not isinstance(value, bool):
        raise ValueError(f"{where}={value!r}; it is true or false")
    return value


def text(value: Any, where: str) -> str:
    """`value` if it is a text that is not empty; else ValueError."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{where}={value!r}; it is a text")
    return value


def condensed(notes: Iterable[str]) -> list[str]:
    """Notes with those that differ in nothing but a value as one: `num_tokens=822 to 1023 is out of
    ...`."""
    values: dict[tuple[str, str], list[str]] = {}
    for note in dict.fromkeys(notes):
        before, value, after = (
            found.groups() if (found := _VALUE.fullmatch(note)) else (note, "", "")
        )
        values.setdefault((before, after), []).append(value)
    told = []
    for (before, after), each in values.items():
        least, most = (
            min(each, key=lambda text: float(text or 0)),
            max(each, key=lambda text: float(text or 0)),
        )
        told.append(before + (least if least == most else f"{least} to {most}") + after)
    return told
