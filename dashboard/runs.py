"""Recorded runs: what `realrun validate` left in a folder, read and checked.

Nothing is simulated here. A file that is missing, malformed, too large for a page or outside of the
folder of its run raises InputError, one sentence that begins with its name. What reads a file is
cached by its name and the time of its last change; a cache is bounded by the bytes that it holds.
Times are microseconds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from dashboard.caches import keep_bytes, keep_last
from simdep import checks, files
from simdep.analysis import figures
from simdep.analysis.summary import task_errors
from simdep.checks import InputError
from simdep.file_kinds import RESULT
from simdep.hardware.profile import HardwareProfile, load_hardware
from simdep.schedule import Schedule
from simdep.timeline import Timeline
from simdep.traces.table import read_timeline
from simdep.units import human_bytes

RESULT_FILE, PROFILE_FILE = "result.json", "profile.json"
RUN_FILES = (RESULT_FILE, PROFILE_FILE, "cases")  # a folder with any of them is a run
MAX_FILE_BYTES = 16 * 2**20  # a page reads as much within two seconds
MAX_CACHED_BYTES = 100 * 10**6
CASE_FILES = ("schedule.json", "predicted.csv", "measured.csv")
STATISTIC_KEYS = ("median_abs_error_pct", "p95_abs_error_pct", "spearman", "regret_pct")
TASK_COLUMNS = {  # of a comparison task by task, and what the page calls them
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


@dataclass(frozen=True)
class RecordedCase:
    """A schedule of a run: its makespans with the interval of the measured one, and the folder of
    its timelines, where these were recorded."""

    label: str
    workload: str
    predicted_us: float
    measured_us: float
    ci_us: tuple[float, float]
    error_pct: float
    folder: str | None

    @property
    def title(self) -> str:
        """Number, label and workload."""
        return f"{Path(self.folder or '').name}: {self.label}, {self.workload}"


@dataclass(frozen=True)
class RunResult:
    """All schedules of a run, its statistics as far as they are known, and what it was measured
    on."""

    cases: tuple[RecordedCase, ...]
    statistics: Mapping[str, float | None]
    environment: Mapping[str, Any]

    @property
    def nbytes(self) -> int:
        """Bytes that it holds at most, as measured: 2 kB a case."""
        return 2000 * len(self.cases)


@dataclass(frozen=True)
class CaseTimelines:
    """The timelines of a recorded case: simulated, and measured in the run that is typical."""

    predicted: Timeline
    measured: Timeline

    @property
    def nbytes(self) -> int:
        return self.predicted.nbytes + self.measured.nbytes

    @cached_property
    def gantt(self) -> figures.Gantt:
        """Both on one time axis."""
        return figures.Gantt.of(self.predicted, self.measured)


def run_names(root: Path) -> list[str]:
    """Folders in `root` that hold a recorded run; raises InputError if there are none."""
    if not os.path.isdir(root):  # unlike Path.is_dir, it takes any text
        raise InputError(f"{root} is not a folder; give the one that holds the recorded runs")
    try:
        names = sorted(folder.name for folder in root.iterdir() if _is_run(folder))
    except OSError as error:
        raise InputError(f"{root} can't be read: {error.strerror}") from None
    if not names:
        raise InputError(f"{root} holds no recorded run; make one with realrun validate")
    return names


def _is_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in RUN_FILES)


@keep_bytes(MAX_CACHED_BYTES)
def read_run(path: Path, changed: float) -> RunResult:
    """The run of a result.json."""
    if not path.exists():
        raise InputError(f"{path} is missing; it holds the run's makespans")
    _check_size(path)
    result = files.read_json(path, RESULT)
    with files.context(path, RESULT):
        rows = result.get("schedules") if isinstance(result, dict) else None
        if not isinstance(rows, list) or not rows:
            raise InputError("schedules is missing; a result lists at least one")
        cases = []
        for index, row in enumerate(rows):
            cases.append(_case(row, f"schedules[{index}]", path.parent))
    statistics = {key: _number_or_none(result.get(key)) for key in STATISTIC_KEYS}
    environment = {"created": result["created"]} if "created" in result else {}
    if isinstance(result.get("environment"), dict):
        environment |= result["environment"]
    return RunResult(tuple(cases), statistics, environment)


def _case(row: Any, place: str, run: Path) -> RecordedCase:
    """A schedule of the result of a run; raises InputError that names the field at fault."""
    if not isinstance(row, Mapping):
        raise InputError(f"{place}={checks.shown(row)}; expected a JSON object")
    interval = row.get("ci_us")
    if not isinstance(interval, list) or len(interval) != 2:
        raise InputError(f"{place}.ci_us={checks.shown(interval)}; expected a pair of microseconds")
    low, high = (checks.number(us, f"{place}.ci_us") for us in interval)
    folder = row.get("files")
    if folder is not None:
        folder = _inside(run, checks.string(folder, f"{place}.files"), f"{place}.files")
    return RecordedCase(
        label=checks.string(row.get("label"), f"{place}.label"),
        workload=_workload(row),
        predicted_us=checks.number(row.get("predicted_us"), f"{place}.predicted_us", above=0),
        measured_us=checks.number(row.get("measured_us"), f"{place}.measured_us", above=0),
        ci_us=(low, high),
        error_pct=checks.finite(row.get("error_pct"), f"{place}.error_pct"),
        folder=folder,
    )


def _inside(run: Path, name: str, place: str) -> str:
    """The name of a folder within that of a run; raises InputError for one that leads out of it,
    by a link as well."""
    home = run.resolve()
    if not (home / name).resolve().is_relative_to(home):
        raise InputError(f"{place}={checks.shown(name)}; expected a folder within that of the run")
    return name


def _check_size(path: Path) -> None:
    """Raise InputError for a file that takes a page too long to read."""
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise InputError(
            f"{path} has {human_bytes(size)}; a page reads at most {human_bytes(MAX_FILE_BYTES)}"
        )


def _workload(row: Mapping[str, Any]) -> str:
    """Such as `deepseek-v2-lite@0.25, 2 layers, m_a=4, seq_len=128, 1+1 ranks`: what the schedule
    worked on."""
    parts = [str(row.get("model", "model not known"))]
    if row.get("scale", 1) != 1:
        parts[0] += f"@{row['scale']}"
    if "layers" in row:
        parts.append(f"{row['layers']} layers")
    parts += [f"{key}={row[key]}" for key in ("m_a", "seq_len") if key in row]
    if "ag" in row and "eg" in row:
        parts.append(f"{row['ag']}+{row['eg']} ranks")
    return ", ".join(parts)


def _number_or_none(value: Any) -> float | None:
    try:
        return checks.finite(value, "statistic")
    except InputError:
        return None


@keep_bytes(MAX_CACHED_BYTES)
def read_case(folder: Path, changed: float) -> CaseTimelines:
    """The timelines of a case."""
    for name in CASE_FILES:
        if not (folder / name).is_file():
            rule = f"a recorded case has {', '.join(CASE_FILES)}"
            raise InputError(f"{folder / name} is missing; {rule}")
        _check_size(folder / name)
    schedule, predicted, measured = (folder / name for name in CASE_FILES)
    order = Schedule.load(schedule)
    return CaseTimelines(
        read_timeline(predicted, order, "sim"), read_timeline(measured, order, "real")
    )


@keep_last(4)
def read_profile(path: Path, changed: float) -> HardwareProfile:
    """The hardware profile of a run."""
    if not path.is_file():
        raise InputError(f"{path} is missing; it holds the costs that the simulation used")
    _check_size(path)
    return load_hardware(str(path))


def makespan_table(cases: Sequence[RecordedCase]) -> pd.DataFrame:
    """A row a schedule: the columns that `figures.makespan_scatter` draws, and the workload."""
    return pd.DataFrame(
        {
            "label": case.label,
            "predicted_us": case.predicted_us,
            "measured_us": case.measured_us,
            "error_pct": case.error_pct,
            "ci_low_us": case.ci_us[0],
            "ci_high_us": case.ci_us[1],
            "workload": case.workload,
        }
        for case in cases
    )


def task_table(predicted: Timeline, measured: Timeline) -> pd.DataFrame:
    """Simulated and measured, task by task, by the size of the difference of duration."""
    table = task_errors(predicted, measured)
    for source in ("predicted", "measured"):
        table[f"{source}_end_us"] = table[f"{source}_start_us"] + table[f"{source}_us"]
    biggest = table["error_us"].abs().sort_values(ascending=False, kind="stable").index
    return table.loc[biggest, list(TASK_COLUMNS)].rename(columns=TASK_COLUMNS)


def cost_table(profile: HardwareProfile) -> pd.DataFrame:
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


def environment_table(environment: Mapping[str, Any]) -> pd.DataFrame:
    """What a run was measured on, as text."""
    texts = [
        value if isinstance(value, str) else json.dumps(value) for value in environment.values()
    ]
    return pd.DataFrame({"what": list(environment), "value": texts})
