"""The discrete-event engine: one SimPy process a stream, plain events between them.

It computes with whatever numbers the costs return, so integer costs give exact integer times.
Streams start in the schedule's order and SimPy handles equal times in creation order: the same
input always gives the same timeline. An event stands for the end of a task only where a stream
waits for it, which spares the kernel half of its events.

Host overheads (`HostOverheads`) extend FinDEP's model; left at their defaults they leave it exactly
as it is. Before a computation its stream receives the messages that it needs, `receive_us` each,
while it waits for them if it has to, and then pauses for the launch gap, `gap_us`. The stream that
computes what a message carries posts it, in the order of the message's own stream, before its next
computation: a post takes `post_us` there, and the message may start when its post starts.
Computation times vary by `noise`. While n transfers are in flight, computation runs at
`1 - n * contention` of its speed, integrated exactly from one change of n to the next.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any

import numpy as np
import simpy

from simdep.checks import InputError
from simdep.costs import IDEAL, Costs, HostOverheads
from simdep.schedule import Schedule, Task, track
from simdep.timeline import Timeline

Steps = Generator[simpy.Event, Any, None]
Execution = tuple[str, int, float, float]  # task, rank 0, start and end in microseconds


def simulate_schedule(schedule: Schedule, costs: Costs, host: HostOverheads = IDEAL) -> Timeline:
    """Run a schedule; raises RuntimeError, saying what every stream waits for, when it gets stuck.

    A cost that is negative or not finite raises InputError naming the task.
    """
    return Timeline.from_times(schedule, "sim", _Run(schedule, costs, host).times())


def simulated_makespan_us(schedule: Schedule, costs: Costs, host: HostOverheads = IDEAL) -> float:
    """The makespan that `simulate_schedule` gives, without its timeline; 0 for an empty
    schedule."""
    times = _Run(schedule, costs, host).times()
    if not times:
        return 0
    first = min(start for _, _, start, _ in times)
    last = max(end for _, _, _, end in times)
    return last - first


class _Run:
    """One simulation: the events and times that its processes share."""

    def __init__(self, schedule: Schedule, costs: Costs, host: HostOverheads) -> None:
        self.schedule, self.host = schedule, host
        self.durations = _durations(schedule, costs)
        if host.noise:
            self.durations |= _varied(schedule, self.durations, host)
        self.env = simpy.Environment()
        self.ended: set[str] = set()
        self.awaited: dict[str, simpy.Event] = {}  # the ends that a stream waits for
        self.executed: list[Execution] = []
        self.heads: dict[str, tuple[Task, str]] = {}
        # Posting that takes no time holds up nothing
        self.posts = schedule.posts_after if host.terms else {}
        self.unposted = {task.name for tasks in self.posts.values() for task in tasks}
        self.posted: dict[str, simpy.Event] = {}  # of the messages that a transfer stream waits for
        self.links: dict[int, simpy.Resource] = {}  # A2E@3 and E2A@3 share that of port 3
        if host.half_duplex:
            ports = {track(stream)[1] for stream in schedule.streams}
            self.links = {port: simpy.Resource(self.env) for port in sorted(ports)}
            for task in schedule:
                self.end_of(task.name)
        self.in_flight = 0
        self.changed = self.env.event()

    def times(self) -> list[Execution]:
        """(task, rank 0, start, end) of every task, in order of their ends."""
        for stream, tasks in self.schedule.streams.items():
            self.env.process(self.execute(stream, tasks))
        self.env.run()
        if len(self.executed) < len(self.schedule):
            waits = "; ".join(
                f"{stream} waits at {task} for {needed}"
                for stream, (task, needed) in self.heads.items()
            )
            raise RuntimeError(f"schedule is stuck at {self.env.now} us: {waits}")
        return self.executed

    def execute(self, stream: str, tasks: tuple[Task, ...]) -> Steps:
        """The process of a stream: one task after the other, once what it needs has ended."""
        env, durations, ideal = self.env, self.durations, not self.host.terms
        ended, awaited, executed = self.ended, self.awaited, self.executed
        for task in tasks:
            free, name = env.now, task.name
            for needed in task.after:
                if needed not in ended:
                    self.heads[stream] = (task, needed)
                    yield self.end_of(needed)
            if ideal:
                start = env.now
                yield env.timeout(durations[name])
            elif task.kind.is_transfer:
                start = yield from self.transfer(task, self.links.get(track(stream)[1]))
            else:
                start = yield from self.compute(task, free)
            executed.append((name, 0, start, env.now))
            if name in awaited:
                awaited[name].succeed()
            else:
                ended.add(name)
            if name in self.posts:
                yield from self.post(self.posts[name])
        self.heads.pop(stream, None)

    def end_of(self, name: str) -> simpy.Event:
        """The event of a task's end, made by the first stream that waits for it."""
        if name not in self.awaited:
            event = self.awaited[name] = self.env.event()
            event.callbacks.append(lambda _: self.ended.add(name))
        return self.awaited[name]

    def transfer(
        self, task: Task, link: simpy.Resource | None
    ) -> Generator[simpy.Event, Any, float]:
        """Transfer once it is posted and the link is free; returns the start."""
        if task.name in self.unposted:
            self.posted[task.name] = self.env.event()
            yield self.posted[task.name]
        turn = link.request() if link else None
        if turn:
            yield turn
        start = self.env.now
        self.count(+1)
        yield self.env.timeout(self.durations[task.name])
        self.count(-1)
        if link and turn:
            link.release(turn)
        return start

    def compute(self, task: Task, free: float) -> Generator[simpy.Event, Any, float]:
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
        return start

    def post(self, messages: tuple[Task, ...]) -> Steps:
        """Post the messages of a computation that has ended, one after the other."""
        for message in messages:
            self.unposted.discard(message.name)
            if message.name in self.posted:
                self.posted[message.name].succeed()
            cost = self.host.post_us(message)
            if cost:
                yield self.env.timeout(cost)

    def messages(self, task: Task) -> int:
        return sum(self.schedule[needed].kind.is_transfer for needed in task.after)

    def slowed(self, work: float) -> Steps:
        """Do `work` microseconds of computation at a speed that changes with the transfers in
        flight."""
        while work > 0:
            speed, since = 1 - self.in_flight * self.host.contention, self.env.now
            ready = self.env.timeout(work / speed)
            yield ready | self.changed
            work = 0 if ready.processed else work - (self.env.now - since) * speed

    def count(self, more: int) -> None:
        if self.host.contention:
            self.in_flight += more
            self.changed.succeed()
            self.changed = self.env.event()


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


def _durations(schedule: Schedule, costs: Costs) -> dict[str, float]:
    """Task name -> its cost; raises InputError for one that is negative or not finite."""
    durations = {}
    for task in schedule:
        cost = costs(task)
        if not 0 <= cost < math.inf:
            raise InputError(f"{task}: cost {cost} us; expected a finite number >= 0")
        durations[task.name] = cost
    return durations
