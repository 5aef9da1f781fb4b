"""The discrete-event engine: one SimPy process a stream, plain events between them.

It computes with whatever numbers the costs return, so integer costs give exact integer times.
Streams start in the schedule's order and SimPy serves equal times in creation order: the same input
always gives the same timeline.

What a real host adds to FinDEP's model are the terms of `HostOverheads`, each 0 or 1 by default: then it is
the paper's model exactly. Before a computation its stream takes in the messages that it needs,
`receive_us` each, while it waits for them if it has to, and then pauses for `gap_us`. Messages are
posted by the stream that computes what they carry, in the order of their own stream, before its
next computation: each takes `post_us` there and may start when its posting starts. Computation
times vary by `noise`. While n transfers are under way, computation runs at `1 - n * contention` of
its speed, integrated exactly from one change of n to the next.
"""

from __future__ import annotations

import math
from collections.abc import Generator

import numpy as np
import simpy

from simdep.costs import IDEAL, Costs, HostOverheads
from simdep.schedule import Schedule, Task, track
from simdep.timeline import Timeline

Steps = Generator[simpy.Event, None, None]


def simulate_schedule(schedule: Schedule, costs: Costs, host: HostOverheads = IDEAL) -> Timeline:
    """Run a schedule; raises RuntimeError, saying what every stream waits for, when it gets stuck.

    A cost that is negative or not finite raises ValueError naming the task.
    """
    return Timeline.from_times(schedule, "sim", _Run(schedule, costs, host).times())


def simulated_makespan_us(schedule: Schedule, costs: Costs, host: HostOverheads = IDEAL) -> float:
    """The makespan that `simulate_schedule` gives, without its timeline."""
    times = _Run(schedule, costs, host).times()
    return max(end for *_, end in times) - min(start for *_, start, _ in times)


class _Run:
    """One simulation: the events and times that its processes share."""

    def __init__(self, schedule: Schedule, costs: Costs, host: HostOverheads) -> None:
        self.schedule, self.host = schedule, host
        self.durations = {task.name: _checked(task, costs(task)) for task in schedule}
        if host.noise:
            self.durations |= _varied(schedule, self.durations, host)
        self.env = simpy.Environment()
        self.ended = {task.name: self.env.event() for task in schedule}
        self.served: list[tuple[str, int, float, float]] = []
        self.heads: dict[str, tuple[Task, str]] = {}
        self.posts = (
            posts_after(schedule) if host.terms else {}
        )  # posting that takes no time holds up nothing
        self.unposted = {task.name for tasks in self.posts.values() for task in tasks}
        self.posted: dict[str, simpy.Event] = {}  # of the messages that a transfer stream waits for
        ports = {track(stream)[1] for stream in schedule.streams} if host.half_duplex else set()
        self.media = {
            port: simpy.Resource(self.env) for port in ports
        }  # A2E@3 and E2A@3 share that of port 3
        self.under_way = 0
        self.changed = self.env.event()

    def times(self) -> list[tuple[str, int, float, float]]:
        """(task, rank 0, start, end) of every task, in order of their ends."""
        for stream, tasks in self.schedule.streams.items():
            self.env.process(self.serve(stream, tasks))
        self.env.run()
        if len(self.served) < len(self.schedule):
            waits = "; ".join(
                f"{stream} waits at {task} for {needed}"
                for stream, (task, needed) in self.heads.items()
            )
            raise RuntimeError(f"schedule is stuck at {self.env.now} us: {waits}")
        return self.served

    def serve(self, stream: str, tasks: tuple[Task, ...]) -> Steps:
        for task in tasks:
            free = self.env.now
            for needed in task.after:
                if not self.ended[needed].processed:
                    self.heads[stream] = (task, needed)
                    yield self.ended[needed]
            if task.kind.is_transfer:
                yield from self.transfer(task)
            else:
                yield from self.compute(task, free)
        self.heads.pop(stream, None)

    def transfer(self, task: Task) -> Steps:
        if task.name in self.unposted:
            self.posted[task.name] = self.env.event()
            yield self.posted[task.name]
        medium = self.media[track(self.schedule.stream_of[task.name])[1]] if self.media else None
        turn = medium.request() if medium else None
        if turn:
            yield turn
        start = self.env.now
        self.count(+1)
        yield self.env.timeout(self.durations[task.name])
        self.count(-1)
        if medium and turn:
            medium.release(turn)
        self.end(task, start)

    def compute(self, task: Task, free: float) -> Steps:
        overhead = self.host.gap_us
        if self.host.receive_us:
            taken_in = free + self.host.receive_us * self.messages(task)
            overhead += max(0, taken_in - self.env.now)
        if overhead:
            yield self.env.timeout(overhead)
        start = self.env.now
        if self.host.contention:
            yield from self.slowed(self.durations[task.name])
        else:
            yield self.env.timeout(self.durations[task.name])
        self.end(task, start)
        for message in self.posts.get(task.name, ()):
            self.unposted.discard(message.name)
            if message.name in self.posted:
                self.posted[message.name].succeed()
            cost = self.host.post_us(message)
            if cost:
                yield self.env.timeout(cost)

    def messages(self, task: Task) -> int:
        return sum(self.schedule[needed].kind.is_transfer for needed in task.after)

    def slowed(self, work: float) -> Steps:
        """Do `work` microseconds of computation at a speed that changes with the transfers under
        way."""
        while work > 0:
            speed, since = 1 - self.under_way * self.host.contention, self.env.now
            ready = self.env.timeout(work / speed)
            yield ready | self.changed
            work = 0 if ready.processed else work - (self.env.now - since) * speed

    def count(self, more: int) -> None:
        if self.host.contention:
            self.under_way += more
            self.changed.succeed()
            self.changed = self.env.event()

    def end(self, task: Task, start: float) -> None:
        self.served.append((task.name, 0, start, self.env.now))
        self.ended[task.name].succeed()


def posts_after(schedule: Schedule) -> dict[str, list[Task]]:
    """Computation -> the transfers that its host posts right after it, in order.

    A host posts the head of a transfer stream once everything in its `after` has ended. Transfers
    that wait for anything but the computation of one stream are posted by nobody and start on their
    own.
    """
    position = {
        task.name: (stream, index)
        for stream, tasks in schedule.streams.items()
        for index, task in enumerate(tasks)
        if not task.kind.is_transfer
    }
    posts: dict[str, list[Task]] = {}
    for tasks in schedule.streams.values():
        last: tuple[str, int] | None = None
        for task in tasks:
            places = [position.get(needed) for needed in task.after]
            if (
                not task.kind.is_transfer
                or not places
                or None in places
                or len({p[0] for p in places if p}) > 1
            ):
                break
            last = max(p for p in [*places, last] if p is not None)
            posts.setdefault(schedule.streams[last[0]][last[1]].name, []).append(task)
    return posts


def _varied(
    schedule: Schedule, durations: dict[str, float], host: HostOverheads
) -> dict[str, float]:
    """The durations of computations, each times its own draw of the host's noise."""
    names = [task.name for task in schedule if not task.kind.is_transfer]
    spread = math.log1p(host.noise**2)
    factors = np.random.default_rng(host.seed).lognormal(-spread / 2, math.sqrt(spread), len(names))
    return {
        name: durations[name] * float(factor) for name, factor in zip(names, factors, strict=True)
    }


def _checked(task: Task, cost: float) -> float:
    if not 0 <= cost < float("inf"):
        raise ValueError(f"{task}: cost {cost} us; expected a finite number >= 0")
    return cost
