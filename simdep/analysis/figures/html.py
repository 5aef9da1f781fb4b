"""Pages: text, tables and figures in one self-contained HTML file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from simdep import files
from simdep.analysis.figures.bar_traces import (
    BAR_HEIGHT,
    MAX_NUMBERS,
    NUMBER_SHARE,
    SEAM_SHADE,
)
from simdep.analysis.figures.bars import MAX_BARS
from simdep.analysis.figures.colours import COLORS, CONFIG, DARK, LIGHT


@dataclass(frozen=True)
class Section:
    """A part of a page: a heading, then whatever of text, table and figure it has."""

    heading: str
    text: str = ""
    table: pd.DataFrame | None = None
    figure: go.Figure | None = None


def write_html(path: Path, title: str, sections: Iterable[Section]) -> None:
    """One self-contained page: all text escaped, plotly.js once. Raises InputError or RunError
    where the file can't be written."""
    body, drawn = [f"<h1>{escape(title)}</h1>"], 0
    for section in sections:
        body.append(f"<h2>{escape(section.heading)}</h2>")
        body.append(f"<p>{escape(section.text)}</p>" if section.text else "")
        if section.table is not None:
            body.append(_html_table(section.table))
        if section.figure is not None:
            body.append(_html_figure(section.figure, drawn))
            drawn += 1
    if drawn:
        body.append(_script())
    files.write(path, _PAGE.format(title=escape(title), body="\n".join(body)))


def _script() -> str:
    """The program of a page with figures, and what it has to know."""
    known = {
        "light": asdict(LIGHT),
        "dark": asdict(DARK),
        "maxBars": MAX_BARS,
        "maxNumbers": MAX_NUMBERS,
        "barHeight": BAR_HEIGHT,
        "colors": COLORS,
        "seamShade": SEAM_SHADE,
        "numberShare": NUMBER_SHARE,
    }
    program = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
    return (
        f'<script type="application/json" id="settings">{json.dumps(known)}</script>\n'
        f"<script>\n{program}</script>"
    )


def _html_figure(figure: go.Figure, number: int) -> str:
    """A figure as HTML; the first one of a page brings plotly.js."""
    div = figure.to_html(
        CONFIG, full_html=False, include_plotlyjs=number == 0, div_id=f"figure-{number}"
    )
    return f"<figure>{div}</figure>"


def _html_table(frame: pd.DataFrame) -> str:
    """An HTML table; numbers stand to the right."""
    marks = []
    for column in frame:
        numeric = pd.api.types.is_numeric_dtype(frame[column])
        marks.append(' class="number"' if numeric else "")
    rows = [_html_row("th", marks, map(str, frame))]
    for values in frame.itertuples(index=False, name=None):
        rows.append(_html_row("td", marks, map(_cell, values)))
    return '<div class="wide"><table>\n' + "\n".join(rows) + "\n</table></div>"


def _html_row(tag: str, marks: Iterable[str], texts: Iterable[str]) -> str:
    cells = [
        f"<{tag}{mark}>{escape(text)}</{tag}>" for mark, text in zip(marks, texts, strict=True)
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return format(value, ",.2f" if abs(value) >= 0.1 else ".3g")


_PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
:root {{
  color-scheme: light dark;
  font: 15px/1.5 "Open Sans", verdana, arial, sans-serif;
}}
body {{ max-width: 1280px; margin: 2rem auto; padding: 0 1.5rem; }}
p {{ max-width: 75ch }}
figure {{ margin: 1rem 0; }}
h1 {{ font-size: 1.7rem }}
h2 {{ font-size: 1.25rem; margin: 2.5rem 0 .6rem; break-after: avoid; }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .3em 1.5em .3em 0; text-align: left; border-bottom: 1px solid #8884 }}
.number {{ text-align: right }}
@media print {{
  body {{ margin: 0; }}
  .modebar {{ display: none; }}
  tr, figure {{ break-inside: avoid; }}
}}
</style>
{body}
</html>
"""
