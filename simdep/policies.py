"""Policies: functions that make a Schedule. Each reads like the figure it comes from.

Micro-batches hold `tokens` tokens of one AG rank each; the EG works on r2 chunks of a micro-batch, as equal as whole
tokens allow (the first ones are one token longer). Sources: FinDEP (arXiv 2512.21487), MegaScale-Infer (2504.02263).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from simdep.scenario import Scenario
from simdep.schedule import Kind, Schedule, Task

Step = tuple[Kind, int]  # one entry of an AG order: attention or shared experts of a micro-batch
_STEP = re.compile(r"([AS])(\d+)")


def naive(layers: int, *, tokens: int = 1, shared: bool = True) -> Schedule:
    """Naive DEP: one micro-batch, one chunk, everything in sequence; the shared experts are part of attention."""
    return _disaggregated("naive", layers, parse_order("ASAS", 1), 1, tokens, shared, wait_for_shared=True)


def pppipe(layers: int, r1: int, *, tokens: int = 1, shared: bool = True) -> Schedule:
    """Ping-pong pipeline of MegaScale-Infer: r1 whole micro-batches; the shared experts are part of attention."""
    label = f"pppipe r1={r1}"
    return _disaggregated(label, layers, parse_order("ASAS", r1), 1, tokens, shared, wait_for_shared=True)


def findep(
    layers: int, r1: int, r2: int, order: str = "ASAS", *, tokens: int | None = None, shared: bool = True
) -> Schedule:
    """FinDEP: r1 micro-batches, r2 chunks, any AG order; A2E waits for attention only.

    `order` is `ASAS`, `AASS` or a list such as `A0 A1 S0 A2 S1 S2`, the same in every layer. `tokens` defaults to r2.
    """
    steps = parse_order(order, r1)
    label = f"findep {_order_label(order)} r1={r1} r2={r2}"
    return _disaggregated(label, layers, steps, r2, r2 if tokens is None else tokens, shared, wait_for_shared=False)


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


def parse_order(order: str, r1: int) -> tuple[Step, ...]:
    """The steps of an AG order: `ASAS`, `AASS`, or every A and S once, each S after its A.

    Raises ValueError naming the step that is missing, repeated, unknown or too early.
    """
    if r1 < 1:
        raise ValueError(f"r1={r1}: the AG works on at least 1 micro-batch")
    attention = [(Kind.ATTENTION, mb) for mb in range(r1)]
    shared = [(Kind.SHARED, mb) for mb in range(r1)]
    if order.upper() == "AASS":
        return (*attention, *shared)
    if order.upper() == "ASAS":
        return tuple(step for pair in zip(attention, shared, strict=True) for step in pair)
    steps: list[Step] = []
    for word in order.upper().split():
        match = _STEP.fullmatch(word)
        if not match:
            raise ValueError(f"order {order!r}: {word!r} is no step; use asas, aass or a list such as 'A0 A1 S0 S1'")
        step = (Kind(match[1]), int(match[2]))
        if step in steps:
            raise ValueError(f"order {order!r}: {word} appears twice")
        if step[1] >= r1:
            raise ValueError(f"order {order!r}: {word} is beyond the last of r1={r1} micro-batches, A{r1 - 1}")
        if step[0] is Kind.SHARED and (Kind.ATTENTION, step[1]) not in steps:
            raise ValueError(f"order {order!r}: {word} stands before A{step[1]}, whose result it needs")
        steps.append(step)
    for kind, mb in (*attention, *shared):
        if (kind, mb) not in steps:
            raise ValueError(f"order {order!r}: {kind.value}{mb} is missing for r1={r1}")
    return tuple(steps)


def chunk_tokens(tokens: int, r2: int) -> tuple[int, ...]:
    """Tokens of each of r2 chunks, as equal as possible, longer ones first; raises ValueError for an empty chunk."""
    if not 1 <= r2 <= tokens:
        raise ValueError(f"r2={r2} does not fit the {tokens} tokens of a micro-batch; use 1 to {tokens}")
    size, longer = divmod(tokens, r2)
    return (size + 1,) * longer + (size,) * (r2 - longer)


def _disaggregated(
    label: str, layers: int, steps: Sequence[Step], r2: int, tokens: int, shared: bool, *, wait_for_shared: bool
) -> Schedule:
    """The four streams of DEP. Transfers and experts follow the AG order; `wait_for_shared` delays A2E until S."""
    if layers < 1:
        raise ValueError(f"layers={layers}: a schedule has at least 1 layer")
    chunks = chunk_tokens(tokens, r2)
    if not shared:
        steps = [step for step in steps if step[0] is not Kind.SHARED]
    sends = Kind.SHARED if shared and wait_for_shared else Kind.ATTENTION
    ag: list[Task] = []
    a2e: list[Task] = []
    eg: list[Task] = []
    e2a: list[Task] = []
    for layer in range(layers):
        for kind, mb in steps:
            if kind is Kind.SHARED:
                needs: tuple[str, ...] = (f"A[{layer}.{mb}]",)
            elif layer > 0:
                needs = tuple(f"E2A[{layer - 1}.{mb}.{chunk}]" for chunk in range(r2))
                needs += (f"S[{layer - 1}.{mb}]",) if shared else ()
            else:
                needs = ()
            ag.append(Task(kind, layer, mb, tokens=tokens, after=needs))
            if kind is not sends:
                continue
            for chunk, size in enumerate(chunks):
                at = f"[{layer}.{mb}.{chunk}]"
                a2e.append(Task(Kind.A2E, layer, mb, chunk, size, (ag[-1].name,)))
                eg.append(Task(Kind.EXPERT, layer, mb, chunk, size, (f"A2E{at}",)))
                e2a.append(Task(Kind.E2A, layer, mb, chunk, size, (f"E{at}",)))
    return Schedule({"AG": tuple(ag), "A2E": tuple(a2e), "EG": tuple(eg), "E2A": tuple(e2a)}, label)


def _order_label(order: str) -> str:
    return " ".join(order.upper().split())
