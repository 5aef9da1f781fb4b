"""Running a schedule on one rank: the rank's compute stream in its order, transfers posted and
awaited as it says.

The rank walks the FIFO of its group's compute stream. Before a task it waits for the transfers
named in `after`; after a task it posts the transfers at the head of its outgoing FIFO whose
dependencies have ended. Nothing else decides an order. How many copies each expert gets is known
only by routing real tokens, so a schedule is first walked once, task by task, with the counts sent
ahead of each message (`learn`); inputs and weights stay the same, so the counts of every later run
are known, and a run that finds others raises RuntimeError.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from realrun.backends.base import Clock, Link, Message
from realrun.backends.shared_memory import sleep_until
from realrun.place import Place
from realrun.runtime.layers import (
    AttentionLayer,
    ExpertLayer,
    Numerics,
    Routing,
    combine,
    dispatch,
    norm,
    owned,
)
from simdep.scenario.models import ModelSpec
from simdep.schedule import Kind, Schedule, Task


@dataclass(frozen=True)
class Stamps:
    """What a rank measured in one run, in nanoseconds of the host's clock."""

    computed: list[tuple[str, float, float]]
    posted: dict[str, float]
    arrived: dict[str, float]


_LEARNING = 0.5  # of how late timed waits end

# What a task of a stream may wait for: a rank knows the end of its own computation and of what
# arrives, nothing else.
_VISIBLE = {"AG": {"AG", "E2A"}, "A2E": {"AG"}, "EG": {"EG", "A2E"}, "E2A": {"EG"}}


def check_executable(schedule: Schedule) -> None:
    """Raise ValueError unless the schedule has DEP's four streams and orders every task after the
    data it needs."""
    if set(schedule.streams) != set(_VISIBLE):
        raise ValueError(
            f"realrun runs the streams {', '.join(_VISIBLE)}; this schedule has {', '.join(schedule.streams)}"
        )
    before: dict[str, set[str]] = {}
    for task in schedule.in_order:
        stream = schedule.stream_of[task.name]
        if stream != task.kind.stream:
            raise ValueError(
                f"{task} stands in stream {stream}; realrun runs it in {task.kind.stream}"
            )
        if task.groups > 1:
            raise ValueError(
                f"{task} is one of {task.groups} groups of experts; realrun cuts chunks by token"
            )
        for needed in task.after:
            if schedule.stream_of[needed] not in _VISIBLE[stream]:
                raise ValueError(
                    f"{task} waits for {needed}, whose end its rank can't see in a real run"
                )
        direct = schedule.predecessors[task.name]
        before[task.name] = set(direct).union(*(before[name] for name in direct))
        for needed in _data_of(task, schedule):
            if needed not in before[task.name]:
                raise ValueError(f"{task} does not wait for {needed}, whose result it needs")


def _data_of(task: Task, schedule: Schedule) -> Iterable[str]:
    at = f"[{task.layer}.{task.mb}.{task.chunk}]"
    if task.kind is Kind.SHARED or task.kind is Kind.A2E:
        return [f"A[{task.layer}.{task.mb}]"]
    if task.kind is Kind.EXPERT:
        return [f"A2E{at}"]
    if task.kind is Kind.E2A:
        return [f"E{at}"]
    last = task.layer - 1
    return [
        t.name
        for t in schedule
        if t.layer == last and t.mb == task.mb and t.kind in (Kind.E2A, Kind.SHARED)
    ]


