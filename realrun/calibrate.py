"""Calibration: what the ranks' micro-benchmarks say about the machine, as a hardware profile.

All ranks measure at the same time, on the cores and with the neighbours that they have in a run. Times of one point are
joined by a trimmed mean, points by a line fitted on relative error (`simdep.fitting`).
"""

from __future__ import annotations

import datetime
import os
import platform
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from realrun.cases import SHAPED, UNMEASURED, Case
from realrun.measured import timeline_of
from realrun.worker import HOST_LAYERS, stamps_of
from simdep.costs import ScenarioCosts
from simdep.fitting import fit_line, trimmed_mean
from simdep.hardware import Cost, HardwareProfile
from simdep.policies import findep

OPERATIONS: dict[str, Any] = {
    "job": "operations",
    "rows": [8, 32, 128, 512],
    "matrices": [(512, 512), (512, 2048), (2048, 512), (1024, 4096)],
    "experts": [(256, 176), (512, 384), (1024, 704)],
    "attention": [(1, 64, 4, 128), (4, 64, 8, 128), (2, 128, 8, 128), (4, 256, 8, 128), (1, 512, 16, 128)],
}
Key = tuple[str, int, int, str]  # operation, ag, eg, shape
Points = dict[Key, dict[float, list[float]]]  # -> work -> microseconds


def stage_jobs(case_id: str, cases: Sequence[Case]) -> list[dict[str, Any]]:
    """The calibration jobs for cases of one shape, the first of which is `case_id` in the plan."""
    samples = _at_least_three({case.m_a for case in cases})
    chunks = _at_least_three({task.tokens for case in cases for task in case.schedule.streams["A2E"]})
    jobs: list[dict[str, Any]] = [{"job": "host", "case": case_id, "chunks": chunks}]
    if not cases[0].synthetic:
        jobs.append({"job": "stages", "case": case_id, "samples": samples, "chunks": chunks})
    if cases[0].link not in SHAPED:
        jobs.append({"job": "link", "case": case_id, "chunks": chunks})
    return jobs


def collect(points: Points, job: dict[str, Any], ranks: Sequence[dict[str, Any]], case: Case | None) -> None:
    """Add the times of one calibration job, as its ranks returned them, to `points`."""
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
                    points[f"stage.{stage}", *where, shape][float(size)] += [max(call) for call in calls]
        return
    if job["job"] == "host":
        _collect_host(points, ranks, case)
        return
    for stream in ("A2E", "E2A"):
        sides = (ranks[: case.ag], ranks[case.ag :])
        senders, receivers = sides if stream == "A2E" else sides[::-1]
        for index, train in enumerate(senders[0]["trains"]):
            if train["stream"] == stream:
                posted = [rank["trains"][index]["posted"] for rank in senders]
                arrived = [rank["trains"][index]["arrived"] for rank in receivers]
                points[stream.lower(), *where, ""][float(train["bytes"])] += _occupancies(posted, arrived)


def _collect_host(points: Points, ranks: Sequence[dict[str, Any]], case: Case) -> None:
    """From runs with timed waits in the order A0 A1 S0 S1: S1 follows S0 at once, A1 follows two posts of A0's chunks,
    and the first expert task of a micro-batch has waited for its arrival."""
    where = (case.ag, case.eg, "")
    cost = ScenarioCosts(case.scenario(UNMEASURED))
    for tokens in ranks[0]["runs"]:
        schedule = findep(HOST_LAYERS, 2, 2, "AASS", tokens=2 * int(tokens))
        timeline = timeline_of(schedule, case.ag, [stamps_of(rank["runs"][tokens]) for rank in ranks])
        rows = timeline.rows.set_index(["task", "rank"])
        for layer in range(HOST_LAYERS):
            for rank in range(case.ag):
                starts, ends = rows["start_us"], rows["end_us"]
                gap = starts[f"S[{layer}.1]", rank] - ends[f"S[{layer}.0]", rank]
                posts = starts[f"A[{layer}.1]", rank] - ends[f"A[{layer}.0]", rank] - gap
                points["host.gap", *where][0.0].append(gap)
                if layer == 0:  # later ones wait for what comes back
                    points["host.post", *where][cost.transfer_bytes(int(tokens))].append(max(posts / 2, 0.1))
            for rank in range(case.eg):
                name = f"[{layer}.0.0]"
                wake = starts[f"E{name}", rank] - ends[f"A2E{name}", rank]
                points["host.wake", *where][0.0].append(max(wake - gap, 0.0))


def profile_from(points: Points, name: str, description: str) -> HardwareProfile:
    """A profile with a line for every operation that was measured."""
    return HardwareProfile(name, description, tuple(_costs(points)), environment=environment())


def environment() -> dict[str, Any]:
    """What the measurements depend on."""
    cpu = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine())
    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
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
        work = sorted(sizes)
        us = [trimmed_mean(sizes[w]) for w in work]
        calls = sum(map(len, sizes.values()))
        if op in ("host.gap", "host.wake"):
            yield Cost(op, us[0], 0.0, "measured", f"realrun calibrate, {calls} calls", ag, eg)
            continue
        yield fit_line(
            op, work, us, f"realrun calibrate, {calls} calls", ag=ag, eg=eg, shape=shape, keep_points=bool(shape)
        )


def _occupancies(posted: Sequence[Sequence[float]], arrived: Sequence[Sequence[float]]) -> list[float]:
    """Microseconds that each message of a train but the first, cold one holds the link (rule in `realrun.measured`)."""
    sent, ended = (
        [max(times) for times in zip(*posted, strict=True)],
        [max(times) for times in zip(*arrived, strict=True)],
    )
    free = [0.0, *ended[:-1]]
    return [(end - max(start, before)) / 1e3 for start, before, end in zip(sent, free, ended, strict=True)][1:]


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
