"""The bars of a Gantt chart as tables: a place for each track, a bar for each row of a timeline.

What is too narrow to see is joined. Times are microseconds from the first start of a timeline."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import pandas as pd

from simdep.schedule import Kind
from simdep.timeline import Timeline

PIXELS = 1600  # width for which narrow bars are joined


def places_of_tracks(timelines: Sequence[Timeline], titles: Sequence[str]) -> pd.DataFrame:
    """A row a track: stream, timeline, rank, y (downwards, with a gap between streams) and label.

    The tracks of a stream stand directly under each other, timeline by timeline.
    """
    streams: dict[str, None] = {}
    for timeline in timelines:
        streams |= dict.fromkeys(timeline.schedule.resources)
    tracks = [timeline.tracks() for timeline in timelines]
    places: list[tuple[str, int, int, float, str]] = []
    for gaps, stream in enumerate(streams):
        for index, title in enumerate(titles):
            ranks = [rank for resource, rank in tracks[index] if resource == stream]
            for rank in ranks:
                parts = [title] if len(timelines) > 1 else []
                parts += [f"rank {rank}"] if len(ranks) > 1 else []
                y = len(places) + gaps * 0.5
                places.append((stream, index, rank, y, escape(" ".join(parts))))
    return pd.DataFrame(places, columns=["stream", "timeline", "rank", "y", "label"])


def bars_of(timelines: Sequence[Timeline], places: pd.DataFrame) -> pd.DataFrame:
    """A row a bar, track by track; `left` is where a receive posted early finds its track free."""
    parts = []
    for index, timeline in enumerate(timelines):
        rows = timeline.rows
        first = rows["start_us"].min()
        columns = {name: rows[name].to_numpy() for name in ("task", "kind", "mb", "rank")}
        columns["y"] = _heights(rows, places[places["timeline"] == index])
        columns["start"] = rows["start_us"] - first
        columns["end"] = rows["end_us"] - first
        parts.append(pd.DataFrame(columns))
    bars = pd.concat(parts, ignore_index=True)
    bars = bars.iloc[np.lexsort((bars["start"], bars["end"], bars["y"]))].reset_index(drop=True)
    same_track = np.diff(bars["y"], prepend=np.nan) == 0
    free = np.where(same_track, bars["end"].shift(fill_value=0), 0)
    left = np.maximum(bars["start"], free)
    return bars.assign(tasks=1, left=left, width=bars["end"] - left)


def _heights(rows: pd.DataFrame, places: pd.DataFrame) -> np.ndarray:
    """The y of every row, from its stream and rank."""
    streams, names = pd.factorize(rows["stream"])
    ranks = rows["rank"].to_numpy()
    heights = np.zeros((len(names), ranks.max() + 1))
    for stream, rank, y in zip(places["stream"], places["rank"], places["y"], strict=True):
        heights[names.get_loc(stream), rank] = y
    return heights[streams, ranks]  # type: ignore[no-any-return]


def joined_bars(bars: pd.DataFrame, most: int) -> tuple[pd.DataFrame, float]:
    """At most `most` bars (or one a track and kind), and the microseconds below which tasks were
    joined (or 0).

    What is narrower than a pixel and starts in the same pixel becomes one bar a kind, as wide as
    all together.
    """
    if len(bars) <= most:
        return bars, 0.0
    group, pixel, pixel_us = _groups(bars, most)
    order = np.argsort(group, kind="stable")
    opens = np.searchsorted(group[order], np.arange(group.max() + 1))
    firsts, lasts = order[opens], order[np.append(opens[1:], len(bars)) - 1]
    names = bars["task"].to_numpy()
    joined = bars.iloc[firsts].assign(
        task=list(map(_name_of_joined, names[firsts], names[lasts])),
        start=np.minimum.reduceat(bars["start"].to_numpy()[order], opens),
        end=np.maximum.reduceat(bars["end"].to_numpy(dtype=float)[order], opens),
        left=np.minimum.reduceat(bars["left"].to_numpy(dtype=float)[order], opens),
        width=np.add.reduceat(bars["width"].to_numpy(dtype=float)[order], opens),
        tasks=np.diff(opens, append=len(bars)),
        pixel=pixel[firsts],
    )
    joined = joined.sort_index(ignore_index=True)
    same_pixel = joined.groupby(["y", "pixel"], sort=False)
    before = same_pixel["width"].cumsum() - joined["width"]
    joined["left"] = same_pixel["left"].transform("min") + before
    return joined, pixel_us


def _groups(bars: pd.DataFrame, most: int) -> tuple[np.ndarray, np.ndarray, float]:
    """The group that each bar is joined into, its pixel, and the width of a pixel: the narrowest
    that leaves at most `most` groups."""
    left, width = (bars[name].to_numpy(dtype=float) for name in ("left", "width"))
    place = pd.factorize(bars["y"])[0] * len(Kind) + pd.factorize(bars["kind"])[0]
    alone = np.arange(1, len(bars) + 1)
    pixel = group = alone
    count = len(bars)
    pixel_us, span = 0.0, float(bars["end"].max())
    while count > most and pixel_us < span:
        pixel_us = 1.5 * pixel_us or span / PIXELS
        pixel = np.where(width < pixel_us, left // pixel_us, -alone).astype(int)
        # one number for track, kind and pixel
        key = place * (span // pixel_us + 2 + len(bars)) + pixel
        _, group = np.unique(key, return_inverse=True)
        count = int(group.max()) + 1
    return group, pixel, pixel_us


def _name_of_joined(first: str, last: str) -> str:
    return first if first == last else f"{first} to {last}"
