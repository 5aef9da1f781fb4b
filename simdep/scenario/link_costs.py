"""Costs of communication in a scenario: what a chunk sends, what its link takes, host overheads.

A line is a cost of the bytes of an EG GPU, as FinDEP fits it; a point-to-point kernel that of the
port of a GPU, so that the busier end decides. Microseconds and bytes; tokens may be an array.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np

from simdep.costs import HostOverheads, free
from simdep.hardware.links import link_cost
from simdep.hardware.profile import Cost
from simdep.scenario import work
from simdep.scenario.estimates import Estimate
from simdep.scenario.spec import Scenario
from simdep.schedule import Kind, Task

_DIRECTIONS = (Kind.A2E, Kind.E2A)
_HOST_TERMS = ("gap", "receive", "post", "contention")


class LinkCosts:
    """The link of each direction, and the messages of a chunk over it."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario

    @cached_property
    def by_kind(self) -> Mapping[Kind, Cost]:
        """The cost of each direction: the scenario's own link, else the profile's for this split
        (or nearest)."""
        deployment = self.scenario.deployment
        if deployment.link is not None:
            return dict.fromkeys(_DIRECTIONS, deployment.link)
        place = (deployment.ag, deployment.eg, deployment.transport, deployment.link_class)
        return {kind: link_cost(deployment.hardware, kind, *place) for kind in _DIRECTIONS}

    def message(self, kind: Kind, tokens: Any, layer: int = 0, groups: int = 1) -> Estimate:
        """A2E or E2A of a chunk of `tokens` tokens of every AG GPU, or of their rows for one of
        `groups` expert groups; one colocated GPU sends nothing, in no time."""
        deployment = self.scenario.deployment
        if deployment.colocated and deployment.gpus == 1:
            return Estimate(0)
        link = self.by_kind[kind]
        size = self.bytes(tokens, kind, busier=link.op == "p2p", groups=groups)
        return Estimate.of_cost(link, link(size))

    def bytes(
        self, tokens: Any, kind: Kind = Kind.A2E, *, busier: bool = False, groups: int = 1
    ) -> Any:
        """Bytes that one EG GPU receives (A2E) or sends (E2A) for a chunk, balanced: z = (E / eg)
        m_e M elements.

        `busier`: those of a GPU of the group whose GPUs handle more. Colocated, rows for a GPU's
        own experts stay.
        """
        model, deployment = self.scenario.model, self.scenario.deployment
        size = self.scenario.sent_element_bytes(kind is Kind.A2E)
        sent = work.transfer(
            model, tokens, deployment.ag, deployment.eg, deployment.dispatch, groups
        )
        remote = (deployment.gpus - 1) / deployment.gpus if deployment.colocated else 1
        eg_bytes, ag_bytes = sent.eg_bytes(size), sent.ag_bytes(size)
        return remote * (np.maximum(eg_bytes, ag_bytes) if busier else eg_bytes)

    @property
    def assumptions(self) -> list[str]:
        """The links that the profile has neither measured nor published."""
        links = self.by_kind.values()
        return list(dict.fromkeys(link.source for link in links if link.label == "assumed"))

    @cached_property
    def host(self) -> HostOverheads:
        """What the hosts of the profile add to the paper's model; nothing where it holds no such
        cost."""
        deployment = self.scenario.deployment
        gap, receive, post, slow = (
            deployment.hardware.find(
                f"host.{term}", ag=deployment.ag, eg=deployment.eg, shape=deployment.transport
            )
            for term in _HOST_TERMS
        )
        contention = deployment.contention
        if contention is None:
            contention = slow(0) if slow else 0
        return HostOverheads(
            gap_us=gap(0) if gap else 0,
            receive_us=receive(0) if receive else 0,
            post_us=partial(self._posting_us, post) if post else free,
            contention=contention,
            half_duplex=deployment.duplex == "half",
        )

    def _posting_us(self, cost: Cost, task: Task) -> float:
        return cost(self.bytes(task.tokens, groups=task.groups))
