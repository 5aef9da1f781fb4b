"""Small cases of realrun."""

from __future__ import annotations

from typing import Any

from realrun.backends.shared_memory import LinkSpeed
from realrun.cases import Case

SMALL: dict[str, Any] = {
    "model": "deepseek-v2-lite",
    "scale": 0.0625,
    "layers": 1,
    "seq_len": 16,
    "m_a": 1,
    "ag": 1,
    "eg": 1,
}


def small_case(**fields: Any) -> Case:
    """A case of one layer on 1+1 ranks, with other fields as they are given."""
    return Case.from_dict(SMALL | {"policy": "findep"} | fields)


def speed(mbytes_per_s: float) -> LinkSpeed:
    return LinkSpeed(mbytes_per_s=mbytes_per_s)
