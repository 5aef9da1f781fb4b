"""The exact optimum over all orders of every stream, by the constraint solver OR-Tools CP-SAT
(extra `exact`).

What stays of a schedule are its tasks, the stream that executes each and what each waits for; in
which order a stream executes its tasks is free. The result is a schedule again, which the engine
runs to the same makespan.

The solver counts in whole numbers. Durations that are multiples of a common unit, as whole numbers
are, are counted in it, and nothing is lost; others are rounded to a grain, `GRAINS` of which make
the sum of all durations, and `rounding_us` bounds what that changes of any makespan: for four
streams and 500 tasks, 1e-9 of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

from simdep.checks import InputError, integer, number
from simdep.costs import IDEAL, Costs, HostOverheads
from simdep.schedule import Kind, Schedule, Task
from simdep.simulation.longest_path import earliest_times, longest_path_us

GRAINS = 2**40
TIME_LIMIT_S = 30.0


@dataclass(frozen=True)
class Optimum:
    """The best schedule found, its makespan, and a proven lower bound on that of every order.

    `objective_us` is the solver's own makespan. `optimal` says that there is no better one, but for
    what `rounding_us` allows (0 where durations are whole numbers).
    """

    schedule: Schedule
    makespan_us: float
    objective_us: float
    lower_bound_us: float
    optimal: bool
    rounding_us: float
    solve_s: float

    @property
    def gap_pct(self) -> float:
        """By how much of the lower bound the makespan lies above it, in percent; 0 if it is
        optimal."""
        return 0.0 if self.optimal else self.distance_pct(self.makespan_us)

    @property
    def verdict(self) -> str:
        """`optimal`, or `within x %` of the optimum."""
        return "optimal" if self.optimal else f"within {self.gap_pct:.2g} %"

    def distance_pct(self, makespan_us: float) -> float:
        """By how much of the lower bound any makespan lies above it, in percent; infinite above a
        bound of 0."""
        if not self.lower_bound_us:
            return math.inf if makespan_us else 0.0
        return 100 * max(0.0, float(makespan_us / self.lower_bound_us) - 1)


def optimum(
    schedule: Schedule,
    costs: Costs,
    host: HostOverheads = IDEAL,
    *,
    starts: Iterable[Schedule] = (),
    time_limit_s: float = TIME_LIMIT_S,
    workers: int = 1,
) -> Optimum:
    """The order of every stream with the least makespan, or the best one found in `time_limit_s`
    seconds.

    The search starts from the best of the given order and `starts`, the same tasks in other orders:
    its result is never worse, and a good start may save most of the time. One worker gives the same
    result in every run that ends before its time limit.

    Raises InputError without OR-Tools, for a schedule that can never finish, for a start of other
    tasks, and for a host with any term in use.
    """
    host.refuse("the exact optimum")
    limit, count = number(time_limit_s, "time_limit_s", above=0), integer(workers, "workers")
    durations = {task.name: Fraction(costs(task)) for task in schedule}
    unit, rounded = _unit(durations.values())
    ticks = {name: round(duration / unit) for name, duration in durations.items()}
    orders = [schedule, *starts]
    if not all(same_tasks(schedule, start) for start in orders):
        raise InputError("a start of the exact optimum has other tasks than the schedule")
    start = min(orders, key=lambda order: longest_path_us(order, costs))
    answer = _solve(start, ticks, limit, count)
    makespan_us = longest_path_us(answer.schedule, costs)
    # Half a grain for every task on a path
    rounding_us = float(unit) * len(schedule) / 2 if rounded else 0
    return Optimum(
        schedule=replace(answer.schedule, label=f"optimum of {schedule.label}"),
        makespan_us=makespan_us,
        objective_us=_us(answer.objective * unit),
        lower_bound_us=max(0, min(_us(answer.bound * unit) - rounding_us, makespan_us)),
        optimal=answer.optimal,
        rounding_us=rounding_us,
        solve_s=answer.seconds,
    )


def _us(exact: Fraction) -> float:
    return int(exact) if exact.denominator == 1 else float(exact)


def data_alone(schedule: Schedule) -> Schedule:
    """The same tasks, A2E waiting for attention alone, as its data do, where it waits for the
    shared experts."""

    def freed(task: Task) -> Task:
        if task.kind is not Kind.A2E:
            return task
        after: dict[str, None] = {}
        for needed in task.after:
            is_shared = schedule[needed].kind is Kind.SHARED
            after |= dict.fromkeys(schedule[needed].after if is_shared else (needed,))
        return replace(task, after=tuple(after))

    streams = {name: tuple(map(freed, tasks)) for name, tasks in schedule.streams.items()}
    return replace(schedule, streams=streams)


def same_tasks(one: Schedule, other: Schedule) -> bool:
    """Whether two schedules differ in the order of their streams at most."""
    return one.stream_of == other.stream_of and _by_name(one) == _by_name(other)


def _by_name(schedule: Schedule) -> dict[str, Task]:
    return {task.name: task for task in schedule}


def _unit(durations: Iterable[Fraction]) -> tuple[Fraction, bool]:
    """The length of a tick, and whether durations are rounded to it."""
    positive = [duration for duration in durations if duration]
    if not positive:
        return Fraction(1), False
    total = sum(positive, Fraction(0))
    numerator = math.gcd(*(duration.numerator for duration in positive))
    denominator = math.lcm(*(duration.denominator for duration in positive))
    unit = Fraction(numerator, denominator)
    return (unit, False) if total / unit <= GRAINS else (total / GRAINS, True)


@dataclass(frozen=True)
class _Answer:
    """What the solver says, in ticks."""

    schedule: Schedule
    objective: int
    bound: int
    optimal: bool
    seconds: float


def _solve(
    schedule: Schedule, ticks: Mapping[str, int], time_limit_s: float, workers: int
) -> _Answer:
    model = _Model(schedule, ticks)
    solver = model.cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = time_limit_s
    solver.parameters.num_workers = workers
    # OR-Tools 9.15 finds long horizons infeasible by probing, wrongly
    solver.parameters.cp_model_probing_level = 0
    solver.parameters.catch_sigint_signal = False
    with ThreadPoolExecutor(1) as thread:  # Ctrl-C ends the wait for it
        search = thread.submit(solver.solve, model.model)
        try:
            status = search.result()
        except KeyboardInterrupt:
            solver.stop_search()
            raise
    bound = max(model.shortest, math.ceil(solver.best_objective_bound - 1e-6))
    if status == model.cp_model.UNKNOWN:
        return _Answer(schedule, model.given, bound, False, solver.wall_time)
    optimal = status == model.cp_model.OPTIMAL
    assert optimal or status == model.cp_model.FEASIBLE, (
        f"{solver.status_name(status)}, yet what is given is a solution"
    )
    return _Answer(
        schedule=model.ordered(solver.value),
        objective=round(solver.objective_value),
        bound=bound,
        optimal=optimal,
        seconds=solver.wall_time,
    )


class _Model:
    """A constraint model of when every task starts, in ticks; the given schedule is one of its
    solutions, with the makespan `given`. No order is shorter than `shortest`."""

    def __init__(self, schedule: Schedule, ticks: Mapping[str, int]) -> None:
        self.cp_model = _cp_model()
        self.schedule, self.ticks = schedule, ticks
        times = earliest_times(schedule, self.tick)
        self.given = round(max((end for _, end in times.values()), default=0))
        # Every task on a stream of its own: without the order of streams
        parallel = Schedule({task.name: (task,) for task in schedule})
        self.position = {task.name: at for at, task in enumerate(parallel.in_order)}
        heads = {}
        for name, (start, _) in earliest_times(parallel, self.tick).items():
            heads[name] = round(start)
        tails = _tails(parallel, ticks)
        self.shortest = max((heads[name] + ticks[name] + tails[name] for name in heads), default=0)
        self.model = self.cp_model.CpModel()
        self.starts = {}
        for name, head in heads.items():
            latest = self.given - tails[name] - ticks[name]
            self.starts[name] = self.model.new_int_var(head, latest, name)
        self.makespan = self.model.new_int_var(self.shortest, self.given, "makespan")
        self.model.minimize(self.makespan)
        for name, (start, _) in times.items():
            self.model.add_hint(self.starts[name], round(start))
        self.wait()
        for tasks in schedule.streams.values():
            self.execute(tasks)
        self.order_equal_chunks()
        self.order_equal_micro_batches()

    def tick(self, task: Task) -> int:
        return self.ticks[task.name]

    def end(self, name: str) -> Any:
        return self.starts[name] + self.ticks[name]

    def wait(self) -> None:
        """A task starts when all that it waits for have ended; what nothing waits for ends the
        schedule."""
        awaited: set[str] = set()
        for task in self.schedule:
            for needed in task.after:
                self.model.add(self.starts[task.name] >= self.end(needed))
            awaited.update(task.after)
        for name in self.starts:
            if name not in awaited:
                self.model.add(self.makespan >= self.end(name))

    def execute(self, tasks: Iterable[Task]) -> None:
        """A stream executes one task at a time."""
        self.model.add_no_overlap(
            self.model.new_fixed_size_interval_var(
                self.starts[task.name], self.ticks[task.name], task.name
            )
            for task in tasks
        )

    def order_equal_chunks(self) -> None:
        """Chunks that could change names run in the order of their numbers."""
        for equals in _equal_chunks(self.schedule, self.ticks):
            for earlier, later in pairwise(equals):
                self.model.add(self.starts[later] >= self.end(earlier))

    def order_equal_micro_batches(self) -> None:
        """Micro-batches that could change names begin in the order of their numbers."""
        openings = {}
        for task in self.schedule:
            if not task.after and task.kind.opens_layer:
                openings[task.mb] = task.name
        for equals in _equal_micro_batches(self.schedule, self.ticks):
            for earlier, later in pairwise(equals):
                if earlier in openings and later in openings:
                    start = self.starts[openings[later]]
                    self.model.add(start >= self.end(openings[earlier]))

    def ordered(self, value: Any) -> Schedule:
        """The schedule of a solution: every stream in order of its starts.

        Where tasks take no time, ties are broken so that no task comes before what it waits for.
        """

        def key(task: Task) -> tuple[int, int, int]:
            start = value(self.starts[task.name])
            return start, start + self.ticks[task.name], self.position[task.name]

        streams = {}
        for stream, tasks in self.schedule.streams.items():
            streams[stream] = tuple(sorted(tasks, key=key))
        return Schedule(streams, self.schedule.label)


def _cp_model() -> Any:
    try:
        from ortools.sat.python import cp_model
    except ImportError:
        raise InputError(
            "the exact optimum needs the package ortools; pip install 'simdep[exact]'"
        ) from None
    return cp_model


def _tails(parallel: Schedule, ticks: Mapping[str, int]) -> dict[str, int]:
    """The longest path through what waits for a task, in ticks."""
    tails = dict.fromkeys(ticks, 0)
    for task in reversed(parallel.in_order):
        for needed in task.after:
            tails[needed] = max(tails[needed], ticks[task.name] + tails[task.name])
    return tails


def _equal_chunks(schedule: Schedule, ticks: Mapping[str, int]) -> Iterator[list[str]]:
    """Tasks of one kind and stream, of chunks of a micro-batch that could change names, in the
    order of their numbers.

    Such chunks take the same time in every stream, wait for the same tasks, and the same tasks wait
    for them: of any order, the one that executes the k-th of them k-th everywhere takes as long.
    """
    waiters: dict[str, set[str]] = {task.name: set() for task in schedule}
    chunks: dict[tuple[int, int, int], list[Task]] = {}
    for task in schedule:
        for needed in task.after:
            waiters[needed].add(task.name)
        if task.chunk is not None:
            chunks.setdefault((task.layer, task.mb, task.chunk), []).append(task)
    equals: dict[tuple[object, ...], list[list[Task]]] = {}
    for (layer, mb, _), tasks in sorted(chunks.items()):
        pattern = _pattern(tasks, schedule, ticks, waiters)
        equals.setdefault((layer, mb, pattern), []).append(tasks)
    for group in equals.values():
        by_place: dict[tuple[object, ...], list[str]] = {}
        for tasks in group:
            for task in tasks:
                place = (schedule.stream_of[task.name], task.kind, task.rank)
                by_place.setdefault(place, []).append(task.name)
        yield from by_place.values()


def _pattern(
    chunk: Iterable[Task],
    schedule: Schedule,
    ticks: Mapping[str, int],
    waiters: Mapping[str, set[str]],
) -> frozenset[tuple[object, ...]]:
    """The tasks of a chunk without its number: streams, times, what they wait for and what waits
    for them."""
    places = {task.name: (task.kind, task.rank) for task in chunk}
    return frozenset(
        (
            schedule.stream_of[task.name],
            *places[task.name],
            ticks[task.name],
            frozenset(places.get(needed, needed) for needed in task.after),
            frozenset(places.get(waiter, waiter) for waiter in waiters[task.name]),
        )
        for task in chunk
    )


def _equal_micro_batches(schedule: Schedule, ticks: Mapping[str, int]) -> Iterable[list[int]]:
    """Micro-batches that could change names: the same tasks on the same streams, of the same time,
    after the same."""
    patterns: dict[int, list[tuple[object, ...]]] = {}
    for task in schedule:
        after = tuple(sorted(_unnamed(schedule[needed], task.mb) for needed in task.after))
        name = _unnamed(task, task.mb)
        entry = (schedule.stream_of[task.name], name, ticks[task.name], after)
        patterns.setdefault(task.mb, []).append(entry)
    groups: dict[frozenset[tuple[object, ...]], list[int]] = {}
    for mb, pattern in sorted(patterns.items()):
        groups.setdefault(frozenset(pattern), []).append(mb)
    return groups.values()


def _unnamed(task: Task, mb: int) -> str:
    """The name of a task without its micro-batch, if that is `mb`."""
    return replace(task, mb=0, after=()).name if task.mb == mb else f"{task.name} of another"
