"""How fast a sweep is: 10,000 points wanted in less than 10 s."""

from __future__ import annotations

import time
from typing import Any

import pytest

from simdep.planning.axes import Axis
from simdep.planning.sweep import Sweep
from simdep.planning.sweep_rows import sweep_rows

pytestmark = pytest.mark.bench
BASE: dict[str, Any] = {
    "model": "deepseek-v2",
    "deployment": {"hardware": "h20", "ag": 3, "eg": 5},
    "workload": {"seq_len": 2048, "m_a": 2},
}


@pytest.mark.parametrize(
    "texts",
    [
        ("r1=1..8", "r2=1..16", "order=asas,aass", "link.gbytes_per_s=log:10..400:40"),
        (
            "ag:eg=1:7..7:1",
            "seq_len=512..4096:512",
            "r1=1..4",
            "r2=1..8",
            "m_a=1,2,4",
            "order=asas,aass",
        ),
        (
            "seq_len=log:128..16384:100",
            "link.gbytes_per_s=log:10..400:25",
            "ag=2,4",
            "policy=pppipe,findep",
        ),
    ],
)
@pytest.mark.parametrize("model", ["deepseek-v2", "gpt-oss-120b"])
def test_10000_points_of_every_layer_of_a_model_take_less_than_10_s(
    model: str, texts: tuple[str, ...]
) -> None:
    sweep = Sweep(BASE | {"model": model}, tuple(map(Axis.parse, texts)))
    began = time.perf_counter()
    rows = [row for block in sweep_rows(sweep) for row in block]
    seconds = time.perf_counter() - began
    print(
        f"{model}, {' x '.join(texts)}: {len(rows):,} points in {seconds:.2f} s, "
        f"{len(rows) / seconds:,.0f} a second"
    )
    assert len(rows) == len(sweep) >= 10_000
    assert all(row["makespan_us"] > 0 for row in rows)
    assert seconds < 10
