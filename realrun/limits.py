"""What one host can run: the memory that is free, and the time that a link takes."""

from __future__ import annotations

from collections.abc import Sequence

from realrun.backends.registry import BACKEND_DTYPES, free_bytes
from realrun.cases import Case
from realrun.place import CHOSEN_SPEED
from simdep.checks import InfeasibleError
from simdep.scenario.models import MLA, ModelSpec
from simdep.scenario.routing import rank_experts

MAX_LINK_S = 600  # of one run
# Of a rank before it holds a layer: Python, torch, gloo; measured as resident memory
PROCESS_BYTES = 400_000_000


def rank_bytes(case: Case) -> list[int]:
    """Device memory of each rank, AG ranks first: weights, residual streams, routed tokens in
    flight, attention."""
    model, layers = case.scenario.model, case.scenario.layers
    samples = sum(case.samples)
    routed = samples * case.seq_len * model.top_k * model.hidden
    # Input, residual, normed and shared output of every sample
    streams = 4 * samples * case.seq_len * model.hidden
    attention = _attention_elements(model, max(case.samples), case.seq_len)
    # Routed tokens stand in the buffer twice: sent, and returned
    ag_elements = layers * model.ag_params + streams + 2 * routed + attention
    arriving = 2 * routed * case.ag // case.eg
    elements = [ag_elements] * case.ag
    for rank in range(case.eg):
        experts = len(rank_experts(model.experts, case.eg, rank))
        elements.append(layers * experts * model.expert_params + arriving)
    size = case.scenario.workload.element_bytes
    return [size * count for count in elements]


def _attention_elements(model: ModelSpec, samples: int, seq_len: int) -> int:
    """Elements that a micro-batch needs beside its residual stream."""
    form = model.attention
    scores = samples * form.heads * seq_len**2 if isinstance(form, MLA) else 0
    heads = samples * seq_len * form.heads * 2 * (form.k_dim + form.v_dim)
    wide = samples * seq_len * max(2 * model.shared_hidden, model.experts)
    return 2 * scores + heads + wide


def check_link_time(cases: Sequence[Case]) -> None:
    """Raise InfeasibleError for a case whose messages alone take more than `MAX_LINK_S` in one
    run."""
    for index, case in enumerate(cases):
        if case.link not in CHOSEN_SPEED:
            continue
        start_ups_us = len(case.schedule.streams["A2E"]) * case.speed.alpha_us
        seconds = 1e-6 * (start_ups_us + _direction_bytes(case) / case.speed.mbytes_per_s)
        if seconds > MAX_LINK_S:
            raise InfeasibleError(
                f"{_label(cases, index)}: messages take {seconds:,.0f} s over a link of "
                f"{case.speed.mbytes_per_s:g} MB/s and {case.speed.alpha_us:g} us; a run takes at "
                f"most {MAX_LINK_S} s"
            )


def _direction_bytes(case: Case) -> float:
    """Bytes that A2E brings to one EG rank in a run, if all ranks get as many."""
    model = case.scenario.model
    routed = sum(case.samples) * case.seq_len * model.top_k * case.ag / case.eg
    return routed * model.hidden * case.scenario.workload.element_bytes * case.scenario.layers


def check_memory(cases: Sequence[Case]) -> None:
    """Raise InfeasibleError, with the bytes needed, for a case that does not fit into the free
    memory.

    Ranks on CPUs share the host's memory; on GPUs, each rank needs that of its own.
    """
    for index, case in enumerate(cases):
        label = _label(cases, index)
        if case.scenario.workload.dtype == BACKEND_DTYPES["nccl"]:
            for rank, needed in enumerate(rank_bytes(case)):
                _check(label, case, needed, free_bytes("nccl", rank), f"GPU {rank}")
        else:
            needed = sum(rank_bytes(case)) + PROCESS_BYTES * (case.ag + case.eg)
            _check(label, case, needed, free_bytes("gloo", 0), "this host")


def _label(cases: Sequence[Case], index: int) -> str:
    """What messages call a case: its schedule, and its number where there are several."""
    label = cases[index].schedule.label
    return label if len(cases) == 1 else f"schedule {index} ({label})"


def _check(label: str, case: Case, needed: int, free: int, place: str) -> None:
    if needed > free:
        raise InfeasibleError(
            f"{label}: {case.scenario.layers} layers of {case.model} at scale "
            f"{case.scale:g} on {case.ag}+{case.eg} ranks need {needed:,} bytes of memory on "
            f"{place} and {free:,} are free; use fewer layers or a smaller scale"
        )
