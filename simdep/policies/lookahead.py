"""The look-ahead order: a fixed order of the AG that fills the time in which no attention is ready
with shared experts.

FinDEP's ASAS and AASS repeat one order in every layer. Here the shared experts of a micro-batch may
slip past the attention of another one's next layer: whatever attention is ready runs first; while
none is, pending shared experts run, unless they would delay an attention about to become ready by
more than a share `patience` of their own time. Several shares are tried beside ASAS and AASS, and
the fastest order is kept, so it is never slower than these two.

Micro-batches are equal. Stage times are those of a `StageTable` with one configuration, in any unit
of time.
"""

from __future__ import annotations

from simdep.costs import StageTimes
from simdep.schedule import Kind, Sequenced
from simdep.simulation.stage_table import StageTable

PATIENCE = (0.0, 0.25, 0.5, 0.75, 1.0)
_DIGITS = 9  # of a state, in the longest stage, that make it the same as an earlier one


def lookahead_order(times: StageTimes, layers: int, r1: int, r2: int) -> tuple[Sequenced, ...]:
    """`best_order` of equal layers whose micro-batches have r2 equal chunks."""
    return best_order(StageTable.of([times], [r2]), layers, r1)


def best_order(stages: StageTable, layers: int, r1: int) -> tuple[Sequenced, ...]:
    """The fastest of the look-ahead orders, ASAS and AASS: (kind, layer, micro-batch) of the AG's
    whole stream."""
    kinds, micro_batches = (Kind.ATTENTION, Kind.SHARED), range(r1)
    asas = tuple((kind, t, mb) for t in range(layers) for mb in micro_batches for kind in kinds)
    aass = tuple((kind, t, mb) for t in range(layers) for kind in kinds for mb in micro_batches)
    candidates = [asas, aass]
    if stages.shared[0] and r1 > 1:
        candidates += dict.fromkeys(list_order(stages, layers, r1, share) for share in PATIENCE)
    return min(candidates, key=lambda sequence: order_makespan(stages, sequence, r1))


def order_makespan(stages: StageTable, sequence: tuple[Sequenced, ...], r1: int) -> float:
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

    def __init__(self, stages: StageTable, r1: int) -> None:
        assert len(stages) == 1, "an order is of one configuration"
        self.attention: list[float] = stages.attention[:, 0].tolist()
        self.shared_us = float(stages.shared[0])
        columns = (stages.counts, stages.a2e, stages.expert, stages.e2a)
        runs = zip(*(column[:, 0].tolist() for column in columns), strict=True)
        self.runs: list[tuple[float, float, float, float]] = [run for run in runs if run[0]]
        self.ag = self.a2e = self.eg = self.e2a = 0.0
        self.back, self.done = [0.0] * r1, [0.0] * r1

    @property
    def longest_us(self) -> float:
        """The longest stage."""
        chunks = [us for _, *stages in self.runs for us in stages]
        return max([*self.attention, self.shared_us, *chunks])

    def attend(self, layer: int, mb: int) -> None:
        """Run an attention and send its chunks after it; `simdep.simulation.batch` explains the
        closed forms of a run."""
        attention_us = self.attention[min(layer, len(self.attention) - 1)]
        self.ag = max(self.ag, self.back[mb], self.done[mb]) + attention_us
        for n, a2e, expert, e2a in self.runs:
            start = max(self.ag, self.a2e)
            first = max(self.eg, start + a2e) + expert
            self.eg = max(self.eg + n * expert, start + a2e + n * expert, start + n * a2e + expert)
            self.e2a = max(self.e2a + n * e2a, first + n * e2a, self.eg + e2a)
            self.a2e = start + n * a2e
        self.back[mb] = self.e2a

    def share(self, mb: int) -> None:
        self.ag += self.shared_us
        self.done[mb] = self.ag


def list_order(stages: StageTable, layers: int, r1: int, patience: float) -> tuple[Sequenced, ...]:
    """One list schedule. Once its state comes back some layers later, the steps in between are
    repeated to the end."""
    streams, begun, pending = _Streams(stages, r1), [0] * r1, list[int]()
    longest_us, alike = streams.longest_us, len(set(streams.attention[1:])) <= 1
    sequence: list[Sequenced] = []
    seen: dict[tuple[object, ...], tuple[int, int]] = {}
    while len(sequence) < 2 * layers * r1:
        at_micro_batch_0 = bool(sequence) and sequence[-1][::2] == (Kind.ATTENTION, 0)
        if alike and at_micro_batch_0 and min(begun) > 0 and max(begun) < layers:
            state = _relative(streams, begun, pending, longest_us)
            at, layer = seen.setdefault(state, (len(sequence), begun[0]))
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
        latest_us = streams.ag + (1 - patience) * streams.shared_us
        if pending and (soonest is None or streams.ag < soonest[0] >= latest_us):
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


def _relative(
    streams: _Streams, begun: list[int], pending: list[int], longest_us: float
) -> tuple[object, ...]:
    """What later steps depend on: times from now on, in the longest stage, and layers from that of
    micro-batch 0."""
    ends = (streams.a2e, streams.eg, streams.e2a, *streams.back)
    late = tuple(round(max(0, end - streams.ag) / longest_us, _DIGITS) for end in ends)
    return late, tuple(layer - begun[0] for layer in begun), tuple(pending)
