"""A problem: what the solver may choose from, and the stage times of every choice.

A choice is a pipeline configuration: r1 micro-batches of m_a samples, each in r2 chunks, on every
AG GPU. With stage costs alone chunks are equal, m_a K / r2 tokens each; in a scenario they are as
equal as whole tokens allow: at most two runs of equal chunks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from simdep import checks
from simdep.arrays import Array, IntArray
from simdep.checks import InputError
from simdep.costs import StageCosts
from simdep.hardware.extrapolation import Assumption
from simdep.planning.stage_cache import StageCache, undivided
from simdep.scenario.memory import Footprint
from simdep.scenario.spec import Scenario
from simdep.scenario.task_costs import ScenarioCosts
from simdep.simulation.stage_table import StageTable


class StageSource(Protocol):
    """Where stage times come from, by samples of a micro-batch and chunks; arrays [n], in
    microseconds."""

    def table(self, m_a: IntArray, r2: IntArray) -> StageTable:
        """Stage times of configurations m_a and r2."""

    def ag_us(self, m_a: IntArray) -> Array:
        """What a micro-batch takes of the AG in all layers."""


@dataclass(frozen=True)
class LineStages:
    """The stage times of lines (`StageCosts`); chunks are equal, their tokens whole or not."""

    costs: StageCosts
    layers: int

    def table(self, m_a: IntArray, r2: IntArray) -> StageTable:
        tokens = (m_a * self.costs.tokens_per_sample / r2)[None]
        link = self.costs.link(tokens)
        return StageTable(
            attention=self.costs.attention(m_a.astype(np.float64))[None],
            shared=self._shared_us(m_a),
            counts=r2[None].astype(float),
            a2e=link,
            expert=self.costs.expert(tokens),
            e2a=link,
        )

    def ag_us(self, m_a: IntArray) -> Array:
        attention_us = self.costs.attention(m_a.astype(np.float64))
        return self.layers * (attention_us + self._shared_us(m_a))

    def _shared_us(self, m_a: IntArray) -> Array:
        if not self.costs.has_shared:
            return np.zeros(len(m_a))
        return self.costs.shared(m_a.astype(np.float64))


@dataclass(frozen=True)
class Problem:
    """What is to be partitioned and ordered.

    `samples` of an AG GPU are fixed, or None: any number that fits `footprint`. A sample of an AG
    GPU counts `total_tokens_per_sample` tokens of throughput; of the tokens of a chunk, an expert
    gets the `expert_share`.
    """

    layers: int
    samples: int | None
    tokens_per_sample: int
    total_tokens_per_sample: int
    expert_share: float
    stages: StageSource
    footprint: Footprint | None = None
    scenario: Scenario | None = None
    costs: ScenarioCosts | None = field(default=None, repr=False, compare=False)

    @classmethod
    def bare(cls, costs: StageCosts, layers: int, samples: int) -> Problem:
        """Stage costs alone: `samples` samples in r1 micro-batches, chunks of m_a K / r2 tokens,
        whole or not."""
        tokens, layers = costs.tokens_per_sample, checks.integer(layers, "layers")
        return cls(
            layers=layers,
            samples=checks.integer(samples, "samples"),
            tokens_per_sample=tokens,
            total_tokens_per_sample=tokens,
            expert_share=1,
            stages=LineStages(costs, layers),
        )

    @classmethod
    def of(
        cls,
        scenario: Scenario,
        samples: int | None = None,
        *,
        ideal: bool = False,
        cache: StageCache | None = None,
    ) -> Problem:
        """A scenario's model, hardware and workload; its own policy and granularity are left aside.

        Problems with one `cache` share the costs of tasks. Raises InputError for what the solver
        does not model: host overheads (unless `ideal`), ranks that differ, groups of experts,
        colocated groups.
        """
        _check_modelled(scenario)
        stages = (cache or StageCache()).stages(scenario)
        scenario = undivided(scenario)
        host = stages.costs.host
        (host.ideal if ideal else host).refuse("the solver")
        deployment, model = scenario.deployment, scenario.model
        return cls(
            layers=scenario.layers,
            samples=samples,
            tokens_per_sample=scenario.workload.tokens_per_sample,
            total_tokens_per_sample=scenario.workload.tokens_per_sample * deployment.ag,
            expert_share=deployment.ag * model.top_k / model.experts,
            stages=stages,
            footprint=stages.footprint,
            scenario=scenario,
            costs=stages.costs,
        )

    @property
    def assumptions(self) -> list[Assumption]:
        """What the costs rest on that were asked for so far, besides measurements."""
        return [] if self.costs is None else self.costs.assumptions

    def r1_range(self, m_a: IntArray, r2: IntArray, max_r1: int) -> tuple[IntArray, IntArray]:
        """The fewest and the most micro-batches of m_a samples in r2 chunks that the samples and
        memory allow; none where the most are fewer than the fewest."""
        if self.footprint is None:
            fitting = np.full_like(m_a, max_r1)
        else:
            fitting = np.minimum(self.footprint.largest_r1(m_a, r2), max_r1)
        if self.samples is None:
            return np.ones_like(m_a), fitting
        r1 = self.samples // m_a
        return r1, np.where(fitting >= r1, r1, 0)

    def micro_batches(self, max_r1: int, max_r2: int, max_count: int) -> IntArray:
        """Every m_a, smallest first: what fits once, or divides the fixed samples.

        Raises InputError where neither samples nor memory limit it, and for over `max_count`.
        """
        if self.samples is None:
            assert self.footprint is not None, "without memory samples are fixed"
            largest = self.footprint.largest_m_a(max_r2)
            if largest > max_count:
                raise InputError(
                    f"memory allows m_a up to {largest:,}; at most {max_count:,} are searched: "
                    "set --samples"
                )
            return np.arange(1, largest + 1)
        r1 = [count for count in _divisors(self.samples) if count <= max_r1]
        return self.samples // np.array(r1[::-1])


def _check_modelled(scenario: Scenario) -> None:
    """Raise ValueError for what the solver does not model."""
    not_modelled = {
        "stage times given by hand": scenario.stage_times is not None,
        "ranks that differ": scenario.ranks is not None,
        "colocated groups": scenario.deployment.colocated,
        "groups of experts": scenario.split == "expert",
    }
    for name, used in not_modelled.items():
        if used:
            raise InputError(f"solve does not model {name}; use simulate or compare")


def _divisors(number: int) -> list[int]:
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})
