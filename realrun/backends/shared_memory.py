"""Links of a chosen speed on one host: a message is delivered no sooner than the speed allows.

A message of `load` bytes occupies its direction for `alpha_us + load / mbytes_per_s`, one message
after the other, from the moment its last sender has posted it. Senders stamp their posts into
shared memory; each receiver works out the deliveries by itself and lets nobody through early. No
process stands in between, and nothing drifts.

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

from realrun.backends.base import Channel, Message, TransferStamps
from realrun.place import RankPlace

_SPIN_NS = 150_000  # what a sleep may overshoot: the rest is spun
_NAP_S = 10e-6
# Between looks for a post: one that is seen late is delivered on time if the link is slower.
_POLL_S = 100e-6


@dataclass(frozen=True)
class LinkSpeed:
    """The speed of both directions of a link: microseconds = alpha_us + bytes / mbytes_per_s."""

    alpha_us: float = 50.0
    mbytes_per_s: float = 1000.0

    def occupancy_ns(self, load: int) -> float:
        """Nanoseconds that a message of `load` bytes occupies its direction."""
        return 1e3 * (self.alpha_us + load / self.mbytes_per_s)


def sleep_until(moment_ns: float, *, spin: bool) -> None:
    """Return at this nanosecond of the host's clock.

    It sleeps first, then spins, or naps where others need the core.
    """
    left = moment_ns - time.perf_counter_ns()
    if left > _SPIN_NS:
        time.sleep((left - _SPIN_NS) / 1e9)
    while time.perf_counter_ns() < moment_ns:
        if not spin:
            time.sleep(_NAP_S)


class SharedMemoryLink:
    """`shm`: payload and posts in shared memory. One rank's two directions."""

    carries_payload = False

    def __init__(self, speed: LinkSpeed, posts: Tensor, place: RankPlace, *, spin: bool) -> None:
        """`posts` [2, MAX_MESSAGES, ranks] int64 is shared by all ranks, A2E first.

        `spin`: wait awake, not asleep.
        """
        self._speed, self._spin = speed, spin
        posts_np = posts.numpy()
        outgoing, incoming = (0, 1) if place.on_ag else (1, 0)
        self._own_posts, self._peer_posts = posts_np[outgoing, :, place.rank], posts_np[incoming]
        self._peers, self._receivers = place.peers, place.ag
        self._into_experts = not place.on_ag

    def open(self, expected: Sequence[Message]) -> None:
        # Older stamps are of earlier runs: all ranks open before any of them posts
        self._opened = time.perf_counter_ns()
        self._expected = iter(expected)
        self._free = 0.0
        self._posted: dict[str, float] = {}
        self._arrived: dict[str, float] = {}

    def post(self, message: Message) -> None:
        now = time.perf_counter_ns()
        self._own_posts[message.place] = self._posted[message.task] = now

    def wait(self, task: str) -> None:
        while task not in self._arrived:
            self._deliver(next(self._expected))
        sleep_until(self._arrived[task], spin=self._spin)

    def close(self) -> TransferStamps:
        for message in self._expected:
            self._deliver(message)
        for moment in list(self._arrived.values())[-1:]:
            sleep_until(moment, spin=self._spin)
        return TransferStamps(self._posted, self._arrived)

    def _deliver(self, message: Message) -> None:
        posted = self._last_post(message.place)
        self._free = max(self._free, posted) + self._speed.occupancy_ns(self._load(message.pieces))
        self._arrived[message.task] = self._free

    def _load(self, pieces: Sequence[Tensor]) -> int:
        """Bytes at the port of an expert rank.

        All that arrives there, or what the busiest sender has for all AG ranks.
        """
        sizes = [piece.numel() * piece.element_size() for piece in pieces]
        return sum(sizes) if self._into_experts else max(sizes) * self._receivers

    def _last_post(self, place: int) -> int:
        stamps = self._peer_posts[place]
        while True:
            times = [int(stamps[peer]) for peer in self._peers]
            if min(times) > self._opened:
                return max(times)
            if not self._spin:
                time.sleep(_POLL_S)


class ShapedGlooLink(SharedMemoryLink):
    """`shaped`: as above, with the bytes carried by gloo; what gloo brings late is late."""

    carries_payload = True

    def __init__(self, speed: LinkSpeed, posts: Tensor, place: RankPlace, channel: Channel) -> None:
        super().__init__(speed, posts, place, spin=False)
        self._channel = channel

    def open(self, expected: Sequence[Message]) -> None:
        super().open(expected)
        self._sends: list[dist.Work] = []
        self._receives = {
            message.task: self._channel.receive(message.pieces, message.place)
            for message in expected
        }

    def post(self, message: Message) -> None:
        super().post(message)
        self._sends += self._channel.send(message.pieces, message.place)

    def close(self) -> TransferStamps:
        stamps = super().close()
        for send in self._sends:
            send.wait()
        return stamps

    def _deliver(self, message: Message) -> None:
        requested = time.perf_counter_ns()
        for work in self._receives[message.task]:
            work.wait()
        arrived = time.perf_counter_ns()
        super()._deliver(message)
        if requested < self._free < arrived:
            self._free = self._arrived[message.task] = arrived
