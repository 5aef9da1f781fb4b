"""Solver: the fastest cut and order of a problem, with a bound that no schedule of the searched
cuts can beat.

A problem is searched over m_a (samples of a micro-batch), r1 (micro-batches), r2 (chunks) and the
order of the AG: ASAS, AASS and the look-ahead order. What is maximised is the throughput r1 m_a S /
makespan, which for fixed samples is the least makespan.

`exact` leaves nothing out that could win. Every cut has a lower bound on its makespan that holds
for any order (`simdep.simulation.bounds`), and with it a most throughput. ASAS is evaluated
everywhere, by its closed form. AASS is evaluated where the most throughput exceeds that of the best
`KEPT` cuts so far, and the look-ahead order, which costs most, in falling order of most throughput
until none exceeds the best found: whatever is left out is at best as fast.

`algorithm1` is FinDEP's: m_a from the largest that fits down, r1 the largest that fits with it,
skipped if it is that of the m_a before; for each of ASAS and AASS, r2 grows until the makespan
rises.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from simdep import checks
from simdep.checks import InfeasibleError
from simdep.planning.memory_fixes import explain
from simdep.planning.problem import Problem
from simdep.policies import parse_order
from simdep.policies.lookahead import best_order, order_makespan
from simdep.schedule import Sequenced
from simdep.simulation.batch import Array, Batch, batch_makespans
from simdep.simulation.bounds import makespan_bounds

METHODS = ("exact", "algorithm1")
ORDERS = ("asas", "aass")  # the same in every layer; the look-ahead order is the third
KEPT = 5  # best cuts that are evaluated in every order that could improve them, for the runners-up
MOST_R1, MOST_R2 = 8, 32  # searched in a scenario, unless told otherwise
_GAIN, _DIGITS = 1 + 1e-12, 12  # what counts as faster; digits in which throughputs are equal

Places = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Choice:
    """A cut and an order; `m_e` tokens of an expert in a chunk (bare: tokens of a chunk). Makespan
    in microseconds.

    Where nothing takes any time, the throughput is infinite, in JSON null.
    """

    policy: str
    order: str
    m_a: int
    r1: int
    r2: int
    m_e: float
    makespan_us: float
    throughput_tokens_per_s: float
    ag: int | None = None  # of a scenario
    eg: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        rate = self.throughput_tokens_per_s
        return asdict(self) | {"throughput_tokens_per_s": rate if np.isfinite(rate) else None}


@dataclass(frozen=True)
class Solution:
    """The best choice of a problem, the next ones, and the proof.

    `most_tokens_per_s` is the most throughput of any searched cut in any order (0: without bound),
    and `lower_bound_us` what it would take for the samples of the best choice. `evaluated` counts
    cuts in an order.
    """

    problem: Problem
    method: str
    best: Choice
    runner_up: tuple[Choice, ...]
    most_tokens_per_s: float
    evaluated: int
    cuts: int
    solve_ms: float

    @property
    def lower_bound_us(self) -> float:
        tokens = self.problem.scale * self.best.m_a * self.best.r1
        return 1e6 * tokens / self.most_tokens_per_s if self.most_tokens_per_s else 0.0

    @property
    def gap_pct(self) -> float:
        """By how much the best choice may exceed the optimum."""
        return (
            max(0.0, 100 * (self.best.makespan_us / self.lower_bound_us - 1))
            if self.lower_bound_us
            else 0.0
        )

    @property
    def sequence(self) -> tuple[Sequenced, ...]:
        """The AG's stream of the best choice."""
        if self.best.policy == "lookahead":
            return best_order(self.problem.stages(self.best.m_a, self.best.r2), self.best.r1)
        steps = parse_order(self.best.order, self.best.r1)
        return tuple(
            (kind, layer, mb) for layer in range(self.problem.layers) for kind, mb in steps
        )

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        stages = self.problem.stages(self.best.m_a, self.best.r2)
        best = self.best.to_dict() | {
            "samples": self.best.m_a * self.best.r1,
            "attention_us": stages.attention[-1],
            "shared_us": stages.shared,
            "chunks": [run._asdict() for run in stages.runs],
        }
        if self.best.policy == "lookahead":
            best["ag_order"] = " ".join(
                f"{kind.value}[{layer}.{mb}]" for kind, layer, mb in self.sequence
            )
        return {
            "best": best,
            "makespan_us": self.best.makespan_us,
            "throughput_tokens_per_s": best["throughput_tokens_per_s"],
            "lower_bound_us": self.lower_bound_us,
            "gap_pct": self.gap_pct,
            "evaluated": self.evaluated,
            "cuts": self.cuts,
            "solve_ms": self.solve_ms,
            "method": self.method,
            "runner_up": [choice.to_dict() for choice in self.runner_up],
            "assumptions": list(self.problem.notes),
        }


