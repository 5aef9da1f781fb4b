"""Sensitivity: what a change of each cost does to the makespan, exactly, by the longest paths.
Times are microseconds.

Costs are made whole numbers by one common denominator, so that longest paths of equal length are
seen as equal, and slopes are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from simdep.costs import IDEAL, Costs, HostOverheads
from simdep.scenario.task_costs import ScenarioCosts
from simdep.schedule import Kind, Schedule, Task
from simdep.simulation.engine import simulated_makespan_us


@dataclass(frozen=True)
class CostPart:
    """A part of what tasks cost that may change: microseconds by task, 0 where there is none.

    `inverse`: the time falls as the quantity that it is named after grows, as with a bandwidth.
    """

    name: str
    us: Callable[[Task], float]
    inverse: bool = False


@dataclass(frozen=True)
class Sensitivity:
    """What a change of one part does to the makespan.

    `up_us_per_pct` and `down_us_per_pct` are the changes of the makespan for one percent more and
    for one less, at the rate of the smallest change (exact one-sided derivatives; None with host
    overheads); `up_us` and `down_us` the makespan itself at one whole percent more and less.
    """

    name: str
    up_us_per_pct: float | None
    down_us_per_pct: float | None
    up_us: float
    down_us: float


def sensitivities(
    schedule: Schedule, costs: Costs, host: HostOverheads = IDEAL, more: Iterable[CostPart] = ()
) -> list[Sensitivity]:
    """For every kind of task, and every part in `more`: what a change of its costs does to the
    makespan."""
    kinds = [kind for kind in Kind if any(task.kind is kind for task in schedule)]
    parts = [*(_part_of_kind(kind, costs) for kind in kinds), *more]
    if host.terms:
        return [_resimulated(schedule, costs, host, part) for part in parts]
    scaled = _Scaled.of(schedule, costs, parts)
    least, most = _path_extremes(schedule, scaled)
    return [
        _exact(schedule, scaled, part, least[index], most[index])
        for index, part in enumerate(scaled.parts)
    ]


def link_parts(costs: ScenarioCosts) -> tuple[CostPart, ...]:
    """Start-up and bandwidth of the links of a scenario, where they are lines; none where they are
    measured points."""
    links = {kind: costs.link(kind) for kind in (Kind.A2E, Kind.E2A)}
    if any(link.points for link in links.values()):
        return ()

    def start_up(task: Task) -> float:
        return links[task.kind].alpha_us if task.kind in links else 0

    def by_bytes(task: Task) -> float:
        return costs(task) - links[task.kind].alpha_us if task.kind in links else 0

    return CostPart("link start-up", start_up), CostPart("link bandwidth", by_bytes, inverse=True)


def _part_of_kind(kind: Kind, costs: Costs) -> CostPart:
    return CostPart(kind.label, lambda task: costs(task) if task.kind is kind else 0)


@dataclass(frozen=True)
class _ScaledPart:
    """A part in whole numbers, by task."""

    name: str
    durations: Mapping[str, int]
    inverse: bool


@dataclass(frozen=True)
class _Scaled:
    """Durations of tasks and of their parts, all multiplied by `scale`, which makes them whole."""

    scale: int
    durations: Mapping[str, int]
    parts: Sequence[_ScaledPart]

    @classmethod
    def of(cls, schedule: Schedule, costs: Costs, parts: Sequence[CostPart]) -> _Scaled:
        exact = [_fractions(schedule, us) for us in (costs, *(part.us for part in parts))]
        denominators: set[int] = set()
        for values in exact:
            denominators |= {value.denominator for value in values.values()}
        scale = math.lcm(*denominators)
        durations, *of_parts = (
            {name: int(value * scale) for name, value in values.items()} for values in exact
        )
        scaled = [
            _ScaledPart(part.name, values, part.inverse)
            for part, values in zip(parts, of_parts, strict=True)
        ]
        return cls(scale, durations, scaled)


def _fractions(schedule: Schedule, us: Callable[[Task], float]) -> dict[str, Fraction]:
    return {task.name: Fraction(us(task)) for task in schedule}


def _exact(
    schedule: Schedule, scaled: _Scaled, part: _ScaledPart, least: int, most: int
) -> Sensitivity:
    """The sensitivity to a part that takes at least `least` and at most `most` of any longest
    path."""
    up, down = (_longest_changed(schedule, scaled, part, pct) for pct in (1, -1))
    slopes = (-least, most) if part.inverse else (most, -least)
    up_rate, down_rate = (float(Fraction(slope, 100 * scaled.scale)) for slope in slopes)
    return Sensitivity(part.name, up_rate, down_rate, up, down)


def _path_extremes(schedule: Schedule, scaled: _Scaled) -> tuple[list[int], list[int]]:
    """The least and the most of each part on any longest path."""
    ends: dict[str, int] = {}
    least: dict[str, list[int]] = {}
    most: dict[str, list[int]] = {}
    nothing = [0] * len(scaled.parts)
    predecessors = schedule.predecessors
    for task in schedule.in_order:
        name = task.name
        start = max((ends[needed] for needed in predecessors[name]), default=0)
        ends[name] = start + scaled.durations[name]
        parts = [part.durations[name] for part in scaled.parts]
        tight = [needed for needed in predecessors[name] if ends[needed] == start]
        before_least = _by_part(min, [least[needed] for needed in tight]) or nothing
        before_most = _by_part(max, [most[needed] for needed in tight]) or nothing
        least[name] = [before + part for before, part in zip(before_least, parts, strict=True)]
        most[name] = [before + part for before, part in zip(before_most, parts, strict=True)]
    makespan = max(ends.values(), default=0)
    last = [name for name, end in ends.items() if end == makespan]
    least_of_all = _by_part(min, [least[name] for name in last]) or nothing
    return least_of_all, _by_part(max, [most[name] for name in last]) or nothing


def _by_part(choose: Callable[..., int], vectors: Sequence[list[int]]) -> list[int]:
    """The least or the most of each part over several paths; empty for no path."""
    if len(vectors) == 1:
        return vectors[0]
    return [choose(values) for values in zip(*vectors, strict=True)]


def _longest_changed(schedule: Schedule, scaled: _Scaled, part: _ScaledPart, pct: int) -> float:
    """The makespan where a part takes `pct` percent more, or its quantity is that much larger, in
    whole numbers."""
    unit, change = (100 + pct, -pct) if part.inverse else (100, pct)
    durations, changing = scaled.durations, part.durations
    predecessors = schedule.predecessors
    ends: dict[str, int] = {}
    for task in schedule.in_order:
        name, start = task.name, 0
        for needed in predecessors[name]:
            start = max(start, ends[needed])
        ends[name] = start + unit * durations[name] + change * changing[name]
    return float(Fraction(max(ends.values(), default=0), unit * scaled.scale))


def _resimulated(
    schedule: Schedule, costs: Costs, host: HostOverheads, part: CostPart
) -> Sensitivity:
    def makespan_us(pct: int) -> float:
        factor = 100 / (100 + pct) - 1 if part.inverse else pct / 100
        return simulated_makespan_us(
            schedule, lambda task: costs(task) + factor * part.us(task), host
        )

    return Sensitivity(part.name, None, None, makespan_us(1), makespan_us(-1))
