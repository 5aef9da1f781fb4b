"""Validation: predicted against really measured makespans of the same schedules, with the statistics that judge them.

Errors are 100 * (predicted - measured) / measured. The measured makespan is the median over rounds, its interval a
95 % bootstrap. Regret is what choosing by prediction costs: how much slower the schedule predicted to be best really
is than the one that really is best, averaged over the workloads that have several schedules. `realrun.judge` has the
finer errors and the wrong models.
"""

from __future__ import annotations

import datetime
import json
from collections import defaultdict
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from realrun import judge
from realrun.campaign import Measurements
from realrun.cases import Case
from simdep import figures, report, trace
from simdep.costs import Costs, ScenarioCosts
from simdep.engine import simulate
from simdep.hardware import HardwareProfile
from simdep.schedule import Task
from simdep.timeline import Timeline

BOOTSTRAPS = 2000
UNSTABLE_PCT = 5.0  # median test-retest difference above which raw errors say more about the machine than the model


def predict(case: Case, profile: HardwareProfile) -> Timeline:
    """The simulated timeline of a case."""
    return simulate(*model_of(case, profile))


def model_of(case: Case, profile: HardwareProfile) -> judge.Model:
    """What predicts a case: its schedule, its task times and its host."""
    costs, waits = ScenarioCosts(case.scenario(profile)), case.synthetic

    def timed(task: Task) -> float:
        return costs(task) if waits is None or task.kind.is_transfer else waits[task.kind.label]

    times: Costs = timed
    return case.schedule, times, costs.host


def evaluate(cases: Sequence[Case], profile: HardwareProfile, measured: Measurements, seed: int = 0) -> dict[str, Any]:
    """The result of a validation, ready for JSON: one row a schedule, and the statistics over all of them."""
    models = [model_of(case, profile) for case in cases]
    runs = [measured.runs(index) for index in range(len(cases))]
    spans = [[run.makespan_us for run in own] for own in runs]
    predicted = [simulate(*model).makespan_us for model in models]
    references = _reference_speeds(cases, models, runs)
    brought = [
        judge.adjusted(model, own, references[case.shape]) for case, model, own in zip(cases, models, runs, strict=True)
    ]
    rows = []
    for index, case in enumerate(cases):
        median, at_reference = float(np.median(spans[index])), brought[index]
        rows.append(
            {
                **case.to_dict(),
                "label": case.schedule.label,
                "predicted_us": float(predicted[index]),
                "measured_us": median,
                "ci_us": _interval(spans[index], seed),
                "error_pct": judge.error_pct(predicted[index], median),
                "adjusted_error_pct": judge.error_pct(at_reference[0], float(np.median(at_reference[1]))),
                "structural_error_pct": judge.structural(models[index], runs[index]),
                "noise_pct": judge.noise_pct(spans[index]),
                "rounds": len(spans[index]),
            }
        )
    raw, regrets = _size(rows, "error_pct"), _regrets(cases, rows)
    disturbed = sum(map(len, measured.disturbed.values()))
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "schedules": rows,
        "median_abs_error_pct": raw["median_abs_pct"],
        "p95_abs_error_pct": raw["p95_abs_pct"],
        "bias_pct": float(np.mean([row["error_pct"] for row in rows])),
        "adjusted": _size(rows, "adjusted_error_pct"),
        "structural": _size(rows, "structural_error_pct"),
        "noise": _size(rows, "noise_pct"),
        "spearman": _spearman(rows),
        "spearman_in_workload": _spearman_in_workload(cases, rows),
        "pairs": _pairs(cases, list(zip(predicted, spans, strict=True))),
        "pairs_adjusted": _pairs(cases, brought),
        "regret_pct": float(np.mean(regrets)) if regrets else None,
        "regret_max_pct": max(regrets, default=None),
        "disturbed_runs": {"rejected": disturbed, "of": disturbed + sum(map(len, measured.timelines.values()))},
        "power": judge.power(models, runs).to_dict("records"),
        "profile": profile.name,
        "environment": dict(profile.environment),
    }


def _reference_speeds(
    cases: Sequence[Case], models: Sequence[judge.Model], runs: Sequence[Sequence[Timeline]]
) -> dict[Hashable, tuple[float, float]]:
    """Shape -> median (AG, EG) speed factor over all runs of its cases."""
    found: dict[Hashable, list[tuple[float, float]]] = defaultdict(list)
    for case, model, own in zip(cases, models, runs, strict=True):
        found[case.shape] += [judge.speeds(model, run) for run in own]
    return {shape: tuple(np.median(factors, axis=0).tolist()) for shape, factors in found.items()}


def _size(rows: Sequence[dict[str, Any]], key: str) -> dict[str, float]:
    errors = np.abs([row[key] for row in rows])
    return {"median_abs_pct": float(np.median(errors)), "p95_abs_pct": float(np.quantile(errors, 0.95))}


