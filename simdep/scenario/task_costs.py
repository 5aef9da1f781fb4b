"""Costs of a scenario: the work of a task from the model (FinDEP, Eq. 1-4), its time from the
hardware profile.

Each kind of task has its cost sources in order, and the first that has data answers: a measured
stage, a measured expert, kernels of the operations, lines of their multiply-accumulates. Times are
microseconds; tokens are a number, whole or not, or an array of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from typing import Any, TypeVar

from simdep.arrays import Array
from simdep.costs import Costs, HostOverheads
from simdep.hardware.extrapolation import Assumption
from simdep.hardware.profile import Cost
from simdep.scenario import work
from simdep.scenario.compute_costs import AttentionCosts, ExpertCosts
from simdep.scenario.estimates import NOTHING, CostBasis, CostEvidence, Estimate
from simdep.scenario.link_costs import LinkCosts
from simdep.scenario.operation_costs import OperationCosts
from simdep.scenario.spec import Scenario
from simdep.schedule import Kind, Task

Tokens = TypeVar("Tokens", float, Array)
# (tokens, layer, groups of experts) -> estimate, or None without data
CostSource = Callable[[Any, int, int], Estimate | None]
_OPENS_LAYER = (Kind.ATTENTION, Kind.PROJECTION)
_ATTENDS = (*_OPENS_LAYER, Kind.CORE)


def task_costs(scenario: Scenario) -> Costs:
    """The costs of the tasks of a scenario: its stage times, else those of its hardware profile."""
    return ScenarioCosts(scenario) if scenario.stage_times is None else scenario.stage_times


class ScenarioCosts:
    """Task times of a scenario on its hardware profile, and what they rest on (`evidence`).

    Calling it with a task gives microseconds; each distinct task is estimated once. Raises
    ValueError where the profile lacks a cost that a task needs.
    """

    def __init__(self, scenario: Scenario, evidence: CostEvidence | None = None) -> None:
        self.scenario = scenario
        self.evidence = CostEvidence() if evidence is None else evidence
        self.links = LinkCosts(scenario)
        self._operations = OperationCosts(scenario)
        self._attention = AttentionCosts(scenario, self._operations)
        self._experts = ExpertCosts(scenario, self._operations)
        self._known_us: dict[tuple[Any, ...], float] = {}

    def __call__(self, task: Task) -> float:
        return self.task_us(task.kind, task.tokens, task.layer, task.groups)

    def task_us(self, kind: Kind, tokens: float, layer: int = 0, groups: int = 1) -> float:
        """Microseconds of one task."""
        layer_class = self.attention_class(layer) if kind in _ATTENDS else None
        key = (kind, tokens, layer_class, groups)
        if key not in self._known_us:
            self._known_us[key] = self.us(kind, tokens, layer, groups)
        return self._known_us[key]

    def us(self, kind: Kind, tokens: Tokens, layer: int = 0, groups: int = 1) -> Tokens:
        """Microseconds of the tasks of a kind on an array of tokens of an AG GPU.

        `layer` counts layers with experts; `groups` are the groups of experts that chunks are cut
        into, where they are cut by expert.
        """
        us: Tokens = self._first(self._sources(kind), tokens, layer, groups)
        return us + self.combine(tokens) if layer and kind in _OPENS_LAYER else us

    def attention_class(self, layer: int) -> tuple[bool, tuple[int, ...]]:
        """What the attention of a layer depends on besides its tokens: layers of one class take as
        long."""
        return self._attention.layer_class(layer)

    def attention(self, tokens: Tokens, layer: int = 0) -> Tokens:
        """Attention of a layer alone, without `combine`."""
        us: Tokens = self._first(self._sources(Kind.ATTENTION), tokens, layer, 1)
        return us

    def combine(self, tokens: Tokens) -> Tokens:
        """What gathering the rows that came back adds to attention from the second layer on; 0
        unless measured."""
        estimate = self._attention.combine(tokens)
        us: Tokens = self._noted(NOTHING if estimate is None else estimate)
        return us

    def shared(self, tokens: Tokens) -> Tokens:
        """Shared experts of `tokens` tokens."""
        return self.us(Kind.SHARED, tokens)

    def expert(self, tokens: Tokens, groups: int = 1) -> Tokens:
        """Routed experts of an EG GPU on a chunk of `tokens` tokens of every AG GPU, or one of
        `groups` groups of them with the rows that it gets of all tokens."""
        return self.us(Kind.EXPERT, tokens, groups=groups)

    def transfer(self, kind: Kind, tokens: Tokens, groups: int = 1) -> Tokens:
        """A2E or E2A of a chunk of `tokens` tokens of every AG GPU."""
        return self.us(kind, tokens, groups=groups)

    def transfer_bytes(
        self, tokens: Tokens, kind: Kind = Kind.A2E, *, busier: bool = False, groups: int = 1
    ) -> Tokens:
        """See `LinkCosts.bytes`."""
        size: Tokens = self.links.bytes(tokens, kind, busier=busier, groups=groups)
        return size

    def products(self, products: Iterable[work.Product]) -> float:
        """Matrix products of attention or shared experts, one after the other."""
        us: float = self._noted(self._operations.products(products, self._operations.slowdown))
        return us

    def link(self, kind: Kind) -> Cost:
        """The cost of a direction."""
        return self.links.by_kind[kind]

    @property
    def host(self) -> HostOverheads:
        """What the hosts of the profile add to the paper's model."""
        return self.links.host

    @property
    def assumptions(self) -> list[Assumption]:
        """The links that the profile has neither measured nor published, and the costs that were
        used beyond the range that they were measured on."""
        return [*self.links.assumptions, *self.evidence.extrapolations]

    @property
    def basis(self) -> list[CostBasis]:
        """What the times that were asked for rest on, the links in any case."""
        sources = dict(self.evidence.sources)
        for link in self.links.by_kind.values():
            sources[link.op] = link
        return CostEvidence(sources).costs

    def _sources(self, kind: Kind) -> tuple[CostSource, ...]:
        if kind.is_transfer:
            return (partial(self.links.message, kind),)
        return self._computations[kind]

    @cached_property
    def _computations(self) -> Mapping[Kind, tuple[CostSource, ...]]:
        attention, experts = self._attention, self._experts
        computed: dict[str, tuple[CostSource, ...]] = {
            "grouped": (experts.one_by_one, experts.grouped, experts.plain),
            "plain": (experts.plain,),
            "cheaper": (experts.cheaper,),
        }
        expert_gemm = self.scenario.deployment.expert_gemm
        return {
            Kind.ATTENTION: (attention.measured, attention.whole),
            Kind.PROJECTION: (attention.projections,),
            Kind.CORE: (attention.core,),
            Kind.SHARED: (experts.measured_shared, experts.shared),
            Kind.EXPERT: (experts.measured, *computed[expert_gemm]),
        }

    def _first(self, sources: Iterable[CostSource], tokens: Any, layer: int, groups: int) -> Any:
        """Microseconds of the first source that has data; the last one of a kind always has."""
        for source in sources:
            estimate = source(tokens, layer, groups)
            if estimate is not None:
                return self._noted(estimate)
        raise AssertionError("the last source answers or raises InputError")

    def _noted(self, estimate: Estimate) -> Any:
        self.evidence.add(estimate)
        return estimate.us
