"""The work of every rank in a group's schedule: for each task a vector of microseconds over ranks,
and who needs whom.

A group's task is done by every rank of its side: AG ranks for what the stream AG serves, EG ranks
for the rest. A rank is a stream of its own in every resource: AG@a, EG@g, and A2E@g and E2A@g for
the port of EG rank g. What a task waits for on its own side is its own rank's; across sides it is
that of every rank it exchanges rows with. So E(t,i,j) on rank g starts when its rows have come from
the AG ranks that send to g, and A(t+1,i) on rank a when all of its own are back. A transfer starts
when all that it carries is ready, as a collective does: rows of prompt ranks wait for a
straggler's. A rank without tokens or rows has no part in a task: what waits for it there waits for
what that would have waited for.

Load is work over that of the group's model, 1 where everything is balanced; then every time is
exactly the group's. Computation takes what the group's task takes at its load, times the rank's
straggler factor. A transfer to or from EG rank g lasts as long as the busiest port involved: g's
own, and those of the AG ranks that it exchanges rows with. The group's model says what its busier
end costs: an EG port if ag > eg, else an AG port; the other end carries as many bytes per rank less
as there are more of them. With nodes, rows inside a node and between nodes go through ports of
their own (NVLink or PCIe, and a network port that GPUs of a node may share), each side by side with
the other. A2E and E2A do not contend, as in the group's model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from simdep.checks import InputError
from simdep.costs import Costs
from simdep.hardware.forms import Array
from simdep.hardware.links import port_cost
from simdep.hardware.profile import Cost
from simdep.scenario.fields import LINK_CLASSES
from simdep.scenario.imbalance import Ranks
from simdep.scenario.spec import Scenario
from simdep.scenario.task_costs import ScenarioCosts
from simdep.schedule import STREAMS, Kind, Schedule, Task, track

Mask = NDArray[np.bool_]
Prices = Callable[[Task, Array], Array]  # microseconds of a task at every one of some loads
MAX_RANK_TASKS = 1_000_000  # tasks of a schedule times ranks
MOST_WAITS = 2_000_000  # names in the `after` of all tasks of an expanded schedule


@dataclass(frozen=True)
class RankCosts:
    """What a rank's part of a task costs at its load.

    `far`, if given, prices transfers over the link class that the group's own link is not;
    `own_is_far` says that it is the one between nodes. `reach` turns the share of all rows that go
    to a rank, or to a group of its experts, into rows sent there, over those under equal shares of
    so many parts; `broadcast`: every rank is sent every token.
    """

    us: Prices
    far: Prices | None = None
    own_is_far: bool = False
    reach: Callable[[Array, int], Array] = field(default=lambda share, parts: share * parts)
    broadcast: bool = False
    notes: tuple[str, ...] = ()  # what was assumed

    @classmethod
    def of_stages(cls, costs: Costs) -> RankCosts:
        """Those of a bare problem: time grows in proportion to load."""
        return cls(lambda task, loads: costs(task) * loads)

    @classmethod
    def of(cls, scenario: Scenario, costs: ScenarioCosts | None = None) -> RankCosts:
        """Those of a scenario, by its `costs`; the link class that its own link is not has
        `ranks.far_link` or the profile's."""
        costs, where = costs or ScenarioCosts(scenario), scenario.deployment

        def us(task: Task, loads: Array) -> Array:
            def at_load(load: float) -> float:
                tokens = task.tokens * load
                return costs.task_us(task.kind, tokens, task.layer, task.groups)

            return _each(loads, at_load)

        far = link = None
        if scenario.ranks and scenario.ranks.nodes:
            link = scenario.ranks.nodes.far_link or _profiles_far_link(scenario)
        if link is not None:

            def far(task: Task, loads: Array) -> Array:
                size = costs.transfer_bytes(task.tokens, task.kind, busier=True, groups=task.groups)
                return _each(loads, lambda load: link(load * size))

        reach, top_k = cls(us).reach, scenario.model.top_k
        if where.dispatch == "per-gpu":

            def reach(
                share: Array, parts: int
            ) -> Array:  # by the chance that a token goes there at all
                found: Array = (1 - (1 - share) ** top_k) / (1 - (1 - 1 / parts) ** top_k)
                return found

        notes = (link.source,) if link and link.label == "assumed" else ()
        return cls(
            us, far, where.link_class == "inter-node", reach, where.dispatch == "broadcast", notes
        )


