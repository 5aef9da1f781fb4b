"""Gantt charts: timelines on one time axis, the tracks of a stream directly under each other.

Colour is the kind of task, lightness the micro-batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from simdep.analysis.figures.bars import bars_of, joined_bars, places_of_tracks
from simdep.analysis.figures.colours import AXIS, COLORS, FAINT, GREY, LEGEND, LOOK
from simdep.checks import InputError
from simdep.schedule import Kind
from simdep.timeline import Timeline
from simdep.units import human_us

MAX_BARS = 4000  # drawing and zooming stay below half a second
MAX_NUMBERS = 400  # bars with their number inside
MAX_LEGEND = 0.55  # of the width of a timeline, taken by the legend
TEXT_WIDTH = 0.065  # of the width of a timeline, taken by the text at its end
SOURCES = {"sim": "simulated", "real": "measured"}


def gantt_chart(
    *timelines: Timeline,
    titles: Sequence[str] = (),
    unit_us: float | None = None,
    max_bars: int = MAX_BARS,
) -> go.Figure:
    """Timelines on one time axis, each starting at 0.

    `titles` name the timelines (default: simulated, measured). Beyond `max_bars` bars, tasks
    narrower than a pixel are joined. The unit of the axis is that which reads best, unless
    `unit_us` says 1 (µs) or 1e3 (ms). Raises InputError for no timeline or a missing title.
    """
    names = tuple(titles) or tuple(SOURCES[timeline.source] for timeline in timelines)
    if not timelines or len(names) != len(timelines):
        raise InputError(
            f"{len(names)} titles for {len(timelines)} timelines; give one timeline or more, "
            "a title each"
        )
    places = places_of_tracks(timelines, names)
    bars, joined_us = joined_bars(bars_of(timelines, places), max_bars)
    spans = [timeline.makespan_us for timeline in timelines]
    unit, scale = ("ms", 1e3) if (unit_us or max(spans)) >= 1e3 else ("µs", 1.0)
    layout = _layout(places, bars, joined_us, unit)
    labels = dict.fromkeys(timeline.schedule.label or "schedule" for timeline in timelines)
    layout["title"]["text"] = escape(" / ".join(labels))
    if min(spans) < MAX_LEGEND * max(spans):
        _raise_legend(layout)
    ends = [
        _End(us / scale, escape(name), human_time(us))
        for name, us in zip(names, spans, strict=True)
    ]
    marks = _marks(places, ends, layout["margin"]["l"])
    return go.Figure(_traces(bars, unit, scale), LOOK | layout | marks)


def human_time(us: float) -> str:
    """A time for people, with the unit that reads best: 812 µs, 1.204 ms."""
    return human_us(us).replace("us", "µs")


@dataclass(frozen=True, order=True)
class _End:
    """Where a timeline ends, in the unit of the axis, and what stands there."""

    time: float
    title: str
    makespan: str


def _traces(bars: pd.DataFrame, unit: str, scale: float) -> list[dict[str, Any]]:
    """One trace a kind, so that the legend shows and hides it."""
    numbered = len(bars) <= MAX_NUMBERS and bars["tasks"].max() == 1
    # about a pixel that parts a task from the next
    slit = bars["end"].max() / 900 if numbered else 0.0
    last_mb = bars["mb"].max()
    traces = []
    for kind in Kind:
        rows = bars[bars["kind"] == kind.label]
        if rows.empty:
            continue
        shades = {mb: _shade(COLORS[kind.label], mb, last_mb) for mb in rows["mb"].unique()}
        traces.append(
            {
                "type": "bar",
                "name": kind.value if kind.is_transfer else f"{kind.label} ({kind.value})",
                "orientation": "h",
                "y": rows["y"],
                "base": rows["left"] / scale,
                "x": np.maximum(rows["width"] - slit, 0.8 * rows["width"]) / scale,
                "width": 0.84,
                "marker": {"color": list(map(shades.get, rows["mb"])), "line": {"width": 0}},
                "insidetextanchor": "middle",
                "textangle": 0,
            }
            | _numbers(rows, numbered)
            | _hover(rows, kind, unit, scale)
        )
    return traces


def _shade(color: str, mb: int, last_mb: int) -> str:
    """The colour of a micro-batch: the first full, the last paler by 0.6."""
    white = 0.6 / max(1, last_mb) * mb
    rgb = bytes.fromhex(color[1:])
    return "#" + bytes(round(part + white * (255 - part)) for part in rgb).hex()


def _numbers(rows: pd.DataFrame, numbered: bool) -> dict[str, Any]:
    """The text in bars: layer.micro-batch.chunk, or none."""
    if not numbered:
        return {"text": None, "textposition": "none"}
    return {"text": rows["task"].str.extract(r"\[(.*)\]", expand=False), "textposition": "inside"}


def _hover(rows: pd.DataFrame, kind: Kind, unit: str, scale: float) -> dict[str, Any]:
    times = rows[["start", "end"]].assign(duration=rows["end"] - rows["start"]) / scale
    values = list(zip(rows["task"], rows["rank"], *times.to_numpy().T, strict=True))
    return {
        "customdata": np.array(values, dtype=object),
        "hovertemplate": f"<b>%{{customdata[0]}}</b> · {kind.label} · rank %{{customdata[1]}}<br>"
        f"start %{{customdata[2]:,.3f}} {unit}<br>end %{{customdata[3]:,.3f}} {unit}<br>"
        f"duration %{{customdata[4]:,.3f}} {unit}<extra></extra>",
    }


def _layout(
    places: pd.DataFrame, bars: pd.DataFrame, joined_us: float, unit: str
) -> dict[str, Any]:
    last = float(places["y"].max())
    stream, label = (int(places[name].str.len().max()) for name in ("stream", "label"))
    return {
        "barmode": "overlay",
        "height": round(196 + 27 * last),
        "uniformtext": {"mode": "hide", "minsize": 9},
        "margin": {"l": 42 + 10 * stream + 7 * label, "r": 72, "t": 112, "b": 54},
        "title": {
            "subtitle": {"text": " · ".join(_remarks(bars, joined_us)), "font": {"size": 12}},
            "x": 0,
            "xref": "paper",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 14},
        },
        "xaxis": {
            **AXIS,
            "title": f"time since the first start ({unit})",
            "rangemode": "tozero",
            "showspikes": True,
            "spikemode": "across",
            "spikesnap": "cursor",
            "spikethickness": -1,
            "spikecolor": GREY,
            "spikedash": "solid",
        },
        "yaxis": {
            "tickvals": list(places["y"]),
            "ticktext": list(places["label"]),
            "range": [last + 0.65, -0.65],
            "ticklabelstandoff": 8,
            "fixedrange": True,
            "showgrid": False,
            "zeroline": False,
        },
    }


def _remarks(bars: pd.DataFrame, joined_us: float) -> list[str]:
    """What a reader has to know of the bars."""
    remarks = []
    if bars["mb"].any():
        remarks.append(f"shade: micro-batch 0 (full) to {bars['mb'].max()} (pale)")
    if joined_us:
        remarks.append(f"tasks shorter than {human_time(joined_us)} are drawn joined")
    elif len(bars) <= MAX_NUMBERS:
        remarks.append("number in a bar: layer.micro-batch.chunk")
    return remarks


def _raise_legend(layout: dict[str, Any]) -> None:
    """Room under the legend for the texts of ends that stand where it is."""
    layout["margin"]["t"] += 32
    layout["height"] += 32
    inside = layout["height"] - layout["margin"]["t"] - layout["margin"]["b"]
    layout["legend"] = {**LEGEND, "y": 1 + 34 / inside}


def _marks(places: pd.DataFrame, ends: Sequence[_End], left: int) -> dict[str, Any]:
    """A faint band and a name for each stream; a dotted line and a text where each timeline ends.

    All in one layout: adding shapes one by one takes Plotly ten milliseconds each.
    """
    shapes: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    for stream, y in places.groupby("stream", sort=False)["y"]:
        shapes.append(_stream_band(y))
        texts.append(_stream_name(str(stream), y, left))
    for group in _close_ends(ends):
        is_longest = group[-1] == max(ends)
        texts.append(_end_text(group, "left" if is_longest else "right"))
        shapes += [_end_line(end) for end in group]
    return {"shapes": shapes, "annotations": texts}


def _stream_band(y: pd.Series) -> dict[str, Any]:
    return {
        "type": "rect",
        "xref": "x domain",
        "yref": "y",
        "x0": 0,
        "x1": 1,
        "y0": y.min() - 0.6,
        "y1": y.max() + 0.6,
        "fillcolor": FAINT,
        "opacity": 0.6,
        "line": {"width": 0},
        "layer": "below",
    }


def _stream_name(stream: str, y: pd.Series, left: int) -> dict[str, Any]:
    return {
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "xshift": 8 - left,
        "y": y.mean(),
        "text": f"<b>{escape(stream)}</b>",
        "showarrow": False,
        "font": {"size": 15},
    }


def _end_text(group: Sequence[_End], side: str) -> dict[str, Any]:
    titles = ", ".join(end.title for end in group)
    makespans = ", ".join(f"<b>{end.makespan}</b>" for end in group)
    return {
        "x": group[-1].time,
        "xref": "x",
        "xanchor": side,
        "y": 1,
        "yref": "y domain",
        "yanchor": "bottom",
        "text": f"{titles}<br>{makespans}",
        "showarrow": False,
    }


def _end_line(end: _End) -> dict[str, Any]:
    return {
        "type": "line",
        "xref": "x",
        "yref": "y domain",
        "x0": end.time,
        "x1": end.time,
        "y0": 0,
        "y1": 1,
        "line": {"width": 1, "dash": "dot", "color": GREY},
        "layer": "below",
    }


def _close_ends(ends: Sequence[_End]) -> list[list[_End]]:
    """Ends whose texts would lie on each other, joined; the last one has its text on its other
    side, alone."""
    groups: list[list[_End]] = []
    *others, last = sorted(ends)
    for end in others:
        if groups and end.time - groups[-1][-1].time < TEXT_WIDTH * last.time:
            groups[-1].append(end)
        else:
            groups.append([end])
    return [*groups, [last]]
