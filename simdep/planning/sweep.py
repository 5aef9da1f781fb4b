"""A sweep: one scenario with some of its parameters varied, every combination simulated or solved.

A point is a row of a table, with the unit of every number in the name of its column. One that has
no answer, because its values do not fit each other or the memory, is a row with its `reason`.
Points of the regular policies on hosts that add nothing to the paper's model are simulated many at
a time (`simdep.simulation.batch`), each distinct task priced once; the others one by one. Either
way a row holds what `simdep simulate` gives.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simdep.checks import InfeasibleError
from simdep.hardware.extrapolation import Assumption
from simdep.hardware.profile import HardwareProfile, load_hardware
from simdep.planning.axes import SPLIT, Axis
from simdep.planning.choice import Choice
from simdep.planning.problem import Problem
from simdep.planning.solver import Solution, solve
from simdep.policies import build, chunk_tokens, parse_order
from simdep.prediction import Prediction, is_regular, simulate
from simdep.scenario.estimates import CostEvidence
from simdep.scenario.fields import override
from simdep.scenario.memory import memory
from simdep.scenario.spec import Scenario
from simdep.scenario.task_costs import ScenarioCosts
from simdep.schedule import Kind, Step, Task
from simdep.simulation.batch import batch_makespans
from simdep.simulation.stage_table import StageTable

MOST_POINTS = 1_000_000
FIRST_BLOCK, LAST_BLOCK = 16, 4000  # points that are simulated before they are handed out
RESULTS = (
    "makespan_us",
    "throughput_tokens_per_s",
    "throughput_tokens_per_s_per_gpu",
    "ag_bubble_pct",
    "eg_bubble_pct",
    "a2e_busy_pct",
    "e2a_busy_pct",
)
_ROW = ("m_a", "r1", "r2", *RESULTS, "memory_fits")
OF_SCHEDULE = ("policy", "order", "r1", "r2", "samples", "m_a", "layers")
OF_LINK = ("link.alpha_us", "link.gbytes_per_s", "duplex")


@dataclass(frozen=True)
class Sweep:
    """A scenario in the form of `Scenario.from_dict`, and what of it varies; the last axis varies
    fastest.

    `solve` finds the best cut and order of every point (`simdep.planning.solver`), for its samples
    if these are given. Raises ValueError for axes that contradict each other.
    """

    base: Mapping[str, Any]
    axes: tuple[Axis, ...]
    solve: bool = False

    def __post_init__(self) -> None:
        names = [axis.name for axis in self.axes]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"--vary {name} is given twice; list its values in one")
        for one, others in (
            (SPLIT, ("ag", "eg", "gpus")),
            ("gpus", ("ag", "eg")),
            ("m_a", ("samples",)),
        ):
            if one in names and (both := [name for name in others if name in names]):
                raise ValueError(
                    f"--vary {one} and --vary {both[0]} contradict each other; leave one out"
                )
        if self.solve and (
            own := [name for name in names if name in ("policy", "order", "r1", "r2", "m_a")]
        ):
            raise ValueError(f"--solve chooses {own[0]} by itself; do not vary it")
        if len(self) > MOST_POINTS:
            raise ValueError(f"{len(self):,} points; a sweep has at most {MOST_POINTS:,}")

    def __len__(self) -> int:
        return math.prod(len(axis.values) for axis in self.axes)

    def points(self) -> Iterator[dict[str, Any]]:
        """Axis name -> value, every combination."""
        names = [axis.name for axis in self.axes]
        for values in itertools.product(*(axis.values for axis in self.axes)):
            yield dict(zip(names, values, strict=True))

    def scenario(
        self, point: Mapping[str, Any], load: Callable[[str], HardwareProfile] = load_hardware
    ) -> Scenario:
        """The scenario of a point; raises ValueError where its values do not fit.

        A varied policy has as many GPUs and its own degrees where nothing varies them, as in
        `simdep compare`.
        """
        values = {name: value for name, value in point.items() if name not in (SPLIT, "policy")}
        if SPLIT in point:
            values["ag"], values["eg"] = map(int, point[SPLIT].split(":"))
        data = override(self.base, values)
        where = data.get("deployment", {})
        name, policy = where.get("hardware"), point.get("policy")
        scenario = Scenario.from_dict(data, load(name) if isinstance(name, str) and name else None)
        if policy is None:
            return scenario
        return (
            Choice(policy, point.get("order"), point.get("r1"), point.get("r2"))
            .of(scenario)
            .scenario
        )

    def to_dict(self) -> dict[str, Any]:
        """What makes it the same sweep, ready for JSON."""
        axes = {axis.name: list(axis.values) for axis in self.axes}
        return {"scenario": self.base, "vary": axes, "solve": self.solve}


def run(
    sweep: Sweep,
    points: Sequence[Mapping[str, Any]] | None = None,
    notes: dict[Assumption, None] | None = None,
    seconds: float = 1.0,
) -> Iterator[list[dict[str, Any]]]:
    """The rows of some points of a sweep, default all, in their order, in blocks that take about
    `seconds` each.

    What was assumed for want of a measurement is added to `notes`.
    """
    prices, size = _Prices(), 1 if sweep.solve else FIRST_BLOCK
    remaining = iter(sweep.points() if points is None else points)
    while part := list(itertools.islice(remaining, size)):
        began = time.perf_counter()
        found = _solved(sweep, part, prices) if sweep.solve else _simulated(sweep, part, prices)
        if notes is not None:
            notes |= prices.notes | dict.fromkeys(prices.evidence.extrapolations)
        yield [
            {axis.column: point[axis.name] for axis in sweep.axes} | row
            for point, row in zip(part, found, strict=True)
        ]
        size = min(
            LAST_BLOCK, max(1, round(size * min(4, seconds / (time.perf_counter() - began))))
        )


def results(prediction: Prediction) -> dict[str, Any]:
    """What a row holds on a point that was simulated on its own."""
    return {key: prediction.results[key] for key in _ROW}


def _simulated(
    sweep: Sweep, points: Sequence[Mapping[str, Any]], prices: _Prices
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{}] * len(points)
    together: dict[tuple[bool, tuple[Step, ...], int], list[_Point]] = {}
    for at, values in enumerate(points):
        try:
            scenario = sweep.scenario(values, prices.hardware)
            if not is_regular(scenario) or prices.has_host(scenario, values):
                prediction = simulate(scenario)
                prices.notes |= _kept(prediction.assumed, values)
                rows[at] = results(prediction)
                continue
            key = (
                *_steps(scenario.policy, scenario.order, scenario.r1, scenario.r2),
                scenario.layers,
            )
            point = prices.point(at, scenario, values)
            together.setdefault(key, []).append(point)
        except (ValueError, InfeasibleError) as error:
            rows[at] = {"reason": str(error)}
    for (waits, steps, layers), group in together.items():
        for point, makespan in zip(
            group, batch_makespans(_batch(group), layers, steps, wait_for_shared=waits), strict=True
        ):
            rows[point.at] = point.row(float(makespan))
    return rows


def _solved(
    sweep: Sweep, points: Sequence[Mapping[str, Any]], prices: _Prices
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for values in points:
        try:
            scenario = sweep.scenario(values, prices.hardware)
            fixed = "samples" in values or "samples" in sweep.base.get("workload", {})
            problem = Problem.of(scenario, scenario.workload.samples if fixed else None)
            rows.append(_best(solve(problem), scenario))
            prices.notes |= _kept(problem.assumptions, values)
        except (ValueError, InfeasibleError) as error:
            rows.append({"reason": "; ".join(str(error).splitlines())})
    return rows


def _best(solution: Solution, scenario: Scenario) -> dict[str, Any]:
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


def _kept(notes: Iterable[Assumption], values: Mapping[str, Any]) -> dict[Assumption, None]:
    """Notes without those on a link that is varied: the rows say as much."""
    varied = any(name in values for name in OF_LINK)
    return {note: None for note in notes if not (varied and str(note).startswith("link of"))}


@functools.cache
def _steps(policy: str, order: str, r1: int, r2: int) -> tuple[bool, tuple[Step, ...]]:
    """Whether A2E waits for shared experts, and the AG order of a layer; raises ValueError where
    degrees do not fit."""
    build(policy, 1, r1, r2, order)
    return policy != "findep", parse_order(order, r1)


@dataclass(frozen=True)
class _Point:
    """A point that is simulated together with others: where its row stands, and the microseconds of
    its tasks.

    `attention` has a value a layer; `chunks` a row a run of equal chunks: how many, and the times
    of A2E, E and E2A.
    """

    at: int
    scenario: Scenario
    attention: tuple[float, ...]
    shared: float
    chunks: tuple[tuple[float, ...], ...]

    def row(self, makespan: float) -> dict[str, Any]:
        """What `results` gives, from busy times that are sums: the tasks of a stream do not
        overlap."""
        scenario, where, each = (
            self.scenario,
            self.scenario.deployment,
            self.scenario.r1 * self.scenario.layers,
        )
        busy = [scenario.r1 * sum(self.attention) + each * self.shared]
        busy += [each * sum(run[0] * run[kind] for run in self.chunks) for kind in (1, 2, 3)]
        ag, a2e, eg, e2a = (100 * us / makespan if makespan else 0.0 for us in busy)
        rate = 1e6 * scenario.tokens * scenario.r1 * where.ag / makespan if makespan else None
        return {
            "m_a": scenario.m_a,
            "r1": scenario.r1,
            "r2": scenario.r2,
            "makespan_us": makespan,
            "throughput_tokens_per_s": rate,
            "throughput_tokens_per_s_per_gpu": rate and rate / where.gpus,
            "ag_bubble_pct": max(0.0, 100 - ag),
            "eg_bubble_pct": max(0.0, 100 - eg),
            "a2e_busy_pct": a2e,
            "e2a_busy_pct": e2a,
            "memory_fits": memory(scenario).fits,
        }


def _batch(points: Sequence[_Point]) -> StageTable:
    """Points of one AG order and as many layers."""
    attention = np.array([point.attention for point in points], float).T
    chunks = np.array([point.chunks for point in points], float).T  # [what, run, point]
    runs = 2 if chunks[0, 1].any() else 1
    alike = bool((attention == attention[0]).all())
    shared = np.array([point.shared for point in points], float)
    return StageTable(
        attention[:1] if alike else attention, shared, *(part[:runs] for part in chunks)
    )


class _Prices:
    """Task times of many points, each distinct task priced once.

    What a task costs depends on no more than its tokens, its layer and the values of the axes that
    are not of the schedule; computation not on the link either.
    """

    def __init__(self) -> None:
        self.hardware = functools.cache(load_hardware)
        self.known: dict[tuple[Any, ...], Any] = {}
        self.notes: dict[Assumption, None] = {}
        self.evidence = CostEvidence()

    def costs(self, scenario: Scenario, values: Mapping[str, Any]) -> ScenarioCosts:
        own = tuple(value for name, value in values.items() if name not in OF_SCHEDULE)
        if own not in self.known:
            self.known[own] = ScenarioCosts(scenario, self.evidence)
        found: ScenarioCosts = self.known[own]
        return found

    def has_host(self, scenario: Scenario, values: Mapping[str, Any]) -> bool:
        """Whether the hosts add anything to the paper's model."""
        own = tuple(value for name, value in values.items() if name not in OF_SCHEDULE)
        if (own, "host") not in self.known:
            costs = self.costs(scenario, values)
            self.known[own, "host"] = bool(costs.host.terms)
            self.notes |= _kept(costs.links.assumptions, values)
        found: bool = self.known[own, "host"]
        return found

    def point(self, at: int, scenario: Scenario, values: Mapping[str, Any]) -> _Point:
        """The point with the times of its tasks."""
        own = tuple(value for name, value in values.items() if name not in OF_SCHEDULE)
        computing = tuple(
            value for name, value in values.items() if name not in OF_SCHEDULE + OF_LINK
        )
        costs, tokens, model = self.costs(scenario, values), scenario.tokens, scenario.model
        # Where every layer attends to all its context, layers after the first cost the same
        alike = model.moe_every == 1 and getattr(model.attention, "window", None) is None
        layers = range(scenario.layers)[: 2 if alike else None]
        attention = [
            self.us(computing, costs, Task(Kind.ATTENTION, layer, 0, tokens=tokens))
            for layer in layers
        ]
        attention += attention[-1:] * (scenario.layers - len(attention))
        shared = (
            self.us(computing, costs, Task(Kind.SHARED, 0, 0, tokens=tokens))
            if model.has_shared
            else 0.0
        )
        sizes = chunk_tokens(tokens, scenario.r2)
        longer = sizes.count(sizes[0])
        chunks = []
        for count, size in ((longer, sizes[0]), (len(sizes) - longer, sizes[-1])):
            times = (
                self.us(own if kind.is_transfer else computing, costs, Task(kind, 0, 0, 0, size))
                for kind in (Kind.A2E, Kind.EXPERT, Kind.E2A)
            )
            chunks.append((count, *times))
        return _Point(at, scenario, tuple(attention), shared, tuple(chunks))

    def us(self, where: tuple[Any, ...], costs: ScenarioCosts, task: Task) -> float:
        key = (where, task.kind, task.layer, task.tokens)
        if key not in self.known:
            self.known[key] = costs(task)
        found: float = self.known[key]
        return found
