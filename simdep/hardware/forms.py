"""Cost forms: how microseconds follow from named amounts of work, one array entry a task.

    Terms   adds + p-norm of races: alpha + beta x (FinDEP, Eq. 1-4) where nothing races, a roofline where computing
            races memory, and alpha + tokens max(c / SMs, 1 / link) for a transfer whose race is a maximum
    Knee    max(floor, alpha + beta x): a floor that small work does not go below, convex in the work
    Table   measured points: the logarithm of time over a Terms form, interpolated in logarithms of the work

Every coefficient is at least 0, so a time never falls when work of a Terms or Knee form grows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import interpolate

from simdep import checks

Array = NDArray[np.float64]
Work = Mapping[str, Array]  # amounts of work by name; "one" is 1 for every task
NEIGHBOURS = 12  # measured points that a Table interpolates between, in each slice


@dataclass(frozen=True)
class Terms:
    """Microseconds = sum of `adds` + p-norm of `races`; both give microseconds per unit of the work
    they name.

    A p-norm with power 1 adds up (nothing overlaps), with an infinite power it is the largest (all
    overlaps).
    """

    adds: Mapping[str, float]
    races: Mapping[str, float] = field(default_factory=dict)
    power: float = math.inf

    def __call__(self, work: Work) -> Array:
        total: Array = sum(
            (us * work[name] for name, us in self.adds.items()), np.zeros_like(work["one"])
        )
        if self.races:
            total = total + p_norm(
                np.stack([us * work[name] for name, us in self.races.items()]), self.power
            )
        return total

    def to_dict(self) -> dict[str, Any]:
        power = None if math.isinf(self.power) else self.power
        return {"form": "terms", "adds": dict(self.adds), "races": dict(self.races), "power": power}


@dataclass(frozen=True)
class Knee:
    """Microseconds = max(floor_us, alpha_us + beta_us * work)."""

    work: str
    floor_us: float
    alpha_us: float
    beta_us: float

    def __call__(self, work: Work) -> Array:
        return np.maximum(self.floor_us, self.alpha_us + self.beta_us * work[self.work])

    def to_dict(self) -> dict[str, Any]:
        return {"form": "knee"} | {key: getattr(self, key) for key in Knee.__dataclass_fields__}


@dataclass(frozen=True)
class Table:
    """Measured points over a Terms form: `points` rows are (axis, *others, measured time over that
    of the form).

    Along `axis` a time lies between those of the two nearest measured slices, in a slice between
    those of the nearest points by distance in the logarithms of `others`; at a measured point it is
    the measurement. Measured time falls on 10 to 19 % of the steps to more work, so the
    interpolation is not forced to grow.
    """

    base: Terms
    axis: str
    others: tuple[str, ...]
    points: tuple[tuple[float, ...], ...]

    def __call__(self, work: Work) -> Array:
        at = np.log(work[self.axis])
        places = (
            np.array([np.log(work[name]) for name in self.others])
            .reshape(len(self.others), len(at))
            .T
        )
        levels = np.array(list(self._slices))
        above = np.clip(np.searchsorted(levels, at), 0, len(levels) - 1)
        below = np.where((levels[above] > at) & (above > 0), above - 1, above)
        gap = levels[above] - levels[below]
        part = np.where(gap > 0, (at - levels[below]) / np.where(gap > 0, gap, 1), 0)
        over = np.empty((len(at), 2))
        for side, which in enumerate((below, above)):
            for index in np.unique(which):
                here = which == index
                over[here, side] = self._slices[levels[index]](places[here])
        times: Array = self.base(work) * np.exp(over[:, 0] * (1 - part) + over[:, 1] * part)
        return times

    @cached_property
    def _slices(self) -> dict[float, _Slice]:
        rows = np.log(np.array(self.points))
        return {
            float(level): _Slice(rows[rows[:, 0] == level][:, 1:])
            for level in np.unique(rows[:, 0])
        }

    @classmethod
    def over(cls, base: Terms, axis: str, others: Sequence[str], work: Work, us: Array) -> Table:
        """The table of measured times; points measured more than once take their median."""
        keys = np.column_stack([work[name] for name in (axis, *others)])
        places, which = np.unique(keys, axis=0, return_inverse=True)
        over = us / base(work)
        medians = [float(np.median(over[which.ravel() == index])) for index in range(len(places))]
        points = tuple(
            (*map(float, place), value) for place, value in zip(places, medians, strict=True)
        )
        return cls(base, axis, tuple(others), points)

    def to_dict(self) -> dict[str, Any]:
        own = {
            "axis": self.axis,
            "others": list(self.others),
            "points": [list(row) for row in self.points],
        }
        return {"form": "table", "base": self.base.to_dict()} | own


Form = Terms | Knee | Table


class _Slice:
    """Points of one level of a table: logarithms of place and of time over the base form."""

    def __init__(self, rows: Array) -> None:
        self._only = float(rows[0, -1])
        self._between = (
            interpolate.RBFInterpolator(
                rows[:, :-1],
                rows[:, -1],
                neighbors=min(NEIGHBOURS, len(rows)),
                kernel="linear",
                degree=0,
            )
            if len(rows) > 1 and rows.shape[1] > 1
            else None
        )

    def __call__(self, places: Array) -> Array:
        if self._between is None:
            return np.full(len(places), self._only)
        return np.asarray(self._between(places), float)


def linear(alpha_us: float, beta_us: float, work: str = "macs") -> Terms:
    """The paper's form: alpha + beta * work (FinDEP, Eq. 1)."""
    return Terms({"one": alpha_us, work: beta_us})


