"""What figures draw can be seen, and what they write can be read, on the paper of both themes
(WCAG 2: 3 : 1 for marks, 4.5 : 1 for text)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest
from schedules import findep

from simdep.analysis import figures
from simdep.analysis.figures.colours import COLORS, INK
from simdep.costs import StageTimes
from simdep.simulation.engine import simulate_schedule

TIMES = StageTimes(attention=1000, shared=250, a2e=60, expert=240, e2a=60)
THEMES = {"light": figures.LIGHT, "dark": figures.DARK}


def luminance(color: str) -> float:
    if color.startswith("#"):
        parts: list[float] = list(bytes.fromhex(color[1:]))
    else:
        parts = [float(part) for part in re.findall(r"[\d.]+", color)[:3]]
    linear = []
    for part in parts:
        share = part / 255
        linear.append(share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4)
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def all_figures() -> dict[str, go.Figure]:
    small, large = (simulate_schedule(findep(layers, 2, 4, "AASS"), TIMES) for layers in (2, 30))
    points = pd.DataFrame({"x": range(9), "y": [1, 2, 3] * 3, "kind": [0] * 4 + [1] * 5})
    rows = {"label": "a", "role": ["predicted", "calibrated"], "published": [1.0, 2.0]}
    cases = {"label": ["a"], "error_pct": 5.0}
    cases |= dict.fromkeys(("predicted_us", "measured_us", "ci_low_us", "ci_high_us"), 4.0)
    return {
        "timelines": figures.gantt_chart(small, large, titles=["A", "B"]),
        "heat": figures.heat_map(points, "x", "kind", "y"),
        "lines": figures.line_chart(points, "x", "y", "kind"),
        "agreement": figures.agreement_scatter(pd.DataFrame(rows).assign(predicted=1.5), "ms"),
        "makespans": figures.makespan_scatter(pd.DataFrame(cases)),
    }


def marks(figure: dict[str, Any]) -> Iterator[str]:
    """The colours of everything but fills: bars, points, lines, buttons."""
    for trace in figure["data"]:
        for part in (trace.get("marker", {}), trace.get("line", {})):
            if "color" in part and part.get("width", 1):
                yield part["color"]
    for shape in figure["layout"].get("shapes", []):
        if shape["line"]["width"]:
            yield shape["line"]["color"]
    yield figure["layout"]["modebar"]["color"]


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("name", all_figures())
def test_marks_and_texts_stand_out_from_the_paper(name: str, theme: str) -> None:
    figure = figures.themed(all_figures()[name], THEMES[theme]).to_plotly_json()
    paper = figure["layout"]["paper_bgcolor"]
    if name != "heat":  # its frame stands on cells
        for color in marks(figure):
            assert contrast(color, paper) >= 3, color
    assert contrast(figure["layout"]["font"]["color"], paper) >= 4.5
    for text in figure["layout"].get("annotations", []):
        assert "color" not in text.get("font", {})


def test_numbers_can_be_read_on_bars_and_cells() -> None:
    for trace in all_figures()["timelines"].data:
        if trace.type == "bar":
            assert contrast(trace.insidetextfont.color, trace.marker.color) >= 4.5
    (cells,) = all_figures()["heat"].data
    for _, color in cells.colorscale:
        assert contrast(cells.textfont.color, color) >= 4.5
    assert contrast(all_figures()["heat"].layout.shapes[0].line.color, cells.colorscale[0][1]) >= 3


def test_kinds_differ_and_bear_black_text_on_both_papers() -> None:
    assert len(set(COLORS.values())) == len(COLORS)
    for color in COLORS.values():
        assert contrast(color, INK) >= 4.5
        assert all(contrast(color, theme.paper) >= 3 for theme in THEMES.values())
