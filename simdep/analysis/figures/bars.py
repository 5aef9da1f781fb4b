"""The bars of a Gantt chart as tables: a place for each track, a bar for each row of a timeline,
and the window of time whose bars are drawn.

Times are microseconds from the first start of a timeline."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd

from simdep.timeline import Timeline

MAX_BARS = 4000  # of a window: a browser draws them within half a second
# Of the window that a chart of more bars opens with: all of them can be seen on a small screen.
# Bars narrower than a pixel would look paler than they are busy.
FIRST_BARS = 400


@dataclass(frozen=True)
class Drawn:
    """What is drawn of a timeline: its rows, without the schedule that they follow, which holds an
    object for every task."""

    label: str
    source: str
    streams: tuple[str, ...]
    rows: pd.DataFrame

    @classmethod
    def of(cls, timeline: Timeline) -> Drawn:
        """What is drawn of a timeline with all its tracks."""
        schedule = timeline.schedule
        columns = ["task", "kind", "stream", "rank", "start_us", "end_us"]
        streams = tuple(schedule.resources)
        return cls(schedule.label, timeline.source, streams, timeline.rows[columns])

    @property
    def nbytes(self) -> int:
        """Bytes that it holds, with 60 for the name of a task."""
        return int(self.rows.memory_usage().sum()) + 60 * len(self.rows)

    @property
    def makespan_us(self) -> float:
        return float(self.rows["end_us"].max() - self.rows["start_us"].min())


def places_of_tracks(timelines: Sequence[Drawn], titles: Sequence[str]) -> pd.DataFrame:
    """A row a track: stream, timeline, rank, y (downwards, with a gap between streams) and label.

    The tracks of a stream stand directly under each other, timeline by timeline.
    """
    streams: dict[str, None] = {}
    for timeline in timelines:
        streams |= dict.fromkeys(timeline.streams)
    ranks_of = [timeline.rows.groupby("stream")["rank"].unique() for timeline in timelines]
    places: list[tuple[str, int, int, float, str]] = []
    for gaps, stream in enumerate(streams):
        for index, title in enumerate(titles):
            ranks = sorted(ranks_of[index].get(stream, []))
            for rank in ranks:
                parts = [title] if len(timelines) > 1 else []
                parts += [f"rank {rank}"] if len(ranks) > 1 else []
                y = len(places) + gaps * 0.5
                places.append((stream, index, rank, y, escape(" ".join(parts))))
    return pd.DataFrame(places, columns=["stream", "timeline", "rank", "y", "label"])


def bars_of(timelines: Sequence[Drawn], places: pd.DataFrame) -> pd.DataFrame:
    """A row a bar, track by track; `left` is where a receive posted early finds its track free."""
    parts = []
    for index, timeline in enumerate(timelines):
        rows = timeline.rows
        first = rows["start_us"].min()
        columns = {name: rows[name].to_numpy() for name in ("task", "kind", "rank")}
        columns["y"] = _heights(rows, places[places["timeline"] == index])
        columns["start"] = rows["start_us"] - first
        columns["end"] = rows["end_us"] - first
        parts.append(pd.DataFrame(columns))
    bars = pd.concat(parts, ignore_index=True)
    bars = bars.iloc[np.lexsort((bars["start"], bars["end"], bars["y"]))].reset_index(drop=True)
    same_track = np.diff(bars["y"], prepend=np.nan) == 0
    free = np.where(same_track, bars["end"].shift(fill_value=0), 0)
    left = np.maximum(bars["start"], free)
    return bars.assign(left=left, width=bars["end"] - left)


def _heights(rows: pd.DataFrame, places: pd.DataFrame) -> np.ndarray:
    """The y of every row, from its stream and rank."""
    streams, names = pd.factorize(rows["stream"])
    ranks = rows["rank"].to_numpy()
    heights = np.zeros((len(names), ranks.max() + 1))
    for stream, rank, y in zip(places["stream"], places["rank"], places["y"], strict=True):
        heights[names.get_loc(stream), rank] = y
    return heights[streams, ranks]  # type: ignore[no-any-return]


@dataclass(frozen=True)
class BarWindow:
    """A part of the time of a chart, and the bars that reach into it."""

    start_us: float
    end_us: float
    whole_us: float
    bars: pd.DataFrame

    @property
    def is_whole(self) -> bool:
        return (self.start_us, self.end_us) == (0.0, self.whole_us)


def window_of(bars: pd.DataFrame, wanted_us: tuple[float, float] | None = None) -> BarWindow:
    """The window from `wanted_us[0]` on that ends at `wanted_us[1]`, or sooner: where it would hold
    more than `MAX_BARS` bars.

    By default it is the whole, or the first `FIRST_BARS` bars of more. A window that lies outside
    of the chart is the default, too.
    """
    span_us = float(bars["end"].max())
    start_us, end_us, count = 0.0, span_us, FIRST_BARS
    if wanted_us is not None:
        low, high = max(0.0, wanted_us[0]), min(span_us, wanted_us[1])
        if low < high:
            start_us, end_us, count = low, high, MAX_BARS
    shown = _bars_within(bars, start_us, end_us)
    if len(shown) > count:
        end_us = float(np.sort(shown["left"])[count])
        shown = _bars_within(bars, start_us, end_us)
    return BarWindow(start_us, end_us, span_us, shown)


def _bars_within(bars: pd.DataFrame, start_us: float, end_us: float) -> pd.DataFrame:
    """Bars of which a part lies in a time; one without width where its moment does."""
    begun = (bars["left"] < end_us) | (bars["width"] == 0) & (bars["left"] <= end_us)
    return bars[begun & ((bars["end"] > start_us) | (bars["left"] >= start_us))]


def joints_of(bars: pd.DataFrame) -> pd.DataFrame:
    """A row for every run of bars of one kind, each of which touches the next bar of its track: y,
    kind, and the middles of the first one and of the bar after the last."""
    left, width, y = (bars[name].to_numpy(float) for name in ("left", "width", "y"))
    order = np.lexsort((left + width, left, y))
    left, width, y, kind = left[order], width[order], y[order], bars["kind"].to_numpy()[order]
    end, middle = left + width, left + width / 2
    slack = 1e-9 * end.max(initial=0.0)
    touching = np.flatnonzero((y[1:] == y[:-1]) & (left[1:] - end[:-1] <= slack))
    goes_on = (np.diff(touching) == 1) & (kind[touching[1:]] == kind[touching[:-1]])
    breaks = np.flatnonzero(~goes_on)
    first = touching[np.append(0, breaks + 1)[: len(touching)]]
    last = touching[np.append(breaks, len(touching) - 1)[: len(touching)]]
    return pd.DataFrame(
        {"y": y[first], "kind": kind[first], "left": middle[first], "end": middle[last + 1]}
    )


def packed_bars(bars: pd.DataFrame, scale: float) -> str:
    """All bars, track by track, for the script of a page: a JSON object of columns, gzip, base64;
    times in the unit of the axis."""
    columns = {name: bars[name].tolist() for name in ("task", "kind", "rank", "y")}
    for name in ("left", "width", "start"):
        columns[name] = (bars[name] / scale).tolist()
    text = json.dumps(columns, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
