"""Policies: functions that make a Schedule. Each reads like the figure it comes from."""

from simdep.policies.builder import Cut, disaggregated
from simdep.policies.orders import Step, chunk_tokens, in_every_layer, parse_order
from simdep.policies.regular import POLICIES, build, findep, naive, pppipe, schedule_for

__all__ = [
    "POLICIES",
    "Cut",
    "Step",
    "build",
    "chunk_tokens",
    "disaggregated",
    "findep",
    "in_every_layer",
    "naive",
    "parse_order",
    "pppipe",
    "schedule_for",
]
