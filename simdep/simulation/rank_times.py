"""Start and end of every rank's tasks, a vector a task: the longest path through an expanded
schedule, not written out.

It is the paper's model alone: what hosts add (`HostOverheads`) is refused. Whole numbers stay
exact. Equal to the engine and the recurrence on `RankWork.expand()`, at any size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from simdep.arrays import Array
from simdep.costs import IDEAL, HostOverheads
from simdep.schedule import track
from simdep.simulation.engine import simulate_schedule
from simdep.simulation.rank_work import RankWork, ranked
from simdep.timeline import COLUMNS, Timeline, task_columns


@dataclass(frozen=True, eq=False)
class RankTimes:
    """Start and end in microseconds over the ranks of every task of `work`; nan where a rank has no
    part in it."""

    work: RankWork
    start: Mapping[str, Array]
    end: Mapping[str, Array]

    @cached_property
    def makespan_us(self) -> float:
        """From the first start to the last end; 0 for an empty schedule."""
        starts = np.concatenate([np.zeros(0), *self.start.values()])
        return (
            max(map(_latest, self.end.values())) - float(np.nanmin(starts)) if len(starts) else 0.0
        )

    @cached_property
    def timeline(self) -> Timeline:
        """One row for every rank and task, of the group's schedule, as a real run has them."""
        parts = {name: np.flatnonzero(part) for name, part in self.work.has_part.items()}
        counts = [len(ranks) for ranks in parts.values()]
        of_tasks = task_columns(self.work.schedule, list(parts))
        columns = {name: np.repeat(values, counts) for name, values in of_tasks.items()}
        columns["rank"] = np.concatenate(list(parts.values()))
        of_ranks = {"tokens": self.work.tokens, "start_us": self.start, "end_us": self.end}
        for column, by_task in of_ranks.items():
            columns[column] = np.concatenate([by_task[name][at] for name, at in parts.items()])
        order = np.lexsort((columns["end_us"], columns["start_us"]))
        rows = pd.DataFrame({name: columns[name][order] for name in COLUMNS})
        return Timeline(self.work.schedule, "sim", rows)

    @cached_property
    def expanded(self) -> Timeline:
        """The same of the expanded schedule, where each row is a task; raises InputError where that
        is too large."""
        schedule, _ = self.work.expand()
        times = [
            (ranked(name, rank), rank, float(self.start[name][rank]), float(self.end[name][rank]))
            for name, part in self.work.has_part.items()
            for rank in np.flatnonzero(part).tolist()
        ]
        return Timeline.from_times(schedule, "sim", times)

    @cached_property
    def critical_path(self) -> list[tuple[str, int]]:
        """A chain of (task, rank), first to last, each the last to end among those that the next
        one waits for."""
        before: dict[str, int] = {}
        for tasks in self.work.schedule.streams.values():
            before |= {task.name: at for at, task in enumerate(tasks)}
        last = max(self.end, key=lambda name: _latest(self.end[name]), default=None)
        if last is None:
            return []
        path = [(last, int(np.nanargmax(self.end[last])))]
        while True:
            name, rank = path[-1]
            stream = self.work.schedule.streams[self.work.schedule.stream_of[name]]
            earlier = (stream[at].name for at in range(before[name] - 1, -1, -1))
            own = next((task for task in earlier if self.work.has_part[task][rank]), None)
            waits = [*self.work.waits(name, rank), *([(own, rank)] if own else [])]
            if not waits:
                return path[::-1]
            path.append(max(waits, key=lambda each: self.end[each[0]][each[1]]))


def simulate_ranks(work: RankWork, host: HostOverheads = IDEAL) -> RankTimes:
    """The times of a work: by the engine where a host adds a gap, noise or a half-duplex link, else
    by `rank_times`.

    The ports of an EG rank share its medium where links are half duplex. Raises InputError for the
    other terms, which a host does not have for every rank, and for a work that the engine would
    have to write out and can't.
    """
    if not host.terms:
        return rank_times(work)
    unknown = replace(host, gap_us=0, half_duplex=False, noise=0)
    unknown.refuse("a simulation of every rank")
    schedule, costs = work.expand()
    rows = simulate_schedule(schedule, costs, host).rows
    times = {
        at: {name: np.full(len(us), np.nan) for name, us in work.us.items()}
        for at in ("start_us", "end_us")
    }
    for name, rank, start, end in zip(
        rows["task"], rows["rank"], rows["start_us"], rows["end_us"], strict=True
    ):
        group = name[: name.index("@")] + "]"
        times["start_us"][group][rank], times["end_us"][group][rank] = start, end
    return RankTimes(work, times["start_us"], times["end_us"])


def rank_times(work: RankWork, host: HostOverheads = IDEAL) -> RankTimes:
    """Every task of every rank as early as it may be; raises InputError for a host with any term in
    use."""
    host.refuse("the per-rank evaluator")
    starts: dict[str, Array] = {}
    ends: dict[
        str, Array
    ] = {}  # of ranks without a part: when what they would have waited for has ended
    free = {
        stream: np.zeros(work.ag if track(stream)[0] == "AG" else work.eg)
        for stream in work.schedule.streams
    }
    for task in work.schedule.in_order:
        name, stream = task.name, work.schedule.stream_of[task.name]
        ready, part = np.zeros(len(free[stream])), work.has_part[name]
        for before in task.after:
            ready = np.maximum(ready, _passed_on(work, name, before, ends[before]))
        start = np.maximum(ready, free[stream])
        end = np.where(part, start + work.us[name], ready)
        free[stream] = np.where(part, end, free[stream])
        starts[name], ends[name] = np.where(part, start, np.nan), end
    return RankTimes(
        work,
        starts,
        {name: np.where(work.has_part[name], end, np.nan) for name, end in ends.items()},
    )


def _passed_on(work: RankWork, name: str, before: str, end: Array) -> Array:
    """When every rank of `name` has what it needs of `before`."""
    if work.on_ag(name) == work.on_ag(before):
        return end
    part = work.has_part[before]
    pairs = next((work.needs[each] for each in (before, name) if each in work.needs), None)
    known = np.where(part, end, 0)
    if pairs is None:
        return np.full(1, known.max())
    across = pairs.T if work.on_ag(before) else pairs  # [rank that waits, rank waited for]
    found: Array = np.where(across, known[None, :], 0).max(axis=1)
    return found


def _latest(end: Array) -> float:
    """The last end over ranks; 0 where none has a part."""
    return float(np.nan_to_num(end).max())
