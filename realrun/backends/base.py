"""Transfers of one rank, in both directions, and the clock that stamps them, in nanoseconds of the
host's clock.

A link is given what it will receive, in order; then it posts and waits by task name. A2E and E2A
are two process groups, so that the directions do not queue behind each other. The order of posts is
the schedule's on both sides: NCCL matches messages by order alone.

On the CPU (gloo) all receives are posted ahead, because gloo moves no byte before the receiver has
asked for it; a thread waits for them in order and stamps arrivals. On CUDA (NCCL) nothing blocks
the host: each receive is queued on a side stream behind the one before it, so that at most one
receive kernel a direction spins on the GPU.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

Message = tuple[
    str, int, Sequence[Tensor]
]  # task name, tag, one piece a peer (an empty piece is not sent)


class Link(Protocol):
    """Transfers of one rank with its peers."""

    carries_payload: bool  # else sender and receiver use the same memory

    def open(self, expected: Sequence[Message]) -> None:
        """Begin a run in which these messages arrive, in this order."""

    def post(self, message: Message) -> None:
        """Send; returns when the pieces may still be under way."""

    def wait(self, name: str) -> None:
        """Make the computation that follows wait for the arrival of a message."""

    def close(self) -> tuple[dict[str, float], dict[str, float]]:
        """End the run when every message has arrived and been sent: (posted, arrived) by task
        name."""


class Clock(Protocol):
    """Stamps of points in the computation."""

    def start(self) -> None:
        """Begin a run."""

    def mark(self) -> Any:
        """A stamp of the present point of the computation."""

    def read(self, mark: Any) -> float:
        """Nanoseconds of a stamp; valid after the run."""


class HostClock:
    """CLOCK_MONOTONIC, which all processes of a host share."""

    def start(self) -> None:
        pass

    def mark(self) -> int:
        return time.perf_counter_ns()

    def read(self, mark: int) -> float:
        return mark


class CudaClock:
    """CUDA events, tied to the host's clock at the start of each run."""

    def start(self) -> None:
        self._base = torch.cuda.Event(enable_timing=True)
        self._base.record()
        self._base.synchronize()
        self._base_ns = time.perf_counter_ns()

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def read(self, mark: torch.cuda.Event) -> float:
        return self._base_ns + 1e6 * float(self._base.elapsed_time(mark))


class GlooLink:
    """A link over gloo. `peers` are global ranks; one process group a direction."""

    carries_payload = True

    def __init__(
        self, peers: Sequence[int], outgoing: dist.ProcessGroup, incoming: dist.ProcessGroup
    ) -> None:
        self._peers, self._outgoing, self._incoming = peers, outgoing, incoming

    def open(self, expected: Sequence[Message]) -> None:
        self._posted: dict[str, float] = {}
        self._arrived: dict[str, float] = {}
        self._sends: list[dist.Work] = []
        self._failure: BaseException | None = None
        self._events = {name: threading.Event() for name, _, _ in expected}
        receives = [
            (name, each_peer(dist.irecv, self._peers, tag, pieces, self._incoming))
            for name, tag, pieces in expected
        ]
        self._waiter = threading.Thread(target=self._stamp_arrivals, args=(receives,), daemon=True)
        self._waiter.start()

    def post(self, message: Message) -> None:
        name, tag, pieces = message
        self._posted[name] = time.perf_counter_ns()
        self._sends += each_peer(dist.isend, self._peers, tag, pieces, self._outgoing)

    def wait(self, name: str) -> None:
        self._events[name].wait()
        if self._failure is not None:
            raise RuntimeError(f"{name} did not arrive: {self._failure}") from self._failure

    def close(self) -> tuple[dict[str, float], dict[str, float]]:
        for name in self._events:
            self.wait(name)
        for send in self._sends:
            send.wait()
        self._waiter.join()
        return self._posted, self._arrived

    def _stamp_arrivals(self, receives: Sequence[tuple[str, Sequence[dist.Work]]]) -> None:
        try:
            for name, works in receives:
                for work in works:
                    work.wait()
                self._arrived[name] = time.perf_counter_ns()
                self._events[name].set()
        except RuntimeError as error:
            self._failure = error
            for event in self._events.values():
                event.set()


def each_peer(
    call: Any, peers: Sequence[int], tag: int, pieces: Sequence[Tensor], group: dist.ProcessGroup
) -> list[dist.Work]:
    """Post a send or a receive of each piece that is not empty."""
    pairs = zip(peers, pieces, strict=True)
    return [call(piece, peer, group=group, tag=tag) for peer, piece in pairs if piece.numel()]


class NcclLink:
    """A link over NCCL. `peers` are global ranks; one process group, hence one communicator and
    stream, a direction."""

    carries_payload = True

    def __init__(
        self,
        peers: Sequence[int],
        outgoing: dist.ProcessGroup,
        incoming: dist.ProcessGroup,
        clock: CudaClock,
    ) -> None:
        self._peers, self._outgoing, self._incoming, self._clock = peers, outgoing, incoming, clock
        self._side = torch.cuda.Stream()

    def open(self, expected: Sequence[Message]) -> None:
        self._posted: dict[str, torch.cuda.Event] = {}
        self._arrived: dict[str, torch.cuda.Event] = {}
        self._sends: list[dist.Work] = []
        with torch.cuda.stream(self._side):
            for name, _, pieces in expected:
                for work in self._batch(dist.irecv, pieces, self._incoming):
                    work.wait()  # makes the side stream wait, not the host
                self._arrived[name] = self._clock.mark()

    def post(self, message: Message) -> None:
        name, _, pieces = message
        self._posted[name] = self._clock.mark()
        self._sends += self._batch(dist.isend, pieces, self._outgoing)

    def wait(self, name: str) -> None:
        torch.cuda.current_stream().wait_event(self._arrived[name])

    def close(self) -> tuple[dict[str, float], dict[str, float]]:
        torch.cuda.synchronize()
        self._sends.clear()
        posted = {name: self._clock.read(mark) for name, mark in self._posted.items()}
        arrived = {name: self._clock.read(mark) for name, mark in self._arrived.items()}
        return posted, arrived

    def _batch(
        self, call: Any, pieces: Sequence[Tensor], group: dist.ProcessGroup
    ) -> list[dist.Work]:
        pairs = zip(self._peers, pieces, strict=True)
        operations = [
            dist.P2POp(call, piece, peer, group) for peer, piece in pairs if piece.numel()
        ]
        return dist.batch_isend_irecv(operations) if operations else []
