"""A campaign: cases really run in rounds, with calibration in between, on one deployment after
another.

Every round holds every case once and the calibration of every shape once, in random order, so that
a machine whose speed drifts slows the measurements that are compared alike. What has been measured
stays in the run folder: an interrupted campaign goes on where it stopped.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from realrun.backends.netns import Namespaces
from realrun.calibration.jobs import OPERATION_SIZES, stage_jobs
from realrun.calibration.points import Points, collect, new_points
from realrun.cases import Case
from realrun.plan import Plan, results_of
from realrun.runtime.launch import spawn
from realrun.runtime.stamps import Stamps, timeline_of
from realrun.worker import work_through
from simdep import files
from simdep.checks import InputError
from simdep.file_kinds import PLAN
from simdep.timeline import Timeline

# Share of a run that a rank may be kept from its own core; above it other programs were at work
MAX_LOST = 0.05
MAX_RUNS = 100_000
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

    def __post_init__(self) -> None:
        """Raises InputError for more runs than a campaign can hold."""
        runs = self.rounds * len(self.cases)
        if runs > MAX_RUNS:
            raise InputError(
                f"--rounds={self.rounds}: {runs:,} runs; a campaign has at most {MAX_RUNS:,}"
            )


@dataclass
class CampaignMeasurements:
    """What a campaign measured: the timelines of each case in order of measurement, and calibration
    points."""

    timelines: dict[int, list[Timeline]] = field(default_factory=dict)
    disturbed: dict[int, list[Timeline]] = field(default_factory=dict)
    points: Points = field(default_factory=new_points)

    def only(self, indices: Sequence[int]) -> CampaignMeasurements:
        """These cases, numbered anew, with all calibration points."""
        return CampaignMeasurements(
            _renumbered(self.timelines, indices), _renumbered(self.disturbed, indices), self.points
        )

    def runs(self, index: int) -> list[Timeline]:
        """The undisturbed runs of a case; all of them if none was left alone."""
        return self.timelines.get(index) or self.disturbed[index]


def _renumbered(
    timelines: Mapping[int, list[Timeline]], indices: Sequence[int]
) -> dict[int, list[Timeline]]:
    return {new: timelines[old] for new, old in enumerate(indices) if old in timelines}


def measure(
    campaign: Campaign, folder: Path, progress: Progress = lambda done, total: None
) -> CampaignMeasurements:
    """Run a campaign, or the rest of it, in `folder`; raises RuntimeError naming a rank that
    failed.

    Raises InputError if the folder holds another campaign.
    """
    plans = list(_plans(campaign))
    total, done = sum(len(plan.jobs) for plan in plans), 0
    measurements = CampaignMeasurements()
    for plan in plans:
        place = folder / f"ranks-{plan.ag}+{plan.eg}"
        results = place / "results.jsonl"
        _keep_plan(plan, place / "plan.json")
        before = done

        def watch(results: Path = results, before: int = before) -> None:
            progress(before + _lines(results), total)

        # What has been measured before is read, not measured again
        if _lines(results) < len(plan.jobs):
            command = ["-m", "realrun.worker", str(place / "plan.json"), str(results)]
            with _network(plan) as network:
                spawn(command, plan.ag, plan.eg, place, watch, network)
        done += len(plan.jobs)
        progress(done, total)
        read_results(plan, results, campaign.cases, measurements)
    return measurements


def measure_here(campaign: Campaign, folder: Path) -> CampaignMeasurements | None:
    """Run a campaign of one deployment as one of the ranks that torchrun started; None on all ranks
    but rank 0."""
    (plan,) = _plans(campaign)
    place = folder / "ranks"
    leads = int(os.environ["RANK"]) == 0
    if leads:
        _keep_plan(plan, place / "plan.json")
    results = place / ("results.jsonl" if leads else "none")
    work_through(plan, results)
    if not leads:
        return None
    measurements = CampaignMeasurements()
    read_results(plan, results, campaign.cases, measurements)
    return measurements


def read_results(
    plan: Plan, results: Path, cases: Sequence[Case], measurements: CampaignMeasurements
) -> None:
    """Add the results of a plan to `measurements`.

    A run is disturbed, and kept apart, if a rank that has a core of its own was kept from it for
    more than `MAX_LOST` of the run, by another program or by the host.
    """
    own_cores = len(os.sched_getaffinity(0)) >= plan.ag + plan.eg
    for row in results_of(results):
        job, ranks = plan.jobs[row["index"]], row["ranks"]
        index = int(job["case"]) if "case" in job else -1
        if job["job"] == "run":
            timeline = _timeline(cases[index], job, ranks)
            lost_us = max(rank["lost_ns"] for rank in ranks) / 1e3
            disturbed = own_cores and lost_us > MAX_LOST * timeline.makespan_us
            timelines = measurements.disturbed if disturbed else measurements.timelines
            timelines.setdefault(index, []).append(timeline)
        elif job["job"] not in ("record", "output"):
            collect(measurements.points, job, ranks, cases[index] if index >= 0 else None)


def _timeline(case: Case, job: Mapping[str, Any], ranks: Sequence[Mapping[str, Any]]) -> Timeline:
    sentinel_us = [sum(rank["sentinel_ns"]) / 2e3 for rank in ranks]
    meta = {"round": job["round"], "sentinel_us": sentinel_us}
    return timeline_of(case.schedule, case.ag, [Stamps.from_dict(rank) for rank in ranks], meta)


def _plans(campaign: Campaign) -> Iterator[Plan]:
    """One plan a deployment (ag, eg), shape after shape: ranks hold the weights of one shape at a
    time."""
    draw = random.Random(campaign.seed)
    numbered = {str(index): case for index, case in enumerate(campaign.cases)}
    for ag, eg in sorted({(case.ag, case.eg) for case in campaign.cases}):
        mine = {index: case for index, case in numbered.items() if (case.ag, case.eg) == (ag, eg)}
        jobs: list[dict[str, Any]] = []
        for shape in dict.fromkeys(case.shape for case in mine.values()):
            same = {index: case for index, case in mine.items() if case.shape == shape}
            jobs += _jobs(campaign, same, draw)
        cases = {index: case.planned() for index, case in mine.items()}
        yield Plan(ag, eg, cases, jobs, campaign.backend, campaign.seed)


def _jobs(
    campaign: Campaign, cases: Mapping[str, Case], draw: random.Random
) -> list[dict[str, Any]]:
    """The jobs of the cases of one shape."""
    # Calibration jobs stand among the runs, so that a drift of the machine meets both alike
    round_jobs: list[dict[str, Any]] = []
    if campaign.runs:
        round_jobs += [{"job": "run", "case": index} for index in cases]
    if campaign.calibrate:
        round_jobs += stage_jobs(cases)
    if campaign.operations:
        round_jobs.append(OPERATION_SIZES)
    jobs: list[dict[str, Any]] = [{"job": "record", "case": index} for index in cases]
    for number in range(campaign.rounds):
        jobs += [{**job, "round": number} for job in draw.sample(round_jobs, len(round_jobs))]
    return jobs


def _network(plan: Plan) -> AbstractContextManager[Namespaces | None]:
    """What the ranks of a plan stand in: two network namespaces if the kernel keeps the speed of
    their link."""
    if any(case.link == "tbf" for case in plan.cases.values()):
        return Namespaces()
    return nullcontext()


def _keep_plan(plan: Plan, path: Path) -> None:
    text = plan.to_json()
    if path.exists():
        if files.read_text(path, expected=PLAN) != text:
            raise InputError(
                f"{path.parent} holds the results of another campaign; give another --out"
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, text)


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
