"""What would make a scenario fit into memory: the least change of each setting, and pairs where
none is enough.

Every alternative is verified with `simdep.scenario.memory`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from simdep.checks import InfeasibleError
from simdep.hardware.gpus import gpus
from simdep.scenario.memory import RESERVE_BYTES, available_bytes, memory
from simdep.scenario.spec import Scenario
from simdep.units import human_bytes


@dataclass(frozen=True)
class Alternative:
    """A scenario that fits, and in words what it changes."""

    change: str
    scenario: Scenario


def require(scenario: Scenario) -> None:
    """Raise InfeasibleError, with what would make it fit, for a scenario that does not."""
    if not memory(scenario).fits:
        raise InfeasibleError(explain(scenario))


def explain(scenario: Scenario) -> str:
    """How full the GPUs are; where they are too full, by how much, and every change that alone
    would make it fit."""
    found = memory(scenario)
    lines = [*map(str, found.groups), *found.notes]
    if found.fits:
        return "; ".join(lines)
    lines = [str(group) for group in found.groups if group.missing_bytes]
    changes = [each.change for each in alternatives(scenario)]
    told = (
        "it fits with " + ", or with ".join(changes)
        if changes
        else "no change of one or two settings makes it fit"
    )
    return f"{'; '.join(lines)}; {told}"


def alternatives(scenario: Scenario) -> tuple[Alternative, ...]:
    """The least change of each setting that alone makes a scenario fit; pairs of changes where none
    does.

    Every one of them is verified with `memory`. None for a scenario that fits.
    """
    if memory(scenario).fits:
        return ()
    alone = [
        found for knob in _KNOBS for found in _least(knob, scenario, lambda each: memory(each).fits)
    ]
    return tuple(alone) or tuple(_pairs(scenario))


_ANY_R1, _ANY_R2 = (
    ("pppipe", "findep", "lookahead"),
    ("findep", "lookahead", "chunked", "single-batch"),
)  # policies
Changed = tuple[str, Scenario]
Knob = Callable[
    [Scenario], tuple[int, Callable[[int], Changed]]
]  # steps 1 to n of one setting, ever smaller in need


def _least(
    knob: Knob, scenario: Scenario, good: Callable[[Scenario], bool]
) -> Iterator[Alternative]:
    """The first step of a setting whose scenario is good, if there is one; every further step needs
    less memory."""
    steps, at = knob(scenario)
    if steps < 1 or not good(at(steps)[1]):
        return
    low, high = 0, steps
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if good(at(middle)[1]) else (middle, high)
    yield Alternative(*at(high))


def _pairs(scenario: Scenario) -> Iterator[Alternative]:
    """Two changes: the least one that makes one group fit, and the least one that makes the rest
    fit."""
    lacking = [group.name for group in memory(scenario).groups if group.missing_bytes]
    found: set[frozenset[str]] = set()
    for first in _KNOBS:
        for name in lacking:

            def group_fits(each: Scenario, name: str = name) -> bool:
                return not next(
                    group.missing_bytes for group in memory(each).groups if group.name == name
                )

            for step in _least(first, scenario, group_fits):
                for second in _KNOBS:
                    for both in _least(second, step.scenario, lambda each: memory(each).fits):
                        pair = frozenset((step.change, both.change))
                        if second is not first and pair not in found:
                            found.add(pair)
                            yield Alternative(f"{step.change} and {both.change}", both.scenario)


def _plain(scenario: Scenario, **changes: Any) -> Scenario:
    """The scenario with changed samples, r1, seq_len and the like; an uneven cut becomes an even
    one."""
    load = {key: changes.pop(key) for key in ("samples", "seq_len", "dtype") if key in changes}
    where = {
        key: changes.pop(key)
        for key in ("ag", "eg", "memory_gbytes", "shared_on")
        if key in changes
    }
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
        change = (
            f"m_a = {m_a} in place of {scenario.m_a} ({scenario.r1 * m_a} samples on an AG GPU)"
        )
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
    available, _ = available_bytes(scenario)
    sizes = sorted(
        (int(gpu.figures["memory"].value), name)
        for name, gpu in gpus().items()
        if "memory" in gpu.figures
    )
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
