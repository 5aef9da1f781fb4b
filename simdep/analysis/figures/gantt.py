"""Gantt charts: timelines on one time axis, the tracks of a stream directly under each other.

Colour is the kind of task, the number in a bar its layer, micro-batch and chunk. A chart shows the
bars of a window of time as they are; where the window is not the whole, an overview stands above
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from simdep.analysis.figures.bar_traces import MAX_NUMBERS, bar_traces
from simdep.analysis.figures.bars import (
    BarWindow,
    Drawn,
    bars_of,
    packed_bars,
    places_of_tracks,
    window_of,
)
from simdep.analysis.figures.colours import AXIS, GREY, LEGEND, LOOK
from simdep.analysis.figures.marks import End, chart_marks
from simdep.analysis.figures.overview import PLACE_PIXELS, overview
from simdep.checks import InputError
from simdep.schedule import Kind
from simdep.timeline import Timeline
from simdep.units import human_us

BAR_PIXELS = 27  # from a track of the window to the next
AXIS_PIXELS = 54  # a time axis with its title
TOOLS_PIXELS = 26  # the buttons of Plotly
TITLE_PIXELS, REMARK_PIXELS = 66, 26  # labels and remark, the remark alone
LEGEND_PIXELS, END_PIXELS = 44, 16  # two rows of a legend, a text of an end
RIGHT_PIXELS = 24
SOURCES = {"sim": "simulated", "real": "measured"}
END_TITLES = {"sim": "simulated", "real": "measured, this run"}


@dataclass(frozen=True)
class Gantt:
    """Timelines on one time axis, each starting at 0, of which any window can be drawn.

    What a window does not change is computed once, the overview when it is first needed. `places`
    and `bars` are those of `simdep.analysis.figures.bars`; `unit` is that of the time axis, `scale`
    its microseconds.
    """

    places: pd.DataFrame
    bars: pd.DataFrame
    kinds: tuple[Kind, ...]
    ends: tuple[End, ...]
    title: str
    unit: str
    scale: float

    @classmethod
    def of(
        cls,
        *timelines: Timeline | Drawn,
        titles: Sequence[str] = (),
        unit_us: float | None = None,
        heading: bool = True,
    ) -> Gantt:
        """`titles` name the timelines (default: simulated, measured). The unit of the axis is that
        which reads best, unless `unit_us` says 1 (µs) or 1e3 (ms). With `heading` the labels of the
        schedules stand above. Raises InputError for no timeline or a missing title."""
        drawn = [each if isinstance(each, Drawn) else Drawn.of(each) for each in timelines]
        sources = [timeline.source for timeline in drawn]
        names = tuple(titles) or tuple(SOURCES[source] for source in sources)
        ends = tuple(titles) or tuple(END_TITLES[source] for source in sources)
        if not timelines or len(names) != len(timelines):
            raise InputError(
                f"{len(names)} titles for {len(timelines)} timelines; give one timeline or more, "
                "a title each"
            )
        places = places_of_tracks(drawn, names)
        bars = bars_of(drawn, places)
        spans = [timeline.makespan_us for timeline in drawn]
        unit, scale = ("ms", 1e3) if (unit_us or max(spans)) >= 1e3 else ("µs", 1.0)
        labels = dict.fromkeys(timeline.label or "schedule" for timeline in drawn)
        present = set(bars["kind"].unique())
        return cls(
            places=places,
            bars=bars,
            kinds=tuple(kind for kind in Kind if kind.label in present),
            ends=tuple(
                End(us / scale, escape(name), human_time(us))
                for name, us in zip(ends, spans, strict=True)
            ),
            title=escape(" / ".join(labels)) if heading else "",
            unit=unit,
            scale=scale,
        )

    @property
    def whole_us(self) -> float:
        """When the last bar ends."""
        return float(self.bars["end"].max())

    @property
    def opening_us(self) -> tuple[float, float]:
        """The window that is drawn unless another one is asked for."""
        window = window_of(self.bars)
        return window.start_us, window.end_us

    @property
    def nbytes(self) -> int:
        """Bytes of its bars, without the texts that it shares with the timelines."""
        return int(self.bars.memory_usage().sum())

    @cached_property
    def overview(self) -> dict[str, Any]:
        """The image of the whole."""
        return overview(self.bars, self.scale)

    def figure(
        self,
        window_us: tuple[float, float] | None = None,
        *,
        reach_us: float | None = None,
        embed: bool = False,
    ) -> go.Figure:
        """The bars of a window of time, from and to, and above them the overview of the whole where
        the window is less.

        A window of more than `MAX_BARS` bars ends sooner. The axis of the whole reaches `reach_us`,
        for timelines whose charts are compared (default: its end). With `embed` the figure carries
        all bars, so that a page of `write_html` can show any window.
        """
        window = window_of(self.bars, window_us)
        layout = _layout(self, window, reach_us or self.whole_us)
        traces = bar_traces(window, self.kinds, self.unit, self.scale)
        frame = None
        if not window.is_whole:
            traces.append(_NO_TRACE)
            layout["images"] = [self.overview]
            frame = (window.start_us / self.scale, window.end_us / self.scale)
            if embed:
                layout["meta"] = {"bars": packed_bars(self.bars, self.scale)}
        marks = chart_marks(self.places, self.ends, frame, layout["margin"]["l"])
        return go.Figure(traces, LOOK | layout | marks)


def gantt_chart(
    *timelines: Timeline,
    titles: Sequence[str] = (),
    unit_us: float | None = None,
    window_us: tuple[float, float] | None = None,
    heading: bool = True,
) -> go.Figure:
    """A Gantt chart for a page of `write_html`: `Gantt.of` and its `figure`, with all bars."""
    gantt = Gantt.of(*timelines, titles=titles, unit_us=unit_us, heading=heading)
    return gantt.figure(window_us, embed=True)


def human_time(us: float) -> str:
    """A time for people, with the unit that reads best: 812 µs, 1.204 ms."""
    return human_us(us).replace("us", "µs")


def _layout(gantt: Gantt, window: BarWindow, reach_us: float) -> dict[str, Any]:
    places, title, unit, scale = gantt.places, gantt.title, gantt.unit, gantt.scale
    last = float(places["y"].max())
    stream, label = (int(places[name].str.len().max()) for name in ("stream", "label"))
    bars = inside = round(BAR_PIXELS * (last + 1.3))
    above_bars = 0
    if not window.is_whole:
        above_bars = round(PLACE_PIXELS * (last + 1))
        inside += above_bars + AXIS_PIXELS
    above = TOOLS_PIXELS + (TITLE_PIXELS if title else REMARK_PIXELS)
    top = above + LEGEND_PIXELS + END_PIXELS * len(gantt.ends)
    height = top + inside + AXIS_PIXELS
    numbered = len(window.bars) <= MAX_NUMBERS
    remark = "number in a bar: layer.micro-batch.chunk" if numbered else ""
    layout: dict[str, Any] = {
        "barmode": "overlay",
        "height": height,
        "uniformtext": {"mode": "hide", "minsize": 9},
        "margin": {
            "l": 42 + 10 * stream + 7 * label,
            "r": RIGHT_PIXELS,
            "t": top,
            "b": AXIS_PIXELS,
        },
        "legend": LEGEND | {"y": 1 - above / height, "yref": "container", "xref": "container"},
        "title": {
            "text": title or remark,
            "font": {"size": 17 if title else 12},
            "subtitle": {"text": remark if title else "", "font": {"size": 12}},
            "x": 0,
            "xref": "container",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": TOOLS_PIXELS + 14, "l": 8},
        },
        "xaxis": _TIME_AXIS | {"title": _axis_title(f"time since the first start ({unit})")},
        "yaxis": _track_axis(places, 0.65) | {"domain": [0, bars / inside]},
    }
    if window.is_whole:
        layout["xaxis"]["range"] = [0.0, 1.02 * reach_us / scale]
    else:
        layout["xaxis"]["range"] = [window.start_us / scale, window.end_us / scale]
        whole = _axis_title(f"busy share of the whole time ({unit})")
        span = 1.06 * reach_us / scale
        layout["xaxis2"] = AXIS | {"title": whole, "anchor": "y2", "range": [0, span]}
        domain = [1 - above_bars / inside, 1]
        layout["yaxis2"] = _track_axis(places, 0.5) | {"domain": domain, "anchor": "x2"}
    return layout


def _axis_title(text: str) -> dict[str, Any]:
    return {"text": text, "standoff": 4}


# Plotly has no axes without a trace
_NO_TRACE: dict[str, Any] = {
    "type": "scatter",
    "x": [None],
    "y": [None],
    "xaxis": "x2",
    "yaxis": "y2",
    "showlegend": False,
    "hoverinfo": "skip",
}
_TIME_AXIS = {
    **AXIS,
    "anchor": "y",
    "showspikes": True,
    "spikemode": "across",
    "spikesnap": "cursor",
    "spikethickness": -1,
    "spikecolor": GREY,
    "spikedash": "solid",
}


def _track_axis(places: pd.DataFrame, edge: float) -> dict[str, Any]:
    """An axis with a place for every track, downwards, and `edge` places beyond the outer ones."""
    return {
        "tickvals": list(places["y"]),
        "ticktext": list(places["label"]),
        "range": [float(places["y"].max()) + edge, -edge],
        "ticklabelstandoff": 8,
        "fixedrange": True,
        "showgrid": False,
        "zeroline": False,
    }
