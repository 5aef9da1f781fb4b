"""What both pages need: when files changed, text as it is, tiles, number formats, widgets that the
address sets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import streamlit as st


def changed(*paths: Path) -> float:
    """When the last of these files changed, 0 for files that are not there."""
    return max((path.stat().st_mtime for path in paths if path.exists()), default=0.0)


def literal(text: object) -> str:
    """Text that came from a file or an address, so that Markdown shows it as it is."""
    return re.sub(r"([\\`*_~$<>\[\]{}:#])", r"\\\1", str(text))


def choose(place: Any, label: str, options: Sequence[str], key: str) -> str:
    """A selectbox that the address can set; an unknown value in the address is told, and the first
    option shown."""
    asked = st.query_params.get(key)
    if asked is not None and asked not in options and key not in st.session_state:
        st.warning(
            literal(
                f"The address asks for {key} {asked!r}, which is not recorded; this is {options[0]!r}."
            )
        )
    chosen: str = place.selectbox(label, options, key=key, bind="query-params")
    return chosen


def tile(place: Any, label: str, value: str, note: str = "", hint: str | None = None) -> None:
    place.metric(label, value, note or None, delta_color="off", delta_arrow="off", help=hint)


def decimals(columns: Iterable[str], form: str) -> dict[str, Any]:
    """Column settings that show numbers in one format."""
    return {column: st.column_config.NumberColumn(format=form) for column in columns}
