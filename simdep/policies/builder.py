"""From orders to schedules: what every stream executes, and by the data alone what each task waits
for (`simdep.schedule.DataFlow`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from simdep.checks import InputError
from simdep.policies.job import Job
from simdep.schedule import DataFlow, Kind, Place, Schedule, Sequenced, Task, task_name


def on_groups(
    job: Job, label: str, sequence: Sequence[Sequenced], *, wait_for_shared: bool
) -> Schedule:
    """The four streams of DEP for an AG that does `sequence`, one (kind, layer, micro-batch) after
    the other.

    Transfers and experts follow the order of what they wait for: attention, or with
    `wait_for_shared` the shared experts. A job without shared experts, or with them on the EG,
    leaves the steps of kind SHARED out. Raises InputError for no layers, and for a sequence in
    which a step is missing or appears twice.
    """
    on_ag = job.shared and job.shared_on == "ag"
    sends = Kind.SHARED if on_ag and wait_for_shared else Kind.ATTENTION
    ag: list[Place] = []
    a2e: list[Place] = []
    eg: list[Place] = []
    e2a: list[Place] = []
    for kind, layer, mb in sequence:
        if on_ag or kind is not Kind.SHARED:
            ag.append((kind, layer, mb, None))
        if kind is not sends:
            continue
        last = job.chunks(layer, mb) - 1
        for chunk in range(last + 1):
            if chunk == last and job.shared and not on_ag:
                eg.append((Kind.SHARED, layer, mb, None))
            a2e.append((Kind.A2E, layer, mb, chunk))
            eg.append((Kind.EXPERT, layer, mb, chunk))
            e2a.append((Kind.E2A, layer, mb, chunk))
    return assemble(
        job, label, {"AG": ag, "A2E": a2e, "EG": eg, "E2A": e2a}, wait_for_shared=wait_for_shared
    )


def assemble(
    job: Job,
    label: str,
    streams: Mapping[str, Sequence[Place]],
    *,
    wait_for_shared: bool = False,
    after: Mapping[int, int] | None = None,
) -> Schedule:
    """A schedule whose streams execute the given places; what a task waits for follows from the
    data.

    `wait_for_shared`: A2E waits for the shared experts, not for attention alone. `after`: E2A of a
    chunk waits for E of another one, a later one than its own, and one A2E brings all chunks.
    """
    if job.layers < 1:
        raise InputError(f"layers={job.layers}: a schedule has at least 1 layer")
    flow = DataFlow(
        chunks=job.chunks,
        shared_on=_shared_on(job),
        halved=_halved(streams),
        one_dispatch=after is not None,
    )

    def waits(kind: Kind, layer: int, mb: int, chunk: int | None) -> tuple[str, ...]:
        if wait_for_shared and kind is Kind.A2E and flow.shared_on == "ag":
            return (task_name(Kind.SHARED, layer, mb),)
        needs = flow.needs(kind, layer, mb, chunk)
        if after is not None and kind is Kind.E2A and chunk is not None:
            return (task_name(Kind.EXPERT, layer, mb, after[chunk]), *needs[1:])
        return needs

    def task(kind: Kind, layer: int, mb: int, chunk: int | None) -> Task:
        needed, parts = waits(kind, layer, mb, chunk), 1
        if chunk is not None and not (flow.one_dispatch and kind is Kind.A2E):
            parts = job.chunks(layer, mb)
        if chunk is None or parts == 1:
            return Task(kind, layer, mb, chunk, job.tokens[mb], needed)
        if job.split == "expert":
            return Task(kind, layer, mb, chunk, job.tokens[mb], needed, groups=parts)
        return Task(kind, layer, mb, chunk, job.partition[mb][chunk], needed)

    tasks = {}
    for stream, places in streams.items():
        executed = (place for place in places if job.shared or place[0] is not Kind.SHARED)
        tasks[stream] = tuple(task(*place) for place in executed)
    return Schedule(tasks, label)


def _shared_on(job: Job) -> Literal["ag", "eg"] | None:
    if not job.shared:
        return None
    return "ag" if job.shared_on == "ag" else "eg"


def _halved(streams: Mapping[str, Sequence[Place]]) -> set[tuple[int, int]]:
    """The (layer, micro-batch) whose attention is cut in two."""
    halved = set()
    for places in streams.values():
        halved |= {(layer, mb) for kind, layer, mb, _ in places if kind is Kind.CORE}
    return halved
