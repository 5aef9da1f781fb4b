"""What the pages need to draw: text as it is, tiles, figures, number formats, and when files
changed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from simdep.analysis import figures


def changed(*paths: Path) -> float:
    """When the last of these files changed, 0 for files that are not there."""
    return max(map(_changed, paths), default=0.0)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except (OSError, ValueError):  # there is none, or its name is not one of a file
        return 0.0


def literal(text: object) -> str:
    """Text that came from a file or an address, so that Markdown shows it as it is."""
    return re.sub(r"([\\`*_~$<>\[\]{}:#])", r"\\\1", str(text))


def tile(place: Any, label: str, value: str, note: str = "", hint: str | None = None) -> None:
    place.metric(label, value, note or None, delta_color="off", delta_arrow="off", help=hint)


def page_theme() -> figures.Theme:
    """The theme that the visitor sees."""
    return figures.DARK if st.context.theme.type == "dark" else figures.LIGHT


def show_figure(
    place: Any,
    figure: go.Figure,
    key: str,
    alt: str,
    on_box: Callable[[], None] | None = None,
) -> None:
    """Draw a figure in the theme of the page; `alt` says what it shows to those who can't see it,
    and `on_box` is called when a box is drawn in it."""
    settings: dict[str, Any] = {"key": key, "config": figures.CONFIG, "alt": alt, "theme": None}
    if on_box is not None:
        figure.update_layout(dragmode="select", selectdirection="h")
        settings |= {"on_select": on_box, "selection_mode": "box"}
    place.plotly_chart(figures.themed(figure, page_theme()), **settings)


def decimals(columns: Iterable[str], form: str) -> dict[str, Any]:
    """Column settings that show numbers in one format."""
    return {column: st.column_config.NumberColumn(format=form) for column in columns}
