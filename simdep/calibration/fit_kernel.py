"""Fitting kernels to measured operations, and the errors that a fit makes on shapes that it has not
seen.

All fits work on the logarithm of predicted over measured time with a loss that forgives outliers,
so that short and long operations count alike. `least-squares` is the paper's way, kept to compare
with.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from simdep.arrays import Array
from simdep.checks import InputError
from simdep.hardware.forms import Form, Knee, PointTable, Quantities, Terms, linear, p_norm
from simdep.hardware.kernels import Errors, Kernel
from simdep.hardware.operations import Operation, OperationColumns

_FOLDS = 5
_OUTLIER = 0.05  # relative error from which a point counts less than by its square
_START_POWERS = (1.2, 2.5, 8.0)  # of the p-norm that a fit starts from
_MAX_POWER = 40.0
_VANISHING = 1e-6  # share of every time below which a term is left out

Fit = Callable[[Operation, OperationColumns, Array], Form]


@dataclass(frozen=True)
class _TermsProblem:
    """The search for the coefficients and the power of a Terms form, in logarithms.

    `start` are microseconds per unit of work of each term that a search begins with, `times` [term,
    row] what they give. A point of the search is a logarithm of a factor for each term, and of the
    power less 1 where several terms overlap.
    """

    additive: tuple[str, ...]
    overlapping: tuple[str, ...]
    start: Array
    times: Array

    @classmethod
    def of(
        cls, additive: Sequence[str], overlapping: Sequence[str], work: Quantities, us: Array
    ) -> _TermsProblem:
        names = (*additive, *overlapping)
        shares = [_us_per_unit(work[name], us) for name in names]
        start = np.array(shares) / len(names)
        times = start[:, None] * np.stack([work[name] for name in names])
        return cls(tuple(additive), tuple(overlapping), start, times)

    @property
    def has_power(self) -> bool:
        return len(self.overlapping) > 1

    @property
    def starts(self) -> list[list[float]]:
        """Points that a search starts from."""
        powers = _START_POWERS if self.has_power else _START_POWERS[:1]
        factors = [0.0] * len(self.start)
        return [factors + [math.log(power - 1)] * self.has_power for power in powers]

    @property
    def bounds(self) -> tuple[list[float], list[float]]:
        count = len(self.start)
        low = [-30.0] * count + [-5.0] * self.has_power
        high = [8.0] * count + [math.log(_MAX_POWER - 1)] * self.has_power
        return low, high

    def predicted(self, point: Array) -> Array:
        """Microseconds of every row."""
        times = np.exp(point[: len(self.start)])[:, None] * self.times
        additive = len(self.additive)
        total: Array = times[:additive].sum(axis=0)
        if not self.overlapping:
            return total
        return total + p_norm(times[additive:], self.power(point))

    def power(self, point: Array) -> float:
        return 1 + math.exp(point[-1]) if self.has_power else math.inf

    def form(self, point: Array, us: Array) -> Terms:
        """The form of a point, without terms that vanish beside every time."""
        factors = np.exp(point[: len(self.start)])
        shares = (factors[:, None] * self.times / us).max(axis=1)
        coefficients = self.start * factors
        additive: dict[str, float] = {}
        overlapping: dict[str, float] = {}
        for index, name in enumerate((*self.additive, *self.overlapping)):
            if shares[index] > _VANISHING:
                terms = additive if index < len(self.additive) else overlapping
                terms[name] = float(coefficients[index])
        return Terms(additive, overlapping, self.power(point))


def fit_terms(
    additive: Sequence[str], overlapping: Sequence[str], work: Quantities, us: Array
) -> Terms:
    """The coefficients (at least 0) and the power of a Terms form with the least robust relative
    error.

    Work that is 0 everywhere takes no coefficient. Raises InputError for fewer rows than
    coefficients.
    """
    problem = _TermsProblem.of(_present(additive, work), _present(overlapping, work), work, us)
    names = (*problem.additive, *problem.overlapping)
    if len(us) < len(names) + problem.has_power:
        raise InputError(
            f"too few rows ({len(us)}) for {len(names)} terms ({', '.join(names)}); "
            "a fit needs more"
        )

    def residuals(point: Array) -> Array:
        return np.log(problem.predicted(point) / us)

    best = _least(residuals, problem.starts, problem.bounds)
    return problem.form(best, us)


def _present(names: Sequence[str], work: Quantities) -> list[str]:
    """The names of work that is not 0 everywhere."""
    return [name for name in names if np.any(work[name] > 0)]


def _us_per_unit(work: Array, us: Array) -> float:
    """The median time of a unit of work."""
    some = work > 0
    return float(np.median(us[some] / work[some]))


def _least(
    residuals: Callable[[Array], Array],
    starts: Sequence[Sequence[float]],
    bounds: tuple[list[float], list[float]],
) -> Array:
    """The point with the least robust sum of squares, of a search from every start."""
    fits = []
    for start in starts:
        fits.append(
            optimize.least_squares(
                residuals, start, bounds=bounds, loss="soft_l1", f_scale=_OUTLIER, max_nfev=200
            )
        )
    best: Array = min(fits, key=lambda fit: float(fit.cost)).x
    return best


def fit_linear(main: str, work: Quantities, us: Array) -> Terms:
    """The paper's alpha + beta * work (both at least 0), fitted on relative error."""
    return fit_terms(("one", main), (), work, us)


