"""A link whose speed the kernel keeps, between two network namespaces.

AG and EG stand in a namespace each, joined by a veth pair that tc tbf shapes. The namespaces have
no name: they live as long as a process or an open file refers to them, so that the kernel removes
them, and the pair with them, however the command ends. Only root may make them; iproute2 and
util-linux do the work.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Sequence
from types import TracebackType

from simdep.checks import InputError

DEVICE = "simdep"  # the end of the pair in either namespace
_ADDRESSES = ("10.213.79.1", "10.213.79.2")
_MTU = 65535  # every packet costs the computing cores an interrupt
_QUEUE_BYTES = 64_000_000  # more than TCP keeps in flight: nothing is dropped
# TCP that neither paces (bbr) nor starts anew after a pause, so that tbf alone decides
_TCP = (
    "cd /proc/sys/net/ipv4 && echo reno > tcp_congestion_control "
    "&& echo 0 > tcp_slow_start_after_idle"
)
_CLONE_NEWNET = 0x40000000


class Namespaces:
    """Two connected network namespaces, for AG and EG ranks; a context manager."""

    def __enter__(self) -> Namespaces:
        self._files = [_new_namespace() for _ in _ADDRESSES]
        try:
            pair = f"ip link add {DEVICE} type veth peer name {DEVICE} netns".split()
            self._run(0, *pair, self._path(1))
            for side, address in enumerate(_ADDRESSES):
                self._run(side, "ip", "link", "set", "lo", "up")
                self._run(side, "ip", "address", "add", f"{address}/30", "dev", DEVICE)
                self._run(side, "ip", "link", "set", DEVICE, "mtu", str(_MTU), "up")
                self._run(side, "sh", "-c", _TCP)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files:
            os.close(file)

    @property
    def environment(self) -> dict[str, str]:
        """What ranks need in their environment to find each other."""
        return {"MASTER_ADDR": _ADDRESSES[0], "GLOO_SOCKET_IFNAME": DEVICE}

    def command(self, side: int, command: Sequence[str]) -> list[str]:
        """The command as it runs in the namespace of the AG (0) or the EG (1)."""
        return ["nsenter", f"--net={self._path(side)}", *command]

    def _path(self, side: int) -> str:
        return f"/proc/{os.getpid()}/fd/{self._files[side]}"

    def _run(self, side: int, *command: str) -> None:
        done = subprocess.run(
            self.command(side, command), capture_output=True, text=True, check=False
        )
        if done.returncode:
            reason = done.stderr.strip() or f"ended with code {done.returncode}"
            raise RuntimeError(f"{' '.join(command)}: {reason}")


def check_available() -> None:
    """Raise ValueError, naming what is missing, where namespaces can't be made."""
    missing = [program for program in ("ip", "tc", "nsenter") if shutil.which(program) is None]
    if os.geteuid():
        lack = "root"
    elif missing:
        lack = f"the program {missing[0]} (of iproute2 and util-linux)"
    else:
        return
    raise InputError(
        f"--link tbf makes network namespaces and needs {lack}; use --link shm or shaped"
    )


def set_rate(mbytes_per_s: float) -> None:
    """Let this end of the pair send so fast from now on."""
    rate = f"{8 * mbytes_per_s:g}mbit"
    shape = ["tbf", "rate", rate, "burst", str(_MTU + 2500), "limit", str(_QUEUE_BYTES)]
    subprocess.run(
        ["tc", "qdisc", "replace", "dev", DEVICE, "root", *shape], check=True, capture_output=True
    )


def _new_namespace() -> int:
    """A file that keeps a new network namespace alive.

    A thread makes it, because only its maker moves into it.
    """
    files: list[int] = []

    def make() -> None:
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) == 0:
            files.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if not files:
        raise InputError(
            "--link tbf: this system refuses to make a network namespace; use --link shm or shaped"
        )
    return files[0]
