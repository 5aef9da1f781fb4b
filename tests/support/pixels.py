"""What a browser draws: the share of a track that each kind of task colours, from its pixels."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from simdep.analysis import figures
from simdep.timeline import Timeline

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

# The tracks of one pair of axes: y of every track, and its box in pixels of the page
TRACKS = """
const chart = document.querySelectorAll(".js-plotly-plot")[arguments[0]];
const number = arguments[1], height = arguments[2], end = arguments[3];
const layout = chart._fullLayout;
const x = layout[`xaxis${number}`], y = layout[`yaxis${number}`];
const box = chart.getBoundingClientRect();
const left = box.left + window.scrollX + x._offset, top = box.top + window.scrollY + y._offset;
return y.tickvals.map((track) => ({
  y: track,
  top: top + Math.min(y.l2p(track - height / 2), y.l2p(track + height / 2)),
  bottom: top + Math.max(y.l2p(track - height / 2), y.l2p(track + height / 2)),
  left: left + x.l2p(Math.max(0, x.range[0])),
  right: left + x.l2p(Math.min(end, x.range[1])),
  edge: left + x._length,
}));
"""


@dataclass(frozen=True)
class Picture:
    """The pixels of a page [row, column, red green blue], at one pixel a CSS pixel."""

    pixels: np.ndarray

    @classmethod
    def of(cls, browser: Chrome) -> Picture:
        """The whole page, also what has to be scrolled to."""
        size = browser.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        return cls._taken(browser, {"captureBeyondViewport": True, "clip": clip})

    @classmethod
    def of_viewport(cls, browser: Chrome) -> Picture:
        """What is seen without scrolling."""
        return cls._taken(browser, {})

    @classmethod
    def _taken(cls, browser: Chrome, options: dict[str, Any]) -> Picture:
        shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"} | options)
        return cls.read(base64.b64decode(shot["data"]))

    @classmethod
    def read(cls, png: bytes) -> Picture:
        """The picture of a PNG file."""
        return cls(np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), float))

    def mean(self, top: float, bottom: float, left: float, right: float) -> np.ndarray:
        """The mean colour of a box, pixels on its edge by their part in it."""
        rows, columns = _parts(top, bottom), _parts(left, right)
        part = self.pixels[rows[0], columns[0]]
        weights = rows[1][:, None] * columns[1][None, :]
        return (part * weights[:, :, None]).sum(axis=(0, 1)) / weights.sum()

    def shares(self, track: dict[str, Any], kinds: list[str]) -> dict[str, float]:
        """The share of a track that each of these kinds colours: the mixture of paper and colours
        that makes its mean colour."""
        paper = self.mean(track["top"], track["bottom"], track["edge"] - 6, track["edge"] - 2)
        mean = self.mean(track["top"], track["bottom"], track["left"], track["right"])
        colors = [list(bytes.fromhex(figures.COLORS[kind][1:])) for kind in kinds]
        basis = np.array(colors, float).T - paper[:, None]
        mixture, *_ = np.linalg.lstsq(basis, mean - paper, rcond=None)
        return dict(zip(kinds, mixture.tolist(), strict=True))


def _parts(low: float, high: float) -> tuple[slice, np.ndarray]:
    """The pixels that a stretch touches, and how much of each it covers."""
    first, last = int(np.floor(low)), int(np.ceil(high))
    edges = np.clip(np.arange(first, last + 1), low, high)
    return slice(first, last), np.diff(edges)


# Texts of the page that are seen, with their boxes: in charts, and everywhere else
TEXTS = """
const texts = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode, parent = node.parentElement;
  if (!node.data.trim() || ["SCRIPT", "STYLE"].includes(parent.tagName)) continue;
  if (!parent.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
  if (parent.closest("[aria-hidden=true], details:not([open])")) continue;
  const range = document.createRange();
  range.selectNodeContents(node);
  for (const box of range.getClientRects()) {
    if (box.width > 1 && box.height > 1) {
      texts.push([node.data.trim(), box.left, box.top, box.right, box.bottom]);
    }
  }
}
return texts;
"""
KINDS = {"AG": ["attention", "shared"], "A2E": ["a2e"], "EG": ["expert"], "E2A": ["e2a"]}
WIDTHS = (390, 1280, 1920)
SLACK = 2  # pixels of a box that no letter fills


def overlapping(texts: list[list[Any]]) -> list[tuple[str, str]]:
    """Pairs of texts of which one lies on the other; `texts` are those of the script `TEXTS`."""
    found = []
    for at, (one, left, top, right, bottom) in enumerate(texts):
        for other, x0, y0, x1, y1 in texts[at + 1 :]:
            wide = min(right, x1) - max(left, x0)
            high = min(bottom, y1) - max(top, y0)
            if wide > SLACK and high > 2 * SLACK:
                found.append((one, other))
    return found


def follow_theme(browser: Chrome, theme: str) -> str:
    """Make the browser ask for a theme, light or dark; the colour of paper that it then gets."""
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    return figures.DARK.paper if theme == "dark" else figures.LIGHT.paper


def give_size(browser: Chrome, width: int, height: int) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def check_shares(tracks: list[dict[str, Any]], picture: Picture, timeline: Timeline) -> None:
    """Every track of an overview is coloured within 2 points of its busy time, each kind within
    3."""
    rows = timeline.rows
    busy = (rows.end_us - rows.start_us).groupby([rows.stream, rows.kind]).sum()
    expected = busy / timeline.makespan_us
    for track, (stream, kinds) in zip(tracks, KINDS.items(), strict=True):
        shares = picture.shares(track, kinds)
        assert sum(shares.values()) == pytest.approx(expected[stream].sum(), abs=0.02)
        for kind in kinds:
            assert shares[kind] == pytest.approx(expected[stream, kind], abs=0.03), kind
