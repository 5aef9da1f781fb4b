"""Predicted and measured: what `realrun validate` recorded, case by case. It reads files and never
runs a schedule.

Reading first, drawing last. A file that is missing or malformed raises ValueError, one sentence
that the page shows in place of what needs the file. Times are microseconds until they are drawn.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dashboard.widgets import changed, choose, decimals, literal, tile
from simdep import checks, files
from simdep.analysis import figures
from simdep.analysis import summary as report
from simdep.file_kinds import RESULT as RESULT_KIND
from simdep.hardware.profile import HardwareProfile, load_hardware
from simdep.schedule import Schedule
from simdep.timeline import Timeline
from simdep.traces.table import read_timeline

TITLE = "Predicted and measured"
TRACES = Path(__file__).resolve().parents[2] / "traces"
RESULT, PROFILE = "result.json", "profile.json"
RUN_FILES = (RESULT, PROFILE, "cases")  # a folder with any of them is a run
CASE_FILES = ("schedule.json", "predicted.csv", "measured.csv")
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
TASK_COLUMNS = {  # of report.task_errors, and what the table calls them
    "stream": "stream",
    "error_us": "error (µs)",
    "predicted_us": "simulated (µs)",
    "measured_us": "measured (µs)",
    "start_error_us": "start error (µs)",
    "predicted_start_us": "simulated start (µs)",
    "measured_start_us": "measured start (µs)",
    "predicted_end_us": "simulated end (µs)",
    "measured_end_us": "measured end (µs)",
}


# Reading: pure functions; what reads a file is cached by the file's name and the time of its last
# change.


def run_names(root: Path) -> list[str]:
    """Folders in `root` that hold a recorded run; raises ValueError if there are none."""
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder; give the one that holds the recorded runs")
    names = sorted(
        run.name for run in root.iterdir() if any((run / part).exists() for part in RUN_FILES)
    )
    if not names:
        raise ValueError(f"{root} holds no recorded run; make one with realrun validate")
    return names


@st.cache_data(max_entries=16, show_spinner=False)
def load_result(path: Path, when: float) -> dict[str, Any]:
    """A run's result with every schedule checked; raises ValueError that begins with the file's
    name."""
    if not path.exists():
        raise ValueError(f"{path} is missing; it holds the run's makespans")
    result = files.read_json(path, RESULT_KIND)
    with files.context(path, RESULT_KIND):
        if (
            not isinstance(result, dict)
            or not isinstance(result.get("schedules"), list)
            or not result["schedules"]
        ):
            raise ValueError("schedules is missing; a result lists at least one")
        for index, row in enumerate(result["schedules"]):
            check_row(row, f"schedules[{index}]")
    return dict(result)


def check_row(row: Any, where: str) -> None:
    """Raise ValueError, naming the field, unless `row` has the numbers that the page shows."""
    if not isinstance(row, Mapping):
        raise ValueError(f"{where}={row!r} is not a JSON object")
    checks.string(row.get("label"), f"{where}.label")
    interval = row.get("ci_us")
    if not isinstance(interval, list) or len(interval) != 2:
        raise ValueError(f"{where}.ci_us={interval!r}; it is a pair of microseconds")
    for key, value in (
        ("predicted_us", row.get("predicted_us")),
        ("measured_us", row.get("measured_us")),
    ):
        checks.number(value, f"{where}.{key}", above=0)
    for value in interval:
        checks.number(value, f"{where}.ci_us")
    error = row.get("error_pct")
    if not isinstance(error, int | float) or not math.isfinite(error):
        raise ValueError(f"{where}.error_pct={error!r}; expected a finite number")
    if "files" in row:
        checks.string(row["files"], f"{where}.files")


@st.cache_data(max_entries=16, show_spinner=False)
def load_case(folder: Path, when: float) -> tuple[Timeline, Timeline]:
    """The simulated and the measured timeline of a case; raises ValueError that begins with the
    file's name."""
    for name in CASE_FILES:
        if not (folder / name).is_file():
            raise ValueError(
                f"{folder / name} is missing; a recorded case has {', '.join(CASE_FILES)}"
            )
    schedule, predicted, measured = (folder / name for name in CASE_FILES)
    order = Schedule.load(schedule)
    return read_timeline(predicted, order, "sim"), read_timeline(measured, order, "real")


@st.cache_data(max_entries=16, show_spinner=False)
def load_profile(path: Path, when: float) -> HardwareProfile:
    """The hardware profile of a run; raises ValueError that names the file."""
    if not path.is_file():
        raise ValueError(f"{path} is missing; it holds the costs that the simulation used")
    return load_hardware(str(path))


