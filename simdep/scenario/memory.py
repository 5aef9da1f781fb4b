"""Memory of a GPU of each group, byte by byte from the model's shapes, and what would make a
scenario fit.

The one rule is that everything counts at its largest at the same time, so that what fits here fits:

    weights       all layers run, the leading dense layers and the embeddings (in and out, untied) on every GPU of the
                  AG, the routed experts spread over the EG, ceil(E / eg) on the fullest GPU; norms and biases left out
    kv cache      keys and values of all samples of the GPU, in every layer as far back as it attends; latent for MLA
    streams       two rows a token (residual, and normalised for the experts), one more for the result of shared experts
    buffers       rows of all samples going out and coming back, each with room of its own in both groups (balanced)
    activations   the widest moment of one micro-batch on the AG, of one chunk on the EG; attention scores are never
                  written out, as in FlashAttention

All of it is in the data type of the workload, rows sent in theirs. Sizes are whole bytes, of
samples of one AG GPU.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from typing import Any

from simdep.scenario import work
from simdep.scenario.models import MLA, ModelSpec
from simdep.scenario.spec import Scenario
from simdep.units import human_bytes

RESERVE_BYTES = (
    10**9
)  # of each GPU, assumed: context of the driver, libraries of communication, logits, fragments
UNLIMITED = sys.maxsize  # what `largest_r1` gives where memory is not known
ASSUMED = "assumed: everything at its largest at the same time, balanced routing, attention scores never written out"


@dataclass(frozen=True)
class Group:
    """What one GPU of a group needs, in bytes by part, and has (None: not known, so not a
    limit)."""

    name: str
    gpus: int
    parts: dict[str, int]
    available_bytes: int | None

    @property
    def needed_bytes(self) -> int:
        return sum(self.parts.values())

    @property
    def missing_bytes(self) -> int:
        """Bytes by which it does not fit, 0 if it does."""
        return (
            0 if self.available_bytes is None else max(0, self.needed_bytes - self.available_bytes)
        )

    @property
    def used_fraction(self) -> float | None:
        return self.needed_bytes / self.available_bytes if self.available_bytes else None

    def __str__(self) -> str:
        largest = sorted(self.parts.items(), key=lambda part: -part[1])[:3]
        told = ", ".join(f"{name} {human_bytes(size)}" for name, size in largest if size)
        need = f"a GPU of the {self.name} needs {human_bytes(self.needed_bytes)} ({told})"
        if self.available_bytes is None:
            return need
        share = (
            f"{100 * self.used_fraction:.1f} %"
            if self.used_fraction is not None
            else "more than all"
        )
        if not self.missing_bytes:
            return f"{need}, {share} of the {human_bytes(self.available_bytes)} available"
        return f"{need} of {human_bytes(self.available_bytes)} available: {human_bytes(self.missing_bytes)} are missing"


@dataclass(frozen=True)
class Memory:
    """The groups of a scenario; `notes` say where the capacity comes from and what is assumed."""

    groups: tuple[Group, ...]
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def fits(self) -> bool:
        return not self.missing_bytes

    @property
    def missing_bytes(self) -> int:
        """Bytes missing on a GPU of the group that lacks most; 0 if everything fits."""
        return max(group.missing_bytes for group in self.groups)

    def to_dict(self) -> dict[str, Any]:
        groups = {
            group.name: {
                "gpus": group.gpus,
                "needed_bytes": group.needed_bytes,
                "available_bytes": group.available_bytes,
                "missing_bytes": group.missing_bytes,
                "parts_bytes": group.parts,
            }
            for group in self.groups
        }
        return {
            "fits": self.fits,
            "missing_bytes": self.missing_bytes,
            "groups": groups,
            "notes": list(self.notes),
        }


def memory(scenario: Scenario) -> Memory:
    """What a GPU of each group needs and has; colocated, there is one group, called GPU."""
    samples = max(
        scenario.workload.samples, max(scenario.ranks.batches, default=0) if scenario.ranks else 0
    )
    available, notes = available_bytes(scenario)
    fixed, each = _fixed(scenario, scenario.m_a, scenario.r2), _of_a_sample(scenario)
    groups = []
    for name, count in _groups(scenario).items():
        parts = fixed[name] | {part: samples * size for part, size in each[name].items()}
        groups.append(Group(name, count, parts, available))
    return Memory(tuple(groups), notes)


def largest_r1(scenario: Scenario, m_a: int, r2: int | None = None) -> int:
    """The most micro-batches of `m_a` samples each that fit, 0 if not even one does; `r2` defaults
    to the scenario's.

    A closed form: activations need as much whatever r1 is, all else grows with the samples.
    `UNLIMITED` where the memory of the GPU is not known.
    """
    available, _ = available_bytes(scenario)
    if available is None:
        return UNLIMITED
    fixed, each = _fixed(scenario, m_a, r2 or scenario.r2), _of_a_sample(scenario)
    room = (available - sum(fixed[name].values()) for name in fixed)
    need = (m_a * sum(each[name].values()) for name in fixed)
    return max(0, min(left // size for left, size in zip(room, need, strict=True)))


def available_bytes(scenario: Scenario) -> tuple[int | None, tuple[str, ...]]:
    """Bytes of one GPU that serving may use (None: not known), and what to say about them."""
    where = scenario.deployment
    if where.memory_gbytes is not None:
        return round(1e9 * where.memory_gbytes), (
            f"{where.memory_gbytes:g} GB of each GPU given",
            ASSUMED,
        )
    machine = where.hardware.machine
    if machine is None or "memory" not in machine.figures:
        unknown = f"memory of hardware {where.hardware.name} is not known and so no limit; give memory_gbytes"
        return None, (unknown, ASSUMED)
    size = machine.figures["memory"]
    kept = f"less {human_bytes(RESERVE_BYTES)} (assumed) for driver, communication libraries and fragments"
    source = f"{human_bytes(size.value)} of a {machine.name} ({size.label}), {kept}"
    return max(0, int(size.value) - RESERVE_BYTES), (source, ASSUMED)


def _groups(scenario: Scenario) -> dict[str, int]:
    where = scenario.deployment
    return {"GPU": where.ag} if where.colocated else {"AG": where.ag, "EG": where.eg}


def _fixed(scenario: Scenario, m_a: int, r2: int) -> dict[str, dict[str, int]]:
    """Bytes by group and part that do not depend on the number of micro-batches."""
    model, size, where = scenario.model, scenario.workload.element_bytes, scenario.deployment
    layers, dense = scenario.layers, _dense_layers(scenario)
    shared = 3 * model.hidden * model.shared_hidden
    attention = sum(k * n for k, n in model.attention.projections(model.hidden))
    held = {
        "attention weights": (layers + dense) * attention,
        "router weights": layers * model.hidden * model.experts,
        "dense layer weights": dense * 3 * model.hidden * model.dense_hidden,
        "embedding weights": 2 * model.vocab * model.hidden,
    }
    ag = held | {"shared expert weights": layers * shared}
    tokens = m_a * scenario.workload.tokens_per_sample
    ag["activations"] = tokens * _widest(scenario)
    local = -(-model.experts // where.eg)
    rows = work.experts(model, _largest_chunk(scenario, tokens, r2) * where.ag, where.eg)
    eg = {
        "expert weights": layers * local * model.expert_params,
        "chunk activations": math.ceil(_chunk_elements(rows)),
    }
    if where.shared_on == "eg" and not where.colocated:
        del ag["shared expert weights"]
        eg["shared expert weights"] = layers * shared
        eg["chunk activations"] += -(-tokens * where.ag // where.eg) * (
            2 * model.hidden + work.WEIGHTS * model.shared_hidden
        )
    return _by_group(scenario, ag, eg, size)


def _of_a_sample(scenario: Scenario) -> dict[str, dict[str, int]]:
    """Bytes by group and part that one more sample on every AG GPU needs."""
    model, load, where = scenario.model, scenario.workload, scenario.deployment
    context = load.seq_len + (load.phase == "decode")  # the new token is cached too
    kept = sum(
        model.attention.reach(layer, context)
        for layer in range(scenario.layers + _dense_layers(scenario))
    )
    rows = 2 + (model.has_shared and (where.shared_on == "ag" or where.colocated))
    sent = work.transfer(model, load.tokens_per_sample, where.ag, where.eg, where.dispatch)
    directions = [scenario.row_bytes(a2e) for a2e in (True, False)]
    ag = {
        "kv cache": kept * model.attention.kv_elements * load.element_bytes,
        "streams": rows * load.tokens_per_sample * model.hidden * load.element_bytes,
        "send and receive buffers": sum(math.ceil(sent.ag_bytes(size)) for size in directions),
    }
    eg = {"send and receive buffers": sum(math.ceil(sent.eg_bytes(size)) for size in directions)}
    return _by_group(scenario, ag, eg, 1)


def _by_group(
    scenario: Scenario, ag: dict[str, int], eg: dict[str, int], element_bytes: int
) -> dict[str, dict[str, int]]:
    ag, eg = ({part: count * element_bytes for part, count in group.items()} for group in (ag, eg))
    if not scenario.deployment.colocated:
        return {"AG": ag, "EG": eg}
    return {"GPU": {part: ag.get(part, 0) + eg.get(part, 0) for part in {**ag, **eg}}}


def _dense_layers(scenario: Scenario) -> int:
    """Layers without experts that the AG holds: the leading ones of the model, or those before each
    one with."""
    model = scenario.model
    return model.dense_layers if model.moe_every == 1 else scenario.layers * (model.moe_every - 1)


def _widest(scenario: Scenario) -> int:
    """Elements that one token has at most within a layer of the AG, besides its residual stream."""
    model, where = scenario.model, scenario.deployment
    moments = [_attention_width(model, decode=scenario.workload.phase == "decode"), model.experts]
    if where.shared_on == "ag":
        moments.append(work.WEIGHTS * model.shared_hidden)
    if model.dense_layers:
        moments.append(work.WEIGHTS * model.dense_hidden)
    return max(moments)


def _attention_width(model: ModelSpec, *, decode: bool) -> int:
    """Elements of the queries, keys, values and results of a token; absorbed MLA works on latent
    ones."""
    form = model.attention
    if isinstance(form, MLA):
        if decode:
            return form.heads * (2 * form.kv_rank + form.rope_dim) + form.kv_elements
        return 2 * form.heads * (form.k_dim + form.v_dim)
    return 2 * form.heads * form.head_dim + form.kv_elements


def _chunk_elements(rows: work.Experts) -> float:
    """Rows in and out of the experts of an EG GPU, and what the three products write between
    them."""
    return rows.copies * (2 * rows.hidden + work.WEIGHTS * rows.width)


def _largest_chunk(scenario: Scenario, tokens: int, r2: int) -> int:
    """Tokens of one AG GPU in the largest chunk of a micro-batch; groups of experts share out the
    rows likewise."""
    if scenario.merge_last:
        return tokens
    if scenario.chunks and r2 == scenario.r2:
        return min(
            tokens, math.ceil(tokens * max(max(shares) / sum(shares) for shares in scenario.chunks))
        )
    return -(-tokens // r2)
