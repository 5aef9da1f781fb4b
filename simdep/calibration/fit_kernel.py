"""Fitting kernels to measured operations, and the errors that a fit makes on shapes that it has not
seen.

All fits work on the logarithm of predicted over measured time with a loss that forgives outliers,
so that short and long operations count alike; `least-squares` is the paper's way, kept to compare
with.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from simdep.hardware.forms import Array, Form, Knee, Table, Terms, Work, p_norm
from simdep.hardware.kernels import Errors, Kernel
from simdep.hardware.operations import Operation, Rows

FOLDS = 5
OUTLIER = 0.05  # relative error from which a point counts less than by its square
POWERS = (1.2, 2.5, 8.0)  # of the p-norm that a fit starts from
MAX_POWER = 40.0
VANISHING = 1e-6  # share of every time below which a term is left out


def fit_terms(adds: Sequence[str], races: Sequence[str], work: Work, us: Array) -> Terms:
    """The coefficients (at least 0) and the power of a Terms form with the least robust relative
    error.

    Work that is 0 everywhere takes no coefficient. Raises ValueError for fewer rows than
    coefficients.
    """
    adds, races = ([name for name in names if np.any(work[name] > 0)] for names in (adds, races))
    terms = [*adds, *races]
    powers = len(races) > 1
    if len(us) < len(terms) + powers:
        raise ValueError(
            f"too few rows ({len(us)}) for {len(terms)} terms ({', '.join(terms)}); a fit needs more"
        )
    begin = np.array([_share(work[name], us) for name in terms]) / len(terms)
    unit = begin[:, None] * np.stack([work[name] for name in terms])

    def predict(theta: Array) -> Array:
        each = np.exp(theta[: len(terms)])[:, None] * unit
        total: Array = each[: len(adds)].sum(axis=0)
        if not races:
            return total
        return total + p_norm(each[len(adds) :], 1 + math.exp(theta[-1]) if powers else math.inf)

    best = _least(
        lambda theta: np.log(predict(theta) / us),
        [
            [0.0] * len(terms) + [math.log(power - 1)] * powers
            for power in (POWERS if powers else POWERS[:1])
        ],
        (
            [-30.0] * len(terms) + [-5.0] * powers,
            [8.0] * len(terms) + [math.log(MAX_POWER - 1)] * powers,
        ),
    )
    matters = (np.exp(best[: len(terms)])[:, None] * unit / us).max(axis=1) > VANISHING
    each = [
        (name, float(us))
        for name, us in zip(terms, begin * np.exp(best[: len(terms)]), strict=True)
    ]
    return Terms(
        adds={
            name: us for (name, us), kept in zip(each[: len(adds)], matters, strict=False) if kept
        },
        races={
            name: us
            for (name, us), kept in zip(each[len(adds) :], matters[len(adds) :], strict=True)
            if kept
        },
        power=1 + math.exp(best[-1]) if powers else math.inf,
    )


def _share(work: Array, us: Array) -> float:
    some = work > 0
    return float(np.median(us[some] / work[some]))


def _least(
    residuals: Callable[[Array], Array],
    starts: Sequence[Sequence[float]],
    bounds: tuple[list[float], list[float]],
) -> Array:
    fits = [
        optimize.least_squares(
            residuals, start, bounds=bounds, loss="soft_l1", f_scale=OUTLIER, max_nfev=200
        )
        for start in starts
    ]
    best: Array = min(fits, key=lambda fit: float(fit.cost)).x
    return best


def fit_linear(main: str, work: Work, us: Array, *, least_squares: bool = False) -> Terms:
    """The paper's alpha + beta * work, fitted on relative error or by plain least squares (both at
    least 0)."""
    if not least_squares:
        return fit_terms(("one", main), (), work, us)
    (alpha, beta), _ = optimize.nnls(
        np.column_stack([np.ones_like(us), work[main] / work[main].max()]), us
    )
    return Terms({"one": float(alpha), main: float(beta / work[main].max())})


def fit_knee(main: str, work: Work, us: Array) -> Knee:
    """max(floor, alpha + beta * work) with the least robust relative error."""
    line = fit_linear(main, work, us)
    begin = np.log(
        [
            float(np.min(us)),
            max(line.adds.get("one", 0), 1e-3),
            line.adds.get(main, _share(work[main], us)),
        ]
    )

    def knee(theta: Array) -> Knee:
        floor, alpha, beta = np.exp(theta)
        return Knee(main, float(floor), float(alpha), float(beta))

    best = _least(
        lambda theta: np.log(knee(theta)(work) / us),
        [begin.tolist()],
        ((begin - 30).tolist(), (begin + 8).tolist()),
    )
    return knee(best)


def _rooflines(operation: Operation, rows: Rows, us: Array) -> list[Terms]:
    """The roofline of an operation, and the one with wave quantisation where the SMs are known."""
    races = [
        operation.races,
        *([operation.wave_races] if "gpu_sms" in rows and operation.wave_races else []),
    ]
    return [fit_terms(operation.adds, each, operation.work(rows), us) for each in races]


def _roofline(operation: Operation, rows: Rows, us: Array) -> Terms:
    work = operation.work(rows)
    return min(_rooflines(operation, rows, us), key=lambda form: Errors.of(form(work), us).mape_pct)


def _table(operation: Operation, rows: Rows, us: Array) -> Table:
    """The measured points over that roofline which carries best from shapes to others."""
    work, fold = operation.work(rows), folds(operation, rows)
    others = tuple(name for name in operation.numbers if name not in (operation.axis, "head_dim"))

    def over(base: Terms, kept: NDArray[np.bool_]) -> Table:
        return Table.over(
            base,
            operation.axis,
            others,
            {name: each[kept] for name, each in work.items()},
            us[kept],
        )

    def error(base: Terms) -> float:
        predicted = np.empty_like(us)
        for out in np.unique(fold):
            left = {name: each[fold == out] for name, each in work.items()}
            predicted[fold == out] = over(base, fold != out)(left)
        return Errors.of(predicted, us).mape_pct

    bases = _rooflines(operation, rows, us)
    best = bases[0] if len(bases) == 1 else min(bases, key=error)
    return over(best, np.ones(len(us), bool))


FORMS: dict[str, Callable[[Operation, Rows, Array], Form]] = {
    "table": _table,
    "roofline": _roofline,
    "knee": lambda operation, rows, us: fit_knee(operation.main, operation.work(rows), us),
    "linear": lambda operation, rows, us: fit_linear(operation.main, operation.work(rows), us),
    "least-squares": lambda op, rows, us: fit_linear(
        op.main, op.work(rows), us, least_squares=True
    ),
}


def fit_kernel(
    operation: Operation,
    variant: dict[str, str],
    rows: Rows,
    us: Array,
    form: str,
    source: str,
    sms: int = 0,
) -> Kernel:
    """A kernel of one of `FORMS`, with its errors on its own points and on shapes left out in turn.

    Raises ValueError where the rows are too few for the form.
    """
    make = FORMS[form]
    whole = {**rows, "gpu_sms": np.full(len(us), float(sms))} if sms else rows
    own = make(operation, whole, us)
    return Kernel(
        op=operation.name,
        variant=variant,
        form=own,
        label="measured",
        source=source,
        ranges={
            name: (float(rows[name].min()), float(rows[name].max())) for name in operation.numbers
        },
        fit=Errors.of(own(operation.work(whole)), us),
        held_out=held_out(operation, whole, us, form),
        sms=sms if operation.wave_races else 0,
    )


def held_out(operation: Operation, rows: Rows, us: Array, form: str) -> Errors | None:
    """Errors of a form on rows that its fit did not see: each fold of shapes in turn; None for a
    single fold."""
    fold = folds(operation, rows)
    predicted = np.empty_like(us)
    for out in np.unique(fold):
        seen = fold != out
        if not seen.any():
            return None
        try:
            fitted = FORMS[form](
                operation, {name: column[seen] for name, column in rows.items()}, us[seen]
            )
        except ValueError:
            return None
        predicted[~seen] = fitted(
            operation.work({name: column[~seen] for name, column in rows.items()})
        )
    return Errors.of(predicted, us)


def folds(operation: Operation, rows: Rows) -> NDArray[np.int64]:
    """The fold of every row. A shape is in one fold alone: its own where shapes are few, else its
    sha256 modulo 5.

    Measurements of one shape are split by row.
    """
    count = len(rows[operation.numbers[0]])
    if not operation.shape:
        return np.arange(count) % FOLDS
    places = np.column_stack([np.asarray(rows[name], float) for name in operation.shape])
    shapes, which = np.unique(places, axis=0, return_inverse=True)
    if len(shapes) == 1:
        return np.arange(count) % FOLDS
    if len(shapes) <= 4 * FOLDS:
        return np.asarray(which.ravel(), np.int64)
    return np.array([bucket(shape) for shape in shapes.tolist()], np.int64)[which.ravel()]


def bucket(shape: Sequence[float]) -> int:
    """sha256 of the shape's numbers, written as integers with commas between, modulo 5."""
    return (
        int(hashlib.sha256(",".join(f"{value:.0f}" for value in shape).encode()).hexdigest(), 16)
        % FOLDS
    )
