"""What a validation leaves behind: the table and sentence that it prints, the run folder with its
files, and the report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from realrun.validation.decomposition import DISTINCT_PCT
from realrun.validation.evaluate import UNSTABLE_PCT, Evidence
from realrun.validation.trial import Trial
from simdep import files
from simdep.analysis import figures
from simdep.analysis.summary import task_errors
from simdep.hardware.profile import HardwareProfile
from simdep.traces.export import save_timelines

_PARTS = (
    "Parts of the makespan error in percent of the makespan; they sum to it, schedule by schedule. "
    "Tasks: durations of computation. Link: durations of transfers. Host: what passes before "
    "computations that need not wait, and before transfers. Waits: what passes between an arrival "
    "and the computation that waited for it. Rest: skew of ranks, and the distance of the run that "
    "was examined from the median."
)
_REPLAY = (
    "Own task times test the structure alone; a foreign calibration shows what a stale profile "
    "does."
)
_TERMS = "Errors of the model without it."
_POWER = (
    "Structural errors of models with one thing wrong, on the same measured task times and on the "
    "schedules that can tell: those for which the two models predict makespans over "
    f"{DISTINCT_PCT:g} % apart. A wrong model is rejected if its errors are larger than the right "
    "one's (one-sided Wilcoxon signed-rank test, p < 0.01)."
)
_INTERFERENCE = (
    "Mean and 95 % interval. Slow-down: time of a product while both directions are busy over that "
    "alone. Contention is the share of speed that the model lets one transfer take; 0 where the "
    "interval holds 0."
)
_DRIFT = (
    "By round: makespans relative to the median of their schedule, and a fixed loop that every "
    "rank runs before and after each run."
)
_HALVES = "Difference of the points of the first and of the second half of the rounds."


def write_report(folder: Path, evidence: Evidence, result: dict[str, Any]) -> None:
    """Write result.json, profile.json, report.html and, for each case, schedule, both timelines and
    a trace."""
    evidence.profile.save(folder / "profile.json")
    by_error = np.argsort([abs(row["error_pct"]) for row in result["schedules"]])
    shown = {int(by_error[len(by_error) // 2]): "typical error", int(by_error[-1]): "largest error"}
    drawn: list[figures.Section] = []
    for index, trial in enumerate(evidence.trials):
        row = result["schedules"][index]
        row["files"] = f"cases/{index:03d}"
        _write_case(folder / row["files"], trial)
        if index in shown:
            title = f"{row['label']}: {shown[index]} ({row['error_pct']:+.1f} %)"
            drawn += _timelines(title, trial)
    files.write(folder / "result.json", json.dumps(result, indent=1) + "\n")
    sections = [*_statistics(result), *drawn, *_origins(evidence.profile)]
    figures.write_html(folder / "report.html", "simdep: predicted against measured", sections)


def _write_case(folder: Path, trial: Trial) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    trial.case.schedule.save(folder / "schedule.json")
    save_timelines(folder / "predicted.csv", trial.predicted)
    save_timelines(folder / "measured.csv", trial.typical)
    save_timelines(folder / "trace.json.gz", trial.predicted, trial.typical)


def _timelines(title: str, trial: Trial) -> Iterable[figures.Section]:
    by_kind = task_errors(trial.predicted, trial.typical).groupby("kind", sort=False)
    means = by_kind[["predicted_us", "measured_us"]].mean().round(1).reset_index()
    yield figures.Section(title, figure=figures.gantt_chart(trial.predicted, trial.typical))
    yield figures.Section("Mean task times (us)", table=means)


def _statistics(result: dict[str, Any]) -> Iterable[figures.Section]:
    summary = summary_text(result)
    yield figures.Section("Predicted against measured", summary, figure=_scatter(result))
    yield figures.Section("By shape and link", table=flat(map(_without_ranks, result["by_group"])))
    parts = [{"part": name, **row} for name, row in result["parts"].items()]
    yield figures.Section("Where the error comes from", _PARTS, flat(parts))
    title = "Replay: the same runs, costs from elsewhere"
    yield figures.Section(title, _REPLAY, flat(result["replay"]))
    yield figures.Section("What each host overhead buys", _TERMS, flat(result["terms"]))
    title = "Power: does the data reject wrong models?"
    yield figures.Section(title, _POWER, flat(result["power"]))
    if result["interference"]:
        title = "Interference: computation beside transfers"
        yield figures.Section(title, _INTERFERENCE, flat(result["interference"]))
    if result["link_speeds"]:
        yield figures.Section("What the link achieves", table=flat(result["link_speeds"]))
    yield figures.Section("Drift", _DRIFT, flat(result["drift"]))
    if result["calibration_halves"]:
        rows = flat(result["calibration_halves"])
        yield figures.Section("Stability of the calibration", _HALVES, rows)
    yield figures.Section("Schedules", table=table_of(result))


def _without_ranks(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row on one group without what only several groups have."""
    dropped = ("spearman_in_group", "regret_max_pct")
    return {key: value for key, value in row.items() if key not in dropped}


