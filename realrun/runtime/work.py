"""What a rank computes for one schedule, and the buffers that its messages carry.

How many routed tokens each expert gets is written as `counts`: for each peer, the routed tokens of
a chunk for each expert that is concerned.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from realrun.backends.shared_memory import sleep_until
from realrun.place import RankPlace
from realrun.runtime.layers import (
    AttentionLayer,
    ExpertLayer,
    Numerics,
    RoutedTokens,
    combine,
    dispatch,
    norm,
)
from simdep.scenario.models import ModelSpec
from simdep.scenario.routing import rank_experts
from simdep.schedule import Kind, Schedule, Task

RoutedCounts = Sequence[Sequence[int]]
ChunkKey = tuple[int, int, int]  # layer, micro-batch, chunk
_CORRECTION = 0.5  # of how late timed waits end


class ScheduleWork(Protocol):
    """The work of a rank on one schedule."""

    def compute(self, task: Task) -> None:
        """Carry out a computation of this rank."""

    def outgoing(self, task: Task, counts: RoutedCounts) -> list[Tensor]:
        """What a transfer carries from this rank to each peer."""

    def incoming(self, task: Task, counts: RoutedCounts) -> list[Tensor]:
        """Where a transfer puts what each peer sends to this rank."""


class AttentionRank:
    """The work of an AG rank: its samples, and the buffers that carry their routed tokens."""

    def __init__(
        self,
        schedule: Schedule,
        place: RankPlace,
        model: ModelSpec,
        layers: Sequence[AttentionLayer],
        numerics: Numerics,
        seq_len: int,
        buffer: Tensor,
    ) -> None:
        """`buffer` [2, routed tokens, hidden] holds what is sent and what is returned, micro-batch
        after micro-batch."""
        self._layers, self._model, self._eg = layers, model, place.eg
        tokens = _tokens_of_micro_batches(schedule)
        samples = [count // seq_len for count in tokens.values()]
        inputs = numerics.inputs(place.index, sum(samples), seq_len, model.hidden)
        self._inputs = dict(zip(tokens, inputs.split(samples), strict=True))
        self._chunk_tokens = _tokens_of_chunks(schedule)

        routed = [count * model.top_k for count in tokens.values()]
        sent, returned = buffer[0, : sum(routed)], buffer[1, : sum(routed)]
        self._sent = dict(zip(tokens, sent.split(routed), strict=True))
        self._returned = dict(zip(tokens, returned.split(routed), strict=True))
        self._first_row = dict(zip(tokens, _starts(routed, 0), strict=True))

        self._residual: dict[int, Tensor] = {}
        self._normed: dict[int, Tensor] = {}
        self._shared: dict[int, Tensor] = {}
        self._routing: dict[int, RoutedTokens] = {}
        self._counts: dict[tuple[int, int], Tensor] = {}

    def compute(self, task: Task) -> None:
        if task.kind is Kind.SHARED:
            shared = self._layers[task.layer].shared
            assert shared is not None, f"{task}: the model has no shared experts"
            self._shared[task.mb] = shared(self._normed[task.mb])
        elif task.layer == 0:
            self.attend(task, self._inputs[task.mb])
        else:
            self.attend(task, self.combined(task.mb))

    def attend(self, task: Task, h: Tensor) -> None:
        """Attention, router and sorting by expert, for the samples h [samples, seq_len, hidden]."""
        layer, mb = self._layers[task.layer], task.mb
        residual = layer.attention(h)
        x = norm(residual).flatten(0, 1)
        experts, weights = layer.route(x)
        chunk_tokens = self._chunk_tokens[task.layer, mb]
        routing = dispatch(experts, weights, chunk_tokens, self._model.experts)
        torch.index_select(x, 0, routing.token, out=self._sent[mb])
        self._residual[mb], self._normed[mb], self._routing[mb] = residual, x, routing
        self._counts[task.layer, mb] = routing.counts

    def combined(self, mb: int) -> Tensor:
        """The output [samples, seq_len, hidden] of the last layer that a micro-batch has passed."""
        total = self._residual[mb].flatten(0, 1).clone()
        if self._model.has_shared:
            total += self._shared[mb]
        combine(total, self._returned[mb], self._routing[mb])
        return total.view_as(self._residual[mb])

    def output(self) -> Tensor:
        """The output of the last layer [samples, seq_len, hidden]; valid after a run."""
        return torch.cat([self.combined(mb) for mb in self._inputs])

    def outgoing(self, task: Task, counts: RoutedCounts) -> list[Tensor]:
        return self._pieces(self._sent[task.mb], task, counts)

    def incoming(self, task: Task, counts: RoutedCounts) -> list[Tensor]:
        return self._pieces(self._returned[task.mb], task, counts)

    def _pieces(self, buffer: Tensor, task: Task, counts: RoutedCounts) -> list[Tensor]:
        sizes = [sum(of_experts) for of_experts in counts]
        first = self._chunk_start(task)
        return list(buffer[first : first + sum(sizes)].split(sizes))

    def _chunk_start(self, task: Task) -> int:
        """Row of the buffer of its micro-batch where the routed tokens of a chunk begin."""
        layer, mb, chunk = chunk_key(task)
        return sum(self._chunk_tokens[layer, mb][:chunk]) * self._model.top_k

    def first_rows(self, task: Task, counts: RoutedCounts) -> list[int]:
        """Row of the whole buffer where the routed tokens of a chunk for each EG rank begin."""
        sizes = [sum(of_experts) for of_experts in counts]
        return _starts(sizes, self._first_row[task.mb] + self._chunk_start(task))

    def routed(self, task: Task) -> list[list[int]]:
        """Routed tokens of a chunk for each expert of each EG rank, in the last run."""
        layer, mb, chunk = chunk_key(task)
        of_experts = self._counts[layer, mb][chunk].tolist()
        ranges = [rank_experts(len(of_experts), self._eg, rank) for rank in range(self._eg)]
        return [of_experts[mine.start : mine.stop] for mine in ranges]


class ExpertRank:
    """The work of an EG rank. Its buffers are per micro-batch and chunk, for every layer in turn.

    `counts` and `first_rows` are set when the routing is recorded.
    """

    def __init__(
        self,
        model: ModelSpec,
        layers: Sequence[ExpertLayer],
        numerics: Numerics,
        shared_buffers: Sequence[Tensor] = (),
    ) -> None:
        """`shared_buffers`, if any, are those of the AG ranks, in memory that this rank shares."""
        self._layers, self._numerics, self._hidden = layers, numerics, model.hidden
        self._shared_buffers = shared_buffers
        self._own_buffers: dict[tuple[int, int, int, int], Tensor] = {}
        self.counts: dict[ChunkKey, RoutedCounts] = {}
        self.first_rows: dict[ChunkKey, Sequence[int]] = {}

    def compute(self, task: Task) -> None:
        counts = self.counts[chunk_key(task)]
        self._layers[task.layer](self.incoming(task, counts), counts, self.outgoing(task, counts))

    def outgoing(self, task: Task, counts: RoutedCounts) -> list[Tensor]:
        return self._pieces(1, task, counts)

    def incoming(self, task: Task, counts: RoutedCounts) -> list[Tensor]:
        return self._pieces(0, task, counts)

    def _pieces(self, side: int, task: Task, counts: RoutedCounts) -> list[Tensor]:
        sizes = [sum(of_experts) for of_experts in counts]
        if self._shared_buffers:
            return slices(self._shared_buffers, side, self.first_rows[chunk_key(task)], sizes)
        _, mb, chunk = chunk_key(task)
        return [self._buffer((side, mb, chunk, rank), size) for rank, size in enumerate(sizes)]

    def _buffer(self, key: tuple[int, int, int, int], size: int) -> Tensor:
        if key not in self._own_buffers or len(self._own_buffers[key]) < size:
            device, dtype = self._numerics.device, self._numerics.dtype
            self._own_buffers[key] = torch.zeros(size, self._hidden, device=device, dtype=dtype)
        return self._own_buffers[key][:size]


class TimedWait:
    """Waits of a given length. Those that end late, as they do on shared cores, make the next ones
    shorter: on average they last what they should."""

    def __init__(self, *, spin: bool) -> None:
        """`spin`: wait awake, on a core of its own."""
        self._spin, self._late_ns = spin, 0.0

    def __call__(self, us: float) -> None:
        end_ns = time.perf_counter_ns() + 1e3 * us
        sleep_until(end_ns - self._late_ns, spin=self._spin)
        late_ns = time.perf_counter_ns() - end_ns
        self._late_ns = max(0.0, self._late_ns + _CORRECTION * late_ns)


class SyntheticRank:
    """Timed waits in place of computation: tests schedules, links and hosts, not processors. Label
    it synthetic."""

    def __init__(
        self,
        durations: Mapping[str, float],
        pieces: Callable[[Task], list[Tensor]],
        wait: TimedWait,
    ) -> None:
        """`durations` are microseconds by kind; `pieces` are what the message of a task carries."""
        self._durations, self._pieces, self._wait = durations, pieces, wait

    def compute(self, task: Task) -> None:
        self._wait(self._durations[task.kind.label])

    def outgoing(self, task: Task, counts: RoutedCounts) -> list[Tensor]:
        return self._pieces(task)

    def incoming(self, task: Task, counts: RoutedCounts) -> list[Tensor]:
        return self._pieces(task)


def chunk_key(task: Task) -> ChunkKey:
    """(layer, micro-batch, chunk) of a chunked task."""
    assert task.chunk is not None, f"{task} has no chunk"
    return task.layer, task.mb, task.chunk


def slices(
    buffers: Sequence[Tensor], side: int, first_rows: Sequence[int], sizes: Sequence[int]
) -> list[Tensor]:
    """Some consecutive rows of one side (0 sent, 1 returned) of each buffer."""
    ranges = zip(buffers, first_rows, sizes, strict=True)
    return [buffer[side, first : first + size] for buffer, first, size in ranges]


def _tokens_of_micro_batches(schedule: Schedule) -> dict[int, int]:
    tokens = {}
    for task in schedule.streams["AG"]:
        if task.kind is Kind.ATTENTION:
            tokens[task.mb] = task.tokens
    return dict(sorted(tokens.items()))


def _tokens_of_chunks(schedule: Schedule) -> dict[tuple[int, int], list[int]]:
    """(layer, micro-batch) -> tokens of its chunks, in order of their numbers."""
    tokens: dict[tuple[int, int], list[int]] = {}
    for task in sorted(schedule.streams["A2E"], key=chunk_key):
        tokens.setdefault((task.layer, task.mb), []).append(task.tokens)
    return tokens


def _starts(sizes: Sequence[int], first: int) -> list[int]:
    """Where consecutive ranges of these sizes begin."""
    starts = []
    for size in sizes:
        starts.append(first)
        first += size
    return starts
