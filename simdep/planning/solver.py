"""Solver: the fastest pipeline configuration and order of a problem, with a bound that no schedule
of the searched configurations can beat.

A problem is searched over m_a (samples of a micro-batch), r1 (micro-batches), r2 (chunks) and the
order of the AG: ASAS, AASS and the look-ahead order. What is maximised is the throughput r1 m_a S /
makespan, which for fixed samples is the least makespan.

`exact` discards only configurations that provably cannot be optimal (`simdep.planning.search`).
`algorithm1` is FinDEP's: m_a from the largest that fits down, r1 the largest that fits with it,
skipped if it is that of the m_a before; for each of ASAS and AASS, r2 grows until the makespan
rises.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from simdep import checks
from simdep.checks import InfeasibleError
from simdep.hardware.extrapolation import assumption_sentences
from simdep.planning.memory_fixes import explanation
from simdep.planning.problem import Problem
from simdep.planning.search import Candidates, Order, Search, Space
from simdep.policies import in_every_layer, parse_order, states_samples
from simdep.policies.lookahead import best_order
from simdep.scenario.memory import memory
from simdep.scenario.spec import Scenario
from simdep.schedule import Sequenced
from simdep.simulation.stage_table import StageTable
from simdep.units import human_us

if TYPE_CHECKING:
    import pandas as pd

METHODS = ("exact", "algorithm1")
_PROVEN_PCT = 1e-9  # of a gap that is none
MAX_R1, MAX_R2 = 8, 32  # searched in a scenario, unless set otherwise


@dataclass(frozen=True)
class Configuration:
    """A pipeline configuration with its order; `m_e` tokens of an expert in a chunk (with stage
    costs alone: tokens of a chunk). Makespan in microseconds.

    Where nothing takes any time, the throughput is infinite, in JSON null. `ag` and `eg` are the
    GPUs of a scenario.
    """

    policy: str
    order: str
    m_a: int
    r1: int
    r2: int
    m_e: float
    makespan_us: float
    throughput_tokens_per_s: float
    ag: int | None = None
    eg: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        rate = self.throughput_tokens_per_s
        return asdict(self) | {"throughput_tokens_per_s": rate if np.isfinite(rate) else None}


@dataclass(frozen=True, repr=False)
class Solution:
    """The best configuration of a problem, the next ones, and the proof.

    `max_tokens_per_s` bounds the throughput of any searched configuration in any order (0: without
    bound), and `lower_bound_us` is what it would take for the samples of the best configuration.
    `evaluated` counts configurations in an order, of `configurations` that fit.
    """

    problem: Problem
    method: str
    best: Configuration
    runner_up: tuple[Configuration, ...]
    max_tokens_per_s: float
    evaluated: int
    configurations: int
    solve_ms: float

    def __repr__(self) -> str:
        best, proof = self.best, f"within {self.gap_pct:.2g} % of the optimum"
        if self.gap_pct < _PROVEN_PCT:
            proof = "optimal"
        order = f" {best.order}" if best.policy == "findep" else ""
        configuration = f"{best.policy}{order} m_a={best.m_a} r1={best.r1} r2={best.r2}"
        return f"<Solution {configuration}: {human_us(best.makespan_us)}, {proof}>"

    @property
    def lower_bound_us(self) -> float:
        if not self.max_tokens_per_s:
            return 0.0
        tokens = self.problem.total_tokens_per_sample * self.best.m_a * self.best.r1
        return 1e6 * tokens / self.max_tokens_per_s

    @property
    def gap_pct(self) -> float:
        """By how much the best configuration may exceed the optimum."""
        if not self.lower_bound_us:
            return 0.0
        return max(0.0, 100 * (self.best.makespan_us / self.lower_bound_us - 1))

    @property
    def table(self) -> pd.DataFrame:
        """A row for the best configuration, then one for each runner-up, with the keys of `simdep
        solve --json`."""
        import pandas as pd  # not needed to solve

        return pd.DataFrame([choice.to_dict() for choice in (self.best, *self.runner_up)])

    @property
    def stages(self) -> StageTable:
        """The stage times of the best configuration."""
        return self.problem.stages.table(np.array([self.best.m_a]), np.array([self.best.r2]))

    @property
    def sequence(self) -> tuple[Sequenced, ...]:
        """The AG's stream of the best configuration."""
        layers, r1 = self.problem.layers, self.best.r1
        if self.best.order == Order.LOOKAHEAD:
            return best_order(self.stages, layers, r1)
        return in_every_layer(parse_order(self.best.order, r1), layers)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        stages = self.stages
        best = self.best.to_dict() | {
            "samples": self.best.m_a * self.best.r1,
            "attention_us": float(stages.attention[-1, 0]),
            "shared_us": float(stages.shared[0]),
            "chunks": _chunks(stages),
        }
        if self.best.order == Order.LOOKAHEAD:
            names = [f"{kind.value}[{layer}.{mb}]" for kind, layer, mb in self.sequence]
            best["ag_order"] = " ".join(names)
        return {
            "best": best,
            "makespan_us": self.best.makespan_us,
            "throughput_tokens_per_s": best["throughput_tokens_per_s"],
            "lower_bound_us": self.lower_bound_us,
            "gap_pct": self.gap_pct,
            "evaluated": self.evaluated,
            "configurations": self.configurations,
            "solve_ms": self.solve_ms,
            "method": self.method,
            "runner_up": [configuration.to_dict() for configuration in self.runner_up],
            "assumptions": assumption_sentences(self.problem.assumptions),
        }


