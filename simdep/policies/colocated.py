"""Policies of colocated groups: every GPU holds attention and experts; streams GPU (computation)
and COMM (both directions, A2E for dispatch and E2A for combine). Each reads like the figure that it
comes from, a layer at a time.

Sources: EPS-MoE (arXiv 2410.12247); DeepSeek-V3 (2412.19437) and its published profiles; SGLang's
single-batch overlap; FasterMoE, Tutel (2206.03382), PipeMoE.
"""

from __future__ import annotations

from itertools import pairwise

from simdep.policies.builder import assemble
from simdep.policies.job import Job
from simdep.policies.registry import register
from simdep.schedule import Kind, Place, Schedule

A, P, C, S, E = Kind.ATTENTION, Kind.PROJECTION, Kind.CORE, Kind.SHARED, Kind.EXPERT
DISPATCH, COMBINE = Kind.A2E, Kind.E2A
DEEPSEEK = "DeepSeek-V3 (arXiv 2412.19437, profile-data)"
COMM_SMS = {"prefill": 24, "eps-moe": 16}  # DeepSeek-V3: 24 of 132; EPS-MoE: 16 of 132
_Line = list[Place]


@register(source="expert parallelism, nothing overlapped", colocated=True, setup={"comm_sms": 0})
def ep(job: Job) -> Schedule:
    """The colocated baseline: attention, shared experts, dispatch, experts, combine, one after the
    other."""
    gpu: _Line = []
    comm: _Line = []
    for t in range(job.layers):
        gpu += [(A, t, 0, None), (S, t, 0, None), (E, t, 0, 0)]
        comm += [(DISPATCH, t, 0, 0), (COMBINE, t, 0, 0)]
    return assemble(job, job.label("ep"), {"GPU": gpu, "COMM": comm}, wait_for_shared=True)


@register(source="FasterMoE, Tutel (arXiv 2206.03382), PipeMoE", colocated=True, parameters=("r2",))
def chunked(job: Job) -> Schedule:
    """One batch in r2 chunks of tokens: send(i), compute(i), return(i), dispatch one chunk ahead of
    combine."""
    return _chunks_ahead(job, job.label("chunked", "r2"))


@register(
    source="EPS-MoE (arXiv 2410.12247)",
    colocated=True,
    parameters=("r2",),
    splits=("expert",),
    setup={"comm_sms": COMM_SMS["eps-moe"], "comm_sms_from": "experts", "expert_gemm": "cheaper"},
)
def eps_moe(job: Job) -> Schedule:
    """N = r2 groups of experts, each with its dispatch, products and combine, dispatch one group
    ahead of combine."""
    return _chunks_ahead(job, job.label("eps-moe", "r2"))


@register(
    source=DEEPSEEK,
    colocated=True,
    r1=2,
    setup={"comm_sms": COMM_SMS["prefill"], "comm_sms_from": "all"},
)
def two_batch_prefill(job: Job) -> Schedule:
    """Two micro-batches, each sending and receiving while the other computes; whole attention."""
    gpu: _Line = []
    comm: _Line = []
    for t in range(
        job.layers + 1
    ):  # what a layer still does for micro-batch 0 of the one before it
        gpu += [
            (A, t, 1, None),
            (S, t - 1, 0, None),
            (A, t, 0, None),
            (E, t, 1, 0),
            (E, t, 0, 0),
            (S, t, 1, None),
        ]
        comm += [
            (COMBINE, t - 1, 0, 0),
            (DISPATCH, t, 1, 0),
            (DISPATCH, t, 0, 0),
            (COMBINE, t, 1, 0),
        ]
    return assemble(
        job, job.label("two-batch-prefill"), {"GPU": _within(job, gpu), "COMM": _within(job, comm)}
    )


@register(source=DEEPSEEK, colocated=True, r1=2, setup={"comm_sms": 0})
def two_batch_decode(job: Job) -> Schedule:
    """Two micro-batches, attention cut before its core, so that each dispatch and combine has its
    computation."""
    gpu: _Line = [(P, 0, 0, None), (C, 0, 0, None)]
    comm: _Line = []
    for t in range(job.layers):
        gpu += [(S, t, 0, None), (P, t, 1, None), (E, t, 0, 0), (C, t, 1, None)]
        comm += [(DISPATCH, t, 0, 0), (COMBINE, t, 0, 0)]
        gpu += [(S, t, 1, None), (P, t + 1, 0, None), (E, t, 1, 0), (C, t + 1, 0, None)]
        comm += [(DISPATCH, t, 1, 0), (COMBINE, t, 1, 0)]
    return assemble(job, job.label("two-batch-decode"), {"GPU": _within(job, gpu), "COMM": comm})


@register(
    source="SGLang, single-batch overlap",
    colocated=True,
    parameters=("r2",),
    splits=("expert",),
    setup={"comm_sms": 0},
)
def single_batch(job: Job) -> Schedule:
    """One batch: shared experts under dispatch, combine in r2 parts under the product down of the
    experts.

    An E is one of r2 slices of the experts' products; the first two thirds of all are gate and up.
    The combine of a group of experts waits for the slice in which its share of the product down
    ends.
    """
    n = job.r2
    ends = {j: -(-(2 * n + j + 1) // 3) - 1 for j in range(n)}
    gpu: _Line = []
    comm: _Line = []
    for t in range(job.layers):
        gpu += [(A, t, 0, None), (S, t, 0, None), *((E, t, 0, j) for j in range(n))]
        comm += [(DISPATCH, t, 0, 0), *((COMBINE, t, 0, j) for j in range(n))]
    return assemble(job, job.label("single-batch", "r2"), {"GPU": gpu, "COMM": comm}, after=ends)


def _chunks_ahead(job: Job, label: str) -> Schedule:
    """One batch in chunks: the dispatch of a chunk goes before the combine of the one before it."""
    gpu: _Line = []
    comm: _Line = []
    for t in range(job.layers):
        chunks = range(job.r2)
        gpu += [(A, t, 0, None), (S, t, 0, None), *((E, t, 0, j) for j in chunks)]
        comm += [(DISPATCH, t, 0, 0)]
        for before, j in pairwise(chunks):
            comm += [(DISPATCH, t, 0, j), (COMBINE, t, 0, before)]
        comm += [(COMBINE, t, 0, chunks[-1])]
    return assemble(job, label, {"GPU": gpu, "COMM": comm}, wait_for_shared=True)


def _within(job: Job, line: _Line) -> _Line:
    """The places whose layer exists."""
    return [place for place in line if 0 <= place[1] < job.layers]
