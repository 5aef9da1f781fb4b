"""Ranks on NVIDIA GPUs, their bytes carried by NCCL.

Nothing blocks the host: each receive is queued on a side stream behind the one before it, so that
at most one receive kernel a direction spins on the GPU.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from realrun.backends.base import Channel, Clock, Message, TransferStamps
from realrun.backends.gloo import TIMEOUT


class CudaDevice:
    """A GPU, which computes in bfloat16."""

    dtype = torch.bfloat16

    def __init__(self, index: int) -> None:
        """`index` counts the GPUs of this host."""
        torch.cuda.set_device(index)
        self.torch_device = torch.device("cuda")

    def new_group(self) -> dist.ProcessGroup:
        group: dist.ProcessGroup = dist.new_group(backend="nccl", timeout=TIMEOUT)
        # The first call on a NCCL group must involve all its ranks
        dist.all_reduce(torch.ones(1, device="cuda"), group=group)
        return group

    def clock(self) -> CudaClock:
        return CudaClock()

    def link(self, channel: Channel, clock: Clock) -> NcclLink:
        return NcclLink(channel, clock)

    def synchronize(self) -> None:
        torch.cuda.synchronize()


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


class NcclLink:
    """A link over NCCL, with one communicator and stream a direction."""

    carries_payload = True

    def __init__(self, channel: Channel, clock: Clock) -> None:
        self._channel, self._clock = channel, clock
        self._side = torch.cuda.Stream()

    def open(self, expected: Sequence[Message]) -> None:
        self._posted: dict[str, torch.cuda.Event] = {}
        self._arrived: dict[str, torch.cuda.Event] = {}
        self._sends: list[dist.Work] = []
        with torch.cuda.stream(self._side):
            for message in expected:
                for work in self._batch(dist.irecv, message.pieces, self._channel.incoming):
                    work.wait()  # makes the side stream wait, not the host
                self._arrived[message.task] = self._clock.mark()

    def post(self, message: Message) -> None:
        self._posted[message.task] = self._clock.mark()
        self._sends += self._batch(dist.isend, message.pieces, self._channel.outgoing)

    def wait(self, task: str) -> None:
        torch.cuda.current_stream().wait_event(self._arrived[task])

    def close(self) -> TransferStamps:
        torch.cuda.synchronize()
        self._sends.clear()
        posted = {task: self._clock.read(mark) for task, mark in self._posted.items()}
        arrived = {task: self._clock.read(mark) for task, mark in self._arrived.items()}
        return TransferStamps(posted, arrived)

    def _batch(
        self, call: Any, pieces: Sequence[Tensor], group: dist.ProcessGroup
    ) -> list[dist.Work]:
        operations = []
        for peer, piece in zip(self._channel.peers, pieces, strict=True):
            if piece.numel():
                operations.append(dist.P2POp(call, piece, peer, group))
        return dist.batch_isend_irecv(operations) if operations else []


def usable_gpus() -> int:
    """How many GPUs of this host can talk over NCCL."""
    if not torch.cuda.is_available() or not dist.is_nccl_available():
        return 0
    return torch.cuda.device_count()


def free_gpu_bytes(index: int) -> int:
    """Free memory of one GPU of this host."""
    free: int = torch.cuda.mem_get_info(index)[0]
    return free
