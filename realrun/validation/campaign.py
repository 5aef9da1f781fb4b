"""A campaign: cases really run in rounds, with calibration in between, on one deployment after
another.

Every round holds every case once and the calibration of every shape once, in random order, so that
a machine whose speed drifts slows the measurements that are compared alike. What has been measured
stays in the run folder: an interrupted campaign goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from realrun.backends.netns import Namespaces
from realrun.calibration.profile import OPERATIONS, Points, collect, new_points, stage_jobs
from realrun.cases import Case
from realrun.runtime.stamps import stamps_of, timeline_of
from realrun.runtime.world import spawn
from realrun.worker import work
from simdep.timeline import Timeline

MOST_LOST = 0.05  # share of a run that a rank may be kept from its own core; above it other programs were at work
Progress = Callable[[int, int], None]  # jobs done, jobs in all


@dataclass(frozen=True)
class Campaign:
    """`rounds` rounds of `runs` of the cases and of calibration; `operations` adds operations of
    any shape to it."""

    cases: Sequence[Case]
    rounds: int
    seed: int = 0
    runs: bool = True
    calibrate: bool = True
    operations: bool = False
    backend: str = "auto"


@dataclass
class Measurements:
    """What a campaign found: the timelines of each case in order of measurement, and calibration
    points."""

    timelines: dict[int, list[Timeline]] = field(default_factory=dict)
    disturbed: dict[int, list[Timeline]] = field(default_factory=dict)
    points: Points = field(default_factory=new_points)

    def only(self, indices: Sequence[int]) -> Measurements:
        """These cases, numbered anew, with all calibration points."""
        timelines, disturbed = (
            {new: kind[old] for new, old in enumerate(indices) if old in kind}
            for kind in (self.timelines, self.disturbed)
        )
        return Measurements(timelines, disturbed, self.points)

    def early(self) -> Points:
        """The first fifth of each calibration point."""
        return {
            key: {work: values[: max(1, len(values) // 5)] for work, values in sizes.items()}
            for key, sizes in self.points.items()
        }

    def runs(self, index: int) -> list[Timeline]:
        """The undisturbed runs of a case; all of them if none was left alone."""
        return self.timelines.get(index) or self.disturbed[index]


def measure(
    campaign: Campaign, folder: Path, progress: Progress = lambda done, total: None
) -> Measurements:
    """Run a campaign, or the rest of it, in `folder`; raises RuntimeError naming a rank that
    failed.

    Raises ValueError if the folder holds another campaign.
    """
    plans = list(_plans(campaign))
    total, done = sum(len(plan["jobs"]) for plan in plans), 0
    found = Measurements()
    for plan in plans:
        place = folder / f"ranks-{plan['ag']}+{plan['eg']}"
        results = place / "results.jsonl"
        _keep_plan(plan, place / "plan.json")
        before = done

        def watch(results: Path = results, before: int = before) -> None:
            progress(before + _lines(results), total)

        if _lines(results) < len(plan["jobs"]):
            command = ["-m", "realrun.worker", str(place / "plan.json"), str(results)]
            with _network(plan) as network:
                spawn(command, plan["ag"], plan["eg"], place, watch, network)
        done += len(plan["jobs"])
        progress(done, total)
        read_results(plan, results, campaign.cases, found)
    return found


def measure_here(campaign: Campaign, folder: Path) -> Measurements | None:
    """Run a campaign of one deployment as one of the ranks that torchrun started; None on all ranks
    but rank 0."""
    (plan,) = _plans(campaign)
    place = folder / "ranks"
    leads = int(os.environ["RANK"]) == 0
    if leads:
        _keep_plan(plan, place / "plan.json")
    results = place / ("results.jsonl" if leads else "none")
    work(plan, results)
    if not leads:
        return None
    found = Measurements()
    read_results(plan, results, campaign.cases, found)
    return found


def read_results(
    plan: dict[str, Any], results: Path, cases: Sequence[Case], found: Measurements
) -> None:
    """Add the results of a plan to `found`.

    A run is disturbed, and kept apart, if a rank that has a core of its own was kept from it for
    more than `MOST_LOST` of the run, by another program or by the host.
    """
    own_cores = len(os.sched_getaffinity(0)) >= plan["ag"] + plan["eg"]
    for line in results.read_text().splitlines():
        row = json.loads(line)
        job = plan["jobs"][row["index"]]
        index = int(job["case"]) if "case" in job else -1
        if job["job"] == "run":
            case = cases[index]
            meta = {
                "round": job["round"],
                "sentinel_us": [sum(rank["sentinel_ns"]) / 2e3 for rank in row["ranks"]],
            }
            timeline = timeline_of(
                case.schedule, case.ag, [stamps_of(rank) for rank in row["ranks"]], meta
            )
            lost = max(rank["lost_ns"] for rank in row["ranks"]) / 1e3
            kept = lost <= MOST_LOST * timeline.makespan_us or not own_cores
            (found.timelines if kept else found.disturbed).setdefault(index, []).append(timeline)
        elif job["job"] not in ("learn", "output"):
            collect(found.points, job, row["ranks"], cases[index] if index >= 0 else None)


def _plans(campaign: Campaign) -> Iterator[dict[str, Any]]:
    """One plan a deployment (ag, eg), shape after shape: ranks hold the weights of one shape at a
    time."""
    draw = random.Random(campaign.seed)
    numbered = list(enumerate(campaign.cases))
    for ag, eg in sorted({(case.ag, case.eg) for case in campaign.cases}):
        jobs: list[dict[str, Any]] = []
        mine = [(str(index), case) for index, case in numbered if (case.ag, case.eg) == (ag, eg)]
        for shape in dict.fromkeys(case.shape for _, case in mine):
            same = [(index, case) for index, case in mine if case.shape == shape]
            runs = [{"job": "run", "case": index} for index, _ in same] if campaign.runs else []
            extra = stage_jobs(dict(same)) if campaign.calibrate else []
            extra += [OPERATIONS] if campaign.operations else []
            jobs += [{"job": "learn", "case": index} for index, _ in same]
            for number in range(campaign.rounds):
                jobs += [
                    {**job, "round": number}
                    for job in draw.sample(runs + extra, len(runs) + len(extra))
                ]
        cases = {index: case.plan_entry() for index, case in mine}
        yield {
            "ag": ag,
            "eg": eg,
            "backend": campaign.backend,
            "seed": campaign.seed,
            "cases": cases,
            "jobs": jobs,
        }


def _network(plan: dict[str, Any]) -> AbstractContextManager[Namespaces | None]:
    """What the ranks of a plan stand in: two network namespaces if the kernel keeps the speed of
    their link."""
    return (
        Namespaces()
        if any(case["link"] == "tbf" for case in plan["cases"].values())
        else nullcontext()
    )


def _keep_plan(plan: dict[str, Any], path: Path) -> None:
    text = json.dumps(plan)
    if path.exists() and path.read_text() != text:
        raise ValueError(f"{path.parent} holds the results of another campaign; give another --out")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
