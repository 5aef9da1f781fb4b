"""A problem: what the solver may choose from, and what every choice costs.

A choice is a cut: r1 micro-batches of m_a samples, each in r2 chunks, on every AG GPU. In a bare
problem chunks are equal, m_a K / r2 tokens each; in a scenario as equal as whole tokens allow: at
most two runs of equal chunks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from simdep import checks
from simdep.costs import StageCosts
from simdep.policies import chunk_tokens
from simdep.policies.lookahead import Run, Stages
from simdep.scenario import memory
from simdep.scenario.spec import Scenario
from simdep.scenario.task_costs import ScenarioCosts
from simdep.schedule import Kind, Task
from simdep.simulation.batch import Array, Batch

MOST_CUTS = 4_000_000


@dataclass(frozen=True)
class Problem:
    """What is to be cut and ordered: costs by samples of a micro-batch and by tokens of a chunk,
    and what fits.

    `samples` of an AG GPU are fixed, or None: any number that fits. `attention(m_a)` has a time for
    each layer, `runs( m_a, r2)` the chunks of a micro-batch; `fits(m_a, r2)` is the most
    micro-batches that memory allows. `scale` turns samples of an AG GPU into the tokens that
    throughput counts, `rows` tokens of a chunk into tokens of an expert.
    """

    layers: int
    samples: int | None
    tokens_per_sample: int
    scale: float
    rows: float
    attention: Callable[[int], tuple[float, ...]]
    shared: Callable[[int], float]
    runs: Callable[[int, int], tuple[Run, ...]]
    fits: Callable[[memory.Integers, memory.Integers], memory.Integers]
    largest_m_a: Callable[[int], int] | None = None
    prepare: Callable[[Sequence[tuple[int, int]]], None] = field(
        default=lambda cuts: None, repr=False
    )
    scenario: Scenario | None = None
    notes: tuple[str, ...] = ()
    _batches: dict[tuple[int, ...], tuple[Array, Array, Batch]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def bare(cls, costs: StageCosts, layers: int, samples: int) -> Problem:
        """Stage costs alone: `samples` samples in r1 micro-batches, chunks of m_a K / r2 tokens,
        whole or not."""
        checks.integer(layers, "layers")
        checks.integer(samples, "samples")

        def runs(m_a: int, r2: int) -> tuple[Run, ...]:
            times = costs.times(m_a, r2)
            return (Run(r2, times.a2e, times.expert, times.e2a),)

        return cls(
            layers=layers,
            samples=samples,
            tokens_per_sample=costs.tokens_per_sample,
            scale=costs.tokens_per_sample,
            rows=1,
            attention=lambda m_a: (costs.attention(m_a),),
            shared=lambda m_a: costs.shared(m_a) if costs.has_shared else 0,
            runs=runs,
            fits=lambda m_a, r2: np.full_like(m_a, memory.UNLIMITED),
        )

    @classmethod
    def of(cls, scenario: Scenario, samples: int | None = None, *, ideal: bool = False) -> Problem:
        """A scenario's model, hardware and workload; its own cut and order are left aside.

        Raises ValueError for what the solver does not model: terms of hosts (unless `ideal`), ranks
        that differ, groups of experts, colocated groups.
        """
        where, model = scenario.deployment, scenario.model
        costs = ScenarioCosts(scenario)
        (costs.host.ideal if ideal else costs.host).refuse("the solver")
        for name, used in (
            ("ranks that differ", scenario.ranks is not None),
            ("colocated groups", where.colocated),
            ("groups of experts", scenario.split == "expert"),
        ):
            if used:
                raise ValueError(f"solve does not model {name}; use simulate or compare")
        prices = _Prices(costs, scenario)
        return cls(
            layers=scenario.layers,
            samples=samples,
            tokens_per_sample=scenario.workload.tokens_per_sample,
            scale=scenario.workload.tokens_per_sample * where.ag,
            rows=where.ag * model.top_k / model.experts,
            attention=prices.attention,
            shared=prices.shared,
            runs=prices.runs,
            fits=prices.footprint.largest_r1,
            largest_m_a=prices.footprint.largest_m_a,
            prepare=prices.prepare,
            scenario=scenario,
            notes=tuple(costs.notes),
        )

    def cuts(self, most_r1: int, most_r2: int) -> Iterator[tuple[int, range]]:
        """(m_a, r2 from 1 on), smallest m_a first: what fits at least once, or divides the fixed
        samples."""
        if self.samples is not None:
            sizes = [
                self.samples // r1 for r1 in reversed(_divisors(self.samples)) if r1 <= most_r1
            ]
        else:
            assert self.largest_m_a is not None, "a problem without samples has a memory limit"
            sizes = list(range(1, self.largest_m_a(most_r2) + 1))
        for m_a in sizes:
            yield m_a, range(1, min(most_r2, m_a * self.tokens_per_sample) + 1)

    def stages(self, m_a: int, r2: int) -> Stages:
        """Times of a micro-batch."""
        attention = self.attention(m_a)
        layers = attention if len(attention) == self.layers else attention * self.layers
        return Stages(layers, self.shared(m_a), self.runs(m_a, r2))

    def batch(self, most_r1: int, most_r2: int) -> tuple[Array, Array, Batch]:
        """All cuts but for r1: rows (m_a, r2), the most micro-batches of each, and their stage
        times."""
        key = (most_r1, most_r2)
        if key not in self._batches:
            sizes = list(self.cuts(most_r1, most_r2))
            if (count := sum(len(counts) for _, counts in sizes)) > MOST_CUTS:
                raise ValueError(
                    f"{count:,} cuts; at most {MOST_CUTS:,} are searched: set --max-r1 and --max-r2"
                )
            cuts = [(m_a, r2) for m_a, counts in sizes for r2 in counts]
            if cuts:
                self.prepare(cuts)
            self._batches[key] = self._stacked(cuts)
        return self._batches[key]

    def _stacked(self, cuts: Sequence[tuple[int, int]]) -> tuple[Array, Array, Batch]:
        if not cuts:
            none = np.empty((1, 0))
            return np.empty((2, 0)), none[0], Batch(none, none[0], none, none, none, none)
        runs = [self.runs(m_a, r2) for m_a, r2 in cuts]
        width = max(map(len, runs), default=1)
        padded = np.array(
            [(*each, *(Run(0, 0, 0, 0),) * (width - len(each))) for each in runs], float
        )
        counts, a2e, expert, e2a = padded.reshape(len(cuts), width, 4).transpose(2, 1, 0)
        by_size = {m_a: (self.attention(m_a), self.shared(m_a)) for m_a, _ in cuts}
        attention = np.array([by_size[m_a][0] for m_a, _ in cuts], float).reshape(len(cuts), -1).T
        shared = np.array([by_size[m_a][1] for m_a, _ in cuts], float)
        sizes = np.array(cuts).T
        most = np.minimum(self.fits(*sizes), 10**9)
        return (
            sizes.astype(float),
            most.astype(float),
            Batch(attention, shared, counts, a2e, expert, e2a),
        )


class _Prices:
    """What a scenario's cuts cost and need, each priced once."""

    def __init__(self, costs: ScenarioCosts, scenario: Scenario) -> None:
        self.costs, self.scenario = (
            costs,
            replace(scenario, micro_batches=(), chunks=(), merge_last=False, r1=1, r2=1),
        )
        self.footprint = memory.Footprint.of(self.scenario)
        model = scenario.model
        self.tokens = scenario.workload.tokens_per_sample
        # Where every layer attends to all its context, those after the first cost the same
        self.alike = model.moe_every == 1 and getattr(model.attention, "window", None) is None
        self._known: dict[tuple[Any, ...], Any] = {}

    def attention(self, m_a: int) -> tuple[float, ...]:
        def price() -> tuple[float, ...]:
            tasks = (
                Task(Kind.ATTENTION, layer, 0, tokens=m_a * self.tokens)
                for layer in self._own_layers
            )
            return self._every_layer(map(self.costs, tasks))

        return self._once(("A", m_a), price)  # type: ignore[no-any-return]

    def shared(self, m_a: int) -> float:
        """On the AG."""
        return self._shared(m_a) if self.scenario.deployment.shared_on == "ag" else 0

    def runs(self, m_a: int, r2: int) -> tuple[Run, ...]:
        """Shared experts on the EG stand right before the last chunk there, need its A2E, and go
        home with it."""
        sizes = chunk_tokens(m_a * self.tokens, r2)
        if self.scenario.deployment.shared_on == "ag":
            return tuple(
                Run(sizes.count(size), *self._chunk(size)) for size in dict.fromkeys(sizes)
            )
        *before, last = sizes
        a2e, expert, e2a = self._chunk(last)
        found = [Run(before.count(size), *self._chunk(size)) for size in dict.fromkeys(before)]
        return (*found, Run(1, a2e, self._shared(m_a) + expert, e2a))

    def prepare(self, cuts: Sequence[tuple[int, int]]) -> None:
        """Price all tasks of cuts (m_a, r2) in one go: each kind for every number of tokens at
        once."""
        costs, samples = self.costs, sorted({m_a for m_a, _ in cuts})
        every: Any = self.tokens * np.array(samples, float)
        rows = [
            costs.attention(every, layer) + (costs.combine(every) if layer else 0)
            for layer in self._own_layers
        ]
        shared = costs.shared(every) if self.scenario.model.has_shared else 0
        for m_a, own, *layers in zip(samples, *_columns(len(samples), shared, *rows), strict=True):
            self._known["S", m_a], self._known["A", m_a] = own, self._every_layer(layers)
        least = {(m_a * self.tokens // r2, m_a * self.tokens % r2 > 0) for m_a, r2 in cuts}
        sizes = sorted({size + longer for size, uneven in least for longer in range(1 + uneven)})
        every = np.array(sizes, float)
        stages = (
            costs.transfer(Kind.A2E, every),
            costs.expert(every),
            costs.transfer(Kind.E2A, every),
        )
        for size, *chunk in zip(sizes, *_columns(len(sizes), *stages), strict=True):
            self._known["E", size] = tuple(chunk)

    @property
    def _own_layers(self) -> range:
        """Layers whose attention is priced; those after them take as long as the last of these."""
        return range(min(2, self.scenario.layers) if self.alike else self.scenario.layers)

    def _every_layer(self, own: Iterable[float]) -> tuple[float, ...]:
        found = tuple(own)
        found += found[-1:] * (self.scenario.layers - len(found))
        return found[:1] if len(set(found)) == 1 else found

    def _shared(self, m_a: int) -> float:
        if not self.scenario.model.has_shared:
            return 0
        task = Task(Kind.SHARED, 0, 0, tokens=m_a * self.tokens)
        return self._once(("S", m_a), lambda: self.costs(task))  # type: ignore[no-any-return]

    def _chunk(self, size: int) -> tuple[float, float, float]:
        def price() -> tuple[float, ...]:
            return tuple(
                self.costs(Task(kind, 0, 0, 0, size)) for kind in (Kind.A2E, Kind.EXPERT, Kind.E2A)
            )

        return self._once(("E", size), price)  # type: ignore[no-any-return]

    def _once(self, key: tuple[Any, ...], price: Callable[[], Any]) -> Any:
        if key not in self._known:
            self._known[key] = price()
        return self._known[key]


def _divisors(number: int) -> list[int]:
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})


def _columns(length: int, *columns: Any) -> list[list[float]]:
    return [np.broadcast_to(column, length).tolist() for column in columns]
