"""The bars of a window as Plotly traces: one a kind of task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from simdep.analysis.figures.bars import FIRST_BARS, BarWindow, joints_of
from simdep.analysis.figures.colours import COLORS, INK
from simdep.schedule import Kind

MAX_NUMBERS = FIRST_BARS  # of bars in a window whose numbers are shown
NUMBER_SHARE = 0.01  # of the window: no screen has room for a number in a shorter bar
BAR_HEIGHT = 0.84  # of the place of a track
SEAM_SHADE = 0.6  # of the line between numbered bars


def bar_traces(
    window: BarWindow, kinds: Sequence[Kind], unit: str, scale: float
) -> list[dict[str, Any]]:
    """Two traces for each kind of a chart: the bars, which the legend shows and hides, and under
    them what is seen between bars that touch. `scale` is the microseconds of a unit of the time
    axis."""
    bars, joints = window.bars, joints_of(window.bars)
    shade, least_us = 1.0, np.inf
    if len(bars) <= MAX_NUMBERS:
        shade, least_us = SEAM_SHADE, NUMBER_SHARE * (window.end_us - window.start_us)
    traces = []
    for kind in kinds:
        traces.append(_joint_trace(joints[joints["kind"] == kind.label], kind, scale, shade))
        rows = bars[bars["kind"] == kind.label]
        bar = _bar_trace(rows, kind, scale)
        traces.append(bar | _numbers(rows, least_us) | _hover(rows, kind, unit, scale))
    return traces


def _bar_trace(rows: pd.DataFrame, kind: Kind, scale: float) -> dict[str, Any]:
    return {
        "type": "bar",
        "name": kind.value if kind.is_transfer else kind.label,
        "legendgroup": kind.label,
        "orientation": "h",
        "y": rows["y"],
        "base": rows["left"] / scale,
        "x": rows["width"] / scale,
        "width": BAR_HEIGHT,
        # Plotly widens an opaque bar to a whole pixel: short tasks would seem long
        "marker": {"color": _rgba(COLORS[kind.label], alpha=0.999), "line": {"width": 0}},
        "insidetextanchor": "middle",
        "insidetextfont": {"color": INK},
        "textangle": 0,
    }


def _numbers(rows: pd.DataFrame, least_us: float) -> dict[str, Any]:
    """The text in bars of at least `least_us`: layer.micro-batch.chunk."""
    numbers = rows["task"].str.extract(r"\[(.*)\]", expand=False)
    return {"text": numbers.where(rows["width"] >= least_us, ""), "textposition": "inside"}


def _hover(rows: pd.DataFrame, kind: Kind, unit: str, scale: float) -> dict[str, Any]:
    customdata = np.empty((len(rows), 5), dtype=object)
    start, end = rows["start"].to_numpy() / scale, rows["end"].to_numpy() / scale
    for column, values in enumerate((rows["task"], rows["rank"], start, end, end - start)):
        customdata[:, column] = values
    return {
        "customdata": customdata,
        "hovertemplate": f"<b>%{{customdata[0]}}</b> · {kind.label} · rank %{{customdata[1]}}<br>"
        f"start %{{customdata[2]:,.3f}} {unit}<br>end %{{customdata[3]:,.3f}} {unit}<br>"
        f"duration %{{customdata[4]:,.3f}} {unit}<extra></extra>",
    }


def _joint_trace(joints: pd.DataFrame, kind: Kind, scale: float, shade: float) -> dict[str, Any]:
    """What is seen between bars that touch: without it the paper would shine through, since a
    browser draws the edge of a bar within a pixel half transparent."""
    left, right, y = (joints[name].to_numpy(float) for name in ("left", "end", "y"))
    top, bottom, gap = y - BAR_HEIGHT / 2, y + BAR_HEIGHT / 2, np.full_like(y, np.nan)
    return {
        "type": "scatter",
        "mode": "none",
        "x": np.column_stack([left, right, right, left, gap]).ravel() / scale,
        "y": np.column_stack([top, top, bottom, bottom, gap]).ravel(),
        "fill": "toself",
        "fillcolor": _rgba(COLORS[kind.label], shade),
        "hoverinfo": "skip",
        "zorder": -1,
        "legendgroup": kind.label,
        "showlegend": False,
    }


def _rgba(color: str, shade: float = 1.0, alpha: float = 1.0) -> str:
    """A colour, darkened by `shade`."""
    red, green, blue = (round(shade * part) for part in bytes.fromhex(color[1:]))
    return f"rgba({red},{green},{blue},{alpha})"
