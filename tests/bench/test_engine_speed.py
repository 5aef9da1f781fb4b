"""The engine beside a minimal SimPy program of the same schedule: `pytest -m bench -s`.

Both run in turn, so that whatever else the machine does slows both: a ratio is the median of those
of single turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator

import pytest
import simpy
from schedules import findep

from simdep.costs import Costs, StageTimes
from simdep.schedule import Schedule, Task
from simdep.simulation.engine import simulate_schedule, simulated_makespan_us

pytestmark = pytest.mark.bench

TIMES = StageTimes(attention=100.0, shared=30.0, a2e=20.0, expert=50.0, e2a=20.0)
TURNS = 31
SHAPES = [(60, 4, 4, "aass"), (60, 2, 8, "asas"), (60, 8, 1, "aass")]
Makespan = Callable[[Schedule, Costs], float]


def minimal_makespan_us(schedule: Schedule, costs: Costs) -> float:
    """What one would write with SimPy alone: a process a stream, an event a task, start and end
    kept."""
    env = simpy.Environment()
    ended = {task.name: env.event() for task in schedule}
    spans: dict[str, tuple[float, float]] = {}

    def stream(tasks: tuple[Task, ...]) -> Generator[simpy.Event, None, None]:
        for task in tasks:
            for needed in task.after:
                yield ended[needed]
            start = env.now
            yield env.timeout(costs(task))
            spans[task.name] = (start, env.now)
            ended[task.name].succeed()

    for tasks in schedule.streams.values():
        env.process(stream(tasks))
    env.run()
    return max(end for _, end in spans.values())


def with_timeline(schedule: Schedule, costs: Costs) -> float:
    return simulate_schedule(schedule, costs).makespan_us


def seconds(work: Makespan, schedule: Schedule) -> float:
    began = time.process_time()
    work(schedule, TIMES)
    return time.process_time() - began


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape)))
def test_the_engine_takes_at_most_1_3_times_a_minimal_simpy_program(
    shape: tuple[int, int, int, str],
) -> None:
    """The same makespan; with the table of the timeline at most twice as long."""
    schedule = findep(*shape)
    programs = (minimal_makespan_us, simulated_makespan_us, with_timeline)
    assert len({program(schedule, TIMES) for program in programs}) == 1
    turns = [[seconds(program, schedule) for program in programs] for _ in range(TURNS)]
    minimal, engine, table = (1e6 * statistics.median(spent) for spent in zip(*turns, strict=True))
    ratio = statistics.median(turn[1] / turn[0] for turn in turns)
    ratio_of_table = statistics.median(turn[2] / turn[0] for turn in turns)
    print(
        f"\nSimPy engine, {len(schedule):,} tasks: {engine / len(schedule):.2f} us a task,"
        f" {ratio:.2f} times a minimal SimPy program ({minimal / len(schedule):.2f});"
        f" with its timeline {table / len(schedule):.2f}, {ratio_of_table:.2f} times"
    )
    assert ratio <= 1.3
    assert ratio_of_table <= 2
    assert engine / len(schedule) < 30  # 3 to 6 us on a machine that does nothing else
