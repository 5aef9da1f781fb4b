"""Loads of network ports in the transfers between AG and EG ranks.

A transfer to or from EG rank g lasts as long as the busiest port involved: g's own, and those of
the AG ranks that it exchanges tokens with. A load is 1 where everything is balanced and the port
belongs to the busier end: an EG port if ag > eg, else an AG port. The other end carries as many
bytes per rank less as there are more of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simdep.arrays import Array
from simdep.scenario.imbalance import Nodes

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class PortLoads:
    """The load of the busiest port in the transfer of every EG rank, 0 where it exchanges nothing;
    with nodes, by link class."""

    in_node: Array
    between_nodes: Array | None = None


def port_loads(sent: Array, pairs: Mask, nodes: Nodes | None = None) -> PortLoads:
    """Loads for tokens `sent` [AG rank, EG rank], over those under equal shares, between the
    `pairs` that exchange any.

    With nodes, tokens inside a node and between nodes go through ports of their own (NVLink or
    PCIe, and a network port that GPUs of a node may share), each side by side with the other.
    """
    leaving, arriving = _ends(sent)
    if nodes is None:
        return PortLoads(_busiest(arriving, leaving, pairs))
    ag, eg = sent.shape
    gpus = np.arange(ag + eg)
    node, nic = nodes.node(gpus), nodes.nic(gpus)
    crosses = node[:ag, None] != node[None, ag:]
    leaving, arriving = _ends(np.where(crosses, 0, sent))
    in_node = _busiest(arriving, leaving, pairs & ~crosses)
    leaving, arriving = _ends(np.where(crosses, sent, 0))
    leaving, arriving = _of_shared_port(leaving, nic[:ag]), _of_shared_port(arriving, nic[ag:])
    return PortLoads(in_node, _busiest(arriving, leaving, pairs & crosses))


def alike_port_loads(ag_load: Array, sent: Array) -> Array:
    """`port_loads` without nodes where every AG rank sends the shares `sent` of its tokens to the
    EG ranks."""
    ag_share, eg_share = _balanced(len(ag_load), len(sent))
    load: Array = np.maximum(
        eg_share * ag_load.mean() * sent, ag_share * (ag_load * sent.mean()).max()
    )
    return load


def _balanced(ag: int, eg: int) -> tuple[float, float]:
    """The load of an AG port and of an EG port where everything is balanced."""
    return min(1.0, eg / ag), min(1.0, ag / eg)


def _ends(sent: Array) -> tuple[Array, Array]:
    """The load of every AG port and of every EG port."""
    ag, eg = sent.shape
    ag_share, eg_share = _balanced(ag, eg)
    return ag_share * sent.sum(axis=1) / eg, eg_share * sent.sum(axis=0) / ag


def _busiest(arriving: Array, leaving: Array, pairs: Mask) -> Array:
    """The busiest port in the transfer of every EG rank: its own, or that of an AG rank of its
    pairs."""
    partner = np.where(pairs, leaving[:, None], 0).max(axis=0)
    load: Array = np.where(pairs.any(axis=0), np.maximum(arriving, partner), 0)
    return load


def _of_shared_port(load: Array, port: NDArray[np.int64]) -> Array:
    """The load of every GPU's port: that of all GPUs that use it."""
    return np.bincount(port, load)[port].astype(np.float64)
