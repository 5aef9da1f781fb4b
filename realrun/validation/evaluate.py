"""Validation: predicted against really measured makespans of the same schedules, with the
statistics that judge them.

Errors are 100 * (predicted - measured) / measured; the measured makespan is the median over rounds,
its interval a 95 % bootstrap. `realrun.validation.scores` has the statistics,
`realrun.validation.decomposition` the finer errors and the wrong models,
`realrun.validation.report` what is written.
"""

from __future__ import annotations

import datetime
import random
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from realrun.calibration.effects import halves, interference, link_speeds
from realrun.calibration.points import early
from realrun.calibration.profile import in_situ, profile_from
from realrun.cases import Case
from realrun.validation import decomposition as judge
from realrun.validation.campaign import Measurements
from realrun.validation.scores import error_pct, grouped, interval, noise_pct, scores, size
from simdep.costs import Costs
from simdep.hardware.profile import HardwareProfile
from simdep.scenario.task_costs import ScenarioCosts
from simdep.schedule import Task
from simdep.simulation.engine import makespan_us, simulate
from simdep.timeline import Timeline

UNSTABLE_PCT = (
    5.0  # difference of two halves of a measurement above which it says more about the machine
)
SOME = 3  # runs of a schedule that wrong models and switched-off terms are tried on


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


@dataclass(frozen=True)
class Evidence:
    """Cases, what was measured of them, and the profiles to predict them with.

    `foreign` are further profiles by name: what a calibration of another time or machine would have
    predicted.
    """

    cases: Sequence[Case]
    profile: HardwareProfile
    measured: Measurements
    foreign: Mapping[str, HardwareProfile] = field(default_factory=dict)


def evaluate(evidence: Evidence, seed: int = 0) -> dict[str, Any]:
    """The result of a validation, ready for JSON: one row a schedule, and the statistics over all
    of them."""
    cases, profile, measured = evidence.cases, evidence.profile, evidence.measured
    models = [model_of(case, profile) for case in cases]
    timelines = [measured.runs(index) for index in range(len(cases))]
    runs = [[judge.Run.of(timeline) for timeline in own] for own in timelines]
    spans = [[run.makespan_us for run in own] for own in runs]
    predicted = [makespan_us(*model) for model in models]
    references = _reference_speeds(cases, models, runs)
    brought = [
        judge.adjusted(model, own, references[case.shape])
        for case, model, own in zip(cases, models, runs, strict=True)
    ]
    rows = []
    for index, case in enumerate(cases):
        at_speed, brought_to_it = brought[index]
        median, error = (
            float(np.median(spans[index])),
            error_pct(predicted[index], float(np.median(spans[index]))),
        )
        parts = judge.parts(models[index], typical(timelines[index]))
        parts["rest"] = error - sum(parts[name] for name in judge.PARTS)
        rows.append(
            {
                **case.to_dict(),
                "label": case.schedule.label,
                "predicted_us": float(predicted[index]),
                "measured_us": median,
                "ci_us": interval(spans[index], seed),
                "error_pct": error,
                "adjusted_predicted_us": at_speed,
                "adjusted_measured_us": float(np.median(brought_to_it)),
                "adjusted_ci_us": interval(brought_to_it, seed),
                "adjusted_error_pct": error_pct(at_speed, float(np.median(brought_to_it))),
                "structural_error_pct": judge.structural(models[index], runs[index]),
                "noise_pct": noise_pct(spans[index]),
                "parts_pct": parts,
                "rounds": len(spans[index]),
            }
        )
    raw = scores(cases, list(zip(predicted, spans, strict=True)))
    some = [own[:SOME] for own in runs]
    disturbed = sum(map(len, measured.disturbed.values()))
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "schedules": rows,
        "median_abs_error_pct": raw.pop("median_abs_pct"),
        "p95_abs_error_pct": raw.pop("p95_abs_pct"),
        **raw,
        "adjusted": scores(cases, brought),
        "structural": size([row["structural_error_pct"] for row in rows]),
        "noise": size([row["noise_pct"] for row in rows]),
        "by_group": _by_group(cases, predicted, spans, rows),
        "parts": {
            name: size([row["parts_pct"][name] for row in rows]) for name in (*judge.PARTS, "rest")
        },
        "replay": _replay(evidence, models, runs, predicted),
        "terms": judge.terms(models, some),
        "power": judge.power(models, some).to_dict("records"),
        "drift": _drift(timelines),
        "calibration_halves": halves(measured.points),
        "disturbed_runs": {
            "rejected": disturbed,
            "of": disturbed + sum(map(len, measured.timelines.values())),
        },
        "interference": interference(measured.points),
        "link_speeds": link_speeds(measured.points),
        "profile": profile.name,
        "environment": dict(profile.environment),
    }


