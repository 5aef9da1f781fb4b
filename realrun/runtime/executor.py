"""Running a schedule on one rank: computation in its order, transfers posted and awaited as it
says.

The rank walks the FIFO of its group's compute stream. Before a task it waits for the transfers
named in `after`; after a task it posts the transfers that `Schedule.posts_after` names. Nothing
else decides an order.

How many tokens are routed to each expert is known only by routing real tokens, so a schedule is
first walked once, task by task, with the counts sent ahead of each message (`record_routing`).
Inputs and weights stay the same, so the counts of every later run are known; a run that routes
otherwise raises RuntimeError.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from realrun.backends.base import Channel, Clock, Link, Message
from realrun.place import RankPlace
from realrun.runtime.executable import check_executable
from realrun.runtime.stamps import Stamps
from realrun.runtime.work import (
    AttentionRank,
    ChunkKey,
    ExpertRank,
    RoutedCounts,
    ScheduleWork,
    chunk_key,
)
from simdep.scenario.routing import rank_experts
from simdep.schedule import Schedule, Task


class Executor:
    """One schedule on one rank: `record_routing` once, then `open` and `run` as often as wanted."""

    def __init__(
        self,
        schedule: Schedule,
        place: RankPlace,
        work: ScheduleWork,
        link: Link,
        clock: Clock,
        channel: Channel,
        experts: int,
    ) -> None:
        """`channel` carries what precedes the runs; `experts` is the model's number of routed
        experts."""
        check_executable(schedule)
        self.schedule, self.work = schedule, work
        self._place, self._link, self._clock, self._channel = place, link, clock, channel
        self._experts = experts
        self._counts: dict[ChunkKey, RoutedCounts] = {}

    def record_routing(self) -> None:
        """Walk the schedule once, one task at a time on all ranks, and record how many routed
        tokens each message carries."""
        place = self._place
        # All ranks walk the same order: a send always meets its receive, whatever blocks
        for task in self.schedule.in_order:
            stream = self.schedule.stream_of[task.name]
            if stream == place.compute_stream:
                self.work.compute(task)
            if stream == "A2E":
                self._counts[chunk_key(task)] = self._exchange_counts(task)
            if stream == place.outgoing_stream:
                pieces = self.work.outgoing(task, self._counts[chunk_key(task)])
                _finish(self._channel.send(self._payload(pieces)))
            elif stream == place.incoming_stream:
                pieces = self.work.incoming(task, self._counts[chunk_key(task)])
                _finish(self._channel.receive(self._payload(pieces)))
        self.prepare()

    def prepare(self) -> None:
        """Lay out the messages of a run: the end of `record_routing`, and all that synthetic work
        needs."""
        place, streams = self._place, self.schedule.streams
        self._outgoing: dict[str, Message] = {}
        for number, task in enumerate(streams[place.outgoing_stream]):
            pieces = self.work.outgoing(task, self._counts.get(chunk_key(task), ()))
            self._outgoing[task.name] = Message(task.name, number, pieces)
        self._incoming: dict[str, Message] = {}
        for number, task in enumerate(streams[place.incoming_stream]):
            pieces = self.work.incoming(task, self._counts.get(chunk_key(task), ()))
            self._incoming[task.name] = Message(task.name, number, pieces)

    def open(self) -> None:
        """Get ready for a run: receives are posted, the clock is tied."""
        self._clock.start()
        self._link.open(list(self._incoming.values()))

    def run(self) -> Stamps:
        """Execute the schedule once, after `open`; every rank of the deployment runs it at the same
        time."""
        posts, marks = self.schedule.posts_after, []
        for task in self.schedule.streams[self._place.compute_stream]:
            for needed in task.after:
                if needed in self._incoming:
                    self._link.wait(needed)
            start = self._clock.mark()
            self.work.compute(task)
            marks.append((task.name, start, self._clock.mark()))
            for message in posts.get(task.name, ()):
                self._link.post(self._outgoing[message.name])
        transfers = self._link.close()
        self._check_routing()
        # Marks are read only now: within the run, reading one would wait for a GPU
        read = self._clock.read
        computed = [(name, read(start), read(end)) for name, start, end in marks]
        return Stamps(computed, transfers.posted, transfers.arrived)

    def _payload(self, pieces: Sequence[Tensor]) -> Sequence[Tensor]:
        """What travels while routing is recorded: the pieces, or a sign where memory is shared."""
        if self._link.carries_payload:
            return pieces
        return [self._integers([0]) for _ in pieces]

    def _exchange_counts(self, task: Task) -> RoutedCounts:
        """The counts of a chunk, which AG ranks know and tell EG ranks, with the rows where the
        routed tokens begin."""
        if isinstance(self.work, AttentionRank):
            counts: RoutedCounts = self.work.routed(task)
            first_rows = self.work.first_rows(task, counts)
            pairs = zip(first_rows, counts, strict=True)
            _finish(self._channel.send([self._integers([first, *row]) for first, row in pairs]))
            return counts
        assert isinstance(self.work, ExpertRank), f"{self._place} at {task}: work that routes none"
        experts = rank_experts(self._experts, self._place.eg, self._place.index)
        received = [self._integers([0] * (1 + len(experts))) for _ in self._place.peers]
        _finish(self._channel.receive(received))
        rows = [row.tolist() for row in received]
        counts = [row[1:] for row in rows]
        self.work.first_rows[chunk_key(task)] = [int(row[0]) for row in rows]
        self.work.counts[chunk_key(task)] = counts
        return counts

    def _integers(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=self._channel.device)

    def _check_routing(self) -> None:
        if not isinstance(self.work, AttentionRank):
            return
        for task in self.schedule.streams["A2E"]:
            if self.work.routed(task) != self._counts[chunk_key(task)]:
                raise RuntimeError(
                    f"{self._place} at {task}: tokens were routed otherwise than when routing "
                    "was recorded"
                )


def _finish(works: Sequence[dist.Work]) -> None:
    for work in works:
        work.wait()
