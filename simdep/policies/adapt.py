"""A scenario under its policy, and under another one.

What a file, a flag or a caller states wins. The set-up of a policy, which is what its paper has
besides the order (`Policy.setup`), fills only the fields that are left open. A field is open where
nobody named it (`Scenario.given`) and it holds its default.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from simdep.checks import InputError
from simdep.policies.registry import Policy, find
from simdep.scenario.spec import Deployment, Scenario

_PLACEMENT = ("shared_on", "dispatch", "a2e_dtype", "comm_sms", "comm_sms_from", "expert_gemm")
_GRANULARITY = ("r1", "r2", "micro_batches", "chunks", "merge_last", "order", "split")


@dataclass(frozen=True)
class SetUp:
    """A scenario whose open fields its policy has filled, and the fields that it filled."""

    scenario: Scenario
    filled: tuple[str, ...] = ()

    @property
    def assumptions(self) -> tuple[str, ...]:
        """One sentence that names what was filled; none where nothing was."""
        if not self.filled:
            return ()
        listed = ", ".join(self.filled)
        return (f"policy {self.scenario.policy}, as its paper has it: {listed}",)


@dataclass(frozen=True)
class Adapted:
    """A scenario, what differs from the one that it was made from besides the policy, and what its
    own policy has filled, in words."""

    scenario: Scenario
    changes: tuple[str, ...]
    assumptions: tuple[str, ...] = ()


def set_up(scenario: Scenario) -> SetUp:
    """The scenario with what its policy's paper has, where it leaves that open.

    An open r1 becomes the policy's base. Samples that are not stated are then r1 * m_a. Raises
    ValueError for an unknown policy, for stated samples that its r1 does not divide, and for a
    split that it does not have.
    """
    policy = find(scenario.policy)
    if scenario.has_model and policy.colocated != scenario.deployment.colocated:
        return SetUp(scenario)  # refused where the schedule is made
    deployment = _filled(scenario, scenario.deployment, policy)
    r1, split = _own_r1(scenario, policy), _own_split(scenario, policy)
    if deployment is scenario.deployment and (r1, split) == (scenario.r1, scenario.split):
        return SetUp(scenario)
    changed: dict[str, Any] = {"deployment": deployment, "split": split}
    if r1 != scenario.r1:
        changed |= _recut(scenario, policy, r1)
    complete = redrawn(replace(scenario, **changed), scenario)
    filled = [f"r1={r1}"] if r1 != scenario.r1 else []
    filled += [
        f"{name}={getattr(deployment, name)}"
        for name in policy.setup
        if name != "r1" and getattr(deployment, name) != getattr(scenario.deployment, name)
    ]
    return SetUp(complete, tuple(filled))


def adapted(
    scenario: Scenario,
    policy: str,
    *,
    split: tuple[int, int] | None = None,
    r1: int | None = None,
    r2: int | None = None,
    order: str | None = None,
) -> Adapted:
    """`scenario` under a policy, on as many GPUs.

    Groups become colocated GPUs and the other way round, divided as `split` (ag, eg) says, by
    default into halves. The samples of all GPUs stay as many as they are where whole samples allow
    it, else they become the nearest number that does. Parameters are those given, else those that
    the scenario states, if the policy has them, else the policy's base. The policy that the
    scenario itself states gets exactly what it states, as `set_up` has it. Raises InputError for an
    unknown policy, a split of another number of GPUs, and a scenario that does not allow it.
    """
    target, completed = find(policy), set_up(scenario)
    base = completed.scenario
    stated = {"r1": r1, "r2": r2, "order": order}
    parameters = {key: value for key, value in stated.items() if value is not None}
    if policy == scenario.policy and not _is_open(scenario, "policy"):
        same = _with_parameters(base, parameters)
        return Adapted(same, tuple(changes_between(base, same, target)), completed.assumptions)
    moved = _moved(scenario, base, target, split, parameters)
    before = replace(base, deployment=scenario.deployment, split=scenario.split)
    return Adapted(moved, tuple(changes_between(before, moved, target)))


def _with_parameters(base: Scenario, parameters: dict[str, Any]) -> Scenario:
    """The same scenario in another granularity or order."""
    changed = dict(parameters)
    if parameters.get("r1", base.r1) != base.r1:
        changed |= {"micro_batches": (), "chunks": ()}
    if parameters.get("r2", base.r2) != base.r2:
        changed["chunks"] = ()
    if not base.has_model:
        changed["workload"] = replace(base.workload, samples=parameters.get("r1", base.r1))
    return redrawn(replace(base, **changed), base)


def _moved(
    scenario: Scenario,
    base: Scenario,
    target: Policy,
    split: tuple[int, int] | None,
    parameters: dict[str, Any],
) -> Scenario:
    """The scenario under a policy that is not the one it states."""
    deployment = scenario.deployment
    if scenario.has_model:
        deployment = _placed(deployment, target, split)
    r1 = base.r1
    if "r1" not in target.parameters:
        r1 = target.r1
    elif "r1" not in scenario.given and not scenario.micro_batches:
        r1 = target.setup.get("r1", base.r1)
    fixed = {"r2": 1, "order": "ASAS"}
    chosen: dict[str, Any] = {"r1": r1} | {
        name: getattr(base, name) if name in target.parameters else value
        for name, value in fixed.items()
    }
    chosen |= parameters
    samples = _samples(scenario, base, deployment, chosen["r1"], fixed="r1" in parameters)
    same_r1 = chosen["r1"] == base.r1
    same_batches = same_r1 and samples == base.workload.samples
    same_chunks = same_r1 and "r2" in target.parameters and chosen["r2"] == base.r2
    by = scenario.split if scenario.split in target.splits else target.splits[0]
    moved = replace(
        base,
        deployment=_filled(scenario, deployment, target),
        workload=replace(base.workload, samples=samples),
        policy=target.name,
        micro_batches=base.micro_batches if same_batches else (),
        chunks=base.chunks if same_chunks and by == "token" else (),
        split=by,
        merge_last=base.merge_last and "merge_last" in target.parameters,
        **chosen,
    )
    return redrawn(moved, base)


def _is_open(scenario: Scenario, name: str) -> bool:
    """Whether nobody stated a field of the scenario or of its schedule."""
    default = Scenario.__dataclass_fields__[name].default
    return name not in scenario.given and getattr(scenario, name) == default


def states_samples(scenario: Scenario) -> bool:
    """Whether the samples of an AG GPU are stated; else they are r1 * m_a.

    Only a reader of files or flags names what is given: a `Workload` made in Python states them.
    """
    return not scenario.given or "samples" in scenario.given or bool(scenario.micro_batches)


def _filled(scenario: Scenario, deployment: Deployment, policy: Policy) -> Deployment:
    """The deployment with the set-up of a policy in the fields that the scenario leaves open; stage
    times alone say nothing of it."""
    if not policy.setup or not scenario.has_model:
        return deployment
    setup = policy.setup_on(sms_known=deployment.hardware.machine is not None)
    fields = Deployment.__dataclass_fields__
    return replace(
        deployment,
        **{
            name: value
            for name, value in setup.items()
            if name in fields
            and name not in scenario.given
            and getattr(deployment, name) == fields[name].default
        },
    )


def _own_r1(scenario: Scenario, policy: Policy) -> int:
    """The stated micro-batches, else those of the policy."""
    if scenario.micro_batches or not _is_open(scenario, "r1"):
        return scenario.r1
    r1: int = policy.setup.get("r1", policy.r1)
    return r1


def _own_split(scenario: Scenario, policy: Policy) -> str:
    """The stated split, else the first that the policy has."""
    if scenario.split in policy.splits or not _is_open(scenario, "split"):
        return scenario.split
    return policy.splits[0]


def _recut(scenario: Scenario, policy: Policy, r1: int) -> dict[str, Any]:
    """What changes with the r1 of a policy; raises InputError for samples that it can't divide."""
    samples = scenario.workload.samples
    if not states_samples(scenario):
        samples = r1 * scenario.m_a
    elif samples % r1:
        other = ", or give r1" if "r1" in policy.parameters else ""
        raise InputError(
            f"samples={samples}: policy {policy.name} has r1={r1} micro-batches, which does not "
            f"divide them; use a multiple of {r1}{other}"
        )
    chunks = scenario.chunks
    return {
        "r1": r1,
        "workload": replace(scenario.workload, samples=samples),
        "chunks": chunks * r1 if len(chunks) == 1 else chunks,
    }


