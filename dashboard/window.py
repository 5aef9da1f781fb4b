"""The window of time that the timelines of a page show: one for the page, held by its address.

A box drawn in a chart or a button moves it, without anything else of the page being computed anew.
Times are microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import streamlit as st

from dashboard.address import FormField, asked, keep
from dashboard.widgets import show_figure
from simdep.analysis import figures
from simdep.checks import InputError, number, shown
from simdep.scenario.field import Text

KEY = "window"  # in the address
STEP, ZOOM = 0.5, 2.0  # of a button, in windows
SHORTEST_US = 0.01


@dataclass(frozen=True)
class Window:
    """A part of the time; in an address it is written FROM-TO."""

    start_us: float
    end_us: float

    @classmethod
    def parse(cls, text: str) -> Window:
        """The window of an address; raises InputError unless it is two times, one after the
        other."""
        first, _, last = text.partition("-")
        try:
            start, end = float(first), float(last)
        except ValueError:
            raise InputError(f"{KEY}={shown(text)}; expected FROM-TO in microseconds") from None
        window = cls(number(start, KEY), number(end, KEY))
        if window.start_us >= window.end_us:
            raise InputError(f"{KEY}={shown(text)}; expected an end after the start")
        return window

    def __str__(self) -> str:
        return f"{self.start_us:.3f}-{self.end_us:.3f}"

    def moved(self, share: float, whole_us: float) -> Window:
        """The window by a share of its length later, within the whole."""
        by = share * (self.end_us - self.start_us)
        by = min(max(by, -self.start_us), max(0.0, whole_us - self.end_us))
        return Window(self.start_us + by, self.end_us + by)

    def zoomed(self, factor: float, whole_us: float) -> Window:
        """A window around the same middle, `factor` times as long, within the whole."""
        middle, half = (self.start_us + self.end_us) / 2, (self.end_us - self.start_us) / 2
        return Window(max(0.0, middle - factor * half), min(whole_us, middle + factor * half))


@dataclass(frozen=True)
class _WindowText(Text):
    """What the address holds."""

    def check(self, value: Any) -> str:
        Window.parse(value)
        return str(value)


WINDOW = FormField(
    KEY, _WindowText(name=KEY, table="", label="Window", help="the time that is shown")
)


@st.fragment
def draw_chart(key: str, gantt_of: Callable[[], figures.Gantt], alt: str) -> None:
    """A chart of timelines with its window, and what moves it."""
    gantt = gantt_of()
    figure = gantt.figure(_wanted(gantt.whole_us))
    low, high = (time * gantt.scale for time in figure.layout.xaxis.range)
    seen, whole_us = Window(max(0.0, low), min(high, gantt.whole_us)), gantt.whole_us
    moves = {  # with the keys of Perfetto
        "Earlier": (seen.moved(-STEP, whole_us), "a"),
        "Later": (seen.moved(STEP, whole_us), "d"),
        "Closer": (seen.zoomed(1 / ZOOM, whole_us), "w"),
        "Wider": (seen.zoomed(ZOOM, whole_us), "s"),
        "Reset": (None, "0"),
    }
    row = st.container(horizontal=True, gap="small")
    for label, (window, shortcut) in moves.items():
        row.button(label, key=f"{key}_{label}", on_click=_show, args=(window,), shortcut=shortcut)
    # No closure: Streamlit keeps the callback, and would keep the timelines with it
    show_figure(st, figure, key, alt, on_box=partial(_take_box, key, gantt.scale))


def _wanted(whole_us: float) -> tuple[float, float] | None:
    """The window that the address asks for; one that lies outside of the whole is told."""
    text = asked(WINDOW)
    window = Window.parse(text) if text else None
    if window is None or window.start_us < whole_us:
        return (window.start_us, window.end_us) if window else None
    end = figures.human_time(whole_us)
    st.warning(f"The window {shown(text)} lies behind the timelines, which end at {end}.")
    _show(None)
    return None


def _show(window: Window | None) -> None:
    """Make it the window of the page, unless it is too short to be seen."""
    if window is None or window.end_us - window.start_us >= SHORTEST_US:
        keep(WINDOW, str(window) if window else None)


def _take_box(key: str, scale: float) -> None:
    """Make the box that was drawn in a chart its window."""
    selection: Mapping[str, Any] = st.session_state[key]["selection"]
    for box in selection["box"]:
        first, last = sorted(box["x"])
        _show(Window(max(0.0, first * scale), last * scale))
