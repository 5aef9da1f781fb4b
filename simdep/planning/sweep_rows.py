"""The rows of a sweep: what each of its points comes to.

A row has the axes of its point, with the unit of every number in the name of its column, and the
keys of `simdep.analysis.metrics`. A point that has no answer, because its values do not fit each
other or the memory, is a row with its `reason`. Points of the regular policies without host
overheads are simulated many at a time (`simdep.simulation.batch`), the others one by one; either
way a row holds what `simdep.simulate` gives.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simdep.analysis.metrics import tokens_per_second
from simdep.checks import InfeasibleError
from simdep.hardware.extrapolation import Assumption
from simdep.hardware.profile import load_hardware
from simdep.planning.problem import Problem
from simdep.planning.solver import Solution, solve
from simdep.planning.stage_cache import ScenarioStages, StageCache, joint_table
from simdep.planning.sweep import Point, Sweep
from simdep.policies import build, parse_order, set_up
from simdep.prediction import Prediction, is_regular, simulate
from simdep.scenario.models import load_model
from simdep.scenario.spec import Scenario
from simdep.schedule import Step
from simdep.simulation.batch import batch_makespans
from simdep.simulation.stage_table import StageTable

FIRST_BLOCK, MAX_BLOCK = 16, 4000  # points that are evaluated before their rows are handed out
MAX_READ = 1024  # scenarios that are kept for points that differ in their policy alone
NUMBERS = (
    "makespan_us",
    "throughput_tokens_per_s",
    "throughput_tokens_per_s_per_gpu",
    "ag_bubble_pct",
    "eg_bubble_pct",
    "a2e_busy_pct",
    "e2a_busy_pct",
)
PREDICTION_COLUMNS = (
    "policy",
    "schedule",
    "m_a",
    "r1",
    "r2",
    *NUMBERS,
    "memory_fits",
    "memory_missing_bytes",
)
LINK_AXES = ("link.alpha_us", "link.gbytes_per_s", "duplex")
ResultRow = dict[str, Any]


def sweep_rows(
    sweep: Sweep,
    points: Iterable[Point] | None = None,
    assumptions: dict[Assumption, None] | None = None,
    seconds: float = 1.0,
) -> Iterator[list[ResultRow]]:
    """The rows of some points of a sweep, default all, in their order, in blocks that take about
    `seconds` each.

    What was assumed for want of a measurement is added to `assumptions`.
    """
    evaluator = _Evaluator(sweep)
    size = 1 if sweep.solve else FIRST_BLOCK
    remaining = iter(sweep.points() if points is None else points)
    while block := list(itertools.islice(remaining, size)):
        began = time.perf_counter()
        results = evaluator.solved(block) if sweep.solve else evaluator.simulated(block)
        if assumptions is not None:
            assumptions |= evaluator.assumptions
        rows = []
        for point, result in zip(block, results, strict=True):
            axes = {axis.column: point[axis.name] for axis in sweep.axes}
            rows.append(axes | result)
        yield rows
        factor = min(4, seconds / (time.perf_counter() - began))
        size = min(MAX_BLOCK, max(1, round(size * factor)))


def prediction_row(prediction: Prediction) -> ResultRow:
    """What a row holds of a prediction."""
    return {key: prediction.results[key] for key in PREDICTION_COLUMNS}


def simulated_together(scenario: Scenario) -> bool:
    """Whether points like this one are simulated many at a time, a hundred times as fast."""
    return is_regular(scenario) and not StageCache().stages(scenario).has_overheads


@dataclass(frozen=True)
class _Regular:
    """A point that is simulated together with others: its place in the block, and its stages."""

    place: int
    scenario: Scenario
    stages: ScenarioStages

    @property
    def group(self) -> tuple[int, bool, tuple[Step, ...]]:
        """What points have in common that are simulated at once: layers, whether A2E waits for the
        shared experts, and the order of a layer."""
        scenario = self.scenario
        return scenario.layers, scenario.policy != "findep", _layer_order(scenario).steps


class _Evaluator:
    """Simulates or solves points of a sweep; each cost of a task is computed once."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.cache = StageCache()
        self._assumed: dict[Assumption, None] = {}
        self._load_hardware = functools.cache(load_hardware)
        self._load_model = functools.cache(load_model)
        self._stated = functools.lru_cache(MAX_READ)(self._read)

    @property
    def assumptions(self) -> dict[Assumption, None]:
        return self._assumed | self.cache.evidence.extrapolations

    def solved(self, points: Sequence[Point]) -> list[ResultRow]:
        """The results of points, each solved."""
        rows = []
        for point in points:
            try:
                scenario = self._scenario(point)
                samples = self.sweep.samples(point, scenario)
                problem = Problem.of(scenario, samples, cache=self.cache)
                rows.append(_solution_row(solve(problem), scenario))
                self._assume(problem.assumptions, point)
            except (ValueError, InfeasibleError) as error:
                rows.append(_reason(error))
        return rows

    def simulated(self, points: Sequence[Point]) -> list[ResultRow]:
        """The results of points, each simulated."""
        rows: list[ResultRow] = [{}] * len(points)
        regular = []
        for place, point in enumerate(points):
            try:
                scenario = set_up(self._scenario(point)).scenario
            except ValueError as error:
                rows[place] = _reason(error)
                continue
            stages = self._regular_stages(scenario, point)
            if stages is None:
                rows[place] = self._alone(scenario, point)
            else:
                regular.append(_Regular(place, scenario, stages))
        try:
            for one, row in _regular_rows(regular):
                rows[one.place] = row
        except ValueError:  # the profile lacks a cost of some of them
            for one in regular:
                rows[one.place] = self._alone(one.scenario, points[one.place])
        return rows

    def _alone(self, scenario: Scenario, point: Point) -> ResultRow:
        """The result of a point that is simulated on its own."""
        try:
            prediction = simulate(scenario)
        except ValueError as error:
            return _reason(error)
        self._assume(prediction.assumed, point)
        return prediction_row(prediction)

    def _scenario(self, point: Point) -> Scenario:
        """The scenario of a point; points that differ in their policy alone are read once."""
        stated = tuple((name, value) for name, value in point.items() if name != "policy")
        return self.sweep.under_policy(self._stated(stated), point)

    def _read(self, stated: Iterable[tuple[str, Any]]) -> Scenario:
        return self.sweep.stated(dict(stated), self._load_hardware, self._load_model)

    def _regular_stages(self, scenario: Scenario, point: Point) -> ScenarioStages | None:
        """The stages of a scenario that is simulated together with others; None for one that is
        simulated on its own, or refused."""
        if not is_regular(scenario) or scenario.r2 > scenario.tokens:
            return None
        try:
            _layer_order(scenario)
            stages = self.cache.stages(scenario)
            self._assume(stages.costs.links.assumptions, point)
        except ValueError:
            return None
        return None if stages.has_overheads else stages

    def _assume(self, assumptions: Iterable[Assumption], point: Point) -> None:
        """Keep assumptions, but for those on a link that is varied: the rows say as much."""
        varied = any(name in point for name in LINK_AXES)
        for assumption in assumptions:
            if not (varied and str(assumption).startswith("link of")):
                self._assumed[assumption] = None


