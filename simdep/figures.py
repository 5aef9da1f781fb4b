"""Figures: timelines and errors as Plotly figures, and both in one self-contained HTML page.

Times come in as microseconds and are shown in the unit that the axis names; every timeline starts at 0. This is the
only module of simdep that needs Plotly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from simdep.report import human_us
from simdep.schedule import Kind
from simdep.timeline import Timeline

# Paul Tol's bright scheme: distinct under the common colour-vision deficiencies.
COLORS = {"attention": "#4477aa", "shared": "#aa3377", "a2e": "#ccbb44", "expert": "#228833", "e2a": "#ee6677"}
CONFIG = {"displaylogo": False, "modeBarButtonsToRemove": ["sendChartToCloud"], "responsive": True}
MOST_BARS = 4000  # drawing and zooming stay below half a second
MOST_NUMBERS = 400  # bars with their number inside
PIXELS = 1600  # width for which narrow bars are joined
GOOD_PCT = 15  # error that the scatter marks as good
WORDS = {"sim": "simulated", "real": "measured"}
_CLEAR, _FAINT, _GREY = (f"rgba(128,128,128,{alpha})" for alpha in (0, 0.14, 1))  # on light and on dark paper
_LOOK = {"template": "plotly_white", "paper_bgcolor": _CLEAR, "plot_bgcolor": _CLEAR, "hoverlabel_align": "left",
         "hovermode": "closest", "modebar": {"bgcolor": _CLEAR, "color": _GREY, "remove": ["lasso2d", "select2d"]},
         "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "itemsizing": "constant"}}  # fmt: skip
_AXIS = {"gridcolor": _FAINT, "zeroline": False}


@dataclass(frozen=True)
class Section:
    """A part of a page: a heading, then whatever of text, table and figure it has."""

    heading: str
    text: str = ""
    table: pd.DataFrame | None = None
    figure: go.Figure | None = None


def gantt(*timelines: Timeline, titles: Sequence[str] = ()) -> go.Figure:
    """Timelines on one time axis, each starting at 0, with their lanes of a stream directly under each other.

    `titles` name the timelines (default: simulated, measured). Colour is the kind, lightness the micro-batch. Beyond
    `MOST_BARS` bars, tasks narrower than a pixel are joined. Raises ValueError for no timeline or a missing title.
    """
    names = tuple(titles) or tuple(WORDS[timeline.source] for timeline in timelines)
    if not timelines or len(names) != len(timelines):
        raise ValueError(f"{len(names)} titles for {len(timelines)} timelines; give one timeline or more, a title each")
    lanes = _lanes(timelines, names)
    bars, joined_us = _joined(_bars(timelines, lanes))
    ends = [(name, timeline.makespan_us) for name, timeline in zip(names, timelines, strict=True)]
    unit, scale = _unit(max(span for _, span in ends))
    figure = go.Figure(_traces(bars, unit, scale), _LOOK)
    figure.update_layout(_gantt_layout(lanes, unit), title=_title(timelines, bars, joined_us))
    _mark(figure, lanes, ends, scale)
    return figure


def errors(cases: pd.DataFrame) -> go.Figure:
    """Simulated against measured makespan, a point a case: its interval, the diagonal and the band of good errors.

    Columns: label, predicted_us, measured_us, ci_low_us, ci_high_us, error_pct. Raises ValueError without any case.
    """
    if cases.empty:
        raise ValueError("no cases to draw")
    values = cases[["predicted_us", "measured_us", "ci_low_us", "ci_high_us"]].to_numpy(dtype=float)
    unit, scale = _unit(values.max())
    low, high = values.min() / scale, values.max() / scale
    axis = _AXIS | {"type": "linear", "range": [0, high * 1.08], "constrain": "domain"}
    if low > 0 and high > 10 * low:
        ticks = [digit * 10.0**power for power in range(-6, 9) for digit in (1, 2, 5)]
        axis |= {"type": "log", "range": list(np.log10([low / 1.3, high * 1.3])), "tickvals": ticks, "ticktext": ticks}
    figure = go.Figure(_points(cases, unit, scale), _LOOK)
    ends = np.array([low / 2, high * 2])
    for pct, width, name in ((0, 1, "simulated = measured"), (-GOOD_PCT, 0, ""), (GOOD_PCT, 0, f"within ±{GOOD_PCT} %")):
        look = {"mode": "lines", "hoverinfo": "skip", "line": {"width": width, "color": _GREY}, "fillcolor": _FAINT}
        fill = "tonexty" if pct > 0 else None  # from the line before, the lower edge of the band
        figure.add_scatter(x=ends, y=ends * (1 + pct / 100), name=name, showlegend=bool(name), fill=fill, **look)
    figure.update_xaxes(axis, title=f"measured makespan ({unit})")
    figure.update_yaxes(axis, title=f"simulated makespan ({unit})", scaleanchor="x")
    return figure.update_layout(width=680, height=600, margin={"l": 70, "r": 20, "t": 60, "b": 60})


def write_html(path: Path, title: str, sections: Iterable[Section]) -> None:
    """One self-contained page: all text escaped, plotly.js once. Raises OSError where it can not be written."""
    body = [f"<h1>{escape(title)}</h1>"]
    drawn = 0
    for section in sections:
        body += [f"<h2>{escape(section.heading)}</h2>", f"<p>{escape(section.text)}</p>" if section.text else ""]
        if section.table is not None:
            body.append(_table(section.table))
        if section.figure is not None:
            place = {"full_html": False, "include_plotlyjs": drawn == 0, "div_id": f"figure-{drawn}"}
            body.append(f"<figure>{section.figure.to_html(CONFIG, **place)}</figure>")
            drawn += 1
    path.write_text(_PAGE.format(title=escape(title), body="\n".join(body)), encoding="utf-8")


def human(us: float) -> str:
    """A time for people, with the unit that reads best: 812 µs, 1.204 ms."""
    return human_us(us).replace("us", "µs")


def _lanes(timelines: Sequence[Timeline], names: Sequence[str]) -> pd.DataFrame:
    """A row a lane: stream, timeline, rank, y (downwards, with a gap between streams) and label."""
    records: list[tuple[str, int, int, float, str]] = []
    streams = dict.fromkeys(stream for timeline in timelines for stream in timeline.schedule.streams)
    for gaps, stream in enumerate(streams):
        for index, timeline in enumerate(timelines):
            ranks = [rank for lane, rank in timeline.lanes() if lane == stream]
            for rank in ranks:
                words = [names[index]] * (len(timelines) > 1) + [f"rank {rank}"] * (len(ranks) > 1)
                records.append((stream, index, rank, len(records) + gaps * 0.5, escape(" ".join(words))))
    return pd.DataFrame(records, columns=["stream", "timeline", "rank", "y", "label"])


def _bars(timelines: Sequence[Timeline], lanes: pd.DataFrame) -> pd.DataFrame:
    """A row a bar, lane by lane: its times, and the `left` edge and `width` to draw, in microseconds from 0.

    Where a row starts before its lane is free, as a receive posted early does, the bar starts when the lane is free.
    """
    parts = []
    for index, timeline in enumerate(timelines):
        rows = timeline.rows.merge(lanes[lanes["timeline"] == index], on=["stream", "rank"])
        first = timeline.rows["start_us"].min()
        parts.append(rows.assign(start=rows["start_us"] - first, end=rows["end_us"] - first, tasks=1))
    bars = pd.concat(parts).sort_values(["y", "end", "start"], kind="stable", ignore_index=True)
    bars["left"] = np.maximum(bars["start"], bars.groupby("y")["end"].shift(fill_value=0))
    return bars.assign(width=bars["end"] - bars["left"])


def _joined(bars: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """At most `MOST_BARS` bars, or one a lane and kind, and the microseconds below which tasks were joined (or 0)."""
    span = float(bars["end"].max())
    joined, pixel_us = bars, 0.0
    while len(joined) > MOST_BARS and pixel_us < span:
        pixel_us = 1.5 * pixel_us or span / PIXELS
        joined = _join(bars, pixel_us)
    return joined, pixel_us


def _join(bars: pd.DataFrame, pixel_us: float) -> pd.DataFrame:
    """Bars narrower than a pixel that start in the same pixel of a lane become one a kind, as wide as they together."""
    pixel = (bars["left"] // pixel_us).where(bars["width"] < pixel_us, -1.0 - np.arange(len(bars)))
    groups = bars.assign(pixel=pixel, last=bars["task"]).groupby(["y", "pixel", "kind"], sort=False, as_index=False)
    how = {"task": "first", "last": "last", "tasks": "sum", "rank": "first", "mb": "first",
           "start": "min", "end": "max", "left": "min", "width": "sum"}  # fmt: skip
    joined = groups.agg(how)
    joined["task"] = joined["task"].where(joined["tasks"] == 1, joined["task"] + " to " + joined["last"])
    same = joined.groupby(["y", "pixel"], sort=False)
    joined["left"] = same["left"].transform("min") + same["width"].cumsum() - joined["width"]
    return joined


def _traces(bars: pd.DataFrame, unit: str, scale: float) -> list[go.Bar]:
    """One trace a kind, so that the legend shows and hides it."""
    pale = 0.6 / max(1, bars["mb"].max())
    few = len(bars) <= MOST_NUMBERS
    slit = bars["end"].max() / 900 if few else 0.0  # about a pixel that parts a task from the next
    traces = []
    for kind in Kind:
        rows = bars[bars["kind"] == kind.label]
        times = rows[["start", "end"]].assign(lasts=rows["end"] - rows["start"]) / scale
        bar = go.Bar(
            name=kind.value if kind.is_transfer else f"{kind.label} ({kind.value})", orientation="h", y=rows["y"],
            base=rows["left"] / scale, x=np.maximum(rows["width"] - slit, 0.8 * rows["width"]) / scale, width=0.84,
            marker={"color": [_shade(COLORS[kind.label], pale * mb) for mb in rows["mb"]], "line": {"width": 0}},
            text=rows["task"].str.extract(r"\[(.*)\]", expand=False) if few else None,
            textposition="inside" if few else "none", insidetextanchor="middle", textangle=0,
            customdata=list(zip(rows["task"], rows["rank"], *times.to_numpy().T, strict=True)),
            hovertemplate=f"<b>%{{customdata[0]}}</b> · {kind.label} · rank %{{customdata[1]}}<br>"
            f"start %{{customdata[2]:,.3f}} {unit}<br>end %{{customdata[3]:,.3f}} {unit}<br>"
            f"duration %{{customdata[4]:,.3f}} {unit}<extra></extra>",
        )  # fmt: skip
        traces += [bar] if len(rows) else []
    return traces


def _gantt_layout(lanes: pd.DataFrame, unit: str) -> dict[str, Any]:
    last = float(lanes["y"].max())
    return {
        "barmode": "overlay", "height": round(196 + 27 * last), "uniformtext": {"mode": "hide", "minsize": 9},
        "margin": {"l": 72 + 7 * int(lanes["label"].str.len().max()), "r": 96, "t": 112, "b": 54},
        "xaxis": _AXIS | {"title": f"time since the first start ({unit})", "range": [0, None], "showspikes": True,
                          "spikemode": "across", "spikesnap": "cursor", "spikethickness": 1, "spikecolor": _GREY},
        "yaxis": {"tickvals": list(lanes["y"]), "ticktext": list(lanes["label"]), "range": [last + 0.65, -0.65],
                  "ticklabelstandoff": 8, "fixedrange": True, "showgrid": False, "zeroline": False},
    }  # fmt: skip


def _title(timelines: Sequence[Timeline], bars: pd.DataFrame, joined_us: float) -> dict[str, Any]:
    labels = dict.fromkeys(timeline.schedule.label or "schedule" for timeline in timelines)
    notes = [f"shade: micro-batch 0 (full) to {bars['mb'].max()} (pale)"] if bars["mb"].any() else []
    notes += ["number in a bar: layer.micro-batch.chunk"] if len(bars) <= MOST_NUMBERS else []
    notes += [f"tasks shorter than {human(joined_us)} are drawn joined"] if joined_us else []
    return {"text": escape(" / ".join(labels)), "subtitle": {"text": " · ".join(notes), "font": {"size": 12}},
            "x": 0, "xref": "paper", "y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 14}}  # fmt: skip


def _mark(figure: go.Figure, lanes: pd.DataFrame, ends: Sequence[tuple[str, float]], scale: float) -> None:
    """A faint band and a name for each stream, a dotted line and the makespan where each timeline ends."""
    for stream, y in lanes.groupby("stream", sort=False)["y"]:
        figure.add_hrect(y0=y.min() - 0.6, y1=y.max() + 0.6, fillcolor=_FAINT, line_width=0, opacity=0.6, layer="below")
        place = {"x": 0, "xref": "paper", "xanchor": "left", "xshift": 8 - figure.layout.margin.l, "y": y.mean()}
        figure.add_annotation(place, text=f"<b>{escape(str(stream))}</b>", showarrow=False, font_size=15)
    last = max(ends, key=lambda end: end[1])
    for name, span in ends:
        side = "left" if (name, span) == last else "right"
        place = {"x": span / scale, "y": 1, "yref": "paper", "xanchor": side, "yanchor": "bottom", "align": side}
        figure.add_vline(x=span / scale, line={"width": 1, "dash": "dot", "color": _GREY}, layer="below")
        figure.add_annotation(place, text=f"{escape(name)}<br><b>{human(span)}</b>", showarrow=False, font_size=12)


def _unit(us: float) -> tuple[str, float]:
    """Unit of an axis that reaches to `us`, and how many microseconds it has."""
    return ("ms", 1e3) if us >= 1e3 else ("µs", 1.0)


def _shade(color: str, paleness: float) -> str:
    """A colour mixed with white, from 0 (as it is) to 1 (white)."""
    channels = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(c + paleness * (255 - c)):02x}" for c in channels)


def _points(cases: pd.DataFrame, unit: str, scale: float) -> go.Scatter:
    measured, low, high = (cases[f"{name}_us"] / scale for name in ("measured", "ci_low", "ci_high"))
    labels = [escape(str(label)) for label in cases["label"]]
    return go.Scatter(
        name="a schedule", mode="markers", x=measured, y=cases["predicted_us"] / scale,
        error_x={"array": high - measured, "arrayminus": measured - low, "thickness": 1, "width": 3},
        marker={"color": COLORS["attention"], "size": 9, "line": {"width": 1, "color": "white"}},
        customdata=list(zip(labels, low, high, cases["error_pct"], strict=True)),
        hovertemplate=f"<b>%{{customdata[0]}}</b><br>simulated %{{y:,.3f}} {unit}<br>measured %{{x:,.3f}} {unit} "
        "(%{customdata[1]:,.3f} to %{customdata[2]:,.3f})<br>error %{customdata[3]:+.1f} %<extra></extra>",
    )  # fmt: skip


def _table(frame: pd.DataFrame) -> str:
    """An HTML table; numbers stand to the right."""
    marks = [' class="number"' if pd.api.types.is_numeric_dtype(frame[column]) else "" for column in frame]
    lines = [[f"<th{mark}>{escape(str(name))}</th>" for mark, name in zip(marks, frame, strict=True)]]
    for row in frame.itertuples(index=False, name=None):
        texts = (f"{value:,.2f}" if isinstance(value, float) else escape(str(value)) for value in row)
        lines.append([f"<td{mark}>{text}</td>" for mark, text in zip(marks, texts, strict=True)])
    return "<table>\n" + "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in lines) + "\n</table>"


_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 15px/1.5 "Open Sans", verdana, arial, sans-serif; }}
body {{ max-width: 1280px; margin: 2rem auto; padding: 0 1.5rem; }} p {{ max-width: 75ch; }} figure {{ margin: 1rem 0; }}
h1 {{ font-size: 1.7rem; }} h2 {{ font-size: 1.25rem; margin: 2.5rem 0 .6rem; break-after: avoid; }}
table {{ border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .3rem 1.4rem .3rem 0; text-align: left; border-bottom: 1px solid #8884; }}
.number {{ text-align: right; }} tr, figure {{ break-inside: avoid; }}
@media (prefers-color-scheme: dark) {{ .js-plotly-plot text:not(.bartext) {{ fill: #ddd !important; }} }}
@media print {{ body {{ margin: 0; }} .modebar {{ display: none; }} }}
</style>
{body}
</html>
"""