def fit_least_squares(main: str, work: Quantities, us: Array) -> Terms:
    """The paper's alpha + beta * work (both at least 0), fitted by plain least squares."""
    largest = work[main].max()
    design = np.column_stack([np.ones_like(us), work[main] / largest])
    (alpha, beta), _ = optimize.nnls(design, us)
    return linear(float(alpha), float(beta / largest), main)


def fit_knee(main: str, work: Quantities, us: Array) -> Knee:
    """max(floor, alpha + beta * work) with the least robust relative error."""
    line = fit_linear(main, work, us)
    alpha = max(line.additive.get("one", 0), 1e-3)
    beta = line.additive.get(main, _us_per_unit(work[main], us))
    start = np.log([float(np.min(us)), alpha, beta])

    def knee(point: Array) -> Knee:
        floor, alpha, beta = np.exp(point)
        return Knee(main, float(floor), float(alpha), float(beta))

    def residuals(point: Array) -> Array:
        return np.log(knee(point)(work) / us)

    bounds = ((start - 30).tolist(), (start + 8).tolist())
    return knee(_least(residuals, [start.tolist()], bounds))


def _rooflines(operation: Operation, columns: OperationColumns, us: Array) -> list[Terms]:
    """The roofline of an operation, and the one with wave quantisation where the SMs are known."""
    choices = [operation.overlapping]
    if "gpu_sms" in columns and operation.wave_overlapping:
        choices.append(operation.wave_overlapping)
    work = operation.work(columns)
    return [fit_terms(operation.additive, overlapping, work, us) for overlapping in choices]


def _fit_roofline(operation: Operation, columns: OperationColumns, us: Array) -> Terms:
    work = operation.work(columns)

    def error(form: Terms) -> float:
        return Errors.of(form(work), us).mape_pct

    return min(_rooflines(operation, columns, us), key=error)


def _fit_table(operation: Operation, columns: OperationColumns, us: Array) -> PointTable:
    """The measured points over that roofline which carries best from shapes to others."""
    work, fold = operation.work(columns), folds(operation, columns)
    others = [name for name in operation.features if name not in (operation.axis, "head_dim")]

    def table(base: Terms, kept: NDArray[np.bool_]) -> PointTable:
        return PointTable.through(base, operation.axis, others, _rows(work, kept), us[kept])

    def error(base: Terms) -> float:
        predicted = np.empty_like(us)
        for index in np.unique(fold):
            left_out = fold == index
            predicted[left_out] = table(base, ~left_out)(_rows(work, left_out))
        return Errors.of(predicted, us).mape_pct

    bases = _rooflines(operation, columns, us)
    best = bases[0] if len(bases) == 1 else min(bases, key=error)
    return table(best, np.ones(len(us), bool))