def _regular_rows(points: Sequence[_Regular]) -> Iterator[tuple[_Regular, ResultRow]]:
    """The results of regular points: the stage times of each scenario at once, then the
    makespans of each order."""
    by_layers: dict[int, list[_Regular]] = {}
    for point in points:
        by_layers.setdefault(point.scenario.layers, []).append(point)
    for members in by_layers.values():
        table = _joint_table(members)
        by_order: dict[Hashable, list[int]] = {}
        for column, point in enumerate(members):
            by_order.setdefault(point.group, []).append(column)
        for columns in by_order.values():
            group = [members[column] for column in columns]
            stages = table[np.array(columns)].trimmed
            yield from zip(group, _rows(group, stages), strict=True)


def _rows(points: Sequence[_Regular], stages: StageTable) -> Iterator[ResultRow]:
    """The results of points of one order, from busy times that are sums: the tasks of a stream
    do not overlap."""
    layers, waits, steps = points[0].group
    makespans_us = batch_makespans(stages, layers, steps, wait_for_shared=waits)
    r1 = 1 + max(mb for _, mb in steps)
    alike = layers // len(stages.attention)  # layers that a row stands for
    busy_us = {"ag": r1 * (alike * stages.attention.sum(axis=0) + layers * stages.shared)}
    for name, us in (("a2e", stages.a2e), ("eg", stages.expert), ("e2a", stages.e2a)):
        busy_us[name] = r1 * layers * (stages.counts * us).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = [np.nan_to_num(100 * us / makespans_us) for us in busy_us.values()]
    busy = zip(*(column.tolist() for column in columns), strict=True)
    for point, us, (ag, a2e, eg, e2a) in zip(points, makespans_us.tolist(), busy, strict=True):
        scenario = point.scenario
        gpus = scenario.deployment.gpus
        rate = tokens_per_second(scenario.tokens * r1 * scenario.deployment.ag, us)
        missing = point.stages.footprint.missing_bytes(scenario.m_a, scenario.r2, r1)
        yield {
            "policy": scenario.policy,
            "schedule": _layer_order(scenario).label,
            "m_a": scenario.m_a,
            "r1": r1,
            "r2": scenario.r2,
            "makespan_us": us,
            "throughput_tokens_per_s": rate,
            "throughput_tokens_per_s_per_gpu": rate and rate / gpus,
            "ag_bubble_pct": max(0.0, 100 - ag),
            "eg_bubble_pct": max(0.0, 100 - eg),
            "a2e_busy_pct": a2e,
            "e2a_busy_pct": e2a,
            "memory_fits": not missing,
            "memory_missing_bytes": missing,
        }


