"""Figures: timelines, errors and grids as Plotly figures, and pages of them as HTML.

Times come in as microseconds and are shown in the unit that the axis names; every timeline starts
at 0. This is the only package of simdep that needs Plotly: import it where a picture is asked for.
"""

from simdep.analysis.figures.agreement import agreement_scatter, makespan_scatter
from simdep.analysis.figures.bars import FIRST_BARS, MAX_BARS, Drawn
from simdep.analysis.figures.colours import COLORS, CONFIG, DARK, LIGHT, Theme, themed
from simdep.analysis.figures.gantt import Gantt, gantt_chart, human_time
from simdep.analysis.figures.heat import heat_map
from simdep.analysis.figures.html import Section, write_html
from simdep.analysis.figures.lines import line_chart

__all__ = [
    "COLORS",
    "CONFIG",
    "DARK",
    "FIRST_BARS",
    "LIGHT",
    "MAX_BARS",
    "Drawn",
    "Gantt",
    "Section",
    "Theme",
    "agreement_scatter",
    "gantt_chart",
    "heat_map",
    "human_time",
    "line_chart",
    "makespan_scatter",
    "themed",
    "write_html",
]
