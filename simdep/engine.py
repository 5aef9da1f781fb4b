"""The discrete-event engine: one SimPy process a stream, plain events between them.

It computes with whatever numbers the costs return, so integer costs give exact integer times. Streams start in the
schedule's order and SimPy serves equal times in creation order: the same input always gives the same timeline.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import simpy

from simdep.schedule import Schedule, Task
from simdep.timeline import Timeline

Costs = Callable[[Task], float]  # microseconds that a task occupies its stream


def simulate(schedule: Schedule, costs: Costs) -> Timeline:
    """Run a schedule; raises RuntimeError, saying what every stream waits for, when it gets stuck.

    A cost that is negative or not finite raises ValueError naming the task.
    """
    durations = {task.name: _checked(task, costs(task)) for task in schedule}
    env = simpy.Environment()
    ended = {task.name: env.event() for task in schedule}
    times: list[tuple[str, int, float, float]] = []
    heads: dict[str, tuple[Task, str]] = {}

    def serve(stream: str, tasks: tuple[Task, ...]) -> Generator[simpy.Event, None, None]:
        for task in tasks:
            for needed in task.after:
                if not ended[needed].processed:
                    heads[stream] = (task, needed)
                    yield ended[needed]
            start = env.now
            yield env.timeout(durations[task.name])
            times.append((task.name, 0, start, env.now))
            ended[task.name].succeed()
        heads.pop(stream, None)

    for stream, tasks in schedule.streams.items():
        env.process(serve(stream, tasks))
    env.run()
    if len(times) < len(schedule):
        waits = "; ".join(f"{stream} waits at {task} for {needed}" for stream, (task, needed) in heads.items())
        raise RuntimeError(f"schedule is stuck at {env.now} us: {waits}")
    return Timeline.from_times(schedule, "sim", times)


def _checked(task: Task, cost: float) -> float:
    if not 0 <= cost < float("inf"):
        raise ValueError(f"{task}: cost {cost} us; a cost is a finite number of at least 0")
    return cost
