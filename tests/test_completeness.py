"""Schedules that compute a model, and those that leave something out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from places import SHARED
from schedules import findep
from strategies import policy_schedules

from simdep.checks import InputError
from simdep.completeness import check_complete
from simdep.schedule import Schedule


@settings(max_examples=300, deadline=None)
@given(policy_schedules())
def test_the_schedule_of_every_policy_is_complete(schedule: Schedule) -> None:
    check_complete(schedule)


def ancestors(schedule: Schedule) -> dict[str, set[str]]:
    """All that ends before a task begins, by the closure of what every task waits for."""
    before: dict[str, set[str]] = {}
    for task in schedule.in_order:
        before[task.name] = set()
        for name in schedule.predecessors[task.name]:
            before[task.name] |= {name} | before[name]
    return before


@pytest.mark.parametrize("name", list(findep(2, 2, 2).stream_of))
def test_a_task_that_no_longer_waits_is_refused_where_its_data_may_come_later(name: str) -> None:
    schedule = findep(2, 2, 2)
    streams = {}
    for stream, tasks in schedule.streams.items():
        streams[stream] = tuple(replace(t, after=()) if t.name == name else t for t in tasks)
    loose = Schedule(streams, "loose")
    before = ancestors(loose)
    if all(set(loose.data_of(task)) <= before[task.name] for task in loose):
        check_complete(loose)
    else:
        with pytest.raises(InputError, match="whose result it needs"):
            check_complete(loose)


def test_a_layer_without_a_micro_batch_is_refused() -> None:
    schedule = findep(2, 1, 1)
    streams = {
        stream: tuple(task for task in tasks if task.layer == 1)
        for stream, tasks in schedule.streams.items()
    }
    streams = {
        stream: tuple(replace(t, after=tuple(a for a in t.after if "[1." in a)) for t in tasks)
        for stream, tasks in streams.items()
    }
    with pytest.raises(InputError, match=r"A\[0.0\] is missing; every layer has every micro-batch"):
        check_complete(Schedule(streams, "late"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="without ../shared")
@pytest.mark.parametrize("case", ["not_executable.json", "layer5_only.json"])
def test_schedules_that_can_not_run_are_refused(case: str) -> None:
    with pytest.raises(InputError):
        check_complete(Schedule.load(SHARED / "cases" / "hostile" / case))
