"""Ranks on CPU cores, their bytes carried by gloo.

All receives are posted ahead, because gloo moves no byte before the receiver has asked for it; a
thread waits for them in order and stamps arrivals.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import psutil
import torch
import torch.distributed as dist

from realrun.backends.base import Channel, Clock, Message, TransferStamps

# Longer than any single wait: the parent of a rank that dies ends the others at once.
TIMEOUT = timedelta(minutes=30)


class CpuDevice:
    """A CPU core, which computes in float32."""

    torch_device = torch.device("cpu")
    dtype = torch.float32

    def new_group(self) -> dist.ProcessGroup:
        group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=TIMEOUT)
        return group

    def clock(self) -> HostClock:
        return HostClock()

    def link(self, channel: Channel, clock: Clock) -> GlooLink:
        return GlooLink(channel)

    def synchronize(self) -> None:
        pass  # a call on a CPU returns when it is done


class HostClock:
    """CLOCK_MONOTONIC, which all processes of a host share."""

    def start(self) -> None:
        pass

    def mark(self) -> int:
        return time.perf_counter_ns()

    def read(self, mark: int) -> float:
        return mark


class GlooLink:
    """A link over gloo, as fast as it goes."""

    carries_payload = True

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def open(self, expected: Sequence[Message]) -> None:
        self._posted: dict[str, float] = {}
        self._arrived: dict[str, float] = {}
        self._sends: list[dist.Work] = []
        self._failure: BaseException | None = None
        self._events = {message.task: threading.Event() for message in expected}
        receives = {
            message.task: self._channel.receive(message.pieces, message.place)
            for message in expected
        }
        self._waiter = threading.Thread(target=self._stamp_arrivals, args=(receives,), daemon=True)
        self._waiter.start()

    def post(self, message: Message) -> None:
        self._posted[message.task] = time.perf_counter_ns()
        self._sends += self._channel.send(message.pieces, message.place)

    def wait(self, task: str) -> None:
        self._events[task].wait()
        if self._failure is not None:
            raise RuntimeError(f"{task} did not arrive: {self._failure}") from self._failure

    def close(self) -> TransferStamps:
        for task in self._events:
            self.wait(task)
        for send in self._sends:
            send.wait()
        self._waiter.join()
        return TransferStamps(self._posted, self._arrived)

    def _stamp_arrivals(self, receives: dict[str, list[dist.Work]]) -> None:
        try:
            for task, works in receives.items():
                for work in works:
                    work.wait()
                self._arrived[task] = time.perf_counter_ns()
                self._events[task].set()
        except RuntimeError as error:
            self._failure = error
            for event in self._events.values():
                event.set()


def free_host_bytes() -> int:
    """Memory that new processes may use: what the host has free, within this control group's limit.

    All ranks of the host share it.
    """
    free = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        used = (group / "memory.current").read_text().strip()
    except OSError:
        return free
    if limit == "max":
        return free
    return min(free, int(limit) - int(used))
