"""What a rank's part of a task costs at its load: its work over that of the group's task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from simdep.arrays import Array
from simdep.costs import Costs
from simdep.hardware.links import port_cost
from simdep.hardware.profile import Cost
from simdep.scenario.fields import LINK_CLASSES
from simdep.scenario.spec import Scenario
from simdep.scenario.task_costs import ScenarioCosts
from simdep.schedule import Kind, Task

LoadCosts = Callable[[Task, Array], Array]  # microseconds of a task at every one of some loads
# (share of the routed tokens that go to one of some parts, number of parts) -> load of that part
SentLoads = Callable[[Array, int], Array]


def sent_per_expert(share: Array, parts: int) -> Array:
    """A token is sent once for every expert: in proportion to the routed tokens."""
    return share * parts


@dataclass(frozen=True)
class RankCosts:
    """Costs of computation and transfers at any load.

    `other_link_us`, if given, is that of transfers over the link class that the group's own link is
    not; `joins_nodes` says that its own link is the one between nodes. `sent` turns the share of
    all routed tokens that go to a rank, or to a group of its experts, into its load of tokens sent;
    with `broadcast` every rank is sent every token.
    """

    us: LoadCosts
    other_link_us: LoadCosts | None = None
    joins_nodes: bool = False
    sent: SentLoads = sent_per_expert
    broadcast: bool = False
    notes: tuple[str, ...] = ()  # what was assumed

    @classmethod
    def of_stages(cls, costs: Costs) -> RankCosts:
        """Those of given stage times: time grows in proportion to load."""
        return cls(lambda task, loads: costs(task) * loads)

    @classmethod
    def of(cls, scenario: Scenario, costs: ScenarioCosts | None = None) -> RankCosts:
        """Those of a scenario, by its `costs`; the other link class has `ranks.far_link` or the
        profile's cost."""
        costs = costs or ScenarioCosts(scenario)
        deployment = scenario.deployment
        sent: SentLoads = sent_per_expert
        if deployment.dispatch == "per-gpu":
            sent = partial(_sent_per_gpu, scenario.model.top_k)
        other_link_us: LoadCosts | None = None
        notes: tuple[str, ...] = ()
        link = _other_link(scenario)
        if link is not None:
            other_link_us = partial(_link_us, costs, link)
            notes = (link.source,) if link.label == "assumed" else ()
        return cls(
            us=partial(_task_us, costs),
            other_link_us=other_link_us,
            joins_nodes=deployment.link_class == "inter-node",
            sent=sent,
            broadcast=deployment.dispatch == "broadcast",
            notes=notes,
        )


def _sent_per_gpu(top_k: int, share: Array, parts: int) -> Array:
    """A token is sent once to a GPU: by the chance that any of its experts is there."""
    load: Array = (1 - (1 - share) ** top_k) / (1 - (1 - 1 / parts) ** top_k)
    return load


def _task_us(costs: ScenarioCosts, task: Task, loads: Array) -> Array:
    return _of_each(
        loads, lambda load: costs.task_us(task.kind, task.tokens * load, task.layer, task.groups)
    )


def _link_us(costs: ScenarioCosts, link: Cost, task: Task, loads: Array) -> Array:
    size = costs.transfer_bytes(task.tokens, task.kind, busier=True, groups=task.groups)
    return _of_each(loads, lambda load: link(load * size))


def _of_each(loads: Array, cost: Callable[[float], float]) -> Array:
    """The cost of every load, each distinct load evaluated once."""
    distinct, positions = np.unique(loads, return_inverse=True)
    us: Array = np.array([cost(load) for load in distinct.tolist()])[positions]
    return us


def _other_link(scenario: Scenario) -> Cost | None:
    """The link of the class that the scenario's own link is not; None without nodes or data."""
    if scenario.ranks is None or scenario.ranks.nodes is None:
        return None
    if scenario.ranks.nodes.far_link is not None:
        return scenario.ranks.nodes.far_link
    deployment = scenario.deployment
    other = next(name for name in LINK_CLASSES if name != deployment.link_class)
    try:
        return port_cost(deployment.hardware, Kind.A2E, other)
    except ValueError:
        return None
