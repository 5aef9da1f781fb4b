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
    from simdep.policies import POLICIES, load

    if args.policy is None:
        listed = sorted(POLICIES.values(), key=lambda policy: policy.colocated)
        parts = (
            _rows([each for each in listed if each.colocated is side]) for side in (False, True)
        )
        heads = ("Two groups, AG and EG", "Colocated, every GPU holds attention and experts")
        shown = [f"{head}\n{rows}" for head, rows in zip(heads, parts, strict=True)]
        emit(args, {"policies": list(map(_row, listed))}, shown)
        return 0
    chosen = load(args.policy)
    example = _example(chosen)
    told = [
        f"{chosen.name}: {chosen.summary}\nfrom {chosen.source}",
        f"{example.label}, 2 layers:\n{example}",
    ]
    emit(args, _row(chosen) | {"example": example.to_dict()}, told)
    return 0


def _row(policy: Policy) -> dict[str, Any]:
    return {
        "policy": policy.name,
        "summary": policy.summary,
        "source": policy.source,
        "colocated": policy.colocated,
        "takes": list(policy.takes),
        "micro_batches": None if "r1" in policy.takes else policy.r1,
        "splits": list(policy.splits),
        "setup": dict(policy.setup),
    }


def _rows(policies: list[Policy]) -> str:
    return table(
        [
            {"policy": p.name, "takes": " ".join(p.takes), "what it does": p.summary}
            for p in policies
        ]
    )


def _example(policy: Policy) -> Schedule:
    """Two layers, with two micro-batches and two chunks where the policy lets one choose."""
    from simdep.policies import Job, find

    asked = find(policy.name)
    r1, r2 = (
        2 if degree in asked.takes else alone for degree, alone in (("r1", asked.r1), ("r2", 1))
    )
    job = Job.regular(2, r1, r2, costs=_EXAMPLE)
    return asked.schedule(
        replace(job, split=asked.splits[0], shared_on=asked.setup.get("shared_on", "ag"))
    )
