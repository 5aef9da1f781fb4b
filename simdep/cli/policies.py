"""The command `policies`: every policy, and a small schedule of one."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from simdep.cli.output import emit, table
from simdep.cli.parser import add_json
from simdep.costs import HalvedTimes
from simdep.schedule import Schedule

if TYPE_CHECKING:
    from simdep.policies import Policy

HELP = "list the policies: what each does, its source, its parameters"
EXAMPLES = """
simdep policies
simdep policies two-batch-decode
simdep policies my_policy.py:backwards --json
"""


_EXAMPLE = HalvedTimes(attention=4, expert=2, a2e=1, e2a=1, shared=1, projection=2, core=2)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add_json(parser)
    parser.add_argument(
        "policy", nargs="?", help="show this policy, or FILE.py:NAME, with a small schedule"
    )


def run(args: argparse.Namespace) -> int:
    """`simdep policies [POLICY]`."""
    from simdep.policies import POLICIES, load_policy

    if args.policy is not None:
        _show(args, load_policy(args.policy))
        return 0
    groups = {
        "Two groups, AG and EG": [p for p in POLICIES.values() if not p.colocated],
        "Colocated, every GPU holds attention and experts": [
            p for p in POLICIES.values() if p.colocated
        ],
    }
    parts = [f"{heading}\n{_listed(policies)}" for heading, policies in groups.items()]
    rows = [_row(policy) for policies in groups.values() for policy in policies]
    emit(args, {"policies": rows}, parts)
    return 0


def _show(args: argparse.Namespace, policy: Policy) -> None:
    example = _example(policy)
    parts = [
        f"{policy.name}: {policy.summary}\nfrom {policy.source}",
        f"{example.label}, 2 layers:\n{example}",
    ]
    emit(args, _row(policy) | {"example": example.to_dict()}, parts)


def _row(policy: Policy) -> dict[str, Any]:
    return {
        "policy": policy.name,
        "summary": policy.summary,
        "source": policy.source,
        "colocated": policy.colocated,
        "parameters": list(policy.parameters),
        "micro_batches": None if "r1" in policy.parameters else policy.r1,
        "splits": list(policy.splits),
        "setup": dict(policy.setup),
    }


def _listed(policies: list[Policy]) -> str:
    rows = []
    for policy in policies:
        parameters = " ".join(policy.parameters)
        rows.append({"policy": policy.name, "parameters": parameters, "summary": policy.summary})
    return table(rows)


def _example(policy: Policy) -> Schedule:
    """Two layers, with two micro-batches and two chunks where the policy lets one choose."""
    from simdep.policies import Job

    r1 = 2 if "r1" in policy.parameters else policy.r1
    r2 = 2 if "r2" in policy.parameters else 1
    job = Job.regular(2, r1, r2, costs=_EXAMPLE)
    shared_on = policy.setup.get("shared_on", "ag")
    return policy.schedule(replace(job, split=policy.splits[0], shared_on=shared_on))
