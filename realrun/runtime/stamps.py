"""From the stamps of all ranks to one measured timeline, in microseconds since its first task
began."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simdep.schedule import Schedule
from simdep.timeline import Timeline


@dataclass(frozen=True)
class Stamps:
    """What a rank measured in one run, in nanoseconds of the host's clock.

    `computed` holds (task, start, end) of its computations; `posted` and `arrived` are those of its
    messages, by task name.
    """

    computed: Sequence[tuple[str, float, float]]
    posted: Mapping[str, float]
    arrived: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; `from_dict` reads it back."""
        return {"computed": self.computed, "posted": self.posted, "arrived": self.arrived}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Stamps:
        """The stamps in what a "run" job returned for a rank."""
        computed = [(task, start, end) for task, start, end in row["computed"]]
        return cls(computed, row["posted"], row["arrived"])


@dataclass(frozen=True)
class Delay:
    """Microseconds from when a task could have started to when it did.

    `waited`: it had to wait for something after the task before it had ended.
    """

    us: float
    waited: bool


def delays(
    schedule: Schedule, stream: str, starts: Mapping[str, float], ends: Mapping[str, float]
) -> dict[str, Delay]:
    """The delay of each task of a stream; the first task has none.

    `starts` and `ends` are microseconds of the tasks of the stream and of what they wait for.
    """
    by_task = {}
    free = starts[schedule.streams[stream][0].name]
    for task in schedule.streams[stream]:
        ready = max((ends[name] for name in task.after), default=free)
        late_us = max(0.0, starts[task.name] - max(ready, free))
        by_task[task.name] = Delay(late_us, waited=ready > free)
        free = ends[task.name]
    return by_task


def timeline_of(
    schedule: Schedule, ag: int, stamps: Sequence[Stamps], meta: dict[str, Any] | None = None
) -> Timeline:
    """Join the stamps of ranks 0..ag-1 (AG) and the rest (EG).

    A computation has a row for each rank of its group. A transfer has a row for each rank that
    receives: it lasts from the moment the last sender posted it, but not before the transfer ahead
    of it in its stream arrived there, to its own arrival. A receiver's waiting is no part of it.
    """
    on_ag, on_eg = stamps[:ag], stamps[ag:]
    times: list[tuple[str, int, float, float]] = []
    for group in (on_ag, on_eg):
        for rank, of_rank in enumerate(group):
            times += [(task, rank, start, end) for task, start, end in of_rank.computed]
    times += _transfers(schedule, "A2E", on_ag, on_eg)
    times += _transfers(schedule, "E2A", on_eg, on_ag)
    origin = min(start for _, _, start, _ in times)
    shifted = [
        (task, rank, (start - origin) / 1e3, (end - origin) / 1e3)
        for task, rank, start, end in times
    ]
    return Timeline.from_times(schedule, "real", shifted, meta)


def _transfers(
    schedule: Schedule, stream: str, senders: Sequence[Stamps], receivers: Sequence[Stamps]
) -> list[tuple[str, int, float, float]]:
    times = []
    for rank, receiver in enumerate(receivers):
        free = 0.0
        for task in schedule.streams[stream]:
            end = receiver.arrived[task.name]
            posted = max(sender.posted[task.name] for sender in senders)
            times.append((task.name, rank, min(end, max(posted, free)), end))
            free = end
    return times
