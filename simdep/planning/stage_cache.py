"""Stage times of scenarios by m_a and r2: the one table that solver and sweeps work on.

A cache computes what a task costs once for every number of tokens, for all scenarios that agree in
what it depends on: attention of two splits of the GPUs, or experts beside two links, are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdep.arrays import Array, IntArray
from simdep.hardware.profile import STAGE_OPERATIONS
from simdep.scenario.estimates import CostEvidence
from simdep.scenario.memory import Footprint
from simdep.scenario.spec import Scenario
from simdep.scenario.task_costs import ScenarioCosts
from simdep.schedule import Kind
from simdep.simulation.stage_table import StageTable

Compute = Callable[[Any], Any]  # tokens -> microseconds, of numbers and of arrays
Positions = NDArray[np.intp]
MAX_KNOWN = 50_000  # numbers of tokens whose times are kept for a kind of task
MAX_SCENARIOS = 1000  # whose stages are kept
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
class LayerTimes:
    """Attention of every layer: an entry of `times` for each class of layers that cost the same,
    and the class of every layer."""

    times: Sequence[TaskTimes]
    classes: Sequence[int]

    def __call__(self, tokens: Array) -> Array:
        """Microseconds [layers, n]; [1, n] where all layers are alike."""
        us = np.array([times(tokens) for times in self.times])
        if len(us) == 1 or (us == us[0]).all():
            return us[:1]
        return us[list(self.classes)]


@dataclass(frozen=True)
class ScenarioStages:
    """Stage times of a scenario whose ranks are alike and whose groups are not colocated, and what
    it needs of memory. `chunk` maps A2E, EXPERT and E2A; `has_overheads` says whether hosts add
    anything to the paper's model."""

    scenario: Scenario
    costs: ScenarioCosts
    footprint: Footprint
    attention: LayerTimes
    shared: Compute | None
    chunk: dict[Kind, Compute]
    has_overheads: bool

    def table(self, m_a: IntArray, r2: IntArray) -> StageTable:
        """Stage times of configurations m_a and r2 [n]; see `joint_table`."""
        return joint_table([(self, np.arange(len(m_a)))], m_a, r2)

    def ag_us(self, m_a: IntArray) -> Array:
        """What a micro-batch takes of the AG in all layers [n]."""
        tokens = (m_a * self.scenario.workload.tokens_per_sample).astype(float)
        attention, layers = self.attention(tokens), self.scenario.layers
        alike = layers // len(attention)  # layers that a row stands for
        us: Array = alike * attention.sum(axis=0)
        if self.shared is not None and self.scenario.deployment.shared_on == "ag":
            us += layers * self.shared(tokens)
        return us


def joint_table(
    members: Sequence[tuple[ScenarioStages, Positions]], m_a: IntArray, r2: IntArray
) -> StageTable:
    """Stage times of configurations m_a and r2 [n] of scenarios with as many layers, each with its
    columns; shared experts are on one group in all of them.

    Chunks are as equal as whole tokens allow. Shared experts on the EG stand right before the last
    chunk there, need its A2E, and go home with it.
    """
    tokens_per_sample = np.empty(len(m_a), int)
    for stages, columns in members:
        tokens_per_sample[columns] = stages.scenario.workload.tokens_per_sample
    on_eg = members[0][0].scenario.deployment.shared_on == "eg"
    tokens = m_a * tokens_per_sample
    size, longer = np.divmod(tokens, r2)
    if on_eg:
        counts = np.stack([longer, r2 - longer - 1, np.ones_like(r2)])
        chunk_tokens = np.stack([size + 1, size, size])
    else:
        counts = np.stack([longer, r2 - longer])
        chunk_tokens = np.stack([size + 1, size])
    batch_tokens = tokens.astype(float)
    attention = _attention_us(members, batch_tokens)
    shared = np.zeros(len(m_a))
    for times, columns in _merged((stages.shared, columns) for stages, columns in members):
        shared[columns] = times(batch_tokens[columns])
    chunks = {}
    for kind in CHUNK_KINDS:
        us = np.zeros(counts.shape)
        for times, columns in _merged((stages.chunk[kind], columns) for stages, columns in members):
            used = counts[:, columns] > 0
            part = np.zeros(used.shape)
            part[used] = times(chunk_tokens[:, columns][used].astype(float))
            us[:, columns] = part
        chunks[kind] = us
    if on_eg:
        chunks[Kind.EXPERT][-1] += shared
        shared = np.zeros(len(m_a))
    return StageTable(
        attention=attention,
        shared=shared,
        counts=counts.astype(float),
        a2e=chunks[Kind.A2E],
        expert=chunks[Kind.EXPERT],
        e2a=chunks[Kind.E2A],
    ).trimmed


