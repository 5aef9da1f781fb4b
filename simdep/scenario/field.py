"""What a field of a scenario is: its name, its place, its rule, and the sentence that explains it.

A field reads two ways: `check` takes a value of a file, `parse` the text of a flag, an axis or a
form. Both raise InputError that names the field.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from simdep import checks
from simdep.checks import InputError, shown


@dataclass(frozen=True, kw_only=True)
class Field(ABC):
    """A field of a scenario, and everything that a reader of it needs.

    `name` is its name everywhere, with a dot for a field of a table within a table; `table` its
    table in a file. `help` is half a sentence. A field that is left out has its `default`, or,
    where that depends on others, what `otherwise` says in words. `replaces` names fields whose
    place it takes: it is stated in place of them. `flag` is "" for a field without one, and
    `column` its column in the table of a sweep; both follow from the name unless they are given.
    """

    name: str
    table: str
    label: str
    help: str
    default: Any = None
    otherwise: str = ""
    unit: str = ""
    flag: str | None = None
    metavar: str = ""
    column: str = ""
    replaces: tuple[str, ...] = ()
    example: Any = None

    @cached_property  # every point of a sweep asks for it
    def path(self) -> tuple[str, ...]:
        """Its keys in the nested tables of a file."""
        names = tuple(self.name.split("."))
        if self.table in ("scenario", names[0]):
            return names
        return (self.table, *names)

    @property
    def option(self) -> str:
        """The flag that states it, such as --seq-len; "" if none does."""
        if self.flag is not None:
            return self.flag
        return f"--{self.name.replace('.', '-').replace('_', '-')}"

    @property
    def placeholder(self) -> str:
        """What stands for its value in the help of a command."""
        return self.metavar or self.unit.upper() or "N"

    @property
    def column_name(self) -> str:
        """Its column in the table of a sweep, with its unit."""
        return self.column or self.name.replace(".", "_")

    @property
    def is_number(self) -> bool:
        return False

    @property
    def can_vary(self) -> bool:
        """Whether it can be an axis of a sweep: its values are single words or numbers."""
        return True

    @property
    @abstractmethod
    def rule(self) -> str:
        """What values it takes, in words."""

    @abstractmethod
    def check(self, value: Any) -> Any:
        """A value that a file gives, checked."""

    def parse(self, text: str) -> Any:
        """A value that a text gives, in the form of a file, not checked for its bounds."""
        return text

    @abstractmethod
    def schema(self) -> dict[str, Any]:
        """Its JSON schema."""

    @property
    def default_text(self) -> str:
        """What holds where it is left out, in words; "" where it must be given."""
        if self.default is None:
            return self.otherwise
        if isinstance(self.default, bool):
            return str(self.default).lower()
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)


@dataclass(frozen=True, kw_only=True)
class Integer(Field):
    """An integer from `low` to `high`, by default a billion."""

    low: int = 1
    high: int = checks.MAX_INTEGER

    @property
    def is_number(self) -> bool:
        return True

    @property
    def rule(self) -> str:
        return f"integer >= {self.low}"

    def check(self, value: Any) -> int:
        return checks.integer(value, self.name, self.low, self.high)

    def parse(self, text: str) -> int:
        try:
            return int(text)
        except ValueError:
            raise InputError(f"{self.name}={shown(text)}; expected an integer") from None

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True, kw_only=True)
class Number(Field):
    """A finite number >= 0, or > `above`; and <= `high`, or < `below`, where these are given."""

    above: float | None = None
    high: float | None = None
    below: float | None = None

    @property
    def is_number(self) -> bool:
        return True

    @property
    def rule(self) -> str:
        bounds = [">= 0" if self.above is None else f"> {self.above:g}"]
        bounds += [] if self.high is None else [f"<= {self.high:g}"]
        bounds += [] if self.below is None else [f"< {self.below:g}"]
        return f"number {' and '.join(bounds)}"

    def check(self, value: Any) -> float:
        number = checks.number(value, self.name, above=self.above)
        too_high = self.high is not None and number > self.high
        if too_high or (self.below is not None and number >= self.below):
            raise InputError(f"{self.name}={shown(value)}; expected a {self.rule}")
        return number

    def parse(self, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise InputError(f"{self.name}={shown(text)}; expected a number") from None
        if abs(value) > checks.MAX_NUMBER:
            raise InputError(f"{self.name}={shown(value)}; expected a finite number")
        return checks.finite(value, self.name)

    def schema(self) -> dict[str, Any]:
        low = {"minimum": 0} if self.above is None else {"exclusiveMinimum": self.above}
        high = {} if self.high is None else {"maximum": self.high}
        below = {} if self.below is None else {"exclusiveMaximum": self.below}
        return {"type": "number", **low, **high, **below}


@dataclass(frozen=True, kw_only=True)
class Boolean(Field):
    """True or false."""

    @property
    def rule(self) -> str:
        return "true or false"

    def check(self, value: Any) -> bool:
        return checks.boolean(value, self.name)

    def parse(self, text: str) -> bool:
        if text not in ("true", "false"):
            raise InputError(f"{self.name}={shown(text)}; expected true or false")
        return text == "true"

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True, kw_only=True)
class OneOf(Field):
    """One of a few words."""

    choices: tuple[str, ...]

    @property
    def placeholder(self) -> str:
        return "|".join(self.choices)

    @property
    def rule(self) -> str:
        return f"{', '.join(self.choices[:-1])} or {self.choices[-1]}"

    def check(self, value: Any) -> str:
        return checks.known(value, self.choices, self.name)

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.choices)}


@dataclass(frozen=True, kw_only=True)
class Text(Field):
    """A text, such as a name or a path; an empty one only where that is the default."""

    metavar: str = "NAME"

    @property
    def rule(self) -> str:
        return "text"

    def check(self, value: Any) -> str:
        return value if value == self.default == "" else checks.string(value, self.name)

    def schema(self) -> dict[str, Any]:
        return {"type": "string"}


ONE_HARDWARE = (
    "different hardware of AG and EG (ag_hardware, eg_hardware) is not supported yet; expected "
    "one name in hardware"
)


@dataclass(frozen=True, kw_only=True)
class HardwareName(Text):
    """The one hardware of a deployment."""

    def check(self, value: Any) -> str:
        if isinstance(value, Mapping):
            raise InputError(f"{self.name}={checks.shown(value)}; {ONE_HARDWARE}")
        return super().check(value)


@dataclass(frozen=True, kw_only=True)
class Integers(Field):
    """A list of integers, or a text of them such as `3,1`."""

    low: int = 1

    @property
    def can_vary(self) -> bool:
        return False

    @property
    def rule(self) -> str:
        return f"list of integers >= {self.low}"

    def check(self, value: Any) -> tuple[int, ...]:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)) or not items:
            raise InputError(f"{self.name}={shown(value)}; expected integers such as [3, 1]")
        return tuple(self._item(item) for item in items)

    def _item(self, item: Any) -> int:
        if isinstance(item, str) and item.strip().isdecimal():
            item = int(item)
        return checks.integer(item, self.name, self.low)

    def schema(self) -> dict[str, Any]:
        numbers = {"type": "array", "items": {"type": "integer", "minimum": self.low}}
        return {"anyOf": [numbers, {"type": "string"}]}


@dataclass(frozen=True, kw_only=True)
class Shares(Integers):
    """A list of lists of integers, one for each micro-batch, or a text of them such as `1,3/2,2`.

    A single list stands for every micro-batch.
    """

    @property
    def rule(self) -> str:
        return "lists of integers >= 1"

    def check(self, value: Any) -> Any:
        parts = value.split("/") if isinstance(value, str) else value
        if not isinstance(parts, (list, tuple)) or not parts:
            raise InputError(
                f"{self.name}={shown(value)}; expected shares such as [1, 3] or [[1, 3], [2, 2]]"
            )
        if not isinstance(value, str) and not any(isinstance(p, (list, tuple)) for p in parts):
            parts = [parts]
        return tuple(Integers.check(self, part) for part in parts)

    def schema(self) -> dict[str, Any]:
        shares = {"type": "array", "items": {"type": "integer", "minimum": 1}}
        return {"anyOf": [shares, {"type": "array", "items": shares}, {"type": "string"}]}


@dataclass(frozen=True, kw_only=True)
class Factors(Field):
    """A factor for each of some ranks, `{ "AG.3" = 1.3 }`; as texts, `AG.3=1.3`."""

    @property
    def can_vary(self) -> bool:
        return False

    @property
    def rule(self) -> str:
        return "table of ranks and factors"

    def check(self, value: Any) -> dict[str, float]:
        if not isinstance(value, Mapping):
            example = '{ "AG.3" = 1.3 }'
            raise InputError(f"{self.name}={shown(value)}; expected a table such as {example}")
        return {
            str(name): checks.number(factor, f"straggler {name}", above=0)
            for name, factor in value.items()
        }

    def parse(self, text: str) -> dict[str, float]:
        """From `AG.3=1.3`, or several of these with commas."""
        factors = {}
        for part in text.split(","):
            name, _, factor = part.partition("=")
            if not re.fullmatch(r"[0-9.]+(?:[eE][+-]?[0-9]+)?", factor):
                raise InputError(f"{shown(text)}; write a rank and a factor, such as AG.3=1.3")
            factors[name.strip()] = float(factor)
        return factors

    def schema(self) -> dict[str, Any]:
        factor = {"type": "number", "exclusiveMinimum": 0}
        return {"type": "object", "additionalProperties": factor}


@dataclass(frozen=True, kw_only=True)
class Counts(Text):
    """A name, a path, or the counts themselves in lists (`simdep.scenario.routing`)."""

    @property
    def rule(self) -> str:
        return "text, or lists of counts"

    def check(self, value: Any) -> Any:
        return value if isinstance(value, list) else Text.check(self, value)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, {"type": "array"}]}
