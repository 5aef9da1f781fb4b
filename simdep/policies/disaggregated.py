"""Policies of disaggregated groups: streams AG, A2E, EG and E2A. Each reads like the figure that it
comes from.

Sources: FinDEP (arXiv 2512.21487), MegaScale-Infer (2504.02263), Step-3 (2507.19427).
"""

from __future__ import annotations

from functools import partial

import numpy as np

from simdep.arrays import Array
from simdep.checks import InputError
from simdep.policies.builder import on_groups
from simdep.policies.job import Job
from simdep.policies.lookahead import best_order
from simdep.policies.orders import in_every_layer, parse_order
from simdep.policies.registry import register
from simdep.schedule import Kind, Schedule, Sequenced, Task
from simdep.simulation.longest_path import longest_path_us
from simdep.simulation.stage_table import StageTable

_FINDEP = "FinDEP (arXiv 2512.21487)"
_MEGASCALE = "MegaScale-Infer (arXiv 2504.02263)"
_STEP3 = "Step-3 (arXiv 2507.19427)"


@register(source=_FINDEP)
def naive(job: Job) -> Schedule:
    """Everything in sequence: one micro-batch, one chunk; the shared experts are part of
    attention."""
    return on_groups(job, job.label("naive"), _asas(job), wait_for_shared=True)


@register(source=_MEGASCALE, parameters=("r1",))
def pppipe(job: Job) -> Schedule:
    """Ping-pong pipeline of r1 whole micro-batches; the shared experts are part of attention."""
    return on_groups(job, job.label("pppipe", "r1"), _asas(job), wait_for_shared=True)


@register(
    source=_FINDEP, parameters=("r1", "r2", "order", "merge_last"), splits=("token", "expert")
)
def findep(job: Job) -> Schedule:
    """r1 micro-batches, r2 chunks, any order of attention and shared experts in a layer; A2E waits
    for attention."""
    if job.order.lower() == "lookahead":
        return lookahead(job)
    sequence = in_every_layer(parse_order(job.order, job.r1), job.layers)
    return on_groups(job, job.label("findep", "order", "r1", "r2"), sequence, wait_for_shared=False)


@register(source="simdep", parameters=("r1", "r2", "merge_last"), splits=("token", "expert"))
def lookahead(job: Job) -> Schedule:
    """As findep, in the order that costs suggest: ready attention first, shared experts in the time
    that is left."""
    found = [best_order(_stages(job), job.layers, job.r1)]
    if (
        not job.is_regular
    ):  # then the order is one for the first micro-batch, and may be worse than these
        found += [
            in_every_layer(parse_order(word, job.r1), job.layers) for word in ("ASAS", "AASS")
        ]
    label = job.label("lookahead", "r1", "r2")
    made = [on_groups(job, label, sequence, wait_for_shared=False) for sequence in found]
    return (
        made[0]
        if job.is_regular or job.costs is None
        else min(made, key=partial(longest_path_us, costs=job.costs))
    )


@register(
    source=_STEP3,
    parameters=("r1",),
    setup={"r1": 3, "shared_on": "eg", "dispatch": "broadcast", "a2e_dtype": "fp8"},
)
def step3(job: Job) -> Schedule:
    """Attention, link and experts as stages of three micro-batches; tokens are broadcast, shared
    experts on the EG."""
    if job.shared and job.shared_on != "eg":
        raise InputError('policy step3 computes the shared experts on the EG; set shared_on = "eg"')
    return on_groups(job, job.label("step3", "r1"), _asas(job), wait_for_shared=False)


def _stages(job: Job) -> StageTable:
    """The times of the first micro-batch, in every layer and chunk; by expert or with shared
    experts on the EG, its first chunk stands for all."""
    times, costs, first = job.times, job.costs, job.partition[0]
    assert costs is not None, "job.times raises without costs"
    if job.split == "expert" or job.shared_on == "eg":
        return StageTable.of([times], [job.r2])
    tokens, sizes = sum(first), list(dict.fromkeys(first))
    attention = [costs(Task(Kind.ATTENTION, t, 0, tokens=tokens)) for t in range(job.layers)]

    def chunk_us(kind: Kind) -> Array:
        """Microseconds of a chunk of each size, as a column."""
        return np.array([[costs(Task(kind, 0, 0, 0, size))] for size in sizes], float)

    return StageTable(
        attention=np.array(attention, float)[:, None],
        shared=np.array([times.shared], float),
        counts=np.array([[first.count(size)] for size in sizes], float),
        a2e=chunk_us(Kind.A2E),
        expert=chunk_us(Kind.EXPERT),
        e2a=chunk_us(Kind.E2A),
    )


def _asas(job: Job) -> tuple[Sequenced, ...]:
    return in_every_layer(parse_order("ASAS", job.r1), job.layers)
