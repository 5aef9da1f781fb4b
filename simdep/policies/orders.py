"""Orders and partitions: what the AG does first, and how the tokens of a micro-batch are divided
among chunks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain

from simdep.checks import InputError
from simdep.schedule import Kind, Sequenced, Step

Partition = tuple[tuple[int, ...], ...]  # tokens of every chunk of every micro-batch
_STEP = re.compile(r"([AS])(\d+)")


def parse_order(order: str, r1: int) -> tuple[Step, ...]:
    """The steps of an AG order: `ASAS`, `AASS`, or every A and S once, each S after its A.

    Raises InputError naming the step that is missing, repeated, unknown or too early.
    """
    if r1 < 1:
        raise InputError(f"r1={r1}: the AG works on at least 1 micro-batch")
    attention = [(Kind.ATTENTION, mb) for mb in range(r1)]
    shared = [(Kind.SHARED, mb) for mb in range(r1)]
    if order.upper() == "AASS":
        return (*attention, *shared)
    if order.upper() == "ASAS":
        pairs = zip(attention, shared, strict=True)
        return tuple(chain.from_iterable(pairs))
    steps: list[Step] = []
    for word in order.upper().split():
        match = _STEP.fullmatch(word)
        if not match:
            rule = "use asas, aass or a list such as 'A0 A1 S0 S1'"
            raise InputError(f"order {order!r}: {word!r} is no step; {rule}")
        step = (Kind(match[1]), int(match[2]))
        if step in steps:
            raise InputError(f"order {order!r}: {word} appears twice")
        if step[1] >= r1:
            rule = f"beyond the last of r1={r1} micro-batches, A{r1 - 1}"
            raise InputError(f"order {order!r}: {word} is {rule}")
        if step[0] is Kind.SHARED and (Kind.ATTENTION, step[1]) not in steps:
            rule = f"stands before A{step[1]}, whose result it needs"
            raise InputError(f"order {order!r}: {word} {rule}")
        steps.append(step)
    for kind, mb in (*attention, *shared):
        if (kind, mb) not in steps:
            raise InputError(f"order {order!r}: {kind.value}{mb} is missing for r1={r1}")
    return tuple(steps)


def in_every_layer(steps: Sequence[Step], layers: int) -> tuple[Sequenced, ...]:
    """The sequence of an AG that does the same steps in every layer."""
    sequence: list[Sequenced] = []
    for layer in range(layers):
        sequence += [(kind, layer, mb) for kind, mb in steps]
    return tuple(sequence)


def chunk_tokens(tokens: int, r2: int) -> tuple[int, ...]:
    """Tokens of each of r2 chunks, as equal as possible, longer ones first; raises InputError for
    an empty chunk."""
    if not 1 <= r2 <= tokens:
        raise InputError(
            f"r2={r2} does not fit the {tokens} tokens of a micro-batch; use 1 to {tokens}"
        )
    size, longer = divmod(tokens, r2)
    return (size + 1,) * longer + (size,) * (r2 - longer)


def share_out(tokens: int, shares: Sequence[int]) -> tuple[int, ...]:
    """Tokens of chunks in proportion to whole `shares`, by largest remainder, earlier ones first
    among equals.

    Shares that add up to the tokens are these tokens. Raises InputError for a chunk that gets none.
    """
    total = sum(shares)
    sizes = [tokens * share // total for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda at: (-(tokens * shares[at] % total), at))
    for at in by_remainder[: tokens - sum(sizes)]:
        sizes[at] += 1
    if min(sizes) < 1:
        listed = ",".join(map(str, shares))
        rule = f"of {tokens} tokens, chunk {sizes.index(0)} gets none; use larger shares"
        raise InputError(f"chunks={listed}: {rule}")
    return tuple(sizes)
