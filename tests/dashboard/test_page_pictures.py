"""The what-if page as a browser draws it: busy times as they are, at any size, in both themes; a
window that the reader draws; texts beside each other; pictures to download."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import numpy as np
import pytest
from pages import serving
from PIL import Image
from pixels import (
    TEXTS,
    TRACKS,
    WIDTHS,
    Picture,
    check_shares,
    follow_theme,
    give_size,
    overlapping,
)
from places import ROOT

from simdep.analysis import figures
from simdep.analysis.figures.overview import PLACE_PIXELS, TRACK_PIXELS
from simdep.prediction import simulate
from simdep.scenario.spec import Scenario
from simdep.timeline import Timeline

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = pytest.mark.browser

SIZES = {1652: (59, 2, 4), 10_500: (60, 5, 11), 95_344: (59, 16, 33)}  # tasks: layers, r1, r2


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(ROOT / "dashboard" / "app.py") as url:
        yield url


def resize(screen: Chrome, width: int) -> None:
    """Give the page a width, and a height at which nothing of it has to be scrolled to."""
    give_size(screen, width, 3200)


def settled(screen: Chrome, script: str, *arguments: Any) -> Any:
    """What a script finds when it finds the same twice: a page moves while it is laid out anew."""
    last = None
    for _ in range(40):
        time.sleep(0.4)
        found = screen.execute_script(script, *arguments)
        if found == last:
            return found
        last = found
    raise AssertionError("the page does not come to rest")


def open_what_if(screen: Chrome, url: str, theme: str, **question: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    paper = follow_theme(screen, theme)
    screen.get(f"{url}what-if?{urlencode(question)}")
    drawn = (
        "const charts = [...document.querySelectorAll('.js-plotly-plot')];"
        "return charts.map((chart) => chart._fullLayout?.paper_bgcolor)"
    )
    WebDriverWait(screen, 60).until(lambda driver: driver.execute_script(drawn) == [paper] * 2)


def cut(tasks: int) -> tuple[dict[str, str], Timeline]:
    """A question of one policy with as many tasks, and its timeline."""
    layers, r1, r2 = SIZES[tasks]
    data = {"model": "deepseek-v2", "layers": layers}
    data |= {"deployment": {"hardware": "h20", "ag": 3, "eg": 5}}
    data |= {"workload": {"seq_len": 2048, "samples": r1}}
    data |= {"schedule": {"policy": "findep", "r1": r1, "r2": r2}}
    question = {"layers": layers, "samples": r1, "a": "findep", "a_r1": r1, "a_r2": r2}
    stated = {key: str(value) for key, value in question.items()} | {"b": "none", "c": "none"}
    return stated, simulate(Scenario.from_dict(data)).simulated


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("tasks", SIZES)
def test_a_track_of_the_page_is_coloured_as_much_as_it_is_busy(
    tasks: int, theme: str, address: str, screen: Chrome
) -> None:
    """In the overview: within 2 points of its busy time, each kind within 3."""
    question, timeline = cut(tasks)
    end = timeline.makespan_us / 1e3
    open_what_if(screen, address, theme, **question)
    for width in WIDTHS:
        resize(screen, width)
        tracks = settled(screen, TRACKS, 0, "2", TRACK_PIXELS / PLACE_PIXELS, end)
        check_shares(tracks, Picture.of_viewport(screen), timeline)


SMALL = {"layers": "8", "samples": "4", "seq_len": "512"}
BARS = (
    "return document.querySelector('.js-plotly-plot').data"
    ".filter((trace) => trace.type === 'bar')"
    ".map((trace) => (trace.customdata || []).map((row) => row.slice(0, 4)))"
)
# Bars, tiles and the frame of the window
SEEN = f"""
const metrics = [...document.querySelectorAll('[data-testid=stMetric]')];
const tiles = metrics.map((tile) => tile.innerText);
const shapes = document.querySelector('.js-plotly-plot').layout.shapes.map((shape) => shape.x0);
return [(() => {{ {BARS} }})(), tiles, shapes];
"""


@pytest.mark.parametrize("question", [SMALL, {"layers": "60", "samples": "4", "d": "ep"}])
def test_no_two_texts_of_a_narrow_page_lie_on_each_other(
    question: dict[str, str], address: str, screen: Chrome
) -> None:
    open_what_if(screen, address, "light", **question)
    resize(screen, 390)
    texts = settled(screen, TEXTS)
    assert len(texts) > 60
    assert overlapping(texts) == []


def test_no_two_texts_of_a_recorded_run_lie_on_each_other(address: str, screen: Chrome) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    screen.get(address)
    resize(screen, 390)
    charts = "return document.querySelectorAll('.js-plotly-plot .main-svg').length > 3"
    WebDriverWait(screen, 60).until(lambda driver: driver.execute_script(charts))
    assert overlapping(settled(screen, TEXTS)) == []


def test_a_box_is_the_window_of_the_page_and_of_its_address(address: str, screen: Chrome) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    open_what_if(screen, address, "light", **SMALL)
    resize(screen, 1280)
    settled(screen, TRACKS, 0, "", 1, 1)
    before = screen.execute_script(BARS)
    area = screen.find_element(By.CSS_SELECTOR, ".js-plotly-plot .nsewdrag")
    width = area.size["width"]
    drag = ActionChains(screen).move_to_element_with_offset(area, -width // 4, 0)
    drag.click_and_hold().move_by_offset(width // 8, 2).move_by_offset(width // 8, 0).release()
    drag.perform()
    wait = WebDriverWait(screen, 30)
    wait.until(lambda page: "window=" in page.current_url)
    wait.until(lambda page: page.execute_script(BARS) != before)
    found = settled(screen, BARS)
    assert 0 < sum(map(len, found)) < sum(map(len, before))
    shared = screen.current_url
    screen.get("about:blank")
    screen.get(shared)
    wait.until(lambda page: page.execute_script("return !!document.querySelector('.bars')"))
    assert settled(screen, BARS) == found
    screen.find_element(By.TAG_NAME, "body").send_keys("0")
    wait.until(lambda page: "window=" not in page.current_url)
    wait.until(lambda page: page.execute_script(BARS) == before)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_downloaded_picture_can_be_read_on_white(
    theme: str, address: str, screen: Chrome
) -> None:
    """It has solid paper, on which its texts stand out."""
    open_what_if(screen, address, theme, **SMALL)
    address_of_png = screen.execute_async_script(
        "const chart = document.querySelector('.js-plotly-plot');"
        "Plotly.toImage(chart, {format: 'png'}).then(arguments[0])"
    )
    png = base64.b64decode(address_of_png.partition(",")[2])
    image = Image.open(io.BytesIO(png))
    assert image.convert("RGBA").getextrema()[3] == (255, 255)
    pixels = Picture.read(png).pixels
    paper = figures.DARK.paper if theme == "dark" else figures.LIGHT.paper
    text = figures.DARK.text if theme == "dark" else figures.LIGHT.text
    assert tuple(pixels[0, 0]) == tuple(bytes.fromhex(paper[1:]))
    far = np.abs(pixels - np.array(list(bytes.fromhex(text[1:])))).sum(axis=2)
    assert (far < 10).sum() > 200


def test_the_address_of_a_walk_opens_the_same_page_in_a_new_session(
    address: str, screen: Chrome
) -> None:
    """Fields, solve, "Show it" and the window, as a reader would go on."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    open_what_if(screen, address, "light", **SMALL)
    wait = WebDriverWait(screen, 30)
    actions = {
        "seq_len=": ".st-key-seq_len [data-testid=stNumberInputStepUp]",
        "c_r2=": ".st-key-c_r2 [data-testid=stNumberInputStepUp]",
        "solved=": ".st-key-solve button",
        "d_r1=": ".st-key-put button",
        "window=": ".st-key-timelines_Closer button",
    }
    for written, button in actions.items():
        before = screen.execute_script(BARS)
        wait.until(lambda page, css=button: page.find_elements(By.CSS_SELECTOR, css))
        screen.execute_script("document.querySelector(arguments[0]).click()", button)
        wait.until(lambda page, text=written: text in page.current_url)
        if written != "solved=":
            wait.until(lambda page, old=before: page.execute_script(BARS) != old)
    found, shared = settled(screen, SEEN), screen.current_url
    screen.get("about:blank")
    screen.get(shared)
    wait.until(lambda page: page.execute_script("return !!document.querySelector('.bars')"))
    assert settled(screen, SEEN) == found
