"""Ranks as processes of this host: how a parent starts, watches and ends them, and where they run.

A rank that dies ends all others, and the error names it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from realrun.backends.netns import Namespaces
from realrun.place import RankPlace

_POLL_S = 0.05
_PR_SET_PDEATHSIG, _PR_SET_TIMERSLACK = 1, 29


def spawn(
    command: Sequence[str],
    ag: int,
    eg: int,
    folder: Path,
    watch: Callable[[], None] = lambda: None,
    network: Namespaces | None = None,
) -> None:
    """Run `command` (arguments of this Python) as `ag` + `eg` ranks until all have ended well.

    Each rank's output goes to folder/rank-N.log; `watch` is called now and then; in a `network`, AG
    and EG stand in its two namespaces. Raises RuntimeError naming the rank that failed first, after
    ending the others; they are ended, too, when this process is interrupted or killed.
    """
    environment = _environment(ag + eg, network)
    python = [sys.executable, *command]
    processes: list[subprocess.Popen[bytes]] = []
    logs = [folder / f"rank-{rank}.log" for rank in range(ag + eg)]
    try:
        for rank, log in enumerate(logs):
            side = 0 if rank < ag else 1
            with log.open("w") as output:
                process = subprocess.Popen(
                    network.command(side, python) if network else python,
                    env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    # Ctrl-C reaches this process alone, which ends its ranks
                    start_new_session=True,
                )
            processes.append(process)
        while any(process.poll() is None for process in processes):
            _raise_for_dead(processes, logs, ag)
            watch()
            time.sleep(_POLL_S)
        _raise_for_dead(processes, logs, ag)
        watch()
    finally:
        _end(processes)


def _environment(ranks: int, network: Namespaces | None) -> dict[str, str]:
    environment = {
        **os.environ,
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        # A rank computes on one core, as a GPU is one device
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        # All ranks are on this host
        "GLOO_SOCKET_IFNAME": "lo",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        # Freed memory stays with the process: taking it anew costs page faults within tasks
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": "-1",
    }
    if network is not None:
        environment |= network.environment
    return environment


def _raise_for_dead(
    processes: Sequence[subprocess.Popen[bytes]], logs: Sequence[Path], ag: int
) -> None:
    codes = {rank: process.returncode for rank, process in enumerate(processes) if process.poll()}
    if not codes:
        return
    # A rank that was killed takes its peers with it: their complaints are only echoes
    rank = min(codes, key=lambda rank: (codes[rank] >= 0, rank))
    place = RankPlace(ag, len(processes) - ag, rank)
    end = f"ended with code {codes[rank]}"
    if codes[rank] < 0:
        end = f"was killed by {signal.Signals(-codes[rank]).name}"
    lines = logs[rank].read_text(errors="replace").strip().splitlines()
    last_line = f"; its last line: {lines[-1]}" if lines else ""
    raise RuntimeError(f"rank {rank} ({place}) {end}; the other ranks were ended{last_line}")


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()


def pin(place: RankPlace) -> bool:
    """Give a CPU rank a core of its own (True), or, where cores are too few, one of its group's.

    One thread computes. AG and EG never share a core if there are two: what they overlap in a
    schedule, they overlap in fact.
    """
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, _cores_of(place, cores))
    torch.set_num_threads(1)
    _prctl(_PR_SET_TIMERSLACK, 1)  # sleeps end on time to the nanosecond, as far as the kernel can
    # Before other programs on its core; only root may, and where sessions are scheduled as groups
    # only this works.
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("-20")
    return len(cores) >= place.ranks


def _cores_of(place: RankPlace, cores: list[int]) -> list[int]:
    if len(cores) >= place.ranks:
        return [cores[place.rank]]
    if len(cores) == 1:
        return cores
    split = min(max(1, len(cores) * place.ag // place.ranks), len(cores) - 1)
    group = cores[:split] if place.on_ag else cores[split:]
    return [group[place.index % len(group)]]


def die_with_parent() -> None:
    """Let the kernel end this process when its parent ends, however that happens."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
