"""The search of the solver: bounds first, so that most configurations are never evaluated.

A pipeline configuration (m_a, r1, r2) has a lower bound on its makespan that holds for any order of
the AG (`simdep.simulation.bounds`), and with it a maximum throughput, its `max_rate`. Three bounds,
each tighter and dearer than the one before, leave out what cannot be among the best `KEPT`:

    by m_a             the load of the AG: attention and shared experts, whatever r1 and r2 are
    by (m_a, r2)       the bound at the most micro-batches that fit; it never falls as r1 grows
    by (m_a, r1, r2)   the bound itself

ASAS is evaluated for what is left, AASS where it could be among the best `KEPT`, and the look-ahead
order, which costs most, in falling order of max_rate until none exceeds the best. Equals of the
best are never left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdep.arrays import Array, IntArray
from simdep.checks import InputError
from simdep.planning.problem import Problem
from simdep.policies import parse_order
from simdep.policies.lookahead import best_order, order_makespan
from simdep.simulation.batch import batch_makespans
from simdep.simulation.bounds import makespan_bounds
from simdep.simulation.stage_table import StageTable

KEPT = 5  # best configurations that are told: the best one and its runners-up
MAX_COLUMNS = 8_000_000  # pairs (m_a, r2): some 6 s
MAX_LAYERS_R1 = 200_000  # layers of all micro-batches: what one look-ahead order goes through
BLOCK_COLUMNS = 8192  # columns that are looked at together
FIRST_BATCH = 64  # configurations that are evaluated before the threshold is looked at again
GAIN, EQUAL = 1 + 1e-12, 1 - 1e-12  # what counts as faster, and as as fast
ROUNDING = 1 - 1e-9  # room for rounding where a bound leaves something out
DIGITS = 12  # in which throughputs are compared

Places = NDArray[np.intp]


class Order(StrEnum):
    """An order of the AG: the same in every layer, or the look-ahead order."""

    ASAS = "asas"
    AASS = "aass"
    LOOKAHEAD = "lookahead"


@dataclass(frozen=True)
class Columns:
    """Pairs (m_a, r2), the fewest and the most micro-batches that each allows, and its stages."""

    m_a: IntArray
    r2: IntArray
    min_r1: IntArray
    max_r1: IntArray

    def __getitem__(self, columns: NDArray[np.bool_]) -> Columns:
        return Columns(
            self.m_a[columns], self.r2[columns], self.min_r1[columns], self.max_r1[columns]
        )


class Space:
    """The pipeline configurations of a problem with at most `max_r1` and `max_r2`.

    `m_a` holds every size of a micro-batch, smallest first. Raises InputError for too many.
    """

    def __init__(self, problem: Problem, max_r1: int, max_r2: int) -> None:
        self.problem, self.max_r1, self.max_r2 = problem, max_r1, max_r2
        self.m_a = problem.micro_batches(max_r1, max_r2, MAX_COLUMNS)
        columns = int(self.max_chunks(self.m_a).sum())
        if columns > MAX_COLUMNS:
            raise InputError(
                f"{columns:,} pairs (m_a, r2); at most {MAX_COLUMNS:,} are searched: set "
                "--samples or --max-r2"
            )
        if len(self.m_a):
            smallest = self.columns(self.m_a[:1])
            r1 = int(smallest.max_r1.max(initial=0))
            if problem.layers * r1 > MAX_LAYERS_R1:
                raise InputError(
                    f"layers={problem.layers} and up to r1={r1}: at most {MAX_LAYERS_R1:,} layers "
                    "of all micro-batches are searched; set --max-r1"
                )

    def columns(self, m_a: IntArray) -> Columns:
        """The pairs of some m_a that fit, m_a by m_a."""
        chunks = self.max_chunks(m_a)
        starts = np.cumsum(chunks) - chunks
        r2 = 1 + np.arange(chunks.sum()) - np.repeat(starts, chunks)
        sizes = np.repeat(m_a, chunks)
        fewest, most = self.problem.r1_range(sizes, r2, self.max_r1)
        columns = Columns(sizes, r2, fewest, most)
        return columns[most >= fewest]

    def blocks(self, m_a: IntArray) -> Iterator[IntArray]:
        """Some m_a, or their places, in parts of about `BLOCK_COLUMNS` columns each."""
        for start in range(0, len(m_a), self._block_size):
            yield m_a[start : start + self._block_size]

    @property
    def is_one_block(self) -> bool:
        return len(self.m_a) <= self._block_size

    @property
    def _block_size(self) -> int:
        return max(1, BLOCK_COLUMNS // int(self.max_chunks(self.m_a[-1:]).max(initial=1)))

    @cached_property
    def count(self) -> int:
        """How many configurations fit."""
        total = 0
        for m_a in self.blocks(self.m_a):
            columns = self.columns(m_a)
            total += int((columns.max_r1 - columns.min_r1 + 1).sum())
        return total

    @cached_property
    def max_rates(self) -> Array:
        """The maximum throughput of every m_a by the load of the AG, whatever r1, r2 and order."""
        problem = self.problem
        load_us = problem.stages.ag_us(self.m_a)
        with np.errstate(divide="ignore"):
            rates: Array = 1e6 * problem.total_tokens_per_sample * self.m_a / load_us
        return rates

    def rates(self, m_a: IntArray, r1: IntArray, makespans_us: Array) -> Array:
        """Tokens per second of makespans; infinite where nothing takes any time."""
        work = 1e6 * self.problem.total_tokens_per_sample * r1 * m_a
        with np.errstate(divide="ignore"):
            rates: Array = work / makespans_us
        return rates

    def bounds(self, columns: Columns, stages: StageTable, r1: IntArray) -> Array:
        """The maximum throughput of configurations in any order."""
        shortest_us = makespan_bounds(stages, self.problem.layers, r1)
        return self.rates(columns.m_a, r1, shortest_us)

    def max_chunks(self, m_a: IntArray) -> IntArray:
        """The most chunks of micro-batches of some sizes."""
        return np.minimum(self.max_r2, m_a * self.problem.tokens_per_sample)


@dataclass
class Candidates:
    """Configurations [n] that may be among the best, and their throughput by order, 0 where an
    order was not evaluated."""

    space: Space
    m_a: IntArray
    r2: IntArray
    r1: IntArray
    stages: StageTable
    max_rate: Array
    rates: dict[Order, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.m_a)

    def __getitem__(self, places: Any) -> Candidates:
        return Candidates(
            self.space,
            self.m_a[places],
            self.r2[places],
            self.r1[places],
            self.stages[places],
            self.max_rate[places],
            {order: rates[places] for order, rates in self.rates.items()},
        )

    @classmethod
    def joined(cls, parts: Sequence[Candidates]) -> Candidates:
        """Candidates of one space, by r1, m_a and r2."""
        rates = {order: np.concatenate([part.rate(order) for part in parts]) for order in Order}
        joined = cls(
            parts[0].space,
            np.concatenate([part.m_a for part in parts]),
            np.concatenate([part.r2 for part in parts]),
            np.concatenate([part.r1 for part in parts]),
            StageTable.concatenated([part.stages for part in parts]),
            np.concatenate([part.max_rate for part in parts]),
            rates,
        )
        return joined[np.lexsort((joined.r2, joined.m_a, joined.r1))]

    @property
    def best(self) -> Array:
        """The throughput of the best order that was evaluated."""
        best: Array = np.maximum.reduce([self.rate(order) for order in Order])
        return best

    @property
    def can_improve(self) -> NDArray[np.bool_]:
        """Where another order may be faster: of several micro-batches with shared experts on the
        AG, where the bound is not reached."""
        several = (self.r1 > 1) & (self.stages.shared > 0)
        return several & (self.max_rate > self.best * GAIN)

    def pruned(self, threshold: float) -> Candidates:
        """Without what can't be among the best any more."""
        worth = self.can_improve & (self.max_rate >= threshold * ROUNDING)
        worth[[place for *_, place in self.ranking()]] = True
        return self[worth]

    def ranking(self) -> list[tuple[float, int, int, int, int]]:
        """The best `KEPT`, best first: what they are compared by, and their places."""
        rate = _rounded(self.best)
        order = np.lexsort((self.m_a, self.r2, self.r1, -rate))
        places = [place for place in order[:KEPT].tolist() if rate[place] > 0]
        return [
            (-float(rate[at]), int(self.r1[at]), int(self.r2[at]), int(self.m_a[at]), at)
            for at in places
        ]

    def rate(self, order: Order) -> Array:
        return self.rates.setdefault(order, np.zeros(len(self)))

    def best_order(self, place: int) -> Order:
        """The order of the best throughput of a configuration; among equals the simpler one."""
        best = Order.ASAS
        for order in Order:
            if self.rate(order)[place] > self.rate(best)[place] * GAIN:
                best = order
        return best

    def evaluate(self, order: Order, places: Places) -> Array:
        """Makespans in ASAS or AASS of some configurations, noted as throughput."""
        us = np.empty(len(places))
        several_runs = (self.stages.counts[:, places] > 0).sum(axis=0) > 1
        for r1 in np.unique(self.r1[places]).tolist():
            steps = parse_order(order, r1)
            for uneven in (False, True):
                group = np.flatnonzero((self.r1[places] == r1) & (several_runs == uneven))
                if len(group):
                    stages = self.stages[places[group]].trimmed
                    us[group] = batch_makespans(stages, self.space.problem.layers, steps)
        self.rate(order)[places] = self.space.rates(self.m_a[places], self.r1[places], us)
        return us

    def look_ahead(self, place: int) -> None:
        """Evaluate the look-ahead order of a configuration."""
        stages, r1 = self.stages[place : place + 1], int(self.r1[place])
        sequence = best_order(stages, self.space.problem.layers, r1)
        us = np.array([order_makespan(stages, sequence, r1)])
        at = slice(place, place + 1)
        self.rate(Order.LOOKAHEAD)[at] = self.space.rates(self.m_a[at], self.r1[at], us)