@dataclass(frozen=True, eq=False)
class RankWork:
    """A group's schedule on `ag` + `eg` ranks, whatever evaluates it.

    `us` and `tokens` hold a vector over the ranks of a task's side, nan and 0 where a rank has no
    part in it; `needs` a mask [AG rank, EG rank] for every transfer in which some pair exchanges no
    rows.
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
    def rows(self) -> int:
        """Tasks of all ranks."""
        return sum(int(part.sum()) for part in self.has_part.values())

    @property
    def total_tokens(self) -> int:
        """Tokens of all AG ranks that pass through every layer."""
        opening = (task.name for task in self.schedule if task.kind.opens_layer and task.layer == 0)
        return sum(int(self.tokens[name].sum()) for name in opening)

    def needed(self, name: str, rank: int, before: str) -> NDArray[np.int64]:
        """The ranks of task `before`, of the other side, that `rank` of task `name` waits for,
        parts or not."""
        transfer = next((each for each in (before, name) if each in self.needs), None)
        if transfer is None:
            return np.arange(self.ag if self.on_ag(before) else self.eg)
        pairs = self.needs[transfer]
        found: NDArray[np.int64] = np.flatnonzero(
            pairs[rank] if self.on_ag(name) else pairs[:, rank]
        )
        return found

    def waits(self, name: str, rank: int) -> Iterator[tuple[str, int]]:
        """(task, rank) that a rank's task waits for besides the one before it in its stream."""
        for before in self.schedule[name].after:
            same = self.on_ag(before) == self.on_ag(name)
            for other in (rank,) if same else self.needed(name, rank, before).tolist():
                if self.has_part[before][other]:
                    yield before, other
                elif same:
                    yield from self.waits(before, other)

    def expand(self) -> tuple[Schedule, Costs]:
        """One task for every rank that has a part in it, and what it costs: the same thing for any
        evaluator.

        Raises ValueError where that many names do not fit; `simdep.simulation.rank_times` needs
        none of them.
        """
        pairs = sum(self._pairs(task) for task in self.schedule)
        if pairs > MOST_WAITS:
            raise ValueError(
                f"{self.ag}+{self.eg} ranks have about {pairs} dependencies; at most {MOST_WAITS} can be written out"
            )
        us: dict[str, float] = {}
        streams: dict[str, list[Task]] = {}
        for stream, tasks in self.schedule.streams.items():
            ranks = range(self.ag if track(stream)[0] == "AG" else self.eg)
            streams |= {f"{track(stream)[0]}@{rank}": [] for rank in ranks}
            for task in tasks:
                for rank in np.flatnonzero(self.has_part[task.name]).tolist():
                    after = tuple(
                        ranked(*each) for each in dict.fromkeys(self.waits(task.name, rank))
                    )
                    tokens = max(1, int(self.tokens[task.name][rank]))
                    one = Task(
                        task.kind, task.layer, task.mb, task.chunk, tokens, after, task.groups, rank
                    )
                    streams[f"{track(stream)[0]}@{rank}"].append(one)
                    us[one.name] = float(self.us[task.name][rank])
        names = {stream: tuple(tasks) for stream, tasks in streams.items()}
        return Schedule(names, self.schedule.label), lambda task: us[task.name]

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
    whole tokens. Raises ValueError for ranks that do not fit, more than `MAX_RANK_TASKS`, a
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
            raise ValueError(
                f"{task} is on stream {stream}; per-rank schedules are for AG, A2E, EG and E2A"
            )
    work = _Builder(schedule, ag, eg, ranks, costs, samples or schedule.r1).work()
    for name, part in work.has_part.items():
        if not part.any():
            raise ValueError(
                f"{name} has no tokens on any rank; cut less finely (r1, r2), or give ranks more samples"
            )
    return work


def scenario_work(
    scenario: Scenario, schedule: Schedule, costs: ScenarioCosts | None = None
) -> RankWork:
    """What every rank has to do in a scenario, by its `costs`."""
    where = scenario.deployment
    return rank_work(
        schedule,
        where.ag,
        where.eg,
        scenario.ranks or Ranks(),
        RankCosts.of(scenario, costs),
        scenario.workload.samples,
    )


def _profiles_far_link(scenario: Scenario) -> Cost | None:
    where = scenario.deployment
    other = next(word for word in LINK_CLASSES if word != where.link_class)
    try:
        return port_cost(where.hardware, Kind.A2E, other)
    except ValueError:
        return None


def _each(loads: Array, price: Callable[[float], float]) -> Array:
    """The price of every load, each different load priced once."""
    different, at = np.unique(loads, return_inverse=True)
    found: Array = np.array([price(load) for load in different.tolist()])[at]
    return found


