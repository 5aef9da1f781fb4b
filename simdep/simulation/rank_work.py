"""The work of every rank in a group's schedule: for each task a vector of microseconds over ranks,
and who needs whom.

A group's task is done by every rank of its side: AG ranks for what the stream AG executes, EG ranks
for the rest. A rank is a stream of its own in every resource: AG@a, EG@g, and A2E@g and E2A@g for
the port of EG rank g. What a task waits for on its own side is its own rank's; across sides it is
that of every rank it exchanges tokens with. So E(t,i,j) on rank g starts when its tokens have come
from the AG ranks that send to g, and A(t+1,i) on rank a when all of its own are back. A transfer
starts when all that it carries is ready, as a collective does: tokens of prompt ranks wait for a
straggler's. A rank without tokens has no part in a task: what waits for it there waits for what
that would have waited for.

Load is work over that of the group's model, 1 where everything is balanced; then every time is
exactly the group's. Computation takes what the group's task takes at its load, times the rank's
straggler factor; a transfer what the group's takes at the load of its busiest port, of the slower
link class where it uses both. A2E and E2A do not contend, as in the group's model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from simdep.arrays import Array
from simdep.checks import InputError
from simdep.costs import Costs
from simdep.scenario.imbalance import Ranks
from simdep.scenario.spec import Scenario
from simdep.scenario.task_costs import ScenarioCosts
from simdep.schedule import STREAMS, Kind, Schedule, Task, track
from simdep.simulation.port_loads import Mask, PortLoads
from simdep.simulation.rank_costs import LoadCosts, RankCosts
from simdep.simulation.rank_loads import RankLoads

MAX_RANK_TASKS = 1_000_000  # tasks of a schedule times ranks
MAX_WAITS = 2_000_000  # names in the `after` of all tasks of an expanded schedule


@dataclass(frozen=True, eq=False)
class RankWork:
    """A group's schedule on `ag` + `eg` ranks, whatever evaluates it.

    `us` and `tokens` hold a vector over the ranks of a task's side, nan and 0 where a rank has no
    part in it; `needs` a mask [AG rank, EG rank] of the pairs that exchange tokens, for every
    transfer in which some pair exchanges none.
    """

    schedule: Schedule
    ag: int
    eg: int
    ranks: Ranks
    costs: RankCosts
    samples: int
    us: Mapping[str, Array]
    tokens: Mapping[str, NDArray[np.int64]]
    needs: Mapping[str, Mask]

    @cached_property
    def has_part(self) -> dict[str, Mask]:
        """Task -> which ranks of its side have a part in it."""
        return {name: ~np.isnan(us) for name, us in self.us.items()}

    def on_ag(self, name: str) -> bool:
        """Whether the AG ranks do a task; else the EG ranks or their ports."""
        return track(self.schedule.stream_of[name])[0] == "AG"

    def with_ranks(self, ranks: Ranks) -> RankWork:
        """The same schedule on ranks that differ in another way."""
        return rank_work(self.schedule, self.ag, self.eg, ranks, self.costs, self.samples)

    @property
    def tasks(self) -> int:
        """Tasks of all ranks."""
        return sum(int(part.sum()) for part in self.has_part.values())

    @property
    def total_tokens(self) -> int:
        """Tokens of all AG ranks that pass through every layer."""
        opening = (task.name for task in self.schedule if task.kind.opens_layer and task.layer == 0)
        return sum(int(self.tokens[name].sum()) for name in opening)

    def partners(self, name: str, rank: int, before: str) -> NDArray[np.int64]:
        """The ranks of task `before`, of the other side, that `rank` of task `name` waits for,
        parts or not."""
        transfer = before if before in self.needs else name
        if transfer not in self.needs:
            return np.arange(self.ag if self.on_ag(before) else self.eg)
        pairs = self.needs[transfer]
        return np.flatnonzero(pairs[rank] if self.on_ag(name) else pairs[:, rank])

    def waits(self, name: str, rank: int) -> Iterator[tuple[str, int]]:
        """(task, rank) that a rank's task waits for besides the one before it in its stream."""
        for before in self.schedule[name].after:
            if self.on_ag(before) != self.on_ag(name):
                for other in self.partners(name, rank, before).tolist():
                    if self.has_part[before][other]:
                        yield before, other
            elif self.has_part[before][rank]:
                yield before, rank
            else:
                yield from self.waits(before, rank)

    def expand(self) -> tuple[Schedule, Costs]:
        """One task for every rank that has a part in it, and what it costs: the same thing for any
        evaluator.

        Raises InputError where that many names do not fit; `simdep.simulation.rank_times` needs
        none of them.
        """
        pairs = sum(map(self._pairs, self.schedule))
        if pairs > MAX_WAITS:
            raise InputError(
                f"{self.ag}+{self.eg} ranks have about {pairs} dependencies;"
                f" at most {MAX_WAITS} can be written out"
            )
        us: dict[str, float] = {}
        streams: dict[str, list[Task]] = {}
        for stream, tasks in self.schedule.streams.items():
            resource = track(stream)[0]
            ranks = range(self.ag if resource == "AG" else self.eg)
            streams |= {f"{resource}@{rank}": [] for rank in ranks}
            for task in tasks:
                for part in self._parts(task):
                    streams[f"{resource}@{part.rank}"].append(part)
                    us[part.name] = float(self.us[task.name][part.rank])
        names = {stream: tuple(parts) for stream, parts in streams.items()}
        return Schedule(names, self.schedule.label), lambda part: us[part.name]

    def _parts(self, task: Task) -> Iterator[Task]:
        """The tasks of the ranks that have a part in a group's task."""
        for rank in np.flatnonzero(self.has_part[task.name]).tolist():
            waits = dict.fromkeys(self.waits(task.name, rank))
            yield Task(
                task.kind,
                task.layer,
                task.mb,
                task.chunk,
                max(1, int(self.tokens[task.name][rank])),
                tuple(ranked(name, other) for name, other in waits),
                task.groups,
                rank,
            )

    def _pairs(self, task: Task) -> int:
        crossing = sum(self.on_ag(before) != self.on_ag(task.name) for before in task.after)
        return crossing * self.ag * self.eg


