"""The dashboard as a visitor meets it: a real server, a real browser. Times are medians, reported
beside what is wanted; nothing is asserted on them.

    pytest -m bench -s tests/bench/test_dashboard_speed.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import psutil
import pytest
from pages import served, server_of
from places import ROOT

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = [pytest.mark.bench, pytest.mark.browser]

SMALL = {"layers": "30", "samples": "4", "seq_len": "512"}
FOUR = {"layers": "60", "samples": "4", "seq_len": "1000"}
FOUR |= dict.fromkeys("abcd", "findep")
FOUR |= {f"{letter}_{name}": "4" for letter in "abcd" for name in ("r1", "r2")}
FOUR |= {
    "b_order": "aass",
    "c_order": "A0 A1 S0 A2 S1 A3 S2 S3",
    "d_order": "A0 A1 A2 S0 S1 A3 S2 S3",
}
LARGE = {"layers": "59", "samples": "16", "a": "findep", "a_r1": "16", "a_r2": "33"}
LARGE |= {"b": "none", "c": "none"}
HEAVY = {"layers": "160", "samples": "64", "seq_len": "1000"} | dict.fromkeys("abcd", "findep")
HEAVY |= {f"{letter}_{name}": "64" for letter in "abc" for name in ("r1", "r2")}
HEAVY |= {"d_r1": "16", "d_r2": "25"}  # as much as a page simulates
DRAWN = (
    "const bars = document.querySelector('.js-plotly-plot')?.data"
    "?.filter((trace) => trace.type === 'bar');"
    "if (!bars || !document.querySelector('.bars .points path')) return null;"
    "return JSON.stringify(bars.map((trace) => trace.customdata?.[0] ?? 0))"
)


@pytest.fixture
def server() -> Iterator[tuple[str, psutil.Process]]:
    """A server that has served nobody yet."""
    with server_of(ROOT / "dashboard" / "app.py") as (url, pid):
        yield f"{url}what-if?", psutil.Process(pid)


def seconds_until(browser: Chrome, do: Callable[[], Any]) -> float:
    """From doing something to other bars than before."""
    before = browser.execute_script(DRAWN)
    began = time.perf_counter()
    do()
    while time.perf_counter() - began < 60:
        drawn = browser.execute_script(DRAWN)
        if drawn is not None and drawn != before:
            return time.perf_counter() - began
        time.sleep(0.005)
    raise AssertionError("no other bars within a minute")


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def opened(browser: Chrome, url: str, question: dict[str, str]) -> float:
    """Seconds from an address to its first bars."""
    browser.get("about:blank")
    return seconds_until(browser, lambda: browser.get(url + urlencode(question)))


def step_up(browser: Chrome, key: str) -> None:
    """Press the + of a number."""
    button = f".st-key-{key} [data-testid=stNumberInputStepUp]"
    browser.execute_script("document.querySelector(arguments[0]).click()", button)


def press(browser: Chrome, key: str) -> None:
    from selenium.webdriver.common.by import By

    browser.find_element(By.TAG_NAME, "body").send_keys(key)


def report(name: str, values: list[float], wanted: str) -> None:
    middle, unit = statistics.median(values), "s"
    print(f"{name}: {middle:.3f} {unit} ({min(values):.3f} to {max(values):.3f}), wanted {wanted}")


def settle(process: psutil.Process) -> None:
    """Wait until the server rests."""
    while process.cpu_percent(0.3) > 3:
        pass


def test_first_bars(server: Any, browser: Chrome, capsys: pytest.CaptureFixture[str]) -> None:
    url, _ = server
    with capsys.disabled():
        print()
        report("first bars, nothing cached", [opened(browser, url, SMALL)], "3 s")
        report("first bars, warm", [opened(browser, url, SMALL) for _ in range(7)], "2 s")


def test_fields_and_windows(
    server: Any, browser: Chrome, capsys: pytest.CaptureFixture[str]
) -> None:
    url, process = server
    with capsys.disabled():
        print()
        for name, question in {"three policies": {}, "60 layers, four policies": FOUR}.items():
            opened(browser, url, question)
            settle(process)
            taken, spent = [], []
            for _ in range(9):
                before = cpu_s(process)
                taken.append(seconds_until(browser, lambda: step_up(browser, "seq_len")))
                settle(process)
                spent.append(cpu_s(process) - before)
            report(f"field to picture, {name}", taken, "1 s")
            report(f"CPU of a field, {name}", spent, "0.4 s")
        opened(browser, url, LARGE)
        settle(process)
        taken, before = [], cpu_s(process)
        for _ in range(10):
            taken.append(seconds_until(browser, lambda: press(browser, "d")))
            time.sleep(0.3)
        report("window of 95,344 tasks to picture", taken, "0.4 s")
        settle(process)
        print(f"CPU of a window: {(cpu_s(process) - before) / 10:.3f} s, wanted 0.050 s")


def test_memory(server: Any, browser: Chrome, capsys: pytest.CaptureFixture[str]) -> None:
    url, process = server
    opened(browser, url, FOUR)
    resident = {0: process.memory_info().rss / 1e6}
    for change in range(1, 201):
        seconds_until(browser, lambda: step_up(browser, "seq_len"))
        if change in (50, 100, 150, 200):
            settle(process)
            resident[change] = process.memory_info().rss / 1e6
    with capsys.disabled():
        listed = ", ".join(f"{mb:.0f} MB after {changes}" for changes, mb in resident.items())
        growth = 100 * (resident[200] / resident[50] - 1)
        print(f"\nmemory: {listed} changes: {growth:+.1f} % from 50 to 200, wanted at most 10 %")


def test_a_heavy_visit(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """As much as a page simulates, and a second visitor meanwhile, with a question of its own."""
    url, process = server
    root = url.removesuffix("what-if?")
    served(root, "what-if", urlencode(SMALL))
    settle(process)
    held, seconds, spent = [], [], []
    for _ in range(3):
        before, begun = process.memory_info().rss, cpu_s(process)
        heavy = Thread(target=served, args=(root, "what-if", urlencode(HEAVY)))
        heavy.start()
        time.sleep(0.3)
        HEAVY["seq_len"] = str(int(HEAVY["seq_len"]) + 1)
        seconds.append(served(root, "what-if", urlencode(SMALL | {"seq_len": HEAVY["seq_len"]})))
        while heavy.is_alive():
            held.append((process.memory_info().rss - before) / 1e6)
            time.sleep(0.02)
        spent.append(cpu_s(process) - begun)
    with capsys.disabled():
        print(f"\na heavy visit holds {max(held):.0f} MB, wanted at most 300 MB")
        report("CPU of a heavy visit and the second one", spent, "5 s")
        report("a second visitor is served", seconds, "2 s")
