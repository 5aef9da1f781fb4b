"""Stage times of scenarios by m_a and r2: the one table that solver and sweeps work on.

A cache computes what a task costs once for every number of tokens, for all scenarios that agree in
what it depends on: attention of two splits of the GPUs, or experts beside two links, are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdep.hardware.profile import STAGE_OPERATIONS
from simdep.scenario.estimates import CostEvidence
from simdep.scenario.memory import Integers
from simdep.scenario.spec import Scenario
from simdep.scenario.task_costs import ScenarioCosts
from simdep.schedule import Kind
from simdep.simulation.stage_table import Array, StageTable

Compute = Callable[[Any], Any]  # tokens -> microseconds, of numbers and of arrays
MAX_KNOWN = 50_000  # numbers of tokens whose times are kept for a kind of task
CHUNK_KINDS = (Kind.A2E, Kind.EXPERT, Kind.E2A)


@dataclass
class TaskTimes:
    """Microseconds of one kind of task by its tokens.

    Each number of tokens is computed once while fewer than `MAX_KNOWN` are known.
    """

    compute: Compute
    tokens: Array = field(default_factory=lambda: np.empty(0))
    us: Array = field(default_factory=lambda: np.empty(0))

    def __call__(self, tokens: Array) -> Array:
        places, known = self._places(tokens)
        if known.all():
            return self.us[places]
        new = np.unique(tokens[~known])
        us = np.broadcast_to(self.compute(new), new.shape)
        if len(self.tokens) + len(new) <= MAX_KNOWN:
            at = np.searchsorted(self.tokens, new)
            self.tokens, self.us = np.insert(self.tokens, at, new), np.insert(self.us, at, us)
            return self.us[np.searchsorted(self.tokens, tokens)]
        found = np.empty(len(tokens))
        found[known] = self.us[places[known]]
        found[~known] = us[np.searchsorted(new, tokens[~known])]
        return found

    def _places(self, tokens: Array) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Where numbers of tokens stand, and whether they are known."""
        places = np.searchsorted(self.tokens, tokens)
        known = places < len(self.tokens)
        known[known] = self.tokens[places[known]] == tokens[known]
        return places, known


@dataclass(frozen=True)
class ScenarioStages:
    """Stage times of a scenario whose ranks are alike and whose groups are not colocated.

    `attention` has an entry for each class of layers that cost the same, `layer_classes` the class
    of every layer; `chunk` maps A2E, EXPERT and E2A.
    """

    scenario: Scenario
    costs: ScenarioCosts
    attention: Sequence[TaskTimes]
    layer_classes: Sequence[int]
    shared: TaskTimes | None
    chunk: dict[Kind, TaskTimes]

    def table(self, m_a: Integers, r2: Integers) -> StageTable:
        """Stage times of configurations m_a and r2 [n], chunks as equal as whole tokens allow.

        Shared experts on the EG stand right before the last chunk there, need its A2E, and go home
        with it.
        """
        tokens = m_a * self.scenario.workload.tokens_per_sample
        attention, shared = self._attention_us(m_a), self._shared_us(m_a)
        size, longer = np.divmod(tokens, r2)
        if self.scenario.deployment.shared_on == "ag":
            counts = np.stack([longer, r2 - longer])
            chunk_tokens = np.stack([size + 1, size])
        else:
            counts = np.stack([longer, r2 - longer - 1, np.ones_like(r2)])
            chunk_tokens = np.stack([size + 1, size, size])
        a2e, expert, e2a = (self._chunk_us(kind, counts, chunk_tokens) for kind in CHUNK_KINDS)
        if self.scenario.deployment.shared_on == "eg":
            expert[-1] = shared + expert[-1]
            shared = np.zeros_like(shared)
        return StageTable(attention, shared, counts.astype(float), a2e, expert, e2a).trimmed

    def ag_us(self, m_a: Integers) -> Array:
        """What a micro-batch takes of the AG in all layers [n]."""
        attention, layers = self._attention_us(m_a), self.scenario.layers
        alike = layers // len(attention)  # layers that a row stands for
        us: Array = alike * attention.sum(axis=0)
        if self.scenario.deployment.shared_on == "ag":
            us += layers * self._shared_us(m_a)
        return us

    def _attention_us(self, m_a: Integers) -> Array:
        """Microseconds of an attention [layers, n]; [1, n] where all layers are alike."""
        tokens = self._tokens(m_a)
        rows = np.array([times(tokens) for times in self.attention])
        if (rows == rows[0]).all():
            return rows[:1]
        return rows[list(self.layer_classes)]

    def _shared_us(self, m_a: Integers) -> Array:
        """Microseconds of the shared experts of a micro-batch [n]; 0 where there are none."""
        if self.shared is None:
            return np.zeros(len(m_a))
        return self.shared(self._tokens(m_a))

    def _tokens(self, m_a: Integers) -> Array:
        return (m_a * self.scenario.workload.tokens_per_sample).astype(float)

    def _chunk_us(self, kind: Kind, counts: Integers, tokens: Integers) -> Array:
        """Microseconds of a chunk of every run [runs, n], 0 where a run is empty."""
        used = counts > 0
        us = np.zeros(counts.shape)
        us[used] = self.chunk[kind](tokens[used].astype(float))
        return us


