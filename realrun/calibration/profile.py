"""Calibration: what the ranks' micro-benchmarks say about the machine, as a hardware profile.

All ranks measure at the same time, on the cores and with the neighbours that they have in a run.
Times of one point are joined by a trimmed mean, points by a line fitted on relative error
(`simdep.calibration.fit_line`). A line that misses its own points by more than `MOST_MAPE_PCT` is
refused; costs that go through their points are judged by how far the two halves of the measurement
are apart.
"""

from __future__ import annotations

import datetime
import os
import platform
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats

from realrun.calibration.benchmarks import HOST_LAYERS
from realrun.cases import SHAPED, UNMEASURED, Case
from realrun.runtime.stamps import delays, stamps_of, timeline_of
from simdep.calibration.fit_line import fit_line, trimmed_mean
from simdep.hardware.profile import HOST, Cost, HardwareProfile
from simdep.hardware.profile import OPERATIONS as KNOWN
from simdep.policies import findep
from simdep.scenario.task_costs import ScenarioCosts
from simdep.schedule import Schedule
from simdep.simulation.engine import posts_after
from simdep.timeline import Timeline

OPERATIONS: dict[str, Any] = {
    "job": "operations",
    "rows": [8, 32, 128, 512],
    "matrices": [(512, 512), (512, 2048), (2048, 512), (1024, 4096)],
    "experts": [(256, 176), (512, 384), (1024, 704)],
    "attention": [
        (1, 64, 4, 128),
        (4, 64, 8, 128),
        (2, 128, 8, 128),
        (4, 256, 8, 128),
        (1, 512, 16, 128),
    ],
}
MOST_MAPE_PCT = 5.0
TRAIN_US, MOST_IN_TRAIN, PRODUCT_US = 50_000.0, 64, 80.0  # of an interference measurement
_AS_FAST_AS_IT_GOES = {"lo": 1e3, "nccl": 1e5}  # MB/s, about
Key = tuple[str, int, int, str]  # operation, ag, eg, shape
Points = dict[
    Key, dict[float, list[float]]
]  # -> work -> microseconds; see `collect` for what is no operation


def stage_jobs(cases: Mapping[str, Case]) -> list[dict[str, Any]]:
    """The calibration jobs for cases of one shape, by their ids in the plan."""
    first, *_ = cases
    samples = _at_least_three({case.m_a for case in cases.values()})
    chunks = _at_least_three(
        {task.tokens for case in cases.values() for task in case.schedule.streams["A2E"]}
    )
    jobs: list[dict[str, Any]] = []
    if not cases[first].synthetic:
        jobs.append({"job": "stages", "case": first, "samples": samples, "chunks": chunks})
    for case_id in {case.transport: case_id for case_id, case in cases.items()}.values():
        case = cases[case_id]
        jobs.append({"job": "host", "case": case_id, "chunks": chunks})
        if case.link != "shm":  # there the runner itself delivers on time, at no cost
            jobs.append({"job": "link", "case": case_id, "chunks": chunks[:3]})
        if not case.synthetic:
            jobs.append({"job": "interference", "case": case_id, **_train(case, chunks[-1])})
    return jobs


def _train(case: Case, tokens: int) -> dict[str, int]:
    """A train of messages that takes about `TRAIN_US` at the speed of the case's link, with chunks
    of at most `tokens`, and as many products."""
    one = ScenarioCosts(case.scenario(UNMEASURED)).transfer_bytes(1)
    rate = _AS_FAST_AS_IT_GOES.get(case.link, case.link_mbytes_per_s)
    chunk = min(tokens, max(1, round(TRAIN_US / 8 * rate / one)))
    messages = max(4, min(MOST_IN_TRAIN, round(TRAIN_US * rate / (chunk * one))))
    return {"chunk": chunk, "messages": messages, "products": round(TRAIN_US / PRODUCT_US)}