def _origins(profile: HardwareProfile) -> Iterable[figures.Section]:
    yield figures.Section("Calibration", table=costs_table(profile))
    environment = pd.DataFrame(profile.environment.items(), columns=["what", "value"]).astype(str)
    yield figures.Section("Environment", table=environment)


def flat(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of nested results as a table to read: `a: {b: 1}` is column "a b", intervals and numbers
    are short texts."""
    return pd.DataFrame([dict(_cells(row)) for row in rows], dtype=object)


def _cells(row: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in row.items():
        name = f"{prefix} {key}".strip().replace("_", " ").replace(" pct", " %")
        if isinstance(value, Mapping):
            yield from _cells(value, name)
        else:
            yield name, _text(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        low, *middle, high = (f"{number:.3g}" for number in value)
        return f"{middle[0]} ({low} .. {high})" if middle else f"{low} .. {high}"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) > 1e-6 else "0"
    return str(value)


def table_of(result: dict[str, Any]) -> pd.DataFrame:
    """The schedules of a result as a table to read; times in milliseconds."""
    return pd.DataFrame([_schedule_row(row) for row in result["schedules"]])


def _schedule_row(row: Mapping[str, Any]) -> dict[str, Any]:
    scale = f"@{row['scale']:g}" if row["scale"] != 1 else ""
    low, high = row["ci_us"]
    return {
        "model": row["model"] + scale,
        "ranks": f"{row['ag']}+{row['eg']}",
        "MB/s": f"{row['link_mbytes_per_s']:g}",
        "schedule": row["label"],
        "m_a": row["m_a"],
        "seq": row["seq_len"],
        "predicted ms": round(row["predicted_us"] / 1e3, 2),
        "measured ms": round(row["measured_us"] / 1e3, 2),
        "95 % interval": f"{low / 1e3:.2f} .. {high / 1e3:.2f}",
        "error %": round(row["error_pct"], 1),
        "adjusted %": round(row["adjusted_error_pct"], 2),
        "structural %": round(row["structural_error_pct"], 2),
    }


def summary_text(result: dict[str, Any]) -> str:
    """The statistics in one paragraph."""
    correlation = "n/a" if result["spearman"] is None else f"{result['spearman']:.3f}"
    regret = "n/a" if result["regret_pct"] is None else f"{result['regret_pct']:.1f} %"
    raw = {
        "median_abs_pct": result["median_abs_error_pct"],
        "p95_abs_pct": result["p95_abs_error_pct"],
    }
    sizes = {
        "raw": raw,
        "speed-adjusted": result["adjusted"],
        "structural": result["structural"],
        "test-retest noise of the measurement": result["noise"],
    }
    errors = []
    for name, size in sizes.items():
        errors.append(f"{name} {size['median_abs_pct']:.2f} and {size['p95_abs_pct']:.2f} %")
    pairs, runs = result["pairs"], result["disturbed_runs"]
    return (
        f"{len(result['schedules'])} schedules. Makespan error, median and 95th percentile: "
        f"{'; '.join(errors)}. Bias {result['bias_pct']:+.1f} %. Rank correlation (Spearman) "
        f"{correlation}. Of {pairs['told_apart']} pairs that the measurement distinguishes, "
        f"{pairs['ordered_wrongly']} are ordered wrongly. Regret of the predicted best {regret}. "
        f"{runs['rejected']} of {runs['of']} runs were disturbed and rejected."
        f"{_instability(result)}"
    )


def _instability(result: dict[str, Any]) -> str:
    """A warning where halves of the measurement differ; else nothing."""
    halves = [row["halves_pct"] for row in result["calibration_halves"]]
    unsteady = sum(pct > UNSTABLE_PCT for pct in halves)
    noise = result["noise"]["median_abs_pct"]
    if noise <= UNSTABLE_PCT and not unsteady:
        return ""
    return (
        f" The machine is unstable: halves of the measurement differ by {noise:.1f} % (median of "
        f"schedules), and by over {UNSTABLE_PCT:g} % in {unsteady} of {len(halves)} calibrated "
        "costs."
    )


def costs_table(profile: HardwareProfile) -> pd.DataFrame:
    """The costs of a profile as a table to read."""
    rows = []
    for cost in profile.costs:
        ranks = f"{cost.ag}+{cost.eg}" if cost.ag else ""
        fit = cost.fit
        low, high = fit.work_range if fit else (0, 0)
        rows.append(
            {
                "operation": cost.op,
                "for": f"{ranks} {cost.shape}".strip(),
                "alpha us": f"{cost.alpha_us:.4g}",
                "beta us": f"{cost.beta_us:.4g}",
                "R2": f"{fit.r2:.4f}" if fit else "",
                "MAPE %": f"{fit.mape_pct:.1f}" if fit else "",
                "range": f"{low:.3g} .. {high:.3g}" if fit else "",
                "label": cost.label,
                "source": cost.source,
            }
        )
    return pd.DataFrame(rows)


def _scatter(result: dict[str, Any]) -> Any:
    rows = pd.DataFrame(result["schedules"])
    intervals = pd.DataFrame(rows["ci_us"].tolist(), columns=["ci_low_us", "ci_high_us"])
    return figures.makespan_scatter(pd.concat([rows, intervals], axis=1))
