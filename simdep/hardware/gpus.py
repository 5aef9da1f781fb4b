"""GPUs: what their data sheets and published price lists say, figure by figure with unit, label and
source."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class Figure:
    """One number about a GPU; `label` is datasheet or published."""

    value: float
    unit: str
    label: str
    source: str


@dataclass(frozen=True)
class Gpu:
    """A GPU and the other names that measurements use for it."""

    name: str
    aliases: tuple[str, ...]
    figures: Mapping[str, Figure]

    @property
    def sms(self) -> int:
        """Streaming multiprocessors."""
        return int(self.figures["sms"].value)


@cache
def gpus() -> dict[str, Gpu]:
    """Every GPU that simdep knows, by name."""
    data = json.loads((resources.files("simdep") / "data" / "gpus.json").read_text())
    return {
        name: Gpu(
            name,
            tuple(row["aliases"]),
            {key: Figure(**figure) for key, figure in row["figures"].items()},
        )
        for name, row in data.items()
    }


def find_gpu(name: str) -> Gpu | None:
    """The GPU of a name or alias, whatever its case; None if it is not known."""
    word = name.lower()
    return next((gpu for gpu in gpus().values() if word == gpu.name or word in gpu.aliases), None)