def collect(
    points: Points, job: dict[str, Any], ranks: Sequence[dict[str, Any]], case: Case | None
) -> None:
    """Add the times of one calibration job, as its ranks returned them, to `points`.

    Beside the operations of `simdep.hardware.profile`, `duplex.a2e` and `duplex.e2a` are messages
    (bytes -> us) while the other direction is busy; `slowdown` is computation beside transfers over
    computation alone, by rank; `mbytes_per_s.alone` and `mbytes_per_s.beside` are what each
    direction (0: A2E) then carries without and with computation.
    """
    if job["job"] == "operations":
        for op, work, values in (row for rank in ranks for row in rank["operations"]):
            points[op, 0, 0, ""][work] += values
        return
    assert case is not None
    where = (case.ag, case.eg)
    if job["job"] == "stages":
        shape = case.scenario(UNMEASURED).shape
        for members in (ranks[: case.ag], ranks[case.ag :]):
            for stage, sizes in members[0]["times"].items():
                for size in sizes:
                    # a task of a group ends when its slowest rank ends
                    calls = zip(*(rank["times"][stage][size] for rank in members), strict=True)
                    points[f"stage.{stage}", *where, shape][float(size)] += [
                        max(call) for call in calls
                    ]
        return
    if job["job"] == "host":
        _collect_host(points, ranks, case)
        return
    if job["job"] == "interference":
        _collect_interference(points, ranks, case)
        return
    for index, train in enumerate(ranks[0]["trains"]):
        for stream in train["streams"]:
            op = stream.lower() if len(train["streams"]) == 1 else f"duplex.{stream.lower()}"
            posted, arrived = _stamps_of_train(
                [rank["trains"][index] for rank in ranks], stream, case.ag
            )
            points[op, *where, case.transport][float(train["bytes"])] += _occupancies(
                posted, arrived
            )


def _stamps_of_train(
    rows: Sequence[dict[str, Any]], stream: str, ag: int
) -> tuple[list[list[float]], list[list[float]]]:
    """(posts of every sender, arrivals at every receiver) of the messages of one direction."""
    sides = (rows[:ag], rows[ag:])
    senders, receivers = sides if stream == "A2E" else sides[::-1]
    return [row["posted"] for row in senders], [row["arrived"] for row in receivers]


def _collect_interference(points: Points, ranks: Sequence[dict[str, Any]], case: Case) -> None:
    where = (case.ag, case.eg, case.transport)
    both = [rank["both"] for rank in ranks]
    busy_until = min(max(row["arrived"]) for row in both)
    for rank, row in enumerate(ranks):
        alone = np.diff(row["compute"]["products"])
        marks = np.array(row["both"]["products"])
        beside = np.diff(marks)[marks[1:] < busy_until]
        if len(beside):
            points["slowdown", *where][float(rank)].append(float(np.mean(beside) / np.mean(alone)))
    if case.link == "shm":
        return  # transfers are on time by construction
    for direction, stream in enumerate(("A2E", "E2A")):
        for op, rows in (("alone", [rank["transfer"] for rank in ranks]), ("beside", both)):
            posted, arrived = _stamps_of_train(rows, stream, case.ag)
            spent_us = (max(map(max, arrived)) - min(map(min, posted))) / 1e3
            moved = len(arrived[0]) * ranks[0]["bytes"]
            points[f"mbytes_per_s.{op}", *where][float(direction)].append(moved / spent_us)


def _collect_host(points: Points, ranks: Sequence[dict[str, Any]], case: Case) -> None:
    """From runs with timed waits: what passes between two of them that had not to wait is the
    host's doing.

    It is a gap, a posting for each message of the earlier task, and a taking in of each message
    that the later needs.
    """
    where = (case.ag, case.eg, case.transport)
    cost = ScenarioCosts(case.scenario(UNMEASURED))
    for tokens in ranks[0]["runs"]:
        schedule = findep(HOST_LAYERS, 2, 2, "AASS", tokens=2 * int(tokens))
        timeline = timeline_of(
            schedule, case.ag, [stamps_of(rank["runs"][tokens]) for rank in ranks]
        )
        found: dict[tuple[int, int], list[float]] = defaultdict(list)
        for group, size in (("AG", case.ag), ("EG", case.eg)):
            for rank in range(size):
                for counts, us in _pauses(
                    schedule, group, timeline.rows[timeline.rows["rank"] == rank]
                ):
                    found[counts].append(us)
        points["host.gap", *where][0.0] += found[0, 0]
        gap = trimmed_mean(found[0, 0])
        posting = [
            (posted, us)
            for (posted, taken), values in found.items()
            if posted and not taken
            for us in values
        ]
        posts = [max((us - gap) / posted, 0.1) for posted, us in posting]
        points["host.post", *where][cost.transfer_bytes(int(tokens))] += posts
        post = trimmed_mean(posts)
        for (posted, taken), values in found.items():
            if taken:
                points["host.receive", *where][0.0] += [
                    max((us - gap - posted * post) / taken, 0.0) for us in values
                ]


