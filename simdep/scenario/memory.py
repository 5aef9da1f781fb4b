"""Memory of a GPU of each group, byte by byte from the model's shapes, and what would make a
scenario fit.

The one rule is that everything counts at its largest at the same time, so that what fits here fits:

    weights       all layers run, the leading dense layers and the embeddings (in and out, untied)
                  on every GPU of the AG, the routed experts spread over the EG, ceil(E / eg) on the
                  fullest GPU; norms and biases left out
    kv cache      keys and values of all samples of the GPU, in every layer as far back as it
                  attends; latent for MLA
    streams       two rows a token (residual, and normalised for the experts), one more for the
                  result of shared experts
    buffers       rows of all samples going out and coming back, each with room of its own in both
                  groups (balanced)
    activations   the widest moment of one micro-batch on the AG, of one chunk on the EG; attention
                  scores are never written out, as in FlashAttention

All of it is in the data type of the workload, rows sent in theirs. Sizes are whole bytes, of
samples of one AG GPU.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from simdep.arrays import IntArray
from simdep.checks import InputError
from simdep.scenario import work
from simdep.scenario.models import MLA, ModelSpec
from simdep.scenario.spec import Scenario
from simdep.units import human_bytes

# Of each GPU, assumed: context of the driver, libraries of communication, logits, fragments
RESERVE_BYTES = 10**9
MAX_BYTES = 2**50  # more than any GPU has: counts of bytes stay exact in 64 bits
UNLIMITED = sys.maxsize  # what `largest_r1` gives where memory is not known
ASSUMED = (
    "assumed: everything at its largest at the same time, balanced routing, attention scores "
    "never written out"
)

Count = Any  # an int, or an array of them
Needs = dict[str, dict[str, Count]]  # group -> part -> bytes


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
        available, missing = human_bytes(self.available_bytes), human_bytes(self.missing_bytes)
        return f"{need} of {available} available: {missing} are missing"


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
    samples = scenario.workload.samples
    if scenario.ranks:
        samples = max([samples, *scenario.ranks.batches])
    footprint = Footprint.of(scenario)
    activations = footprint.activations(scenario.m_a, scenario.r2)
    _, notes = available_bytes(scenario)
    groups = []
    for name, gpus in _groups(scenario).items():
        parts = footprint.weights[name] | activations[name]
        for part, size in footprint.sample[name].items():
            parts[part] = samples * size
        groups.append(Group(name, gpus, parts, footprint.available_bytes))
    return Memory(tuple(groups), notes)


def largest_r1(scenario: Scenario, m_a: int, r2: int | None = None) -> int:
    """The most micro-batches of `m_a` samples each that fit, 0 if not even one does.

    `r2` defaults to the scenario's. `Footprint.largest_r1` answers for many at once.
    """
    r2 = scenario.r2 if r2 is None else r2
    return int(Footprint.of(scenario).largest_r1(np.array(m_a), np.array(r2)))


@dataclass(frozen=True)
class Footprint:
    """Bytes that a GPU of each group needs, by what they grow with, and has.

    `weights` are constant, `sample` is for each sample of an AG GPU, `activations` follow from m_a
    and r2. Each maps a group to its parts in bytes. `available_bytes` is None where the memory is
    not known.
    """

    scenario: Scenario
    available_bytes: int | None
    weights: Needs
    sample: Needs

    @classmethod
    def of(cls, scenario: Scenario) -> Footprint:
        available, _ = available_bytes(scenario)
        return cls(scenario, available, _weights(scenario), _sample(scenario))

    def activations(self, m_a: Count, r2: Count) -> Needs:
        """Bytes by group and part of a micro-batch of `m_a` samples in r2 chunks, on arrays too."""
        scenario, deployment, model = self.scenario, self.scenario.deployment, self.scenario.model
        tokens = m_a * scenario.workload.tokens_per_sample
        chunk_tokens = _largest_chunk(scenario, tokens, r2)
        routed = chunk_tokens * deployment.ag * model.top_k / deployment.eg
        per_routed = 2 * model.hidden + work.WEIGHTS * model.expert_hidden
        expert = _ceil(routed * per_routed)
        if deployment.shared_on == "eg" and not deployment.colocated:
            per_token = 2 * model.hidden + work.WEIGHTS * model.shared_hidden
            expert = expert + -(-tokens * deployment.ag // deployment.eg) * per_token
        ag = {"activations": tokens * _widest(scenario)}
        eg = {"chunk activations": expert}
        return _by_group(scenario, ag, eg, scenario.workload.element_bytes)

    def missing_bytes(self, m_a: int, r2: int, r1: int) -> int:
        """Bytes missing on a GPU of the group that lacks most; 0 if everything fits."""
        if self.available_bytes is None:
            return 0
        needed = []
        for group, parts in self.activations(m_a, r2).items():
            constant = sum(self.weights[group].values()) + sum(parts.values())
            needed.append(constant + r1 * m_a * sum(self.sample[group].values()))
        return max(0, max(needed) - self.available_bytes)

    def largest_r1(self, m_a: IntArray, r2: IntArray) -> IntArray:
        """The most micro-batches of m_a samples in r2 chunks that fit, 0 where not even one does.

        Arrays of one shape in, one out. A closed form: activations need as much whatever r1 is,
        all else grows with the samples. `UNLIMITED` where the memory of the GPU is not known.
        """
        if self.available_bytes is None:
            return np.full_like(m_a, UNLIMITED)
        available = min(self.available_bytes, MAX_BYTES)
        samples = {group: sum(parts.values()) for group, parts in self.sample.items()}
        # Samples that alone exceed the memory stand for all larger numbers: products stay small
        m_a = np.minimum(m_a, 1 + available // max(samples.values()))
        activations = self.activations(m_a, r2)
        counts = []
        for group, parts in activations.items():
            free = available - sum(self.weights[group].values()) - sum(parts.values())
            counts.append(np.asarray(free // (m_a * samples[group])))
        largest: IntArray = np.maximum(0, np.minimum.reduce(counts))
        return largest

    def largest_m_a(self, r2: int) -> int:
        """The most samples of a micro-batch in at most r2 chunks that fit once, 0 if none do.

        Raises InputError where the memory of the GPU is not known.
        """
        if self.available_bytes is None:
            raise InputError(
                "memory is not known and so no limit on samples; give --samples or --memory-gbytes"
            )
        tokens = self.scenario.workload.tokens_per_sample

        def fits(m_a: int) -> bool:
            return bool(self.largest_r1(np.array(m_a), np.array(min(r2, m_a * tokens))))

        low, high = 0, 1
        while fits(high):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            if fits(middle):
                low = middle
            else:
                high = middle
        return low


def available_bytes(scenario: Scenario) -> tuple[int | None, tuple[str, ...]]:
    """Bytes of one GPU that serving may use (None: not known), and what to say about them."""
    deployment = scenario.deployment
    if deployment.memory_gbytes is not None:
        return round(1e9 * deployment.memory_gbytes), (
            f"{deployment.memory_gbytes:g} GB of each GPU given",
            ASSUMED,
        )
    machine = deployment.hardware.machine
    if machine is None or "memory" not in machine.figures:
        unknown = (
            f"memory of hardware {deployment.hardware.name} is not known and so no limit; give "
            "memory_gbytes"
        )
        return None, (unknown, ASSUMED)
    size = machine.figures["memory"]
    kept = (
        f"less {human_bytes(RESERVE_BYTES)} (assumed) for driver, communication libraries "
        "and fragments"
    )
    source = f"{human_bytes(size.value)} of a {machine.name} ({size.label}), {kept}"
    return max(0, int(size.value) - RESERVE_BYTES), (source, ASSUMED)


def _groups(scenario: Scenario) -> dict[str, int]:
    deployment = scenario.deployment
    return (
        {"GPU": deployment.ag}
        if deployment.colocated
        else {"AG": deployment.ag, "EG": deployment.eg}
    )


def _weights(scenario: Scenario) -> Needs:
    """Bytes by group and part, whatever the samples are."""
    model, deployment, layers = scenario.model, scenario.deployment, scenario.layers
    dense = _dense_layers(scenario)
    attention = sum(k * n for k, n in model.attention.projections(model.hidden))
    shared = {"shared expert weights": layers * 3 * model.hidden * model.shared_hidden}
    ag = {
        "attention weights": (layers + dense) * attention,
        "router weights": layers * model.hidden * model.experts,
        "dense layer weights": dense * 3 * model.hidden * model.dense_hidden,
        "embedding weights": 2 * model.vocab * model.hidden,
    }
    local_experts = model.local_experts(deployment.eg)
    eg = {"expert weights": layers * local_experts * model.expert_params}
    if deployment.shared_on == "eg" and not deployment.colocated:
        eg |= shared
    else:
        ag |= shared
    return _by_group(scenario, ag, eg, scenario.workload.element_bytes)


def _sample(scenario: Scenario) -> Needs:
    """Bytes by group and part that one more sample on every AG GPU needs."""
    model, load, deployment = scenario.model, scenario.workload, scenario.deployment
    context = load.seq_len + (load.phase == "decode")  # the new token is cached too
    layers = range(scenario.layers + _dense_layers(scenario))
    cached = sum(model.attention.span(layer, context) for layer in layers)
    shared_result = model.has_shared and (deployment.shared_on == "ag" or deployment.colocated)
    streams = 2 + shared_result
    sent = work.transfer(
        model, load.tokens_per_sample, deployment.ag, deployment.eg, deployment.dispatch
    )
    directions = [scenario.sent_element_bytes(a2e) for a2e in (True, False)]
    ag = {
        "kv cache": cached * model.attention.kv_elements * load.element_bytes,
        "streams": streams * load.tokens_per_sample * model.hidden * load.element_bytes,
        "send and receive buffers": sum(math.ceil(sent.ag_bytes(size)) for size in directions),
    }
    eg = {"send and receive buffers": sum(math.ceil(sent.eg_bytes(size)) for size in directions)}
    return _by_group(scenario, ag, eg, 1)


def _by_group(
    scenario: Scenario, ag: dict[str, Count], eg: dict[str, Count], element_bytes: int
) -> Needs:
    """Elements of both groups in bytes; of colocated GPUs, which are both, their sum."""
    ag_bytes = {part: count * element_bytes for part, count in ag.items()}
    eg_bytes = {part: count * element_bytes for part, count in eg.items()}
    if not scenario.deployment.colocated:
        return {"AG": ag_bytes, "EG": eg_bytes}
    for part, size in eg_bytes.items():
        ag_bytes[part] = ag_bytes[part] + size if part in ag_bytes else size
    return {"GPU": ag_bytes}


def _dense_layers(scenario: Scenario) -> int:
    """Layers without experts that the AG holds: the leading ones of the model, or those before each
    one with."""
    model = scenario.model
    return model.dense_layers if model.moe_every == 1 else scenario.layers * (model.moe_every - 1)


def _widest(scenario: Scenario) -> int:
    """Elements that one token has at most within a layer of the AG, besides its residual stream."""
    model, deployment = scenario.model, scenario.deployment
    moments = [_attention_width(model, decode=scenario.workload.phase == "decode"), model.experts]
    if deployment.shared_on == "ag":
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


def _largest_chunk(scenario: Scenario, tokens: Count, r2: Count) -> Count:
    """Tokens of one AG GPU in the largest chunk of a micro-batch.

    Groups of experts share the routed tokens out likewise.
    """
    if scenario.merge_last:
        return tokens
    even = -(-tokens // r2)
    if not scenario.chunks:
        return even
    share = max(max(shares) / sum(shares) for shares in scenario.chunks)
    uneven = np.minimum(tokens, _ceil(tokens * share))
    return np.where(r2 == scenario.r2, uneven, even)[()]


def _ceil(amount: Any) -> Count:
    return np.ceil(amount).astype(np.int64) if np.ndim(amount) else math.ceil(amount)
