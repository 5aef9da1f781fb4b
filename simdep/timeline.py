"""A timeline: one row for every task and rank, simulated or measured, in one table schema. Times
are microseconds.

A group-level simulation has one row a task and the rank 0 of its group; a real run, or a simulation
of every rank, has a row for every rank that took part. `by_task` joins the rows of a task:
computation lasts from the earliest start to the latest end over its ranks, a transfer from the
latest start to the latest end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Literal

import numpy as np
import pandas as pd

from simdep.schedule import Schedule, track

COLUMNS = ("task", "kind", "layer", "mb", "chunk", "stream", "rank", "tokens", "start_us", "end_us")


@dataclass(frozen=True)
class Timeline:
    """Rows with the columns `COLUMNS`, in order of start; chunk is -1 for a task that is not
    chunked.

    `rank` counts within the group of the stream: for a transfer it is the rank that receives, and
    in a simulation of every rank (`simdep.simulation.rank_work`) the EG rank at whose port it is,
    whichever way it goes.
    """

    schedule: Schedule
    source: Literal["sim", "real"]
    rows: pd.DataFrame
    meta: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_times(
        cls,
        schedule: Schedule,
        source: Literal["sim", "real"],
        times: Iterable[tuple[str, int, float, float]],
        meta: dict[str, Any] | None = None,
    ) -> Timeline:
        """A timeline from (task name, rank, start, end); an AssertionError names a task that has no
        time.

        A stream of one rank sets the rank of its rows.
        """
        by_time = sorted(times, key=itemgetter(2, 3))
        names, ranks, starts, ends = zip(*by_time, strict=True) if by_time else ((), (), (), ())
        missing = schedule.stream_of.keys() - set(names)
        assert not missing, f"no time for {min(missing)}"
        columns = task_columns(schedule, names)
        columns["rank"] = np.array(_ranks(schedule, names, ranks), dtype=np.int64)
        columns["start_us"] = np.array(starts)
        columns["end_us"] = np.array(ends)
        return cls(schedule, source, pd.DataFrame(columns, columns=list(COLUMNS)), meta or {})

    @property
    def makespan_us(self) -> float:
        """From the first start to the last end; 0 for an empty schedule."""
        if self.rows.empty:
            return 0
        span = self.rows["end_us"].max() - self.rows["start_us"].min()
        return span.item() if isinstance(span, np.generic) else span  # type: ignore[no-any-return]

    @property
    def nbytes(self) -> int:
        """Bytes that it holds at most, as measured: 800 a task of its schedule and 200 a row."""
        return 800 * len(self.schedule) + 200 * len(self.rows)

    def by_task(self) -> pd.DataFrame:
        """One row a task, indexed by name, with start_us and end_us over its ranks (rule at the
        top)."""
        groups = self.rows.groupby("task", sort=False)
        joined = groups.first()
        late_start = groups["start_us"].max()
        transfer = joined["kind"].isin(
            [k.label for k in {t.kind for t in self.schedule} if k.is_transfer]
        )
        joined["start_us"] = groups["start_us"].min().where(~transfer, late_start)
        joined["end_us"] = groups["end_us"].max()
        return joined.drop(columns="rank")

    def tracks(self) -> list[tuple[str, int]]:
        """The serial resources in display order: (stream, rank) in the order of the schedule's
        streams."""
        pairs = self.rows[["stream", "rank"]].drop_duplicates()
        present = zip(pairs["stream"], pairs["rank"].tolist(), strict=True)
        return sorted(present, key=lambda each: (self.schedule.resources.index(each[0]), each[1]))


def task_columns(schedule: Schedule, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The columns of a timeline that a task alone fixes (all but rank, start and end), for tasks by
    name."""
    tasks = [schedule[name] for name in names]
    resources = {stream: track(stream)[0] for stream in schedule.streams}
    chunks = [-1 if task.chunk is None else task.chunk for task in tasks]
    return {
        "task": np.array(names, dtype=object),
        "kind": np.array([task.kind.label for task in tasks], dtype=object),
        "layer": np.array([task.layer for task in tasks], dtype=np.int64),
        "mb": np.array([task.mb for task in tasks], dtype=np.int64),
        "chunk": np.array(chunks, dtype=np.int64),
        "stream": np.array([resources[schedule.stream_of[n]] for n in names], dtype=object),
        "tokens": np.array([task.tokens for task in tasks], dtype=np.int64),
    }


def _ranks(schedule: Schedule, names: Sequence[str], given: Sequence[int]) -> Sequence[int]:
    """The rank of every row: that of its stream, or else the given one."""
    fixed = {stream: track(stream)[1] for stream in schedule.streams if "@" in stream}
    if not fixed:
        return given
    streams = (schedule.stream_of[name] for name in names)
    return [fixed.get(stream, rank) for stream, rank in zip(streams, given, strict=True)]


def union(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Disjoint intervals, in order, that cover exactly the given ones; touching intervals become
    one."""
    order = np.argsort(starts, kind="stable")
    starts, reach = starts[order], np.maximum.accumulate(ends[order])
    if not len(starts):
        return starts, reach
    opens = np.concatenate(([True], starts[1:] > reach[:-1]))
    closes = np.concatenate((opens[1:], [True]))
    return starts[opens], reach[closes]


def length(intervals: tuple[np.ndarray, np.ndarray]) -> float:
    """Total length of disjoint intervals."""
    return float((intervals[1] - intervals[0]).sum())
