"""Chrome JSON of one or more timelines, for Perfetto. Times are microseconds.

The one rule of the JSON is Perfetto's: slices of a thread neither overlap nor begin together. So
each track (stream, rank) is a thread, times are whole nanoseconds from the timeline's first start,
and a track shows its rows in schedule order, each from when the row before it has ended and what it
waits for has begun. Rows that break the rule, such as a receive posted early or one that follows a
row of 0 us, are moved just so far; their args keep the row's own times.

An arrow leads to each row from every task in its `after`: from the same rank of the same group (a
transfer belongs to the group that receives), else from the rank that ended last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

from simdep.schedule import Kind, Task, track
from simdep.timeline import Timeline
from simdep.version import VERSION

_PROCESS = {"sim": "predicted", "real": "measured"}
_RECEIVING_GROUP = {Kind.A2E: "EG", Kind.E2A: "AG"}

Event = dict[str, Any]
Track = tuple[str, int]  # stream, rank


def chrome_trace(*timelines: Timeline) -> dict[str, Any]:
    """Chrome JSON in Kineto's manner: a process for each timeline, `predicted` or `measured`, and a
    thread a track."""
    events: list[Event] = []
    metadata = []
    # Perfetto takes a thread whose tid is its pid for the main thread of a process
    tids = count(len(timelines) + 1)
    ids = count(1)
    processes = _process_names(timelines)
    for pid, (process, timeline) in enumerate(zip(processes, timelines, strict=True), 1):
        tracks = timeline.tracks()
        tid = dict(zip(tracks, islice(tids, len(tracks)), strict=True))
        slices = _slices(timeline, tid)
        events += _names(pid, process, tid)
        events += _events(pid, slices, ids)
        metadata.append(
            {
                "process": process,
                "source": timeline.source,
                "schedule": timeline.schedule.label,
                "base_us": min(timeline.rows["start_us"].tolist(), default=0),
                "rows_moved": sum(shown.moved for shown in slices),
            }
        )
    labels = dict.fromkeys(timeline.schedule.label or "schedule" for timeline in timelines)
    return {
        "schemaVersion": 1,
        "displayTimeUnit": "ms",
        "traceName": "; ".join(labels),
        "metadata": {"simdep": VERSION, "timelines": metadata},
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


def _slices(timeline: Timeline, tid: Mapping[Track, int]) -> list[_Slice]:
    """The rows as shown, every row after those it waits for."""
    schedule = timeline.schedule
    times = _times_ns(timeline)
    free: Counter[int] = Counter()  # thread -> when its next slice may begin
    shown: dict[str, list[_Slice]] = {}
    for task in schedule.in_order:
        shown[task.name] = []
        stream, _ = track(schedule.stream_of[task.name])
        for rank, start, end in times[task.name]:
            thread = tid[stream, rank]
            origins = [_origin(shown[needed], task, rank) for needed in dict.fromkeys(task.after)]
            begin = max(start, free[thread], *(origin.start_ns for origin in origins))
            stop = max(end, begin)
            free[thread] = max(stop, begin + 1)
            shown[task.name].append(
                _Slice(task, stream, rank, thread, (start, end), begin, stop, origins)
            )
    return [slice_ for slices in shown.values() for slice_ in slices]


def _times_ns(timeline: Timeline) -> dict[str, list[tuple[int, int, int]]]:
    """Task -> (rank, start, end) of its rows, in whole nanoseconds from the first start."""
    columns = (timeline.rows[name].tolist() for name in ("task", "rank", "start_us", "end_us"))
    rows = [
        (name, rank, _ns(start), _ns(end)) for name, rank, start, end in zip(*columns, strict=True)
    ]
    base = min((start for _, _, start, _ in rows), default=0)
    times: dict[str, list[tuple[int, int, int]]] = {task.name: [] for task in timeline.schedule}
    for name, rank, start, end in rows:
        times[name].append((rank, start - base, end - base))
    return times


def _ns(us: float) -> int:
    return round(us * 1000)


def _origin(slices: Sequence[_Slice], task: Task, rank: int) -> _Slice:
    """The slice, of those of a task, that an arrow to `rank` of `task` comes from."""
    of_rank = [
        slice_
        for slice_ in slices
        if slice_.rank == rank and _group(slice_.task.kind) == _group(task.kind)
    ]
    return max(of_rank or slices, key=lambda slice_: slice_.end_ns)


def _group(kind: Kind) -> str:
    """The group of the ranks of a task's rows."""
    return _RECEIVING_GROUP.get(kind, kind.stream)


def _events(pid: int, slices: Sequence[_Slice], ids: Iterator[int]) -> list[Event]:
    """The slices and their arrows, in order of time.

    Perfetto reads events of equal times in file order, save that slices of more than 0 us come
    first, and binds an end of an arrow to the slice begun last on its thread. So a slice stands
    before its arrows, and an `s` before its `f`.
    """
    events = []
    for slice_ in slices:
        events.append(_slice_event(pid, slice_))
        for origin in slice_.origins:
            arrow: Event = {"name": "after", "cat": "dependency", "id": next(ids), "pid": pid}
            tail: Event = {"ph": "s", "tid": origin.tid, "ts": origin.start_ns / 1000}
            head: Event = {"ph": "f", "tid": slice_.tid, "ts": slice_.start_ns / 1000, "bp": "e"}
            events += [arrow | tail, arrow | head]
    return sorted(events, key=lambda event: event["ts"])


def _slice_event(pid: int, slice_: _Slice) -> Event:
    task = slice_.task
    args: dict[str, Any] = {"kind": task.kind.label, "layer": task.layer, "mb": task.mb}
    if task.chunk is not None:
        args["chunk"] = task.chunk
    args |= {"tokens": task.tokens, "stream": slice_.stream, "rank": slice_.rank}
    if task.kind.is_transfer:  # the names that torch.profiler uses
        args |= {"Collective name": task.kind.label, "Dst Rank": slice_.rank}
    if slice_.moved:
        start_ns, end_ns = slice_.row_ns
        args |= {"row_start_us": start_ns / 1000, "row_end_us": end_ns / 1000}
    return {
        "ph": "X",
        "name": task.name,
        "cat": task.kind.label,
        "pid": pid,
        "tid": slice_.tid,
        "ts": slice_.start_ns / 1000,
        "dur": (slice_.end_ns - slice_.start_ns) / 1000,
        "args": args,
    }


def _names(pid: int, process: str, tid: Mapping[Track, int]) -> list[Event]:
    """Names and order of a process and its threads; a thread has its rank in its name if its stream
    has several."""
    ranks = Counter(stream for stream, _ in tid)
    events = _name_events("process", pid, pid, process)
    for (stream, rank), thread in tid.items():
        name = f"{stream} {rank}" if ranks[stream] > 1 else stream
        events += _name_events("thread", pid, thread, name)
    return events


def _name_events(level: str, pid: int, tid: int, name: str) -> list[Event]:
    common: Event = {"ph": "M", "pid": pid, "tid": tid, "ts": 0}
    return [
        common | {"name": f"{level}_name", "args": {"name": name}},
        common | {"name": f"{level}_sort_index", "args": {"sort_index": tid}},
    ]


def _process_names(timelines: Sequence[Timeline]) -> list[str]:
    """`predicted` or `measured`, numbered from 1 where several have the same source."""
    sources = [_PROCESS[timeline.source] for timeline in timelines]
    total, so_far = Counter(sources), Counter[str]()
    names = []
    for source in sources:
        so_far[source] += 1
        names.append(f"{source} {so_far[source]}" if total[source] > 1 else source)
    return names
