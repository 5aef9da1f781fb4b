"""Made-up measurements that several test modules share: GEMMs of a known roofline, the events of a
simulated run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from schedules import pppipe

from simdep.costs import HostOverheads
from simdep.hardware.forms import Terms
from simdep.hardware.operations import OPERATIONS
from simdep.schedule import Kind
from simdep.simulation.engine import simulate_schedule

GEMM = OPERATIONS["gemm"]
TRUE = Terms({"one": 5.0}, {"macs": 4e-9, "bytes": 5e-7}, 2.0)


def gemms(gpu: str = "h100", dtype: str = "bf16") -> pd.DataFrame:
    sizes = [
        (m, n, k)
        for m in (1, 8, 64, 512, 4096)
        for n in (512, 1024, 4096)
        for k in (512, 2048, 8192)
    ]
    m, n, k = np.array(sizes, float).T
    rows = {"m": m, "n": n, "k": k, "dtype": np.full(len(m), dtype)}
    return pd.DataFrame({"gpu": gpu, **rows, "us": TRUE(GEMM.work(rows))})


def saved(table: pd.DataFrame, folder: Path, name: str = "gemm.csv") -> Path:
    table.to_csv(folder / name, index=False)
    return folder / name


OPS = {
    Kind.ATTENTION: ("attention", "attn_compute"),
    Kind.EXPERT: ("ffn", "ffn_compute"),
    Kind.A2E: ("attention", "send_transfer"),
    Kind.E2A: ("ffn", "send_transfer"),
}


def events(
    layers: int = 8,
    attention: float = 300,
    expert: float = 500,
    gap: float = 40,
    mode: str = "prefill",
) -> pd.DataFrame:
    """The events of a run that the simulator itself made: sends take 10 us of the stream that posts
    them."""
    us = {Kind.ATTENTION: attention, Kind.EXPERT: expert, Kind.A2E: 10.0, Kind.E2A: 10.0}
    host = HostOverheads(gap_us=gap, post_us=lambda task: us[task.kind])
    rows = simulate_schedule(
        pppipe(layers, 2, shared=False), lambda task: us[task.kind], host
    ).by_task()
    kinds = [next(kind for kind in Kind if kind.label == word) for word in rows["kind"]]
    return pd.DataFrame(
        {
            "mode": mode,
            "batch": 4,
            "seq": 128,
            "node": [OPS[kind][0] for kind in kinds],
            "op": [OPS[kind][1] for kind in kinds],
            "layer": rows["layer"].to_numpy(),
            "mb": rows["mb"].to_numpy(),
            "start_ms": rows["start_us"].to_numpy() / 1e3,
            "end_ms": rows["end_us"].to_numpy() / 1e3,
        }
    )
