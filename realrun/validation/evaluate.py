"""Validation: predicted against really measured makespans of the same schedules, with statistics.

Errors are 100 * (predicted - measured) / measured; the measured makespan is the median over rounds,
its interval a 95 % bootstrap. `realrun.validation.scores` has the statistics,
`realrun.validation.decomposition` the finer errors and the wrong models,
`realrun.validation.report` what is written.
"""

from __future__ import annotations

import datetime
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from realrun.calibration.effects import halves, interference, link_speeds
from realrun.calibration.points import early
from realrun.calibration.profile import in_situ, profile_from
from realrun.cases import Case
from realrun.validation.campaign import CampaignMeasurements
from realrun.validation.decomposition import (
    PARTS,
    Slowness,
    adjusted,
    error_parts,
    power,
    replayed_us,
    slowness_of_runs,
    structural_error_pct,
    terms,
)
from realrun.validation.scores import (
    Comparison,
    error_sizes,
    grouped,
    median_interval,
    noise_pct,
    scores,
)
from realrun.validation.trial import Trial, model_of
from simdep.checks import InputError
from simdep.hardware.profile import HardwareProfile

# Difference of two halves of a measurement above which it says more about the machine
UNSTABLE_PCT = 5.0
FEW_RUNS = 3  # of a schedule, that wrong models and switched-off host overheads are tried on


@dataclass(frozen=True)
class Evidence:
    """Cases, what was measured of them, and the profiles to predict them with.

    `foreign` are further profiles by name: what a calibration of another time or machine would have
    predicted.
    """

    cases: Sequence[Case]
    profile: HardwareProfile
    measured: CampaignMeasurements
    foreign: Mapping[str, HardwareProfile] = field(default_factory=dict)

    @cached_property
    def trials(self) -> list[Trial]:
        """Every case with its model and its runs."""
        trials = []
        for index, case in enumerate(self.cases):
            model = model_of(case, self.profile)
            trials.append(Trial(case, model, self.measured.runs(index)))
        return trials


@dataclass(frozen=True)
class ScheduleResult:
    """What a validation says of one schedule.

    `raw` is its prediction beside its runs, `adjusted` both at one speed of the machine; `parts`
    are the shares of the error, in percent of the makespan.
    """

    raw: Comparison
    raw_interval_us: Sequence[float]
    adjusted: Comparison
    adjusted_interval_us: Sequence[float]
    structural_error_pct: float
    noise_pct: float
    parts_pct: Mapping[str, float]

    @property
    def case(self) -> Case:
        return self.raw.case

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            **self.case.to_dict(),
            "label": self.case.schedule.label,
            "predicted_us": float(self.raw.predicted_us),
            "measured_us": self.raw.median_us,
            "ci_us": self.raw_interval_us,
            "error_pct": self.raw.error_pct,
            "adjusted_predicted_us": self.adjusted.predicted_us,
            "adjusted_measured_us": self.adjusted.median_us,
            "adjusted_ci_us": self.adjusted_interval_us,
            "adjusted_error_pct": self.adjusted.error_pct,
            "structural_error_pct": self.structural_error_pct,
            "noise_pct": self.noise_pct,
            "parts_pct": self.parts_pct,
            "rounds": len(self.raw.measured_us),
        }


def validation_result(evidence: Evidence, seed: int = 0) -> dict[str, Any]:
    """The result of a validation, ready for JSON: one row a schedule, and the statistics over all
    of them."""
    trials, measured = evidence.trials, evidence.measured
    results = _results(trials, seed)
    few = [trial.first(FEW_RUNS) for trial in trials]
    raw = scores([result.raw for result in results])
    rejected = sum(map(len, measured.disturbed.values()))
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "schedules": [result.to_dict() for result in results],
        "median_abs_error_pct": raw.pop("median_abs_pct"),
        "p95_abs_error_pct": raw.pop("p95_abs_pct"),
        **raw,
        "adjusted": scores([result.adjusted for result in results]),
        "structural": _structural(results),
        "noise": _noise(results),
        "by_group": _by_group(results),
        "parts": _parts(results),
        "replay": _replay(evidence),
        "terms": terms(few),
        "power": power(few).to_dict("records"),
        "drift": _drift(trials),
        "calibration_halves": halves(measured.points),
        "disturbed_runs": {
            "rejected": rejected,
            "of": rejected + sum(map(len, measured.timelines.values())),
        },
        "interference": interference(measured.points),
        "link_speeds": link_speeds(measured.points),
        "profile": evidence.profile.name,
        "environment": dict(evidence.profile.environment),
    }


def check_training(cases: Sequence[Case], training: int) -> None:
    """Raise ValueError where `training` schedules of each shape leave none to be predicted."""
    for members in grouped(cases, lambda case: case.shape):
        if training >= len(members):
            raise InputError(
                f"--in-situ={training} leaves none of the {len(members)} schedules of a shape "
                "to predict"
            )


