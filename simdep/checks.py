"""Checks of what a user gave, and the errors of simdep.

An error is one sentence: the value, the rule, the place. Values are cut to 80 characters, and
control characters are escaped, so that no file can write to the terminal.

    SimdepError
    ├── InputError (a ValueError)     a file, a flag or an argument is wrong          exit code 2
    │   └── CycleError                a schedule can never finish
    ├── InfeasibleError               it is right but impossible, as for memory       exit code 3
    └── RunError (a RuntimeError)     a run or a file written can't go on             exit code 1

Ctrl-C ends a command with exit code 130.
"""

from __future__ import annotations

import difflib
import math
import re
import reprlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

MAX_INTEGER = 10**9  # of an integer; sums and products of such numbers stay finite, as do those of
MAX_NUMBER = 1e30  # any other number
MAX_VALUE_LETTERS = 80  # of a value that an error repeats
MAX_LETTERS = 280  # of the sentence of an error; with the name of the program it has under 300
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but line ends and tabs
_MAX_CHOICES = 12  # that an error lists
_LONG_QUOTED = re.compile(rf"'[^']{{{MAX_VALUE_LETTERS},}}'|\"[^\"]{{{MAX_VALUE_LETTERS},}}\"")


class SimdepError(Exception):
    """An error that simdep raises; its subclasses say whose fault it is."""


class InputError(SimdepError, ValueError):
    """A file, a flag or an argument is wrong; exit code 2.

    `place` is the file (and line) at fault; the sentence begins with it.
    """

    def __init__(self, sentence: object, place: object = "") -> None:
        super().__init__(f"{place}: {sentence}" if place else sentence)
        self.place = str(place)


class InfeasibleError(SimdepError):
    """The input is right but can't be done, for example for want of memory; exit code 3."""


class RunError(SimdepError, RuntimeError):
    """A run can't go on, or a file can't be written; exit code 1."""


def shown(value: object) -> str:
    """A value as errors repeat it: its repr, at most 80 characters, all of them printable."""
    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = brief.maxlong = MAX_VALUE_LETTERS
    try:
        text = brief.repr(value)
    except ValueError:  # Python refuses to write integers of over 4,300 digits
        text = "an integer of thousands of digits"
    return shortened(printable(text), MAX_VALUE_LETTERS)


def shown_text(text: str) -> str:
    """A text as errors repeat it: as `shown` has it, without quotes."""
    return shortened(printable(text[: 10 * MAX_VALUE_LETTERS]), MAX_VALUE_LETTERS)


def printable(text: str, keep: str = "") -> str:
    """A text with its control and other invisible characters escaped, except those in `keep`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


def shortened(text: str, limit: int) -> str:
    """A text of at most `limit` characters; `...` stands for what is left out of its middle."""
    if len(text) <= limit:
        return text
    tail = limit // 3
    return f"{text[: limit - tail - 3]}...{text[-tail:]}"


def sentence(error: object, max_lines: int = 1) -> str:
    """An error as a terminal shows it: printable, in lines of at most 280 letters."""
    text = _LONG_QUOTED.sub(lambda match: shortened(match[0], MAX_VALUE_LETTERS), str(error))
    lines = [line.strip() for line in text.strip().splitlines()]
    if max_lines == 1:
        lines = [" ".join(lines)]
    return "\n".join(shortened(printable(line), MAX_LETTERS) for line in lines[:max_lines])


def known(name: Any, choices: Collection[str], what: str) -> str:
    """`name` if it is one of `choices`; else InputError with the nearest one, or all."""
    if isinstance(name, str) and name in choices:
        return name
    near = difflib.get_close_matches(str(name)[:MAX_VALUE_LETTERS], choices, n=1)
    if near:
        raise InputError(f"unknown {what} {shown(name)}; did you mean {near[0]!r}?")
    raise InputError(f"unknown {what} {shown(name)}; use {listed(sorted(choices))}")


def listed(names: Iterable[str]) -> str:
    """Names with commas; of many, the first ones and how many more there are."""
    every = list(names)
    if len(every) <= _MAX_CHOICES + 1:
        return ", ".join(every)
    return f"{', '.join(every[:_MAX_CHOICES])} and {len(every) - _MAX_CHOICES} more"


def mapping(value: Any, keys: Collection[str], place: str) -> Mapping[str, Any]:
    """`value` if it is a table without unknown keys; else InputError."""
    if not isinstance(value, Mapping):
        raise InputError(f"{place}={shown(value)}; expected a table of {listed(keys)}")
    for key in value:
        known(key, keys, f"key of {place}")
    return value


def integer(value: Any, place: str, low: int = 1, high: int = MAX_INTEGER) -> int:
    """`value` if it is an integer from `low` to `high`, default a billion; else InputError."""
    if type(value) is not int or value < low:
        raise InputError(f"{place}={shown(value)}; expected an integer >= {low}")
    if value > high:
        raise InputError(f"{place}={shown(value)}; expected an integer <= {high:,}")
    return value


def finite(value: Any, place: str) -> float:
    """`value` if it is a finite number; else InputError."""
    if not _is_finite(value):
        raise InputError(f"{place}={shown(value)}; expected a finite number")
    return value  # type: ignore[no-any-return]


def number(
    value: Any, place: str, *, above: float | None = None, high: float = MAX_NUMBER
) -> float:
    """`value` if it is a finite number >= 0 (or > `above`), and <= `high`; else InputError."""
    if not _is_finite(value) or value < 0 or (above is not None and value <= above):
        rule = ">= 0" if above is None else f"> {above}"
        raise InputError(f"{place}={shown(value)}; expected a finite number {rule}")
    if value > high:
        raise InputError(f"{place}={shown(value)}; expected a number <= {high:g}")
    return value  # type: ignore[no-any-return]


def _is_finite(value: Any) -> bool:
    if type(value) is int:
        return abs(value) <= MAX_NUMBER  # beyond the range of floats, isfinite raises
    return type(value) is float and math.isfinite(value)


def pair(value: Any, place: str) -> tuple[float, float]:
    """`value` if it is a pair of numbers >= 0; else InputError."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise InputError(f"{place}={shown(value)}; expected a pair of numbers")
    low, high = (number(item, place) for item in value)
    return low, high


def boolean(value: Any, place: str) -> bool:
    """`value` if it is true or false; else InputError."""
    if not isinstance(value, bool):
        raise InputError(f"{place}={shown(value)}; expected true or false")
    return value


def string(value: Any, place: str) -> str:
    """`value` if it is a string that is not empty and moves no terminal; else InputError."""
    if not isinstance(value, str) or not value:
        raise InputError(f"{place}={shown(value)}; expected a text")
    if _CONTROL.search(value):
        raise InputError(f"{place}={shown(value)}; expected a text without control characters")
    return value
