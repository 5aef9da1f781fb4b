"""From orders to schedules: what every stream serves, and by the data alone what each task waits for.

Micro-batch i of layer t is opened by A(t,i) (or by P(t,i), and then C(t,i) ends its attention), which needs what layer
t-1 gave back: every E2A(t-1,i,*) and S(t-1,i). S(t,i) and A2E(t,i,j) need attention, E(t,i,j) its A2E, E2A(t,i,j) its E
(FinDEP, Eq. 5). Where the shared experts are on the EG, S(t,i) needs every A2E(t,i,*), and the last E2A(t,i,*) carries
its result back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from simdep.policies.orders import Sequenced
from simdep.schedule import Kind, Schedule, Task

Cut = tuple[tuple[int, ...], ...]  # tokens of every chunk of every micro-batch
Place = tuple[Kind, int, int, int | None]  # one entry of a stream: (kind, layer, micro-batch, chunk)


def disaggregated(
    label: str, sequence: Sequence[Sequenced], cut: Cut, *, layers: int, shared: bool, wait_for_shared: bool,
    shared_on: str = "ag", split: str = "token", merge_last: bool = False,
) -> Schedule:  # fmt: skip
    """The four streams of DEP for an AG that does `sequence`, one (kind, layer, micro-batch) after the other.

    Transfers and experts follow the order of what they wait for: attention, or with `wait_for_shared` the shared
    experts. `cut` holds the tokens of every chunk of every micro-batch; with `split` "expert" the chunks are as many
    groups of experts instead, and with `merge_last` those of the last layer are one. Without `shared`, and with
    `shared_on` "eg", the AG leaves the steps of kind SHARED out. Raises ValueError for no layers, and for a sequence in
    which a step is missing or appears twice.
    """
    if layers < 1:
        raise ValueError(f"layers={layers}: a schedule has at least 1 layer")
    on_ag = shared and shared_on == "ag"
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
        last = chunks_of(cut, layers, merge_last, layer, mb) - 1
        for chunk in range(last + 1):
            if chunk == last and shared and not on_ag:
                eg.append((Kind.SHARED, layer, mb, None))
            a2e.append((Kind.A2E, layer, mb, chunk))
            eg.append((Kind.EXPERT, layer, mb, chunk))
            e2a.append((Kind.E2A, layer, mb, chunk))
    streams = {"AG": ag, "A2E": a2e, "EG": eg, "E2A": e2a}
    return assemble(
        label, streams, cut, layers=layers, shared=shared, wait_for_shared=wait_for_shared, shared_on=shared_on,
        split=split, merge_last=merge_last,
    )  # fmt: skip


def chunks_of(cut: Cut, layers: int, merge_last: bool, layer: int, mb: int) -> int:
    """How many chunks a micro-batch has in a layer."""
    return 1 if merge_last and layer == layers - 1 else len(cut[mb])


def assemble(
    label: str, streams: Mapping[str, Sequence[Place]], cut: Cut, *, layers: int, shared: bool,
    wait_for_shared: bool = False, shared_on: str = "ag", split: str = "token", merge_last: bool = False,
) -> Schedule:  # fmt: skip
    """A schedule whose streams serve the given places; what a task waits for follows from the data (rule at the top).

    `wait_for_shared`: A2E waits for the shared experts, not for attention alone.
    """
    on_ag = shared and shared_on == "ag"
    places = [place for served in streams.values() for place in served]
    halved = {(layer, mb) for kind, layer, mb, _ in places if kind is Kind.CORE}
    tokens = tuple(map(sum, cut))

    def attended(layer: int, mb: int) -> str:
        return f"{'C' if (layer, mb) in halved else 'A'}[{layer}.{mb}]"

    def chunks(layer: int, mb: int) -> int:
        return chunks_of(cut, layers, merge_last, layer, mb)

    def every(kind: str, layer: int, mb: int) -> tuple[str, ...]:
        return tuple(f"{kind}[{layer}.{mb}.{chunk}]" for chunk in range(chunks(layer, mb)))

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
            return (f"A2E[{layer}.{mb}.{chunk}]",)
        carries = shared and not on_ag and chunk == chunks(layer, mb) - 1
        return (f"E[{layer}.{mb}.{chunk}]", *((f"S[{layer}.{mb}]",) if carries else ()))

    def task(kind: Kind, layer: int, mb: int, chunk: int | None) -> Task:
        after, parts = needs(kind, layer, mb, chunk), 1 if chunk is None else chunks(layer, mb)
        if chunk is None or parts == 1:
            return Task(kind, layer, mb, chunk, tokens[mb], after)
        if split == "expert":
            return Task(kind, layer, mb, chunk, tokens[mb], after, groups=parts)
        return Task(kind, layer, mb, chunk, cut[mb][chunk], after)

    return Schedule({stream: tuple(task(*place) for place in served) for stream, served in streams.items()}, label)
