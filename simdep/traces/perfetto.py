"""A trace: one or more timelines in a file, as Chrome JSON for Perfetto or as the plain table.
Times are microseconds.

The one rule of the JSON is Perfetto's: slices of a thread neither overlap nor begin together. So
each lane (stream, rank) is a thread, times are whole nanoseconds from the timeline's first start,
and a lane shows its rows in schedule order, each from when the row before it has ended and what it
waits for has begun. Rows that break the rule, such as a receive posted early or one that follows a
row of 0 us, are moved just so far; their args keep the row's own times.

An arrow leads to each row from every task in its `after`: from the same rank of the same group (a
transfer belongs to the group that receives), else from the rank that ended last.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from simdep import __version__, files
from simdep.file_kinds import TIMELINE
from simdep.schedule import Kind, Schedule, Task, lane
from simdep.timeline import COLUMNS, Timeline

TABLES = (".csv", ".parquet")
SUFFIXES = (".json", ".json.gz", *TABLES)
_PROCESS = {"sim": "predicted", "real": "measured"}
_NUMBERS = ("layer", "mb", "chunk", "rank", "tokens", "start_us", "end_us")
_OF_SCHEDULE = (
    "kind",
    "layer",
    "mb",
    "chunk",
    "stream",
    "tokens",
)  # the columns that a task's name determines
_GROUP = {
    kind: {Kind.A2E: "EG", Kind.E2A: "AG"}.get(kind, kind.stream) for kind in Kind
}  # the group of its ranks

Event = dict[str, Any]
Lane = tuple[str, int]  # stream, rank


def write(path: Path, *timelines: Timeline) -> None:
    """Write timelines to `path`: .json or .json.gz takes any number, .csv or .parquet the table of
    one.

    Raises ValueError for another suffix, and for more or fewer timelines than the format holds.
    """
    suffix = _suffix(path, SUFFIXES)
    if suffix in TABLES:
        if len(timelines) != 1:
            raise ValueError(
                f"{path}: {suffix} holds one timeline, not {len(timelines)}; write .json for several"
            )
        table = timelines[0].rows[list(COLUMNS)]
        with files.replacing(path) as file:
            if suffix == ".csv":
                table.to_csv(file, index=False)
            else:
                table.to_parquet(file, index=False)
        return
    if not timelines:
        raise ValueError(f"{path}: there is no timeline to write; give at least one")
    data = json.dumps(chrome_trace(*timelines)).encode()
    files.write(path, gzip.compress(data, mtime=0) if suffix == ".json.gz" else data)


def read_table(path: Path, schedule: Schedule, source: Literal["sim", "real"]) -> Timeline:
    """The timeline of `schedule` in a .csv or .parquet table; rows count from 1, further columns
    are ignored.

    Raises ValueError that begins with the file's name and gives the row at fault.
    """
    suffix = _suffix(path, TABLES)
    table = _read_csv(path) if suffix == ".csv" else files.read_parquet(path, TIMELINE)
    with files.context(path, TIMELINE):
        rows = _checked(table, schedule)
    columns = (rows[name].tolist() for name in ("task", "rank", "start_us", "end_us"))
    return Timeline.from_times(schedule, source, zip(*columns, strict=True))


def chrome_trace(*timelines: Timeline) -> dict[str, Any]:
    """Chrome JSON in Kineto's manner: a process for each timeline, `predicted` or `measured`, and a
    thread a lane."""
    events: list[Event] = []
    notes = []
    tids = count(
        len(timelines) + 1
    )  # Perfetto takes a thread whose tid is its pid for the main thread of a process
    ids = count(1)
    for pid, (process, timeline) in enumerate(
        zip(_process_names(timelines), timelines, strict=True), 1
    ):
        lanes = timeline.lanes()
        tid = dict(zip(lanes, islice(tids, len(lanes)), strict=True))
        slices = _slices(timeline, tid)
        events += _names(pid, process, tid)
        events += _events(pid, slices, ids)
        notes.append(
            {
                "process": process,
                "source": timeline.source,
                "schedule": timeline.schedule.label,
                "base_us": min(timeline.rows["start_us"].tolist(), default=0),
                "rows_moved": sum(each.moved for each in slices),
            }
        )
    return {
        "schemaVersion": 1,
        "displayTimeUnit": "ms",
        "traceName": "; ".join(dict.fromkeys(t.schedule.label or "schedule" for t in timelines)),
        "metadata": {"simdep": __version__, "timelines": notes},
        "traceEvents": events,
    }


@dataclass(frozen=True, eq=False)
class _Slice:
    """A row as it is and as shown, in nanoseconds since the first start; its arrows come from
    `origins`."""

    task: Task
    stream: str
    rank: int
    tid: int
    row_ns: tuple[int, int]
    start_ns: int
    end_ns: int
    origins: list[_Slice]

    @property
    def moved(self) -> bool:
        return self.row_ns != (self.start_ns, self.end_ns)


def _slices(timeline: Timeline, tid: Mapping[Lane, int]) -> list[_Slice]:
    """The rows as shown, every row after those it waits for."""
    schedule = timeline.schedule
    columns = (timeline.rows[name].tolist() for name in ("task", "rank", "start_us", "end_us"))
    times: dict[str, list[tuple[int, int, int]]] = {task.name: [] for task in schedule}
    for name, rank, start, end in zip(*columns, strict=True):
        times[name].append((rank, _ns(start), _ns(end)))
    base = min((start for rows in times.values() for _, start, _ in rows), default=0)
    free: Counter[int] = Counter()
    shown: dict[str, list[_Slice]] = {}
    for task in schedule.in_order:
        shown[task.name] = []
        stream, _ = lane(schedule.stream_of[task.name])
        for rank, start, end in times[task.name]:
            thread, row_ns = tid[stream, rank], (start - base, end - base)
            origins = [_origin(shown[needed], task, rank) for needed in dict.fromkeys(task.after)]
            begin = max(row_ns[0], free[thread], *(origin.start_ns for origin in origins))
            stop = max(row_ns[1], begin)
            free[thread] = max(stop, begin + 1)
            shown[task.name].append(
                _Slice(task, stream, rank, thread, row_ns, begin, stop, origins)
            )
    return [each for rows in shown.values() for each in rows]


def _origin(rows: Sequence[_Slice], task: Task, rank: int) -> _Slice:
    """The row, of those of a task, that an arrow to `rank` of `task` comes from."""
    here = [row for row in rows if row.rank == rank and _GROUP[row.task.kind] == _GROUP[task.kind]]
    return max(here or rows, key=lambda row: row.end_ns)


def _events(pid: int, slices: Sequence[_Slice], ids: Iterator[int]) -> list[Event]:
    """The slices and their arrows, in order of time.

    Perfetto reads events of equal times in file order, save that slices of more than 0 us come
    first, and binds an end of an arrow to the slice begun last on its thread. So a slice stands
    before its arrows, and an `s` before its `f`.
    """
    events = []
    for each in slices:
        events.append(_slice(pid, each))
        for origin in each.origins:
            arrow: Event = {"name": "after", "cat": "dependency", "id": next(ids), "pid": pid}
            events.append(arrow | {"ph": "s", "tid": origin.tid, "ts": origin.start_ns / 1000})
            events.append(
                arrow | {"ph": "f", "tid": each.tid, "ts": each.start_ns / 1000, "bp": "e"}
            )
    return sorted(events, key=lambda event: event["ts"])


def _slice(pid: int, each: _Slice) -> Event:
    task = each.task
    args: dict[str, Any] = {"kind": task.kind.label, "layer": task.layer, "mb": task.mb}
    if task.chunk is not None:
        args["chunk"] = task.chunk
    args |= {"tokens": task.tokens, "stream": each.stream, "rank": each.rank}
    if task.kind.is_transfer:
        args |= {
            "Collective name": task.kind.label,
            "Dst Rank": each.rank,
        }  # the names that torch.profiler uses
    if each.moved:
        args |= {"row_start_us": each.row_ns[0] / 1000, "row_end_us": each.row_ns[1] / 1000}
    times = {"ts": each.start_ns / 1000, "dur": (each.end_ns - each.start_ns) / 1000}
    return {
        "ph": "X",
        "name": task.name,
        "cat": task.kind.label,
        "pid": pid,
        "tid": each.tid,
        **times,
        "args": args,
    }


def _names(pid: int, process: str, tid: Mapping[Lane, int]) -> list[Event]:
    """Names and order of a process and its threads; a thread has its rank in its name if its stream
    has several."""
    ranks = Counter(stream for stream, _ in tid)
    named = [("process", pid, process)]
    named += [
        ("thread", at, f"{lane[0]} {lane[1]}" if ranks[lane[0]] > 1 else lane[0])
        for lane, at in tid.items()
    ]
    events = []
    for what, at, name in named:
        common: Event = {"ph": "M", "pid": pid, "tid": at, "ts": 0}
        events.append(common | {"name": f"{what}_name", "args": {"name": name}})
        events.append(common | {"name": f"{what}_sort_index", "args": {"sort_index": at}})
    return events


def _process_names(timelines: Sequence[Timeline]) -> list[str]:
    """`predicted` or `measured`, numbered from 1 where several have the same source."""
    names = [_PROCESS[timeline.source] for timeline in timelines]
    return [
        f"{n} {1 + names[:i].count(n)}" if names.count(n) > 1 else n for i, n in enumerate(names)
    ]


def _ns(us: float) -> int:
    return round(us * 1000)


def _suffix(path: Path, known: Sequence[str]) -> str:
    for suffix in known:
        if path.name.lower().endswith(suffix):
            return suffix
    raise ValueError(f"{path}: suffix {path.suffix!r} is not one of {', '.join(known)}")


def _read_csv(path: Path) -> pd.DataFrame:
    """Read as text first: pandas 2 reads some floats a bit off, and takes a stream called NA for a
    missing value."""
    table = files.read_csv(path, TIMELINE)
    with files.context(path, TIMELINE):
        rows = table.frame(dtype=str, keep_default_na=False).reset_index(drop=True)
    return rows.assign(
        **{name: [_number(cell) for cell in rows[name]] for name in _NUMBERS if name in rows}
    )


def _number(cell: str) -> float | str:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(cell)
    return cell


def _checked(rows: pd.DataFrame, schedule: Schedule) -> pd.DataFrame:
    """The rows, if they are those of `schedule`; raises ValueError naming the first one that is
    not."""
    if missing := [name for name in COLUMNS if name not in rows]:
        raise ValueError(
            f"column {missing[0]} is missing; a timeline has the columns {', '.join(COLUMNS)}"
        )
    plain = Timeline.from_times(
        schedule, "sim", [(task.name, 0, 0, 0) for task in schedule]
    ).rows.set_index("task")
    _refuse(rows, ~rows["task"].isin(plain.index), "task", "the schedule has no task of that name")
    for column in _OF_SCHEDULE:
        expected = plain.loc[rows["task"], column].to_numpy()
        _refuse(
            rows,
            rows[column].to_numpy() != expected,
            column,
            f"the task has another {column} in the schedule",
        )
    rank, start, end = (
        pd.to_numeric(rows[name], errors="coerce") for name in ("rank", "start_us", "end_us")
    )
    _refuse(rows, ~(rank >= 0) | (rank % 1 != 0), "rank", "ranks are whole numbers from 0")
    _refuse(
        rows, rows.duplicated(["task", "rank"]), "rank", "the task has a row of this rank already"
    )
    _refuse(rows, ~np.isfinite(start), "start_us", "a time is a finite number")
    _refuse(rows, ~np.isfinite(end), "end_us", "a time is a finite number")
    _refuse(rows, end < start, "end_us", "a task ends at or after its start_us")
    has_rank = np.array(["@" in schedule.stream_of[name] for name in rows["task"]], dtype=bool)
    other = rank.to_numpy() != plain.loc[rows["task"], "rank"].to_numpy()
    _refuse(rows, has_rank & other, "rank", "the task is that of another rank in the schedule")
    if absent := set(plain.index) - set(rows["task"]):
        raise ValueError(f"there is no row for {min(absent)}; every task of the schedule has one")
    return rows.assign(rank=rank.astype(int), start_us=start, end_us=end)


def _refuse(rows: pd.DataFrame, wrong: Any, column: str, rule: str) -> None:
    at = np.flatnonzero(wrong)
    if len(at):
        row = rows.iloc[at[0]]
        raise ValueError(f"row {at[0] + 1} ({row['task']}): {column}={row[column]}; {rule}")
