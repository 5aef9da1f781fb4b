"""The policies of FinDEP's paper by their degrees alone: equal micro-batches, chunks as equal as
whole tokens allow.

Micro-batches hold `tokens` tokens of one AG GPU each.
"""

from __future__ import annotations

from simdep.policies.registry import build
from simdep.schedule import Schedule


def naive(layers: int, *, tokens: int = 1, shared: bool = True) -> Schedule:
    """Naive DEP: one micro-batch, one chunk, everything in sequence; the shared experts are part of
    attention."""
    return build("naive", layers, tokens=tokens, shared=shared)


def pppipe(layers: int, r1: int, *, tokens: int = 1, shared: bool = True) -> Schedule:
    """Ping-pong pipeline of MegaScale-Infer: r1 whole micro-batches; the shared experts are part of
    attention."""
    return build("pppipe", layers, r1, tokens=tokens, shared=shared)


def findep(
    layers: int,
    r1: int,
    r2: int,
    order: str = "ASAS",
    *,
    tokens: int | None = None,
    shared: bool = True,
) -> Schedule:
    """FinDEP: r1 micro-batches, r2 chunks, any AG order; A2E waits for attention only.

    `order` is `ASAS`, `AASS` or a list such as `A0 A1 S0 A2 S1 S2`, the same in every layer.
    `tokens` defaults to r2.
    """
    return build("findep", layers, r1, r2, order, tokens=tokens, shared=shared)
