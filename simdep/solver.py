"""Solver: the fastest cut and order of a problem, with a bound that no schedule of the searched cuts can beat.

A problem is searched over m_a (samples of a micro-batch), r1 (micro-batches), r2 (chunks) and the order of the AG:
ASAS, AASS and the look-ahead order. What is maximised is the throughput r1 m_a S / makespan, which for fixed
samples is the least makespan.

`exact` leaves nothing out that could win. Every cut has a lower bound on its makespan that holds for any order
(`simdep.bounds`), and with it a most throughput. ASAS is evaluated everywhere, by its closed form. AASS is evaluated
where the most throughput exceeds that of the best `KEPT` cuts so far, and the look-ahead order, which costs most, in
falling order of most throughput until none exceeds the best found: whatever is left out is at best as fast.

`algorithm1` is FinDEP's: m_a from the largest that fits down, r1 the largest that fits with it, skipped if it is that
of the m_a before; for each of ASAS and AASS, r2 grows until the makespan by its closed form rises. That of AASS is a
lower bound, so that the choice may be a slower one than it seems.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from simdep import bounds, checks, fastpath, memory
from simdep.checks import InfeasibleError
from simdep.costs import IDEAL, ScenarioCosts, StageCosts
from simdep.fastpath import Array, Batch
from simdep.lookahead import Run, Sequenced, Stages, best_order, makespan
from simdep.policies import chunk_tokens, parse_order
from simdep.scenario import Scenario
from simdep.schedule import Kind, Task

METHODS = ("exact", "algorithm1")
ORDERS = ("asas", "aass")  # the same in every layer; the look-ahead order is the third
KEPT = 5  # best cuts that are evaluated in every order that could improve them, for the runners-up
MOST_R1, MOST_R2 = 8, 32  # searched in a scenario, unless told otherwise
MOST_CUTS = 4_000_000
_GAIN, _DIGITS = 1 + 1e-12, 12  # what counts as faster; digits in which throughputs are equal

Places = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Problem:
    """What is to be cut and ordered: costs by samples of a micro-batch and by tokens of a chunk, and what fits.

    `samples` of an AG GPU are fixed, or None: any number that fits. `attention(m_a)` has a time for each layer, `runs(
    m_a, r2)` the chunks of a micro-batch; `fits(m_a, r2)` is the most micro-batches that memory allows. `scale` turns
    samples of an AG GPU into the tokens that throughput counts, `rows` tokens of a chunk into tokens of an expert.
    """

    layers: int
    samples: int | None
    tokens_per_sample: int
    scale: float
    rows: float
    attention: Callable[[int], tuple[float, ...]]
    shared: Callable[[int], float]
    runs: Callable[[int, int], tuple[Run, ...]]
    fits: Callable[[int, int], int]
    prepare: Callable[[Sequence[tuple[int, int]]], None] = field(default=lambda cuts: None, repr=False)
    scenario: Scenario | None = None
    notes: tuple[str, ...] = ()
    _batches: dict[tuple[int, ...], tuple[Array, Array, Batch]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def bare(cls, costs: StageCosts, layers: int, samples: int) -> Problem:
        """Stage costs alone: `samples` samples in r1 micro-batches, chunks of m_a K / r2 tokens, whole or not."""
        checks.whole(layers, "layers")
        checks.whole(samples, "samples")

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
            fits=lambda m_a, r2: memory.UNLIMITED,
        )

    @classmethod
    def of(cls, scenario: Scenario, samples: int | None = None, *, ideal: bool = False) -> Problem:
        """A scenario's model, hardware and workload; its own cut and order are left aside.

        Raises ValueError for what the solver does not model: terms of hosts (unless `ideal`), ranks that differ, groups
        of experts, colocated groups.
        """
        where, model = scenario.deployment, scenario.model
        costs = ScenarioCosts(scenario)
        (IDEAL if ideal else costs.host).refuse("the solver")
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
            fits=prices.fits,
            prepare=prices.prepare,
            scenario=scenario,
            notes=tuple(costs.notes),
        )

    def cuts(self, most_r1: int, most_r2: int) -> Iterator[tuple[int, list[int]]]:
        """(m_a, r2 from 1 on), smallest m_a first: what fits at least once, or divides the fixed samples."""
        if self.samples is not None:
            sizes = [self.samples // r1 for r1 in range(min(most_r1, self.samples), 0, -1) if self.samples % r1 == 0]
        else:
            sizes = list(range(1, self._largest_m_a(most_r2) + 1))
        for m_a in sizes:
            yield m_a, list(range(1, min(most_r2, m_a * self.tokens_per_sample) + 1))

    def stages(self, m_a: int, r2: int) -> Stages:
        """Times of a micro-batch."""
        attention = self.attention(m_a)
        layers = attention if len(attention) == self.layers else attention * self.layers
        return Stages(layers, self.shared(m_a), self.runs(m_a, r2))

    def batch(self, most_r1: int, most_r2: int) -> tuple[Array, Array, Batch]:
        """All cuts but for r1: rows (m_a, r2), the most micro-batches of each, and their stage times."""
        key = (most_r1, most_r2)
        if key not in self._batches:
            cuts = [(m_a, r2) for m_a, counts in self.cuts(most_r1, most_r2) for r2 in counts]
            if len(cuts) > MOST_CUTS:
                raise ValueError(f"{len(cuts):,} cuts; at most {MOST_CUTS:,} are searched: set --max-r1 and --max-r2")
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
        padded = np.array([(*each, *(Run(0, 0, 0, 0),) * (width - len(each))) for each in runs], float)
        counts, a2e, expert, e2a = padded.reshape(len(cuts), width, 4).transpose(2, 1, 0)
        by_size = {m_a: (self.attention(m_a), self.shared(m_a)) for m_a, _ in cuts}
        attention = np.array([by_size[m_a][0] for m_a, _ in cuts], float).reshape(len(cuts), -1).T
        shared = np.array([by_size[m_a][1] for m_a, _ in cuts], float)
        most = np.array([min(self.fits(m_a, r2), 10**9) for m_a, r2 in cuts], float)
        return np.array(cuts, float).reshape(-1, 2).T, most, Batch(attention, shared, counts, a2e, expert, e2a)

    def _largest_m_a(self, most_r2: int) -> int:
        def good(m_a: int) -> bool:
            return self.fits(m_a, min(most_r2, m_a * self.tokens_per_sample)) > 0

        if self.fits(1, 1) == memory.UNLIMITED:
            raise ValueError("memory is not known and so no limit on samples; give --samples or --memory-gbytes")
        high = 1
        while good(high):
            high *= 2
        low = high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if good(middle) else (low, middle)
        return low


class _Prices:
    """What a scenario's cuts cost and need, each priced once."""

    def __init__(self, costs: ScenarioCosts, scenario: Scenario) -> None:
        self.costs, self.scenario = costs, replace(scenario, micro_batches=(), chunks=(), merge_last=False, r1=1, r2=1)
        model = scenario.model
        self.tokens = scenario.workload.tokens_per_sample
        # Where every layer attends to all its context, those after the first cost the same
        self.alike = model.moe_every == 1 and getattr(model.attention, "window", None) is None
        self._known: dict[tuple[Any, ...], Any] = {}

    def attention(self, m_a: int) -> tuple[float, ...]:
        def price() -> tuple[float, ...]:
            tasks = (Task(Kind.ATTENTION, layer, 0, tokens=m_a * self.tokens) for layer in self._own_layers)
            return self._every_layer(map(self.costs, tasks))

        return self._once(("A", m_a), price)  # type: ignore[no-any-return]

    def shared(self, m_a: int) -> float:
        """On the AG."""
        return self._shared(m_a) if self.scenario.deployment.shared_on == "ag" else 0

    def runs(self, m_a: int, r2: int) -> tuple[Run, ...]:
        """Shared experts on the EG stand right before the last chunk there, need its A2E, and go home with it."""
        sizes = chunk_tokens(m_a * self.tokens, r2)
        if self.scenario.deployment.shared_on == "ag":
            return tuple(Run(sizes.count(size), *self._chunk(size)) for size in dict.fromkeys(sizes))
        *before, last = sizes
        a2e, expert, e2a = self._chunk(last)
        found = [Run(before.count(size), *self._chunk(size)) for size in dict.fromkeys(before)]
        return (*found, Run(1, a2e, self._shared(m_a) + expert, e2a))

    def prepare(self, cuts: Sequence[tuple[int, int]]) -> None:
        """Price all tasks of cuts (m_a, r2) in one go: each kind for every number of tokens at once."""
        costs, samples = self.costs, sorted({m_a for m_a, _ in cuts})
        every: Any = self.tokens * np.array(samples, float)
        rows = [costs.attention(every, layer) + (costs.combine(every) if layer else 0) for layer in self._own_layers]
        shared = costs.shared(every) if self.scenario.model.has_shared else 0
        for m_a, own, *layers in zip(samples, *_columns(len(samples), shared, *rows), strict=True):
            self._known["S", m_a], self._known["A", m_a] = own, self._every_layer(layers)
        least = {(m_a * self.tokens // r2, m_a * self.tokens % r2 > 0) for m_a, r2 in cuts}
        sizes = sorted({size + longer for size, uneven in least for longer in range(1 + uneven)})
        every = np.array(sizes, float)
        stages = costs.transfer(Kind.A2E, every), costs.expert(every), costs.transfer(Kind.E2A, every)
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

    def fits(self, m_a: int, r2: int) -> int:
        return self._once(("fits", m_a, r2), lambda: memory.largest_r1(self.scenario, m_a, r2))  # type: ignore[no-any-return]

    def _chunk(self, size: int) -> tuple[float, float, float]:
        def price() -> tuple[float, ...]:
            return tuple(self.costs(Task(kind, 0, 0, 0, size)) for kind in (Kind.A2E, Kind.EXPERT, Kind.E2A))

        return self._once(("E", size), price)  # type: ignore[no-any-return]

    def _once(self, key: tuple[Any, ...], price: Callable[[], Any]) -> Any:
        if key not in self._known:
            self._known[key] = price()
        return self._known[key]


def _columns(length: int, *columns: Any) -> list[list[float]]:
    return [np.broadcast_to(column, length).tolist() for column in columns]


@dataclass(frozen=True)
class Choice:
    """A cut and an order; `m_e` tokens of an expert in a chunk (bare: tokens of a chunk). Makespan in microseconds."""

    policy: str
    order: str
    m_a: int
    r1: int
    r2: int
    m_e: float
    makespan_us: float
    throughput_tokens_per_s: float


@dataclass(frozen=True)
class Solution:
    """The best choice of a problem, the next ones, and the proof.

    `lower_bound_us`: no searched cut gets through the samples of the best one in less, in any order; with samples that
    are not fixed, what the most throughput of any cut would take for them. `evaluated` counts cuts in an order.
    """

    problem: Problem
    method: str
    best: Choice
    runner_up: tuple[Choice, ...]
    lower_bound_us: float
    evaluated: int
    cuts: int
    solve_ms: float

    @property
    def gap_pct(self) -> float:
        """By how much the best choice may exceed the optimum."""
        return max(0.0, 100 * (self.best.makespan_us / self.lower_bound_us - 1)) if self.lower_bound_us else 0.0

    @property
    def sequence(self) -> tuple[Sequenced, ...]:
        """The AG's stream of the best choice."""
        if self.best.policy == "lookahead":
            return best_order(self.problem.stages(self.best.m_a, self.best.r2), self.best.r1)
        steps = parse_order(self.best.order, self.best.r1)
        return tuple((kind, layer, mb) for layer in range(self.problem.layers) for kind, mb in steps)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        stages, where = self.problem.stages(self.best.m_a, self.best.r2), self.problem.scenario
        best = asdict(self.best) | {
            "samples": self.best.m_a * self.best.r1,
            "attention_us": stages.attention[-1], "shared_us": stages.shared,
            "chunks": [run._asdict() for run in stages.runs],
        }  # fmt: skip
        if where is not None:
            best |= {"ag": where.deployment.ag, "eg": where.deployment.eg}
        if self.best.policy == "lookahead":
            best["ag_order"] = " ".join(f"{kind.value}[{layer}.{mb}]" for kind, layer, mb in self.sequence)
        return {
            "best": best,
            "makespan_us": self.best.makespan_us,
            "throughput_tokens_per_s": self.best.throughput_tokens_per_s,
            "lower_bound_us": self.lower_bound_us,
            "gap_pct": self.gap_pct,
            "evaluated": self.evaluated,
            "cuts": self.cuts,
            "solve_ms": self.solve_ms,
            "method": self.method,
            "runner_up": [asdict(choice) for choice in self.runner_up],
            "assumptions": list(self.problem.notes),
        }


def solve(problem: Problem, method: str = "exact", *, max_r1: int | None = None, max_r2: int | None = None) -> Solution:
    """The best choice of a problem; r1 and r2 up to `MOST_R1` and `MOST_R2` for a scenario, any for a bare problem.

    Raises ValueError for an unknown method, InfeasibleError where not even one micro-batch of one sample fits.
    """
    checks.known(method, METHODS, "method")
    started = time.perf_counter()
    bare = problem.scenario is None
    most_r1 = checks.whole((10**9 if bare else MOST_R1) if max_r1 is None else max_r1, "max_r1")
    most_r2 = checks.whole((10**9 if bare else MOST_R2) if max_r2 is None else max_r2, "max_r2")
    search = _Search(problem, most_r1, most_r2)
    if not search.cuts:
        assert problem.scenario is not None, "without a memory limit something fits"
        samples = problem.samples or 1
        workload = replace(problem.scenario.workload, samples=samples)
        small = replace(problem.scenario, workload=workload, r1=1, r2=1, micro_batches=(), chunks=(), merge_last=False)
        raise InfeasibleError(f"r1 = 0: {memory.explain(small)}")
    (search.exact if method == "exact" else search.algorithm1)()
    best, *others = search.choices()
    return Solution(
        problem=problem,
        method=method,
        best=best,
        runner_up=tuple(others),
        lower_bound_us=1e6 * problem.scale * best.m_a * best.r1 / search.most if search.most else 0.0,
        evaluated=search.evaluated,
        cuts=search.cuts,
        solve_ms=1e3 * (time.perf_counter() - started),
    )


@dataclass
class _Part:
    """The cuts of one r1: rows (m_a, r2), stage times, most throughput, and the best throughput and order so far."""

    r1: int
    cut: Array
    batch: Batch
    work: Array  # tokens, times 1e6: divided by a makespan, tokens/s
    most: Array
    best: Array
    order: Places


class _Search:
    """All cuts that fit, by r1, and what has been evaluated of them."""

    def __init__(self, problem: Problem, most_r1: int, most_r2: int) -> None:
        self.problem, self.evaluated = problem, 0
        (m_a, r2), most, batch = problem.batch(most_r1, most_r2)
        if problem.samples is None:
            counts: list[int] = list(range(1, int(min(most_r1, max(most, default=0))) + 1))
        else:
            counts = [int(n) for n in np.unique(problem.samples / m_a)]
        self.parts = []
        for r1 in counts:
            here = most >= r1
            if problem.samples is not None:
                here &= m_a * r1 == problem.samples
            if here.any():
                self.parts.append(self._part(r1, np.stack([m_a[here], r2[here]]), batch[here]))
        self.cuts = sum(part.cut.shape[1] for part in self.parts)

    def _part(self, r1: int, cut: Array, batch: Batch) -> _Part:
        work = 1e6 * self.problem.scale * r1 * cut[0]
        with np.errstate(divide="ignore"):
            most = work / bounds.makespans(batch, self.problem.layers, r1)
        return _Part(r1, cut, batch, work, most, np.zeros(len(work)), np.zeros(len(work), np.int64))

    @cached_property
    def most(self) -> float:
        """The most throughput of any cut in any order; 0 if that is without bound."""
        most = max(float(part.most.max()) for part in self.parts)
        return most if np.isfinite(most) else 0.0

    def exact(self) -> None:
        for part in self.parts:
            self._evaluate(part, 0, np.ones(part.cut.shape[1], bool))
        for part in sorted(self.parts, key=lambda part: -float(part.most.max())):
            if part.r1 > 1 and part.batch.shared.any():
                self._evaluate(part, 1, part.most > max(part.best.min(), self._threshold()) * _GAIN)
        hopeful = [
            (float(part.most[at]), part, int(at))
            for part in self.parts
            if part.r1 > 1 and part.batch.shared.any()
            for at in np.flatnonzero((part.most > part.best * _GAIN) & (part.most > self._fastest() * _GAIN))
        ]
        for most, part, at in sorted(hopeful, key=lambda each: -each[0]):
            if most <= self._fastest() * _GAIN:
                break
            m_a, r2 = map(int, part.cut[:, at])
            stages = self.problem.stages(m_a, r2)
            self._note(part, np.array([at]), 2, np.array([makespan(stages, best_order(stages, part.r1), part.r1)]))

    def algorithm1(self) -> None:
        """By closed forms, as published; what they choose is then evaluated exactly."""
        before = 0
        chosen: tuple[float, _Part, int, int] | None = None
        for m_a in np.unique(np.concatenate([part.cut[0] for part in self.parts]))[::-1]:
            fitting = [part for part in self.parts if (part.cut[0] == m_a).any()]
            part = max(fitting, key=lambda part: part.r1)
            if part.r1 == before:
                continue
            before = part.r1
            here = np.flatnonzero(part.cut[0] == m_a)
            for order, us in enumerate(_closed_forms(part.batch[here], self.problem.layers, part.r1)):
                rises = np.flatnonzero(us[1:] > us[:-1] * _GAIN)
                last = int(rises[0]) if len(rises) else len(us) - 1
                self.evaluated += last + 1 + bool(len(rises))
                with np.errstate(divide="ignore"):
                    rate = float(part.work[here[last]] / us[last])
                if chosen is None or rate > chosen[0] * _GAIN:
                    chosen = rate, part, int(here[last]), order
        assert chosen is not None, "there is a cut"
        _, part, at, order = chosen
        self._note(part, np.array([at]), order, self._makespans(part, order, np.array([at])))

    def choices(self) -> list[Choice]:
        """The best cuts that were evaluated, best first; among equals the fewer chunks and micro-batches."""
        found = []
        for part in self.parts:
            for at in np.argsort(-part.best, kind="stable")[:KEPT]:
                if part.best[at] > 0:
                    rate = float(f"{part.best[at]:.{_DIGITS}g}")
                    found.append((-rate, part.r1, int(part.cut[1, at]), part, int(at)))
        found.sort(key=lambda each: each[:3])
        return [self._choice(part, at) for *_, part, at in found[:KEPT]]

    def _choice(self, part: _Part, at: int) -> Choice:
        m_a, r2 = map(int, part.cut[:, at])
        order = (*ORDERS, "lookahead")[part.order[at]]
        tokens = m_a * self.problem.tokens_per_sample / r2
        us = float(part.work[at] / part.best[at])
        policy = "lookahead" if order == "lookahead" else "findep"
        return Choice(policy, order, m_a, part.r1, r2, tokens * self.problem.rows, us, float(part.best[at]))

    def _evaluate(self, part: _Part, order: int, where: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
        if where.any():
            here = np.flatnonzero(where)
            self._note(part, here, order, self._makespans(part, order, here))

    def _makespans(self, part: _Part, order: int, here: Places) -> Array:
        every = len(here) == part.cut.shape[1]
        batch = part.batch if every else part.batch[np.isin(np.arange(part.cut.shape[1]), here)]
        return fastpath.makespans(batch, self.problem.layers, parse_order(ORDERS[order], part.r1))

    def _note(self, part: _Part, here: Places, order: int, us: Array) -> None:
        self.evaluated += len(here)
        with np.errstate(divide="ignore"):
            rate = part.work[here] / us
        better = rate > part.best[here] * _GAIN
        part.best[here[better]], part.order[here[better]] = rate[better], order

    def _fastest(self) -> float:
        return max(float(part.best.max()) for part in self.parts)

    def _threshold(self) -> float:
        """The throughput of the last of the best `KEPT` cuts so far."""
        best = np.concatenate([part.best for part in self.parts])
        return float(np.partition(best, -KEPT)[-KEPT]) if len(best) >= KEPT else 0.0


def _closed_forms(batch: Batch, layers: int, r1: int) -> tuple[Array, Array]:
    """Makespans of ASAS (exact) and AASS (a lower bound) as FinDEP has them, by the attention of an inner layer.

    `simdep.analytic` for many cuts; where chunks differ, the first one is the longest and each takes its own time.
    """
    slowest = np.maximum(np.maximum(batch.a2e, batch.expert), batch.e2a)
    attention = batch.attention[min(1, len(batch.attention) - 1)]
    X, all_chunks = attention + batch.shared, (batch.counts * slowest).sum(axis=0)
    F = np.maximum(X, all_chunks)
    G = attention + batch.a2e[0] + batch.expert[0] + batch.e2a[0] + all_chunks - slowest[0]
    asas: Array = (layers - 1) * np.maximum(G, r1 * F) + np.maximum(X, G) + (r1 - 1) * F
    last = np.maximum(r1 * X, G + (r1 - 1) * np.maximum(attention, all_chunks))
    aass: Array = (layers - 1) * np.maximum(np.maximum(G, r1 * X), r1 * all_chunks) + last
    return asas, aass
