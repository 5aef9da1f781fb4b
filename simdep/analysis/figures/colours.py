"""How figures look: the colour of each kind of task, and what all figures have in common."""

from __future__ import annotations

# Paul Tol's bright scheme: distinct under the common colour-vision deficiencies.
COLORS = {
    "attention": "#4477aa",
    "shared": "#aa3377",
    "a2e": "#ccbb44",
    "expert": "#228833",
    "e2a": "#ee6677",
    "projection": "#66ccee",
    "core": "#225588",
}
CONFIG = {"displaylogo": False, "modeBarButtonsToRemove": ["sendChartToCloud"], "responsive": True}
# Greys that can be seen on light and on dark paper
CLEAR = "rgba(128,128,128,0)"
FAINT = "rgba(128,128,128,0.14)"
GREY = "rgba(128,128,128,1)"
LEGEND = {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "itemsizing": "constant"}
LOOK = {
    "template": "plotly_white",
    "paper_bgcolor": CLEAR,
    "plot_bgcolor": CLEAR,
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
AXIS = {"gridcolor": FAINT, "zeroline": False}
