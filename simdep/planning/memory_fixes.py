"""What would make a scenario fit into memory: the smallest sufficient change of each setting, and
pairs of changes where none is enough.

Every alternative is verified with `simdep.scenario.memory`. Nearest are those that change a setting
by the smallest share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from simdep.hardware.gpus import gpus
from simdep.prediction import Prediction
from simdep.scenario.fields import ELEMENT_BYTES
from simdep.scenario.memory import RESERVE_BYTES, available_bytes, memory
from simdep.scenario.spec import Scenario
from simdep.units import human_bytes

SHOWN = 3  # alternatives that an explanation lists
NARROWER = {"fp32": ("bf16", "fp8"), "bf16": ("fp8",), "fp8": ()}  # data types of fewer bytes
ANY_R1 = ("pppipe", "findep", "lookahead")  # policies with any number of micro-batches
ANY_R2 = ("findep", "lookahead", "chunked", "single-batch")  # and of chunks


@dataclass(frozen=True)
class Alternative:
    """A scenario that fits, what it changes, and by which share of the setting."""

    change: str
    scenario: Scenario
    share: float


@dataclass(frozen=True)
class Reduction:
    """Changes of one setting, from step 1 to `count`; each step needs less memory than the one
    before."""

    count: int
    at: Callable[[int], Alternative]

    def first(self, fits: Callable[[Scenario], bool]) -> Iterator[Alternative]:
        """The first step whose scenario fits, if there is one."""
        if self.count < 1 or not fits(self.at(self.count).scenario):
            return
        low, high = 0, self.count
        while high - low > 1:
            middle = (low + high) // 2
            if fits(self.at(middle).scenario):
                high = middle
            else:
                low = middle
        yield self.at(high)


def explanation(scenario: Scenario) -> list[str]:
    """How full the GPUs are; where they are too full, by how much, and in a last line the nearest
    changes that would make it fit."""
    status = memory(scenario)
    if status.fits:
        return [*map(str, status.groups), *status.notes]
    lines = [str(group) for group in status.groups if group.missing_bytes]
    return [*lines, _ways_out(scenario)]


def missing_memory(prediction: Prediction) -> str:
    """That a scenario does not fit into the memory of its GPUs, what these need and have, and the
    nearest ways out, in one sentence; "" for one that fits, or whose sizes are not known."""
    if not prediction.results["memory_missing_bytes"]:
        return ""
    lacking = []
    for group in memory(prediction.scenario).groups:
        if group.missing_bytes and group.available_bytes is not None:
            needed, available = human_bytes(group.needed_bytes), human_bytes(group.available_bytes)
            lacking.append(f"a GPU of the {group.name} needs {needed} and has {available}")
    return f"it does not fit into memory: {', '.join(lacking)}; {_ways_out(prediction.scenario)}"


def _ways_out(scenario: Scenario) -> str:
    """The nearest changes that would make it fit."""
    changes = [alternative.change for alternative in alternatives(scenario)[:SHOWN]]
    if changes:
        return "it fits with " + ", or with ".join(changes)
    return "no change of one or two settings makes it fit"


def alternatives(scenario: Scenario) -> tuple[Alternative, ...]:
    """The smallest change of each setting that alone makes a scenario fit, nearest first; pairs of
    changes where none does.

    None for a scenario that fits.
    """
    if _fits(scenario):
        return ()
    single = [fix for setting in SETTINGS for fix in setting(scenario).first(_fits)]
    return tuple(sorted(single or _pairs(scenario), key=lambda fix: fix.share))


def _fits(scenario: Scenario) -> bool:
    return memory(scenario).fits


def _pairs(scenario: Scenario) -> Iterator[Alternative]:
    """Two changes: the smallest one that makes one group fit, then one that makes the rest fit."""
    lacking = [group.name for group in memory(scenario).groups if group.missing_bytes]
    pairs: set[frozenset[str]] = set()
    for first in SETTINGS:
        for name in lacking:
            for step in first(scenario).first(_group_fits(name)):
                for second in SETTINGS:
                    if second is first:
                        continue
                    for fix in second(step.scenario).first(_fits):
                        pair = frozenset((step.change, fix.change))
                        if pair not in pairs:
                            pairs.add(pair)
                            change = f"{step.change} and {fix.change}"
                            yield Alternative(change, fix.scenario, step.share + fix.share)


def _group_fits(name: str) -> Callable[[Scenario], bool]:
    def fits(scenario: Scenario) -> bool:
        missing = {group.name: group.missing_bytes for group in memory(scenario).groups}
        return not missing[name]

    return fits


def _changed(scenario: Scenario, **changes: Any) -> Scenario:
    """The scenario with other samples, r1, seq_len and the like, in equal micro-batches and
    chunks."""
    load = {name: changes.pop(name) for name in ("samples", "seq_len", "dtype") if name in changes}
    gpus = {
        name: changes.pop(name)
        for name in ("ag", "eg", "memory_gbytes", "shared_on")
        if name in changes
    }
    return replace(
        scenario,
        workload=replace(scenario.workload, **load),
        deployment=replace(scenario.deployment, **gpus),
        ranks=None,
        micro_batches=(),
        chunks=(),
        **changes,
    )


def _fewer_micro_batches(scenario: Scenario) -> Reduction:
    def at(step: int) -> Alternative:
        r1 = scenario.r1 - step
        samples = r1 * scenario.m_a
        change = f"r1 = {r1} in place of {scenario.r1} ({samples} samples on an AG GPU)"
        return Alternative(change, _changed(scenario, r1=r1, samples=samples), step / scenario.r1)

    return Reduction(scenario.r1 - 1 if scenario.policy in ANY_R1 else 0, at)


def _smaller_micro_batches(scenario: Scenario) -> Reduction:
    def at(step: int) -> Alternative:
        m_a = scenario.m_a - step
        samples = scenario.r1 * m_a
        change = f"m_a = {m_a} in place of {scenario.m_a} ({samples} samples on an AG GPU)"
        return Alternative(change, _changed(scenario, samples=samples), step / scenario.m_a)

    return Reduction(scenario.m_a - _fewest_samples(scenario), at)


def _fewest_samples(scenario: Scenario) -> int:
    """Samples of a micro-batch whose chunks have at least a token each."""
    return -(-scenario.r2 // scenario.workload.tokens_per_sample)


def _shorter_context(scenario: Scenario) -> Reduction:
    seq_len = scenario.workload.seq_len
    shortest = 1 if scenario.workload.phase == "decode" else -(-scenario.r2 // scenario.m_a)
    grain = 64 if seq_len > 1024 else 1  # nobody asks for a context of 3,971 tokens

    def at(step: int) -> Alternative:
        shorter = max(shortest, (seq_len - 1) // grain * grain - (step - 1) * grain)
        change = f"seq_len = {shorter} in place of {seq_len}"
        return Alternative(change, _changed(scenario, seq_len=shorter), 1 - shorter / seq_len)

    return Reduction(-(-(seq_len - shortest) // grain), at)


def _narrower_numbers(scenario: Scenario) -> Reduction:
    dtype = scenario.workload.dtype

    def at(step: int) -> Alternative:
        narrower = NARROWER[dtype][step - 1]
        share = 1 - ELEMENT_BYTES[narrower] / ELEMENT_BYTES[dtype]
        change = f"dtype {narrower} in place of {dtype}"
        return Alternative(change, _changed(scenario, dtype=narrower), share)

    return Reduction(len(NARROWER[dtype]), at)


def _more_gpus(scenario: Scenario) -> Reduction:
    """More GPUs where there is one group: experts are spread out further."""
    count = scenario.deployment.ag

    def at(step: int) -> Alternative:
        more = count + step
        change = f"{more} GPUs in place of {count}"
        return Alternative(change, _changed(scenario, ag=more, eg=more), step / count)

    return Reduction(scenario.model.experts - count if scenario.deployment.colocated else 0, at)


def _more_expert_gpus(scenario: Scenario) -> Reduction:
    eg = scenario.deployment.eg

    def at(step: int) -> Alternative:
        change = f"eg = {eg + step} in place of {eg}"
        return Alternative(change, _changed(scenario, eg=eg + step), step / eg)

    return Reduction(0 if scenario.deployment.colocated else scenario.model.experts - eg, at)


def _more_attention_gpus(scenario: Scenario) -> Reduction:
    """More AG GPUs for at least the same samples in all: fewer on each of them."""
    deployment = scenario.deployment
    total = deployment.ag * scenario.m_a  # samples of a micro-batch of the whole AG

    def at(step: int) -> Alternative:
        m_a = scenario.m_a - step
        ag = -(-total // m_a)
        change = f"ag = {ag} in place of {deployment.ag} (m_a = {m_a} for the same samples in all)"
        changed = _changed(scenario, ag=ag, samples=scenario.r1 * m_a)
        return Alternative(change, changed, ag / deployment.ag - 1)

    return Reduction(0 if deployment.colocated else scenario.m_a - _fewest_samples(scenario), at)


def _fewer_layers(scenario: Scenario) -> Reduction:
    """Of the model, which makes it another one: the last resort."""

    def at(step: int) -> Alternative:
        layers = scenario.layers - step
        change = f"{layers} layers in place of {scenario.layers}"
        return Alternative(change, _changed(scenario, layers=layers), 100 + step / scenario.layers)

    return Reduction(scenario.layers - 1, at)


def _shared_experts_elsewhere(scenario: Scenario) -> Reduction:
    deployment = scenario.deployment
    other = "ag" if deployment.shared_on == "eg" else "eg"

    def at(_: int) -> Alternative:
        change = f"the shared experts on the {other.upper()}"
        return Alternative(change, _changed(scenario, shared_on=other), 0)

    return Reduction(int(scenario.model.has_shared and not deployment.colocated), at)


def _smaller_chunks(scenario: Scenario) -> Reduction:
    def at(step: int) -> Alternative:
        r2 = scenario.r2 + step
        change = f"r2 = {r2} in place of {scenario.r2}"
        return Alternative(change, _changed(scenario, r2=r2), step / r2)

    chosen = scenario.policy in ANY_R2 and scenario.split == "token" and not scenario.merge_last
    return Reduction(scenario.tokens - scenario.r2 if chosen else 0, at)


def _larger_gpus(scenario: Scenario) -> Reduction:
    available = available_bytes(scenario)[0] or 1
    sizes = []
    for name, gpu in gpus().items():
        if "memory" in gpu.figures:
            sizes.append((int(gpu.figures["memory"].value), name))
    larger = sorted(entry for entry in sizes if entry[0] - RESERVE_BYTES > available)

    def at(step: int) -> Alternative:
        size, name = larger[step - 1]
        usable = size - RESERVE_BYTES
        change = f"GPUs of {human_bytes(size)}, such as {name}"
        changed = _changed(scenario, memory_gbytes=usable / 1e9)
        return Alternative(change, changed, usable / available - 1)

    return Reduction(len(larger), at)


SETTINGS: tuple[Callable[[Scenario], Reduction], ...] = (
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
