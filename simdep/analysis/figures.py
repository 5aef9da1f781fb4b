"""Figures: timelines and errors as Plotly figures, and both in one self-contained HTML page.

Times come in as microseconds and are shown in the unit that the axis names; every timeline starts
at 0. This is the only module of simdep that needs Plotly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from simdep import files
from simdep.schedule import Kind
from simdep.timeline import Timeline
from simdep.units import human_us

# Paul Tol's bright scheme: distinct under the common colour-vision deficiencies.
COLORS = {
    "attention": "#4477aa",
    "shared": "#aa3377",
    "a2e": "#ccbb44",
    "expert": "#228833",
    "e2a": "#ee6677",
    "projection": "#66ccee",
    "core": "#225588",
}
CONFIG = {"displaylogo": False, "modeBarButtonsToRemove": ["sendChartToCloud"], "responsive": True}
MOST_BARS = 4000  # drawing and zooming stay below half a second
MOST_NUMBERS = 400  # bars with their number inside
PIXELS = 1600  # width for which narrow bars are joined
LEGEND = 0.55  # of the width of a timeline, at most taken by the legend
GOOD_PCT = 15  # error that the scatter marks as good
WORDS = {"sim": "simulated", "real": "measured"}
_CLEAR, _FAINT, _GREY = (
    f"rgba(128,128,128,{alpha})" for alpha in (0, 0.14, 1)
)  # on light and on dark paper
_BUTTONS = {
    "bgcolor": _CLEAR,
    "color": _GREY,
    "activecolor": COLORS["attention"],
    "remove": ["lasso2d", "select2d"],
}
_LEGEND = {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "itemsizing": "constant"}
_LOOK = {
    "template": "plotly_white",
    "paper_bgcolor": _CLEAR,
    "plot_bgcolor": _CLEAR,
    "hoverlabel_align": "left",
    "hovermode": "closest",
    "modebar": _BUTTONS,
    "legend": _LEGEND,
}
_TICKS = [digit * 10.0**power for power in range(-6, 9) for digit in (1, 2, 5)]
_AXIS = {"gridcolor": _FAINT, "zeroline": False}
_DASHES = ("solid", "dash", "dot", "dashdot")


class Section(NamedTuple):
    """A part of a page: a heading, then whatever of text, table and figure it has."""

    heading: str
    text: str = ""
    table: pd.DataFrame | None = None
    figure: go.Figure | None = None


def gantt(
    *timelines: Timeline,
    titles: Sequence[str] = (),
    unit_us: float | None = None,
    most_bars: int = MOST_BARS,
) -> go.Figure:
    """Timelines on one time axis, each starting at 0, with their lanes of a stream directly under
    each other.

    `titles` name the timelines (default: simulated, measured). Colour is the kind, lightness the
    micro-batch. Beyond `most_bars` bars, tasks narrower than a pixel are joined. The unit of the
    axis is that which reads best, unless `unit_us` says 1 (µs) or 1e3 (ms). Raises ValueError for
    no timeline or a missing title.
    """
    names = tuple(titles) or tuple(WORDS[timeline.source] for timeline in timelines)
    if not timelines or len(names) != len(timelines):
        raise ValueError(
            f"{len(names)} titles for {len(timelines)} timelines; give one timeline or more, a title each"
        )
    lanes = _lanes(timelines, names)
    bars, joined_us = _joined(_bars(timelines, lanes), most_bars)
    spans = [timeline.makespan_us for timeline in timelines]
    unit, scale = ("ms", 1e3) if (unit_us or max(spans)) >= 1e3 else ("µs", 1.0)
    texts = (
        f"{escape(name)}<br><b>{human(span)}</b>" for name, span in zip(names, spans, strict=True)
    )
    layout = _layout(lanes, bars, joined_us, unit)
    layout["title"]["text"] = escape(
        " / ".join(dict.fromkeys(t.schedule.label or "schedule" for t in timelines))
    )
    if min(spans) < LEGEND * max(spans):
        _raise_legend(layout)
    marks = _marks(
        lanes,
        [(us / scale, text) for us, text in zip(spans, texts, strict=True)],
        layout["margin"]["l"],
    )
    return go.Figure(_traces(bars, unit, scale), _LOOK | layout | marks)


def errors(cases: pd.DataFrame) -> go.Figure:
    """Simulated against measured makespan, a point a case: its interval, the diagonal and the band
    of good errors.

    Columns: label, predicted_us, measured_us, ci_low_us, ci_high_us, error_pct. Raises ValueError
    without any case.
    """
    if cases.empty:
        raise ValueError("no cases to draw")
    times = cases[["predicted_us", "measured_us", "ci_low_us", "ci_high_us"]].to_numpy(dtype=float)
    unit, scale = ("ms", 1e3) if times.max() >= 1e3 else ("µs", 1.0)
    predicted, measured, low, high = (times / scale).T
    least, most = times.min() / scale, times.max() / scale
    axis = _AXIS | {"type": "linear", "range": [0, most * 1.08], "constrain": "domain"}
    if least > 0 and most > 10 * least:
        axis |= {
            "type": "log",
            "range": np.log10([least / 1.3, most * 1.3]),
            "tickvals": _TICKS,
            "ticktext": _TICKS,
        }
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
        marker={"color": COLORS["attention"], "size": 9, "line": {"width": 1, "color": "white"}},
        customdata=list(
            zip(map(escape, cases["label"]), low, high, cases["error_pct"], strict=True)
        ),
        hovertemplate=f"<b>%{{customdata[0]}}</b><br>simulated %{{y:,.3f}} {unit}<br>measured %{{x:,.3f}} {unit} "
        "(%{customdata[1]:,.3f} to %{customdata[2]:,.3f})<br>error %{customdata[3]:+.1f} %<extra></extra>",
    )
    figure = go.Figure([*_band(np.array([least / 1e6, most * 2])), points], _LOOK)
    figure.update_xaxes(axis, title=f"measured makespan ({unit})")
    figure.update_yaxes(axis, title=f"simulated makespan ({unit})", scaleanchor="x")
    return figure.update_layout(width=680, height=600, margin={"l": 70, "r": 20, "t": 60, "b": 60})


def agreement(points: pd.DataFrame, unit: str) -> go.Figure:
    """Predicted against published figures of one unit, a colour a role, with the diagonal and the
    band of good errors.

    Columns: label, role, published, predicted; all above 0.
    """
    both = points[["published", "predicted"]].to_numpy(dtype=float)
    least, most = both.min(), both.max()
    axis = _AXIS | {
        "type": "log",
        "range": np.log10([least / 1.3, most * 1.3]),
        "tickvals": _TICKS,
        "ticktext": _TICKS,
    }
    figure = go.Figure(_band(np.array([least / 1e3, most * 1e3]), "predicted = published"), _LOOK)
    colors = dict(zip(("predicted", "calibrated"), COLORS.values(), strict=False))
    for role, group in points.groupby("role"):
        color = colors.get(str(role), "gray")
        figure.add_scatter(
            name=str(role),
            mode="markers",
            x=group.published,
            y=group.predicted,
            marker={"color": color, "size": 9, "line": {"width": 1, "color": "white"}},
            customdata=list(
                zip(
                    map(escape, group.label),
                    100 * (group.predicted / group.published - 1),
                    strict=True,
                )
            ),
            hovertemplate="<b>%{customdata[0]}</b><br>predicted %{y:,.3f}<br>published %{x:,.3f}<br>"
            "error %{customdata[1]:+.1f} %<extra></extra>",
        )
    figure.update_xaxes(axis, title=f"published ({unit})")
    figure.update_yaxes(axis, title=f"predicted ({unit})", scaleanchor="x")
    return figure.update_layout(width=680, height=600, margin={"l": 70, "r": 20, "t": 60, "b": 60})


def heat(points: pd.DataFrame, x: str, y: str, value: str, *, best: str = "min") -> go.Figure:
    """A cell a point: `value` over two columns, each value of them as wide as the next, the best
    cell framed.

    `best` is `min` or `max`. A cell without a value stays empty. Raises ValueError without any
    value.
    """
    grid = points.pivot(index=y, columns=x, values=value)
    known = grid.to_numpy(dtype=float)
    if not np.isfinite(known).any():
        raise ValueError("no point to draw has a value")
    columns, rows = (list(map(_short, axis)) for axis in (grid.columns, grid.index))
    few = known.size <= MOST_NUMBERS
    mark = go.Heatmap(
        x=columns,
        y=rows,
        z=known,
        colorscale="Viridis",
        reversescale=best == "min",
        hoverongaps=False,
        xgap=1,
        ygap=1,
        texttemplate="%{z:.4~g}" if few else None,
        colorbar={"title": {"text": value, "side": "right"}},
        hovertemplate=f"{x} %{{x}}<br>{y} %{{y}}<br>{value} %{{z:,.6~g}}<extra></extra>",
    )
    at = np.unravel_index(
        np.nanargmin(known) if best == "min" else np.nanargmax(known), known.shape
    )
    frame = {
        "type": "rect",
        "x0": at[1] - 0.5,
        "x1": at[1] + 0.5,
        "y0": at[0] - 0.5,
        "y1": at[0] + 0.5,
        "line": {"width": 3, "color": COLORS["e2a"]},
    }
    figure = go.Figure([mark], _LOOK | {"shapes": [frame]})
    axis = {"type": "category", "showgrid": False, "zeroline": False}
    figure.update_xaxes(axis, title=x).update_yaxes(axis, title=y)
    return figure.update_layout(
        height=max(300, 130 + 34 * min(len(rows), 20)), margin={"l": 70, "r": 20, "t": 30, "b": 60}
    )


def lines(points: pd.DataFrame, x: str, value: str, color: str | None = None) -> go.Figure:
    """`value` over a column, a line for each value of the column `color`; logarithmic where x spans
    two decades.

    Points without a value leave a gap.
    """
    figure = go.Figure(layout=_LOOK)
    for number, (name, group) in enumerate(
        points.groupby(color, sort=False) if color else [(value, points)]
    ):
        shade = list(COLORS.values())[number % len(COLORS)]
        figure.add_scatter(
            name=f"{color} {_short(name)}" if color else str(name),
            x=group[x],
            y=group[value],
            mode="lines+markers",
            line={"color": shade, "dash": _DASHES[number // len(COLORS) % len(_DASHES)]},
            marker={"size": 6},
        )
    numbers = pd.api.types.is_numeric_dtype(points[x])
    wide = numbers and points[x].min() > 0 and points[x].max() >= 100 * points[x].min()
    figure.update_xaxes(_AXIS, title=x, type="log" if wide else "linear" if numbers else "category")
    figure.update_yaxes(_AXIS, title=value, rangemode="tozero", tickformat=",")
    return figure.update_layout(
        height=420, margin={"l": 110, "r": 20, "t": 60, "b": 60}, showlegend=color is not None
    )


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)


def write_html(path: Path, title: str, sections: Iterable[Section]) -> None:
    """One self-contained page: all text escaped, plotly.js once. Raises OSError where it can't be
    written."""
    body, drawn = [f"<h1>{escape(title)}</h1>"], 0
    for section in sections:
        body += [
            f"<h2>{escape(section.heading)}</h2>",
            f"<p>{escape(section.text)}</p>" if section.text else "",
        ]
        if section.table is not None:
            body.append(_table(section.table))
        if section.figure is not None:
            place = {
                "full_html": False,
                "include_plotlyjs": drawn == 0,
                "div_id": f"figure-{drawn}",
            }
            body.append(f"<figure>{section.figure.to_html(CONFIG, **place)}</figure>")
            drawn += 1
    files.write(path, _PAGE.format(title=escape(title), body="\n".join(body)))


def human(us: float) -> str:
    """A time for people, with the unit that reads best: 812 µs, 1.204 ms."""
    return human_us(us).replace("us", "µs")


def _lanes(timelines: Sequence[Timeline], names: Sequence[str]) -> pd.DataFrame:
    """A row a lane: stream, timeline, rank, y (downwards, with a gap between streams) and label."""
    records: list[tuple[str, int, int, float, str]] = []
    streams = dict.fromkeys(
        stream for timeline in timelines for stream in timeline.schedule.resources
    )
    present = [timeline.tracks() for timeline in timelines]
    for gaps, stream in enumerate(streams):
        for index, lanes in enumerate(present):
            ranks = [rank for lane, rank in lanes if lane == stream]
            for rank in ranks:
                words = [names[index]] * (len(timelines) > 1) + [f"rank {rank}"] * (len(ranks) > 1)
                records.append(
                    (stream, index, rank, len(records) + gaps * 0.5, escape(" ".join(words)))
                )
    return pd.DataFrame(records, columns=["stream", "timeline", "rank", "y", "label"])


def _bars(timelines: Sequence[Timeline], lanes: pd.DataFrame) -> pd.DataFrame:
    """A row a bar, lane by lane, in microseconds from 0; `left` is where a receive posted early
    finds its lane free."""
    parts = []
    for index, timeline in enumerate(timelines):
        rows, first = timeline.rows, timeline.rows["start_us"].min()
        own = {name: rows[name].to_numpy() for name in ("task", "kind", "mb", "rank")}
        y = _places(rows, lanes[lanes["timeline"] == index])
        parts.append(
            pd.DataFrame(
                own | {"y": y, "start": rows["start_us"] - first, "end": rows["end_us"] - first}
            )
        )
    bars = pd.concat(parts, ignore_index=True)
    bars = bars.iloc[np.lexsort((bars["start"], bars["end"], bars["y"]))].reset_index(drop=True)
    same_lane = np.diff(bars["y"], prepend=np.nan) == 0
    free = np.where(same_lane, bars["end"].shift(fill_value=0), 0)
    left = np.maximum(bars["start"], free)
    return bars.assign(tasks=1, left=left, width=bars["end"] - left)


def _places(rows: pd.DataFrame, lanes: pd.DataFrame) -> np.ndarray:
    """The y of every row, from its stream and rank."""
    streams, names = pd.factorize(rows["stream"])
    ranks = rows["rank"].to_numpy()
    found = np.zeros((len(names), ranks.max() + 1))
    for stream, rank, y in zip(lanes["stream"], lanes["rank"], lanes["y"], strict=True):
        found[names.get_loc(stream), rank] = y
    return found[streams, ranks]  # type: ignore[no-any-return]


def _joined(bars: pd.DataFrame, most: int) -> tuple[pd.DataFrame, float]:
    """At most `most` bars (or one a lane and kind), and the microseconds below which tasks were
    joined (or 0).

    What is narrower than a pixel and starts in the same pixel becomes one bar a kind, as wide as
    all together.
    """
    if len(bars) <= most:
        return bars, 0.0
    left, width, end = (bars[name].to_numpy(dtype=float) for name in ("left", "width", "end"))
    place = pd.factorize(bars["y"])[0] * len(Kind) + pd.factorize(bars["kind"])[0]
    alone = np.arange(1, len(bars) + 1)
    pixel_us, span = 0.0, float(end.max())
    group, count = alone, len(bars)
    while count > most and pixel_us < span:
        pixel_us = 1.5 * pixel_us or span / PIXELS
        pixel = np.where(width < pixel_us, left // pixel_us, -alone).astype(int)
        key = (
            place * (span // pixel_us + 2 + len(bars)) + pixel
        )  # one number for lane, kind and pixel
        _, group = np.unique(key, return_inverse=True)
        count = int(group.max()) + 1
    order = np.argsort(group, kind="stable")
    opens = np.searchsorted(group[order], np.arange(count))
    firsts, lasts = order[opens], order[np.append(opens[1:], len(bars)) - 1]
    names = bars["task"].to_numpy()
    joined = bars.iloc[firsts].assign(
        task=[
            a if a == b else f"{a} to {b}" for a, b in zip(names[firsts], names[lasts], strict=True)
        ],
        start=np.minimum.reduceat(bars["start"].to_numpy()[order], opens),
        end=np.maximum.reduceat(end[order], opens),
        left=np.minimum.reduceat(left[order], opens),
        width=np.add.reduceat(width[order], opens),
        tasks=np.diff(opens, append=len(bars)),
        pixel=pixel[firsts],
    )
    joined = joined.sort_index(ignore_index=True)
    same = joined.groupby(["y", "pixel"], sort=False)
    joined["left"] = same["left"].transform("min") + same["width"].cumsum() - joined["width"]
    return joined, pixel_us


def _traces(bars: pd.DataFrame, unit: str, scale: float) -> list[dict[str, Any]]:
    """One trace a kind, so that the legend shows and hides it."""
    pale = 0.6 / max(1, bars["mb"].max())  # share of white, growing with the micro-batch
    few = len(bars) <= MOST_NUMBERS and bars["tasks"].max() == 1
    slit = bars["end"].max() / 900 if few else 0.0  # about a pixel that parts a task from the next
    traces = []
    for kind in Kind:
        rows = bars[bars["kind"] == kind.label]
        times = rows[["start", "end"]].assign(lasts=rows["end"] - rows["start"]) / scale
        rgb = bytes.fromhex(COLORS[kind.label][1:])
        shade = {
            mb: "#" + bytes(round(c + pale * mb * (255 - c)) for c in rgb).hex()
            for mb in rows["mb"].unique()
        }
        bar = dict(
            type="bar",
            name=kind.value if kind.is_transfer else f"{kind.label} ({kind.value})",
            orientation="h",
            y=rows["y"],
            base=rows["left"] / scale,
            x=np.maximum(rows["width"] - slit, 0.8 * rows["width"]) / scale,
            width=0.84,
            marker={"color": list(map(shade.get, rows["mb"])), "line": {"width": 0}},
            text=rows["task"].str.extract(r"\[(.*)\]", expand=False) if few else None,
            textposition="inside" if few else "none",
            insidetextanchor="middle",
            textangle=0,
            customdata=np.array(
                list(zip(rows["task"], rows["rank"], *times.to_numpy().T, strict=True)),
                dtype=object,
            ),
            hovertemplate=f"<b>%{{customdata[0]}}</b> · {kind.label} · rank %{{customdata[1]}}<br>"
            f"start %{{customdata[2]:,.3f}} {unit}<br>end %{{customdata[3]:,.3f}} {unit}<br>"
            f"duration %{{customdata[4]:,.3f}} {unit}<extra></extra>",
        )
        traces += [bar] if len(rows) else []
    return traces


def _layout(lanes: pd.DataFrame, bars: pd.DataFrame, joined_us: float, unit: str) -> dict[str, Any]:
    last = float(lanes["y"].max())
    stream, label = (int(lanes[name].str.len().max()) for name in ("stream", "label"))
    notes = (
        [f"shade: micro-batch 0 (full) to {bars['mb'].max()} (pale)"] if bars["mb"].any() else []
    )
    notes += (
        ["number in a bar: layer.micro-batch.chunk"]
        if len(bars) <= MOST_NUMBERS and not joined_us
        else []
    )
    notes += [f"tasks shorter than {human(joined_us)} are drawn joined"] if joined_us else []
    return {
        "barmode": "overlay",
        "height": round(196 + 27 * last),
        "uniformtext": {"mode": "hide", "minsize": 9},
        "margin": {"l": 42 + 10 * stream + 7 * label, "r": 72, "t": 112, "b": 54},
        "title": {
            "subtitle": {"text": " · ".join(notes), "font": {"size": 12}},
            "x": 0,
            "xref": "paper",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 14},
        },
        "xaxis": _AXIS
        | {
            "title": f"time since the first start ({unit})",
            "rangemode": "tozero",
            "showspikes": True,
            "spikemode": "across",
            "spikesnap": "cursor",
            "spikethickness": -1,
            "spikecolor": _GREY,
            "spikedash": "solid",
        },
        "yaxis": {
            "tickvals": list(lanes["y"]),
            "ticktext": list(lanes["label"]),
            "range": [last + 0.65, -0.65],
            "ticklabelstandoff": 8,
            "fixedrange": True,
            "showgrid": False,
            "zeroline": False,
        },
    }


def _raise_legend(layout: dict[str, Any]) -> None:
    """Room under the legend for the texts of ends that stand where it is."""
    layout["margin"]["t"] += 32
    layout["height"] += 32
    inside = layout["height"] - layout["margin"]["t"] - layout["margin"]["b"]
    layout["legend"] = {**_LEGEND, "y": 1 + 34 / inside}


def _marks(lanes: pd.DataFrame, ends: Sequence[tuple[float, str]], left: int) -> dict[str, Any]:
    """A faint band and a name for each stream; a dotted line and a text where each timeline ends.

    All in one layout: adding shapes one by one takes Plotly ten milliseconds each.
    """
    shapes: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    for stream, y in lanes.groupby("stream", sort=False)["y"]:
        shapes.append(
            {
                "type": "rect",
                "xref": "x domain",
                "yref": "y",
                "x0": 0,
                "x1": 1,
                "y0": y.min() - 0.6,
                "y1": y.max() + 0.6,
                "fillcolor": _FAINT,
                "opacity": 0.6,
                "line": {"width": 0},
                "layer": "below",
            }
        )
        notes.append(
            {
                "x": 0,
                "xref": "paper",
                "xanchor": "left",
                "xshift": 8 - left,
                "y": y.mean(),
                "text": f"<b>{escape(str(stream))}</b>",
                "showarrow": False,
                "font": {"size": 15},
            }
        )
    for group in _close(ends):
        last = group[-1]
        side = "left" if last == max(ends) else "right"
        notes.append(
            {
                "x": last[0],
                "xref": "x",
                "xanchor": side,
                "y": 1,
                "yref": "y domain",
                "yanchor": "bottom",
                "text": "<br>".join(
                    map(", ".join, zip(*(text.split("<br>") for _, text in group), strict=True))
                ),
                "showarrow": False,
            }
        )
        for end, _ in group:
            shapes.append(
                {
                    "type": "line",
                    "xref": "x",
                    "yref": "y domain",
                    "x0": end,
                    "x1": end,
                    "y0": 0,
                    "y1": 1,
                    "line": {"width": 1, "dash": "dot", "color": _GREY},
                    "layer": "below",
                }
            )
    return {"shapes": shapes, "annotations": notes}


def _close(ends: Sequence[tuple[float, str]]) -> list[list[tuple[float, str]]]:
    """Ends whose texts would lie on each other, joined; the last one has its text on its other
    side, alone."""
    groups: list[list[tuple[float, str]]] = []
    *before, last = sorted(ends)
    for each in before:
        if groups and each[0] - groups[-1][-1][0] < 0.065 * last[0]:
            groups[-1].append(each)
        else:
            groups.append([each])
    return [*groups, [last]]


def _band(ends: np.ndarray, name: str = "simulated = measured") -> list[go.Scatter]:
    """The diagonal and the band of good errors around it."""
    line = {"x": ends, "mode": "lines", "hoverinfo": "skip", "line": {"width": 0}}
    lower, upper = (ends * (1 + sign * GOOD_PCT / 100) for sign in (-1, 1))
    return [
        go.Scatter(line, y=lower, showlegend=False),
        go.Scatter(line, y=upper, fill="tonexty", fillcolor=_FAINT, name=f"within ±{GOOD_PCT} %"),
        go.Scatter(line | {"line": {"width": 1, "color": _GREY}}, y=ends, name=name),
    ]


def _table(frame: pd.DataFrame) -> str:
    """An HTML table; numbers stand to the right."""
    marks = [
        ' class="number"' if pd.api.types.is_numeric_dtype(frame[column]) else ""
        for column in frame
    ]
    lines = [
        [f"<th{mark}>{escape(str(name))}</th>" for mark, name in zip(marks, frame, strict=True)]
    ]
    for row in frame.itertuples(index=False, name=None):
        texts = (
            format(v, ",.2f" if abs(v) >= 0.1 else ".3g")
            if isinstance(v, float)
            else escape(str(v))
            for v in row
        )
        lines.append([f"<td{mark}>{text}</td>" for mark, text in zip(marks, texts, strict=True)])
    return (
        '<div class="wide"><table>\n'
        + "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in lines)
        + "\n</table></div>"
    )


_PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 15px/1.5 "Open Sans", verdana, arial, sans-serif; }}
body {{ max-width: 1280px; margin: 2rem auto; padding: 0 1.5rem; }} p {{ max-width: 75ch }} figure {{ margin: 1rem 0; }}
h1 {{ font-size: 1.7rem }} h2 {{ font-size: 1.25rem; margin: 2.5rem 0 .6rem; break-after: avoid; }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .3em 1.5em .3em 0; text-align: left; border-bottom: 1px solid #8884}} .number {{ text-align: right }}
@media (prefers-color-scheme: dark) {{ .js-plotly-plot text:not(.bartext) {{ fill: #ddd !important; }} }}
@media print {{ body {{ margin: 0; }} .modebar {{ display: none; }} tr, figure {{ break-inside: avoid; }} }}
</style>
{body}
</html>
"""