def recorded(rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The schedules whose timelines were recorded, by number, label and workload."""
    return {
        f"{Path(row['files']).name}: {row['label']}, {workload(row)}": row
        for row in rows
        if "files" in row
    }


def workload(row: Mapping[str, Any]) -> str:
    """Such as `deepseek-v2-lite@0.25, 2 layers, m_a=4, seq_len=128, 1+1 ranks`: what the schedule
    worked on."""
    scale = row.get("scale", 1)
    parts = [str(row.get("model", "model not known")) + (f"@{scale}" if scale != 1 else "")]
    parts += [f"{row['layers']} layers"] if "layers" in row else []
    parts += [f"{key}={row[key]}" for key in ("m_a", "seq_len") if key in row]
    parts += [f"{row['ag']}+{row['eg']} ranks"] if "ag" in row and "eg" in row else []
    return ", ".join(parts)


def makespans(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A row a schedule: the columns that `figures.makespan_scatter` draws, and the workload."""
    table = pd.DataFrame(rows)[["label", "predicted_us", "measured_us", "error_pct"]]
    low, high = zip(*(row["ci_us"] for row in rows), strict=True)
    return table.assign(ci_low_us=low, ci_high_us=high, workload=list(map(workload, rows)))


def tasks(predicted: Timeline, measured: Timeline) -> pd.DataFrame:
    """Simulated and measured, task by task, by the size of the difference of duration."""
    table = report.task_errors(predicted, measured)
    for word in ("predicted", "measured"):
        table[f"{word}_end_us"] = table[f"{word}_start_us"] + table[f"{word}_us"]
    biggest = table["error_us"].abs().sort_values(ascending=False, kind="stable").index
    return table.loc[biggest, list(TASK_COLUMNS)].rename(columns=TASK_COLUMNS)


def costs(profile: HardwareProfile) -> pd.DataFrame:
    """Every cost of a profile with its origin."""
    return pd.DataFrame(
        {
            "operation": cost.op,
            "ranks": f"{cost.ag}+{cost.eg}" if cost.ag else "any",
            "alpha (µs)": cost.alpha_us,
            "beta (µs per unit of work)": cost.beta_us,
            "R²": cost.fit.r2 if cost.fit else None,
            "label": cost.label,
            "source": cost.source,
            "shape": cost.shape or "any",
        }
        for cost in profile.costs
    )


def environment(values: Mapping[str, Any]) -> pd.DataFrame:
    """What a run was measured on, as text."""
    texts = [value if isinstance(value, str) else json.dumps(value) for value in values.values()]
    return pd.DataFrame({"what": list(values), "value": texts})


# Drawing.


def main() -> None:
    st.title(TITLE)
    left, middle, right = st.columns([2, 5, 3])
    root = Path(
        right.text_input(
            "Folder of recorded runs", os.environ.get("SIMDEP_TRACES", str(TRACES)), key="traces"
        )
    )
    try:
        run = root / choose(left, "Run", run_names(root), "run")
        result = load_result(run / RESULT, changed(run / RESULT))
    except ValueError as error:
        st.error(literal(error))
        return
    cases = recorded(result["schedules"])
    if cases:
        draw_case(run, cases[choose(middle, "Case", list(cases), "case")])
    else:
        st.info("No timelines were recorded with this run, only makespans.")
    draw_run(result)
    draw_origin(run, result)


def draw_case(run: Path, row: Mapping[str, Any]) -> None:
    folder = run / row["files"]
    try:
        predicted, measured = load_case(folder, changed(*(folder / name for name in CASE_FILES)))
    except ValueError as error:
        st.error(literal(error))
        return
    draw_numbers(row, predicted, measured)
    st.plotly_chart(
        figures.gantt_chart(predicted, measured),
        key="gantt",
        config=figures.CONFIG,
        alt=f"Gantt chart of {row['label']}, simulated above measured in every stream",
    )
    st.caption(
        "The measured timeline is that of the repetition whose makespan is nearest to the median."
    )
    st.subheader("Task by task")
    st.caption(
        "Errors are simulated minus measured; the biggest error of a duration is first. A task spans its ranks."
    )
    table = tasks(predicted, measured)
    st.dataframe(table, column_config=decimals(table.columns[1:], "%.1f"))


def draw_numbers(row: Mapping[str, Any], predicted: Timeline, measured: Timeline) -> None:
    low, high = (figures.human_time(us) for us in row["ci_us"])
    difference = row["predicted_us"] - row["measured_us"]
    apart = f"{figures.human_time(abs(difference))} {'longer' if difference > 0 else 'shorter'}"
    simulated, real = report.streams(predicted), report.streams(measured)
    places = iter(st.columns([4, 5, 4, *(3 for _ in real)]))
    tile(
        next(places),
        "Makespan, simulated",
        figures.human_time(row["predicted_us"]),
        "from the profile's costs",
    )
    tile(
        next(places),
        "Makespan, measured",
        figures.human_time(row["measured_us"]),
        f"95 %: {low} to {high}",
    )
    tile(next(places), "Error of the simulation", f"{row['error_pct']:+.1f} %", apart)
    for stream in real:
        shares = [f"{100 * times[stream]['busy_fraction']:.1f} %" for times in (real, simulated)]
        tile(next(places), f"{stream} busy, measured", shares[0], f"simulated {shares[1]}")


def draw_run(result: Mapping[str, Any]) -> None:
    table = makespans(result["schedules"])
    st.subheader(f"All {len(table)} schedules of the run")
    for place, (key, (label, form, hint)) in zip(
        st.columns(len(STATISTICS)), STATISTICS.items(), strict=True
    ):
        value = result.get(key)
        known = isinstance(value, int | float) and math.isfinite(value)
        tile(place, label, form.format(value) if known else "not known", hint=hint)
    left, right = st.columns(2)
    alt = "Simulated against measured makespan of every schedule, with the diagonal"
    points = figures.makespan_scatter(table.assign(label=table["label"] + ", " + table["workload"]))
    left.plotly_chart(points, key="errors", config=figures.CONFIG, alt=alt)
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


def draw_origin(run: Path, result: Mapping[str, Any]) -> None:
    st.subheader("Where the numbers come from")
    known = result.get("environment")
    created = {"created": result["created"]} if "created" in result else {}
    st.caption("Measured: the machine and the software that ran the schedules.")
    table = environment(created | known if isinstance(known, dict) else created)
    st.dataframe(
        table, column_config={"what": st.column_config.Column(width="small")}, hide_index=True
    )
    try:
        profile = load_profile(run / PROFILE, changed(run / PROFILE))
    except ValueError as error:
        st.error(literal(error))
        return
    st.caption(
        literal(
            f"Simulated: the costs of hardware profile {profile.name}, microseconds = alpha + beta * work."
        )
    )
    table = costs(profile)
    st.dataframe(table, column_config=decimals(table.columns[2:5], "%.4g"), hide_index=True)


main()
