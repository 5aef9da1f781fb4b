"""Cost sources of computation: attention, shared experts, routed experts.

A source gives the estimate of a task on `tokens` tokens (a number or an array) of an AG GPU, None
where it has no data. Microseconds.
"""

from __future__ import annotations

from typing import Any

from simdep.checks import InputError
from simdep.scenario import work
from simdep.scenario.estimates import Estimate, total
from simdep.scenario.operation_costs import OperationCosts
from simdep.scenario.spec import Scenario


class AttentionCosts:
    """Attention of a layer with experts, whole or in two halves.

    Dense layers that stand before it are part of it. Layers with experts count from 0.
    """

    def __init__(self, scenario: Scenario, operations: OperationCosts) -> None:
        self.scenario, self.operations = scenario, operations

    def measured(self, tokens: Any, layer: int, groups: int = 1) -> Estimate | None:
        """Measured as a whole."""
        return self.operations.stage("attention", tokens)

    def combine(self, tokens: Any) -> Estimate | None:
        """What gathering the rows that came back adds from the second layer on, where measured."""
        return self.operations.stage("combine", tokens)

    def whole(self, tokens: Any, layer: int, groups: int = 1) -> Estimate:
        """Projections and core (t_a of FinDEP, with the model's own projections)."""
        own = self.model_layer(layer)
        return self._attention(tokens, own) + self._dense_before(tokens, own)

    def projections(self, tokens: Any, layer: int, groups: int = 1) -> Estimate:
        """The first half: dense layers that stand before it, then its projections.

        Raises InputError for a profile that measured attention as a whole.
        """
        self._check_halves(tokens)
        products = work.projections(self.scenario.model, tokens)[:-1]
        before = self.operations.products(products, self.operations.slowdown)
        return before + self._dense_before(tokens, self.model_layer(layer))

    def core(self, tokens: Any, layer: int, groups: int = 1) -> Estimate:
        """The second half: the core and the output projection; raises InputError as
        `projections`."""
        self._check_halves(tokens)
        products = work.projections(self.scenario.model, tokens)[-1:]
        output = self.operations.products(products, self.operations.slowdown)
        return self.operations.core(tokens, self.model_layer(layer)) + output

    def layer_class(self, layer: int) -> tuple[bool, tuple[int, ...]]:
        """Whether rows come back before a layer, and how far it and the dense layers before it
        attend: layers of one class take as long."""
        form, context = self.scenario.model.attention, self.scenario.workload.seq_len
        own = self.model_layer(layer)
        layers = range(own - self.scenario.model.moe_every + 1, own + 1)
        return layer > 0, tuple(form.span(each, context) for each in layers)

    def model_layer(self, layer: int) -> int:
        """The layer of the model that holds the experts of layer `layer` of the schedule."""
        model = self.scenario.model
        if model.moe_every > 1:
            return model.moe_every * (layer + 1) - 1
        return layer + model.dense_layers

    def _check_halves(self, tokens: Any) -> None:
        if self.measured(tokens, 0) is not None:
            name = self.operations.profile.name
            rule = "has measured attention as a whole, which a policy that cuts it can't use"
            raise InputError(f"hardware {name} {rule}")

    def _attention(self, tokens: Any, own: int) -> Estimate:
        products = work.projections(self.scenario.model, tokens)
        projections = self.operations.products(products, self.operations.slowdown)
        return projections + self.operations.core(tokens, own)

    def _dense_before(self, tokens: Any, own: int) -> Estimate:
        """Layers without experts between two layers with them, attention and feed-forward
        network."""
        model, operations = self.scenario.model, self.operations
        parts = []
        for before in range(own - model.moe_every + 1, own):
            products = work.dense(model, tokens, fused=operations.is_fused)
            network = operations.products(products, operations.slowdown)
            parts.append(self._attention(tokens, before) + network)
        return total(parts)


