"""Memory of a GPU of each group, byte by byte from the model's shapes, and what would make a scenario fit.

The one rule is that everything counts at its largest at the same time, so that what fits here fits:

    weights       all layers run, the leading dense layers and the embeddings (in and out, untied) on every GPU of the
                  AG, the routed experts spread over the EG, ceil(E / eg) on the fullest GPU; norms and biases left out
    kv cache      keys and values of all samples of the GPU, in every layer as far back as it attends; latent for MLA
    streams       two rows a token (residual, and normalised for the experts), one more for the result of shared experts
    buffers       rows of all samples going out and coming back, each with room of its own in both groups (balanced)
    activations   the widest moment of one micro-batch on the AG, of one chunk on the EG; attention scores are never
                  written out, as in FlashAttention

All of it is in the data type of the workload, rows sent in theirs. Sizes are whole bytes, of samples of one AG GPU.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from simdep import work
from simdep.checks import InfeasibleError
from simdep.gpus import gpus
from simdep.models import MLA, ModelSpec
from simdep.scenario import Scenario

RESERVE_BYTES = 10**9  # of each GPU, assumed: context of the driver, libraries of communication, logits, fragments
UNLIMITED = sys.maxsize  # what `largest_r1` gives where memory is not known
ASSUMED = "assumed: everything at its largest at the same time, balanced routing, attention scores never written out"


@dataclass(frozen=True)
class Group:
    """What one GPU of a group needs, in bytes by part, and has (None: not known, so not a limit)."""

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
        return 0 if self.available_bytes is None else max(0, self.needed_bytes - self.available_bytes)

    @property
    def used_fraction(self) -> float | None:
        return self.needed_bytes / self.available_bytes if self.available_bytes else None

    def __str__(self) -> str:
        largest = sorted(self.parts.items(), key=lambda part: -part[1])[:3]
        told = ", ".join(f"{name} {human_bytes(size)}" for name, size in largest if size)
        need = f"a GPU of the {self.name} needs {human_bytes(self.needed_bytes)} ({told})"
        if self.available_bytes is None:
            return need
        share = f"{100 * self.used_fraction:.1f} %" if self.used_fraction is not None else "more than all"
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
        return {"fits": self.fits, "missing_bytes": self.missing_bytes, "groups": groups, "notes": list(self.notes)}


@dataclass(frozen=True)
class Alternative:
    """A scenario that fits, and in words what it changes."""

    change: str
    scenario: Scenario


def memory(scenario: Scenario) -> Memory:
    """What a GPU of each group needs and has; colocated, there is one group, called GPU."""
    samples = max(scenario.workload.samples, max(scenario.ranks.batches, default=0) if scenario.ranks else 0)
    available, notes = _available(scenario)
    fixed, each = _fixed(scenario, scenario.m_a, scenario.r2), _of_a_sample(scenario)
    groups = []
    for name, count in _groups(scenario).items():
        parts = fixed[name] | {part: samples * size for part, size in each[name].items()}
        groups.append(Group(name, count, parts, available))
    return Memory(tuple(groups), notes)


def largest_r1(scenario: Scenario, m_a: int, r2: int | None = None) -> int:
    """The most micro-batches of `m_a` samples each that fit, 0 if not even one does; `r2` defaults to the scenario's.

    A closed form: activations need as much whatever r1 is, all else grows with the samples. `UNLIMITED` where the
    memory of the GPU is not known.
    """
    available, _ = _available(scenario)
    if available is None:
        return UNLIMITED
    fixed, each = _fixed(scenario, m_a, r2 or scenario.r2), _of_a_sample(scenario)
    room = (available - sum(fixed[name].values()) for name in fixed)
    need = (m_a * sum(each[name].values()) for name in fixed)
    return max(0, min(left // size for left, size in zip(room, need, strict=True)))


def require(scenario: Scenario) -> None:
    """Raise InfeasibleError, with what would make it fit, for a scenario that does not."""
    if not memory(scenario).fits:
        raise InfeasibleError(explain(scenario))


def explain(scenario: Scenario) -> str:
    """How full the GPUs are; where they are too full, by how much, and every change that alone would make it fit."""
    found = memory(scenario)
    lines = [*map(str, found.groups), *found.notes]
    if found.fits:
        return "; ".join(lines)
    lines = [str(group) for group in found.groups if group.missing_bytes]
    changes = [each.change for each in alternatives(scenario)]
    told = "it fits with " + ", or with ".join(changes) if changes else "no change of one or two settings makes it fit"
    return f"{'; '.join(lines)}; {told}"


def alternatives(scenario: Scenario) -> tuple[Alternative, ...]:
    """The least change of each setting that alone makes a scenario fit; pairs of changes where none does.

    Every one of them is verified with `memory`. None for a scenario that fits.
    """
    if memory(scenario).fits:
        return ()
    alone = [found for knob in _KNOBS for found in _least(knob, scenario, lambda each: memory(each).fits)]
    return tuple(alone) or tuple(_pairs(scenario))


def human_bytes(size: float) -> str:
    """A size with the unit that reads best, decimal as data sheets count."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if abs(size) >= unit:
            return f"{size / unit:.4g} {name}"
    return f"{size:.0f} bytes"