def redrawn(scenario: Scenario, before: Scenario) -> Scenario:
    """The scenario with its routing drawn for the chunks that it has now."""
    if scenario.ranks is None or scenario.tokens_routed == before.tokens_routed:
        return scenario
    model = scenario.model
    ranks = scenario.ranks.redrawn(
        model.experts, top_k=model.top_k, tokens=scenario.tokens_routed, layers=scenario.layers
    )
    return replace(scenario, ranks=ranks)


def _placed(deployment: Deployment, target: Policy, split: tuple[int, int] | None) -> Deployment:
    """As many GPUs, colocated or in two groups as the policy has them."""
    n = deployment.gpus
    if target.colocated:
        if deployment.colocated:
            return deployment
        return replace(deployment, ag=n, eg=n, colocated=True, shared_on="ag", duplex="full")
    if split is None and not deployment.colocated:
        return deployment
    ag, eg = split or (n - n // 2, n // 2)
    if min(ag, eg) < 1 or ag + eg != n:
        raise InputError(f"{ag}:{eg} does not split {n} GPUs into two groups of at least 1")
    return replace(deployment, ag=ag, eg=eg, colocated=False, comm_sms_from="all")


def _samples(
    scenario: Scenario, base: Scenario, deployment: Deployment, r1: int, *, fixed: bool
) -> int:
    """Samples of a GPU with attention: a multiple of r1, in all as near to those of `base` as that
    allows.

    Where the scenario leaves both r1 and the samples open, m_a stays, as in `set_up`.
    """
    if not scenario.has_model:
        return r1
    is_open = _is_open(scenario, "r1") and not states_samples(scenario)
    if is_open and not fixed and _groups(deployment) == _groups(scenario.deployment):
        return r1 * base.m_a
    total = base.workload.samples * base.deployment.ag
    return r1 * max(1, round(total / (deployment.ag * r1)))


def changes_between(old: Scenario, new: Scenario, target: Policy) -> list[str]:
    """What differs; a granularity or an order that the policy itself determines is not listed."""
    changes = []
    if _groups(old.deployment) != _groups(new.deployment):
        changes.append(f"{_groups(old.deployment)} became {_groups(new.deployment)}")
    before, after = (s.workload.samples * s.deployment.ag for s in (old, new))
    if before != after and new.has_model:
        each = f"{new.workload.samples} on each GPU with attention"
        changes.append(f"{before} samples in all became {after}, {each}")
    free = {"order": "order" in target.parameters, "split": len(target.splits) > 1}
    shown = [name for name in _GRANULARITY if free.get(name, True)]
    for was, now, names in ((old, new, shown), (old.deployment, new.deployment, _PLACEMENT)):
        for name in names:
            before, after = getattr(was, name), getattr(now, name)
            if before != after:
                changes.append(f"{name}={_text(before)} became {_text(after)}")
    return changes


def _groups(deployment: Deployment) -> str:
    return (
        f"{deployment.gpus} colocated GPUs"
        if deployment.colocated
        else f"{deployment.ag}+{deployment.eg} GPUs"
    )


def _text(value: Any) -> str:
    if value is None:
        return "that of the workload"
    if not isinstance(value, tuple):
        return str(value)
    if not value:
        return "none"
    return "/".join(map(_text, value))
