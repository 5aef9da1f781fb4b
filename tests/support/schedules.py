"""Schedules that several test modules make."""

from __future__ import annotations

from collections.abc import Sequence

from simdep.policies import Cut, Job, on_groups
from simdep.schedule import Schedule, Sequenced


def dep_streams(
    label: str,
    sequence: Sequence[Sequenced],
    cut: Cut,
    *,
    layers: int,
    shared: bool,
    wait_for_shared: bool,
    shared_on: str = "ag",
) -> Schedule:
    """The four streams of DEP for an AG that does `sequence`, one (kind, layer, micro-batch) after
    the other."""
    job = Job(layers, cut, shared=shared, shared_on=shared_on)
    return on_groups(job, label, sequence, wait_for_shared=wait_for_shared)
