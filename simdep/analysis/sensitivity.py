"""Sensitivity: what a change of each cost does to the makespan, exactly, by the longest paths.
Microseconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from simdep.costs import IDEAL, Costs, HostOverheads
from simdep.scenario.task_costs import ScenarioCosts
from simdep.schedule import Kind, Schedule, Task
from simdep.simulation import engine


@dataclass(frozen=True)
class Part:
    """A part of what tasks cost that may change: microseconds by task, 0 where there is none.

    `inverse`: the time falls as the quantity that it is named after grows, as with a bandwidth.
    """

    name: str
    of: Callable[[Task], float]
    inverse: bool = False


@dataclass(frozen=True)
class Sensitivity:
    """What a change of one part does to the makespan.

    `up_us_per_pct` and `down_us_per_pct` are the changes of the makespan for one percent more and
    for one less, at the rate of the smallest change (exact one-sided derivatives; None where hosts
    add terms); `up_us` and `down_us` the makespan itself at one whole percent more and less.
    """

    name: str
    up_us_per_pct: float | None
    down_us_per_pct: float | None
    up_us: float
    down_us: float


def sensitivities(
    schedule: Schedule, costs: Costs, host: HostOverheads = IDEAL, more: Iterable[Part] = ()
) -> list[Sensitivity]:
    """For every kind of task, and every part in `more`: what a change of its costs does to the
    makespan."""
    kinds = [kind for kind in Kind if any(task.kind is kind for task in schedule)]
    parts = [*(_all_of(kind, costs) for kind in kinds), *more]
    if host.terms:
        return [_resimulated(schedule, costs, host, part) for part in parts]
    exact = {task.name: Fraction(costs(task)) for task in schedule}
    within = [{task.name: Fraction(part.of(task)) for task in schedule} for part in parts]
    scale = math.lcm(
        *(value.denominator for values in (exact, *within) for value in values.values())
    )
    durations = {name: int(value * scale) for name, value in exact.items()}
    changing = [{name: int(value * scale) for name, value in values.items()} for values in within]
    least, most = _path_parts(schedule, durations, changing)
    found = []
    for part, values, low, high in zip(parts, changing, least, most, strict=True):
        up, down = (
            _longest_changed(schedule, durations, values, scale, pct, part.inverse)
            for pct in (1, -1)
        )
        slopes = (-low, high) if part.inverse else (high, -low)
        more_us, less_us = (float(Fraction(slope, 100 * scale)) for slope in slopes)
        found.append(Sensitivity(part.name, more_us, less_us, up, down))
    return found


def _all_of(kind: Kind, costs: Costs) -> Part:
    return Part(kind.label, lambda task: costs(task) if task.kind is kind else 0)


def link_parts(costs: ScenarioCosts) -> tuple[Part, ...]:
    """Start-up and bandwidth of the links of a scenario, where they are lines; none where they are
    measured points."""
    links = {kind: costs.link(kind) for kind in (Kind.A2E, Kind.E2A)}
    if any(link.points for link in links.values()):
        return ()

    def start_up(task: Task) -> float:
        return links[task.kind].alpha_us if task.kind in links else 0

    def by_bytes(task: Task) -> float:
        return costs(task) - links[task.kind].alpha_us if task.kind in links else 0

    return Part("link start-up", start_up), Part("link bandwidth", by_bytes, inverse=True)


def _path_parts(
    schedule: Schedule, durations: Mapping[str, int], changing: Sequence[Mapping[str, int]]
) -> tuple[list[int], list[int]]:
    """The least and the most of each part on any longest path."""
    ends: dict[str, int] = {}
    low: dict[str, list[int]] = {}
    high: dict[str, list[int]] = {}
    nothing = [0] * len(changing)
    predecessors = schedule.predecessors
    for task in schedule.in_order:
        name = task.name
        start = max((ends[needed] for needed in predecessors[name]), default=0)
        tight = [needed for needed in predecessors[name] if ends[needed] == start]
        own = [values[name] for values in changing]
        least, most = (
            _over([low[each] for each in tight], min),
            _over([high[each] for each in tight], max),
        )
        ends[name] = start + durations[name]
        low[name] = [a + b for a, b in zip(least or nothing, own, strict=True)]
        high[name] = [a + b for a, b in zip(most or nothing, own, strict=True)]
    makespan = max(ends.values(), default=0)
    last = [name for name, end in ends.items() if end == makespan]
    return _over([low[name] for name in last], min) or nothing, _over(
        [high[name] for name in last], max
    ) or nothing


def _over(vectors: Sequence[list[int]], choose: Callable[..., int]) -> list[int]:
    if len(vectors) == 1:
        return vectors[0]
    return [choose(values) for values in zip(*vectors, strict=True)]


def _longest_changed(
    schedule: Schedule,
    durations: Mapping[str, int],
    part: Mapping[str, int],
    scale: int,
    pct: int,
    inverse: bool,
) -> float:
    """The makespan where a part takes `pct` percent more, or its quantity is that much larger, in
    whole numbers."""
    unit, change = (100 + pct, -pct) if inverse else (100, pct)
    ends: dict[str, int] = {}
    predecessors = schedule.predecessors
    for task in schedule.in_order:
        name, start = task.name, 0
        for needed in predecessors[name]:
            start = max(start, ends[needed])
        ends[name] = start + unit * durations[name] + change * part[name]
    return float(Fraction(max(ends.values(), default=0), unit * scale))


def _resimulated(schedule: Schedule, costs: Costs, host: HostOverheads, part: Part) -> Sensitivity:
    def changed(pct: int) -> float:
        factor = 100 / (100 + pct) - 1 if part.inverse else pct / 100
        return engine.simulated_makespan_us(
            schedule, lambda task: costs(task) + factor * part.of(task), host
        )

    return Sensitivity(part.name, None, None, changed(1), changed(-1))
