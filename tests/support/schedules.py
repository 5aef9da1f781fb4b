"""Schedules that several test modules make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simdep.policies import Job, Partition, build, on_groups
from simdep.schedule import Schedule, Sequenced


def dep_streams(
    label: str,
    sequence: Sequence[Sequenced],
    cut: Partition,
    *,
    layers: int,
    shared: bool,
    wait_for_shared: bool,
    shared_on: str = "ag",
) -> Schedule:
    """The four streams of DEP for an AG that does `sequence`, one (kind, layer, micro-batch) after
    the other."""
    job = Job(layers, cut, shared=shared, shared_on=shared_on)
    return on_groups(job, label, sequence, wait_for_shared=wait_for_shared)


def naive(layers: int, *, tokens: int = 1, shared: bool = True) -> Schedule:
    """Naive DEP: one micro-batch, one chunk, everything in sequence; the shared experts are part of
    attention."""
    return build("naive", layers, tokens=tokens, shared=shared)


def pppipe(layers: int, r1: int, *, tokens: int = 1, shared: bool = True) -> Schedule:
    """Ping-pong pipeline of MegaScale-Infer: r1 whole micro-batches; the shared experts are part of
    attention."""
    return build("pppipe", layers, r1, tokens=tokens, shared=shared)


def findep(layers: int, r1: int, r2: int, order: str = "ASAS", **given: Any) -> Schedule:
    """FinDEP: r1 micro-batches, r2 chunks, any AG order; A2E waits for attention only.

    `order` is `ASAS`, `AASS` or a list such as `A0 A1 S0 A2 S1 S2`, the same in every layer.
    `tokens` defaults to r2.
    """
    return build("findep", layers, r1, r2, order, **given)
