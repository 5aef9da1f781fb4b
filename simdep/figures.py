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
from pandas.api.types import is_numeric_dtype

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
GREY = "rgba(128,128,128,{})"  # seen alike on light and on dark paper
_LOOK = {"template": "plotly_white", "paper_bgcolor": GREY.format(0), "plot_bgcolor": GREY.format(0),
         "hoverlabel_align": "left", "hovermode": "closest"}  # fmt: skip


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
        raise ValueError(f"{len(names)} titles for {len(timelines)} timelines; give at least one timeline, each a title")
    lanes = _lanes(timelines, names)
    bars, joined_us = _joined(_bars(timelines, lanes))
    spans = [timeline.makespan_us for timeline in timelines]
    unit, scale = _unit(max(spans))
    mbs = int(bars["mb"].max()) + 1
    figure = go.Figure(_traces(bars, unit, scale, mbs), _layout(lanes, unit, max(spans) / scale))
    figure.update_layout(title=_title(timelines, mbs, joined_us, len(bars) <= MOST_NUMBERS))
    _mark_streams(figure, lanes)
    _mark_ends(figure, names, spans, scale)
    return figure


def errors(cases: pd.DataFrame) -> go.Figure:
    """Simulated against measured makespan, a point a case: its interval, the diagonal and the band of good errors.

    Columns: label, predicted_us, measured_us, ci_low_us, ci_high_us, error_pct. Raises ValueError without any case.
    """
    if cases.empty:
        raise ValueError("no cases to draw")
    values = cases[["predicted_us", "measured_us", "ci_low_us", "ci_high_us"]].to_numpy(dtype=float)
    unit, scale = _unit(float(values.max()))
    low, high = float(values.min()) / scale, float(values.max()) / scale
    wide = low > 0 and high > 10 * low
    ends = np.array([low / 1.3, high * 1.3] if wide else [0.0, high * 1.08])
    axis = {"type": "log" if wide else "linear", "range": list(np.log10(ends) if wide else ends), "zeroline": False,
            "gridcolor": GREY.format(0.18), "constrain": "domain", "dtick": "D2" if wide else None}  # fmt: skip
    figure = go.Figure([*_band(ends), *_points(cases, unit, scale)], _LOOK)
    figure.update_xaxes(axis, title=f"measured makespan ({unit})")
    figure.update_yaxes(axis, title=f"simulated makespan ({unit})", scaleanchor="x")
    legend = {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"}
    return figure.update_layout(height=560, margin={"l": 70, "r": 20, "t": 60, "b": 60}, legend=legend)


def write_html(path: Path, title: str, sections: Iterable[Section]) -> None:
    """One self-contained HTML page; all text is escaped, plotly.js stands in it once. Raises OSError if not writable."""
    body = [f"<h1>{escape(title)}</h1>"]
    drawn = 0
    for section in sections:
        body.append(f"<h2>{escape(section.heading)}</h2>")
        if section.text:
            body.append(f"<p>{escape(section.text)}</p>")
        if section.table is not None:
            body.append(_table(section.table))
        if section.figure is not None:
            place = {"full_html": False, "include_plotlyjs": drawn == 0, "div_id": f"figure-{drawn}"}
            body.append(f"<figure>{section.figure.to_html(CONFIG, **place)}</figure>")
            drawn += 1
    path.write_text(_PAGE.format(title=escape(title), css=_CSS, body="\n".join(body)), encoding="utf-8")


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
                records.append((stream, index, rank, len(records) + gaps * 0.5, " ".join(words)))
    return pd.DataFrame(records, columns=["stream", "timeline", "rank", "y", "label"])


def _bars(timelines: Sequence[Timeline], lanes: pd.DataFrame) -> pd.DataFrame:
    """A row a bar, lane by lane: its times, and the `left` edge and `width` to draw, in microseconds from 0.

    Where a row starts before its lane is free, as a receive posted early does, the bar starts when the lane is free.
    """
    parts = []
    for index, timeline in enumerate(timelines):
        rows = timeline.rows.merge(lanes[lanes["timeline"] == index], on=["stream", "rank"])
        first = timeline.rows["start_us"].min()
        parts.append(rows.assign(start=rows["start_us"] - first, end=rows["end_us"] - first, last=rows["task"], tasks=1))
    bars = pd.concat(parts).sort_values(["y", "end", "start"], kind="stable", ignore_index=True)
    free = bars.groupby("y")["end"].shift(fill_value=0)
    bars["left"] = np.maximum(bars["start"], free)
    return bars.assign(width=bars["end"] - bars["left"])


def _joined(bars: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """At most `MOST_BARS` bars, or one a lane and kind, and the microseconds below which tasks were joined (or 0)."""
    span = float(bars["end"].max())
    joined, pixel_us = bars, 0.0
    while len(joined) > MOST_BARS and pixel_us < span:
        pixel_us = 2 * pixel_us or span / PIXELS
        joined = _join(bars, pixel_us)
    return joined, pixel_us


def _join(bars: pd.DataFrame, pixel_us: float) -> pd.DataFrame:
    """Bars narrower than a pixel that start in the same pixel of a lane become one a kind, as wide as they together."""
    own = -1.0 - np.arange(len(bars))
    pixel = (bars["left"] // pixel_us).where(bars["width"] < pixel_us, own)
    joined = bars.assign(pixel=pixel).groupby(["y", "pixel", "kind"], sort=False, as_index=False).agg(
        task=("task", "first"), last=("task", "last"), tasks=("task", "size"), rank=("rank", "first"), mb=("mb", "first"),
        start=("start", "min"), end=("end", "max"), left=("left", "min"), width=("width", "sum"),
    )  # fmt: skip
    same = joined.groupby(["y", "pixel"], sort=False)
    joined["left"] = same["left"].transform("min") + same["width"].cumsum() - joined["width"]
    return joined


def _traces(bars: pd.DataFrame, unit: str, scale: float, mbs: int) -> list[go.Bar]:
    """One trace a kind, so that the legend shows and hides it."""
    numbers = len(bars) <= MOST_NUMBERS
    traces = []
    for kind in Kind:
        rows = bars[bars["kind"] == kind.label]
        shades = [_shade(COLORS[kind.label], mb / max(1, mbs - 1)) for mb in range(mbs)]
        names = rows["task"].where(rows["tasks"] == 1, rows["task"] + " to " + rows["last"])
        lasts = (rows["end"] - rows["start"]) / scale
        bar = go.Bar(
            name=kind.value if kind.is_transfer else f"{kind.label} ({kind.value})", orientation="h",
            y=rows["y"], base=rows["left"] / scale, x=rows["width"] / scale, width=0.84,
            marker={"color": [shades[mb] for mb in rows["mb"]], "line": {"width": 0}},
            text=rows["task"].str.extract(r"\[(.*)\]", expand=False) if numbers else None,
            textposition="inside" if numbers else "none", insidetextanchor="middle", textangle=0,
            customdata=list(zip(names, rows["rank"], rows["start"] / scale, rows["end"] / scale, lasts, strict=True)),
            hovertemplate=f"<b>%{{customdata[0]}}</b> · {kind.label} · rank %{{customdata[1]}}<br>start "
            f"%{{customdata[2]:,.2f}} {unit}<br>end %{{customdata[3]:,.2f}} {unit}<br>duration %{{customdata[4]:,.2f}} "
            f"{unit}<extra></extra>",
        )  # fmt: skip
        traces += [bar] if len(rows) else []
    return traces


def _layout(lanes: pd.DataFrame, unit: str, end: float) -> dict[str, Any]:
    last = float(lanes["y"].max())
    labels = [escape(label) for label in lanes["label"]]
    return _LOOK | {
        "barmode": "overlay", "bargap": 0, "height": round(196 + 27 * last), "uniformtext": {"mode": "hide", "minsize": 9},
        "margin": {"l": 64 + 7 * max(map(len, labels)), "r": 96, "t": 112, "b": 54},
        "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "itemsizing": "constant"},
        "xaxis": {"title": f"time since the first start ({unit})", "range": [0, end], "zeroline": False,
                  "gridcolor": GREY.format(0.18), "showspikes": True, "spikemode": "across", "spikesnap": "cursor",
                  "spikethickness": 1, "spikedash": "solid", "spikecolor": GREY.format(0.7)},
        "yaxis": {"tickvals": list(lanes["y"]), "ticktext": labels, "range": [last + 0.65, -0.65], "fixedrange": True,
                  "showgrid": False, "zeroline": False},
    }  # fmt: skip


def _title(timelines: Sequence[Timeline], mbs: int, joined_us: float, numbers: bool) -> dict[str, Any]:
    labels = dict.fromkeys(timeline.schedule.label or "schedule" for timeline in timelines)
    notes = [f"shade: micro-batch 0 (full) to {mbs - 1} (pale)"] if mbs > 1 else []
    notes += ["number in a bar: layer.micro-batch.chunk"] if numbers else []
    notes += [f"tasks shorter than {human(joined_us)} are drawn joined"] if joined_us else []
    return {"text": escape(" / ".join(labels)), "subtitle": {"text": " · ".join(notes), "font": {"size": 12}},
            "x": 0, "xref": "paper", "y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 14}}  # fmt: skip


def _mark_streams(figure: go.Figure, lanes: pd.DataFrame) -> None:
    """A faint band and a name for each stream."""
    for stream, y in lanes.groupby("stream", sort=False)["y"]:
        ends = {"y0": y.min() - 0.6, "y1": y.max() + 0.6}
        figure.add_hrect(**ends, fillcolor=GREY.format(0.09), line_width=0, layer="below")
        figure.add_annotation(text=f"<b>{escape(str(stream))}</b>", y=y.mean(), showarrow=False, font_size=15,
                              x=0, xref="paper", xanchor="left", xshift=8 - figure.layout.margin.l)  # fmt: skip


def _mark_ends(figure: go.Figure, names: Sequence[str], spans: Sequence[float], scale: float) -> None:
    """A dotted line where each timeline ends, with its makespan above: the last to the right, the others to the left."""
    last = spans.index(max(spans))
    for index, (name, span) in enumerate(zip(names, spans, strict=True)):
        side = "left" if index == last else "right"
        figure.add_vline(x=span / scale, line={"width": 1, "dash": "dot", "color": GREY.format(1)})
        figure.add_annotation(text=f"{escape(name)}<br><b>{human(span)}</b>", x=span / scale, y=1, yref="paper",
                              xanchor=side, yanchor="bottom", align=side, showarrow=False, font_size=12)  # fmt: skip


def _unit(us: float) -> tuple[str, float]:
    """Unit of an axis that reaches to `us`, and how many microseconds it has."""
    return ("ms", 1e3) if us >= 1e4 else ("µs", 1.0)


def _shade(color: str, paleness: float) -> str:
    """A colour mixed with white, from 0 (as it is) to 1 (pale, but still itself)."""
    channels = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(c + 0.6 * paleness * (255 - c)):02x}" for c in channels)


def _band(ends: np.ndarray) -> list[go.Scatter]:
    """The diagonal and the band of good errors around it."""
    line = {"x": ends, "mode": "lines", "hoverinfo": "skip"}
    below, above = ends * (1 - GOOD_PCT / 100), ends * (1 + GOOD_PCT / 100)
    area = {"fill": "tonexty", "fillcolor": GREY.format(0.16), "name": f"within ±{GOOD_PCT} %"}
    return [
        go.Scatter(line, y=below, line_width=0, showlegend=False),
        go.Scatter(line, y=above, line_width=0, **area),
        go.Scatter(line, y=ends, line={"width": 1, "color": GREY.format(1)}, name="simulated = measured"),
    ]


def _points(cases: pd.DataFrame, unit: str, scale: float) -> list[go.Scatter]:
    """Cases in and out of the band, told apart by colour and by symbol."""
    good = cases["error_pct"].abs() <= GOOD_PCT
    looks = ((good, "up to", COLORS["attention"], "circle"), (~good, "above", COLORS["e2a"], "diamond"))
    traces = []
    for chosen, word, color, symbol in looks:
        rows = cases[chosen]
        times = rows[["predicted_us", "measured_us", "ci_low_us", "ci_high_us"]] / scale
        measured, low, high = times["measured_us"], times["ci_low_us"], times["ci_high_us"]
        points = go.Scatter(
            name=f"error {word} {GOOD_PCT} % ({len(rows)})", mode="markers", x=measured, y=times["predicted_us"],
            error_x={"array": high - measured, "arrayminus": measured - low, "thickness": 1, "width": 3},
            marker={"color": color, "symbol": symbol, "size": 9, "line": {"width": 1, "color": "white"}},
            customdata=list(zip(map(escape, rows["label"].astype(str)), low, high, rows["error_pct"], strict=True)),
            hovertemplate=f"<b>%{{customdata[0]}}</b><br>simulated %{{y:,.1f}} {unit}<br>measured %{{x:,.1f}} {unit} "
            "(%{customdata[1]:,.1f} to %{customdata[2]:,.1f})<br>error %{customdata[3]:+.1f} %<extra></extra>",
        )  # fmt: skip
        traces += [points] if len(rows) else []
    return traces


def _table(frame: pd.DataFrame) -> str:
    """An HTML table; numbers stand to the right, with four digits if they are fractions."""
    marks = [' class="number"' if is_numeric_dtype(frame[column]) else "" for column in frame]

    def line(tag: str, values: Iterable[object]) -> str:
        texts = (f"{value:,.4g}" if isinstance(value, float) else escape(str(value)) for value in values)
        return "<tr>" + "".join(f"<{tag}{mark}>{text}</{tag}>" for mark, text in zip(marks, texts, strict=True)) + "</tr>"

    body = "\n".join(line("td", row) for row in frame.itertuples(index=False, name=None))
    return f'<div class="table"><table>\n<thead>{line("th", frame.columns)}</thead>\n<tbody>\n{body}\n</tbody></table></div>'


_CSS = """
:root { color-scheme: light dark; --line: rgba(128,128,128,.3); }
body { font: 15px/1.5 "Open Sans", verdana, arial, sans-serif; max-width: 1280px; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; } p { max-width: 75ch; }
figure { margin: 0; } .table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem .3rem 0; text-align: left; border-bottom: 1px solid var(--line); } th { font-weight: 600; }
.number { text-align: right; }
@media (prefers-color-scheme: dark) { .js-plotly-plot text:not(.bartext) { fill: #ddd !important; } }
@media print { body { margin: 0; max-width: none; } figure, tr { break-inside: avoid; } .modebar { display: none; } }
"""
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{css}</style>
</head>
<body>
{body}
</body>
</html>
"""
