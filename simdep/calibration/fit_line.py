"""Fitting a cost line to measurements: work against microseconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import optimize, stats

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
    them. Intervals are 95 %, from the weighted least-squares covariance. Raises ValueError for
    fewer than 3 sizes of work or a time that is not positive.
    """
    x, y = np.asarray(work, float), np.asarray(us, float)
    if len(np.unique(x)) < 3:
        raise ValueError(
            f"{op}: {len(np.unique(x))} sizes of work measured; a line and its error need at least 3"
        )
    if not (y > 0).all():
        raise ValueError(f"{op}: {y.min()} us measured; a time is more than 0")
    design = np.column_stack([1 / y, x / y])
    (alpha, beta), residual = optimize.nnls(design, np.ones_like(y))
    spread = residual**2 / (len(x) - 2) * np.linalg.inv(design.T @ design)
    reach = stats.t.ppf(0.975, len(x) - 2) * np.sqrt(np.diag(spread))
    predicted = alpha + beta * x
    fit = LineFit(
        alpha_ci_us=(max(0.0, float(alpha - reach[0])), float(alpha + reach[0])),
        beta_ci_us=(max(0.0, float(beta - reach[1])), float(beta + reach[1])),
        r2=float(1 - ((y - predicted) ** 2).sum() / ((y - y.mean()) ** 2).sum())
        if np.ptp(y)
        else 1.0,
        mape_pct=float(100 * np.abs(predicted / y - 1).mean()),
        points=len(x),
        work_range=(float(x.min()), float(x.max())),
    )
    points = tuple((float(a), float(b)) for a, b in zip(x, y, strict=True)) if keep_points else ()
    return Cost(op, float(alpha), float(beta), "measured", source, ag, eg, shape, points, fit)