class AttentionRank:
    """The work of an AG rank on one schedule: its samples, and the buffers that carry copies of
    their tokens."""

    def __init__(
        self,
        schedule: Schedule,
        place: Place,
        model: ModelSpec,
        layers: Sequence[AttentionLayer],
        numerics: Numerics,
        seq_len: int,
        arena: Tensor,
    ) -> None:
        """`arena` [2, rows, hidden] holds the copies sent and those returned, micro-batch after
        micro-batch."""
        self._layers, self._model, self._eg = layers, model, place.eg
        sizes = {t.mb: t.tokens for t in schedule.streams["AG"] if t.kind is Kind.ATTENTION}
        samples = numerics.inputs(
            place.index, sum(sizes.values()) // seq_len, seq_len, model.hidden
        )
        self._inputs = dict(
            zip(
                sorted(sizes),
                samples.split([sizes[mb] // seq_len for mb in sorted(sizes)]),
                strict=True,
            )
        )
        self._chunks = _chunk_sizes(schedule)
        copies = [sizes[mb] * model.top_k for mb in sorted(sizes)]
        self._first = dict(zip(sorted(sizes), [0, *itertools.accumulate(copies)], strict=False))
        self._sent, self._returned = (
            dict(zip(sorted(sizes), side[: sum(copies)].split(copies), strict=True))
            for side in arena
        )
        self._residual: dict[int, Tensor] = {}
        self._normed: dict[int, Tensor] = {}
        self._shared: dict[int, Tensor] = {}
        self._routing: dict[int, Routing] = {}
        self.counts: dict[tuple[int, int], Tensor] = {}

    def compute(self, task: Task) -> None:
        if task.kind is Kind.SHARED:
            shared = self._layers[task.layer].shared
            assert shared is not None, f"{task}: the model has no shared experts"
            self._shared[task.mb] = shared(self._normed[task.mb])
        else:
            self.attend(task, self._inputs[task.mb] if task.layer == 0 else self.combined(task.mb))

    def attend(self, task: Task, h: Tensor) -> None:
        """Attention, router and the sorting of copies, for the samples h [samples, seq_len,
        hidden]."""
        layer, mb = self._layers[task.layer], task.mb
        residual = layer.attention(h)
        x = norm(residual).flatten(0, 1)
        routing = dispatch(*layer.route(x), self._chunks[task.layer, mb], self._model.experts)
        torch.index_select(x, 0, routing.token, out=self._sent[mb])
        self._residual[mb], self._normed[mb], self._routing[mb] = residual, x, routing
        self.counts[task.layer, mb] = routing.counts

    def combined(self, mb: int) -> Tensor:
        """The output [samples, seq_len, hidden] of the layer that a micro-batch has been through
        last."""
        total = self._residual[mb].flatten(0, 1).clone()
        if self._model.has_shared:
            total += self._shared[mb]
        combine(total, self._returned[mb], self._routing[mb])
        return total.view_as(self._residual[mb])

    def output(self) -> Tensor:
        """The output of the last layer [samples, seq_len, hidden], all micro-batches; valid after a
        run."""
        return torch.cat([self.combined(mb) for mb in sorted(self._inputs)])

    def outgoing(self, task: Task, counts: Sequence[Sequence[int]]) -> list[Tensor]:
        return self._pieces(self._sent, task, counts)

    def incoming(self, task: Task, counts: Sequence[Sequence[int]]) -> list[Tensor]:
        return self._pieces(self._returned, task, counts)

    def _pieces(
        self, buffers: Mapping[int, Tensor], task: Task, counts: Sequence[Sequence[int]]
    ) -> list[Tensor]:
        """The rows of a chunk for each EG rank, `counts` being the copies for each expert of each
        EG rank."""
        assert task.chunk is not None
        first = sum(self._chunks[task.layer, task.mb][: task.chunk]) * self._model.top_k
        sizes = [sum(rows) for rows in counts]
        return list(buffers[task.mb][first : first + sum(sizes)].split(sizes))

    def first_rows(self, task: Task, counts: Sequence[Sequence[int]]) -> list[int]:
        """Row of the arena where the copies of a chunk for each EG rank begin."""
        assert task.chunk is not None
        first = (
            self._first[task.mb]
            + sum(self._chunks[task.layer, task.mb][: task.chunk]) * self._model.top_k
        )
        return [first + sum(map(sum, counts[:rank])) for rank in range(len(counts))]

    def routed(self, task: Task) -> list[list[int]]:
        """Copies of a chunk for each expert of each EG rank, as the last run routed them."""
        assert task.chunk is not None
        row = self.counts[task.layer, task.mb][task.chunk].tolist()
        ranges = (owned(len(row), self._eg, rank) for rank in range(self._eg))
        return [row[mine.start : mine.stop] for mine in ranges]


class ExpertRank:
    """The work of an EG rank on one schedule; buffers are per micro-batch and chunk and serve every
    layer in turn."""

    def __init__(
        self,
        model: ModelSpec,
        layers: Sequence[ExpertLayer],
        numerics: Numerics,
        arenas: Sequence[Tensor] = (),
    ) -> None:
        """`arenas`, if given, are those of the AG ranks, in memory that this rank shares with
        them."""
        self._layers, self._numerics, self._hidden, self._arenas = (
            layers,
            numerics,
            model.hidden,
            arenas,
        )
        self._buffers: dict[tuple[int, int, int, int], Tensor] = {}
        self.known: dict[tuple[int, int, int], Sequence[Sequence[int]]] = {}
        self.first_rows: dict[tuple[int, int, int], Sequence[int]] = {}

    def compute(self, task: Task) -> None:
        counts = self.known[place_of(task)]
        self._layers[task.layer](self.incoming(task, counts), counts, self.outgoing(task, counts))

    def outgoing(self, task: Task, counts: Sequence[Sequence[int]]) -> list[Tensor]:
        return self._pieces(1, task, counts)

    def incoming(self, task: Task, counts: Sequence[Sequence[int]]) -> list[Tensor]:
        return self._pieces(0, task, counts)

    def _pieces(self, side: int, task: Task, counts: Sequence[Sequence[int]]) -> list[Tensor]:
        """The rows of a chunk from each AG rank, `counts` being the copies from each AG rank for
        each own expert."""
        sizes = [sum(rows) for rows in counts]
        if self._arenas:
            starts = self.first_rows[place_of(task)]
            return [a[side, s : s + n] for a, s, n in zip(self._arenas, starts, sizes, strict=True)]
        return [
            self._buffer((side, *place_of(task)[1:], source), size)
            for source, size in enumerate(sizes)
        ]

    def _buffer(self, key: tuple[int, int, int, int], size: int) -> Tensor:
        if key not in self._buffers or len(self._buffers[key]) < size:
            device, dtype = self._numerics.device, self._numerics.dtype
            self._buffers[key] = torch.zeros(size, self._hidden, device=device, dtype=dtype)
        return self._buffers[key][:size]


class TimedWait:
    """Waits of a given length. Those that end late, as they do on shared cores, make the next ones
    ask for less: on average they last what they should."""

    def __init__(self, *, spin: bool) -> None:
        """`spin`: wait awake, on a core of its own."""
        self._spin, self._late_ns = spin, 0.0

    def __call__(self, us: float) -> None:
        at = time.perf_counter_ns() + 1e3 * us
        sleep_until(at - self._late_ns, spin=self._spin)
        self._late_ns = max(0.0, self._late_ns + _LEARNING * (time.perf_counter_ns() - at))


class SyntheticRank:
    """Timed waits in place of computation: tests schedules, links and hosts, not processors. Label
    it synthetic."""

    def __init__(
        self,
        durations: Mapping[str, float],
        pieces: Callable[[Task], list[Tensor]],
        wait: TimedWait,
    ) -> None:
        """`durations` are microseconds by kind; `pieces` are the tensors that a task's message
        carries."""
        self._durations, self._of, self._wait = durations, pieces, wait

    def compute(self, task: Task) -> None:
        self._wait(self._durations[task.kind.label])

    def outgoing(self, task: Task, counts: Sequence[Sequence[int]]) -> list[Tensor]:
        return self._of(task)

    incoming = outgoing


Work = AttentionRank | ExpertRank | SyntheticRank


class Executor:
    """One schedule on one rank: `learn` once, then `run` as often as wanted."""

    def __init__(
        self,
        schedule: Schedule,
        place: Place,
        work: Work,
        link: Link,
        clock: Clock,
        groups: tuple[dist.ProcessGroup, dist.ProcessGroup],
        experts: int,
    ) -> None:
        """`groups` carry A2E and E2A; `experts` is the model's number of routed experts."""
        check_executable(schedule)
        self.schedule, self.work = schedule, work
        self._place, self._link, self._clock = place, link, clock
        self._groups = dict(zip(("A2E", "E2A"), groups, strict=True))
        self._experts = experts
        self._counts: dict[str, Sequence[Sequence[int]]] = {}

    def learn(self) -> None:
        """Walk the schedule once, one task at a time on all ranks, and learn how many copies each
        message carries."""
        mine, outgoing, incoming = self._place.streams
        for task in self.schedule.in_order:
            stream = self.schedule.stream_of[task.name]
            if stream == mine:
                self.work.compute(task)
            elif stream == "A2E":
                counts = self._exchange_counts(task)
                self._counts[task.name] = self._counts[
                    f"E2A[{task.layer}.{task.mb}.{task.chunk}]"
                ] = counts
            if stream == outgoing:
                self._blocking(
                    dist.isend,
                    stream,
                    self._payload(self.work.outgoing(task, self._counts[task.name])),
                )
            elif stream == incoming:
                self._blocking(
                    dist.irecv,
                    stream,
                    self._payload(self.work.incoming(task, self._counts[task.name])),
                )
        self.prepare()

    def prepare(self) -> None:
        """Lay out the messages of a run; `learn` ends with it, and synthetic work needs nothing
        else."""
        _, outgoing, incoming = self._place.streams
        self._out = {
            t.name: self._message(i, t, self.work.outgoing)
            for i, t in enumerate(self.schedule.streams[outgoing])
        }
        self._in = [
            self._message(i, t, self.work.incoming)
            for i, t in enumerate(self.schedule.streams[incoming])
        ]

    def open(self) -> None:
        """Get ready for a run: receives are posted, the clock is tied."""
        self._clock.start()
        self._link.open(self._in)

    def run(self) -> Stamps:
        """Execute the schedule once, after `open`; every rank of the deployment runs it at the same
        time."""
        mine, outgoing, _ = self._place.streams
        arriving = {name for name, _, _ in self._in}
        ended: set[str] = set()
        unsent = deque(self.schedule.streams[outgoing])
        marks = []
        for task in self.schedule.streams[mine]:
            for needed in task.after:
                if needed in arriving:
                    self._link.wait(needed)
            start = self._clock.mark()
            self.work.compute(task)
            marks.append((task.name, start, self._clock.mark()))
            ended.add(task.name)
            while unsent and ended.issuperset(unsent[0].after):
                self._link.post(self._out[unsent.popleft().name])
        posted, arrived = self._link.close()
        self._check_routing()
        read = self._clock.read
        return Stamps(
            [(name, read(start), read(end)) for name, start, end in marks], posted, arrived
        )

    def _payload(self, pieces: Sequence[Tensor]) -> Sequence[Tensor]:
        """What travels while learning: the pieces, or only word of them where they are in shared
        memory."""
        return pieces if self._link.carries_payload else [self._tensor([0]) for _ in pieces]

    def _message(self, tag: int, task: Task, pieces: object) -> Message:
        assert callable(pieces)
        return task.name, tag, pieces(task, self._counts.get(task.name, ()))

    def _exchange_counts(self, task: Task) -> list[list[int]]:
        if isinstance(self.work, AttentionRank):
            counts = self.work.routed(task)
            starts = self.work.first_rows(task, counts)
            heads = [self._tensor([start, *row]) for start, row in zip(starts, counts, strict=True)]
            self._blocking(dist.isend, "A2E", heads)
            return counts
        mine = owned(self._experts, self._place.eg, self._place.index)
        rows = [self._tensor([0] * (1 + len(mine))) for _ in self._place.peers]
        self._blocking(dist.irecv, "A2E", rows)
        known = [row.tolist()[1:] for row in rows]
        assert isinstance(self.work, ExpertRank)
        self.work.first_rows[place_of(task)] = [int(row[0]) for row in rows]
        self.work.known[place_of(task)] = known
        return known

    def _tensor(self, numbers: Sequence[int]) -> Tensor:
        device = (
            "cuda"
            if torch.cuda.is_available() and dist.get_backend(self._groups["A2E"]) == "nccl"
            else "cpu"
        )
        return torch.tensor(numbers, dtype=torch.int64, device=device)

    def _blocking(self, call: object, stream: str, pieces: Sequence[Tensor]) -> None:
        assert callable(call)
        pairs = zip(self._place.peers, pieces, strict=True)
        works = [
            call(piece, peer, group=self._groups[stream]) for peer, piece in pairs if piece.numel()
        ]
        for work in works:
            work.wait()

    def _check_routing(self) -> None:
        if isinstance(self.work, AttentionRank):
            for task in self.schedule.streams["A2E"]:
                if self.work.routed(task) != self._counts[task.name]:
                    raise RuntimeError(
                        f"{self._place} at {task}: tokens were routed otherwise than when sizes were learnt"
                    )


def place_of(task: Task) -> tuple[int, int, int]:
    """(layer, micro-batch, chunk) of a chunked task."""
    assert task.chunk is not None
    return task.layer, task.mb, task.chunk


def _chunk_sizes(schedule: Schedule) -> dict[tuple[int, int], list[int]]:
    """(layer, micro-batch) -> tokens of its chunks, in order of their numbers."""
    sizes: dict[tuple[int, int], list[int]] = {}
    for task in sorted(schedule.streams["A2E"], key=lambda t: t.chunk or 0):
        sizes.setdefault((task.layer, task.mb), []).append(task.tokens)
    return sizes
