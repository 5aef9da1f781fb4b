"""Start and end of every task by one pass over the schedule: the longest path through its
dependencies.

It is the engine's result without its events, for the paper's model alone: what hosts add
(`HostOverheads`) is refused. Any unit of time; whole numbers stay exact.
"""

from __future__ import annotations

from simdep.costs import IDEAL, Costs, HostOverheads
from simdep.schedule import Schedule


def earliest_times(
    schedule: Schedule, costs: Costs, host: HostOverheads = IDEAL
) -> dict[str, tuple[float, float]]:
    """Task name -> (start, end), every task as early as it may be, predecessors first.

    Raises InputError for a schedule that can never finish, and for a host with any term in use.
    """
    host.refuse("the recurrence")
    found: dict[str, tuple[float, float]] = {}
    predecessors = schedule.predecessors
    for task in schedule.in_order:
        start: float = 0
        for needed in predecessors[task.name]:  # a loop: max() of a generator takes twice as long
            start = max(start, found[needed][1])
        found[task.name] = (start, start + costs(task))
    return found


def longest_path_us(schedule: Schedule, costs: Costs, host: HostOverheads = IDEAL) -> float:
    """From 0, when the first task starts, to the last end; 0 for an empty schedule."""
    return max((end for _, end in earliest_times(schedule, costs, host).values()), default=0)
