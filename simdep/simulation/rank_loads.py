"""Loads of a group's tasks on its ranks: the work of a rank over that of the group's task, 1 where
everything is balanced."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from simdep.arrays import Array
from simdep.checks import InputError
from simdep.scenario.imbalance import Ranks
from simdep.schedule import Kind, Schedule, Task
from simdep.simulation.port_loads import Mask, PortLoads, alike_port_loads, port_loads
from simdep.simulation.rank_costs import RankCosts

ChunkTokens = dict[tuple[Kind, int, int, int | None], Array]  # of every AG rank, by task


@dataclass(frozen=True)
class Exchange:
    """The ports of a transfer, and the pairs [AG rank, EG rank] that exchange tokens; None: all."""

    ports: PortLoads
    pairs: Mask | None


class RankLoads:
    """Loads of tasks on `ag` + `eg` ranks; what is equal for many tasks is computed once.

    Raises InputError where the samples of `ranks.batches` have no whole number of tokens.
    """

    def __init__(
        self, schedule: Schedule, ag: int, eg: int, ranks: Ranks, costs: RankCosts, samples: int
    ) -> None:
        self._ag, self._eg, self._ranks, self._costs = ag, eg, ranks, costs
        self._batches = _batch_tokens(schedule, ranks, samples)
        self._chunks = _chunk_tokens(schedule, self._batches)
        shared_on_eg = any(
            task.kind is Kind.SHARED and schedule.stream_of[task.name] == "EG" for task in schedule
        )
        self._all_exchange = costs.broadcast or shared_on_eg
        self._routing_loads: dict[int, Array] = {}  # by the number of groups of experts
        self._exchanges: dict[tuple[object, ...], Exchange] = {}

    def of_ag(self, task: Task) -> Array:
        """Of every AG rank: the tokens of its micro-batch or chunk."""
        if self._batches is None:
            return np.ones(self._ag)
        if task.kind.is_chunked and task.groups == 1:
            return self._chunks[task.kind, task.layer, task.mb, task.chunk] / task.tokens
        return self._batches[task.mb] / task.tokens

    def of_eg(self, task: Task, ag_load: Array) -> Array:
        """Of every EG rank, for AG ranks of these loads: its routed tokens, or its share of all
        tokens for shared experts."""
        shares = None if task.kind is Kind.SHARED else self._shares(task)
        if shares is None:
            return np.full(self._eg, ag_load.mean())
        if len(shares) == 1:
            load: Array = ag_load.mean() * shares[0]
        else:
            load = ag_load @ shares / self._ag
        return load

    def exchange(self, task: Task, ag_load: Array) -> Exchange:
        """Of a transfer, for AG ranks of these loads."""
        routing = self._ranks.routing
        key = (
            task.layer % (routing.layers if routing else 1),
            ag_load.tobytes(),
            task.groups,
            task.chunk if task.groups > 1 else None,
        )
        if key not in self._exchanges:
            self._exchanges[key] = self._exchange(task, ag_load)
        return self._exchanges[key]

    def _exchange(self, task: Task, ag_load: Array) -> Exchange:
        shares = self._shares(task)
        sent = self._sent(shares, self._eg * task.groups)
        goes = np.ones((1, self._eg), bool)
        if shares is not None and not self._all_exchange:
            goes = shares > 0
        pairs = (ag_load > 0)[:, None] & np.broadcast_to(goes, (self._ag, self._eg))
        if self._ranks.nodes is None and len(goes) == len(sent) == 1:  # all AG ranks send alike
            takes_part = goes[0] & ag_load.any()
            ports = PortLoads(np.where(takes_part, alike_port_loads(ag_load, sent[0]), 0))
        else:
            tokens = ag_load[:, None] * np.broadcast_to(sent, pairs.shape)
            ports = port_loads(tokens, pairs, self._ranks.nodes)
        return Exchange(ports, None if pairs.all() else pairs)

    def _sent(self, shares: Array | None, parts: int) -> Array:
        """Tokens that every AG rank (or any) sends to every EG rank, over those under equal
        shares."""
        if shares is None or self._costs.broadcast:
            return np.ones((1, self._eg))
        sent = self._costs.sent(shares / parts, parts)
        return np.where(shares == 1, 1.0, sent)  # an equal share is 1 exactly

    def _shares(self, task: Task) -> Array | None:
        """Routed tokens of every AG rank (or of all) for every EG rank, over those under equal
        shares; None: all 1."""
        routing = self._ranks.routing
        if routing is None:
            return None
        if task.groups not in self._routing_loads:
            self._routing_loads[task.groups] = routing.loads(self._eg, task.groups)
        shares: Array = self._routing_loads[task.groups][task.layer % routing.layers]
        return shares[:, task.chunk :: task.groups] if task.groups > 1 else shares


def _batch_tokens(schedule: Schedule, ranks: Ranks, samples: int) -> list[Array] | None:
    """Tokens of every AG rank in every micro-batch; None where all ranks have those of the
    schedule."""
    if not ranks.batches or set(ranks.batches) == {samples}:
        return None
    sizes = {task.mb: task.tokens for task in schedule if task.kind.opens_layer and task.layer == 0}
    total = sum(sizes.values())
    sample_tokens, rest = divmod(total, samples)
    if rest:
        raise InputError(
            f"batches: {total} tokens of the schedule are no whole number for each of "
            f"{samples} samples"
        )
    batches = np.array(ranks.batches)
    ends = accumulate((sizes[mb] for mb in range(schedule.r1)), initial=0)
    tokens = []
    for low, high in pairwise(ends):
        whole_samples = batches * high // total - batches * low // total
        tokens.append((sample_tokens * whole_samples).astype(np.float64))
    return tokens


def _chunk_tokens(schedule: Schedule, batches: list[Array] | None) -> ChunkTokens:
    """Tokens of every AG rank in every chunk, in proportion to the group's chunks, in whole
    tokens."""
    if batches is None:
        return {}
    chunks: dict[tuple[Kind, int, int], list[Task]] = {}
    for task in schedule:
        if task.kind.is_chunked and task.groups == 1:
            chunks.setdefault((task.kind, task.layer, task.mb), []).append(task)
    tokens: ChunkTokens = {}
    for tasks in chunks.values():
        total, end = sum(task.tokens for task in tasks), 0
        for task in sorted(tasks, key=lambda task: task.chunk or 0):
            low = np.floor(batches[task.mb] * end / total)
            end += task.tokens
            high = np.floor(batches[task.mb] * end / total)
            tokens[task.kind, task.layer, task.mb, task.chunk] = high - low
    return tokens
