"""From the stamps of all ranks to one measured timeline, in microseconds since its first task
began."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from realrun.runtime.executor import Stamps
from simdep.schedule import Schedule
from simdep.timeline import Timeline


def delays(
    schedule: Schedule, stream: str, starts: Mapping[str, float], ends: Mapping[str, float]
) -> dict[str, tuple[float, bool]]:
    """Of each task of a stream: microseconds from when it could have started to when it did, and
    whether it had to wait for something after the task before it had ended.

    `starts` and `ends` are those of the stream and of what it waits for. The first task has no
    delay.
    """
    found = {}
    free = starts[schedule.streams[stream][0].name]
    for task in schedule.streams[stream]:
        ready = max((ends[name] for name in task.after), default=free)
        found[task.name] = max(0.0, starts[task.name] - max(ready, free)), ready > free
        free = ends[task.name]
    return found


def timeline_of(
    schedule: Schedule, ag: int, stamps: Sequence[Stamps], meta: dict[str, Any] | None = None
) -> Timeline:
    """Join the stamps of ranks 0..ag-1 (AG) and the rest (EG).

    A computation has a row for each rank of its group. A transfer has a row for each rank that
    receives: it lasts from the moment the last sender posted it, but not before the transfer ahead
    of it in its stream arrived there, to its own arrival. A receiver's waiting is no part of it.
    """
    times: list[tuple[str, int, float, float]] = []
    groups = {"A2E": (stamps[:ag], stamps[ag:]), "E2A": (stamps[ag:], stamps[:ag])}
    for members in (stamps[:ag], stamps[ag:]):
        for rank, row in enumerate(members):
            times += [(name, rank, start, end) for name, start, end in row.computed]
    for stream, (senders, receivers) in groups.items():
        for rank, receiver in enumerate(receivers):
            free = 0.0
            for task in schedule.streams[stream]:
                end = receiver.arrived[task.name]
                posted = max(sender.posted[task.name] for sender in senders)
                times.append((task.name, rank, min(end, max(posted, free)), end))
                free = end
    origin = min(start for _, _, start, _ in times)
    shifted = [
        (name, rank, (start - origin) / 1e3, (end - origin) / 1e3)
        for name, rank, start, end in times
    ]
    return Timeline.from_times(schedule, "real", shifted, meta)


def stamps_of(row: dict[str, Any]) -> Stamps:
    """The stamps that a "run" job returned for a rank."""
    return Stamps(
        [(name, start, end) for name, start, end in row["computed"]], row["posted"], row["arrived"]
    )