def solve(
    problem: Problem, method: str = "exact", *, max_r1: int | None = None, max_r2: int | None = None
) -> Solution:
    """The best choice of a problem; r1 and r2 up to `MOST_R1` and `MOST_R2` for a scenario, any for
    a bare problem.

    Raises ValueError for an unknown method, InfeasibleError where not even one micro-batch of one
    sample fits.
    """
    checks.known(method, METHODS, "method")
    started = time.perf_counter()
    bare = problem.scenario is None
    most_r1 = checks.integer((10**9 if bare else MOST_R1) if max_r1 is None else max_r1, "max_r1")
    most_r2 = checks.integer((10**9 if bare else MOST_R2) if max_r2 is None else max_r2, "max_r2")
    search = _Search(problem, most_r1, most_r2)
    if not search.cuts:
        assert problem.scenario is not None, "without a memory limit something fits"
        samples = problem.samples or 1
        workload = replace(problem.scenario.workload, samples=samples)
        small = replace(
            problem.scenario,
            workload=workload,
            r1=1,
            r2=1,
            micro_batches=(),
            chunks=(),
            merge_last=False,
        )
        raise InfeasibleError(f"r1 = 0: {explain(small)}")
    (search.exact if method == "exact" else search.algorithm1)()
    best, *others = search.choices()
    return Solution(
        problem=problem,
        method=method,
        best=best,
        runner_up=tuple(others),
        most_tokens_per_s=search.most,
        evaluated=search.evaluated,
        cuts=search.cuts,
        solve_ms=1e3 * (time.perf_counter() - started),
    )


def together(solutions: Sequence[Solution]) -> Solution:
    """The best of solutions of several problems, and the proof over all of them."""
    best = max(solutions, key=lambda each: each.best.throughput_tokens_per_s)
    others = [
        choice
        for each in solutions
        for choice in (each.best, *each.runner_up)
        if choice is not best.best
    ]
    others.sort(key=lambda choice: -choice.throughput_tokens_per_s)
    most = max(each.most_tokens_per_s for each in solutions)
    return replace(
        best,
        runner_up=tuple(others[: KEPT - 1]),
        most_tokens_per_s=0.0 if any(not each.most_tokens_per_s for each in solutions) else most,
        evaluated=sum(each.evaluated for each in solutions),
        cuts=sum(each.cuts for each in solutions),
        solve_ms=sum(each.solve_ms for each in solutions),
    )


@dataclass
class _Part:
    """The cuts of one r1: rows (m_a, r2), stage times, most throughput, and the best throughput and
    order so far."""

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
            most = work / makespan_bounds(batch, self.problem.layers, r1)
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
            for at in np.flatnonzero(
                (part.most > part.best * _GAIN) & (part.most > self._fastest() * _GAIN)
            )
        ]
        for most, part, at in sorted(hopeful, key=lambda each: -each[0]):
            if most <= self._fastest() * _GAIN:
                break
            m_a, r2 = map(int, part.cut[:, at])
            stages = self.problem.stages(m_a, r2)
            self._note(
                part,
                np.array([at]),
                2,
                np.array([order_makespan(stages, best_order(stages, part.r1), part.r1)]),
            )

    def algorithm1(self) -> None:
        """An order is evaluated where the lower bound of its cuts says that it may be the best so
        far."""
        before = 0
        for m_a in np.unique(np.concatenate([part.cut[0] for part in self.parts]))[::-1]:
            part = max(
                (part for part in self.parts if (part.cut[0] == m_a).any()),
                key=lambda part: part.r1,
            )
            if part.r1 == before:
                continue
            before = part.r1
            here = np.flatnonzero(part.cut[0] == m_a)
            for order in range(len(ORDERS) if part.r1 > 1 else 1):
                if (part.most[here] > self._fastest() * _GAIN).any():
                    us = self._makespans(part, order, here)
                    rises = np.flatnonzero(us[1:] > us[:-1] * _GAIN)
                    last = int(rises[0]) + 2 if len(rises) else len(us)
                    self._note(part, here[:last], order, us[:last])

    def choices(self) -> list[Choice]:
        """The best cuts that were evaluated, best first; among equals the fewer chunks and
        micro-batches."""
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
        policy, where = "lookahead" if order == "lookahead" else "findep", self.problem.scenario
        split = (where.deployment.ag, where.deployment.eg) if where else (None, None)
        return Choice(
            policy,
            order,
            m_a,
            part.r1,
            r2,
            tokens * self.problem.rows,
            us,
            float(part.best[at]),
            *split,
        )

    def _evaluate(
        self, part: _Part, order: int, where: np.ndarray[Any, np.dtype[np.bool_]]
    ) -> None:
        if where.any():
            here = np.flatnonzero(where)
            self._note(part, here, order, self._makespans(part, order, here))

    def _makespans(self, part: _Part, order: int, here: Places) -> Array:
        every = len(here) == part.cut.shape[1]
        batch = part.batch if every else part.batch[np.isin(np.arange(part.cut.shape[1]), here)]
        return batch_makespans(batch, self.problem.layers, parse_order(ORDERS[order], part.r1))

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