class _Builder:
    """Loads, and from them times, task by task; what is equal for many tasks is computed once."""

    def __init__(
        self, schedule: Schedule, ag: int, eg: int, ranks: Ranks, costs: RankCosts, samples: int
    ) -> None:
        self.schedule, self.ag, self.eg, self.ranks, self.costs, self.samples = (
            schedule,
            ag,
            eg,
            ranks,
            costs,
            samples,
        )
        self.slow = {"AG": ranks.slowdown("AG", ag), "EG": ranks.slowdown("EG", eg)}
        self.batches = _batch_tokens(schedule, ag, ranks, samples)
        self.chunk_tokens = _chunk_tokens(schedule, self.batches)
        self.to_all = costs.broadcast or any(
            schedule.stream_of[task.name] == "EG" for task in _shared(schedule)
        )
        self.loads: dict[int, Array] = {}  # of EG ranks, by the number of groups of experts
        self.ports: dict[tuple[object, ...], tuple[list[Array], Mask | None]] = {}

    def work(self) -> RankWork:
        us: dict[str, Array] = {}
        tokens: dict[str, NDArray[np.int64]] = {}
        needs: dict[str, Mask] = {}
        for task in self.schedule:
            own = self.own_tokens(task) / task.tokens
            if task.kind.is_transfer:
                loads, need = self.port_loads(task, own)
                if need is not None:
                    needs[task.name] = need
                us[task.name] = self.transfer_us(task, loads)
                load = self.expert_load(task, own)
            elif self.schedule.stream_of[task.name] == "AG":
                load = own
                us[task.name] = self.computation_us(task, load, "AG")
            else:
                shared = task.kind is Kind.SHARED
                load = np.full(self.eg, own.mean()) if shared else self.expert_load(task, own)
                us[task.name] = self.computation_us(task, load, "EG")
            tokens[task.name] = np.rint(load * task.tokens).astype(np.int64)
        given = (self.schedule, self.ag, self.eg, self.ranks, self.costs, self.samples)
        return RankWork(*given, us, tokens, needs)

    def own_tokens(self, task: Task) -> Array:
        """Tokens of every AG rank that a task is about."""
        if self.batches is None:
            return np.full(self.ag, float(task.tokens))
        if task.kind.is_chunked and task.groups == 1:
            return self.chunk_tokens[task.kind, task.layer, task.mb, task.chunk]
        return self.batches[task.mb]

    def computation_us(self, task: Task, load: Array, group: str) -> Array:
        us = np.full(len(load), np.nan)
        part = load > 0
        us[part] = self.costs.us(task, load[part]) * self.slow[group][part]
        return us

    def shares(self, task: Task) -> Array | None:
        """Rows of every AG rank (or of all) for every EG rank, over those under equal shares; None:
        all 1."""
        routing = self.ranks.routing
        if routing is None:
            return None
        if task.groups not in self.loads:
            self.loads[task.groups] = routing.loads(self.eg, task.groups)
        loads = self.loads[task.groups][task.layer % routing.layers]
        found: Array = loads[:, task.chunk :: task.groups] if task.groups > 1 else loads
        return found

    def expert_load(self, task: Task, own: Array) -> Array:
        """Rows of every EG rank over those in the group's model, for AG ranks with the load
        `own`."""
        shares = self.shares(task)
        if shares is None:
            return np.full(self.eg, own.mean())
        return own.mean() * shares[0] if len(shares) == 1 else own @ shares / self.ag

    def port_loads(self, task: Task, own: Array) -> tuple[list[Array], Mask | None]:
        """For each link class, the load of the busiest port in the transfer of every EG rank; and
        who exchanges rows.

        A load is 0 where a rank has nothing to transfer; the own class comes first.
        """
        key = (
            task.layer % (self.ranks.routing.layers if self.ranks.routing else 1),
            own.tobytes(),
            task.groups,
            task.chunk if task.groups > 1 else None,
        )
        if key not in self.ports:
            self.ports[key] = self._port_loads(self.shares(task), own, self.eg * task.groups)
        return self.ports[key]

    def _port_loads(
        self, shares: Array | None, own: Array, parts: int
    ) -> tuple[list[Array], Mask | None]:
        on_ag, on_eg = (
            min(1.0, self.eg / self.ag),
            min(1.0, self.ag / self.eg),
        )  # balanced loads of either end's ports
        nodes = self.ranks.nodes
        if shares is None or self.costs.broadcast:
            sent = np.ones((1, self.eg))
        else:
            sent = self.costs.reach(shares / parts, parts)
            sent = np.where(shares == 1, 1.0, sent)  # exactly
        routed = np.ones((1, self.eg), bool) if shares is None or self.to_all else shares > 0
        if (
            nodes is None and len(routed) == 1
        ):  # all AG ranks alike: those with tokens send to all ranks with rows
            part = routed[0] & own.any()
            loads = np.maximum(on_eg * own.mean() * sent[0], on_ag * (own * sent.mean()).max())
            pairs = (own > 0)[:, None] & routed
            return [np.where(part, loads, 0)], None if pairs.all() else pairs
        rows = own[:, None] * np.broadcast_to(sent, (self.ag, self.eg))
        pairs = (own > 0)[:, None] & np.broadcast_to(routed, rows.shape)
        by_class = self._one_class if nodes is None else self._two_classes
        return by_class(rows, pairs, on_ag, on_eg), None if pairs.all() else pairs

    def _one_class(self, rows: Array, pairs: Mask, on_ag: float, on_eg: float) -> list[Array]:
        """A port a GPU."""
        arriving, leaving = on_eg * rows.sum(axis=0) / self.ag, on_ag * rows.sum(axis=1) / self.eg
        return [_involved(arriving, leaving, pairs)]

    def _two_classes(self, rows: Array, pairs: Mask, on_ag: float, on_eg: float) -> list[Array]:
        """Links within a node, a port a GPU, and between nodes, where GPUs of a node may share
        one."""
        nodes = self.ranks.nodes
        assert nodes is not None
        gpus = np.arange(self.ag + self.eg)
        node, nic = nodes.node(gpus), nodes.nic(gpus)
        far = node[: self.ag, None] != node[None, self.ag :]
        [near] = self._one_class(np.where(far, 0, rows), pairs & ~far, on_ag, on_eg)
        between = np.where(far, rows, 0)
        leaving = _shared_port(on_ag * between.sum(axis=1) / self.eg, nic[: self.ag])
        arriving = _shared_port(on_eg * between.sum(axis=0) / self.ag, nic[self.ag :])
        beyond = _involved(arriving, leaving, pairs & far)
        return [beyond, near] if self.costs.own_is_far else [near, beyond]

    def transfer_us(self, task: Task, loads: list[Array]) -> Array:
        us = np.full(self.eg, np.nan)
        for prices, load in zip((self.costs.us, self.costs.far), loads, strict=False):
            part = load > 0
            if not part.any():
                continue
            if prices is None:
                far = "within nodes" if self.costs.own_is_far else "between nodes"
                raise ValueError(
                    f"rows of {task} travel {far}, and no link is known there; give ranks.far_link"
                )
            us[part] = np.fmax(us[part], prices(task, load[part]))
        return us


