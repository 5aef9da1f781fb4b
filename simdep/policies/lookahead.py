"""The look-ahead order: a fixed order of the AG that fills the time in which no attention is ready
with shared experts.

FinDEP's ASAS and AASS repeat one order in every layer. Here the shared experts of a micro-batch may
slip past the attention of another one's next layer: whatever attention is ready runs first; while
none is, pending shared experts run, unless they would delay an attention about to become ready by
more than a share `patience` of their own time. Several shares are tried beside ASAS and AASS, and
the fastest order is kept, so it is never slower than these two.

Micro-batches are equal. Any unit of time; whole numbers stay exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from simdep.costs import StageTimes
from simdep.schedule import Kind, Sequenced

PATIENCE = (0.0, 0.25, 0.5, 0.75, 1.0)
_DIGITS = 9  # of a state, in the longest stage, that make it the same as an earlier one


class Run(NamedTuple):
    """`n` equal chunks, one after the other, and the time that each takes of A2E, EG and E2A."""

    n: int
    a2e: float
    expert: float
    e2a: float


@dataclass(frozen=True)
class Stages:
    """Times of one micro-batch: attention in each layer, shared experts, and its runs of chunks in
    any layer."""

    attention: tuple[float, ...]
    shared: float
    runs: tuple[Run, ...]

    @classmethod
    def of(cls, times: StageTimes, layers: int, r2: int) -> Stages:
        """Equal layers of r2 equal chunks."""
        return cls(
            (times.attention,) * layers,
            times.shared,
            (Run(r2, times.a2e, times.expert, times.e2a),),
        )

    @property
    def layers(self) -> int:
        return len(self.attention)

    @property
    def longest(self) -> float:
        return max(*self.attention, self.shared, *(time for run in self.runs for time in run[1:]))


def lookahead_order(times: StageTimes, layers: int, r1: int, r2: int) -> tuple[Sequenced, ...]:
    """`best_order` of equal layers whose micro-batches have r2 equal chunks."""
    return best_order(Stages.of(times, layers, r2), r1)


def best_order(stages: Stages, r1: int) -> tuple[Sequenced, ...]:
    """The fastest of the look-ahead orders, ASAS and AASS: (kind, layer, micro-batch) of the AG's
    whole stream."""
    layers, kinds = range(stages.layers), (Kind.ATTENTION, Kind.SHARED)
    candidates = [
        tuple((kind, layer, mb) for layer in layers for mb in range(r1) for kind in kinds),
        tuple((kind, layer, mb) for layer in layers for kind in kinds for mb in range(r1)),
    ]
    if stages.shared and r1 > 1:
        candidates += dict.fromkeys(_patient(stages, r1, patience) for patience in PATIENCE)
    return min(candidates, key=lambda sequence: order_makespan(stages, sequence, r1))


def order_makespan(stages: Stages, sequence: tuple[Sequenced, ...], r1: int) -> float:
    """Makespan of any order of the AG, transfers and experts following the order of attention."""
    streams = _Streams(stages, r1)
    for kind, layer, mb in sequence:
        if kind is Kind.ATTENTION:
            streams.attend(layer, mb)
        else:
            streams.share(mb)
    return max(streams.ag, streams.e2a)


class _Streams:
    """When each stream is free, and when the latest layer of each micro-batch has come back and
    shared its experts."""

    def __init__(self, stages: Stages, r1: int) -> None:
        self.stages = stages
        self.ag = self.a2e = self.eg = self.e2a = 0.0
        self.back, self.done = [0.0] * r1, [0.0] * r1

    def attend(self, layer: int, mb: int) -> None:
        """Run an attention and send its chunks after it; `simdep.simulation.batch` explains the
        closed forms of a run."""
        self.ag = max(self.ag, self.back[mb], self.done[mb]) + self.stages.attention[layer]
        for n, a2e, expert, e2a in self.stages.runs:
            start = max(self.ag, self.a2e)
            first = max(self.eg, start + a2e) + expert
            self.eg = max(self.eg + n * expert, start + a2e + n * expert, start + n * a2e + expert)
            self.e2a = max(self.e2a + n * e2a, first + n * e2a, self.eg + e2a)
            self.a2e = start + n * a2e
        self.back[mb] = self.e2a

    def share(self, mb: int) -> None:
        self.ag += self.stages.shared
        self.done[mb] = self.ag


def _patient(stages: Stages, r1: int, patience: float) -> tuple[Sequenced, ...]:
    """One list schedule. Once its state comes back some layers later, the steps in between are
    repeated to the end."""
    layers, alike = stages.layers, len(set(stages.attention[1:])) <= 1
    streams, begun, pending = _Streams(stages, r1), [0] * r1, list[int]()
    sequence: list[Sequenced] = []
    seen: dict[tuple[object, ...], tuple[int, int]] = {}
    while len(sequence) < 2 * layers * r1:
        if (
            alike
            and sequence
            and sequence[-1][::2] == (Kind.ATTENTION, 0)
            and min(begun) > 0
            and max(begun) < layers
        ):
            at, layer = seen.setdefault(
                _relative(streams, begun, pending), (len(sequence), begun[0])
            )
            if begun[0] > layer:
                step, period = begun[0] - layer, sequence[at:]
                times = (layers - 1 - max(begun)) // step
                for ahead in range(step, (times + 1) * step, step):
                    sequence += [(kind, layer + ahead, mb) for kind, layer, mb in period]
                begun = [layer + times * step for layer in begun]
                seen = {}
        ready = [
            (max(streams.ag, streams.back[mb]), begun[mb], mb)
            for mb in range(r1)
            if begun[mb] < layers and mb not in pending
        ]
        soonest = min(ready, default=None)
        if pending and (
            soonest is None
            or streams.ag < soonest[0] >= streams.ag + (1 - patience) * stages.shared
        ):
            mb = min(pending, key=lambda mb: (streams.back[mb], begun[mb]))
            pending.remove(mb)
            sequence.append((Kind.SHARED, begun[mb] - 1, mb))
            streams.share(mb)
        else:
            assert soonest is not None, "what is left is pending, or its attention is to come"
            mb = soonest[-1]
            sequence.append((Kind.ATTENTION, begun[mb], mb))
            streams.attend(begun[mb], mb)
            begun[mb] += 1
            pending.append(mb)
    return tuple(sequence)


def _relative(streams: _Streams, begun: list[int], pending: list[int]) -> tuple[object, ...]:
    """What later steps depend on: times from now on, in the longest stage, and layers from that of
    micro-batch 0."""
    ends = (streams.a2e, streams.eg, streams.e2a, *streams.back)
    late = tuple(round(max(0, end - streams.ag) / streams.stages.longest, _DIGITS) for end in ends)
    return late, tuple(layer - begun[0] for layer in begun), tuple(pending)
