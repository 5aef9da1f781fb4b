"""How good a prediction is, beyond its raw error: what is structure, what is speed, what is noise.

Three errors of a makespan, each 100 * (predicted - measured) / measured:

    raw          costs from calibration alone
    adjusted     the same, with the speed of each group in each run divided out: its measured computation over the
                 predicted one is a control variate, so that what is tested is structure, ratios and order
    structural   computation takes the times measured in the very run; links and hosts stay predicted

A wrong model must not pass: `CONTROLS` are models with one thing wrong, replayed on the same measured task times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from simdep.costs import Costs, Host
from simdep.engine import simulate
from simdep.policies import findep
from simdep.schedule import Kind, Schedule, Task
from simdep.timeline import Timeline

GROUPS = ("AG", "EG")
Model = tuple[Schedule, Costs, Host]


def error_pct(predicted: float, measured: float) -> float:
    return 100 * (predicted - measured) / measured


def own_times(timeline: Timeline, costs: Costs) -> Costs:
    """Measured times of the computations of a run; transfers as in `costs`."""
    rows = timeline.by_task()
    times = (rows["end_us"] - rows["start_us"]).to_dict()
    return lambda task: costs(task) if task.kind.is_transfer else times[task.name]


def _as_measured(task: Task) -> float:
    return 1.0


def _long_experts(task: Task) -> float:
    return 1.2 if task.kind is Kind.EXPERT else 1.0


def structural(model: Model, runs: Sequence[Timeline], factor: Costs = _as_measured) -> float:
    """The median error over runs of a schedule, each re-simulated from its own task times, times `factor`."""
    schedule, costs, host = model
    errors = []
    for run in runs:
        own = own_times(run, costs)
        errors.append(error_pct(_span(schedule, own, factor, host), run.makespan_us))
    return float(np.median(errors))


def _span(schedule: Schedule, costs: Costs, factor: Costs, host: Host) -> float:
    return simulate(schedule, lambda task: factor(task) * costs(task), host).makespan_us


def speeds(model: Model, run: Timeline) -> tuple[float, float]:
    """(AG, EG): measured computation of a run over the predicted one."""
    schedule, costs, _ = model
    rows = run.by_task()
    spent = (rows["end_us"] - rows["start_us"]).groupby(rows["stream"]).sum()
    wanted = [sum(costs(task) for task in schedule.streams[group]) for group in GROUPS]
    return spent["AG"] / wanted[0], spent["EG"] / wanted[1]


def at_speed(model: Model, speed: tuple[float, float]) -> float:
    """The predicted makespan when the groups compute so many times longer."""
    schedule, costs, host = model
    factors = {Kind.ATTENTION: speed[0], Kind.SHARED: speed[0], Kind.EXPERT: speed[1]}
    return _span(schedule, costs, lambda task: factors.get(task.kind, 1.0), host)


def adjusted(model: Model, runs: Sequence[Timeline], reference: tuple[float, float]) -> tuple[float, list[float]]:
    """(predicted makespan at the reference speed, makespan of each run brought to that speed)."""
    predicted = at_speed(model, reference)
    return predicted, [run.makespan_us * predicted / at_speed(model, speeds(model, run)) for run in runs]


def noise_pct(spans: Sequence[float]) -> float:
    """Test-retest difference: between the medians of the even and of the odd runs, relative; 0 for one run."""
    if len(spans) < 2:
        return 0.0
    even, odd = np.median(spans[::2]), np.median(spans[1::2])
    return float(200 * abs(even - odd) / (even + odd))


def order_errors(groups: Sequence[Sequence[tuple[float, Sequence[float]]]]) -> tuple[int, int]:
    """(pairs of schedules of one workload that the measurement tells apart, those that the prediction orders wrongly).

    Each schedule is (predicted, makespans measured); a pair is told apart if the medians differ by more than two
    standard errors of a median, 1.25 s / sqrt(n), taken together.
    """
    apart = wrong = 0
    for group in groups:
        several = [(p, m) for p, m in group if len(m) > 1]
        rows = [(p, float(np.median(m)), 1.25 * float(np.std(m, ddof=1)) / len(m) ** 0.5) for p, m in several]
        for index, (p1, m1, e1) in enumerate(rows):
            for p2, m2, e2 in rows[index + 1 :]:
                if abs(m1 - m2) > 2 * np.hypot(e1, e2):
                    apart += 1
                    wrong += (p1 - p2) * (m1 - m2) < 0
    return apart, wrong


def _slower_link(model: Model) -> Model:
    schedule, costs, host = model
    return schedule, lambda task: (1.1 if task.kind.is_transfer else 1) * costs(task), host


def _half_duplex(model: Model) -> Model:
    return model[0], model[1], replace(model[2], half_duplex=True)


def _unlimited_link(model: Model) -> Model:
    schedule, costs, host = model
    streams = {name: tasks for name, tasks in schedule.streams.items() if not tasks[0].kind.is_transfer}
    streams |= {task.name: (task,) for task in schedule if task.kind.is_transfer}
    return Schedule(streams), costs, host


def _other_order(model: Model) -> Model | None:
    schedule, costs, host = model
    layers, r1, r2 = schedule.layers, schedule.r1, schedule.r2
    names = {o: [task.name for task in findep(layers, r1, r2, o).streams["AG"]] for o in ("ASAS", "AASS")}
    mine = [task.name for task in schedule.streams["AG"]]
    if mine not in names.values() or names["ASAS"] == names["AASS"]:
        return None
    other = names["AASS"] if mine == names["ASAS"] else names["ASAS"]
    return Schedule({**schedule.streams, "AG": tuple(schedule[name] for name in other)}), costs, host


def _lost_dependency(model: Model) -> Model | None:
    """Attention does not wait for the last chunk of its micro-batch to come back."""
    schedule, costs, host = model
    if schedule.layers < 2:
        return None

    def forget(task: Task) -> Task:
        returns = [name for name in task.after if name.startswith("E2A")]
        return replace(task, after=tuple(n for n in task.after if n not in returns[-1:])) if returns else task

    return Schedule({**schedule.streams, "AG": tuple(map(forget, schedule.streams["AG"]))}), costs, host


CONTROLS: dict[str, Callable[[Model], Model | None]] = {
    "link 10 % slower": _slower_link,
    "half duplex": _half_duplex,
    "unlimited link concurrency": _unlimited_link,
    "AASS and ASAS swapped": _other_order,
    "one dependency removed": _lost_dependency,
}


def power(models: Sequence[Model], runs: Sequence[Sequence[Timeline]]) -> pd.DataFrame:
    """A row a wrong model: its structural errors, and whether the data rejects it.

    It is rejected if its absolute errors are larger than the right model's on the same schedules (one-sided Wilcoxon
    signed-rank test, p < 0.01). The last row makes experts 1.2 times as long.
    """
    right = [abs(structural(model, r)) for model, r in zip(models, runs, strict=True)]
    rows = [_row("the model", right, None)]
    for name, change in CONTROLS.items():
        changed = [change(model) for model in models]
        pairs = [(abs(structural(m, r)), e) for m, r, e in zip(changed, runs, right, strict=True) if m is not None]
        rows.append(_row(name, [wrong for wrong, _ in pairs], [e for _, e in pairs]))
    longer = [abs(structural(model, r, _long_experts)) for model, r in zip(models, runs, strict=True)]
    rows.append(_row("experts 1.2 times as long", longer, right))
    return pd.DataFrame(rows, dtype=object)


def _row(name: str, errors: Sequence[float], right: Sequence[float] | None) -> dict[str, object]:
    p_value = None
    if right is not None and len(errors) > 5 and any(e != r for e, r in zip(errors, right, strict=True)):
        p_value = float(stats.wilcoxon(errors, right, alternative="greater").pvalue)
    return {
        "model": name,
        "schedules": len(errors),
        "median %": float(np.median(errors)) if errors else None,
        "p95 %": float(np.quantile(errors, 0.95)) if errors else None,
        "p": p_value,
        "rejected": None if right is None or p_value is None else p_value < 0.01,
    }
