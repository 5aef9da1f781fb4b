"""How the ranks of a deployment differ: routing, batches, stragglers, and where their GPUs stand.

GPUs are numbered AG first: AG rank a is GPU a, EG rank g is GPU ag + g. `Nodes` puts them into
nodes in that order. A scenario file has it as a table, every key optional:

    [ranks]
    routing = "power-law:1.2"      # or balanced, zipf:1.2, a seed as in zipf:1.2:7, a .csv or .json of counts, or lists
    batches = [4, 4, 2]            # samples of every AG rank, cut into micro-batches as the others are
    stragglers = { "AG.2" = 1.3 }  # factor on every computation of a rank
    gpus_per_node = 8              # NVLink within a node (PCIe where the GPU has no NVLink), network between nodes
    nics_per_node = 8              # default: one for each GPU (rails); fewer are shared by neighbours
    far_link = { alpha_us = 18, gbytes_per_s = 36 }  # of the link class that deployment.link does not name
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdep import checks
from simdep.hardware.profile import Cost
from simdep.scenario import routing
from simdep.scenario.routing import Routing

KEYS = ("routing", "batches", "stragglers", "gpus_per_node", "nics_per_node", "far_link")
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
        found: NDArray[np.int64] = (
            self.node(gpu) * self.nics + gpu % self.gpus * self.nics // self.gpus
        )
        return found


@dataclass(frozen=True)
class Straggler:
    """A rank whose every computation takes `factor` times as long."""

    group: str
    rank: int
    factor: float

    @classmethod
    def parse(cls, name: str, factor: Any) -> Straggler:
        """From `AG.3` and a factor; raises ValueError for another name, and for a factor that is
        not above 0."""
        found = _STRAGGLER.fullmatch(name)
        if not found:
            raise ValueError(f"straggler {name!r} is no rank; write AG.3 or EG.0")
        return cls(
            found[1].upper(), int(found[2]), checks.number(factor, f"straggler {name}", above=0)
        )


@dataclass(frozen=True)
class Ranks:
    """What sets ranks apart; the default is FinDEP's model, in which they are all alike.

    Without `routing` every EG rank gets as many rows, whatever the number of experts. `batches` are
    the samples of every AG rank (none: all have those of the scenario). `law` is the text that a
    routing was drawn by, such as "power-law:1.2"; empty for counts.
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
        drawn = routing.parse(self.law, experts, top_k=top_k, tokens=tokens, layers=layers)
        return replace(self, routing=drawn)

    def check(self, ag: int, eg: int) -> None:
        """Raise ValueError, naming what is at fault, if this does not fit `ag` and `eg` ranks."""
        if self.batches and len(self.batches) != ag:
            raise ValueError(
                f"batches={list(self.batches)}: {len(self.batches)} numbers for {ag} AG ranks"
            )
        if self.batches and not any(self.batches):
            raise ValueError(
                f"batches={list(self.batches)}: there is nothing to do; give an AG rank a sample"
            )
        for each in self.stragglers:
            if each.rank >= {"AG": ag, "EG": eg}[each.group]:
                raise ValueError(
                    f"straggler {each.group}.{each.rank}: the ranks are AG.0 to {ag - 1}, EG.0 to {eg - 1}"
                )
        if self.routing and self.routing.sources not in (1, ag):
            raise ValueError(
                f"routing {self.routing.label} is that of {self.routing.sources} AG ranks, not of {ag}"
            )
        if self.routing and eg > self.routing.experts:
            raise ValueError(
                f"eg={eg}: routing {self.routing.label} has only {self.routing.experts} experts"
            )

    def slowdown(self, group: str, ranks: int) -> NDArray[np.float64]:
        """The factor of every rank of a group."""
        factors = np.ones(ranks)
        for each in self.stragglers:
            if each.group == group:
                factors[each.rank] *= each.factor
        return factors


def ranks_from_dict(
    data: Mapping[str, Any],
    experts: int | None,
    *,
    top_k: int,
    tokens: int,
    layers: int,
    far_link: Cost | None = None,
) -> Ranks:
    """Ranks from their table (form at the top).

    `experts` are those of the model, None for a bare problem: then only a list or file can say
    where rows go. `tokens` are those of a chunk of the whole AG, `far_link` the cost that the table
    gives. Raises ValueError naming the key at fault.
    """
    checks.mapping(data, KEYS, "ranks")
    word = data.get("routing")
    rows: Routing | None = None
    law = ""
    if word == "balanced":
        word = None  # as many rows for every EG rank, as in the group's model, whatever the number of experts
    if isinstance(word, str) and routing.is_file(word):
        rows = routing.load(Path(word))
    elif isinstance(word, str):
        if experts is None:
            raise ValueError(
                f"routing {word!r} needs the experts of a model; give their rows in a .csv or .json file"
            )
        rows = routing.parse(word, experts, top_k=top_k, tokens=tokens, layers=layers)
        law = word
    elif word is not None:
        rows = routing.given(word)
    if rows and experts and rows.experts != experts:
        raise ValueError(
            f"routing {rows.label} has {rows.experts} experts; the model has {experts}"
        )
    batches, stragglers = _batches(data.get("batches", ())), _stragglers(data.get("stragglers", {}))
    return Ranks(rows, batches, stragglers, _nodes(data, far_link), law)


def _batches(value: Any) -> tuple[int, ...]:
    if isinstance(value, str):
        value = [int(word) if word.strip().isdigit() else word for word in value.split(",")]
    if not isinstance(value, Sequence):
        raise ValueError(
            f"batches={value!r}; it is a list of samples, one number for every AG rank"
        )
    return tuple(checks.integer(each, "batches", 0) for each in value)


def _stragglers(value: Any) -> tuple[Straggler, ...]:
    if not isinstance(value, Mapping):
        raise ValueError(f'stragglers={value!r} expected a table such as {{ "AG.3" = 1.3 }}')
    return tuple(Straggler.parse(name, factor) for name, factor in value.items())


def _nodes(data: Mapping[str, Any], far_link: Cost | None) -> Nodes | None:
    if "gpus_per_node" not in data:
        for key in ("nics_per_node", "far_link"):
            if key in data:
                raise ValueError(f"{key} is given without gpus_per_node")
        return None
    gpus = checks.integer(data["gpus_per_node"], "gpus_per_node")
    nics = checks.integer(data.get("nics_per_node", gpus), "nics_per_node")
    if nics > gpus:
        raise ValueError(
            f"nics_per_node={nics}; a node has at most one for each of its {gpus} GPUs"
        )
    return Nodes(gpus, nics, far_link)