def ranked(name: str, rank: int) -> str:
    """The name of a rank's part of a task: E[0.0.0] on rank 3 is E[0.0.0@3]."""
    return f"{name[:-1]}@{rank}]"


def rank_work(
    schedule: Schedule, ag: int, eg: int, ranks: Ranks, costs: RankCosts, samples: int | None = None
) -> RankWork:
    """What every rank has to do of a group's schedule.

    `samples` are those of an AG rank in the group's model, by default one a micro-batch;
    `ranks.batches` are cut into micro-batches in proportion, in whole samples, and into chunks in
    whole tokens. Raises InputError for ranks that do not fit, more than `MAX_RANK_TASKS`, a
    schedule of other streams than AG, A2E, EG and E2A, samples of no whole number of tokens, and a
    task that no rank has a part in.
    """
    ranks.check(ag, eg)
    tasks = len(schedule) * (ag + eg)
    if tasks > MAX_RANK_TASKS:
        rule = f"{tasks:,} tasks of all ranks; expected at most {MAX_RANK_TASKS:,}"
        raise InputError(f"ag={ag}, eg={eg}: {rule}")
    for task in schedule:
        stream = schedule.stream_of[task.name]
        fits = stream == task.kind.stream or (task.kind, stream) == (Kind.SHARED, "EG")
        if stream not in STREAMS or not fits:
            raise InputError(
                f"{task} is on stream {stream}; per-rank schedules are for AG, A2E, EG and E2A"
            )
    builder = _Builder(schedule, ag, eg, ranks, costs, samples or schedule.r1)
    for task in schedule:
        builder.add(task)
    return builder.work()


def scenario_work(
    scenario: Scenario, schedule: Schedule, costs: ScenarioCosts | None = None
) -> RankWork:
    """What every rank has to do in a scenario, by its `costs`."""
    deployment = scenario.deployment
    return rank_work(
        schedule,
        deployment.ag,
        deployment.eg,
        scenario.ranks or Ranks(),
        RankCosts.of(scenario, costs),
        scenario.workload.samples,
    )


class _Builder:
    """Times of ranks, from their loads, task by task."""

    def __init__(
        self, schedule: Schedule, ag: int, eg: int, ranks: Ranks, costs: RankCosts, samples: int
    ) -> None:
        self.given = (schedule, ag, eg, ranks, costs, samples)
        self.schedule, self.costs = schedule, costs
        self.loads = RankLoads(schedule, ag, eg, ranks, costs, samples)
        self.slowdown = {"AG": ranks.slowdown("AG", ag), "EG": ranks.slowdown("EG", eg)}
        self.us: dict[str, Array] = {}
        self.tokens: dict[str, NDArray[np.int64]] = {}
        self.needs: dict[str, Mask] = {}

    def add(self, task: Task) -> None:
        """Raises InputError for a task that no rank has a part in."""
        load = ag_load = self.loads.of_ag(task)
        stream = self.schedule.stream_of[task.name]
        if stream != "AG":
            load = self.loads.of_eg(task, ag_load)
        if task.kind.is_transfer:
            exchange = self.loads.exchange(task, ag_load)
            us = self.transfer_us(task, exchange.ports)
            if exchange.pairs is not None:
                self.needs[task.name] = exchange.pairs
        else:
            us = _at_loads(self.costs.us, task, load) * self.slowdown[stream]
        if np.isnan(us).all():
            raise InputError(
                f"{task} has no tokens on any rank; cut less finely (r1, r2), or give ranks "
                "more samples"
            )
        self.us[task.name] = us
        self.tokens[task.name] = np.rint(load * task.tokens).astype(np.int64)

    def work(self) -> RankWork:
        return RankWork(*self.given, self.us, self.tokens, self.needs)

    def transfer_us(self, task: Task, ports: PortLoads) -> Array:
        """Both link classes side by side: the longer of the two where a rank uses both."""
        if ports.between_nodes is None:
            return _at_loads(self.costs.us, task, ports.in_node)
        own, other, travel = ports.in_node, ports.between_nodes, "between nodes"
        if self.costs.joins_nodes:
            own, other, travel = other, own, "within nodes"
        us = _at_loads(self.costs.us, task, own)
        if not other.any():
            return us
        if self.costs.other_link_us is None:
            raise InputError(
                f"tokens of {task} travel {travel}, and no link is known there; give ranks.far_link"
            )
        longer: Array = np.fmax(us, _at_loads(self.costs.other_link_us, task, other))
        return longer


def _at_loads(costs: LoadCosts, task: Task, load: Array) -> Array:
    """Microseconds of every rank; nan where the load is 0."""
    us = np.full(len(load), np.nan)
    part = load > 0
    if part.any():
        us[part] = costs(task, load[part])
    return us
