"""Charts as a browser draws them: coloured as much as tasks are busy, at any size, in both
themes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pixels import TRACKS, WIDTHS, Picture, check_shares, follow_theme, give_size
from schedules import findep

from simdep.analysis import figures
from simdep.analysis.figures.overview import PLACE_PIXELS, TRACK_PIXELS
from simdep.costs import StageTimes
from simdep.simulation.engine import simulate_schedule

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = pytest.mark.browser

SIZES = {1652: (59, 2, 4), 10_500: (60, 5, 11), 94_400: (59, 16, 33)}  # tasks: layers, r1, r2
TIMES = StageTimes(attention=1000, shared=250, a2e=60, expert=240, e2a=60)


def open_at(browser: Chrome, page: Path, theme: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    paper = follow_theme(browser, theme)
    browser.get(page.as_uri())
    drawn = "return document.querySelector('.js-plotly-plot')?.layout?.paper_bgcolor"
    WebDriverWait(browser, 60).until(lambda driver: driver.execute_script(drawn) == paper)


def resize(browser: Chrome, width: int) -> None:
    """Give the page a width, and let its charts follow."""
    give_size(browser, width, 900)
    browser.execute_async_script(
        "const done = arguments[0];"
        "Plotly.Plots.resize(document.querySelector('.js-plotly-plot')).then(() =>"
        " requestAnimationFrame(() => requestAnimationFrame(done)))"
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("tasks", SIZES)
def test_a_track_is_coloured_as_much_as_it_is_busy(
    tasks: int, theme: str, tmp_path: Path, screen: Chrome
) -> None:
    """In the overview: within 2 points of its busy time, each kind within 3."""
    layers, r1, r2 = SIZES[tasks]
    timeline = simulate_schedule(findep(layers, r1, r2, "AASS"), TIMES)
    assert len(timeline.rows) == pytest.approx(tasks, rel=0.02)
    page = tmp_path / "page.html"
    chart = figures.gantt_chart(timeline)
    figures.write_html(page, "t", [figures.Section("h", figure=chart)])
    end = timeline.makespan_us / 1e3
    open_at(screen, page, theme)
    for width in WIDTHS:
        resize(screen, width)
        tracks = screen.execute_script(TRACKS, 0, "2", TRACK_PIXELS / PLACE_PIXELS, end)
        check_shares(tracks, Picture.of(screen), timeline)


def test_a_page_redraws_any_window_from_all_bars(tmp_path: Path, screen: Chrome) -> None:
    """As Python draws it: the same tasks at the same times, and the numbers where there is room."""
    from selenium.webdriver.support.ui import WebDriverWait

    layers, r1, r2 = SIZES[10_500]
    timeline = simulate_schedule(findep(layers, r1, r2, "AASS"), TIMES)
    gantt, page = figures.Gantt.of(timeline), tmp_path / "page.html"
    figures.write_html(page, "t", [figures.Section("h", figure=gantt.figure(embed=True))])
    open_at(screen, page, "light")
    data = "return JSON.parse(JSON.stringify(document.querySelector('.js-plotly-plot').data))"
    for share in (0.1, 0.9, 0.02):
        low, high = 0.05 * gantt.whole_us, (0.05 + share) * gantt.whole_us
        expected = drawn_bars(gantt.figure((low, high)).data)
        relayout = "Plotly.relayout(document.querySelector('.js-plotly-plot'), arguments[0])"
        screen.execute_script(relayout, {"xaxis.range": [low / 1e3, high / 1e3]})
        WebDriverWait(screen, 30).until(
            lambda driver, names=set(expected): (
                set(drawn_bars(driver.execute_script(data))) == names
            )
        )
        found = drawn_bars(screen.execute_script(data))
        for name, (base, width, text) in expected.items():
            assert found[name][:2] == pytest.approx((base, width), abs=1e-9)
            assert found[name][2] == text


def drawn_bars(data: Sequence[Any]) -> dict[str, tuple[float, float, str | None]]:
    """Task -> where its bar begins, its length, and its number, in the unit of the axis."""
    bars = {}
    for trace in data:
        if trace["type"] == "bar":
            texts = trace["text"]
            for at, row in enumerate(trace["customdata"]):
                text = None if texts is None else list(texts)[at]
                bars[row[0]] = (list(trace["base"])[at], list(trace["x"])[at], text)
    return bars
