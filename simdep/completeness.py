"""Which schedules compute a model: every layer has every micro-batch, and every task waits for the
results that it needs."""

from __future__ import annotations

from simdep.checks import InputError
from simdep.schedule import Kind, Schedule, task_name


def check_complete(schedule: Schedule) -> None:
    """Raise InputError for a layer that lacks a micro-batch, or a task that does not wait for its
    data (`simdep.schedule.DataFlow`).

    The tasks of single ranks are not checked: what they need depends on who sends to whom.
    """
    if any(task.rank is not None for task in schedule):
        return
    _check_layers(schedule)
    for task in schedule:
        for needed in schedule.data_of(task):
            if not _waits(schedule, task.name, needed):
                raise InputError(f"{task} does not wait for {needed}, whose result it needs")


def _check_layers(schedule: Schedule) -> None:
    opened = {(task.layer, task.mb) for task in schedule if task.kind.opens_layer}
    micro_batches = sorted({task.mb for task in schedule})
    for layer in range(schedule.layers):
        for mb in micro_batches:
            if (layer, mb) not in opened:
                missing = task_name(Kind.ATTENTION, layer, mb)
                raise InputError(f"{missing} is missing; every layer has every micro-batch")


def _waits(schedule: Schedule, task: str, needed: str) -> bool:
    """Whether a task begins after another one has ended, directly or by way of others."""
    seen = {task}
    waiting = [task]
    while waiting:
        direct = schedule.predecessors[waiting.pop()]
        if needed in direct:
            return True
        waiting += [name for name in direct if name not in seen]
        seen.update(direct)
    return False
