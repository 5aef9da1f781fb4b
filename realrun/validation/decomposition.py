"""How good a prediction is, beyond its raw error: what is structure, what is speed, what is noise.

Three errors of a makespan, each 100 * (predicted - measured) / measured:

    raw          costs from calibration alone
    adjusted     the same, with the speed of each group in each run divided out: its measured computation over the
                 predicted one is a control variate, so that what is tested is structure, ratios and order
    structural   computation takes the times measured in the very run; links and hosts stay predicted

A wrong model must not pass: `CONTROLS` are models with one thing wrong, replayed on the same
measured task times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy import stats

from realrun.runtime.stamps import delays
from realrun.validation.scores import error_pct, size
from simdep.costs import IDEAL, Costs, Host
from simdep.policies import findep
from simdep.schedule import Kind, Schedule, Task
from simdep.simulation.engine import makespan_us, simulate
from simdep.timeline import Timeline

GROUPS = ("AG", "EG")
TELLING_PCT = (
    1.0  # difference of two predictions above which a measured makespan can tell which is wrong
)
Model = tuple[Schedule, Costs, Host]


@dataclass(frozen=True)
class Run:
    """A real run as its judges need it: the duration of every task, that of its slowest rank, and
    the makespan."""

    spent: Mapping[str, float]
    makespan_us: float

    @classmethod
    def of(cls, timeline: Timeline) -> Run:
        rows = timeline.rows
        spent = (rows["end_us"] - rows["start_us"]).groupby(rows["task"]).max()
        return cls({str(name): us for name, us in spent.items()}, timeline.makespan_us)

    def own_times(self, costs: Costs) -> Costs:
        """The measured times of computations; transfers as in `costs`."""
        return lambda task: costs(task) if task.kind.is_transfer else self.spent[task.name]


def _as_measured(task: Task) -> float:
    return 1.0


def _long_experts(task: Task) -> float:
    return 1.2 if task.kind is Kind.EXPERT else 1.0


def structural(model: Model, runs: Sequence[Run], factor: Costs = _as_measured) -> float:
    """The median error over runs of a schedule, each re-simulated from its own task times, times
    `factor`."""
    return float(
        np.median([error_pct(replayed(model, run, factor), run.makespan_us) for run in runs])
    )


def replayed(model: Model, run: Run, factor: Costs = _as_measured) -> float:
    """The makespan of a schedule with a run's own task times, times `factor`; links and hosts stay
    predicted.

    What contention took is in the measured times already.
    """
    schedule, costs, host = model
    own = run.own_times(costs)
    return makespan_us(schedule, lambda task: factor(task) * own(task), replace(host, contention=0))


PARTS = ("tasks", "link", "host", "waits")


def parts(model: Model, run: Timeline) -> dict[str, float]:
    """What contributes to the error of a run's makespan, in percent of it.

    The prediction becomes the measurement step by step, and each step's change of the makespan is a
    part: the durations of computation are replaced by the measured ones (`tasks`), then those of
    transfers (`link`), then what passes before a computation that had not to wait and between a
    computation and the start of its message (`host`), then what passes before a computation that
    had waited (`waits`). The parts sum to the error but for the skew of ranks, which rows joined by
    task do not show.
    """
    schedule, costs, host = model
    calm = replace(host, contention=0)  # measured times hold what it took
    spent, rows = Run.of(run).spent, run.by_task()
    starts, ends = (
        dict(zip(rows.index.astype(str), rows[f"{edge}_us"], strict=True))
        for edge in ("start", "end")
    )
    delay = {
        k: v
        for stream in schedule.streams
        for k, v in delays(schedule, stream, starts, ends).items()
    }

    def delayed(task: Task) -> float:
        before, waited = delay[task.name].us, delay[task.name].waited
        return spent[task.name] + (host.gap_us if waited and not task.kind.is_transfer else before)

    spans = [
        makespan_us(schedule, costs, host),
        makespan_us(schedule, Run.of(run).own_times(costs), calm),
        makespan_us(schedule, lambda task: spent[task.name], calm),
        makespan_us(schedule, delayed),
        makespan_us(schedule, lambda task: spent[task.name] + delay[task.name].us),
    ]
    steps = [100 * (one - other) / run.makespan_us for one, other in pairwise(spans)]
    return dict(zip(PARTS, steps, strict=True))


def speeds(schedule: Schedule, predicted: Run, run: Run) -> tuple[float, float]:
    """(AG, EG): measured computation of a run over the predicted one."""
    ag, eg = (
        sum(run.spent[t.name] for t in schedule.streams[group])
        / sum(predicted.spent[t.name] for t in schedule.streams[group])
        for group in GROUPS
    )
    return ag, eg


def at_speed(model: Model, speed: tuple[float, float]) -> float:
    """The predicted makespan when the groups compute so many times longer."""
    schedule, costs, host = model
    factors = {Kind.ATTENTION: speed[0], Kind.SHARED: speed[0], Kind.EXPERT: speed[1]}
    return makespan_us(schedule, lambda task: factors.get(task.kind, 1.0) * costs(task), host)


def adjusted(
    model: Model, runs: Sequence[Run], reference: tuple[float, float]
) -> tuple[float, list[float]]:
    """(predicted makespan at the reference speed, makespan of each run brought to that speed)."""
    predicted, own = at_speed(model, reference), Run.of(simulate(*model))
    factors = (speeds(model[0], own, run) for run in runs)
    return predicted, [
        run.makespan_us * predicted / at_speed(model, f)
        for run, f in zip(runs, factors, strict=True)
    ]


def _slower_link(model: Model) -> Model:
    schedule, costs, host = model
    return schedule, lambda task: (1.1 if task.kind.is_transfer else 1) * costs(task), host


def _half_duplex(model: Model) -> Model:
    return model[0], model[1], replace(model[2], half_duplex=True)


def _unlimited_link(model: Model) -> Model:
    schedule, costs, host = model
    streams = {
        name: tasks for name, tasks in schedule.streams.items() if not tasks[0].kind.is_transfer
    }
    streams |= {task.name: (task,) for task in schedule if task.kind.is_transfer}
    return Schedule(streams), costs, host


def _other_order(model: Model) -> Model | None:
    schedule, costs, host = model
    layers, r1, r2 = schedule.layers, schedule.r1, schedule.r2
    names = {
        o: [task.name for task in findep(layers, r1, r2, o).streams["AG"]] for o in ("ASAS", "AASS")
    }
    mine = [task.name for task in schedule.streams["AG"]]
    if mine not in names.values() or names["ASAS"] == names["AASS"]:
        return None
    other = names["AASS"] if mine == names["ASAS"] else names["ASAS"]
    return (
        Schedule({**schedule.streams, "AG": tuple(schedule[name] for name in other)}),
        costs,
        host,
    )


def _lost_dependency(model: Model) -> Model | None:
    """Attention does not wait for the last chunk of its micro-batch to come back."""
    schedule, costs, host = model
    if schedule.layers < 2:
        return None

    def forget(task: Task) -> Task:
        returns = [name for name in task.after if name.startswith("E2A")]
        return (
            replace(task, after=tuple(n for n in task.after if n not in returns[-1:]))
            if returns
            else task
        )

    return (
        Schedule({**schedule.streams, "AG": tuple(map(forget, schedule.streams["AG"]))}),
        costs,
        host,
    )


TERMS: dict[str, Callable[[Host], Host]] = {
    "gap": lambda host: replace(host, gap_us=0),
    "receive": lambda host: replace(host, receive_us=0),
    "post": lambda host: replace(host, post_us=IDEAL.post_us),
    "contention": lambda host: replace(host, contention=0),
    "all": lambda host: IDEAL,
}


def terms(models: Sequence[Model], runs: Sequence[Sequence[Run]]) -> list[dict[str, object]]:
    """What each term of the host buys: the errors, raw and structural, of the model without it.

    The first row is the model; a term that no model has has no row.
    """
    rows: list[dict[str, object]] = []
    for name, off in {"nothing": lambda host: host, **TERMS}.items():
        without = [(schedule, costs, off(host)) for schedule, costs, host in models]
        if name != "nothing" and all(
            one[2] == other[2] for one, other in zip(models, without, strict=True)
        ):
            continue
        pairs = list(zip(without, runs, strict=True))
        raw = [
            error_pct(makespan_us(*m), float(np.median([run.makespan_us for run in own])))
            for m, own in pairs
        ]
        own_times = [structural(m, own) for m, own in pairs]
        rows.append({"without": name, "raw": size(raw), "structural": size(own_times)})
    return rows


CONTROLS: dict[str, Callable[[Model], Model | None]] = {
    "link 10 % slower": _slower_link,
    "half duplex": _half_duplex,
    "unlimited link concurrency": _unlimited_link,
    "AASS and ASAS swapped": _other_order,
    "one dependency removed": _lost_dependency,
}


def power(models: Sequence[Model], runs: Sequence[Sequence[Run]]) -> pd.DataFrame:
    """A row a wrong model: its structural errors, and whether the data rejects it.

    It is rejected if its absolute errors are larger than the right model's (one-sided Wilcoxon
    signed-rank test, p < 0.01) on the schedules that can tell: those for which the two predict
    makespans over `TELLING_PCT` apart. With fewer than six of them it is neither rejected nor
    accepted. The last row makes experts 1.2 times as long.
    """
    right = [structural(model, r) for model, r in zip(models, runs, strict=True)]
    rows = [_row("the model", right, None)]
    for name, change in CONTROLS.items():
        changed = [change(model) for model in models]
        pairs = [
            (structural(m, r), e)
            for m, r, e in zip(changed, runs, right, strict=True)
            if m is not None
        ]
        rows.append(_row(name, [wrong for wrong, _ in pairs], [e for _, e in pairs]))
    longer = [structural(model, r, _long_experts) for model, r in zip(models, runs, strict=True)]
    rows.append(_row("experts 1.2 times as long", longer, right))
    return pd.DataFrame(rows, dtype=object)


def _row(name: str, errors: Sequence[float], right: Sequence[float] | None) -> dict[str, object]:
    p_value = None
    if right is not None:
        telling = [
            (abs(e), abs(r)) for e, r in zip(errors, right, strict=True) if abs(e - r) > TELLING_PCT
        ]
        errors = [e for e, _ in telling]
        if len(telling) > 5:
            p_value = float(
                stats.wilcoxon(errors, [r for _, r in telling], alternative="greater").pvalue
            )
    errors = np.abs(errors).tolist()
    return {
        "model": name,
        "schedules": len(errors),
        "median %": float(np.median(errors)) if errors else None,
        "p95 %": float(np.quantile(errors, 0.95)) if errors else None,
        "p": p_value,
        "rejected": None if right is None or p_value is None else p_value < 0.01,
    }
