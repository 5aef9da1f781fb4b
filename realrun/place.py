"""Where a rank stands in a deployment, and what can lie between ranks."""

from __future__ import annotations

from dataclasses import dataclass

LINKS = ("shm", "shaped", "tbf", "lo")  # between CPU ranks; between GPUs the link is what it is


@dataclass(frozen=True)
class Place:
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
    def peers(self) -> list[int]:
        """Global ranks of the other group."""
        return list(range(self.ag, self.ag + self.eg)) if self.on_ag else list(range(self.ag))

    @property
    def streams(self) -> tuple[str, str, str]:
        """Names of the rank's compute stream, outgoing link and incoming link."""
        return ("AG", "A2E", "E2A") if self.on_ag else ("EG", "E2A", "A2E")

    def __str__(self) -> str:
        return f"{'AG' if self.on_ag else 'EG'}{self.index}"
