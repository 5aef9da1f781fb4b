"""The ranks of a real run: how a process finds its place, and how a parent starts, watches and ends
its ranks.

Ranks follow torchrun's environment (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT), whether torchrun
or `spawn` set it. A rank that dies ends all others, and the error names it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from realrun.backends import netns
from realrun.backends.base import Clock, CudaClock, GlooLink, HostClock, Link, NcclLink
from realrun.backends.shared_memory import (
    MOST_MESSAGES,
    Shape,
    ShapedGlooLink,
    SharedMemoryLink,
    sleep_until,
)
from realrun.place import Place
from realrun.runtime.layers import Numerics

TIMEOUT = timedelta(
    minutes=30
)  # longer than any single wait; a dead rank is noticed by its parent at once
DTYPES = {"gloo": "fp32", "nccl": "bf16"}  # what ranks compute in
_START_NS = 20_000_000  # ranks agree to start a run this long after they have all arrived
_POLL_S = 0.05


class World:
    """This process among the ranks of a deployment; made once a process. Use as a context
    manager."""

    def __init__(self, ag: int, eg: int, seed: int, backend: str = "auto") -> None:
        """`backend` is gloo, nccl, or auto: nccl where every rank can have a GPU."""
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        if size != ag + eg:
            raise ValueError(f"ag={ag} and eg={eg} need {ag + eg} ranks, but {size} were started")
        self.place = Place(ag, eg, rank)
        self.own_core = False
        self.backend = choose_backend(backend, int(os.environ.get("LOCAL_WORLD_SIZE", size)))
        if self.backend == "nccl":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank)))
            self.numerics = Numerics(torch.device("cuda"), torch.bfloat16, seed)
        else:
            self.own_core = pin(self.place)
            self.numerics = Numerics(torch.device("cpu"), torch.float32, seed)
        dist.init_process_group("gloo", timeout=TIMEOUT)
        self.links = (self._direction(), self._direction())
        sides = (list(range(ag)), list(range(ag, ag + eg)))
        self._side: dist.ProcessGroup = [dist.new_group(side, timeout=TIMEOUT) for side in sides][
            0 if self.place.on_ag else 1
        ]
        self._posts: torch.Tensor | None = None
        self._kernel_rate = 0.0  # MB/s of a tbf link, once set
        hosts = {row["host"] for row in self.all_gather({"host": socket.gethostname()})}
        if len(hosts) > 1:
            raise ValueError(
                f"ranks run on {len(hosts)} hosts, whose clocks differ; timelines need ranks on one host"
            )

    def __enter__(self) -> World:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            dist.destroy_process_group()

    def _direction(self) -> dist.ProcessGroup:
        group: dist.ProcessGroup = dist.new_group(backend=self.backend, timeout=TIMEOUT)
        if self.backend == "nccl":  # the first call on a NCCL group must involve all its ranks
            dist.all_reduce(torch.ones(1, device="cuda"), group=group)
        return group

    def clock(self) -> Clock:
        return CudaClock() if self.backend == "nccl" else HostClock()

    def link(self, clock: Clock, kind: str, shape: Shape) -> Link:
        """A link of a kind of `realrun.place.LINKS`; `shape` is for those whose speed is chosen."""
        a2e, e2a = self.links
        outgoing, incoming = (a2e, e2a) if self.place.on_ag else (e2a, a2e)
        if isinstance(clock, CudaClock):
            return NcclLink(self.place.peers, outgoing, incoming, clock)
        if kind in ("lo", "tbf"):
            return GlooLink(self.place.peers, outgoing, incoming)
        if self._posts is None:
            elements = 2 * MOST_MESSAGES * (self.place.ag + self.place.eg)
            self._posts = self.share(
                [elements] + [0] * (self.place.ag + self.place.eg - 1), torch.int64
            )[0]
        posts = self._posts.view(2, MOST_MESSAGES, -1)
        if kind == "shm":
            return SharedMemoryLink(shape, posts, self.place, spin=self.own_core)
        return ShapedGlooLink(shape, posts, self.place, spin=False).through(outgoing, incoming)

    def tune(self, kind: str, shape: Shape) -> None:
        """Before a run: have the kernel keep the speed of a link whose speed it keeps."""
        if kind == "tbf" and shape.mbytes_per_s != self._kernel_rate:
            self._kernel_rate = shape.mbytes_per_s
            if self.place.index == 0:
                netns.set_rate(shape.mbytes_per_s)

    def share(self, elements: Sequence[int], dtype: torch.dtype) -> list[torch.Tensor]:
        """Tensors in memory that all ranks share, one an owner: rank r owns elements[r] of them.
        All ranks call it.

        The memory has no name in any file system: the kernel frees it with the last process,
        however that ends.
        """
        fd = os.memfd_create("simdep")
        try:
            os.ftruncate(fd, max(1, elements[self.place.rank]) * dtype.itemsize)
            owners = [
                f"/proc/{row['pid']}/fd/{row['fd']}"
                for row in self.all_gather({"pid": os.getpid(), "fd": fd})
            ]
            found = [
                torch.from_file(owner, shared=True, size=count, dtype=dtype)
                if count
                else torch.empty(0, dtype=dtype)
                for owner, count in zip(owners, elements, strict=True)
            ]
            self.meet()  # all have it
            return found
        finally:
            os.close(fd)

    def start_together(self) -> None:
        """Return at the same moment on every rank, after all have called."""
        dist.barrier()
        moment = torch.tensor([time.perf_counter_ns() + _START_NS])
        dist.broadcast(moment, 0)
        sleep_until(moment.item(), spin=self.own_core)

    def meet(self) -> None:
        """Wait for all ranks."""
        dist.barrier()

    def meet_group(self) -> None:
        """Wait for the other ranks of this rank's own group."""
        dist.barrier(group=self._side)

    def synchronize(self) -> None:
        """Wait for this rank's device."""
        if self.backend == "nccl":
            torch.cuda.synchronize()

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
        return [json.loads(bytes(t[: int(n)].tolist())) for t, n in zip(texts, sizes, strict=True)]