def _fit_knee(operation: Operation, columns: OperationColumns, us: Array) -> Knee:
    return fit_knee(operation.main, operation.work(columns), us)


def _fit_linear(operation: Operation, columns: OperationColumns, us: Array) -> Terms:
    return fit_linear(operation.main, operation.work(columns), us)


def _fit_least_squares(operation: Operation, columns: OperationColumns, us: Array) -> Terms:
    return fit_least_squares(operation.main, operation.work(columns), us)


FITS: dict[str, Fit] = {  # by the name of the form
    "table": _fit_table,
    "roofline": _fit_roofline,
    "knee": _fit_knee,
    "linear": _fit_linear,
    "least-squares": _fit_least_squares,
}


def fit_kernel(
    operation: Operation,
    variant: Mapping[str, str],
    columns: OperationColumns,
    us: Array,
    form: str,
    source: str,
    sms: int = 0,
) -> Kernel:
    """A kernel of one of `FITS`, with its errors on its own points and on shapes left out in turn.

    Raises InputError where the rows are too few for the form.
    """
    if sms:
        columns = {**columns, "gpu_sms": np.full(len(us), float(sms))}
    fitted = FITS[form](operation, columns, us)
    ranges = {}
    for name in operation.features:
        ranges[name] = (float(columns[name].min()), float(columns[name].max()))
    return Kernel(
        op=operation.name,
        variant=variant,
        form=fitted,
        label="measured",
        source=source,
        ranges=ranges,
        fit=Errors.of(fitted(operation.work(columns)), us),
        held_out=held_out_errors(operation, columns, us, form),
        sms=sms if operation.wave_overlapping else 0,
    )


def held_out_errors(
    operation: Operation, columns: OperationColumns, us: Array, form: str
) -> Errors | None:
    """Errors of a form on rows that its fit did not see: each fold of shapes in turn.

    None for a single fold, and for a fold without which the rows are too few.
    """
    fold = folds(operation, columns)
    predicted = np.empty_like(us)
    for index in np.unique(fold):
        seen = fold != index
        if not seen.any():
            return None
        try:
            fitted = FITS[form](operation, _rows(columns, seen), us[seen])
        except ValueError:
            return None
        predicted[~seen] = fitted(operation.work(_rows(columns, ~seen)))
    return Errors.of(predicted, us)


def _rows(columns: OperationColumns, kept: NDArray[np.bool_]) -> OperationColumns:
    return {name: column[kept] for name, column in columns.items()}


def folds(operation: Operation, columns: OperationColumns) -> NDArray[np.int64]:
    """The fold of every row. A shape is in one fold alone: its own where shapes are few, else its
    sha256 modulo 5.

    Measurements of one shape are split by row.
    """
    count = len(columns[operation.features[0]])
    if not operation.shape:
        return np.arange(count) % _FOLDS
    places = np.column_stack([np.asarray(columns[name], float) for name in operation.shape])
    shapes, index = np.unique(places, axis=0, return_inverse=True)
    if len(shapes) == 1:
        return np.arange(count) % _FOLDS
    if len(shapes) <= 4 * _FOLDS:
        return np.asarray(index.ravel(), np.int64)
    buckets = [_bucket(shape) for shape in shapes.tolist()]
    return np.array(buckets, np.int64)[index.ravel()]


def _bucket(shape: Sequence[float]) -> int:
    """sha256 of the shape's numbers, written as integers with commas between, modulo 5."""
    text = ",".join(f"{value:.0f}" for value in shape)
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % _FOLDS