class StageCache:
    """The stage times of any number of scenarios, each cost of a task computed once; `evidence` is
    what they rest on."""

    def __init__(self) -> None:
        self.evidence = CostEvidence()
        self._stages: dict[Hashable, ScenarioStages] = {}
        self._times: dict[Hashable, TaskTimes] = {}

    def stages(self, scenario: Scenario) -> ScenarioStages:
        """The stage times of a scenario; its own policy and granularity are left aside."""
        keys = _Keys.of(scenario)
        if keys.scenario not in self._stages:
            self._stages[keys.scenario] = self._computed(scenario, keys)
        return self._stages[keys.scenario]

    def _computed(self, scenario: Scenario, keys: _Keys) -> ScenarioStages:
        costs = ScenarioCosts(scenario, self.evidence)
        first_layers: dict[Hashable, int] = {}
        for layer in range(scenario.layers):
            first_layers.setdefault(costs.attention_class(layer), layer)
        classes = list(first_layers)
        return ScenarioStages(
            scenario=scenario,
            costs=costs,
            attention=[
                self._task((keys.attention, name), partial(costs.us, Kind.ATTENTION, layer=layer))
                for name, layer in first_layers.items()
            ],
            layer_classes=[
                classes.index(costs.attention_class(layer)) for layer in range(scenario.layers)
            ],
            shared=self._task(keys.shared, costs.shared) if scenario.model.has_shared else None,
            chunk={
                Kind.A2E: self._task((keys.link, Kind.A2E), partial(costs.transfer, Kind.A2E)),
                Kind.EXPERT: self._task(keys.expert, costs.expert),
                Kind.E2A: self._task((keys.link, Kind.E2A), partial(costs.transfer, Kind.E2A)),
            },
        )

    def _task(self, key: Hashable, compute: Compute) -> TaskTimes:
        return self._times.setdefault(key, TaskTimes(compute))


@dataclass(frozen=True)
class _Keys:
    """What each kind of task depends on besides its tokens; `scenario` is all of it."""

    attention: Hashable
    shared: Hashable
    expert: Hashable
    link: Hashable
    scenario: Hashable

    @classmethod
    def of(cls, scenario: Scenario) -> _Keys:
        deployment, load = scenario.deployment, scenario.workload
        hardware, gpus = deployment.hardware, (deployment.ag, deployment.eg)
        computing = (
            id(hardware),
            scenario.model,
            load.phase,
            load.seq_len,
            load.dtype,
            deployment.comm_sms,
            deployment.comm_sms_from,
            deployment.shared_on,
        )
        has_split = any(cost.ag and cost.op in STAGE_OPERATIONS for cost in hardware.costs)
        shared_has_split = has_split or deployment.shared_on == "eg"
        link = (
            computing,
            gpus,
            deployment.link,
            deployment.transport,
            deployment.link_class,
            deployment.dispatch,
            deployment.a2e_dtype,
            deployment.e2a_dtype,
        )
        return cls(
            attention=(Kind.ATTENTION, computing, gpus if has_split else None),
            shared=(Kind.SHARED, computing, gpus if shared_has_split else None),
            expert=(Kind.EXPERT, computing, gpus, deployment.expert_gemm),
            link=link,
            scenario=(link, deployment.expert_gemm, scenario.layers),
        )
