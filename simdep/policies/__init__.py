"""Policies: functions that make a Schedule. Each reads like the figure it comes from.

`registry` holds them by name and says how to add one, `builder` turns orders into schedules, `job`
is what a policy is asked.
"""

from simdep.policies import colocated, disaggregated
from simdep.policies.adapt import (
    Adapted,
    SetUp,
    adapted,
    changes_between,
    redrawn,
    set_up,
    states_samples,
)
from simdep.policies.builder import assemble, on_groups
from simdep.policies.job import Job
from simdep.policies.orders import Partition, chunk_tokens, in_every_layer, parse_order, share_out
from simdep.policies.registry import (
    POLICIES,
    Policy,
    build,
    find,
    load_policy,
    register,
    schedule_for,
)

BUILTIN = tuple(POLICIES)

__all__ = [
    "BUILTIN",
    "POLICIES",
    "Adapted",
    "Job",
    "Partition",
    "Policy",
    "SetUp",
    "adapted",
    "assemble",
    "build",
    "changes_between",
    "chunk_tokens",
    "colocated",
    "disaggregated",
    "find",
    "in_every_layer",
    "load_policy",
    "on_groups",
    "parse_order",
    "redrawn",
    "register",
    "schedule_for",
    "set_up",
    "share_out",
    "states_samples",
]
