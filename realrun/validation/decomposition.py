"""How good a prediction is, beyond its raw error: what is structure, what is speed, what is noise.

Three errors of a makespan, each 100 * (predicted - measured) / measured:

    raw          costs from calibration alone
    adjusted     the same, with the speed of each group in each run divided out: its measured
                 computation over the predicted one is a control variate, so that what is tested is
                 structure, ratios and order
    structural   computation takes the times measured in the very run; links and host overheads stay
                 predicted

A wrong model must not pass: `CONTROLS` are models with one thing wrong, replayed on the same
measured task times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy import stats

from realrun.runtime.stamps import Delay, delays
from realrun.validation.scores import Comparison, error_pct, error_sizes
from realrun.validation.trial import RunTimes, TimingModel, Trial
from simdep.costs import IDEAL, Costs, HostOverheads
from simdep.policies import build
from simdep.schedule import Kind, Schedule, Task
from simdep.timeline import Timeline

# Difference of two predictions above which a measured makespan can show which of them is wrong
DISTINCT_PCT = 1.0
MIN_SCHEDULES, SIGNIFICANT = 6, 0.01  # of a test that rejects a wrong model
PARTS = ("tasks", "link", "host", "waits")


def _unchanged(task: Task) -> float:
    return 1.0


def _long_experts(task: Task) -> float:
    return 1.2 if task.kind is Kind.EXPERT else 1.0


def structural_error_pct(
    model: TimingModel, runs: Sequence[RunTimes], factor: Costs = _unchanged
) -> float:
    """The median error over runs of a schedule, each replayed with its own task times, times
    `factor`."""
    errors = [error_pct(replayed_us(model, run, factor), run.makespan_us) for run in runs]
    return float(np.median(errors))


def replayed_us(model: TimingModel, run: RunTimes, factor: Costs = _unchanged) -> float:
    """The makespan of a schedule with the task times of a run, times `factor`; links and host
    overheads stay predicted.

    What contention took is in the measured times already.
    """
    replay = _with_computation_of(model, run)
    return replace(replay, costs=lambda task: factor(task) * replay.costs(task)).makespan_us()


def _with_computation_of(model: TimingModel, run: RunTimes) -> TimingModel:
    """The model with the measured times of computation, which hold what contention took."""

    def costs(task: Task) -> float:
        return model.costs(task) if task.kind.is_transfer else run.durations[task.name]

    return TimingModel(model.schedule, costs, replace(model.host, contention=0))


def error_parts(model: TimingModel, predicted_us: float, run: Timeline) -> dict[str, float]:
    """What contributes to the error of a run's makespan, in percent of it.

    The prediction becomes the measurement step by step, and each step's change of the makespan is a
    part: the durations of computation are replaced by the measured ones (`tasks`), then those of
    transfers (`link`), then what passes before a computation that had not to wait and between a
    computation and the start of its message (`host`), then what passes before a computation that
    had waited (`waits`). The parts sum to the error but for the skew of ranks, which rows joined by
    task do not show.
    """
    times = RunTimes.of(run)
    delay_of = _delays_of(model.schedule, run)
    # From the third step on delays are measured: host overheads would count them twice

    def measured(task: Task) -> float:
        return times.durations[task.name]

    def delayed(task: Task) -> float:
        delay = delay_of[task.name]
        if delay.waited and not task.kind.is_transfer:
            return measured(task) + model.host.gap_us
        return measured(task) + delay.us

    def fully_delayed(task: Task) -> float:
        return measured(task) + delay_of[task.name].us

    replay = _with_computation_of(model, times)
    steps = [
        replay,
        replace(replay, costs=measured),
        TimingModel(model.schedule, delayed, IDEAL),
        TimingModel(model.schedule, fully_delayed, IDEAL),
    ]
    makespans = [predicted_us, *(step.makespan_us() for step in steps)]
    changes = [100 * (before - after) / times.makespan_us for before, after in pairwise(makespans)]
    return dict(zip(PARTS, changes, strict=True))


def _delays_of(schedule: Schedule, run: Timeline) -> dict[str, Delay]:
    rows = run.by_task()
    names = rows.index.astype(str)
    starts = dict(zip(names, rows["start_us"], strict=True))
    ends = dict(zip(names, rows["end_us"], strict=True))
    delay_of: dict[str, Delay] = {}
    for stream in schedule.streams:
        delay_of |= delays(schedule, stream, starts, ends)
    return delay_of


@dataclass(frozen=True)
class Slowness:
    """Measured computation of each group over the predicted one."""

    ag: float
    eg: float

    @classmethod
    def of(cls, schedule: Schedule, predicted: RunTimes, run: RunTimes) -> Slowness:
        ratios = []
        for group in ("AG", "EG"):
            names = [task.name for task in schedule.streams[group]]
            measured = sum(run.durations[name] for name in names)
            ratios.append(measured / sum(predicted.durations[name] for name in names))
        return cls(*ratios)

    @classmethod
    def median(cls, members: Sequence[Slowness]) -> Slowness:
        ag = np.median([member.ag for member in members])
        eg = np.median([member.eg for member in members])
        return cls(float(ag), float(eg))


def slowness_of_runs(trial: Trial) -> list[Slowness]:
    """How much slower than predicted the groups computed in each run of a trial."""
    predicted = RunTimes.of(trial.predicted)
    return [Slowness.of(trial.model.schedule, predicted, run) for run in trial.runs]


def predicted_at(model: TimingModel, slowness: Slowness) -> float:
    """The predicted makespan when the groups compute so many times longer."""
    factors = {Kind.ATTENTION: slowness.ag, Kind.SHARED: slowness.ag, Kind.EXPERT: slowness.eg}

    def costs(task: Task) -> float:
        return factors.get(task.kind, 1.0) * model.costs(task)

    return replace(model, costs=costs).makespan_us()


def adjusted(trial: Trial, slowness: Sequence[Slowness], reference: Slowness) -> Comparison:
    """The prediction at the reference speed beside the runs, each brought to that speed."""
    predicted = predicted_at(trial.model, reference)
    measured = []
    for run, of_run in zip(trial.runs, slowness, strict=True):
        measured.append(run.makespan_us * predicted / predicted_at(trial.model, of_run))
    return Comparison(trial.case, predicted, measured)


def _slower_link(model: TimingModel) -> TimingModel:
    def costs(task: Task) -> float:
        return (1.1 if task.kind.is_transfer else 1) * model.costs(task)

    return replace(model, costs=costs)


def _half_duplex(model: TimingModel) -> TimingModel:
    return replace(model, host=replace(model.host, half_duplex=True))


def _unlimited_link(model: TimingModel) -> TimingModel:
    streams: dict[str, tuple[Task, ...]] = {}
    for name, tasks in model.schedule.streams.items():
        if not tasks[0].kind.is_transfer:
            streams[name] = tasks
    for task in model.schedule:
        if task.kind.is_transfer:
            streams[task.name] = (task,)
    return replace(model, schedule=Schedule(streams))


def _other_order(model: TimingModel) -> TimingModel | None:
    schedule = model.schedule
    orders = {}
    for order in ("ASAS", "AASS"):
        tasks = build("findep", schedule.layers, schedule.r1, schedule.r2, order).streams["AG"]
        orders[order] = [task.name for task in tasks]
    ag_order = [task.name for task in schedule.streams["AG"]]
    if ag_order not in orders.values() or orders["ASAS"] == orders["AASS"]:
        return None
    other = orders["AASS"] if ag_order == orders["ASAS"] else orders["ASAS"]
    return _with_ag(model, [schedule[name] for name in other])


def _lost_dependency(model: TimingModel) -> TimingModel | None:
    """Attention does not wait for the last chunk of its micro-batch to come back."""
    if model.schedule.layers < 2:
        return None
    return _with_ag(model, [_forgetful(task) for task in model.schedule.streams["AG"]])


def _forgetful(task: Task) -> Task:
    returns = [name for name in task.after if name.startswith("E2A")]
    if not returns:
        return task
    return replace(task, after=tuple(name for name in task.after if name != returns[-1]))


def _with_ag(model: TimingModel, tasks: Sequence[Task]) -> TimingModel:
    return replace(model, schedule=Schedule({**model.schedule.streams, "AG": tuple(tasks)}))


Change = Callable[[TimingModel], TimingModel | None]  # None: it can't be made to this model
CONTROLS: dict[str, Change] = {
    "link 10 % slower": _slower_link,
    "half duplex": _half_duplex,
    "unlimited link concurrency": _unlimited_link,
    "AASS and ASAS swapped": _other_order,
    "one dependency removed": _lost_dependency,
}
TERMS: dict[str, Callable[[HostOverheads], HostOverheads]] = {
    "nothing": lambda host: host,
    "gap": lambda host: replace(host, gap_us=0),
    "receive": lambda host: replace(host, receive_us=0),
    "post": lambda host: replace(host, post_us=IDEAL.post_us),
    "contention": lambda host: replace(host, contention=0),
    "all": lambda host: IDEAL,
}


def terms(trials: Sequence[Trial]) -> list[dict[str, object]]:
    """What each host overhead buys: the errors, raw and structural, of the model without it.

    The first row is the model; an overhead that no model has has no row.
    """
    rows: list[dict[str, object]] = []
    for name, without in TERMS.items():
        models = [replace(trial.model, host=without(trial.model.host)) for trial in trials]
        pairs = list(zip(models, trials, strict=True))
        if name != "nothing" and all(model.host == trial.model.host for model, trial in pairs):
            continue
        raw = []
        for model, trial in pairs:
            raw.append(error_pct(model.makespan_us(), float(np.median(trial.makespans_us))))
        structural = [structural_error_pct(model, trial.runs) for model, trial in pairs]
        rows.append(
            {"without": name, "raw": error_sizes(raw), "structural": error_sizes(structural)}
        )
    return rows


def power(trials: Sequence[Trial]) -> pd.DataFrame:
    """A row a wrong model: its structural errors, and whether the data rejects it.

    It is rejected if its absolute errors are larger than the right model's (one-sided Wilcoxon
    signed-rank test, p < 0.01) on the schedules that can tell: those for which the two predict
    makespans over `DISTINCT_PCT` apart. With fewer than six of them it is neither rejected nor
    accepted. The last row makes experts 1.2 times as long.
    """
    right = [structural_error_pct(trial.model, trial.runs) for trial in trials]
    rows = [_row("the model", right, None)]
    for name, change in CONTROLS.items():
        wrong, right_of_them = [], []
        for trial, error in zip(trials, right, strict=True):
            changed = change(trial.model)
            if changed is not None:
                wrong.append(structural_error_pct(changed, trial.runs))
                right_of_them.append(error)
        rows.append(_row(name, wrong, right_of_them))
    longer = [structural_error_pct(trial.model, trial.runs, _long_experts) for trial in trials]
    rows.append(_row("experts 1.2 times as long", longer, right))
    return pd.DataFrame(rows, dtype=object)


def _row(name: str, errors: Sequence[float], right: Sequence[float] | None) -> dict[str, object]:
    p_value = None
    if right is not None:
        distinct = []
        for error, of_right in zip(errors, right, strict=True):
            if abs(error - of_right) > DISTINCT_PCT:
                distinct.append((abs(error), abs(of_right)))
        errors = [error for error, _ in distinct]
        if len(distinct) >= MIN_SCHEDULES:
            of_right_ones = [of_right for _, of_right in distinct]
            p_value = float(stats.wilcoxon(errors, of_right_ones, alternative="greater").pvalue)
    absolute = np.abs(errors)
    return {
        "model": name,
        "schedules": len(absolute),
        "median %": float(np.median(absolute)) if len(absolute) else None,
        "p95 %": float(np.quantile(absolute, 0.95)) if len(absolute) else None,
        "p": p_value,
        "rejected": None if p_value is None else p_value < SIGNIFICANT,
    }
