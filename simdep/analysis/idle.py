"""Where the time of a schedule goes: its critical path by kind of task, and the idle time of every
stream by cause.

Both splits are complete: the parts of the critical path sum to the makespan, the causes of a
stream's idle time to its bubble. Functions of a timeline alone; times are microseconds.

Idle time of a stream, at any moment, has the first of these causes that holds:

    warm-up         its first task has not started yet
    drain           its last task has ended
    order           a later task of the stream has all it needs, but the FIFO's next one has not
    another rank    some of the ranks that the next task waits for are done, the slowest is not
    KIND            a task of that kind runs on the chain that decides when the next task starts
    host            nothing runs on that chain: launch gaps, send and receive overheads, a shared
                    link that is taken
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from simdep.analysis.summary import critical_path
from simdep.schedule import Kind, Task, track
from simdep.timeline import Timeline

WARM_UP, DRAIN, ORDER, OTHER_RANK, HOST = "warm-up", "drain", "order", "another rank", "host"

Spans = Mapping[str, tuple[float, float]]  # task -> (start, end)
Part = tuple[str, float, float]  # of idle time: cause, from, to


@dataclass(frozen=True)
class PathShare:
    """What the tasks of a kind on a stream, ranks joined, take of the critical path.

    Kind and stream `host` are the time in which no task of the path runs.
    """

    kind: str
    stream: str
    tasks: int
    us: float
    fraction: float


def time_breakdown(timeline: Timeline) -> dict[str, Any]:
    """Critical path by kind and stream, bubbles and idle time by cause, ready for JSON."""
    idle = idle_by_cause(timeline)
    return {
        "critical_path": [asdict(share) for share in attribution(timeline)],
        "bubble_us": {stream: sum(causes.values()) for stream, causes in idle.items()},
        "idle_us": idle,
    }


def attribution(timeline: Timeline) -> list[PathShare]:
    """The critical path by kind and stream, largest first; the parts sum to the makespan."""
    if timeline.rows.empty:
        return []
    spans = _task_spans(timeline)
    parts: dict[tuple[str, str], list[float]] = {}
    now = timeline.rows["start_us"].min()
    for name in critical_path(timeline):
        start, end = spans[name]
        resource, _ = track(timeline.schedule.stream_of[name])
        if start > now:
            parts.setdefault((HOST, HOST), []).append(start - now)
        kind = timeline.schedule[name].kind.label
        parts.setdefault((kind, resource), []).append(max(0, end - max(start, now)))
        now = max(now, end)
    total = sum(map(sum, parts.values()))
    shares = []
    for (kind, stream), times in parts.items():
        us = sum(times)
        fraction = float(us / total) if total else 0.0
        shares.append(PathShare(kind, stream, len(times), _plain(us), fraction))
    return sorted(shares, key=lambda share: -share.us)


def idle_by_cause(timeline: Timeline) -> dict[str, dict[str, float]]:
    """Stream (of a rank, where there are several) -> cause -> idle time; the sum is the bubble of
    the stream."""
    tracks = timeline.tracks()
    ranks = Counter(resource for resource, _ in tracks)
    waits = _Waits(timeline)
    causes: dict[str, dict[str, float]] = {}
    for resource, rank in tracks:
        stream = f"{resource}@{rank}" if ranks[resource] > 1 else resource
        causes[stream] = {}
        for cause, low, high in waits.idle_parts(resource, rank):
            if high > low:
                causes[stream][cause] = causes[stream].get(cause, 0) + (high - low)
    return causes


class _Waits:
    """What each task of a timeline waited for."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline, self.schedule = timeline, timeline.schedule
        self.spans = _task_spans(timeline)
        self.begin = _plain(timeline.rows["start_us"].min())
        self.end = _plain(timeline.rows["end_us"].max())
        first_ends = timeline.rows.groupby("task", sort=False)["end_us"].min()
        self.first_end = {str(name): _plain(us) for name, us in first_ends.items()}

    def idle_parts(self, resource: str, rank: int) -> Iterator[Part]:
        """The idle time of a track, in order."""
        spans = self._spans_of_track(resource, rank)
        executed = [name for name in self._fifo(resource, rank) if name in spans]
        if not executed:
            yield WARM_UP, self.begin, self.end
            return
        later_ready = self._later_ready(executed, spans)
        free = self.begin
        for position, name in enumerate(executed):
            start, end = spans[name]
            if start > free and position == 0:
                yield WARM_UP, free, start
            elif start > free:
                yield from self._causes(name, free, start, later_ready[position])
            free = max(free, end)
        yield DRAIN, free, self.end

    def _spans_of_track(self, resource: str, rank: int) -> dict[str, tuple[float, float]]:
        rows = self.timeline.rows
        rows = rows[(rows["stream"] == resource) & (rows["rank"] == rank)]
        columns = rows[["task", "start_us", "end_us"]].itertuples(index=False)
        return {name: (_plain(start), _plain(end)) for name, start, end in columns}

    def _fifo(self, resource: str, rank: int) -> list[str]:
        """The tasks of a track: those of its rank's stream or, without one, of the group's."""
        streams = self.schedule.streams
        tasks = streams.get(f"{resource}@{rank}", streams.get(resource, ()))
        return [task.name for task in tasks]

    def _later_ready(self, executed: Sequence[str], spans: Spans) -> list[float]:
        """For each task of a track, when the first of those after it, of any length, has all it
        needs."""
        ready, soonest = [0.0] * len(executed), math.inf
        for position in reversed(range(len(executed))):
            ready[position] = soonest
            name = executed[position]
            start, end = spans[name]
            if end > start:
                arrivals = [self.spans[needed][1] for needed in self.schedule[name].after]
                soonest = min(soonest, max(arrivals, default=-math.inf))
        return ready

    def _causes(self, head: str, low: float, high: float, later_ready: float) -> Iterator[Part]:
        """The idle time before `head`; from `later_ready` on, a later task of the track could
        run."""
        until = min(high, max(low, later_ready))
        yield ORDER, until, high
        slowest: list[tuple[float, float]] = []  # from the first to the last end over ranks
        now, task = high, head
        while now > low and (before := self.schedule.predecessors[task]):
            last = max(before, key=lambda name: self.spans[name][1])
            start, end = self.spans[last]
            if end < now:
                yield HOST, max(low, end), min(now, until)
                now = end
            if self.schedule[last].rank is None or self._worker(last) != self._worker(head):
                slowest.append((self._first_end(before, last), end))
            begin = max(low, min(start, now))
            for piece_low, piece_high, is_slowest in _pieces(begin, min(now, until), slowest):
                cause = OTHER_RANK if is_slowest else self.schedule[last].kind.label
                yield cause, piece_low, piece_high
            now, task = min(now, start), last
        yield HOST, low, min(now, until)

    def _worker(self, name: str) -> tuple[bool, int | None]:
        """The rank that does a task, or whose port does: whether of the AG, and its number."""
        resource, _ = track(self.schedule.stream_of[name])
        return resource == "AG", self.schedule[name].rank

    def _first_end(self, names: Iterable[str], last: str) -> float:
        """When the first rank ends what `last` is the slowest rank's part of."""
        operation = _operation(self.schedule[last])
        return min(
            self.first_end[name] for name in names if _operation(self.schedule[name]) == operation
        )


def _operation(task: Task) -> tuple[Kind, int, int, int | None]:
    """What tasks of different ranks have in common that are parts of one operation."""
    return task.kind, task.layer, task.mb, task.chunk


def _pieces(
    low: float, high: float, inner: Iterable[tuple[float, float]]
) -> Iterator[tuple[float, float, bool]]:
    """An interval in pieces, each with whether it lies within one of the `inner` intervals."""
    if high <= low:
        return
    covered = [
        (max(low, start), min(high, end)) for start, end in inner if start < high and end > low
    ]
    edges = {low, high}.union(*covered)
    for left, right in pairwise(sorted(edges)):
        yield left, right, any(start <= left and right <= end for start, end in covered)


def _task_spans(timeline: Timeline) -> dict[str, tuple[float, float]]:
    rows = timeline.by_task()[["start_us", "end_us"]]
    return {str(name): (_plain(start), _plain(end)) for name, start, end in rows.itertuples()}


def _plain(value: Any) -> float:
    """A number of Python: JSON does not take those of NumPy."""
    return value.item() if isinstance(value, np.generic) else value  # type: ignore[no-any-return]