def trained(evidence: Evidence, training: int, seed: int) -> Evidence:
    """The evidence without `training` schedules of each shape, drawn at random, whose runs correct
    the calibration.

    Raises InputError where a shape has no schedule left to be predicted.
    """
    draw, cases, measured = random.Random(seed), evidence.cases, evidence.measured
    check_training(cases, training)
    used: set[int] = set()
    for members in grouped(range(len(cases)), lambda index: cases[index].shape):
        used.update(draw.sample(members, training))
    runs = [(cases[index], measured.runs(index)) for index in sorted(used)]
    left = [index for index in range(len(cases)) if index not in used]
    profile = in_situ(evidence.profile, runs)
    remaining = [cases[index] for index in left]
    return Evidence(remaining, profile, measured.only(left), evidence.foreign)


def _results(trials: Sequence[Trial], seed: int) -> list[ScheduleResult]:
    slowness = [slowness_of_runs(trial) for trial in trials]
    of_shape: dict[tuple[Any, ...], list[Slowness]] = defaultdict(list)
    for trial, of_runs in zip(trials, slowness, strict=True):
        of_shape[trial.case.shape] += of_runs
    # One speed for all schedules of a shape, so that adjusted makespans compare
    references = {shape: Slowness.median(members) for shape, members in of_shape.items()}
    results = []
    for trial, of_runs in zip(trials, slowness, strict=True):
        results.append(_result(trial, of_runs, references[trial.case.shape], seed))
    return results


def _result(
    trial: Trial, slowness: Sequence[Slowness], reference: Slowness, seed: int
) -> ScheduleResult:
    raw = Comparison(trial.case, trial.predicted.makespan_us, trial.makespans_us)
    at_speed = adjusted(trial, slowness, reference)
    parts = error_parts(trial.model, raw.predicted_us, trial.typical)
    parts["rest"] = raw.error_pct - sum(parts[name] for name in PARTS)
    return ScheduleResult(
        raw=raw,
        raw_interval_us=median_interval(raw.measured_us, seed),
        adjusted=at_speed,
        adjusted_interval_us=median_interval(at_speed.measured_us, seed),
        structural_error_pct=structural_error_pct(trial.model, trial.runs),
        noise_pct=noise_pct(raw.measured_us),
        parts_pct=parts,
    )


def _structural(results: Sequence[ScheduleResult]) -> dict[str, float]:
    return error_sizes([result.structural_error_pct for result in results])


def _noise(results: Sequence[ScheduleResult]) -> dict[str, float]:
    return error_sizes([result.noise_pct for result in results])


def _parts(results: Sequence[ScheduleResult]) -> dict[str, dict[str, float]]:
    sizes = {}
    for name in (*PARTS, "rest"):
        sizes[name] = error_sizes([result.parts_pct[name] for result in results])
    return sizes


def _by_group(results: Sequence[ScheduleResult]) -> list[dict[str, Any]]:
    """A row for the schedules of one shape over one link."""
    rows = []
    for members in grouped(results, lambda result: result.case.link_group):
        first = members[0].case
        rows.append(
            {
                "model": first.model,
                "scale": first.scale,
                "ranks": f"{first.ag}+{first.eg}",
                "link": first.link,
                "link_mbytes_per_s": first.speed.mbytes_per_s,
                "schedules": len(members),
                **scores([member.raw for member in members]),
                "structural": _structural(members),
                "noise": _noise(members),
            }
        )
    return rows


def _replay(evidence: Evidence) -> list[dict[str, Any]]:
    """The same runs predicted from their own task times, from their own calibration, and from
    foreign ones."""
    trials = evidence.trials
    predicted = {
        "own task times": [_own_times_us(trial) for trial in trials],
        "own calibration": [trial.predicted.makespan_us for trial in trials],
    }
    profiles = dict(evidence.foreign)
    if evidence.measured.points:
        stale = profile_from(early(evidence.measured.points), "early", "")
        profiles = {"the first fifth of the calibration": stale, **profiles}
    for name, profile in profiles.items():
        predicted[name] = [model_of(trial.case, profile).makespan_us() for trial in trials]
    rows = []
    for name, makespans in predicted.items():
        comparisons = [
            Comparison(trial.case, us, trial.makespans_us)
            for trial, us in zip(trials, makespans, strict=True)
        ]
        rows.append({"costs from": name, **scores(comparisons)})
    return rows


def _own_times_us(trial: Trial) -> float:
    return float(np.median([replayed_us(trial.model, run) for run in trial.runs]))


def _drift(trials: Sequence[Trial]) -> list[dict[str, float]]:
    """A row a round: makespans over the median of their schedule, and the sentinel loop of the
    ranks, averaged."""
    makespans: dict[int, list[float]] = defaultdict(list)
    sentinels: dict[int, list[float]] = defaultdict(list)
    for trial in trials:
        median = np.median(trial.makespans_us)
        for run in trial.timelines:
            if "round" in run.meta:
                makespans[run.meta["round"]].append(run.makespan_us / median)
                sentinels[run.meta["round"]].append(float(np.mean(run.meta["sentinel_us"])))
    return [
        {
            "round": number,
            "makespan": float(np.mean(makespans[number])),
            "sentinel_us": float(np.mean(sentinels[number])),
        }
        for number in sorted(makespans)
    ]