def choose_backend(wanted: str, local_ranks: int) -> str:
    """nccl or gloo; raises ValueError where nccl is wanted but GPUs are too few."""
    gpus = (
        torch.cuda.device_count() if torch.cuda.is_available() and dist.is_nccl_available() else 0
    )
    if wanted == "auto":
        return "nccl" if gpus >= local_ranks else "gloo"
    if wanted == "nccl" and gpus < local_ranks:
        raise ValueError(
            f"backend nccl needs a GPU for each of {local_ranks} ranks; this host has {gpus}"
        )
    return wanted


def pin(place: Place) -> bool:
    """Give a CPU rank a core of its own (True), or, where cores are too few, one of its group's;
    one thread computes.

    AG and EG never share a core if there are two: what they overlap in a schedule, they overlap in
    fact.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) >= place.ag + place.eg:
        mine = [cores[place.rank]]
    elif len(cores) > 1:
        split = min(max(1, len(cores) * place.ag // (place.ag + place.eg)), len(cores) - 1)
        group = cores[:split] if place.on_ag else cores[split:]
        mine = [group[place.index % len(group)]]
    else:
        mine = cores
    os.sched_setaffinity(0, mine)
    torch.set_num_threads(1)
    _prctl(
        29, 1
    )  # PR_SET_TIMERSLACK: sleeps end within a nanosecond of their time as far as the kernel can
    # Before other programs on its core; only root may, and where sessions are scheduled as groups
    # only this works.
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("-20")
    return len(cores) >= place.ag + place.eg


def spawn(
    command: Sequence[str],
    ag: int,
    eg: int,
    folder: Path,
    watch: Callable[[], None] = lambda: None,
    network: netns.Namespaces | None = None,
) -> None:
    """Run `command` (arguments of this Python) as `ag` + `eg` ranks of this host until all have
    ended well.

    Each rank's output goes to folder/rank-N.log; `watch` is called now and then; in a `network`, AG
    and EG stand in its two namespaces. Raises RuntimeError naming the rank that failed first, after
    ending the others; they are ended, too, when this process is interrupted or killed.
    """
    size = ag + eg
    environment = {
        **os.environ,
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
    }
    environment |= {
        "MASTER_PORT": str(_free_port()),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
    environment |= {"GLOO_SOCKET_IFNAME": "lo", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    environment |= {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "-1"}
    environment |= network.environment if network else {}
    logs = [folder / f"rank-{rank}.log" for rank in range(size)]
    processes = []
    try:
        for rank, log in enumerate(logs):
            python = [sys.executable, *command]
            with log.open("w") as output:
                processes.append(
                    subprocess.Popen(
                        network.command(int(rank >= ag), python) if network else python,
                        env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        stdin=subprocess.DEVNULL,
                        start_new_session=True,
                    )
                )
        while any(process.poll() is None for process in processes):
            _raise_for_dead(processes, logs, ag)
            watch()
            time.sleep(_POLL_S)
        _raise_for_dead(processes, logs, ag)
        watch()
    finally:
        _end(processes)


def _raise_for_dead(
    processes: Sequence[subprocess.Popen[bytes]], logs: Sequence[Path], ag: int
) -> None:
    codes = {rank: process.returncode for rank, process in enumerate(processes) if process.poll()}
    if not codes:
        return
    # A rank that was killed takes its peers with it: their complaints are only echoes.
    rank = min(codes, key=lambda r: (codes[r] >= 0, r))
    place = Place(ag, len(processes) - ag, rank)
    how = (
        f"was killed by {signal.Signals(-codes[rank]).name}"
        if codes[rank] < 0
        else f"ended with code {codes[rank]}"
    )
    said = logs[rank].read_text(errors="replace").strip().splitlines()
    last_words = f"; it said: {said[-1]}" if said else ""
    raise RuntimeError(f"rank {rank} ({place}) {how}; the other ranks were ended{last_words}")


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()


def die_with_parent() -> None:
    """Let the kernel end this process when its parent ends, however that happens."""
    _prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