class ExpertCosts:
    """Shared experts, and routed experts of one EG GPU under balanced routing (FinDEP, Eq. 3)."""

    def __init__(self, scenario: Scenario, operations: OperationCosts) -> None:
        self.scenario, self.operations = scenario, operations

    def measured_shared(self, tokens: Any, layer: int = 0, groups: int = 1) -> Estimate | None:
        """Shared experts measured as a whole."""
        return self.operations.stage("shared", self._shared_tokens(tokens))

    def shared(self, tokens: Any, layer: int = 0, groups: int = 1) -> Estimate:
        """t_s = 3 N_shared t_gm(m_a S M H); two wide products on kernels."""
        operations, on_ag = self.operations, self.scenario.deployment.shared_on == "ag"
        tokens = self._shared_tokens(tokens)
        products = work.shared(self.scenario.model, tokens, fused=operations.is_fused)
        return operations.products(products, operations.slowdown if on_ag else 1.0)

    def measured(self, tokens: Any, layer: int = 0, groups: int = 1) -> Estimate | None:
        """All routed experts of a GPU, measured as a whole; raises InputError for one group of
        them."""
        estimate = self.operations.stage("expert", tokens)
        if estimate is not None and groups > 1:
            name = self.operations.profile.name
            rule = "has measured the experts of a layer as a whole; cut chunks by token"
            raise InputError(f"hardware {name} {rule}")
        return estimate

    def one_by_one(self, tokens: Any, layer: int = 0, groups: int = 1) -> Estimate | None:
        """A measured expert, for each of a GPU; its start-up only if it gets a token."""
        cost = self.operations.profile.find("expert")
        if cost is None:
            return None
        macs = self._rows(tokens) * self.scenario.model.expert_params
        us = self._local(groups) * cost(macs, self.activated_share(tokens))
        return Estimate.of_cost(cost, us)

    def grouped(self, tokens: Any, layer: int = 0, groups: int = 1) -> Estimate | None:
        """One kernel for all experts of a GPU."""
        model, deployment = self.scenario.model, self.scenario.deployment
        estimate = self.operations.grouped_experts(
            num_tokens=tokens * deployment.ag,
            hidden_size=model.hidden,
            inter_size=model.expert_hidden,
            topk=model.top_k,
            num_experts=model.experts,
            moe_ep_size=deployment.eg * groups,
        )
        return None if estimate is None else estimate * self.operations.expert_slowdown

    def plain(self, tokens: Any, layer: int = 0, groups: int = 1) -> Estimate:
        """The products of an expert, one expert after the other."""
        products = work.expert_products(self.scenario.model, self._rows(tokens))
        one = self.operations.products(products, self.operations.expert_slowdown)
        return one * self._local(groups)

    def cheaper(self, tokens: Any, layer: int = 0, groups: int = 1) -> Estimate:
        """The cheaper of grouped and plain."""
        plain = self.plain(tokens, layer, groups)
        for source in (self.one_by_one, self.grouped):
            estimate = source(tokens, layer, groups)
            if estimate is not None:
                return estimate.cheaper(plain)
        return plain

    def activated_share(self, tokens: Any) -> Any:
        """Expected share of the experts that get a token of a chunk, balanced routing."""
        return work.activated_share(self.scenario.model, tokens * self.scenario.deployment.ag)

    def _shared_tokens(self, tokens: Any) -> Any:
        """On the EG each of its GPUs takes an equal part of the tokens of the AG."""
        deployment = self.scenario.deployment
        return tokens * deployment.ag / deployment.eg if deployment.shared_on == "eg" else tokens

    def _rows(self, tokens: Any) -> Any:
        """Tokens of the whole AG that one expert gets."""
        model = self.scenario.model
        return tokens * self.scenario.deployment.ag * model.top_k / model.experts

    def _local(self, groups: int) -> float:
        """Experts of an EG GPU, the fullest one, that belong to one of `groups` groups."""
        return self.scenario.model.local_experts(self.scenario.deployment.eg) / groups
