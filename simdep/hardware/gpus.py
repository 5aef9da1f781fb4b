"""GPUs: what their data sheets and published price lists say, figure by figure with unit, label and
source."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


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
    return {name: _gpu(name, row) for name, row in data.items()}


def _gpu(name: str, row: Mapping[str, Any]) -> Gpu:
    figures = {key: Figure(**figure) for key, figure in row["figures"].items()}
    return Gpu(name, tuple(row["aliases"]), figures)


def find_gpu(name: str) -> Gpu | None:
    """The GPU of a name or alias, in any case; None if it is not known."""
    wanted = name.lower()
    for gpu in gpus().values():
        if wanted == gpu.name or wanted in gpu.aliases:
            return gpu
    return None
