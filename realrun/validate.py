"""Validation: predicted against really measured makespans of the same schedules, with the statistics that judge them.

Errors are 100 * (predicted - measured) / measured. The measured makespan is the median over rounds, its interval a
95 % bootstrap. Regret is what choosing by prediction costs: how much slower the schedule predicted to be best really
is than the one that really is best, averaged over the workloads that have several schedules.
"""

from __future__ import annotations

import datetime
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from realrun.campaign import Measurements
from realrun.cases import Case
from simdep import figures, report, trace
from simdep.costs import ScenarioCosts
from simdep.engine import simulate
from simdep.hardware import HardwareProfile
from simdep.timeline import Timeline

BOOTSTRAPS = 2000


def predict(case: Case, profile: HardwareProfile) -> Timeline:
    """The simulated timeline of a case."""
    return simulate(case.schedule, ScenarioCosts(case.scenario(profile)))


def evaluate(cases: Sequence[Case], profile: HardwareProfile, measured: Measurements, seed: int = 0) -> dict[str, Any]:
    """The result of a validation, ready for JSON: one row a schedule, and the statistics over all of them."""
    rows = []
    for index, case in enumerate(cases):
        spans = np.array([timeline.makespan_us for timeline in measured.timelines[index]])
        predicted, median = float(predict(case, profile).makespan_us), float(np.median(spans))
        rows.append(
            {
                **case.to_dict(),
                "label": case.schedule.label,
                "predicted_us": predicted,
                "measured_us": median,
                "ci_us": _interval(spans, seed),
                "error_pct": 100 * (predicted - median) / median,
                "rounds": len(spans),
            }
        )
    errors = np.abs([row["error_pct"] for row in rows])
    regrets = _regrets(cases, rows)
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "schedules": rows,
        "median_abs_error_pct": float(np.median(errors)),
        "p95_abs_error_pct": float(np.quantile(errors, 0.95)),
        "bias_pct": float(np.mean([row["error_pct"] for row in rows])),
        "spearman": _spearman(rows),
        "regret_pct": float(np.mean(regrets)) if regrets else None,
        "regret_max_pct": max(regrets, default=None),
        "profile": profile.name,
        "environment": dict(profile.environment),
    }


def _interval(spans: np.ndarray, seed: int) -> list[float]:
    """95 % bootstrap interval of the median of some makespans."""
    draws = np.random.default_rng(seed).choice(spans, (BOOTSTRAPS, len(spans)))
    return [float(q) for q in np.quantile(np.median(draws, axis=1), [0.025, 0.975])]


def _spearman(rows: Sequence[dict[str, Any]]) -> float | None:
    """Rank correlation of predicted and measured; None for fewer than two different values of either."""
    predicted, measured = ([row[key] for row in rows] for key in ("predicted_us", "measured_us"))
    if min(len(set(predicted)), len(set(measured))) < 2:
        return None
    return float(stats.spearmanr(predicted, measured).statistic)


def _regrets(cases: Sequence[Case], rows: Sequence[dict[str, Any]]) -> list[float]:
    groups = defaultdict(list)
    for case, row in zip(cases, rows, strict=True):
        groups[case.workload].append(row)
    regrets = []
    for group in groups.values():
        if len(group) > 1:
            chosen = min(group, key=lambda row: row["predicted_us"])
            best = min(row["measured_us"] for row in group)
            regrets.append(100 * (chosen["measured_us"] / best - 1))
    return regrets


def write(
    folder: Path, cases: Sequence[Case], profile: HardwareProfile, measured: Measurements, result: dict[str, Any]
) -> None:
    """Write result.json, profile.json, report.html and, for each case, schedule, both timelines and a trace."""
    profile.save(folder / "profile.json")
    by_error = np.argsort([abs(row["error_pct"]) for row in result["schedules"]])
    shown = {int(by_error[len(by_error) // 2]): "typical error", int(by_error[-1]): "largest error"}
    sections = [figures.Section("Predicted against measured", summary_text(result), table_of(result), _scatter(result))]
    for index, case in enumerate(cases):
        row = result["schedules"][index]
        row["files"] = f"cases/{index:03d}"
        place = folder / row["files"]
        place.mkdir(parents=True, exist_ok=True)
        predicted, real = predict(case, profile), typical(measured.timelines[index])
        case.schedule.save(place / "schedule.json")
        trace.write(place / "predicted.csv", predicted)
        trace.write(place / "measured.csv", real)
        trace.write(place / "trace.json.gz", predicted, real)
        if index in shown:
            title = f"{row['label']}: {shown[index]} ({row['error_pct']:+.1f} %)"
            sections.append(figures.Section(title, figure=figures.gantt(predicted, real)))
            by_kind = report.compare(predicted, real).groupby("kind", sort=False)
            errors = by_kind[["predicted_us", "measured_us"]].mean().round(1).reset_index()
            sections.append(figures.Section("Mean task times (us)", table=errors))
    sections.append(figures.Section("Calibration", table=costs_table(profile)))
    environment = pd.DataFrame(profile.environment.items(), columns=["what", "value"]).astype(str)
    sections.append(figures.Section("Environment", table=environment))
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    figures.write_html(folder / "report.html", "simdep: predicted against measured", sections)


def typical(timelines: Sequence[Timeline]) -> Timeline:
    """The timeline whose makespan is nearest to the median."""
    spans = [timeline.makespan_us for timeline in timelines]
    return timelines[int(np.argmin(np.abs(np.array(spans) - np.median(spans))))]


def table_of(result: dict[str, Any]) -> pd.DataFrame:
    """The schedules of a result as a table to read; times in milliseconds."""
    rows = result["schedules"]
    return pd.DataFrame(
        {
            "model": [row["model"] + (f"@{row['scale']:g}" if row["scale"] != 1 else "") for row in rows],
            "ranks": [f"{row['ag']}+{row['eg']}" for row in rows],
            "schedule": [row["label"] for row in rows],
            "m_a": [row["m_a"] for row in rows],
            "seq": [row["seq_len"] for row in rows],
            "predicted ms": [round(row["predicted_us"] / 1e3, 2) for row in rows],
            "measured ms": [round(row["measured_us"] / 1e3, 2) for row in rows],
            "95 % interval": ["{:.2f} .. {:.2f}".format(*(us / 1e3 for us in row["ci_us"])) for row in rows],
            "error %": [round(row["error_pct"], 1) for row in rows],
        }
    )


def summary_text(result: dict[str, Any]) -> str:
    """The statistics in one paragraph."""
    rank = "n/a" if result["spearman"] is None else f"{result['spearman']:.3f}"
    regret = "n/a" if result["regret_pct"] is None else f"{result['regret_pct']:.1f} %"
    return (
        f"{len(result['schedules'])} schedules. Makespan error: median {result['median_abs_error_pct']:.1f} %, "
        f"95th percentile {result['p95_abs_error_pct']:.1f} %, bias {result['bias_pct']:+.1f} %. "
        f"Rank correlation (Spearman) {rank}. Regret of the predicted best {regret}."
    )


def _scatter(result: dict[str, Any]) -> Any:
    rows = pd.DataFrame(result["schedules"])
    intervals = pd.DataFrame(rows["ci_us"].tolist(), columns=["ci_low_us", "ci_high_us"])
    return figures.errors(pd.concat([rows, intervals], axis=1))


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
