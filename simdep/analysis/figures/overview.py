"""The overview of a Gantt chart: how busy every track is, over the whole time.

The time is cut into columns. In every column of a track, each kind of task fills as much of the
height as it fills of the time: a track that is 5 % busy is 5 % coloured, however short its tasks.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from simdep.analysis.figures.colours import COLORS
from simdep.arrays import Array
from simdep.schedule import Kind

SHARE_COLUMNS = 480
TRACK_PIXELS = 20  # height of a track of the overview
PLACE_PIXELS = 24  # from a track to the next
CLEAR_PIXEL = bytes(4)


def busy_shares(bars: pd.DataFrame, kinds: Sequence[str], columns: int = SHARE_COLUMNS) -> Array:
    """The share of every column that tasks of a kind fill: [track, kind, column], tracks by their
    y.

    The bars of a track do not overlap. Shares are exact: those of a track and a kind add up to its
    busy time.
    """
    edges = np.linspace(0.0, float(bars["end"].max()), columns + 1)
    tracks = np.unique(bars["y"])
    shares = np.zeros((len(tracks), len(kinds), columns))
    for key, group in bars.groupby(["y", "kind"], sort=False):
        y, kind = cast(tuple[float, str], key)
        left, width = group["left"].to_numpy(float), group["width"].to_numpy(float)
        done = np.cumsum(width)
        times = np.column_stack([left, left + width]).ravel()
        busy = np.column_stack([done - width, done]).ravel()
        within = np.diff(np.interp(edges, times, busy))
        shares[np.searchsorted(tracks, y), kinds.index(kind)] = within / np.diff(edges)
    return shares


def pixel_heights(shares: Array, pixels: int = TRACK_PIXELS) -> np.ndarray:
    """The height of every kind in every column, in whole pixels: what rounding adds to or takes
    from one column is made up for in the next (error diffusion).

    Whole pixels keep the coloured area exact: a browser would blur the edge of a fraction.
    """
    heights = np.zeros(shares.shape, dtype=np.int64)
    owed = np.zeros(shares.shape[:2])
    for column in range(shares.shape[2]):
        owed += pixels * shares[:, :, column]
        tops = np.rint(np.cumsum(owed, axis=1))
        height = np.maximum(np.diff(tops, prepend=0.0, axis=1), 0.0)
        heights[:, :, column] = height
        owed -= height
    return heights


def overview(bars: pd.DataFrame, scale: float) -> dict[str, Any]:
    """The overview as an image of a layout, on the axes with the number 2: a row of pixels for a
    row of the screen, the kinds of a track stacked on each other.

    An image keeps its mean colour at any width of the screen. `scale` is the microseconds of a unit
    of the time axis.
    """
    present = set(bars["kind"])
    kinds = [kind.label for kind in Kind if kind.label in present]
    tracks = np.unique(bars["y"])
    tops = np.cumsum(pixel_heights(busy_shares(bars, kinds)), axis=1)
    first = round(PLACE_PIXELS * (tracks[0] - 0.5))
    rows = round(PLACE_PIXELS * (tracks[-1] + 0.5)) - first
    pixels = np.zeros(
        (rows, SHARE_COLUMNS), dtype=np.uint8
    )  # 0: nothing, else the number of a kind
    rise = np.arange(TRACK_PIXELS, 0, -1)  # of the rows of a track, above its floor
    for track, y in enumerate(tracks):
        top = round(PLACE_PIXELS * y - TRACK_PIXELS / 2) - first
        below = rise[:, None, None] <= tops[track][None, :, :]  # [row, kind, column]
        kind = np.where(below.any(axis=1), 1 + below.argmax(axis=1), 0)
        pixels[top : top + TRACK_PIXELS] = kind
    return {
        "source": png([CLEAR_PIXEL, *(_rgba(COLORS[kind]) for kind in kinds)], pixels),
        "xref": "x2",
        "yref": "y2",
        "x": 0.0,
        "y": tracks[0] - 0.5,
        "sizex": float(bars["end"].max()) / scale,
        "sizey": rows / PLACE_PIXELS,
        "sizing": "stretch",
        "layer": "above",
    }


def png(palette: Sequence[bytes], pixels: np.ndarray) -> str:
    """A PNG picture as a data address: rows of numbers of colours (red, green, blue, opacity)."""
    rows, columns = pixels.shape
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), pixels.astype(np.uint8)], axis=1)
    parts = {
        b"IHDR": struct.pack(">2I5B", columns, rows, 8, 3, 0, 0, 0),  # 8 bits, with a palette
        b"PLTE": b"".join(color[:3] for color in palette),
        b"tRNS": b"".join(color[3:] for color in palette),
        b"IDAT": zlib.compress(lines.tobytes(), 9),
        b"IEND": b"",
    }
    picture = b"\x89PNG\r\n\x1a\n"
    for name, data in parts.items():
        check = struct.pack(">I", zlib.crc32(name + data))
        picture += struct.pack(">I", len(data)) + name + data + check
    return "data:image/png;base64," + base64.b64encode(picture).decode()


def _rgba(color: str) -> bytes:
    return bytes.fromhex(color[1:]) + b"\xff"