def solve(
    problem: Problem | Scenario,
    method: str = "exact",
    *,
    max_r1: int | None = None,
    max_r2: int | None = None,
) -> Solution:
    """The best configuration of a problem, or of a scenario.

    A scenario keeps the samples that it states; its policy and granularity are left aside. r1 and
    r2 are at most `MAX_R1` and `MAX_R2` for a scenario, any with stage costs alone. Raises
    ValueError for an unknown method and for too many configurations, InfeasibleError where not
    even one micro-batch of one sample fits.
    """
    if isinstance(problem, Scenario):
        samples = problem.workload.samples if states_samples(problem) else None
        problem = Problem.of(problem, samples)
    return solve_splits([problem], method, max_r1=max_r1, max_r2=max_r2)


def solve_splits(
    problems: Sequence[Problem],
    method: str = "exact",
    *,
    max_r1: int | None = None,
    max_r2: int | None = None,
) -> Solution:
    """The best configuration of several problems, such as the splits of some GPUs, and the proof
    over all of them; raises as `solve`."""
    checks.known(method, METHODS, "method")
    started = time.perf_counter()
    spaces = []
    for problem in problems:
        any_count = checks.MAX_INTEGER
        limits = (any_count, any_count) if problem.scenario is None else (MAX_R1, MAX_R2)
        r1 = checks.integer(limits[0] if max_r1 is None else max_r1, "max_r1")
        r2 = checks.integer(limits[1] if max_r2 is None else max_r2, "max_r2")
        spaces.append(Space(problem, r1, r2))
    configurations = sum(space.count for space in spaces)
    if not configurations:
        raise InfeasibleError("\n".join(_missing_memory(spaces)))
    search = Search(spaces)
    if method == "exact":
        search.exact()
    else:
        search.algorithm1()
    ranked = search.ranked()
    best, *runner_up = [_configuration(candidates, at) for candidates, at in ranked]
    return Solution(
        problem=ranked[0][0].space.problem,
        method=method,
        best=best,
        runner_up=tuple(runner_up),
        max_tokens_per_s=search.max_rate if np.isfinite(search.max_rate) else 0.0,
        evaluated=search.evaluated,
        configurations=configurations,
        solve_ms=1e3 * (time.perf_counter() - started),
    )


def _configuration(candidates: Candidates, at: int) -> Configuration:
    problem, scenario = candidates.space.problem, candidates.space.problem.scenario
    m_a, r1, r2 = (int(column[at]) for column in (candidates.m_a, candidates.r1, candidates.r2))
    order, rate = candidates.best_order(at), float(candidates.best[at])
    return Configuration(
        policy="lookahead" if order is Order.LOOKAHEAD else "findep",
        order=order.value,
        m_a=m_a,
        r1=r1,
        r2=r2,
        m_e=m_a * problem.tokens_per_sample / r2 * problem.expert_share,
        makespan_us=1e6 * problem.total_tokens_per_sample * r1 * m_a / rate,
        throughput_tokens_per_s=rate,
        ag=scenario.deployment.ag if scenario else None,
        eg=scenario.deployment.eg if scenario else None,
    )


def _chunks(stages: StageTable) -> list[dict[str, float]]:
    """The runs of equal chunks of one configuration: how many, and microseconds of each stage."""
    runs = []
    for n, a2e, expert, e2a in zip(
        stages.counts[:, 0], stages.a2e[:, 0], stages.expert[:, 0], stages.e2a[:, 0], strict=True
    ):
        if n:
            times = {"a2e": float(a2e), "expert": float(expert), "e2a": float(e2a)}
            runs.append({"n": int(n), **times})
    return runs


def _missing_memory(spaces: Sequence[Space]) -> list[str]:
    """Why no configuration fits, and what would: of the space that lacks least."""
    smallest = [_smallest(space) for space in spaces]
    nearest = min(smallest, key=lambda scenario: memory(scenario).missing_bytes)
    deployment, samples = nearest.deployment, nearest.workload.samples
    gpus = f"{deployment.ag}+{deployment.eg} GPUs"
    head = f"no configuration of {samples} {'sample' if samples == 1 else 'samples'} fits"
    if len(spaces) > 1:
        head += f" any of {len(spaces)} splits; nearest is {gpus}"
    else:
        head += f" {gpus}"
    return [head, *explanation(nearest)]


def _smallest(space: Space) -> Scenario:
    """What needs least memory: one sample or the given ones, in as small parts as are searched."""
    scenario, samples = space.problem.scenario, space.problem.samples
    assert scenario is not None, "without a memory limit something fits"
    m_a = int(space.m_a[0]) if samples else 1
    r2 = int(space.max_chunks(np.array([m_a]))[0])
    workload = replace(scenario.workload, samples=samples or 1)
    return replace(scenario, workload=workload, r1=workload.samples // m_a, r2=r2)
