"""What stands around the bars of a Gantt chart: bands and names of streams, ends of timelines, the
frame of the window.

A chart with an overview has two pairs of axes: those of the window and, with the number 2, those of
the overview. The ends of timelines stand where the whole is seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd

from simdep.analysis.figures.colours import FAINT, GREY


@dataclass(frozen=True)
class End:
    """Where a timeline ends, in the unit of the axis, and what stands there."""

    time: float
    title: str
    makespan: str


def chart_marks(
    places: pd.DataFrame,
    ends: Sequence[End],
    frame: tuple[float, float] | None,
    left: int,
) -> dict[str, Any]:
    """The shapes and annotations of a layout; `frame` is the window in the overview, where there is
    one, and `left` the width of the margin in pixels.

    All in one layout: adding shapes one by one takes Plotly ten milliseconds each.
    """
    charts = [""] if frame is None else ["", "2"]
    shapes: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    for chart in charts:
        for stream, y in places.groupby("stream", sort=False)["y"]:
            shapes.append(_stream_band(y, chart))
            texts.append(_stream_name(str(stream), y, chart, left))
    whole = charts[-1]
    last = max(end.time for end in ends)
    for row, end in enumerate(reversed(ends)):
        texts.append(_end_text(end, last, row, whole))
        shapes.append(_end_line(end, whole))
    if frame is not None:
        shapes.append(_window_frame(*frame))
    return {"shapes": shapes, "annotations": texts}


def _stream_band(y: pd.Series, chart: str) -> dict[str, Any]:
    return {
        "type": "rect",
        "xref": f"x{chart} domain",
        "yref": f"y{chart}",
        "x0": 0,
        "x1": 1,
        "y0": y.min() - 0.5,
        "y1": y.max() + 0.5,
        "fillcolor": FAINT,
        "opacity": 0.6,
        "line": {"width": 0},
        "layer": "below",
    }


def _stream_name(stream: str, y: pd.Series, chart: str, left: int) -> dict[str, Any]:
    return {
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "xshift": 8 - left,
        "y": y.mean(),
        "yref": f"y{chart}",
        "text": f"<b>{escape(stream)}</b>",
        "showarrow": False,
        "font": {"size": 15},
    }


def _end_text(end: End, last: float, row: int, chart: str) -> dict[str, Any]:
    """Title and makespan in a row of their own, over the half of the chart that has room."""
    return {
        "x": end.time,
        "xref": f"x{chart}",
        "xanchor": "right" if end.time > last / 2 else "left",
        "y": 1,
        "yref": f"y{chart} domain",
        "yanchor": "bottom",
        "yshift": 16 * row,
        "text": f"{end.title} <b>{end.makespan}</b>",
        "showarrow": False,
    }


def _end_line(end: End, chart: str) -> dict[str, Any]:
    return {
        "type": "line",
        "xref": f"x{chart}",
        "yref": f"y{chart} domain",
        "x0": end.time,
        "x1": end.time,
        "y0": 0,
        "y1": 1,
        "line": {"width": 1, "dash": "dot", "color": GREY},
        "layer": "below",
    }


def _window_frame(start: float, end: float) -> dict[str, Any]:
    return {
        "name": "window",
        "type": "rect",
        "xref": "x2",
        "yref": "y2 domain",
        "x0": start,
        "x1": end,
        "y0": 0,
        "y1": 1,
        "line": {"width": 2, "color": GREY},
        "layer": "below",  # a frame above the tracks would hide a part of them
    }
