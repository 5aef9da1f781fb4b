"""Scatter plots of predictions against what was measured or published, with the diagonal and the
band of good errors."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from simdep.analysis.figures.colours import AXIS, COLORS, FAINT, GREY, LOOK
from simdep.checks import InputError

GOOD_PCT = 15  # error up to which the band marks a prediction as good
_TICKS = [digit * 10.0**power for power in range(-6, 9) for digit in (1, 2, 5)]
_POINT = {"size": 9, "line": {"width": 1, "color": "white"}}


def makespan_scatter(cases: pd.DataFrame) -> go.Figure:
    """Simulated against measured makespans, a point a case with its interval.

    Columns: label, predicted_us, measured_us, ci_low_us, ci_high_us, error_pct. Raises InputError
    without any case.
    """
    if cases.empty:
        raise InputError("no cases to draw")
    times = cases[["predicted_us", "measured_us", "ci_low_us", "ci_high_us"]].to_numpy(dtype=float)
    unit, scale = ("ms", 1e3) if times.max() >= 1e3 else ("µs", 1.0)
    predicted, measured, low, high = (times / scale).T
    least, most = times.min() / scale, times.max() / scale
    axis = AXIS | {"type": "linear", "range": [0, most * 1.08], "constrain": "domain"}
    if least > 0 and most > 10 * least:
        axis |= _logarithmic(least, most)
    hover = zip(map(escape, cases["label"]), low, high, cases["error_pct"], strict=True)
    points = go.Scatter(
        name="a schedule",
        mode="markers",
        x=measured,
        y=predicted,
        error_x={
            "array": high - measured,
            "arrayminus": measured - low,
            "thickness": 1,
            "width": 3,
        },
        marker={"color": COLORS["attention"], **_POINT},
        customdata=list(hover),
        hovertemplate="<b>%{customdata[0]}</b>"
        f"<br>simulated %{{y:,.3f}} {unit}<br>measured %{{x:,.3f}} {unit} "
        "(%{customdata[1]:,.3f} to %{customdata[2]:,.3f})"
        "<br>error %{customdata[3]:+.1f} %<extra></extra>",
    )
    ends = np.array([least / 1e6, most * 2])
    figure = go.Figure([*_band(ends, "simulated = measured"), points], LOOK)
    return _square(figure, axis, f"measured makespan ({unit})", f"simulated makespan ({unit})")


def agreement_scatter(points: pd.DataFrame, unit: str) -> go.Figure:
    """Predicted against published figures of one unit, a colour a role.

    Columns: label, role, published, predicted; all above 0.
    """
    values = points[["published", "predicted"]].to_numpy(dtype=float)
    least, most = values.min(), values.max()
    ends = np.array([least / 1e3, most * 1e3])
    figure = go.Figure(_band(ends, "predicted = published"), LOOK)
    colors = {"predicted": COLORS["attention"], "calibrated": COLORS["shared"]}
    for role, group in points.groupby("role"):
        errors = 100 * (group.predicted / group.published - 1)
        figure.add_scatter(
            name=str(role),
            mode="markers",
            x=group.published,
            y=group.predicted,
            marker={"color": colors.get(str(role), "gray"), **_POINT},
            customdata=list(zip(map(escape, group.label), errors, strict=True)),
            hovertemplate="<b>%{customdata[0]}</b><br>predicted %{y:,.3f}"
            "<br>published %{x:,.3f}<br>error %{customdata[1]:+.1f} %<extra></extra>",
        )
    axis = AXIS | _logarithmic(least, most)
    return _square(figure, axis, f"published ({unit})", f"predicted ({unit})")


def _logarithmic(least: float, most: float) -> dict[str, Any]:
    return {
        "type": "log",
        "range": np.log10([least / 1.3, most * 1.3]),
        "tickvals": _TICKS,
        "ticktext": _TICKS,
    }


def _square(figure: go.Figure, axis: dict[str, Any], x: str, y: str) -> go.Figure:
    """The figure with the same axis in both directions."""
    figure.update_xaxes(axis, title=x)
    figure.update_yaxes(axis, title=y, scaleanchor="x")
    return figure.update_layout(width=680, height=600, margin={"l": 70, "r": 20, "t": 60, "b": 60})


def _band(ends: np.ndarray, name: str) -> list[go.Scatter]:
    """The diagonal and the band of good errors around it."""
    line = {"x": ends, "mode": "lines", "hoverinfo": "skip", "line": {"width": 0}}
    lower, upper = (ends * (1 + sign * GOOD_PCT / 100) for sign in (-1, 1))
    return [
        go.Scatter(line, y=lower, showlegend=False),
        go.Scatter(line, y=upper, fill="tonexty", fillcolor=FAINT, name=f"within ±{GOOD_PCT} %"),
        go.Scatter(line | {"line": {"width": 1, "color": GREY}}, y=ends, name=name),
    ]
