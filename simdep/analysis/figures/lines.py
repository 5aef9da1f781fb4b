"""Line charts: a value over one column of a table, a line for each value of another."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from simdep.analysis.figures.colours import AXIS, COLORS, LOOK

_DASHES = ("solid", "dash", "dot", "dashdot")


def line_chart(points: pd.DataFrame, x: str, value: str, color: str | None = None) -> go.Figure:
    """`value` over a column, a line for each value of the column `color`; logarithmic where x spans
    two decades.

    Points without a value leave a gap.
    """
    figure = go.Figure(layout=LOOK)
    groups = points.groupby(color, sort=False) if color else [(value, points)]
    for number, (name, group) in enumerate(groups):
        dash, shade = divmod(number, len(COLORS))
        figure.add_scatter(
            name=f"{color} {short(name)}" if color else str(name),
            x=group[x],
            y=group[value],
            mode="lines+markers",
            line={"color": list(COLORS.values())[shade], "dash": _DASHES[dash % len(_DASHES)]},
            marker={"size": 6},
        )
    figure.update_xaxes(AXIS, title=x, type=_axis_type(points[x]))
    figure.update_yaxes(AXIS, title=value, rangemode="tozero", tickformat=",")
    margin = {"l": 110, "r": 20, "t": 60, "b": 60}
    return figure.update_layout(height=420, margin=margin, showlegend=color is not None)


def _axis_type(values: pd.Series) -> str:
    if not pd.api.types.is_numeric_dtype(values):
        return "category"
    least, most = values.min(), values.max()
    return "log" if least > 0 and most >= 100 * least else "linear"


def short(value: object) -> str:
    """A value of a column as a label."""
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)