def _interval(spans: Sequence[float], seed: int) -> list[float]:
    """95 % bootstrap interval of the median of some makespans."""
    draws = np.random.default_rng(seed).choice(np.asarray(spans), (BOOTSTRAPS, len(spans)))
    return [float(q) for q in np.quantile(np.median(draws, axis=1), [0.025, 0.975])]


def _spearman(rows: Sequence[dict[str, Any]]) -> float | None:
    """Rank correlation of predicted and measured; None for fewer than two different values of either."""
    predicted, measured = ([row[key] for row in rows] for key in ("predicted_us", "measured_us"))
    if min(len(set(predicted)), len(set(measured))) < 2:
        return None
    return float(stats.spearmanr(predicted, measured).statistic)


def _by_workload(cases: Sequence[Case], items: Sequence[Any]) -> list[list[Any]]:
    groups: dict[Hashable, list[Any]] = defaultdict(list)
    for case, item in zip(cases, items, strict=True):
        groups[case.workload].append(item)
    return list(groups.values())


def _spearman_in_workload(cases: Sequence[Case], rows: Sequence[dict[str, Any]]) -> float | None:
    """The mean rank correlation within the workloads that have at least 3 schedules; None if there is none."""
    found = [_spearman(group) for group in _by_workload(cases, rows) if len(group) > 2]
    known = [value for value in found if value is not None]
    return float(np.mean(known)) if known else None


def _pairs(cases: Sequence[Case], found: Sequence[tuple[float, Sequence[float]]]) -> dict[str, int]:
    apart, wrong = judge.order_errors(_by_workload(cases, found))
    return {"told_apart": apart, "ordered_wrongly": wrong}


def _regrets(cases: Sequence[Case], rows: Sequence[dict[str, Any]]) -> list[float]:
    regrets = []
    for group in _by_workload(cases, rows):
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
    sections = [
        figures.Section("Predicted against measured", summary_text(result), table_of(result), _scatter(result)),
        figures.Section(
            "Power: does the data reject wrong models?",
            "Structural errors of models with one thing wrong, on the same measured task times. A model is rejected if "
            "its errors are larger than the right model's (one-sided Wilcoxon signed-rank test, p < 0.01).",
            _power_table(result),
        ),
    ]
    for index, case in enumerate(cases):
        row = result["schedules"][index]
        row["files"] = f"cases/{index:03d}"
        place = folder / row["files"]
        place.mkdir(parents=True, exist_ok=True)
        predicted, real = predict(case, profile), typical(measured.runs(index))
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
            "MB/s": [f"{row['link_mbytes_per_s']:g}" for row in rows],
            "schedule": [row["label"] for row in rows],
            "m_a": [row["m_a"] for row in rows],
            "seq": [row["seq_len"] for row in rows],
            "predicted ms": [round(row["predicted_us"] / 1e3, 2) for row in rows],
            "measured ms": [round(row["measured_us"] / 1e3, 2) for row in rows],
            "95 % interval": ["{:.2f} .. {:.2f}".format(*(us / 1e3 for us in row["ci_us"])) for row in rows],
            "error %": [round(row["error_pct"], 1) for row in rows],
            "adjusted %": [round(row["adjusted_error_pct"], 2) for row in rows],
            "structural %": [round(row["structural_error_pct"], 2) for row in rows],
        }
    )


def summary_text(result: dict[str, Any]) -> str:
    """The statistics in one paragraph."""
    rank = "n/a" if result["spearman"] is None else f"{result['spearman']:.3f}"
    regret = "n/a" if result["regret_pct"] is None else f"{result['regret_pct']:.1f} %"
    raw = {"median_abs_pct": result["median_abs_error_pct"], "p95_abs_pct": result["p95_abs_error_pct"]}
    sizes = {"raw": raw, "speed-adjusted": result["adjusted"], "structural": result["structural"]}
    sizes["test-retest noise of the measurement"] = result["noise"]
    errors = "; ".join(f"{k} {v['median_abs_pct']:.2f} and {v['p95_abs_pct']:.2f} %" for k, v in sizes.items())
    pairs, bad = result["pairs"], result["disturbed_runs"]
    unstable = result["noise"]["median_abs_pct"] > UNSTABLE_PCT
    warning = f" The machine is unstable: halves of the rounds differ by over {UNSTABLE_PCT:g} %." if unstable else ""
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


def _power_table(result: dict[str, Any]) -> pd.DataFrame:
    def text(value: Any) -> str:
        return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)

    return pd.DataFrame([{key: text(value) for key, value in row.items()} for row in result["power"]])


def _scatter(result: dict[str, Any]) -> Any:
    rows = pd.DataFrame(result["schedules"])
    intervals = pd.DataFrame(rows["ci_us"].tolist(), columns=["ci_low_us", "ci_high_us"])
    return figures.errors(pd.concat([rows, intervals], axis=1))
