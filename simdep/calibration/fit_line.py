"""Fitting a cost line to measurements: work against microseconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import optimize, stats

from simdep.arrays import Array
from simdep.checks import InputError
from simdep.hardware.profile import Cost, LineFit


def trimmed_mean(values: Sequence[float]) -> float:
    """The mean without the 10 % smallest and largest values.

    A makespan adds up task times, and means add up where medians and minima do not.
    """
    return float(stats.trim_mean(values, 0.1))


def fit_line(
    op: str,
    work: Sequence[float],
    us: Sequence[float],
    source: str,
    *,
    ag: int = 0,
    eg: int = 0,
    shape: str = "",
    keep_points: bool = False,
) -> Cost:
    """The line alpha + beta * work (both at least 0) with the least squared relative error over the
    points.

    `work` increases. With `keep_points` the cost goes through the points, and the line only beyond
    them. Intervals are 95 %, from the weighted least-squares covariance. Raises InputError for
    fewer than 3 sizes of work or a time that is not positive.
    """
    x, y = np.asarray(work, float), np.asarray(us, float)
    sizes = len(np.unique(x))
    if sizes < 3:
        need = "a line and its error need at least 3"
        raise InputError(f"{op}: {sizes} sizes of work measured; {need}")
    if not (y > 0).all():
        raise InputError(f"{op}: {y.min()} us measured; a time is more than 0")
    design = np.column_stack([1 / y, x / y])
    (alpha, beta), residual = optimize.nnls(design, np.ones_like(y))
    spread = residual**2 / (len(x) - 2) * np.linalg.inv(design.T @ design)
    half_widths = stats.t.ppf(0.975, len(x) - 2) * np.sqrt(np.diag(spread))
    predicted = alpha + beta * x
    fit = LineFit(
        alpha_ci_us=_interval(alpha, half_widths[0]),
        beta_ci_us=_interval(beta, half_widths[1]),
        r2=_r2(y, predicted),
        mape_pct=float(100 * np.abs(predicted / y - 1).mean()),
        points=len(x),
        work_range=(float(x.min()), float(x.max())),
    )
    points = tuple(zip(x.tolist(), y.tolist(), strict=True)) if keep_points else ()
    return Cost(op, float(alpha), float(beta), "measured", source, ag, eg, shape, points, fit)


def _interval(value: float, half_width: float) -> tuple[float, float]:
    """A confidence interval of a value that is at least 0."""
    return max(0.0, float(value - half_width)), float(value + half_width)


def _r2(measured: Array, predicted: Array) -> float:
    if not np.ptp(measured):
        return 1.0
    spread = ((measured - measured.mean()) ** 2).sum()
    return float(1 - ((measured - predicted) ** 2).sum() / spread)