def _available(scenario: Scenario) -> tuple[int | None, tuple[str, ...]]:
    """Bytes of one GPU that serving may use, and what to say about them."""
    where = scenario.deployment
    if where.memory_gbytes is not None:
        return round(1e9 * where.memory_gbytes), (f"{where.memory_gbytes:g} GB of each GPU given", ASSUMED)
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
    eg = {"expert weights": layers * local * model.expert_params, "chunk activations": math.ceil(_chunk_elements(rows))}
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
    kept = sum(model.attention.reach(layer, context) for layer in range(scenario.layers + _dense_layers(scenario)))
    rows = 2 + (model.has_shared and (where.shared_on == "ag" or where.colocated))
    sent = work.transfer(model, load.tokens_per_sample, where.ag, where.eg, where.sending)
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
    """Layers without experts that the AG holds: the leading ones of the model, or those before each one with."""
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
    """Elements of the queries, keys, values and results of a token; absorbed MLA works on latent ones."""
    form = model.attention
    if isinstance(form, MLA):
        if decode:
            return form.heads * (2 * form.kv_rank + form.rope_dim) + form.kv_elements
        return 2 * form.heads * (form.k_dim + form.v_dim)
    return 2 * form.heads * form.head_dim + form.kv_elements


def _chunk_elements(rows: work.Experts) -> float:
    """Rows in and out of the experts of an EG GPU, and what the three products write between them."""
    return rows.copies * (2 * rows.hidden + work.WEIGHTS * rows.width)