class Search:
    """What is found in some spaces: candidates, the maximum throughput of any configuration, and
    how many configurations were evaluated in an order."""

    def __init__(self, spaces: Sequence[Space]) -> None:
        self.spaces = [space for space in spaces if space.count]
        self.candidates: list[Candidates] = []
        self.max_rate = 0.0
        self.evaluated = 0
        self._kept = np.zeros(KEPT)  # the best throughputs so far
        self._sampled = 0.0  # a throughput that KEPT configurations of a sample have

    @property
    def threshold(self) -> float:
        """What the best `KEPT` configurations have at least."""
        return max(self._sampled, float(self._kept.min()))

    def exact(self) -> None:
        """Find the best configurations of all spaces."""
        self._sample()
        for space in self.spaces:
            parts = list(self._explored(space))
            if parts:
                candidates = Candidates.joined(parts)
                self._look_ahead(candidates)
                self.candidates.append(candidates)

    def algorithm1(self) -> None:
        """FinDEP's Algorithm 1, except that an order is evaluated only where it may be the best so
        far."""
        for space in self.spaces:
            self._bound(space)
            candidates = _visited(space)
            fastest = 0.0
            for m_a in np.unique(candidates.m_a)[::-1]:
                places = np.flatnonzero(candidates.m_a == m_a)
                several = candidates.r1[places[0]] > 1
                for order in (Order.ASAS, Order.AASS) if several else (Order.ASAS,):
                    if (candidates.max_rate[places] > fastest * GAIN).any():
                        self._grow_r2(candidates, order, places)
                        fastest = max(fastest, float(candidates.rate(order)[places].max()))
            self.candidates.append(candidates)

    def ranked(self) -> list[tuple[Candidates, int]]:
        """The best `KEPT` configurations: of equals the fewest micro-batches, then chunks, then
        samples, then the first space."""
        best = []
        for number, candidates in enumerate(self.candidates):
            for *key, place in candidates.ranking():
                best.append((tuple(key), number, place))
        best.sort()
        return [(self.candidates[number], place) for _, number, place in best[:KEPT]]

    def _explored(self, space: Space) -> Iterator[Candidates]:
        """The candidates of a space, block by block: the largest load bound first."""
        by_rate = np.argsort(-space.max_rates, kind="stable")
        for places in space.blocks(by_rate):
            if space.max_rates[places[0]] < self.threshold * ROUNDING:
                return
            columns = space.columns(np.sort(space.m_a[places]))
            if len(columns.m_a):
                candidates = self._block(space, columns)
                if len(candidates):
                    yield candidates

    def _block(self, space: Space, columns: Columns) -> Candidates:
        """The candidates among the configurations of some columns, in ASAS and AASS."""
        stages = space.problem.stages.table(columns.m_a, columns.r2)
        max_rate = space.bounds(columns, stages, columns.max_r1)
        self.max_rate = max(self.max_rate, float(max_rate.max()))
        candidates = self._expanded(space, columns, stages, max_rate)
        kept = self._kept
        by_rate = np.argsort(-candidates.max_rate, kind="stable")
        size = FIRST_BATCH
        while len(by_rate):
            places, by_rate = by_rate[:size], by_rate[size:]
            self._evaluate(candidates, Order.ASAS, places, kept)
            as_good = candidates.max_rate[places] >= self.threshold * EQUAL
            places = places[candidates.can_improve[places] & as_good]
            self._evaluate(candidates, Order.AASS, places, kept)
            by_rate = by_rate[candidates.max_rate[by_rate] >= self.threshold * ROUNDING]
            size *= 4
        return candidates.pruned(self.threshold)

    def _expanded(
        self, space: Space, columns: Columns, stages: StageTable, max_rate: Array
    ) -> Candidates:
        """Columns with every r1 that may be among the best, from the largest down."""
        parts = []
        r1 = columns.max_r1
        while True:
            hopeful = max_rate >= self.threshold * ROUNDING
            columns, stages, r1 = columns[hopeful], stages[hopeful], r1[hopeful]
            parts.append(Candidates(space, columns.m_a, columns.r2, r1, stages, max_rate[hopeful]))
            more = r1 > columns.min_r1
            columns, stages, r1 = columns[more], stages[more], r1[more] - 1
            if not len(r1):
                return Candidates.joined(parts)
            max_rate = space.bounds(columns, stages, r1)

    def _evaluate(self, candidates: Candidates, order: Order, places: Places, kept: Array) -> None:
        """Evaluate an order; `kept` are the best throughputs of other candidates."""
        if len(places):
            candidates.evaluate(order, places)
            self.evaluated += len(places)
            self._kept = _largest(np.concatenate([kept, candidates.best]))

    def _look_ahead(self, candidates: Candidates) -> None:
        """Evaluate the look-ahead order where it could be the best of its space."""
        fastest = float(candidates.best.max())
        places = np.flatnonzero(candidates.can_improve)
        for place in places[np.argsort(-candidates.max_rate[places], kind="stable")].tolist():
            if candidates.max_rate[place] <= fastest * GAIN:
                return
            candidates.look_ahead(place)
            self.evaluated += 1
            fastest = max(fastest, float(candidates.rate(Order.LOOKAHEAD)[place]))

    def _grow_r2(self, candidates: Candidates, order: Order, places: Places) -> None:
        """Evaluate r2 from 1 on until the makespan rises."""
        us = candidates.evaluate(order, places)
        rises = np.flatnonzero(us[1:] > us[:-1] * GAIN)
        count = int(rises[0]) + 2 if len(rises) else len(us)
        candidates.rate(order)[places[count:]] = 0
        self.evaluated += count

    def _sample(self) -> None:
        """A first threshold from a few configurations of every space, unless all is one block."""
        if len(self.spaces) == 1 and self.spaces[0].is_one_block:
            return
        rates = [self._kept]
        for space in self.spaces:
            largest = len(space.m_a)
            places = np.unique([largest // part for part in (1, 2, 3, 4, 8) if part <= largest])
            columns = space.columns(space.m_a[places - 1])
            columns = columns[np.isin(columns.r2, (1, 2, 4, 8))]
            if len(columns.m_a):
                candidates = _candidates(space, columns, columns.max_r1)
                candidates.evaluate(Order.ASAS, np.arange(len(candidates)))
                self.evaluated += len(candidates)
                rates.append(candidates.best)
        self._sampled = float(_largest(np.concatenate(rates)).min())

    def _bound(self, space: Space) -> None:
        """The maximum throughput of any configuration, without candidates."""
        by_rate = np.argsort(-space.max_rates, kind="stable")
        for places in space.blocks(by_rate):
            if space.max_rates[places[0]] < self.max_rate * ROUNDING:
                return
            columns = space.columns(space.m_a[places])
            if len(columns.m_a):
                max_rate = _candidates(space, columns, columns.max_r1).max_rate
                self.max_rate = max(self.max_rate, float(max_rate.max()))


def _visited(space: Space) -> Candidates:
    """What Algorithm 1 looks at: m_a from the largest down, each with the most micro-batches that
    fit, skipped where these are as many as of the m_a before."""
    fewest, most = space.problem.r1_range(space.m_a, space.max_chunks(space.m_a), space.max_r1)
    m_a, r1 = space.m_a[most >= fewest], most[most >= fewest]
    changes = np.append(r1[:-1] != r1[1:], True)[: len(r1)]
    m_a, r1 = m_a[changes], r1[changes]
    columns = space.columns(m_a)
    wanted = r1[np.searchsorted(m_a, columns.m_a)]
    fits = columns.max_r1 >= wanted
    return _candidates(space, columns[fits], wanted[fits])


def _candidates(space: Space, columns: Columns, r1: IntArray) -> Candidates:
    stages = space.problem.stages.table(columns.m_a, columns.r2)
    max_rate = space.bounds(columns, stages, r1)
    return Candidates(space, columns.m_a, columns.r2, r1, stages, max_rate)


def _largest(rates: Array) -> Array:
    """The `KEPT` largest of at least as many."""
    return np.partition(rates, -KEPT)[-KEPT:]


def _rounded(rates: Array) -> Array:
    """Throughputs to `DIGITS` digits, in which they are compared."""
    rounded = rates.copy()
    usual = np.isfinite(rates) & (rates > 0)
    unit = 10.0 ** (np.floor(np.log10(rates[usual])) + 1 - DIGITS)
    rounded[usual] = np.round(rates[usual] / unit) * unit
    return rounded