def _shared(schedule: Schedule) -> Iterator[Task]:
    return (task for task in schedule if task.kind is Kind.SHARED)


def _involved(arriving: Array, leaving: Array, pairs: Mask) -> Array:
    """The load of the busiest port in the transfer of every EG rank: its own, or of an AG rank of
    its pairs."""
    other = np.where(pairs, leaving[:, None], 0).max(axis=0)
    found: Array = np.where(pairs.any(axis=0), np.maximum(arriving, other), 0)
    return found


def _shared_port(load: Array, port: NDArray[np.int64]) -> Array:
    """The load of every GPU's port: that of all GPUs that use it."""
    return np.bincount(port, load)[port].astype(np.float64)


def _batch_tokens(schedule: Schedule, ag: int, ranks: Ranks, samples: int) -> list[Array] | None:
    """Tokens of every AG rank in every micro-batch; None where all ranks have those of the
    schedule."""
    if not ranks.batches or set(ranks.batches) == {samples}:
        return None
    sizes = {task.mb: task.tokens for task in schedule if task.kind.opens_layer and task.layer == 0}
    total = sum(sizes.values())
    each, rest = divmod(total, samples)
    if rest:
        raise ValueError(
            f"batches: {total} tokens of the schedule are no whole number for each of {samples} samples"
        )
    batches, ends = (
        np.array(ranks.batches),
        accumulate((sizes[mb] for mb in range(schedule.r1)), initial=0),
    )
    return [
        (each * (batches * high // total - batches * low // total)).astype(np.float64)
        for low, high in pairwise(ends)
    ]


def _chunk_tokens(
    schedule: Schedule, batches: list[Array] | None
) -> dict[tuple[Kind, int, int, int | None], Array]:
    """Tokens of every AG rank in every chunk, in proportion to the group's chunks, in whole
    tokens."""
    if batches is None:
        return {}
    found: dict[tuple[Kind, int, int, int | None], Array] = {}
    chunks: dict[tuple[Kind, int, int], list[Task]] = {}
    for task in schedule:
        if task.kind.is_chunked and task.groups == 1:
            chunks.setdefault((task.kind, task.layer, task.mb), []).append(task)
    for tasks in chunks.values():
        total, end = sum(task.tokens for task in tasks), 0
        for task in sorted(tasks, key=lambda each: each.chunk or 0):
            low = np.floor(batches[task.mb] * end / total)
            end += task.tokens
            high = np.floor(batches[task.mb] * end / total)
            found[task.kind, task.layer, task.mb, task.chunk] = high - low
    return found
