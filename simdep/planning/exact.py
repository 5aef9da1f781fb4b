"""The exact optimum over all orders of every stream, by the constraint solver OR-Tools CP-SAT
(extra `exact`).

What stays of a schedule are its tasks, the stream that serves each and what each waits for; in
which order a stream serves its tasks is free. The result is a schedule again, which the engine runs
to the same makespan.

The solver counts in whole numbers. Durations that are multiples of a common unit, as whole numbers
are, are counted in it, and nothing is lost; others are rounded to a grain, `GRAINS` of which make
the sum of all durations, and `rounding_us` bounds what that changes of any makespan: for four
streams and 500 tasks, 1e-9 of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations, pairwise
from typing import Any

from simdep.checks import integer, known, number
from simdep.costs import IDEAL, Costs, HostOverheads
from simdep.schedule import Kind, Schedule, Task
from simdep.simulation.longest_path import earliest_times, longest_path_us

GRAINS = 2**40
FREE = ("all", "ag")
TIME_LIMIT_S = 30.0


@dataclass(frozen=True)
class Optimum:
    """The best schedule found, its makespan, and a proven lower bound on that of every order.

    `objective_us` is the solver's own makespan. `optimal` says that there is no better one, but for
    what `rounding_us` allows (0 where durations are whole numbers). `free` is what was free to
    choose.
    """

    schedule: Schedule
    makespan_us: float
    objective_us: float
    lower_bound_us: float
    optimal: bool
    rounding_us: float
    solve_s: float
    free: str

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
    free: str = "all",
    starts: Iterable[Schedule] = (),
    time_limit_s: float = TIME_LIMIT_S,
    workers: int = 1,
) -> Optimum:
    """The order of every stream with the least makespan, or the best one found in `time_limit_s`
    seconds.

    With `free` "ag" the order of the first stream alone is free, and the others serve in the order
    of what they wait for there, as FinDEP's transfers and experts do. The search starts from the
    best of the given order and `starts`, the same tasks in other orders: its result is never worse,
    and a good start may save most of the time. One worker gives the same result in every run that
    ends before its time limit.

    Raises ValueError without OR-Tools, for an unknown `free` or a schedule that does not allow
    "ag", for one that can never finish, for a start of other tasks, and for a host with any term in
    use.
    """
    host.refuse("the exact optimum")
    known(free, FREE, "freedom of the exact optimum")
    limit, count = number(time_limit_s, "time_limit_s", above=0), integer(workers, "workers")
    durations = {task.name: Fraction(costs(task)) for task in schedule}
    unit, rounded = _unit(durations.values())
    ticks = {name: round(duration / unit) for name, duration in durations.items()}
    orders = [schedule, *starts]
    if not all(same_tasks(schedule, start) for start in orders):
        raise ValueError("a start of the exact optimum has other tasks than the schedule")
    if free == "ag":
        orders = [_in_order_of_the_first(order) for order in orders]
    label, schedule = (
        schedule.label,
        min(orders, key=lambda order: longest_path_us(order, costs)),
    )
    found = _solve(schedule, ticks, free, limit, count)
    makespan = longest_path_us(found.schedule, costs)
    rounding = (
        float(unit) * len(schedule) / 2 if rounded else 0
    )  # half a grain for every task on a path
    return Optimum(
        schedule=replace(found.schedule, label=f"optimum of {label}"),
        makespan_us=makespan,
        objective_us=_us(found.objective * unit),
        lower_bound_us=max(0, min(_us(found.bound * unit) - rounding, makespan)),
        optimal=found.optimal,
        rounding_us=rounding,
        solve_s=found.seconds,
        free=free,
    )


def _us(exact: Fraction) -> float:
    return int(exact) if exact.denominator == 1 else float(exact)


def data_alone(schedule: Schedule) -> Schedule:
    """The same tasks, A2E waiting for attention alone, as its data do, where it waits for the
    shared experts."""

    def freed(task: Task) -> Task:
        if task.kind is not Kind.A2E:
            return task
        needs = [
            schedule[needed].after if schedule[needed].kind is Kind.SHARED else (needed,)
            for needed in task.after
        ]
        return replace(task, after=tuple(dict.fromkeys(name for names in needs for name in names)))

    return replace(
        schedule,
        streams={name: tuple(map(freed, tasks)) for name, tasks in schedule.streams.items()},
    )


def same_tasks(one: Schedule, other: Schedule) -> bool:
    """Whether two schedules differ in the order of their streams at most."""
    return one.stream_of == other.stream_of and {t.name: t for t in one} == {
        t.name: t for t in other
    }


def _unit(durations: Iterable[Fraction]) -> tuple[Fraction, bool]:
    """The length of a tick, and whether durations are rounded to it."""
    positive = [duration for duration in durations if duration]
    if not positive:
        return Fraction(1), False
    total = sum(positive, Fraction(0))
    unit = Fraction(
        math.gcd(*(d.numerator for d in positive)), math.lcm(*(d.denominator for d in positive))
    )
    return (unit, False) if total / unit <= GRAINS else (total / GRAINS, True)


@dataclass(frozen=True)
class _Found:
    """What the solver says, in ticks."""

    schedule: Schedule
    objective: int
    bound: int
    optimal: bool
    seconds: float


def _solve(
    schedule: Schedule, ticks: Mapping[str, int], free: str, time_limit_s: float, workers: int
) -> _Found:
    problem = _Problem(schedule, ticks, free)
    solver = problem.cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = time_limit_s
    solver.parameters.num_workers = workers
    solver.parameters.cp_model_probing_level = (
        0  # OR-Tools 9.15 finds long horizons infeasible by it, wrongly
    )
    solver.parameters.catch_sigint_signal = False
    with ThreadPoolExecutor(1) as thread:  # Ctrl-C ends the wait for it
        search = thread.submit(solver.solve, problem.model)
        try:
            status = search.result()
        except KeyboardInterrupt:
            solver.stop_search()
            raise
    bound = max(problem.least, math.ceil(solver.best_objective_bound - 1e-6))
    if status == problem.cp_model.UNKNOWN:
        return _Found(schedule, problem.most, bound, False, solver.wall_time)
    optimal = status == problem.cp_model.OPTIMAL
    assert optimal or status == problem.cp_model.FEASIBLE, (
        f"{solver.status_name(status)}, yet what is given is a solution"
    )
    return _Found(
        problem.ordered(solver.value),
        round(solver.objective_value),
        bound,
        optimal,
        solver.wall_time,
    )


class _Problem:
    """A constraint model of when every task starts, in ticks; what is given is one of its
    solutions."""

    def __init__(self, schedule: Schedule, ticks: Mapping[str, int], free: str) -> None:
        self.cp_model = _cp_model()
        self.schedule, self.ticks = schedule, ticks
        given = earliest_times(schedule, self.tick)
        self.most = most = round(max((end for _, end in given.values()), default=0))
        parallel = Schedule(
            {task.name: (task,) for task in schedule}
        )  # every task a stream of its own: no FIFO
        self.position = {task.name: at for at, task in enumerate(parallel.in_order)}
        heads = {
            name: round(start) for name, (start, _) in earliest_times(parallel, self.tick).items()
        }
        tails = _tails(parallel, ticks)
        self.least = max((heads[name] + ticks[name] + tails[name] for name in heads), default=0)
        self.model = self.cp_model.CpModel()
        self.starts = {
            name: self.model.new_int_var(head, most - tails[name] - ticks[name], name)
            for name, head in heads.items()
        }
        self.makespan = self.model.new_int_var(self.least, most, "makespan")
        self.sources = _sources(schedule) if free == "ag" else {}
        self.turns: dict[
            str, Any
        ] = {}  # of the first stream, where tasks that take no time leave its order open
        self.model.minimize(self.makespan)
        for name, (start, _) in given.items():
            self.model.add_hint(self.starts[name], round(start))
        self.wait()
        for tasks in schedule.streams.values():
            self.serve(tasks)
        if free == "all":
            self.serve_in_any_order()
        else:
            self.serve_in_order_of_the_first()
        self.begin_equal_micro_batches_in_turn()

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

    def serve(self, tasks: Iterable[Task]) -> None:
        """A stream serves one task at a time."""
        self.model.add_no_overlap(
            self.model.new_fixed_size_interval_var(
                self.starts[task.name], self.ticks[task.name], task.name
            )
            for task in tasks
        )

    def serve_in_any_order(self) -> None:
        for equals in _equal_chunks(self.schedule, self.ticks):
            for name, after in pairwise(equals):
                self.model.add(self.starts[after] >= self.end(name))

    def serve_in_order_of_the_first(self) -> None:
        first, *others = self.schedule.streams.values()
        sources = self.sources
        if not all(self.ticks[task.name] for task in first):
            self.turns = {
                task.name: self.model.new_int_var(0, len(first), f"turn {task.name}")
                for task in first
            }
            for task in first:
                for needed in task.after:
                    if needed in sources:
                        self.model.add(self.turns[task.name] > self.turns[sources[needed]])
        words: dict[tuple[str, str], Any] = {}
        for tasks in others:
            served: dict[str, list[str]] = {}
            for task in tasks:
                served.setdefault(sources[task.name], []).append(task.name)
            for own in served.values():
                for name, after in pairwise(own):
                    self.model.add(self.starts[after] >= self.end(name))
            for one, other in combinations(served, 2):
                if (one, other) not in words:
                    words[one, other] = self.before(one, other)
                word = words[one, other]
                for earlier, later, said in ((one, other, word), (other, one, ~word)):
                    follows = self.starts[served[later][0]] >= self.end(served[earlier][-1])
                    self.model.add(follows).only_enforce_if(said)

    def before(self, one: str, other: str) -> Any:
        """Whether the first stream serves `one` before `other`, as a literal."""
        word = self.model.new_bool_var(f"{one} before {other}")
        for earlier, later, said in ((one, other, word), (other, one, ~word)):
            self.model.add(self.starts[later] >= self.end(earlier)).only_enforce_if(said)
            if self.turns:
                self.model.add(self.turns[later] > self.turns[earlier]).only_enforce_if(said)
        return word

    def begin_equal_micro_batches_in_turn(self) -> None:
        """Micro-batches that could change names begin in the order of their numbers."""
        openings = {
            task.mb: task.name for task in self.schedule if not task.after and task.kind.opens_layer
        }
        for equals in _equal_micro_batches(self.schedule, self.ticks):
            for mb, after in pairwise(equals):
                if mb in openings and after in openings:
                    self.model.add(self.starts[openings[after]] >= self.end(openings[mb]))

    def ordered(self, value: Callable[[Any], int]) -> Schedule:
        """The schedule of a solution: every stream in order of its starts.

        Where tasks take no time, ties are broken so that no task comes before what it waits for.
        """
        turns = self.turns or self.starts
        sources = self.sources or {name: name for name in self.starts}
        turn = {name: value(turns[sources[name]]) if self.sources else 0 for name in self.starts}

        def key(task: Task) -> tuple[int, int, int, int]:
            start = value(self.starts[task.name])
            return start, start + self.ticks[task.name], turn[task.name], self.position[task.name]

        streams = self.schedule.streams.items()
        return Schedule(
            {stream: tuple(sorted(tasks, key=key)) for stream, tasks in streams},
            self.schedule.label,
        )


def _cp_model() -> Any:
    try:
        from ortools.sat.python import cp_model
    except ImportError:
        raise ValueError(
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


def _sources(schedule: Schedule) -> dict[str, str]:
    """Task -> the task of the first stream that it waits for, directly or through others; those of
    the first: itself.

    Raises ValueError for a task that waits for none, or for several.
    """
    sources = {task.name: task.name for task in next(iter(schedule.streams.values()), ())}
    for task in schedule.in_order:
        if task.name in sources:
            continue
        found = {sources[needed] for needed in task.after}
        if len(found) != 1:
            told = " and ".join(sorted(found)) or "none"
            raise ValueError(
                f"{task} has no place in the order of the first stream: it waits for {told} of its tasks"
            )
        sources[task.name] = found.pop()
    return sources


def _in_order_of_the_first(schedule: Schedule) -> Schedule:
    """The same tasks, every stream in the order of what its tasks wait for in the first one."""
    sources = _sources(schedule)
    place = {task.name: at for at, task in enumerate(next(iter(schedule.streams.values()), ()))}
    return replace(
        schedule,
        streams={
            stream: tuple(sorted(tasks, key=lambda task: place[sources[task.name]]))
            for stream, tasks in schedule.streams.items()
        },
    )


def _equal_chunks(schedule: Schedule, ticks: Mapping[str, int]) -> Iterator[list[str]]:
    """Tasks of one kind and stream, of chunks of a micro-batch that could change names, in the
    order of their numbers.

    Such chunks take the same time in every stream, wait for the same tasks, and the same tasks wait
    for them: of any order, the one that serves the k-th of them k-th everywhere takes as long.
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
        own = {task.name: (task.kind, task.rank) for task in tasks}
        signs = frozenset(
            (
                schedule.stream_of[task.name],
                *own[task.name],
                ticks[task.name],
                frozenset(own.get(needed, needed) for needed in task.after),
                frozenset(own.get(waiter, waiter) for waiter in waiters[task.name]),
            )
            for task in tasks
        )
        equals.setdefault((layer, mb, signs), []).append(tasks)
    for alike in equals.values():
        by_place: dict[tuple[object, ...], list[str]] = {}
        for task in (task for tasks in alike for task in tasks):
            by_place.setdefault((schedule.stream_of[task.name], task.kind, task.rank), []).append(
                task.name
            )
        yield from by_place.values()


def _equal_micro_batches(schedule: Schedule, ticks: Mapping[str, int]) -> Iterable[list[int]]:
    """Micro-batches that could change names: the same tasks on the same streams, of the same time,
    after the same."""
    groups: dict[frozenset[tuple[object, ...]], list[int]] = {}
    signs: dict[int, list[tuple[object, ...]]] = {}
    for task in schedule:
        after = tuple(sorted(_unnamed(schedule[needed], task.mb) for needed in task.after))
        where = (schedule.stream_of[task.name], _unnamed(task, task.mb), ticks[task.name], after)
        signs.setdefault(task.mb, []).append(where)
    for mb, sign in sorted(signs.items()):
        groups.setdefault(frozenset(sign), []).append(mb)
    return groups.values()


def _unnamed(task: Task, mb: int) -> str:
    """The name of a task without its micro-batch, if that is `mb`."""
    return replace(task, mb=0, after=()).name if task.mb == mb else f"{task.name} of another"
