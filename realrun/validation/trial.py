"""A trial: one case, the model that predicts it, and its real runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from realrun.cases import Case
from simdep.costs import Costs, HostOverheads
from simdep.hardware.profile import HardwareProfile
from simdep.scenario.task_costs import ScenarioCosts
from simdep.schedule import Schedule, Task
from simdep.simulation.engine import simulate_schedule, simulated_makespan_us
from simdep.timeline import Timeline


@dataclass(frozen=True)
class TimingModel:
    """What predicts a schedule: the time of every task, and the host overheads."""

    schedule: Schedule
    costs: Costs
    host: HostOverheads

    def timeline(self) -> Timeline:
        """The predicted timeline."""
        return simulate_schedule(self.schedule, self.costs, self.host)

    def makespan_us(self) -> float:
        """The predicted makespan, without its timeline."""
        return simulated_makespan_us(self.schedule, self.costs, self.host)


def model_of(case: Case, profile: HardwareProfile) -> TimingModel:
    """The model of a case on a machine; timed waits last what they should."""
    costs = ScenarioCosts(case.scenario_on(profile))
    waits = case.synthetic
    if waits is None:
        return TimingModel(case.schedule, costs, costs.host)

    def timed(task: Task) -> float:
        return costs(task) if task.kind.is_transfer else waits[task.kind.label]

    return TimingModel(case.schedule, timed, costs.host)


@dataclass(frozen=True)
class RunTimes:
    """Microseconds of a run: the duration of every task on its slowest rank, and the makespan."""

    durations: Mapping[str, float]
    makespan_us: float

    @classmethod
    def of(cls, timeline: Timeline) -> RunTimes:
        rows = timeline.rows
        durations = (rows["end_us"] - rows["start_us"]).groupby(rows["task"]).max()
        return cls({str(name): us for name, us in durations.items()}, timeline.makespan_us)


@dataclass(frozen=True)
class Trial:
    """A case with its model and the timelines of its runs."""

    case: Case
    model: TimingModel
    timelines: Sequence[Timeline]

    @cached_property
    def predicted(self) -> Timeline:
        """The predicted timeline."""
        return self.model.timeline()

    @cached_property
    def runs(self) -> list[RunTimes]:
        return [RunTimes.of(timeline) for timeline in self.timelines]

    @property
    def makespans_us(self) -> list[float]:
        """Of the runs."""
        return [run.makespan_us for run in self.runs]

    @property
    def typical(self) -> Timeline:
        """The run whose makespan is nearest to the median."""
        return typical(self.timelines)

    def first(self, runs: int) -> Trial:
        """The trial with its first runs alone."""
        return replace(self, timelines=self.timelines[:runs])


def typical(timelines: Sequence[Timeline]) -> Timeline:
    """The timeline whose makespan is nearest to the median."""
    makespans = np.array([timeline.makespan_us for timeline in timelines])
    return timelines[int(np.argmin(np.abs(makespans - np.median(makespans))))]
