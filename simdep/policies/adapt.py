"""The scenario of another policy, made from a given one: as many GPUs, the same work, as far as
both allow it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from simdep.policies.registry import Policy, find
from simdep.scenario.spec import Deployment, Scenario


@dataclass(frozen=True)
class Adapted:
    """A scenario, and in words what differs from the one that it was made from besides the
    policy."""

    scenario: Scenario
    changes: tuple[str, ...]


def adapted(
    scenario: Scenario,
    policy: str,
    *,
    split: tuple[int, int] | None = None,
    r1: int | None = None,
    r2: int | None = None,
    order: str | None = None,
) -> Adapted:
    """`scenario` under another policy, on as many GPUs.

    Groups become colocated GPUs and the other way round, divided as `split` (ag, eg) says, by
    default into halves. The samples of all GPUs stay as many as they are where whole samples allow
    it, else they are the nearest number that does. Degrees are those given, else the scenario's if
    the policy has them, else the policy's own; what the policy's paper has besides (`Policy.setup`)
    is set. Raises ValueError for an unknown policy, a split of another number of GPUs, and a
    scenario that does not allow it.
    """
    asked = find(policy)
    where = _set_up(_placed(scenario.deployment, asked, split), asked)
    fixed = {"r1": asked.r1, "r2": 1, "order": "ASAS"}
    own: dict[str, Any] = {
        key: getattr(scenario, key) if key in asked.takes else fixed[key] for key in fixed
    }
    own["r1"] = asked.setup.get("r1", own["r1"])
    given = {
        key: value
        for key, value in {"r1": r1, "r2": r2, "order": order}.items()
        if value is not None
    }
    degrees = own | given
    samples = _samples(scenario, where, degrees["r1"])
    kept = degrees["r1"] == scenario.r1 and samples == scenario.workload.samples
    cut = "r2" in asked.takes and degrees["r2"] == scenario.r2 and degrees["r1"] == scenario.r1
    by = scenario.split if scenario.split in asked.splits else asked.splits[0]
    found = replace(
        scenario,
        deployment=where,
        workload=replace(scenario.workload, samples=samples),
        policy=policy,
        micro_batches=scenario.micro_batches if kept else (),
        chunks=scenario.chunks if cut and by == "token" else (),
        split=by,
        merge_last=scenario.merge_last and "merge_last" in asked.takes,
        **degrees,
    )
    return Adapted(found, tuple(_changes(scenario, found, asked)))


def _placed(where: Deployment, asked: Policy, split: tuple[int, int] | None) -> Deployment:
    """As many GPUs, colocated or in two groups as the policy has them."""
    n = where.gpus
    if asked.colocated:
        return (
            where
            if where.colocated
            else replace(where, ag=n, eg=n, colocated=True, shared_on="ag", duplex="full")
        )
    if split is None and not where.colocated:
        return where
    ag, eg = split or (n - n // 2, n // 2)
    if min(ag, eg) < 1 or ag + eg != n:
        raise ValueError(f"{ag}:{eg} does not split {n} GPUs into two groups of at least 1")
    return replace(where, ag=ag, eg=eg, colocated=False, comm_sms_from="all")


def _set_up(where: Deployment, asked: Policy) -> Deployment:
    """With what the policy's paper has."""
    setup = asked.setup_on(sms_known=where.hardware.machine is not None)
    return replace(where, **{key: value for key, value in setup.items() if key != "r1"})


def _samples(scenario: Scenario, where: Deployment, r1: int) -> int:
    """Samples of a GPU with attention: a multiple of r1, in all as near to those of `scenario` as
    that allows."""
    total = scenario.workload.samples * scenario.deployment.ag
    return r1 * max(1, round(total / (where.ag * r1)))


def _changes(old: Scenario, new: Scenario, asked: Policy) -> list[str]:
    """What differs; a cut or an order that the policy itself determines is not told."""
    changes = []
    if _groups(old.deployment) != _groups(new.deployment):
        changes.append(f"{_groups(old.deployment)} became {_groups(new.deployment)}")
    before, after = (s.workload.samples * s.deployment.ag for s in (old, new))
    if before != after:
        changes.append(
            f"{before} samples in all became {after}, {new.workload.samples} on each GPU with attention"
        )
    free = {"order": "order" in asked.takes, "split": len(asked.splits) > 1}
    cut = [
        name
        for name in ("r1", "r2", "micro_batches", "chunks", "merge_last", "order", "split")
        if free.get(name, True)
    ]
    where = ("shared_on", "dispatch", "a2e_dtype", "comm_sms", "comm_sms_from", "expert_gemm")
    for was, now, names in ((old, new, cut), (old.deployment, new.deployment, where)):
        pairs = ((name, getattr(was, name), getattr(now, name)) for name in names)
        changes += [
            f"{name}={_word(one)} became {_word(other)}"
            for name, one, other in pairs
            if one != other
        ]
    return changes


def _groups(where: Deployment) -> str:
    return f"{where.gpus} colocated GPUs" if where.colocated else f"{where.ag}+{where.eg} GPUs"


def _word(value: Any) -> str:
    if isinstance(value, tuple):
        return (
            "/".join(_word(each) if isinstance(each, tuple) else str(each) for each in value)
            or "none"
        )
    return "that of the workload" if value is None else str(value)
