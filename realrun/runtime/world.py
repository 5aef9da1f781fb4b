"""This process among the ranks of a deployment.

Ranks follow torchrun's environment (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT), whether torchrun
or `realrun.runtime.launch.spawn` set it.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from realrun.backends import netns
from realrun.backends.base import Channel, Clock, Device, Link
from realrun.backends.gloo import TIMEOUT
from realrun.backends.registry import choose_backend, open_device
from realrun.backends.shared_memory import (
    LinkSpeed,
    ShapedGlooLink,
    SharedMemoryLink,
    sleep_until,
)
from realrun.place import MAX_MESSAGES, RankPlace
from realrun.runtime.launch import pin
from realrun.runtime.layers import Numerics
from simdep.checks import InputError

_START_NS = 20_000_000  # ranks agree to start a run this long after they have all arrived


class World:
    """The ranks of a deployment as one of them sees them; made once a process, a context manager.

    `own_core` says whether a CPU rank has a core of its own, so that it may wait awake.
    """

    def __init__(self, ag: int, eg: int, seed: int, backend: str = "auto") -> None:
        """`backend` is gloo, nccl, or auto: nccl where every rank can have a GPU."""
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        if size != ag + eg:
            raise InputError(f"ag={ag} and eg={eg} need {ag + eg} ranks, but {size} were started")
        self.place = RankPlace(ag, eg, rank)
        chosen = choose_backend(backend, int(os.environ.get("LOCAL_WORLD_SIZE", size)))
        self.device: Device = open_device(chosen, int(os.environ.get("LOCAL_RANK", rank)))
        self.own_core = self._on_cpu and pin(self.place)
        self.numerics = Numerics(self.device.torch_device, self.device.dtype, seed)
        dist.init_process_group("gloo", timeout=TIMEOUT)
        self.channel = self._channel()
        self._group = self._own_group()
        self._posts: Tensor | None = None
        self._kernel_rate = 0.0  # MB/s of a tbf link, once set
        self._check_one_host()

    def __enter__(self) -> World:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            dist.destroy_process_group()

    @property
    def _on_cpu(self) -> bool:
        return self.device.torch_device.type == "cpu"

    def _channel(self) -> Channel:
        a2e, e2a = self.device.new_group(), self.device.new_group()
        outgoing, incoming = (a2e, e2a) if self.place.on_ag else (e2a, a2e)
        return Channel(self.place.peers, outgoing, incoming, self.device.torch_device)

    def _own_group(self) -> dist.ProcessGroup:
        """The ranks of this rank's side, AG or EG; every rank makes both groups."""
        ag, ranks = self.place.ag, self.place.ranks
        ag_group: dist.ProcessGroup = dist.new_group(list(range(ag)), timeout=TIMEOUT)
        eg_group: dist.ProcessGroup = dist.new_group(list(range(ag, ranks)), timeout=TIMEOUT)
        return ag_group if self.place.on_ag else eg_group

    def _check_one_host(self) -> None:
        hosts = {row["host"] for row in self.all_gather({"host": socket.gethostname()})}
        if len(hosts) > 1:
            raise InputError(
                f"ranks run on {len(hosts)} hosts, whose clocks differ; timelines need one host"
            )

    def link(self, clock: Clock, kind: str, speed: LinkSpeed) -> Link:
        """A link of a kind of `realrun.place.LINKS`; `speed` is for those whose speed is chosen."""
        if not self._on_cpu or kind in ("lo", "tbf"):
            return self.device.link(self.channel, clock)
        if kind == "shm":
            return SharedMemoryLink(speed, self._shared_posts(), self.place, spin=self.own_core)
        return ShapedGlooLink(speed, self._shared_posts(), self.place, self.channel)

    def _shared_posts(self) -> Tensor:
        if self._posts is None:
            ranks = self.place.ranks
            elements = [2 * MAX_MESSAGES * ranks] + [0] * (ranks - 1)
            self._posts = self.share(elements, torch.int64)[0].view(2, MAX_MESSAGES, -1)
        return self._posts

    def shares_payload(self, kind: str) -> bool:
        """Whether a link of this kind leaves payload in memory that sender and receiver share."""
        return self._on_cpu and kind == "shm"

    def tune(self, kind: str, speed: LinkSpeed) -> None:
        """Before a run: have the kernel keep the speed of a link whose speed it keeps."""
        if kind == "tbf" and speed.mbytes_per_s != self._kernel_rate:
            self._kernel_rate = speed.mbytes_per_s
            if self.place.index == 0:
                netns.set_rate(speed.mbytes_per_s)

    def share(self, elements: Sequence[int], dtype: torch.dtype) -> list[Tensor]:
        """Tensors in memory that all ranks share: rank r owns elements[r] of them. All call it.

        The memory has no name in any file system: the kernel frees it with the last process,
        however that ends.
        """
        fd = os.memfd_create("simdep")
        try:
            os.ftruncate(fd, max(1, elements[self.place.rank]) * dtype.itemsize)
            owners = self.all_gather({"file": f"/proc/{os.getpid()}/fd/{fd}"})
            tensors = []
            for owner, count in zip(owners, elements, strict=True):
                if count:
                    file = owner["file"]
                    tensors.append(torch.from_file(file, shared=True, size=count, dtype=dtype))
                else:
                    tensors.append(torch.empty(0, dtype=dtype))
            self.barrier()  # all have opened it
            return tensors
        finally:
            os.close(fd)

    def synchronized_start(self) -> None:
        """Return at the same moment on every rank, after all have called."""
        dist.barrier()
        moment = torch.tensor([time.perf_counter_ns() + _START_NS])
        dist.broadcast(moment, 0)
        sleep_until(moment.item(), spin=self.own_core)

    def barrier(self) -> None:
        """Wait for all ranks."""
        dist.barrier()

    def group_barrier(self) -> None:
        """Wait for the other ranks of this rank's own group."""
        dist.barrier(group=self._group)

    def all_gather(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """Every rank's row, in order of rank, on every rank; rows travel as JSON."""
        data = torch.frombuffer(bytearray(json.dumps(row).encode()), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(dist.get_world_size())]
        dist.all_gather(sizes, torch.tensor([len(data)]))
        longest = max(int(size) for size in sizes)
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: len(data)] = data
        texts = [torch.zeros(longest, dtype=torch.uint8) for _ in sizes]
        dist.all_gather(texts, padded)
        pairs = zip(texts, sizes, strict=True)
        return [json.loads(bytes(text[: int(size)].tolist())) for text, size in pairs]