def p_norm(values: Array, power: float) -> Array:
    """The p-norm over the first axis of values that are at least 0; an infinite power takes the
    largest."""
    largest: Array = values.max(axis=0)
    if math.isinf(power):
        return largest
    scale = np.where(largest > 0, largest, 1)
    total: Array = largest * ((values / scale) ** power).sum(axis=0) ** (1 / power)
    return np.where(largest > 0, total, 0)


def form_from_dict(data: Any, where: str) -> Form:
    """A form from its JSON table; raises ValueError naming the field at fault."""
    if not isinstance(data, Mapping):
        raise ValueError(f"{where}={data!r}; expected a table")
    kind = checks.known(str(data.get("form")), ("terms", "knee", "table"), f"{where}.form")
    if kind == "terms":
        checks.mapping(data, ("form", "adds", "races", "power"), where)
        power = data.get("power")
        power = math.inf if power is None else checks.number(power, f"{where}.power")
        if power < 1:
            raise ValueError(f"{where}.power={power}; a p-norm has a power of at least 1")
        adds, races = (
            _coefficients(data.get(key, {}), f"{where}.{key}") for key in ("adds", "races")
        )
        if not adds and not races:
            raise ValueError(f"{where} has neither adds nor races; a form has at least one term")
        return Terms(adds, races, power)
    if kind == "knee":
        checks.mapping(data, ("form", *Knee.__dataclass_fields__), where)
        floor, alpha, beta = (
            checks.number(data.get(key), f"{where}.{key}")
            for key in ("floor_us", "alpha_us", "beta_us")
        )
        return Knee(checks.string(data.get("work"), f"{where}.work"), floor, alpha, beta)
    checks.mapping(data, ("form", "base", "axis", "others", "points"), where)
    base = form_from_dict(data.get("base"), f"{where}.base")
    if not isinstance(base, Terms):
        raise ValueError(f"{where}.base is a {data['base']['form']}; a table stands over terms")
    others = tuple(checks.string(name, f"{where}.others") for name in data.get("others", ()))
    rows = data.get("points")
    if not isinstance(rows, (list, tuple)) or not rows:
        raise ValueError(f"{where}.points is missing; a table has at least one row")
    width = len(others) + 2
    for row in rows:
        if not isinstance(row, (list, tuple)) or len(row) != width:
            raise ValueError(f"{where}.points: {row!r} is not a row of {width} numbers")
    points = tuple(
        tuple(checks.number(value, f"{where}.points", above=0) for value in row) for row in rows
    )
    return Table(base, checks.string(data.get("axis"), f"{where}.axis"), others, points)


def _coefficients(data: Any, where: str) -> dict[str, float]:
    if not isinstance(data, Mapping):
        raise ValueError(f"{where}={data!r}; expected a table of microseconds by work")
    return {
        checks.string(name, where): checks.number(value, f"{where}.{name}")
        for name, value in data.items()
    }
