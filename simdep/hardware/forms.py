"""Cost forms: how microseconds follow from named amounts of work, one array entry a task.

    Terms       additive terms + p-norm of overlapping terms: alpha + beta x (FinDEP, Eq. 1-4) where
                nothing overlaps; a roofline where computing overlaps memory; for a transfer alpha +
                tokens max(c / SMs, 1 / link), where the norm is a maximum
    Knee        max(floor, alpha + beta x): a floor that small work does not go below, convex in
                work
    PointTable  measured points: the logarithm of time over a Terms form, interpolated in logarithms
                of work

Every coefficient is at least 0, so a time never falls when work of a Terms or Knee form grows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import interpolate

from simdep import checks
from simdep.arrays import Array
from simdep.checks import InputError, shown

Quantities = Mapping[str, Array]  # amounts of work by name; "one" is 1 for every task
_NEIGHBOURS = 12  # measured points that a PointTable interpolates between, in each slice


@dataclass(frozen=True)
class Terms:
    """Microseconds = sum of additive terms + p-norm of overlapping terms.

    `additive` and `overlapping` give microseconds per unit of the work that they name. A p-norm
    with power 1 adds up (nothing overlaps); with an infinite power it is the largest (all overlap).
    """

    additive: Mapping[str, float]
    overlapping: Mapping[str, float] = field(default_factory=dict)
    power: float = math.inf

    def __call__(self, work: Quantities) -> Array:
        total: Array = np.zeros_like(work["one"])
        for name, us in self.additive.items():
            total = total + us * work[name]
        if self.overlapping:
            times = np.stack([us * work[name] for name, us in self.overlapping.items()])
            total = total + p_norm(times, self.power)
        return total

    @property
    def quantities(self) -> tuple[str, ...]:
        """The names of the work that it needs."""
        return (*self.additive, *self.overlapping)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; `adds` and `races` are the terms, a power of None is infinite."""
        return {
            "form": "terms",
            "adds": dict(self.additive),
            "races": dict(self.overlapping),
            "power": None if math.isinf(self.power) else self.power,
        }


@dataclass(frozen=True)
class Knee:
    """Microseconds = max(floor_us, alpha_us + beta_us * work)."""

    work: str
    floor_us: float
    alpha_us: float
    beta_us: float

    def __call__(self, work: Quantities) -> Array:
        return np.maximum(self.floor_us, self.alpha_us + self.beta_us * work[self.work])

    @property
    def quantities(self) -> tuple[str, ...]:
        """The names of the work that it needs."""
        return (self.work,)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"form": "knee", **asdict(self)}


@dataclass(frozen=True)
class PointTable:
    """Measured points over a Terms form.

    A row of `points` is (axis, *others, measured time over that of the form). Along `axis` a time
    lies between those of the two nearest measured slices, in a slice between those of the nearest
    points by distance in the logarithms of `others`. At a measured point it is the measurement.
    Measured time falls on 10 to 19 % of the steps to more work, so the interpolation is not forced
    to grow.
    """

    base: Terms
    axis: str
    others: tuple[str, ...]
    points: tuple[tuple[float, ...], ...]

    def __call__(self, work: Quantities) -> Array:
        along = np.log(work[self.axis])
        across = np.empty((len(along), len(self.others)))
        for column, name in enumerate(self.others):
            across[:, column] = np.log(work[name])

        levels = np.array(list(self._slices))
        above = np.clip(np.searchsorted(levels, along), 0, len(levels) - 1)
        below = np.where((levels[above] > along) & (above > 0), above - 1, above)
        log_ratios = [self._at_levels(levels, index, across) for index in (below, above)]

        gap = levels[above] - levels[below]
        part = np.where(gap > 0, (along - levels[below]) / np.where(gap > 0, gap, 1), 0)
        times: Array = self.base(work) * np.exp(log_ratios[0] * (1 - part) + log_ratios[1] * part)
        return times

    def _at_levels(self, levels: Array, indices: NDArray[np.int64], across: Array) -> Array:
        """Logarithm of measured time over the base form, of every task in the slice of its
        index."""
        log_ratios = np.empty(len(indices))
        for index in np.unique(indices):
            here = indices == index
            log_ratios[here] = self._slices[levels[index]](across[here])
        return log_ratios

    @cached_property
    def _slices(self) -> dict[float, _Slice]:
        logarithms = np.log(np.array(self.points))
        axis = logarithms[:, 0]
        return {float(level): _Slice(logarithms[axis == level][:, 1:]) for level in np.unique(axis)}

    @classmethod
    def through(
        cls, base: Terms, axis: str, others: Sequence[str], work: Quantities, us: Array
    ) -> PointTable:
        """The table through measured times; points measured more than once take their median."""
        places = np.column_stack([work[name] for name in (axis, *others)])
        different, group = np.unique(places, axis=0, return_inverse=True)
        ratios = us / base(work)
        points = []
        for index, place in enumerate(different):
            median = float(np.median(ratios[group.ravel() == index]))
            points.append((*map(float, place), median))
        return cls(base, axis, tuple(others), tuple(points))

    @property
    def quantities(self) -> tuple[str, ...]:
        """The names of the work that it needs."""
        return (*self.base.quantities, self.axis, *self.others)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "form": "table",
            "base": self.base.to_dict(),
            "axis": self.axis,
            "others": list(self.others),
            "points": [list(point) for point in self.points],
        }