def _largest_chunk(scenario: Scenario, tokens: int, r2: int) -> int:
    """Tokens of one AG GPU in the largest chunk of a micro-batch; groups of experts share out the rows likewise."""
    if scenario.merge_last:
        return tokens
    if scenario.chunks and r2 == scenario.r2:
        return min(tokens, math.ceil(tokens * max(max(shares) / sum(shares) for shares in scenario.chunks)))
    return -(-tokens // r2)


_ANY_R1, _ANY_R2 = ("pppipe", "findep", "lookahead"), ("findep", "lookahead", "chunked", "single-batch")  # policies
Changed = tuple[str, Scenario]
Knob = Callable[[Scenario], tuple[int, Callable[[int], Changed]]]  # steps 1 to n of one setting, ever smaller in need


def _least(knob: Knob, scenario: Scenario, good: Callable[[Scenario], bool]) -> Iterator[Alternative]:
    """The first step of a setting whose scenario is good, if there is one; every further step needs less memory."""
    steps, at = knob(scenario)
    if steps < 1 or not good(at(steps)[1]):
        return
    low, high = 0, steps
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if good(at(middle)[1]) else (middle, high)
    yield Alternative(*at(high))


def _pairs(scenario: Scenario) -> Iterator[Alternative]:
    """Two changes: the least one that makes one group fit, and the least one that makes the rest fit."""
    lacking = [group.name for group in memory(scenario).groups if group.missing_bytes]
    found: set[frozenset[str]] = set()
    for first in _KNOBS:
        for name in lacking:

            def group_fits(each: Scenario, name: str = name) -> bool:
                return not next(group.missing_bytes for group in memory(each).groups if group.name == name)

            for step in _least(first, scenario, group_fits):
                for second in _KNOBS:
                    for both in _least(second, step.scenario, lambda each: memory(each).fits):
                        pair = frozenset((step.change, both.change))
                        if second is not first and pair not in found:
                            found.add(pair)
                            yield Alternative(f"{step.change} and {both.change}", both.scenario)


def _plain(scenario: Scenario, **changes: Any) -> Scenario:
    """The scenario with changed samples, r1, seq_len and the like; an uneven cut becomes an even one."""
    load = {key: changes.pop(key) for key in ("samples", "seq_len", "dtype") if key in changes}
    where = {key: changes.pop(key) for key in ("ag", "eg", "memory_gbytes", "shared_on") if key in changes}
    return replace(
        scenario,
        workload=replace(scenario.workload, **load),
        deployment=replace(scenario.deployment, **where),
        ranks=None,
        micro_batches=(),
        chunks=(),
        **changes,
    )


def _fewer_micro_batches(scenario: Scenario) -> tuple[int, Callable[[int], Changed]]:
    def at(step: int) -> Changed:
        r1 = scenario.r1 - step
        change = f"r1 = {r1} in place of {scenario.r1} ({r1 * scenario.m_a} samples on an AG GPU)"
        return change, _plain(scenario, r1=r1, samples=r1 * scenario.m_a)

    return (scenario.r1 - 1 if scenario.policy in _ANY_R1 else 0), at


def _smaller_micro_batches(scenario: Scenario) -> tuple[int, Callable[[int], Changed]]:
    def at(step: int) -> Changed:
        m_a = scenario.m_a - step
        change = f"m_a = {m_a} in place of {scenario.m_a} ({scenario.r1 * m_a} samples on an AG GPU)"
        return change, _plain(scenario, samples=scenario.r1 * m_a)

    least = -(-scenario.r2 // scenario.workload.tokens_per_sample)  # a chunk holds at least 1 token
    return scenario.m_a - least, at


def _shorter_context(scenario: Scenario) -> tuple[int, Callable[[int], Changed]]:
    seq_len = scenario.workload.seq_len
    least = 1 if scenario.workload.phase == "decode" else -(-scenario.r2 // scenario.m_a)
    grain = 64 if seq_len > 1024 else 1  # nobody asks for a context of 3,971 tokens

    def at(step: int) -> Changed:
        shorter = max(least, (seq_len - 1) // grain * grain - (step - 1) * grain)
        return f"seq_len = {shorter} in place of {seq_len}", _plain(scenario, seq_len=shorter)

    return -(-(seq_len - least) // grain), at


def _narrower_numbers(scenario: Scenario) -> tuple[int, Callable[[int], Changed]]:
    dtype = scenario.workload.dtype
    narrower = {"fp32": ("bf16", "fp8"), "bf16": ("fp8",)}.get(dtype, ())

    def at(step: int) -> Changed:
        change = f"dtype {narrower[step - 1]} in place of {dtype}"
        return change, _plain(scenario, dtype=narrower[step - 1])

    return len(narrower), at


def _more_gpus(scenario: Scenario) -> tuple[int, Callable[[int], Changed]]:
    """More GPUs where there is one group: experts are spread out further."""
    count = scenario.deployment.ag

    def at(step: int) -> Changed:
        more = count + step
        return f"{more} GPUs in place of {count}", _plain(scenario, ag=more, eg=more)

    return (scenario.model.experts - count if scenario.deployment.colocated else 0), at


def _more_expert_gpus(scenario: Scenario) -> tuple[int, Callable[[int], Changed]]:
    eg = scenario.deployment.eg

    def at(step: int) -> Changed:
        return f"eg = {eg + step} in place of {eg}", _plain(scenario, eg=eg + step)

    return (0 if scenario.deployment.colocated else scenario.model.experts - eg), at


def _more_attention_gpus(scenario: Scenario) -> tuple[int, Callable[[int], Changed]]:
    """More AG GPUs for at least the same samples in all: fewer on each of them."""
    where = scenario.deployment
    total = where.ag * scenario.m_a  # samples of a micro-batch of the whole AG
    least = -(-scenario.r2 // scenario.workload.tokens_per_sample)

    def at(step: int) -> Changed:
        m_a = scenario.m_a - step
        ag = -(-total // m_a)
        change = f"ag = {ag} in place of {where.ag} (m_a = {m_a} for the same samples in all)"
        return change, _plain(scenario, ag=ag, samples=scenario.r1 * m_a)

    return (0 if where.colocated else scenario.m_a - least), at


def _fewer_layers(scenario: Scenario) -> tuple[int, Callable[[int], Changed]]:
    def at(step: int) -> Changed:
        layers = scenario.layers - step
        return f"{layers} layers in place of {scenario.layers}", _plain(scenario, layers=layers)

    return scenario.layers - 1, at


def _shared_experts_elsewhere(scenario: Scenario) -> tuple[int, Callable[[int], Changed]]:
    where = scenario.deployment
    other = "ag" if where.shared_on == "eg" else "eg"

    def at(_: int) -> Changed:
        return f"the shared experts on the {other.upper()}", _plain(scenario, shared_on=other)

    return int(scenario.model.has_shared and not where.colocated), at


def _smaller_chunks(scenario: Scenario) -> tuple[int, Callable[[int], Changed]]:
    def at(step: int) -> Changed:
        r2 = scenario.r2 + step
        return f"r2 = {r2} in place of {scenario.r2}", _plain(scenario, r2=r2)

    free = scenario.policy in _ANY_R2 and not scenario.merge_last and scenario.split == "token"
    return (scenario.tokens - scenario.r2 if free else 0), at


def _larger_gpus(scenario: Scenario) -> tuple[int, Callable[[int], Changed]]:
    available, _ = _available(scenario)
    sizes = sorted((int(gpu.figures["memory"].value), name) for name, gpu in gpus().items() if "memory" in gpu.figures)
    larger = [each for each in sizes if each[0] - RESERVE_BYTES > (available or 0)]

    def at(step: int) -> Changed:
        size, name = larger[step - 1]
        change = f"GPUs of {human_bytes(size)}, such as {name}"
        return change, _plain(scenario, memory_gbytes=(size - RESERVE_BYTES) / 1e9)

    return len(larger), at


_KNOBS: tuple[Knob, ...] = (
    _fewer_micro_batches,
    _smaller_micro_batches,
    _shorter_context,
    _narrower_numbers,
    _smaller_chunks,
    _more_gpus,
    _more_expert_gpus,
    _more_attention_gpus,
    _shared_experts_elsewhere,
    _fewer_layers,
    _larger_gpus,
)
