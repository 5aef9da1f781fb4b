"""The recurrence against the engine: one pass over a schedule and a run of its events give the same
times."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from schedules import findep
from strategies import policy_schedules, random_schedules, with_shared

from simdep.costs import HostOverheads, StageTimes
from simdep.schedule import Schedule, Task
from simdep.simulation.engine import simulate_schedule, simulated_makespan_us
from simdep.simulation.longest_path import earliest_times, longest_path_us


@settings(max_examples=2000)
@given(policy_schedules() | random_schedules(), with_shared)
def test_every_task_starts_and_ends_as_in_the_engine(schedule: Schedule, times: StageTimes) -> None:
    """Of any policy, any cut, any dependencies, with work that grows with the tokens; whole
    numbers, so ==."""

    def us(task: Task) -> float:
        stage = {"projection": times.attention, "core": times.shared}
        return stage.get(task.kind.label) or task.tokens * getattr(times, task.kind.label, 1)

    found = earliest_times(schedule, us)
    rows = simulate_schedule(schedule, us).by_task()
    assert found == {name: (row.start_us, row.end_us) for name, row in rows.iterrows()}
    assert longest_path_us(schedule, us) == simulated_makespan_us(schedule, us)


@pytest.mark.parametrize(
    "host",
    [
        HostOverheads(gap_us=1),
        HostOverheads(receive_us=1),
        HostOverheads(post_us=lambda _: 1.0),
        HostOverheads(contention=0.1),
        HostOverheads(half_duplex=True),
        HostOverheads(noise=0.1),
    ],
)
def test_what_hosts_add_is_refused_by_its_name(host: HostOverheads) -> None:
    schedule, times = findep(2, 2, 2), StageTimes(3, 2, 1, 1, 1)
    with pytest.raises(
        ValueError, match=f"the recurrence does not model {host.terms[0]}; simulate, or leave"
    ):
        longest_path_us(schedule, times, host)