def trained(evidence: Evidence, training: int, seed: int) -> Evidence:
    """The evidence without `training` schedules of each shape, drawn at random, whose runs correct
    the calibration.

    Raises ValueError where a shape has no schedule left to be predicted.
    """
    draw, cases, found = random.Random(seed), evidence.cases, evidence.measured
    used: set[int] = set()
    for members in grouped([case.shape for case in cases], range(len(cases))):
        if training >= len(members):
            raise ValueError(
                f"--in-situ={training} leaves none of the {len(members)} schedules of a shape to predict"
            )
        used.update(draw.sample(members, training))
    runs = [(cases[index], found.runs(index)) for index in sorted(used)]
    left = [index for index in range(len(cases)) if index not in used]
    profile = in_situ(evidence.profile, runs)
    return Evidence([cases[index] for index in left], profile, found.only(left), evidence.foreign)


def typical(timelines: Sequence[Timeline]) -> Timeline:
    """The timeline whose makespan is nearest to the median."""
    spans = [timeline.makespan_us for timeline in timelines]
    return timelines[int(np.argmin(np.abs(np.array(spans) - np.median(spans))))]


def _reference_speeds(
    cases: Sequence[Case], models: Sequence[judge.Model], runs: Sequence[Sequence[judge.Run]]
) -> dict[Hashable, tuple[float, float]]:
    """Shape -> median (AG, EG) speed factor over all runs of its cases."""
    found: dict[Hashable, list[tuple[float, float]]] = defaultdict(list)
    for case, model, own in zip(cases, models, runs, strict=True):
        alone = judge.Run.of(simulate(*model))
        found[case.shape] += [judge.speeds(case.schedule, alone, run) for run in own]
    return {shape: tuple(np.median(factors, axis=0).tolist()) for shape, factors in found.items()}


def _by_group(
    cases: Sequence[Case],
    predicted: Sequence[float],
    spans: Sequence[Sequence[float]],
    rows: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    """A row for the schedules of one shape over one link."""
    found = []
    for members in grouped([case.link_group for case in cases], range(len(cases))):
        first = cases[members[0]]
        found.append(
            {
                "model": first.model,
                "scale": first.scale,
                "ranks": f"{first.ag}+{first.eg}",
                "link": first.link,
                "link_mbytes_per_s": first.link_mbytes_per_s,
                "schedules": len(members),
                **scores([cases[i] for i in members], [(predicted[i], spans[i]) for i in members]),
                "structural": size([rows[i]["structural_error_pct"] for i in members]),
                "noise": size([rows[i]["noise_pct"] for i in members]),
            }
        )
    return found


def _replay(
    evidence: Evidence,
    models: Sequence[judge.Model],
    runs: Sequence[Sequence[judge.Run]],
    predicted: Sequence[float],
) -> list[dict[str, Any]]:
    """The same runs predicted from their own task times, from their own calibration, and from
    foreign ones."""
    own = [
        float(np.median([judge.replayed(m, run) for run in some]))
        for m, some in zip(models, runs, strict=True)
    ]
    sets = {"own task times": own, "own calibration": list(predicted)}
    stale = {
        "the first fifth of the calibration": profile_from(
            early(evidence.measured.points), "early", ""
        )
    }
    for name, profile in {
        **(stale if evidence.measured.points else {}),
        **evidence.foreign,
    }.items():
        sets[name] = [makespan_us(*model_of(case, profile)) for case in evidence.cases]
    spans = [[run.makespan_us for run in some] for some in runs]
    return [
        {"costs from": name, **scores(evidence.cases, list(zip(found, spans, strict=True)))}
        for name, found in sets.items()
    ]


def _drift(timelines: Sequence[Sequence[Timeline]]) -> list[dict[str, float]]:
    """A row a round: makespans over the median of their schedule, and the sentinel loop of the
    ranks, averaged."""
    spans: dict[int, list[float]] = defaultdict(list)
    sentinels: dict[int, list[float]] = defaultdict(list)
    for own in timelines:
        median = np.median([run.makespan_us for run in own])
        for run in own:
            if "round" in run.meta:
                spans[run.meta["round"]].append(run.makespan_us / median)
                sentinels[run.meta["round"]].append(float(np.mean(run.meta["sentinel_us"])))
    return [
        {
            "round": number,
            "makespan": float(np.mean(spans[number])),
            "sentinel_us": float(np.mean(sentinels[number])),
        }
        for number in sorted(spans)
    ]