def _pauses(
    schedule: Schedule, group: str, rows: pd.DataFrame
) -> Iterable[tuple[tuple[int, int], float]]:
    """((messages posted before, messages taken in), microseconds) ahead of the tasks of a rank that
    had not to wait."""
    posts = posts_after(schedule)
    starts, ends = (
        dict(zip(rows["task"], rows[f"{edge}_us"], strict=True)) for edge in ("start", "end")
    )
    delay = delays(schedule, group, starts, ends)
    for last, task in pairwise(schedule.streams[group]):
        us, waited = delay[task.name]
        if not waited:
            taken = sum(schedule[name].kind.is_transfer for name in task.after)
            yield (len(posts.get(last.name, ())), taken), us


def profile_from(points: Points, name: str, description: str) -> HardwareProfile:
    """A profile with a cost for every operation that was measured; `refusals` says which of them to
    distrust."""
    return HardwareProfile(name, description, tuple(_costs(points)), environment=environment())


def for_any_transport(profile: HardwareProfile, case: Case) -> HardwareProfile:
    """The profile of a machine whose one transport is that of the case: its costs of link and host
    hold for any."""
    costs = tuple(
        replace(cost, shape="") if cost.shape == case.transport else cost for cost in profile.costs
    )
    return replace(profile, costs=(*costs, case.kept_link) if case.link in SHAPED else costs)


def refusals(profile: HardwareProfile) -> dict[Cost, str]:
    """The lines of a profile that miss their own points by more than `MOST_MAPE_PCT`, each with a
    sentence on it.

    Host terms are no part of it: they are microseconds beside tasks of milliseconds.
    """
    return {
        cost: f"{cost.op}: its line misses its own points by {cost.fit.mape_pct:.1f} % on average (limit "
        f"{MOST_MAPE_PCT:g} %; R2 {cost.fit.r2:.4f})"
        for cost in profile.costs
        if cost.fit
        and not cost.points
        and cost.op not in HOST
        and cost.fit.mape_pct > MOST_MAPE_PCT
    }


def halves(points: Points) -> list[dict[str, Any]]:
    """How far the first and the second half of each measured stage and link are apart, in
    percent."""
    return [
        {"operation": op, "ranks": f"{ag}+{eg}", "for": shape, "halves_pct": _halves_pct(sizes)}
        for (op, ag, eg, shape), sizes in sorted(points.items())
        if op in KNOWN and op not in HOST
    ]


