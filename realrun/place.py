"""Where a rank stands in a deployment, and what can lie between ranks."""

from __future__ import annotations

from dataclasses import dataclass

LINKS = ("shm", "shaped", "tbf", "lo")  # between CPU ranks; between GPUs the link is what it is
KEPT_BY_RUNNER = ("shm", "shaped")  # links whose speed the runner keeps
CHOSEN_SPEED = (*KEPT_BY_RUNNER, "tbf")  # links that have the speed that a user chooses
GPU_LINK = "nccl"
MAX_MESSAGES = 100_000  # of one direction in a run


@dataclass(frozen=True)
class RankPlace:
    """Where a rank stands: AG ranks come first. `index` counts within the group."""

    ag: int
    eg: int
    rank: int

    @property
    def on_ag(self) -> bool:
        return self.rank < self.ag

    @property
    def index(self) -> int:
        return self.rank if self.on_ag else self.rank - self.ag

    @property
    def ranks(self) -> int:
        """How many ranks the deployment has."""
        return self.ag + self.eg

    @property
    def peers(self) -> list[int]:
        """Global ranks of the other group."""
        return list(range(self.ag, self.ranks)) if self.on_ag else list(range(self.ag))

    @property
    def compute_stream(self) -> str:
        return "AG" if self.on_ag else "EG"

    @property
    def outgoing_stream(self) -> str:
        return "A2E" if self.on_ag else "E2A"

    @property
    def incoming_stream(self) -> str:
        return "E2A" if self.on_ag else "A2E"

    def __str__(self) -> str:
        return f"{self.compute_stream}{self.index}"
