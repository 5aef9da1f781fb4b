"""Predicted and measured: what `realrun validate` recorded, case by case.

What can't be read is told in one sentence, in place of what needs it. Times are microseconds until
they are drawn.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import runs
from dashboard.address import FormField, asked, tell_unknown
from dashboard.form import draw
from dashboard.runs import CASE_FILES, PROFILE_FILE, RESULT_FILE, RecordedCase, RunResult
from dashboard.server_files import check_name, may_name_files
from dashboard.widgets import changed, decimals, literal, show_figure, tile
from dashboard.window import WINDOW, draw_chart
from simdep.analysis import figures
from simdep.analysis.summary import streams
from simdep.checks import InputError, sentence, shown
from simdep.scenario.field import Text
from simdep.timeline import Timeline

TRACES = Path(__file__).resolve().parents[2] / "traces"
FOLDER = FormField(
    "traces",
    Text(
        name="traces",
        table="",
        label="Folder of recorded runs",
        help="a folder of the server",
        otherwise="that of the server",
    ),
)
STATISTICS = {  # of a run: label, format, explanation
    "median_abs_error_pct": (
        "Error, median",
        "{:.1f} %",
        "Half of the schedules have a smaller absolute error.",
    ),
    "p95_abs_error_pct": (
        "Error, 95th percentile",
        "{:.1f} %",
        "19 of 20 schedules have a smaller absolute error.",
    ),
    "spearman": (
        "Rank correlation",
        "{:.3f}",
        "Spearman, of simulated and measured makespans; 1 is the same order.",
    ),
    "regret_pct": (
        "Regret",
        "{:.1f} %",
        "How much slower than the really best schedule the one simulated as best is.",
    ),
}


@dataclass(frozen=True, kw_only=True)
class _Recorded(Text):
    """A name of something recorded; those that are known are the options of its widget."""

    def check(self, value: Any) -> str:
        raise InputError(f"{shown(value)} is not recorded")


def main() -> None:
    st.title("Predicted and measured")
    tell_unknown({FOLDER.key, WINDOW.key, "run", "case"})
    left, middle, right = st.columns([2, 5, 3])
    try:
        root = folder_of_runs(right)
        folder = root / choose(left, "Run", runs.run_names(root))
        result = folder / RESULT_FILE
        run = runs.read_run(result, changed(result))
    except ValueError as error:
        st.error(literal(sentence(error)))
        return
    cases = {case.title: case for case in run.cases if case.folder}
    if cases:
        draw_case(folder, cases[choose(middle, "Case", list(cases))])
    else:
        st.info("No timelines were recorded with this run, only makespans.")
    draw_run(run)
    draw_costs(folder, run)


def folder_of_runs(place: Any) -> Path:
    """The folder that the server was started with, or the one that the reader asks for."""
    asked_for = draw(place, FOLDER) if may_name_files() else asked(FOLDER)
    if asked_for is None:
        return Path(os.environ.get("SIMDEP_TRACES", str(TRACES)))
    check_name(FOLDER.key, f"{asked_for}{os.sep}")
    return Path(asked_for)


def choose(place: Any, label: str, options: Sequence[str]) -> str:
    """One of what is recorded."""
    declared = _Recorded(
        name=label.lower(), table="", label=label, help=f"a recorded {label.lower()}"
    )
    chosen: str = draw(place, FormField(declared.name, declared, options[0], tuple(options)))
    return chosen


def draw_case(run: Path, case: RecordedCase) -> None:
    folder = run / str(case.folder)
    try:
        timelines = runs.read_case(folder, changed(*(folder / name for name in CASE_FILES)))
    except ValueError as error:
        st.error(literal(sentence(error)))
        return
    draw_makespans(case, timelines.predicted, timelines.measured)
    alt = f"Gantt chart of {case.label}, simulated above measured in every stream"
    draw_chart("gantt", lambda: timelines.gantt, alt)
    st.caption("The measured timeline is that of the run whose makespan is nearest to the median.")
    st.subheader("Task by task")
    st.caption(
        "Errors are simulated minus measured; the biggest error of a duration is first. "
        "A task spans its ranks."
    )
    table = runs.task_table(timelines.predicted, timelines.measured)
    st.dataframe(table, column_config=decimals(table.columns[1:], "%.1f"))


def draw_makespans(case: RecordedCase, predicted: Timeline, measured: Timeline) -> None:
    low, high = (figures.human_time(us) for us in case.ci_us)
    difference = case.predicted_us - case.measured_us
    apart = f"{figures.human_time(abs(difference))} {'longer' if difference > 0 else 'shorter'}"
    simulated, real = streams(predicted), streams(measured)
    columns = iter(st.columns([4, 5, 4, *(3 for _ in real)]))
    makespan = figures.human_time(case.predicted_us)
    tile(next(columns), "Makespan, simulated", makespan, "from the profile's costs")
    makespan = figures.human_time(case.measured_us)
    tile(next(columns), "Makespan, measured (median)", makespan, f"95 %: {low} to {high}")
    tile(next(columns), "Error of the simulation", f"{case.error_pct:+.1f} %", apart)
    for stream in real:
        busy = f"{100 * real[stream]['busy_fraction']:.1f} %"
        simulated_busy = f"simulated {100 * simulated[stream]['busy_fraction']:.1f} %"
        tile(next(columns), f"{stream} busy, measured", busy, simulated_busy)


def draw_run(run: RunResult) -> None:
    table = runs.makespan_table(run.cases)
    st.subheader(f"All {len(table)} schedules of the run")
    columns = st.columns(len(STATISTICS))
    for column, (key, (label, form, hint)) in zip(columns, STATISTICS.items(), strict=True):
        value = run.statistics[key]
        tile(column, label, "not known" if value is None else form.format(value), hint=hint)
    left, right = st.columns(2)
    show_figure(
        left,
        figures.makespan_scatter(table.assign(label=table["label"] + ", " + table["workload"])),
        "errors",
        "Simulated against measured makespan of every schedule, with the diagonal",
    )
    shown = pd.DataFrame(
        {
            "schedule": table["label"],
            "error (%)": table["error_pct"],
            "simulated (ms)": table["predicted_us"] / 1e3,
            "measured (ms)": table["measured_us"] / 1e3,
            "workload": table["workload"],
        }
    )
    height = min(600, 38 + 35 * len(shown))  # no empty lines under a few schedules
    right.dataframe(
        shown, column_config=decimals(shown.columns[1:4], "%.2f"), hide_index=True, height=height
    )


def draw_costs(folder: Path, run: RunResult) -> None:
    st.subheader("Where the numbers come from")
    st.caption("Measured: the machine and the software that ran the schedules.")
    st.dataframe(
        runs.environment_table(run.environment),
        column_config={"what": st.column_config.Column(width="small")},
        hide_index=True,
    )
    path = folder / PROFILE_FILE
    try:
        profile = runs.read_profile(path, changed(path))
    except ValueError as error:
        st.error(literal(sentence(error)))
        return
    st.caption(
        literal(
            f"Simulated: the costs of hardware profile {profile.name}, "
            "microseconds = alpha + beta * work."
        )
    )
    table = runs.cost_table(profile)
    st.dataframe(table, column_config=decimals(table.columns[2:5], "%.4g"), hide_index=True)


main()
