"""Policies: functions that make a Schedule. Each reads like the figure it comes from.

`registry` holds them by name and says how to add one, `builder` turns orders into schedules, `job`
is what a policy is asked.
"""

from simdep.policies import colocated, disaggregated
from simdep.policies.adapt import Adapted, SetUp, adapted, changes_between, set_up, states_samples
from simdep.policies.builder import assemble, on_groups
from simdep.policies.job import Job
from simdep.policies.orders import Cut, chunk_tokens, in_every_layer, parse_order, share_out
from simdep.policies.registry import POLICIES, Policy, build, find, load, register, schedule_for
from simdep.policies.regular import findep, naive, pppipe

BUILTIN = tuple(POLICIES)

__all__ = [
    "BUILTIN",
    "POLICIES",
    "Adapted",
    "Cut",
    "Job",
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
    "findep",
    "in_every_layer",
    "load",
    "naive",
    "on_groups",
    "parse_order",
    "pppipe",
    "register",
    "schedule_for",
    "set_up",
    "share_out",
    "states_samples",
]
