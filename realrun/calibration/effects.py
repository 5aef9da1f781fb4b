"""What calibration shows besides costs: interference, speeds of links, stability of the points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from realrun.calibration.points import DIRECTIONS, PointKey, Points
from simdep.calibration.fit_line import fit_line, trimmed_mean
from simdep.hardware.profile import COST_OPERATIONS, HOST_OPERATIONS

Interval = tuple[float, float, float]  # low, mean, high


def halves(points: Points) -> list[dict[str, Any]]:
    """How far the first and the second half of each measured stage and link are apart, in
    percent."""
    rows = []
    for (op, ag, eg, shape), of_work in sorted(points.items()):
        if op in COST_OPERATIONS and op not in HOST_OPERATIONS:
            pct = _halves_pct(of_work)
            rows.append({"operation": op, "ranks": f"{ag}+{eg}", "for": shape, "halves_pct": pct})
    return rows


def _halves_pct(of_work: Mapping[float, Sequence[float]]) -> float:
    """Mean relative difference of the points of the first and of the second half of a
    measurement."""
    differences = []
    for values in of_work.values():
        if len(values) > 1:
            middle = len(values) // 2
            first, second = trimmed_mean(values[:middle]), trimmed_mean(values[middle:])
            differences.append(200 * abs(first - second) / (first + second))
    return float(np.mean(differences)) if differences else 0.0


def interference(points: Points) -> list[dict[str, Any]]:
    """What transfers and computation take from each other, a row a deployment and transport, with
    95 % intervals."""
    rows = []
    for key in sorted(points):
        if key.operation == "slowdown":
            of_rank = points[key]
            groups = {"AG": range(key.ag), "EG": range(key.ag, key.ag + key.eg)}
            rows.append(
                {
                    "ranks": f"{key.ag}+{key.eg}",
                    "transport": key.shape,
                    "compute_slowdown": {
                        group: _slowdown(of_rank, ranks) for group, ranks in groups.items()
                    },
                    "mbytes_per_s_alone": _rates(points, key, "alone"),
                    "mbytes_per_s_computing": _rates(points, key, "beside"),
                    "contention": contention(of_rank),
                }
            )
    return rows


def _slowdown(of_rank: Mapping[float, Sequence[float]], ranks: range) -> Interval:
    values: list[float] = []
    for rank in ranks:
        values += of_rank.get(float(rank), ())
    return mean_interval(values)


def _rates(points: Points, slowdown: PointKey, name: str) -> dict[str, Interval]:
    """Direction -> MB/s, where it was measured."""
    of_direction = points.get(slowdown._replace(operation=f"mbytes_per_s.{name}"), {})
    if not of_direction:
        return {}
    return {
        stream: mean_interval(of_direction[direction]) for direction, stream in DIRECTIONS.items()
    }


def contention(slowdowns: Mapping[float, Sequence[float]]) -> float:
    """The share of computing speed that one transfer takes, from slow-downs beside two; 0 if it may
    be noise."""
    shares: list[float] = []
    for values in slowdowns.values():
        shares += [1 - 1 / value for value in values]
    low, mean, _ = mean_interval(shares)
    return mean / 2 if low > 0 else 0.0


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean and its 95 % interval, without width for a single value; zeros for none."""
    if not values:
        return 0.0, 0.0, 0.0
    mean = float(np.mean(values))
    if len(values) == 1:
        return mean, mean, mean
    half_width = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return mean - half_width, mean, mean + half_width


def link_speeds(points: Points) -> list[dict[str, Any]]:
    """What links that carry payload achieve: start-up and rate of each direction, alone and in
    duplex."""
    rows = []
    for (op, ag, eg, transport), of_work in sorted(points.items()):
        direction = op.removeprefix("duplex.")
        if direction not in ("a2e", "e2a"):
            continue
        work = sorted(of_work)
        line = fit_line(op, work, [trimmed_mean(of_work[value]) for value in work], "")
        assert line.fit is not None, f"{op} has no fit"
        rows.append(
            {
                "ranks": f"{ag}+{eg}",
                "transport": transport,
                "direction": direction.upper(),
                "other direction": "idle" if op == direction else "busy",
                "alpha_us": line.alpha_us,
                "alpha_ci_us": list(line.fit.alpha_ci_us),
                "mbytes_per_s": 1 / line.beta_us if line.beta_us else None,
                "mape_pct": line.fit.mape_pct,
            }
        )
    return rows
