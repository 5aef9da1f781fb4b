"""How the ranks of a deployment differ: routing, batches, stragglers, and where their GPUs stand.

GPUs are numbered AG first: AG rank a is GPU a, EG rank g is GPU ag + g. `Nodes` puts them into
nodes in that order. `simdep.scenario.fields` declares the fields of the table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdep import checks
from simdep.arrays import Array
from simdep.checks import InputError, shown
from simdep.hardware.profile import Cost
from simdep.scenario import routing
from simdep.scenario.routing import Routing

_STRAGGLER = re.compile(r"(AG|EG)\.(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Nodes:
    """Nodes of `gpus` GPUs and `nics` network ports; GPUs of a node share a port where there are
    fewer ports.

    `far_link`, if given, is the cost of the bytes through a port of the link class that the group's
    own link is not.
    """

    gpus: int
    nics: int
    far_link: Cost | None = None

    def node(self, gpu: NDArray[np.int64]) -> NDArray[np.int64]:
        """The node of every GPU."""
        return gpu // self.gpus

    def nic(self, gpu: NDArray[np.int64]) -> NDArray[np.int64]:
        """The network port of every GPU, counted over all nodes: neighbours share one."""
        in_node = gpu % self.gpus * self.nics // self.gpus
        ports: NDArray[np.int64] = self.node(gpu) * self.nics + in_node
        return ports


@dataclass(frozen=True)
class Straggler:
    """A rank whose every computation takes `factor` times as long."""

    group: str
    rank: int
    factor: float

    @classmethod
    def parse(cls, name: str, factor: Any) -> Straggler:
        """From `AG.3` and a factor; raises InputError for another name, and for a factor that is
        not above 0."""
        match = _STRAGGLER.fullmatch(name)
        if not match:
            raise InputError(f"straggler {shown(name)} is no rank; write AG.3 or EG.0")
        group, rank = match[1].upper(), int(match[2])
        return cls(group, rank, checks.number(factor, f"straggler {name}", above=0))


@dataclass(frozen=True)
class Ranks:
    """What sets ranks apart; the default is FinDEP's model, in which they are all alike.

    Without `routing` every EG rank gets as many tokens, whatever the number of experts. `batches`
    are the samples of every AG rank (none: all have those of the scenario). `law` is the text that
    a routing was drawn by, such as "power-law:1.2"; empty for counts.
    """

    routing: Routing | None = None
    batches: tuple[int, ...] = ()
    stragglers: tuple[Straggler, ...] = ()
    nodes: Nodes | None = None
    law: str = ""

    def redrawn(self, experts: int, *, top_k: int, tokens: int, layers: int) -> Ranks:
        """The same ranks with the routing of chunks of `tokens` tokens, where a law draws it."""
        if not self.law:
            return self
        drawn = routing.parse_law(self.law, experts, top_k=top_k, tokens=tokens, layers=layers)
        return replace(self, routing=drawn)

    def check(self, ag: int, eg: int) -> None:
        """Raise ValueError, naming what is at fault, if this does not fit `ag` and `eg` ranks."""
        if self.batches and len(self.batches) != ag:
            raise InputError(
                f"batches={list(self.batches)}: {len(self.batches)} numbers for {ag} AG ranks"
            )
        if self.batches and not any(self.batches):
            raise InputError(
                f"batches={list(self.batches)}: there is nothing to do; give an AG rank a sample"
            )
        for straggler in self.stragglers:
            if straggler.rank >= {"AG": ag, "EG": eg}[straggler.group]:
                name = f"{straggler.group}.{straggler.rank}"
                ranks = f"AG.0 to {ag - 1}, EG.0 to {eg - 1}"
                raise InputError(f"straggler {name}: the ranks are {ranks}")
        if self.routing and self.routing.sources not in (1, ag):
            sources = f"{self.routing.sources} AG ranks, not of {ag}"
            raise InputError(f"routing {self.routing.label} is that of {sources}")
        if self.routing and eg > self.routing.experts:
            raise InputError(
                f"eg={eg}: routing {self.routing.label} has only {self.routing.experts} experts"
            )

    def slowdown(self, group: str, ranks: int) -> Array:
        """The factor of every rank of a group."""
        factors = np.ones(ranks)
        for straggler in self.stragglers:
            if straggler.group == group:
                factors[straggler.rank] *= straggler.factor
        return factors


def ranks_of(
    fields: Mapping[str, Any],
    experts: int | None,
    *,
    top_k: int,
    tokens: int,
    layers: int,
    far_link: Cost | None = None,
) -> Ranks:
    """Ranks from the checked fields of their table, by name (`simdep.scenario.fields`).

    `experts` are those of the model, None without a model: then only a list or a file can say where
    tokens go. `tokens` are those of a chunk of the whole AG, `far_link` the cost of a port. Raises
    ValueError naming the field at fault.
    """
    drawn, law = None, ""
    name = fields.get("routing", "balanced")
    if name != "balanced":  # as many tokens for every EG rank, whatever the number of experts
        is_law = isinstance(name, str) and not routing.is_file(name)
        if is_law and experts is None:
            hint = "give their rows in a .csv or .json file"
            raise InputError(f"routing {name!r} needs the experts of a model; {hint}")
        drawn = _routing(name, experts or 0, top_k=top_k, tokens=tokens, layers=layers)
        law = name if is_law else ""
    if drawn and experts and drawn.experts != experts:
        raise InputError(
            f"routing {drawn.label} has {drawn.experts} experts; the model has {experts}"
        )
    if drawn and not law:
        drawn.check_top_k(top_k)
    factors = fields.get("stragglers", {})
    stragglers = tuple(Straggler.parse(rank, factor) for rank, factor in factors.items())
    return Ranks(drawn, fields.get("batches", ()), stragglers, _nodes(fields, far_link), law)


def _routing(
    source: str | list[Any], experts: int, *, top_k: int, tokens: int, layers: int
) -> Routing:
    """Counts in lists or a file, or those that a law draws."""
    if not isinstance(source, str):
        return routing.from_counts(source)
    if routing.is_file(source):
        return routing.read_routing(Path(source), top_k)
    return routing.parse_law(source, experts, top_k=top_k, tokens=tokens, layers=layers)


def _nodes(fields: Mapping[str, Any], far_link: Cost | None) -> Nodes | None:
    if "gpus_per_node" not in fields:
        for name in fields:
            if name == "nics_per_node" or name.startswith("far_link."):
                raise InputError(f"{name} is given without gpus_per_node")
        return None
    gpus = fields["gpus_per_node"]
    nics = fields.get("nics_per_node", gpus)
    if nics > gpus:
        raise InputError(
            f"nics_per_node={nics}; a node has at most one for each of its {gpus} GPUs"
        )
    return Nodes(gpus, nics, far_link)
