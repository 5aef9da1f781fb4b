"""The recurrence against the engine: one pass over a schedule and a run of its events give the same
times."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from strategies import policy_schedules, random_schedules, with_shared

from simdep.costs import Host, StageTimes
from simdep.policies import findep
from simdep.schedule import Schedule, Task
from simdep.simulation import longest_path as recurrence
from simdep.simulation.engine import makespan_us, simulate


@settings(max_examples=2000)
@given(policy_schedules() | random_schedules(), with_shared)
def test_every_task_starts_and_ends_as_in_the_engine(schedule: Schedule, times: StageTimes) -> None:
    """Of any policy, any cut, any dependencies, with work that grows with the tokens; whole
    numbers, so ==."""

    def us(task: Task) -> float:
        stage = {"projection": times.attention, "core": times.shared}
        return stage.get(task.kind.label) or task.tokens * getattr(times, task.kind.label, 1)

    found = recurrence.times(schedule, us)
    rows = simulate(schedule, us).by_task()
    assert found == {name: (row.start_us, row.end_us) for name, row in rows.iterrows()}
    assert recurrence.makespan_us(schedule, us) == makespan_us(schedule, us)


@pytest.mark.parametrize(
    "host",
    [
        Host(gap_us=1),
        Host(receive_us=1),
        Host(post_us=lambda _: 1.0),
        Host(contention=0.1),
        Host(half_duplex=True),
        Host(noise=0.1),
    ],
)
def test_what_hosts_add_is_refused_by_its_name(host: Host) -> None:
    schedule, times = findep(2, 2, 2), StageTimes(3, 2, 1, 1, 1)
    with pytest.raises(
        ValueError, match=f"the recurrence does not model {host.terms[0]}; simulate, or leave"
    ):
        recurrence.makespan_us(schedule, times, host)