def in_situ(
    profile: HardwareProfile, measured: Sequence[tuple[Case, Sequence[Timeline]]]
) -> HardwareProfile:
    """The profile with its stage costs brought to the speed of some training schedules.

    Every stage of a shape is scaled by the computation measured in the schedules of that shape over
    that predicted.
    """
    spent: dict[tuple[str, int, int, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for case, runs in measured:
        price = ScenarioCosts(case.scenario(profile))
        for run in runs:
            rows = run.rows[~run.rows["stream"].isin(("A2E", "E2A"))]
            times = (rows["end_us"] - rows["start_us"]).groupby(rows["task"]).max()
            for name, us in times.items():
                task = case.schedule[str(name)]
                found = spent[task.kind.label, case.ag, case.eg, price.scenario.shape]
                found[0] += us
                found[1] += price(task)

    def scaled(cost: Cost) -> Cost:
        kind = cost.op.removeprefix("stage.").replace(
            "combine", "attention"
        )  # attention tasks begin with the combine
        real, predicted = spent.get((kind, cost.ag, cost.eg, cost.shape), (0.0, 0.0))
        if not cost.op.startswith("stage.") or not predicted:
            return cost
        factor = real / predicted
        return replace(
            cost,
            alpha_us=cost.alpha_us * factor,
            beta_us=cost.beta_us * factor,
            points=tuple((work, us * factor) for work, us in cost.points),
            source=f"{cost.source}, times {factor:.3f} in situ",
        )

    return replace(
        profile, name=f"{profile.name}, in situ", costs=tuple(map(scaled, profile.costs))
    )


def interference(points: Points) -> list[dict[str, Any]]:
    """What transfers and computation take from each other, a row a deployment and transport, with
    95 % intervals."""
    rows = []
    for op, ag, eg, transport in sorted(points):
        if op != "slowdown":
            continue
        of_ranks = points[op, ag, eg, transport]
        alone, beside = (
            points.get((f"mbytes_per_s.{name}", ag, eg, transport), {})
            for name in ("alone", "beside")
        )
        directions = ((0.0, "A2E"), (1.0, "E2A"))
        rows.append(
            {
                "ranks": f"{ag}+{eg}",
                "transport": transport,
                "compute_slowdown": {
                    group: _mean_ci([x for rank in members for x in of_ranks.get(float(rank), [])])
                    for group, members in (("AG", range(ag)), ("EG", range(ag, ag + eg)))
                },
                "mbytes_per_s_alone": {name: _mean_ci(alone[d]) for d, name in directions if alone},
                "mbytes_per_s_computing": {
                    name: _mean_ci(beside[d]) for d, name in directions if beside
                },
                "contention": _contention(of_ranks),
            }
        )
    return rows


def link_speeds(points: Points) -> list[dict[str, Any]]:
    """What links that carry payload achieve: start-up and rate of each direction, alone and in
    duplex."""
    rows = []
    for (op, ag, eg, transport), sizes in sorted(points.items()):
        if op.removeprefix("duplex.") not in ("a2e", "e2a"):
            continue
        work = sorted(sizes)
        line = fit_line(op, work, [trimmed_mean(sizes[w]) for w in work], "")
        fit = line.fit
        assert fit is not None
        rows.append(
            {
                "ranks": f"{ag}+{eg}",
                "transport": transport,
                "direction": op.removeprefix("duplex.").upper(),
                "other direction": "busy" if op.startswith("duplex.") else "idle",
                "alpha_us": line.alpha_us,
                "alpha_ci_us": list(fit.alpha_ci_us),
                "mbytes_per_s": 1 / line.beta_us if line.beta_us else None,
                "mape_pct": fit.mape_pct,
            }
        )
    return rows


def environment() -> dict[str, Any]:
    """What the measurements depend on."""
    cpu = next(
        (line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")),
        platform.machine(),
    )
    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        if torch.cuda.is_available()
        else []
    )
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "gpus": gpus,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "threads_per_rank": 1,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def new_points() -> Points:
    return defaultdict(lambda: defaultdict(list))


def _costs(points: Points) -> Iterable[Cost]:
    for (op, ag, eg, shape), sizes in sorted(points.items()):
        if op == "slowdown":
            share = _contention(sizes)
            if share:
                yield Cost(
                    "host.contention",
                    share,
                    0.0,
                    "measured",
                    "realrun calibrate, on/off",
                    ag,
                    eg,
                    shape,
                )
        if op not in KNOWN:
            continue
        work = sorted(sizes)
        us = [trimmed_mean(sizes[w]) for w in work]
        calls = sum(map(len, sizes.values()))
        if op in ("host.gap", "host.receive"):
            yield Cost(
                op, us[0], 0.0, "measured", f"realrun calibrate, {calls} calls", ag, eg, shape
            )
            continue
        yield fit_line(
            op,
            work,
            us,
            f"realrun calibrate, {calls} calls",
            ag=ag,
            eg=eg,
            shape=shape,
            keep_points=bool(shape),
        )


def _occupancies(
    posted: Sequence[Sequence[float]], arrived: Sequence[Sequence[float]]
) -> list[float]:
    """Microseconds that each message of a train but the first, cold one holds the link (rule in
    `realrun.runtime.stamps`)."""
    sent, ended = (
        [max(times) for times in zip(*posted, strict=True)],
        [max(times) for times in zip(*arrived, strict=True)],
    )
    free = [0.0, *ended[:-1]]
    return [
        (end - max(start, before)) / 1e3
        for start, before, end in zip(sent, free, ended, strict=True)
    ][1:]


def _contention(slowdowns: Mapping[float, Sequence[float]]) -> float:
    """The share of computing speed that one transfer takes, from slow-downs beside two; 0 if it may
    be noise."""
    low, mean, _ = _mean_ci([1 - 1 / value for values in slowdowns.values() for value in values])
    return mean / 2 if low > 0 else 0.0


def _mean_ci(values: Sequence[float]) -> tuple[float, float, float]:
    """(low, mean, high): the mean and its 95 % interval, without width for a single value; zeros
    for none."""
    if not values:
        return 0.0, 0.0, 0.0
    mean = float(np.mean(values))
    reach = (
        float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)) if len(values) > 1 else 0.0
    )
    return mean - reach, mean, mean + reach


def _halves_pct(sizes: Mapping[float, Sequence[float]]) -> float:
    """Mean relative difference of the points of the first and of the second half of a
    measurement."""
    pairs = [
        (trimmed_mean(values[: len(values) // 2]), trimmed_mean(values[len(values) // 2 :]))
        for values in sizes.values()
        if len(values) > 1
    ]
    return (
        float(np.mean([200 * abs(one - other) / (one + other) for one, other in pairs]))
        if pairs
        else 0.0
    )


def _at_least_three(sizes: set[int]) -> list[int]:
    """The sizes, with neighbours added where they are too few to fit a line."""
    sizes = set(sizes)
    while len(sizes) < 3:
        sizes.add(2 * max(sizes))
    return sorted(sizes)


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