Form = Terms | Knee | PointTable


class _Slice:
    """The points of one level of a table: logarithms of place and of time over the base form."""

    def __init__(self, points: Array) -> None:
        places, self._log_ratios = points[:, :-1], points[:, -1]
        self._interpolator: interpolate.RBFInterpolator | None = None
        if len(points) > 1 and places.shape[1]:
            self._interpolator = interpolate.RBFInterpolator(
                places,
                self._log_ratios,
                neighbors=min(_NEIGHBOURS, len(points)),
                kernel="linear",
                degree=0,
            )

    def __call__(self, places: Array) -> Array:
        if self._interpolator is None:
            return np.full(len(places), float(self._log_ratios[0]))
        return np.asarray(self._interpolator(places), float)


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


def form_from_dict(data: Any, place: str) -> Form:
    """A form from its JSON table; raises InputError naming the field at fault."""
    if not isinstance(data, Mapping):
        raise InputError(f"{place}={shown(data)}; expected a table")
    kind = checks.known(str(data.get("form")), ("terms", "knee", "table"), f"{place}.form")
    if kind == "terms":
        return _terms_from_dict(data, place)
    if kind == "knee":
        return _knee_from_dict(data, place)
    return _table_from_dict(data, place)


def _terms_from_dict(data: Mapping[str, Any], place: str) -> Terms:
    checks.mapping(data, ("form", "adds", "races", "power"), place)
    power = math.inf
    if data.get("power") is not None:
        power = checks.number(data["power"], f"{place}.power")
    if power < 1:
        raise InputError(f"{place}.power={power}; expected a number >= 1, the power of a p-norm")
    additive = _coefficients(data.get("adds", {}), f"{place}.adds")
    overlapping = _coefficients(data.get("races", {}), f"{place}.races")
    if not additive and not overlapping:
        raise InputError(f"{place} has neither adds nor races; a form has at least one term")
    return Terms(additive, overlapping, power)


def _knee_from_dict(data: Mapping[str, Any], place: str) -> Knee:
    checks.mapping(data, ("form", "work", "floor_us", "alpha_us", "beta_us"), place)
    return Knee(
        work=checks.string(data.get("work"), f"{place}.work"),
        floor_us=checks.number(data.get("floor_us"), f"{place}.floor_us"),
        alpha_us=checks.number(data.get("alpha_us"), f"{place}.alpha_us"),
        beta_us=checks.number(data.get("beta_us"), f"{place}.beta_us"),
    )


def _table_from_dict(data: Mapping[str, Any], place: str) -> PointTable:
    checks.mapping(data, ("form", "base", "axis", "others", "points"), place)
    base = form_from_dict(data.get("base"), f"{place}.base")
    if not isinstance(base, Terms):
        raise InputError(f"{place}.base is a {data['base']['form']}; a table stands over terms")
    others = data.get("others", ())
    if not isinstance(others, (list, tuple)):
        raise InputError(f"{place}.others={shown(others)}; expected a list of names")
    others = tuple(checks.string(name, f"{place}.others") for name in others)
    axis = checks.string(data.get("axis"), f"{place}.axis")
    return PointTable(base, axis, others, _points(data.get("points"), len(others) + 2, place))


def _points(data: Any, width: int, place: str) -> tuple[tuple[float, ...], ...]:
    if not isinstance(data, (list, tuple)) or not data:
        raise InputError(f"{place}.points is missing; a table has at least one row")
    points = []
    for row in data:
        if not isinstance(row, (list, tuple)) or len(row) != width:
            raise InputError(f"{place}.points: {shown(row)} is not a row of {width} numbers")
        points.append(tuple(checks.number(value, f"{place}.points", above=0) for value in row))
    return tuple(points)


def _coefficients(data: Any, place: str) -> dict[str, float]:
    if not isinstance(data, Mapping):
        raise InputError(f"{place}={shown(data)}; expected a table of microseconds by work")
    coefficients = {}
    for name, value in data.items():
        coefficients[checks.string(name, place)] = checks.number(value, f"{place}.{name}")
    return coefficients