def _attention_us(members: Sequence[tuple[ScenarioStages, Positions]], tokens: Array) -> Array:
    """Microseconds of attention [layers, n], or [1, n] where layers are alike in all columns."""
    parts = []
    for times, columns in _merged((stages.attention, columns) for stages, columns in members):
        parts.append((times(tokens[columns]), columns))
    us = np.empty((max(len(part) for part, _ in parts), len(tokens)))
    for part, columns in parts:
        us[:, columns] = part
    return us


def _merged(
    uses: Iterable[tuple[Callable[[Array], Array] | None, Positions]],
) -> list[tuple[Callable[[Array], Array], Positions]]:
    """Times with all columns that use them, so that each is asked once."""
    merged: dict[int, tuple[Callable[[Array], Array], list[Positions]]] = {}
    for times, columns in uses:
        if times is not None:
            merged.setdefault(id(times), (times, []))[1].append(columns)
    return [
        (times, columns[0] if len(columns) == 1 else np.concatenate(columns))
        for times, columns in merged.values()
    ]


class StageCache:
    """The stage times of any number of scenarios, each cost of a task computed once; `evidence` is
    what they rest on."""

    def __init__(self) -> None:
        self.evidence = CostEvidence()
        self._stages: dict[Hashable, ScenarioStages] = {}
        self._known: dict[Hashable, Any] = {}  # what several scenarios share

    def stages(self, scenario: Scenario) -> ScenarioStages:
        """The stage times of a scenario; its own policy and granularity are left aside."""
        keys = _Keys.of(scenario)
        if keys.scenario not in self._stages:
            if len(self._stages) == MAX_SCENARIOS:
                self._stages.clear()
            self._stages[keys.scenario] = self._computed(undivided(scenario), keys)
        return self._stages[keys.scenario]

    def _computed(self, scenario: Scenario, keys: _Keys) -> ScenarioStages:
        costs = ScenarioCosts(scenario, self.evidence)
        shared = None
        if scenario.model.has_shared:
            shared = self._task(keys.shared, costs.shared)
        layers = (keys.attention, scenario.layers)
        return ScenarioStages(
            scenario=scenario,
            costs=costs,
            footprint=self._once(keys.memory, lambda: Footprint.of(scenario)),
            attention=self._once(layers, lambda: self._layers(costs, keys)),
            shared=shared,
            chunk={
                # A line of the bytes: computed in less time than looked up
                Kind.A2E: partial(costs.transfer, Kind.A2E),
                Kind.EXPERT: self._task(keys.expert, costs.expert),
                Kind.E2A: partial(costs.transfer, Kind.E2A),
            },
            has_overheads=self._once(keys.host, lambda: bool(costs.host.terms)),
        )

    def _layers(self, costs: ScenarioCosts, keys: _Keys) -> LayerTimes:
        names = [costs.attention_class(layer) for layer in range(costs.scenario.layers)]
        distinct = list(dict.fromkeys(names))
        times = []
        for name in distinct:
            compute = partial(costs.us, Kind.ATTENTION, layer=names.index(name))
            times.append(self._task((keys.attention, name), compute))
        return LayerTimes(times, [distinct.index(name) for name in names])

    def _task(self, key: Hashable, compute: Compute) -> TaskTimes:
        times: TaskTimes = self._once(key, lambda: TaskTimes(compute))
        return times

    def _once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]


def undivided(scenario: Scenario) -> Scenario:
    """The scenario in one micro-batch and one chunk."""
    return replace(scenario, micro_batches=(), chunks=(), merge_last=False, r1=1, r2=1)


@dataclass(frozen=True)
class _Keys:
    """What each kind of task depends on besides its tokens, and what memory depends on; `scenario`
    is all that a `ScenarioStages` depends on."""

    attention: Hashable
    shared: Hashable
    expert: Hashable
    host: Hashable
    memory: Hashable
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
        traffic = (deployment.dispatch, deployment.a2e_dtype, deployment.e2a_dtype)
        transport = deployment.transport
        link = (deployment.link, transport, deployment.link_class, deployment.duplex)
        memory = (computing, gpus, traffic, scenario.layers, deployment.memory_gbytes)
        has_split = any(cost.ag and cost.op in STAGE_OPERATIONS for cost in hardware.costs)
        shared_has_split = has_split or deployment.shared_on == "eg"
        return cls(
            attention=(Kind.ATTENTION, computing, gpus if has_split else None),
            shared=(Kind.SHARED, computing, gpus if shared_has_split else None),
            expert=(Kind.EXPERT, computing, gpus, deployment.expert_gemm),
            host=("host", id(hardware), gpus, transport, deployment.contention, deployment.duplex),
            memory=("memory", memory),
            scenario=(link, memory, deployment.expert_gemm, deployment.contention),
        )
