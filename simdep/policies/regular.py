"""Schedules by their degrees alone, without a scenario: equal micro-batches, chunks as equal as whole tokens allow.

Micro-batches hold `tokens` tokens of one AG rank each.
"""

from __future__ import annotations

from collections.abc import Callable

from simdep.policies.builder import disaggregated
from simdep.policies.orders import chunk_tokens, in_every_layer, parse_order
from simdep.scenario import Scenario
from simdep.schedule import Schedule


def naive(layers: int, *, tokens: int = 1, shared: bool = True) -> Schedule:
    """Naive DEP: one micro-batch, one chunk, everything in sequence; the shared experts are part of attention."""
    return _regular("naive", layers, 1, 1, "ASAS", tokens, shared, wait_for_shared=True)


def pppipe(layers: int, r1: int, *, tokens: int = 1, shared: bool = True) -> Schedule:
    """Ping-pong pipeline of MegaScale-Infer: r1 whole micro-batches; the shared experts are part of attention."""
    return _regular(f"pppipe r1={r1}", layers, r1, 1, "ASAS", tokens, shared, wait_for_shared=True)


def findep(
    layers: int, r1: int, r2: int, order: str = "ASAS", *, tokens: int | None = None, shared: bool = True
) -> Schedule:
    """FinDEP: r1 micro-batches, r2 chunks, any AG order; A2E waits for attention only.

    `order` is `ASAS`, `AASS` or a list such as `A0 A1 S0 A2 S1 S2`, the same in every layer. `tokens` defaults to r2.
    """
    label = f"findep {' '.join(order.upper().split())} r1={r1} r2={r2}"
    return _regular(label, layers, r1, r2, order, r2 if tokens is None else tokens, shared, wait_for_shared=False)


POLICIES: dict[str, Callable[..., Schedule]] = {"naive": naive, "pppipe": pppipe, "findep": findep}


def build(
    policy: str, layers: int, r1: int = 1, r2: int = 1, order: str = "ASAS", *, tokens: int | None = None,
    shared: bool = True,
) -> Schedule:  # fmt: skip
    """The schedule of a policy by name; raises ValueError for an unknown policy or a degree that it does not have."""
    if policy not in POLICIES:
        raise ValueError(f"unknown policy {policy!r}; use {', '.join(POLICIES)}")
    if policy == "naive" and r1 != 1:
        raise ValueError(f"r1={r1}: policy naive has one micro-batch; use r1=1, or policy pppipe")
    if policy != "findep" and r2 != 1:
        raise ValueError(f"r2={r2}: policy {policy} does not cut micro-batches; use r2=1, or policy findep")
    if policy != "findep" and order.upper() != "ASAS":
        raise ValueError(f"order {order!r}: policy {policy} has no order to choose; leave it out, or use findep")
    if policy == "naive":
        return naive(layers, tokens=1 if tokens is None else tokens, shared=shared)
    if policy == "pppipe":
        return pppipe(layers, r1, tokens=1 if tokens is None else tokens, shared=shared)
    return findep(layers, r1, r2, order, tokens=tokens, shared=shared)


def schedule_for(scenario: Scenario) -> Schedule:
    """The schedule that a scenario asks for."""
    return build(
        scenario.policy, scenario.layers, scenario.r1, scenario.r2, scenario.order,
        tokens=scenario.tokens, shared=scenario.model.has_shared,
    )  # fmt: skip


def _regular(
    label: str, layers: int, r1: int, r2: int, order: str, tokens: int, shared: bool, *, wait_for_shared: bool
) -> Schedule:
    sequence = in_every_layer(parse_order(order, r1), layers)
    cut = (chunk_tokens(tokens, r2),) * r1
    return disaggregated(label, sequence, cut, layers=layers, shared=shared, wait_for_shared=wait_for_shared)
