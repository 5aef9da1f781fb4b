"""How figures look: the colour of each kind of task, two themes, and what all figures have in
common."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

# Seven hues of much the same lightness: each has a contrast of 3 : 1 and more to white and to dark
# paper, and black text on it one of 4.5 : 1 and more.
COLORS = {
    "attention": "#3f7cc0",
    "shared": "#a855b5",
    "a2e": "#a8800f",
    "expert": "#2a8f45",
    "e2a": "#dd5566",
    "projection": "#1f8ea3",
    "core": "#6f6ad0",
}
INK = "#000000"  # of text on these colours
# From the best to the worst: INK can be read on all of it
SCALE = ("#3f7cc0", "#cfe0f3")
CONFIG = {"displaylogo": False, "modeBarButtonsToRemove": ["sendChartToCloud"], "responsive": True}
# Greys that can be seen on light and on dark paper
CLEAR = "rgba(128,128,128,0)"
FAINT = "rgba(128,128,128,0.14)"
GREY = "rgba(128,128,128,1)"


@dataclass(frozen=True)
class Theme:
    """The colours of paper and text."""

    paper: str
    text: str


LIGHT = Theme("#ffffff", "#31333f")
DARK = Theme("#0e1117", "#fafafa")
LEGEND = {"orientation": "h", "x": 0, "yanchor": "top", "itemsizing": "constant"}
LOOK = {
    "template": "none",
    "paper_bgcolor": LIGHT.paper,
    "plot_bgcolor": CLEAR,
    "font": {"color": LIGHT.text},
    "hoverlabel_align": "left",
    "hovermode": "closest",
    "modebar": {
        "bgcolor": CLEAR,
        "color": GREY,
        "activecolor": COLORS["attention"],
        "remove": ["lasso2d", "select2d"],
    },
    "legend": LEGEND,
}
AXIS = {"gridcolor": FAINT, "zeroline": False, "automargin": True}


def themed(figure: go.Figure, theme: Theme) -> go.Figure:
    """The figure on the paper of a theme. Paper is opaque, so that a downloaded picture can be read
    on any page."""
    return figure.update_layout(paper_bgcolor=theme.paper, font_color=theme.text)