def _joint_table(points: Sequence[_Regular]) -> StageTable:
    """The stage times of points of as many layers."""
    columns: dict[int, list[int]] = {}
    for column, point in enumerate(points):
        columns.setdefault(id(point.stages), []).append(column)
    members = [(points[each[0]].stages, np.array(each)) for each in columns.values()]
    m_a = np.array([point.scenario.m_a for point in points])
    r2 = np.array([point.scenario.r2 for point in points])
    return joint_table(members, m_a, r2)


@dataclass(frozen=True)
class _LayerOrder:
    """The order of the AG in a layer, and the label of the schedule that repeats it."""

    steps: tuple[Step, ...]
    label: str


def _layer_order(scenario: Scenario) -> _LayerOrder:
    """The order of a regular scenario; raises InputError where its policy does not have its
    parameters."""
    return _order_of(scenario.policy, scenario.order, scenario.r1, scenario.r2)


@functools.cache
def _order_of(policy: str, order: str, r1: int, r2: int) -> _LayerOrder:
    return _LayerOrder(parse_order(order, r1), build(policy, 1, r1, r2, order).label)


def _solution_row(solution: Solution, scenario: Scenario) -> ResultRow:
    best = solution.best
    return {
        "policy": best.policy,
        "order": best.order,
        "m_a": best.m_a,
        "r1": best.r1,
        "r2": best.r2,
        "makespan_us": best.makespan_us,
        "throughput_tokens_per_s": best.throughput_tokens_per_s,
        "throughput_tokens_per_s_per_gpu": best.throughput_tokens_per_s / scenario.deployment.gpus,
        "lower_bound_us": solution.lower_bound_us,
        "gap_pct": solution.gap_pct,
        "evaluated": solution.evaluated,
        "solve_ms": solution.solve_ms,
    }


def _reason(error: Exception) -> ResultRow:
    """The row of a point without an answer."""
    return {"reason": "; ".join(str(error).splitlines())}
