"""Which schedules a real run can execute."""

from __future__ import annotations

from simdep.schedule import Kind, Schedule, Task

# What a task of a stream may wait for: a rank knows the end of its own computation and of what
# arrives, nothing else.
_VISIBLE = {"AG": {"AG", "E2A"}, "A2E": {"AG"}, "EG": {"EG", "A2E"}, "E2A": {"EG"}}


def check_executable(schedule: Schedule) -> None:
    """Raise ValueError unless the schedule has DEP's four streams and every task waits for its
    data."""
    if set(schedule.streams) != set(_VISIBLE):
        raise ValueError(
            f"realrun runs the streams {', '.join(_VISIBLE)}; "
            f"this schedule has {', '.join(schedule.streams)}"
        )
    ancestors: dict[str, set[str]] = {}
    for task in schedule.in_order:
        _check_task(task, schedule)
        direct = schedule.predecessors[task.name]
        ancestors[task.name] = set(direct).union(*(ancestors[name] for name in direct))
        for needed in _data_of(task, schedule):
            if needed not in ancestors[task.name]:
                raise ValueError(f"{task} does not wait for {needed}, whose result it needs")


def _check_task(task: Task, schedule: Schedule) -> None:
    stream = schedule.stream_of[task.name]
    if stream != task.kind.stream:
        raise ValueError(f"{task} stands in stream {stream}; realrun runs it in {task.kind.stream}")
    if task.kind in (Kind.PROJECTION, Kind.CORE):
        raise ValueError(f"{task}: realrun computes attention as one task, A[layer.mb]")
    if task.groups > 1:
        raise ValueError(
            f"{task} is one of {task.groups} groups of experts; realrun cuts chunks by token"
        )
    for needed in task.after:
        if schedule.stream_of[needed] not in _VISIBLE[stream]:
            raise ValueError(
                f"{task} waits for {needed}, whose end its rank can't see in a real run"
            )


def _data_of(task: Task, schedule: Schedule) -> list[str]:
    """The tasks whose results a task needs."""
    place = f"[{task.layer}.{task.mb}.{task.chunk}]"
    if task.kind is Kind.SHARED or task.kind is Kind.A2E:
        return [f"A[{task.layer}.{task.mb}]"]
    if task.kind is Kind.EXPERT:
        return [f"A2E{place}"]
    if task.kind is Kind.E2A:
        return [f"E{place}"]
    return [
        other.name
        for other in schedule
        if other.layer == task.layer - 1
        and other.mb == task.mb
        and other.kind in (Kind.E2A, Kind.SHARED)
    ]
