"""Heat maps: a value over two columns of a table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from simdep.analysis.figures.colours import AXIS, INK, LOOK, SCALE
from simdep.analysis.figures.lines import short
from simdep.checks import InputError

MAX_LABELLED_CELLS = 400


def heat_map(points: pd.DataFrame, x: str, y: str, value: str, *, best: str = "min") -> go.Figure:
    """A cell a point: `value` over two columns, each value of them as wide as the next, the best
    cell framed.

    `best` is `min` or `max`. A cell without a value stays empty. Raises InputError without
    any value.
    """
    grid = points.pivot(index=y, columns=x, values=value)
    values = grid.to_numpy(dtype=float)
    if not np.isfinite(values).any():
        raise InputError("no point to draw has a value")
    cells = go.Heatmap(
        x=[short(column) for column in grid.columns],
        y=[short(row) for row in grid.index],
        z=values,
        colorscale=list(SCALE if best == "min" else reversed(SCALE)),
        hoverongaps=False,
        xgap=1,
        ygap=1,
        texttemplate="%{z:,.4~r}" if values.size <= MAX_LABELLED_CELLS else None,
        textfont={"color": INK},
        colorbar={"title": {"text": value, "side": "right"}},
        hovertemplate=f"{x} %{{x}}<br>{y} %{{y}}<br>{value} %{{z:,.6~g}}<extra></extra>",
    )
    first = np.nanargmin(values) if best == "min" else np.nanargmax(values)
    row, column = np.unravel_index(first, values.shape)
    frame = {
        "type": "rect",
        "x0": column - 0.5,
        "x1": column + 0.5,
        "y0": row - 0.5,
        "y1": row + 0.5,
        "line": {"width": 3, "color": INK},
    }
    figure = go.Figure([cells], LOOK | {"shapes": [frame]})
    axis = AXIS | {"type": "category", "showgrid": False}
    figure.update_xaxes(axis, title=x).update_yaxes(axis, title=y)
    height = max(300, 130 + 34 * min(len(grid.index), 20))
    return figure.update_layout(height=height, margin={"l": 70, "r": 20, "t": 30, "b": 60})
