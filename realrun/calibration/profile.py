"""Calibration: what the ranks' micro-benchmarks say about the machine, as a hardware profile.

All ranks measure at the same time, on the cores and with the neighbours that they have in a run.
Times of one point are joined by a trimmed mean, points by a line fitted on relative error
(`simdep.calibration.fit_line`). A line that misses its own points by more than `MAX_MAPE_PCT` is
refused; costs that go through their points are examined by how far the two halves of the
measurement are apart (`realrun.calibration.effects`).
"""

from __future__ import annotations

import datetime
import os
import platform
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from realrun.calibration.effects import contention
from realrun.calibration.points import PointKey, Points
from realrun.cases import Case
from simdep.calibration.fit_line import fit_line, trimmed_mean
from simdep.hardware.profile import COST_OPERATIONS, HOST_OPERATIONS, Cost, HardwareProfile
from simdep.scenario.task_costs import ScenarioCosts
from simdep.timeline import Timeline

MAX_MAPE_PCT = 5.0
_CONSTANT = ("host.gap", "host.receive")  # costs without a slope


def profile_from(points: Points, name: str, description: str) -> HardwareProfile:
    """A profile with a cost for every operation that was measured; `refusals` says which of them to
    distrust."""
    costs = tuple(_costs(points))
    return HardwareProfile(name, description, costs, environment=machine_environment())


def for_any_transport(profile: HardwareProfile, case: Case) -> HardwareProfile:
    """The profile of a machine whose one transport is that of the case: its costs of link and host
    hold for any."""
    costs = [
        replace(cost, shape="") if cost.shape == case.transport else cost for cost in profile.costs
    ]
    if case.kept_link is not None:
        costs.append(case.kept_link)
    return replace(profile, costs=tuple(costs))


def refusals(profile: HardwareProfile) -> dict[Cost, str]:
    """The lines of a profile that miss their own points by more than `MAX_MAPE_PCT`, each with a
    sentence on it.

    Host overheads are no part of it: they are microseconds beside tasks of milliseconds.
    """
    reasons = {}
    for cost in profile.costs:
        is_line = cost.fit is not None and not cost.points and cost.op not in HOST_OPERATIONS
        if is_line and cost.fit and cost.fit.mape_pct > MAX_MAPE_PCT:
            reasons[cost] = (
                f"{cost.op}: its line misses its own points by {cost.fit.mape_pct:.1f} % on "
                f"average (limit {MAX_MAPE_PCT:g} %; R2 {cost.fit.r2:.4f})"
            )
    return reasons


@dataclass
class _Spent:
    """Microseconds of computation in training runs."""

    measured: float = 0.0
    predicted: float = 0.0


def in_situ(
    profile: HardwareProfile, measured: Sequence[tuple[Case, Sequence[Timeline]]]
) -> HardwareProfile:
    """The profile with its stage costs brought to the speed of some training schedules.

    Every stage of a shape is scaled by the computation measured in the schedules of that shape over
    that predicted.
    """
    spent: dict[PointKey, _Spent] = defaultdict(_Spent)
    for case, runs in measured:
        costs = ScenarioCosts(case.scenario_on(profile))
        for run in runs:
            for name, us in _computation_us(run).items():
                task = case.schedule[name]
                stage = PointKey(task.kind.label, case.ag, case.eg, case.scenario.shape)
                spent[stage].measured += us
                spent[stage].predicted += costs(task)
    scaled = tuple(_scaled(cost, spent) for cost in profile.costs)
    return replace(profile, name=f"{profile.name}, in situ", costs=scaled)


def _computation_us(run: Timeline) -> dict[str, float]:
    """Task -> duration on its slowest rank."""
    rows = run.rows[~run.rows["stream"].isin(("A2E", "E2A"))]
    times = (rows["end_us"] - rows["start_us"]).groupby(rows["task"]).max()
    return {str(name): us for name, us in times.items()}


def _scaled(cost: Cost, spent: Mapping[PointKey, _Spent]) -> Cost:
    # Attention tasks begin with the combine
    stage = cost.op.removeprefix("stage.").replace("combine", "attention")
    training = spent.get(PointKey(stage, cost.ag, cost.eg, cost.shape))
    if not cost.op.startswith("stage.") or training is None or not training.predicted:
        return cost
    factor = training.measured / training.predicted
    return replace(
        cost,
        alpha_us=cost.alpha_us * factor,
        beta_us=cost.beta_us * factor,
        points=tuple((work, us * factor) for work, us in cost.points),
        source=f"{cost.source}, times {factor:.3f} in situ",
    )


def machine_environment() -> dict[str, Any]:
    """What the measurements depend on."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "gpus": [torch.cuda.get_device_name(index) for index in range(gpus)],
        "torch": torch.__version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "threads_per_rank": 1,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.machine()


def _costs(points: Points) -> Iterator[Cost]:
    for (op, ag, eg, shape), of_work in sorted(points.items()):
        if op == "slowdown":
            share = contention(of_work)
            if share:
                source = "realrun calibrate, on/off"
                yield Cost("host.contention", share, 0.0, "measured", source, ag, eg, shape)
        if op not in COST_OPERATIONS:
            continue
        work = sorted(of_work)
        us = [trimmed_mean(of_work[value]) for value in work]
        source = f"realrun calibrate, {sum(map(len, of_work.values()))} calls"
        if op in _CONSTANT:
            yield Cost(op, us[0], 0.0, "measured", source, ag, eg, shape)
        else:
            # Stages of a shape are asked for the very sizes that were measured: keep their points
            keep = bool(shape)
            yield fit_line(op, work, us, source, ag=ag, eg=eg, shape=shape, keep_points=keep)
