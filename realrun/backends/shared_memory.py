"""Links of a chosen speed on one host: what a sender has posted is delivered no sooner than the
shape allows.

A message that carries `load` bytes occupies its direction for `alpha_us + load / mbytes_per_s`, one
message after the other, from the moment its last sender has posted it. Senders stamp their posts
into shared memory; each receiver works out the deliveries by itself and lets nobody through early.
No process stands in between, and nothing drifts.

With `shm` the payload lies in shared memory and is used in place, as behind a DMA engine: the
transfer costs the computing cores nothing. With `shaped` the same times hold, but the bytes really
travel through gloo.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor

from realrun.backends.base import Message, each_peer
from realrun.place import Place

MOST_MESSAGES = 100_000  # of one direction in a run
_SPIN_NS = 150_000  # what a sleep may overshoot: the rest is spun
_NAP_S = 10e-6
_POLL_S = 100e-6  # between looks for a post; what is found late is delivered on time as long as the link is slower


@dataclass(frozen=True)
class Shape:
    """The speed of both directions of a link."""

    alpha_us: float = 50.0
    mbytes_per_s: float = 1000.0

    def occupancy_ns(self, load: int) -> float:
        """Nanoseconds that a message of `load` bytes occupies its direction."""
        return 1e3 * (self.alpha_us + load / self.mbytes_per_s)


def sleep_until(at: float, *, spin: bool) -> None:
    """Return at this nanosecond of the host's clock; sleep first, then spin, or nap where others
    need the core."""
    left = at - time.perf_counter_ns()
    if left > _SPIN_NS:
        time.sleep((left - _SPIN_NS) / 1e9)
    while time.perf_counter_ns() < at:
        if not spin:
            time.sleep(_NAP_S)


class SharedMemoryLink:
    """`shm`: payload and posts in shared memory. One rank's two directions."""

    carries_payload = False

    def __init__(self, shape: Shape, posts: Tensor, place: Place, *, spin: bool) -> None:
        """`posts` [2, MOST_MESSAGES, ranks] int64 is shared by all ranks, A2E first; `spin`: wait
        awake, not asleep."""
        self._shape, self._spin = shape, spin
        posts_np = posts.numpy()
        outgoing, incoming = (0, 1) if place.on_ag else (1, 0)
        self._mine, self._theirs = posts_np[outgoing, :, place.rank], posts_np[incoming]
        self._peers, self._receivers = place.peers, place.ag
        self._into_experts = not place.on_ag

    def open(self, expected: Sequence[Message]) -> None:
        self._opened = (
            time.perf_counter_ns()
        )  # older stamps are of earlier runs: all ranks open before any posts
        self._expected = iter(expected)
        self._free = 0.0
        self._posted: dict[str, float] = {}
        self._arrived: dict[str, float] = {}

    def post(self, message: Message) -> None:
        name, tag, _ = message
        self._mine[tag] = self._posted[name] = time.perf_counter_ns()

    def wait(self, name: str) -> None:
        while name not in self._arrived:
            self._deliver(next(self._expected))
        sleep_until(self._arrived[name], spin=self._spin)

    def close(self) -> tuple[dict[str, float], dict[str, float]]:
        for message in self._expected:
            self._deliver(message)
        for at in list(self._arrived.values())[-1:]:
            sleep_until(at, spin=self._spin)
        return self._posted, self._arrived

    def _deliver(self, message: Message) -> None:
        name, tag, pieces = message
        posted = self._last_post(tag)
        self._free = max(self._free, posted) + self._shape.occupancy_ns(self._load(pieces))
        self._arrived[name] = self._free

    def _load(self, pieces: Sequence[Tensor]) -> int:
        """Bytes of an expert rank: all that arrives at this one, or what the busiest sender has for
        all AG ranks."""
        sizes = [piece.numel() * piece.element_size() for piece in pieces]
        return sum(sizes) if self._into_experts else max(sizes) * self._receivers

    def _last_post(self, tag: int) -> int:
        stamps = self._theirs[tag]
        while True:
            times = [int(stamps[peer]) for peer in self._peers]
            if min(times) > self._opened:
                return max(times)
            if not self._spin:
                time.sleep(_POLL_S)


class ShapedGlooLink(SharedMemoryLink):
    """`shaped`: as above, with the bytes carried by gloo; a message that gloo brings late is
    late."""

    carries_payload = True

    def through(self, outgoing: dist.ProcessGroup, incoming: dist.ProcessGroup) -> ShapedGlooLink:
        """This link over two process groups, one a direction."""
        self._outgoing, self._incoming = outgoing, incoming
        return self

    def open(self, expected: Sequence[Message]) -> None:
        super().open(expected)
        self._sends: list[dist.Work] = []
        self._receives = {
            name: each_peer(dist.irecv, self._peers, tag, pieces, self._incoming)
            for name, tag, pieces in expected
        }

    def post(self, message: Message) -> None:
        super().post(message)
        _, tag, pieces = message
        self._sends += each_peer(dist.isend, self._peers, tag, pieces, self._outgoing)

    def close(self) -> tuple[dict[str, float], dict[str, float]]:
        stamps = super().close()
        for send in self._sends:
            send.wait()
        return stamps

    def _deliver(self, message: Message) -> None:
        asked = time.perf_counter_ns()
        for work in self._receives[message[0]]:
            work.wait()
        came = time.perf_counter_ns()
        super()._deliver(message)
        if asked < self._free < came:
            self._free = self._arrived[message[0]] = came
