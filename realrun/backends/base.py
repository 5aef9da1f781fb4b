"""What every backend offers: a device that computes, its clock, and links that carry bytes.

A link is given what it will receive, in order; then it posts and awaits messages by task name. A2E
and E2A are two process groups, so that the directions do not queue behind each other. The order of
posts is the schedule's on both sides: NCCL matches messages by order alone. Stamps are nanoseconds
of the host's clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Message:
    """What the transfer of one task carries: a piece a peer. An empty piece is not sent."""

    task: str
    place: int  # in its stream
    pieces: Sequence[Tensor]


@dataclass(frozen=True)
class TransferStamps:
    """When each message was posted here, and when each one arrived here, by task name."""

    posted: Mapping[str, float]
    arrived: Mapping[str, float]


@dataclass(frozen=True)
class Channel:
    """The peers of a rank (global ranks of the other group) and a process group a direction.

    `device` is where the tensors lie that it carries.
    """

    peers: Sequence[int]
    outgoing: dist.ProcessGroup
    incoming: dist.ProcessGroup
    device: torch.device

    def send(self, pieces: Sequence[Tensor], tag: int = 0) -> list[dist.Work]:
        """Begin to send each peer its piece."""
        return self._each(dist.isend, self.outgoing, pieces, tag)

    def receive(self, pieces: Sequence[Tensor], tag: int = 0) -> list[dist.Work]:
        """Begin to receive the piece of each peer."""
        return self._each(dist.irecv, self.incoming, pieces, tag)

    def _each(
        self, call: Any, group: dist.ProcessGroup, pieces: Sequence[Tensor], tag: int
    ) -> list[dist.Work]:
        works = []
        for peer, piece in zip(self.peers, pieces, strict=True):
            if piece.numel():
                works.append(call(piece, peer, group=group, tag=tag))
        return works


class Link(Protocol):
    """Transfers of one rank with its peers, in both directions."""

    carries_payload: bool  # else sender and receiver use the same memory

    def open(self, expected: Sequence[Message]) -> None:
        """Begin a run in which these messages arrive, in this order."""

    def post(self, message: Message) -> None:
        """Send; returns while the pieces may still be in flight."""

    def wait(self, task: str) -> None:
        """Make the computation that follows wait for the arrival of a message."""

    def close(self) -> TransferStamps:
        """End the run when every message has arrived and been sent."""


class Clock(Protocol):
    """Stamps of points in the computation."""

    def start(self) -> None:
        """Begin a run."""

    def mark(self) -> Any:
        """A stamp of the present point of the computation."""

    def read(self, mark: Any) -> float:
        """Nanoseconds of a stamp; valid after the run."""


class Device(Protocol):
    """What a rank computes on, and how it talks to others of its kind."""

    torch_device: torch.device
    dtype: torch.dtype

    def new_group(self) -> dist.ProcessGroup:
        """A process group of all ranks for one direction. All ranks call it at once."""

    def clock(self) -> Clock:
        """A clock of the device's computation."""

    def link(self, channel: Channel, clock: Clock) -> Link:
        """A link at the speed that it has by itself."""

    def synchronize(self) -> None:
        """Wait until all that was asked of the device is done."""
