"""FastAFD (Hao AI Lab, July 2026): decode step latency of attention-FFN disaggregation on GB200
NVL72.

The colocated baseline of the same write-up says what attention costs: its core scales with the
samples, its dense kernels with the launches. The FFN side costs its published grouped GEMM, 31.8 us
+ 2.67 us per expert touched, in which reading weights races with computing rows. What a row costs
is the one constant, calibrated on a single row of the table. The rest are predictions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from simdep import policies
from simdep.costs import StageTimes
from simdep.hardware.forms import p_norm
from simdep.hardware.links import link_cost
from simdep.hardware.profile import load_hardware
from simdep.scenario import work
from simdep.scenario.models import ModelSpec, load_model
from simdep.schedule import Kind
from simdep.simulation.engine import makespan_us
from simdep.validation.reproduce.result import (
    Check,
    Columns,
    Parameter,
    Point,
    Reproduction,
    errors,
    published,
    records,
)

SOURCE = "FastAFD write-up of Hao AI Lab (July 2026), GB200 NVL72"
COLUMNS = (
    "model",
    "context",
    "attention_nodes",
    "ffn_nodes",
    "micro_batches",
    "batch_per_attention_gpu",
    "step_ms",
)
TABLE = Columns(
    COLUMNS,
    needed=COLUMNS,
    words=("model",),
    counts=("attention_nodes", "ffn_nodes", "micro_batches"),
)
GPUS_PER_NODE = 4
LAUNCH_US, EXPERT_US, OF_MODEL = (
    31.8,
    2.67,
    "qwen3-235b-a22b",
)  # grouped GEMM of the FFN side, per expert touched
POWER = 2.65  # of the race between weights and rows, as in the grouped GEMM measured on GB200
CALIBRATION = {
    "model": "qwen3-235b-a22b",
    "attention_nodes": 17,
    "ffn_nodes": 1,
    "micro_batches": 2,
    "batch_per_attention_gpu": 96,
}
CALIBRATION_MS = 48.7
MOST_MICRO_BATCHES = 64
CONTEXT = 8192
DISPATCH = "per-gpu"  # FP8 out and BF16 back: 3 bytes per hidden element and round trip
MOST_NODES = 17


@dataclass(frozen=True)
class Colocated:
    """The colocated baseline at 8K: samples and tokens/s of a GPU, shares of attention core and
    dense kernels."""

    batch: int
    tokens_per_s: float
    core: float
    dense: float

    @property
    def step_us(self) -> float:
        return 1e6 * self.batch / self.tokens_per_s


COLOCATED = {
    "qwen3-235b-a22b": Colocated(64, 1781, 0.414, 0.157),
    "minimax-m2.5": Colocated(48, 1516, 0.434, 0.162),
}


def reproduce(measured: pd.DataFrame | None = None) -> Reproduction:
    """Predict every row of a table with `COLUMNS`, default the published ones."""
    own = published("fastafd")
    row_us = calibrated(own)
    points = tuple(_point(row, row_us) for row in records(own if measured is None else measured))
    known = points if measured is None else tuple(_point(row, row_us) for row in records(own))
    return Reproduction(
        name="fastafd",
        title="FastAFD: decode of Qwen3-235B-A22B and MiniMax-M2.5 on GB200",
        source=SOURCE,
        points=points,
        parameters=_parameters(row_us),
        checks=_checks(known),
        remarks=_remarks(row_us),
    )


def step_us(row: Mapping[str, Any], row_us: float) -> float:
    """Microseconds of one decode step: a ping-pong pipeline of `micro_batches` over all layers,
    simulated."""
    model, m = load_model(str(row["model"])), int(row["micro_batches"])
    schedule = policies.pppipe(model.layers, m, shared=False)
    return makespan_us(schedule, stage_times(row, model, row_us))


def stage_times(row: Mapping[str, Any], model: ModelSpec, row_us: float) -> StageTimes:
    """Microseconds of the tasks of one micro-batch; `row_us` is that of one Qwen3 row on the FFN
    side."""
    base, m = COLOCATED[model.name], int(row["micro_batches"])
    ag, eg = (GPUS_PER_NODE * int(row[f"{group}_nodes"]) for group in ("attention", "ffn"))
    samples = row["batch_per_attention_gpu"] / m
    core = base.step_us * base.core / base.batch * row["context"] / CONTEXT
    part = work.experts(model, samples * ag, eg)
    size = model.expert_params / load_model(OF_MODEL).expert_params
    race = p_norm(np.array([EXPERT_US * part.touched, row_us * part.copies]), POWER)
    sent = work.transfer(model, samples, ag, eg, DISPATCH)
    out, back = (link_cost(load_hardware("gb200"), kind, ag, eg) for kind in (Kind.A2E, Kind.E2A))
    return StageTimes(
        attention=(samples * core + base.step_us * base.dense) / model.layers,
        expert=LAUNCH_US + size * float(race),
        a2e=out(max(sent.ag_bytes(1), sent.eg_bytes(1))),
        e2a=back(max(sent.ag_bytes(2), sent.eg_bytes(2))),
    )


def calibrated(table: pd.DataFrame) -> float:
    """The microseconds of a row on the FFN side that make the calibration row come out as
    measured."""
    (row,) = (row for row in records(table) if _is_calibration(row))
    return float(brentq(lambda row_us: float(step_us(row, row_us) - 1e3 * row["step_ms"]), 0, 1))


def tokens_per_s(row: Mapping[str, Any], us: float) -> float:
    """Throughput of each GPU, FFN nodes included: M B / ((M + N) T_step)."""
    nodes = int(row["attention_nodes"])
    return (
        1e6 * nodes * float(row["batch_per_attention_gpu"]) / ((nodes + int(row["ffn_nodes"])) * us)
    )


def _point(columns: Mapping[str, Any], row_us: float) -> Point:
    value, unit = columns["step_ms"], "ms a step"
    if missing := [column for column in COLUMNS if columns[column] is None and column != "step_ms"]:
        return Point(columns, value, None, unit, "not-modelled", f"{missing[0]} is missing")
    row = {**columns, "model": columns["model"].lower()}
    if row["model"] not in COLOCATED:
        why = f"no colocated baseline of {row['model']} is published; use {', '.join(COLOCATED)}"
        return Point(columns, value, None, unit, "not-modelled", why)
    if row["micro_batches"] > min(MOST_MICRO_BATCHES, row["batch_per_attention_gpu"]):
        why = f"micro_batches={row['micro_batches']}; at most {MOST_MICRO_BATCHES} are simulated, of a sample or more"
        return Point(columns, value, None, unit, "not-modelled", why)
    try:
        us = step_us(row, row_us)
    except ValueError as error:  # such as more FFN GPUs than experts
        return Point(columns, value, None, unit, "not-modelled", str(error))
    others = {"tokens_per_s_per_gpu": tokens_per_s(row, us)}
    if _is_calibration(row):
        own = value == CALIBRATION_MS
        why = f"a new measurement of the configuration that is calibrated on, as published: {CALIBRATION_MS} ms"
        why = "the one row that is calibrated on" if own else why
        return Point(
            columns, value, us / 1e3, unit, "calibrated" if own else "predicted", why, others
        )
    why = "" if row["context"] == CONTEXT else "attention core assumed proportional to the context"
    return Point(columns, value, us / 1e3, unit, "predicted", why, others)


def _is_calibration(row: Mapping[str, Any]) -> bool:
    return (
        all(row[key] == value for key, value in CALIBRATION.items()) and row["context"] == CONTEXT
    )


def _parameters(row_us: float) -> tuple[Parameter, ...]:
    found = [
        Parameter("expert row", 1e3 * row_us, "ns a Qwen3 row", "fitted", f"the row {CALIBRATION}")
    ]
    for name, base in COLOCATED.items():
        shares = f"attention core {base.core:.1%}, dense kernels {base.dense:.1%}"
        found.append(
            Parameter(
                f"colocated {name}",
                base.step_us / 1e3,
                "ms a step",
                "published",
                f"{SOURCE}; {shares}",
            )
        )
    scaled = "other models in proportion to an expert's weights"
    return (
        *found,
        Parameter(
            "grouped GEMM",
            f"{LAUNCH_US} + {EXPERT_US}",
            "us, us an expert",
            "published",
            f"{SOURCE}; {scaled}",
        ),
        Parameter(
            "power of the race",
            POWER,
            "",
            "measured",
            "profile gb200, grouped GEMM in fp8 (DeepGEMM)",
        ),
        Parameter(
            "dispatch",
            DISPATCH,
            "FP8 out, BF16 back",
            "assumed",
            "a token once to each FFN GPU that it needs",
        ),
        Parameter(
            "link",
            675,
            "GB/s of a GPU",
            "assumed",
            "GB200 data sheet: NVLink 5, 75 % of one direction",
        ),
    )


def _checks(points: tuple[Point, ...]) -> tuple[Check, ...]:
    mape = float(errors(points)["mape_pct"])
    found = [Check("all rows of step time", "MAPE <= 4 %", f"{mape:.2f} %", mape <= 4)]
    for model in COLOCATED:
        rows = [
            p for p in points if p.columns["model"] == model and p.columns["micro_batches"] == 2
        ]
        measured = max(
            rows, key=lambda p: tokens_per_s(p.columns, 1e3 * p.columns["step_ms"])
        ).columns["attention_nodes"]
        told = max(rows, key=lambda p: p.others["tokens_per_s_per_gpu"]).columns["attention_nodes"]
        name = f"best of the measured numbers of attention nodes, {model}"
        found.append(Check(name, str(measured), str(told), measured == told))
    return tuple(found)


def _remarks(row_us: float) -> tuple[str, ...]:
    best = []
    for model, batch in (("qwen3-235b-a22b", 96), ("minimax-m2.5", 72)):
        rows = [
            {
                "model": model,
                "context": CONTEXT,
                "attention_nodes": nodes,
                "ffn_nodes": 1,
                "micro_batches": 2,
                "batch_per_attention_gpu": batch,
            }
            for nodes in range(1, MOST_NODES + 1)
        ]
        speed, nodes = max(
            (tokens_per_s(row, step_us(row, row_us)), row["attention_nodes"]) for row in rows
        )
        best.append(f"{model} {nodes}:1 with {speed:,.0f} tokens/s a GPU")
    return (
        f"Best of all ratios from 1:1 to {MOST_NODES}:1, simulated: {', '.join(best)}. Best of the measured ones: 7:1 "
        "with 2,518 and 17:1 with 2,198.",
        "Dense kernels are taken to cost the same at any batch, so that m micro-batches pay them m times; at m = 3 the "
        "measured step is shorter than that.",
    )
