"""From orders to schedules: what every stream serves, and by the data alone what each task waits
for.

Micro-batch i of layer t is opened by A(t,i) (or by P(t,i), and then C(t,i) ends its attention),
which needs what layer t-1 gave back: every E2A(t-1,i,*) and S(t-1,i). S(t,i) and A2E(t,i,j) need
attention, E(t,i,j) its A2E, E2A(t,i,j) its E (FinDEP, Eq. 5). Where the shared experts are on the
EG, S(t,i) needs every A2E(t,i,*), and the last E2A(t,i,*) carries its result back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from simdep.policies.job import Job
from simdep.schedule import Kind, Schedule, Sequenced, Task

Place = tuple[
    Kind, int, int, int | None
]  # one entry of a stream: (kind, layer, micro-batch, chunk)


def on_groups(
    job: Job, label: str, sequence: Sequence[Sequenced], *, wait_for_shared: bool
) -> Schedule:
    """The four streams of DEP for an AG that does `sequence`, one (kind, layer, micro-batch) after
    the other.

    Transfers and experts follow the order of what they wait for: attention, or with
    `wait_for_shared` the shared experts. A job without shared experts, or with them on the EG,
    leaves the steps of kind SHARED out. Raises ValueError for no layers, and for a sequence in
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
    """A schedule whose streams serve the given places; what a task waits for follows from the data
    (rule at the top).

    `wait_for_shared`: A2E waits for the shared experts, not for attention alone. `after`: E2A of a
    chunk waits for E of another one, a later one than its own, and one A2E brings all chunks.
    """
    if job.layers < 1:
        raise ValueError(f"layers={job.layers}: a schedule has at least 1 layer")
    on_ag = job.shared and job.shared_on == "ag"
    halved = {
        (place[1], place[2])
        for served in streams.values()
        for place in served
        if place[0] is Kind.CORE
    }

    def attended(layer: int, mb: int) -> str:
        return f"{'C' if (layer, mb) in halved else 'A'}[{layer}.{mb}]"

    def every(kind: str, layer: int, mb: int) -> tuple[str, ...]:
        return tuple(f"{kind}[{layer}.{mb}.{chunk}]" for chunk in range(job.chunks(layer, mb)))

    def needs(kind: Kind, layer: int, mb: int, chunk: int | None) -> tuple[str, ...]:
        if kind.opens_layer:
            back = every("E2A", layer - 1, mb) if layer else ()
            return (*back, f"S[{layer - 1}.{mb}]") if layer and on_ag else back
        if kind is Kind.CORE:
            return (f"P[{layer}.{mb}]",)
        if kind is Kind.SHARED:
            return (attended(layer, mb),) if on_ag else every("A2E", layer, mb)
        if kind is Kind.A2E:
            return (f"S[{layer}.{mb}]" if on_ag and wait_for_shared else attended(layer, mb),)
        if kind is Kind.EXPERT:
            return (f"A2E[{layer}.{mb}.{0 if after else chunk}]",)
        computed = f"E[{layer}.{mb}.{after[chunk or 0] if after else chunk}]"
        carries = job.shared and not on_ag and chunk == job.chunks(layer, mb) - 1
        return (computed, f"S[{layer}.{mb}]") if carries else (computed,)

    def task(kind: Kind, layer: int, mb: int, chunk: int | None) -> Task:
        waits, parts = needs(kind, layer, mb, chunk), 1 if chunk is None else job.chunks(layer, mb)
        if chunk is None or parts == 1 or (after and kind is Kind.A2E):
            return Task(kind, layer, mb, chunk, job.tokens[mb], waits)
        if job.split == "expert":
            return Task(kind, layer, mb, chunk, job.tokens[mb], waits, groups=parts)
        return Task(kind, layer, mb, chunk, job.partition[mb][chunk], waits)

    places = {
        stream: [place for place in served if job.shared or place[0] is not Kind.SHARED]
        for stream, served in streams.items()
    }
    return Schedule(
        {stream: tuple(task(*place) for place in served) for stream, served in places.items()},
        label,
    )
