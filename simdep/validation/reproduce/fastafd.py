"""FastAFD (Hao AI Lab, July 2026): decode step latency of attention-FFN disaggregation on GB200
NVL72.

The colocated baseline of the same write-up says what attention costs: its core scales with the
samples, its dense kernels with the launches. The FFN side costs its published grouped GEMM, 31.8 us
+ 2.67 us per activated expert, in which reading weights overlaps with computing tokens. What a
token costs is the one constant, calibrated on a single row of the table. The rest are predictions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from simdep.simulation.engine import simulated_makespan_us
from simdep.validation.reproduce.result import (
    Check,
    MeasuredColumns,
    Parameter,
    Publication,
    PublishedPoint,
    Reproduction,
    error_summary,
    published,
    records,
)

_COUNTS = ("attention_nodes", "ffn_nodes", "micro_batches")
_COLUMNS = ("model", "context", *_COUNTS, "batch_per_attention_gpu", "step_ms")
FASTAFD = Publication(
    name="fastafd",
    title="FastAFD: decode of Qwen3-235B-A22B and MiniMax-M2.5 on GB200",
    source="FastAFD write-up of Hao AI Lab (July 2026), GB200 NVL72",
    table="fastafd",
    columns=MeasuredColumns(_COLUMNS, needed=_COLUMNS, text=("model",), counts=_COUNTS),
)
_GPUS_PER_NODE = 4
_GROUPED_START_US, _GROUPED_EXPERT_US = 31.8, 2.67  # grouped GEMM, per activated expert of Qwen3
_QWEN3 = "qwen3-235b-a22b"
_OVERLAP_POWER = 2.65  # of weights and tokens, as in the grouped GEMM measured on GB200
_CALIBRATION_MS = 48.7
_CONTEXT = 8192
_DISPATCH = "per-gpu"  # FP8 out and BF16 back: 3 bytes per hidden element and round trip
_MAX_MICRO_BATCHES = 64
_MAX_NODES = 17


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
    _QWEN3: Colocated(64, 1781, 0.414, 0.157),
    "minimax-m2.5": Colocated(48, 1516, 0.434, 0.162),
}


@dataclass(frozen=True)
class DecodeSetup:
    """A deployment of nodes of 4 GPUs, and what one attention GPU decodes."""

    model: str
    context: float
    attention_nodes: int
    ffn_nodes: int
    micro_batches: int
    batch: float  # samples of an attention GPU

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> DecodeSetup:
        """The setup of a row of the table."""
        return cls(
            model=str(row["model"]).lower(),
            context=row["context"],
            attention_nodes=row["attention_nodes"],
            ffn_nodes=row["ffn_nodes"],
            micro_batches=row["micro_batches"],
            batch=row["batch_per_attention_gpu"],
        )

    def tokens_per_s(self, step_us: float) -> float:
        """Throughput of each GPU, FFN nodes included: M B / ((M + N) T_step)."""
        nodes = self.attention_nodes
        return 1e6 * nodes * float(self.batch) / ((nodes + self.ffn_nodes) * step_us)


_CALIBRATION = DecodeSetup(_QWEN3, _CONTEXT, 17, 1, 2, 96)


def reproduce_fastafd(measured: pd.DataFrame | None = None) -> Reproduction:
    """Predict every row of a table with the columns of `FASTAFD`, default the published ones."""
    table = published(FASTAFD.table)
    token_us = _calibrated_token_us(table)
    known = tuple(_point(row, token_us) for row in records(table))
    points = known
    if measured is not None:
        points = tuple(_point(row, token_us) for row in records(measured))
    remarks = _remarks(token_us)
    return Reproduction(FASTAFD, points, _parameters(token_us), _checks(known), remarks)


def decode_step_us(setup: DecodeSetup, token_us: float) -> float:
    """Microseconds of one decode step: a ping-pong pipeline over all layers, simulated.

    `token_us` is what one routed token of Qwen3 costs on the FFN side.
    """
    model = load_model(setup.model)
    schedule = policies.build("pppipe", model.layers, setup.micro_batches, shared=False)
    return simulated_makespan_us(schedule, _stage_times(setup, model, token_us))


def _stage_times(setup: DecodeSetup, model: ModelSpec, token_us: float) -> StageTimes:
    """Microseconds of the tasks of one micro-batch."""
    baseline = COLOCATED[setup.model]
    ag, eg = _GPUS_PER_NODE * setup.attention_nodes, _GPUS_PER_NODE * setup.ffn_nodes
    samples = setup.batch / setup.micro_batches
    core = baseline.step_us * baseline.core / baseline.batch * setup.context / _CONTEXT
    tokens = samples * ag
    activated = model.experts / eg * work.activated_share(model, tokens)
    size = model.expert_params / load_model(_QWEN3).expert_params
    reading = _GROUPED_EXPERT_US * activated
    computing = token_us * (tokens * model.top_k / eg)
    overlapping = float(p_norm(np.array([reading, computing]), _OVERLAP_POWER))
    sent = work.transfer(model, samples, ag, eg, _DISPATCH)
    hardware = load_hardware("gb200")
    out, back = (link_cost(hardware, kind, ag, eg) for kind in (Kind.A2E, Kind.E2A))
    return StageTimes(
        attention=(samples * core + baseline.step_us * baseline.dense) / model.layers,
        expert=_GROUPED_START_US + size * overlapping,
        a2e=out(max(sent.ag_bytes(1), sent.eg_bytes(1))),
        e2a=back(max(sent.ag_bytes(2), sent.eg_bytes(2))),
    )


def _calibrated_token_us(table: pd.DataFrame) -> float:
    """The microseconds of a token on the FFN side that reproduce the calibration row."""
    (row,) = (row for row in records(table) if DecodeSetup.of(row) == _CALIBRATION)
    measured_us = 1e3 * row["step_ms"]

    def miss(token_us: float) -> float:
        return float(decode_step_us(_CALIBRATION, token_us) - measured_us)

    return float(brentq(miss, 0, 1))


def _point(columns: Mapping[str, Any], token_us: float) -> PublishedPoint:
    value, unit = columns["step_ms"], "ms a step"
    reason = _not_modelled(columns)
    if reason:
        return PublishedPoint(columns, value, None, unit, "not-modelled", reason)
    setup = DecodeSetup.of(columns)
    try:
        us = decode_step_us(setup, token_us)
    except ValueError as error:  # such as more FFN GPUs than experts
        return PublishedPoint(columns, value, None, unit, "not-modelled", str(error))
    others = {"tokens_per_s_per_gpu": setup.tokens_per_s(us)}
    role, reason = _role(setup, value)
    return PublishedPoint(columns, value, us / 1e3, unit, role, reason, others)


def _not_modelled(columns: Mapping[str, Any]) -> str:
    """Why a row has no prediction; empty if it has one."""
    needed = [column for column in _COLUMNS if column != "step_ms"]
    missing = [column for column in needed if columns[column] is None]
    if missing:
        return f"{missing[0]} is missing"
    setup = DecodeSetup.of(columns)
    if setup.model not in COLOCATED:
        return f"no colocated baseline of {setup.model} is published; use {', '.join(COLOCATED)}"
    if setup.micro_batches > min(_MAX_MICRO_BATCHES, setup.batch):
        return (
            f"micro_batches={setup.micro_batches}; at most {_MAX_MICRO_BATCHES} are simulated, "
            "of a sample or more"
        )
    return ""


def _role(setup: DecodeSetup, value: float | None) -> tuple[str, str]:
    """The role of a prediction and its reason."""
    if setup != _CALIBRATION:
        same_context = setup.context == _CONTEXT
        return "predicted", (
            "" if same_context else "attention core assumed proportional to the context"
        )
    if value == _CALIBRATION_MS:
        return "calibrated", "the one row that is calibrated on"
    return "predicted", (
        "a new measurement of the configuration that is calibrated on, "
        f"as published: {_CALIBRATION_MS} ms"
    )


def _parameters(token_us: float) -> tuple[Parameter, ...]:
    row = {
        "model": _CALIBRATION.model,
        "attention_nodes": _CALIBRATION.attention_nodes,
        "ffn_nodes": _CALIBRATION.ffn_nodes,
        "micro_batches": _CALIBRATION.micro_batches,
        "batch_per_attention_gpu": _CALIBRATION.batch,
    }
    baselines = []
    for name, baseline in COLOCATED.items():
        shares = f"attention core {baseline.core:.1%}, dense kernels {baseline.dense:.1%}"
        source = f"{FASTAFD.source}; {shares}"
        step_ms = baseline.step_us / 1e3
        baselines.append(Parameter(f"colocated {name}", step_ms, "ms a step", "published", source))
    grouped = f"{_GROUPED_START_US} + {_GROUPED_EXPERT_US}"
    scaled = f"{FASTAFD.source}; other models in proportion to an expert's weights"
    profile = "profile gb200, grouped GEMM in fp8 (DeepGEMM)"
    once = "a token once to each FFN GPU that it needs"
    sheet = "GB200 data sheet: NVLink 5, 75 % of one direction"
    return (
        Parameter("expert row", 1e3 * token_us, "ns a Qwen3 row", "fitted", f"the row {row}"),
        *baselines,
        Parameter("grouped GEMM", grouped, "us, us an expert", "published", scaled),
        Parameter("power of the overlap", _OVERLAP_POWER, "", "measured", profile),
        Parameter("dispatch", _DISPATCH, "FP8 out, BF16 back", "assumed", once),
        Parameter("link", 675, "GB/s of a GPU", "assumed", sheet),
    )


def _checks(points: Sequence[PublishedPoint]) -> tuple[Check, ...]:
    mape = error_summary(points).mape_pct
    assert mape is not None, "every published row is predicted"
    checks = [Check("all rows of step time", "MAPE <= 4 %", f"{mape:.2f} %", mape <= 4)]
    for model in COLOCATED:
        pairs = [
            point
            for point in points
            if point.columns["model"] == model and point.columns["micro_batches"] == 2
        ]
        measured = max(pairs, key=_measured_tokens_per_s).columns["attention_nodes"]
        predicted = max(pairs, key=_predicted_tokens_per_s).columns["attention_nodes"]
        statement = f"best of the measured numbers of attention nodes, {model}"
        checks.append(Check(statement, str(measured), str(predicted), measured == predicted))
    return tuple(checks)


def _measured_tokens_per_s(point: PublishedPoint) -> float:
    return DecodeSetup.of(point.columns).tokens_per_s(1e3 * point.columns["step_ms"])


def _predicted_tokens_per_s(point: PublishedPoint) -> float:
    return point.others["tokens_per_s_per_gpu"]


def _remarks(token_us: float) -> tuple[str, ...]:
    ratios = []
    for model, batch in ((_QWEN3, 96), ("minimax-m2.5", 72)):
        speed, nodes = _best_ratio(DecodeSetup(model, _CONTEXT, 1, 1, 2, batch), token_us)
        ratios.append(f"{model} {nodes}:1 with {speed:,.0f} tokens/s a GPU")
    return (
        f"Best of all ratios from 1:1 to {_MAX_NODES}:1, simulated: {', '.join(ratios)}. Best of "
        "the measured ones: 7:1 with 2,518 and 17:1 with 2,198.",
        "Dense kernels are taken to cost the same at any batch, so that m micro-batches pay them m "
        "times; at m = 3 the measured step is shorter than that.",
    )


def _best_ratio(setup: DecodeSetup, token_us: float) -> tuple[float, int]:
    """Tokens/s of a GPU and attention nodes, of the best number of attention nodes."""
    ratios = []
    for nodes in range(1, _MAX_NODES + 1):
        at_nodes = replace(setup, attention_nodes=nodes)
        ratios.append((at_nodes.tokens_per_s(decode_step_us(at_nodes, token_us)), nodes))
    return max(ratios)
