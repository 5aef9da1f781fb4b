"""What a validation writes and prints: tables to read, the run folder with its files, and the
report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from realrun.validation import decomposition as judge
from realrun.validation.evaluate import UNSTABLE_PCT, Evidence, predict, typical
from simdep.analysis import figures
from simdep.analysis import summary as report
from simdep.hardware.profile import HardwareProfile
from simdep.traces import perfetto as trace

Rows = Sequence[Mapping[str, Any]]


def write(folder: Path, evidence: Evidence, result: dict[str, Any]) -> None:
    """Write result.json, profile.json, report.html and, for each case, schedule, both timelines and
    a trace."""
    evidence.profile.save(folder / "profile.json")
    by_error = np.argsort([abs(row["error_pct"]) for row in result["schedules"]])
    shown = {int(by_error[len(by_error) // 2]): "typical error", int(by_error[-1]): "largest error"}
    drawn = []
    for index, case in enumerate(evidence.cases):
        row = result["schedules"][index]
        row["files"] = f"cases/{index:03d}"
        place = folder / row["files"]
        place.mkdir(parents=True, exist_ok=True)
        predicted, real = predict(case, evidence.profile), typical(evidence.measured.runs(index))
        case.schedule.save(place / "schedule.json")
        trace.write(place / "predicted.csv", predicted)
        trace.write(place / "measured.csv", real)
        trace.write(place / "trace.json.gz", predicted, real)
        if index in shown:
            title = f"{row['label']}: {shown[index]} ({row['error_pct']:+.1f} %)"
            by_kind = report.compare(predicted, real).groupby("kind", sort=False)
            errors = by_kind[["predicted_us", "measured_us"]].mean().round(1).reset_index()
            drawn.append(figures.Section(title, figure=figures.gantt(predicted, real)))
            drawn.append(figures.Section("Mean task times (us)", table=errors))
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    sections = [*_statistics(result), *drawn, *_origins(evidence.profile)]
    figures.write_html(folder / "report.html", "simdep: predicted against measured", sections)


def _statistics(result: dict[str, Any]) -> Iterable[figures.Section]:
    yield figures.Section(
        "Predicted against measured", summary_text(result), figure=_scatter(result)
    )
    alike = ("spearman_in_group", "regret_max_pct")  # of one group
    groups = [
        {key: value for key, value in row.items() if key not in alike} for row in result["by_group"]
    ]
    yield figures.Section("By shape and link", table=flat(groups))
    yield figures.Section(
        "Where the error comes from",
        "Parts of the makespan error in percent of the makespan; they sum to it, schedule by schedule. Tasks: durations"
        " of computation. Link: durations of transfers. Host: what passes before computations that need not wait, and "
        "before transfers. Waits: what passes between an arrival and the computation that waited for it. Rest: skew of "
        "ranks, and the distance of the run that was taken apart from the median.",
        flat([{"part": name, **row} for name, row in result["parts"].items()]),
    )
    yield figures.Section(
        "Replay: the same runs, costs from elsewhere",
        "Own task times test the structure alone; a foreign calibration shows what a stale profile does.",
        flat(result["replay"]),
    )
    yield figures.Section(
        "What each term of the host buys", "Errors of the model without it.", flat(result["terms"])
    )
    yield figures.Section(
        "Power: does the data reject wrong models?",
        "Structural errors of models with one thing wrong, on the same measured task times and on the schedules that "
        f"can tell: those for which the two models predict makespans over {judge.TELLING_PCT:g} % apart. A wrong model "
        "is rejected if its errors are larger than the right one's (one-sided Wilcoxon signed-rank test, p < 0.01).",
        flat(result["power"]),
    )
    if result["interference"]:
        yield figures.Section(
            "Interference: computation beside transfers",
            "Mean and 95 % interval. Slow-down: time of a product while both directions are busy over that alone. "
            "Contention is the share of speed that the model lets one transfer take; 0 where the interval holds 0.",
            flat(result["interference"]),
        )
    if result["link_speeds"]:
        yield figures.Section("What the link achieves", table=flat(result["link_speeds"]))
    yield figures.Section(
        "Drift",
        "By round: makespans relative to the median of their schedule, and a fixed loop that every rank runs before "
        "and after each run.",
        flat(result["drift"]),
    )
    if result["calibration_halves"]:
        text = "Difference of the points of the first and of the second half of the rounds."
        yield figures.Section(
            "Stability of the calibration", text, flat(result["calibration_halves"])
        )
    yield figures.Section("Schedules", table=table_of(result))


def _origins(profile: HardwareProfile) -> Iterable[figures.Section]:
    yield figures.Section("Calibration", table=costs_table(profile))
    environment = pd.DataFrame(profile.environment.items(), columns=["what", "value"]).astype(str)
    yield figures.Section("Environment", table=environment)


def flat(rows: Rows) -> pd.DataFrame:
    """Rows of nested results as a table to read: `a: {b: 1}` is column "a b", intervals and numbers
    are short texts."""
    return pd.DataFrame(
        [{name: _text(value) for name, value in _leaves(row)} for row in rows], dtype=object
    )


def _leaves(row: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in row.items():
        name = f"{above} {key}".strip().replace("_", " ").replace(" pct", " %")
        if isinstance(value, Mapping):
            yield from _leaves(value, name)
        else:
            yield name, value


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
    rows = result["schedules"]
    return pd.DataFrame(
        {
            "model": [
                row["model"] + (f"@{row['scale']:g}" if row["scale"] != 1 else "") for row in rows
            ],
            "ranks": [f"{row['ag']}+{row['eg']}" for row in rows],
            "MB/s": [f"{row['link_mbytes_per_s']:g}" for row in rows],
            "schedule": [row["label"] for row in rows],
            "m_a": [row["m_a"] for row in rows],
            "seq": [row["seq_len"] for row in rows],
            "predicted ms": [round(row["predicted_us"] / 1e3, 2) for row in rows],
            "measured ms": [round(row["measured_us"] / 1e3, 2) for row in rows],
            "95 % interval": [
                "{:.2f} .. {:.2f}".format(*(us / 1e3 for us in row["ci_us"])) for row in rows
            ],
            "error %": [round(row["error_pct"], 1) for row in rows],
            "adjusted %": [round(row["adjusted_error_pct"], 2) for row in rows],
            "structural %": [round(row["structural_error_pct"], 2) for row in rows],
        }
    )


def summary_text(result: dict[str, Any]) -> str:
    """The statistics in one paragraph."""
    rank = "n/a" if result["spearman"] is None else f"{result['spearman']:.3f}"
    regret = "n/a" if result["regret_pct"] is None else f"{result['regret_pct']:.1f} %"
    raw = {
        "median_abs_pct": result["median_abs_error_pct"],
        "p95_abs_pct": result["p95_abs_error_pct"],
    }
    sizes = {"raw": raw, "speed-adjusted": result["adjusted"], "structural": result["structural"]}
    sizes["test-retest noise of the measurement"] = result["noise"]
    errors = "; ".join(
        f"{k} {v['median_abs_pct']:.2f} and {v['p95_abs_pct']:.2f} %" for k, v in sizes.items()
    )
    pairs, bad = result["pairs"], result["disturbed_runs"]
    halves = [row["halves_pct"] for row in result["calibration_halves"]]
    unsteady = sum(pct > UNSTABLE_PCT for pct in halves)
    warning = ""
    if result["noise"]["median_abs_pct"] > UNSTABLE_PCT or unsteady:
        warning = (
            f" The machine is unstable: halves of the measurement differ by {result['noise']['median_abs_pct']:.1f} % "
            f"(median of schedules), and by over {UNSTABLE_PCT:g} % in {unsteady} of {len(halves)} calibrated costs."
        )
    return (
        f"{len(result['schedules'])} schedules. Makespan error, median and 95th percentile: {errors}. "
        f"Bias {result['bias_pct']:+.1f} %. Rank correlation (Spearman) {rank}. Of {pairs['told_apart']} pairs that "
        f"the measurement tells apart, {pairs['ordered_wrongly']} are ordered wrongly. "
        f"Regret of the predicted best {regret}. {bad['rejected']} of {bad['of']} runs were disturbed and rejected."
        f"{warning}"
    )


def costs_table(profile: HardwareProfile) -> pd.DataFrame:
    """The costs of a profile as a table to read."""
    return pd.DataFrame(
        {
            "operation": c.op,
            "for": " ".join(part for part in (f"{c.ag}+{c.eg}" if c.ag else "", c.shape) if part),
            "alpha us": f"{c.alpha_us:.4g}",
            "beta us": f"{c.beta_us:.4g}",
            "R2": f"{c.fit.r2:.4f}" if c.fit else "",
            "MAPE %": f"{c.fit.mape_pct:.1f}" if c.fit else "",
            "range": "{:.3g} .. {:.3g}".format(*c.fit.work_range) if c.fit else "",
            "label": c.label,
            "source": c.source,
        }
        for c in profile.costs
    )


def _scatter(result: dict[str, Any]) -> Any:
    rows = pd.DataFrame(result["schedules"])
    intervals = pd.DataFrame(rows["ci_us"].tolist(), columns=["ci_low_us", "ci_high_us"])
    return figures.errors(pd.concat([rows, intervals], axis=1))
