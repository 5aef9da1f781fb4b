"""The look-ahead order: a fixed order of the AG that starts ready attention first and fills idle time with shared experts.

FinDEP's ASAS and AASS repeat one order in every layer. Here the shared experts of a micro-batch may slip past the
attention of another one's next layer: whatever attention is ready runs first; while none is, pending shared experts
run, unless they would delay an attention about to become ready by more than a share `patience` of their own time.
Several shares are tried beside ASAS and AASS, and the fastest order is kept, so it is never slower than these two.

Times are those of `StageTimes`: equal micro-batches of r2 equal chunks. Whole numbers stay exact.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from simdep.costs import StageTimes
from simdep.schedule import Kind

Sequenced = tuple[Kind, int, int]  # (kind, layer, micro-batch) of an entry of the AG's stream
PATIENCE = (0.0, 0.25, 0.5, 0.75, 1.0)
_DIGITS = 9  # of a state, relative to the longest stage, that make it the same as an earlier one


@dataclass
class Groups:
    """The state of all four streams after some steps of the AG: when each is free, and what has come back.

    `a2e`, `eg` and `e2a` are the ends of the last task of each stream, `back` those of the last E2A and `done` those of
    the shared experts of each micro-batch's latest layer.
    """

    times: StageTimes
    r1: int
    r2: int
    ag: float = 0
    a2e: float = 0
    eg: float = 0
    e2a: float = 0
    back: list[float] = field(default_factory=list)
    done: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.back, self.done = [0.0] * self.r1, [0.0] * self.r1

    @property
    def makespan(self) -> float:
        return max(self.ag, self.e2a)

    def attend(self, mb: int) -> None:
        """Run the next attention of a micro-batch and send its chunks after it, as closed forms of r2 equal ones.

        The j-th E ends at the latest of: all since the stream was free, all since the first A2E, the j-th A2E and one
        E; each is linear in j, so that the same three ends decide for E2A.
        """
        t, n = self.times, self.r2
        self.ag = max(self.ag, self.back[mb], self.done[mb]) + t.attention
        sent = max(self.ag, self.a2e)
        first = max(self.eg, sent + t.a2e) + t.expert
        self.eg = max(self.eg + n * t.expert, sent + t.a2e + n * t.expert, sent + n * t.a2e + t.expert)
        self.e2a = max(self.e2a + n * t.e2a, first + n * t.e2a, self.eg + t.e2a)
        self.a2e, self.back[mb] = sent + n * t.a2e, self.e2a

    def share(self, mb: int) -> None:
        """Run the shared experts of the latest attention of a micro-batch."""
        self.ag += self.times.shared
        self.done[mb] = self.ag


def order(times: StageTimes, layers: int, r1: int, r2: int) -> tuple[Sequenced, ...]:
    """The fastest of the look-ahead orders, ASAS and AASS: (kind, layer, micro-batch) of the AG's whole stream."""
    candidates = [_asas(layers, r1), _aass(layers, r1)]
    if times.shared and r1 > 1:
        candidates += [_patient(times, layers, r1, r2, patience) for patience in PATIENCE]
    return min(candidates, key=lambda sequence: makespan_us(times, sequence, r1, r2))


def makespan_us(times: StageTimes, sequence: tuple[Sequenced, ...], r1: int, r2: int) -> float:
    """Makespan of any order of the AG, transfers and experts following the order of attention."""
    state = Groups(times, r1, r2)
    for kind, _, mb in sequence:
        if kind is Kind.ATTENTION:
            state.attend(mb)
        else:
            state.share(mb)
    return state.makespan


def _asas(layers: int, r1: int) -> tuple[Sequenced, ...]:
    kinds = (Kind.ATTENTION, Kind.SHARED)
    return tuple((kind, layer, mb) for layer in range(layers) for mb in range(r1) for kind in kinds)


def _aass(layers: int, r1: int) -> tuple[Sequenced, ...]:
    kinds = (Kind.ATTENTION, Kind.SHARED)
    return tuple((kind, layer, mb) for layer in range(layers) for kind in kinds for mb in range(r1))


def _patient(times: StageTimes, layers: int, r1: int, r2: int, patience: float) -> tuple[Sequenced, ...]:
    """One list schedule. Once its state comes back some layers later, the steps in between are repeated to the end."""
    state, begun, pending = Groups(times, r1, r2), [0] * r1, list[int]()
    sequence: list[Sequenced] = []
    seen: dict[tuple[object, ...], tuple[int, int]] = {}
    while len(sequence) < 2 * layers * r1:
        if max(begun) < layers:
            at, layer = seen.setdefault(_relative(state, begun, pending), (len(sequence), begun[0]))
            if begun[0] > layer:
                step, period = begun[0] - layer, sequence[at:]
                times_over = (layers - 1 - max(begun)) // step
                for ahead in range(step, (times_over + 1) * step, step):
                    sequence += [(kind, layer + ahead, mb) for kind, layer, mb in period]
                begun = [layer + times_over * step for layer in begun]
                seen = {}
        ready = [
            (max(state.ag, state.back[mb]), begun[mb], mb)
            for mb in range(r1)
            if begun[mb] < layers and mb not in pending
        ]
        soonest = min(ready, default=None)
        if pending and (soonest is None or state.ag < soonest[0] >= state.ag + (1 - patience) * times.shared):
            mb = min(pending, key=lambda mb: (state.back[mb], begun[mb]))
            pending.remove(mb)
            sequence.append((Kind.SHARED, begun[mb] - 1, mb))
            state.share(mb)
        else:
            assert soonest is not None, "what is left is pending, or its attention is to come"
            mb = soonest[-1]
            sequence.append((Kind.ATTENTION, begun[mb], mb))
            state.attend(mb)
            begun[mb] += 1
            pending.append(mb)
    return tuple(sequence)


def _relative(state: Groups, begun: list[int], pending: list[int]) -> tuple[object, ...]:
    """What later steps depend on: times from now on, in the longest stage, and layers from that of micro-batch 0."""
    unit = max(state.times.attention, state.times.shared, state.times.a2e, state.times.expert, state.times.e2a)
    ends = (state.a2e, state.eg, state.e2a, *state.back)
    late = tuple(round(max(0, end - state.ag) / unit, _DIGITS) for end in ends)
    return late, tuple(layer - begun[0] for layer in begun), tuple(pending)
