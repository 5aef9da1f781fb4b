"""Measurements from the package aiconfigurator-core (Apache-2.0), in the columns of
`simdep.hardware.operations`.

The package holds tables of hundreds of kernels on about ten GPUs. It is an optional extra: `pip
install 'simdep[aiconfigurator]'`, then `simdep fit aiconfigurator:l40s`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata, resources, util
from pathlib import Path

import pandas as pd

from simdep.hardware.operations import DTYPE_NAMES

PREFIX = "aiconfigurator:"
PACKAGE = "aiconfigurator_core"
_MOST = {
    "m": 32768,
    "n": 16384,
    "k": 16384,
}  # of a GEMM in an inference step; the tables go far beyond


@dataclass(frozen=True)
class _Source:
    """Where a family of operations stands, the names of its columns, and the rows that are
    meant."""

    folder: str
    file: str
    columns: dict[str, str]
    where: Mapping[str, object] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)
    cached: bool = False


_HEADS = {
    name: name for name in ("batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim")
}
_MLA = {name: name for name in ("batch_size", "isl", "num_heads")}
_PLAIN = {"window_size": 0, "beam_width": 1, "attn_dtype": "bfloat16", "kv_cache_dtype": "bfloat16"}
_BF16 = {"mla_dtype": "bfloat16", "kv_cache_dtype": "bfloat16"}
_EXPERTS = (
    "num_tokens",
    "hidden_size",
    "inter_size",
    "topk",
    "num_experts",
    "moe_ep_size",
    "distribution",
)
SOURCES = (
    _Source("gemm/trtllm", "gemm_perf", {"gemm_dtype": "dtype", "m": "m", "n": "n", "k": "k"}),
    _Source(
        "attention/trtllm", "context_attention_perf", _HEADS, _PLAIN | {"step": 0}, {"fw": "trtllm"}
    ),
    _Source(
        "attention/trtllm",
        "generation_attention_perf",
        _HEADS,
        _PLAIN,
        {"fw": "trtllm"},
        cached=True,
    ),
    _Source("mla/trtllm", "context_mla_perf", _MLA, _BF16, {"phase": "context"}),
    _Source("mla/trtllm", "generation_mla_perf", _MLA, _BF16, {"phase": "generation"}, cached=True),
    _Source(
        "moe/trtllm",
        "moe_perf",
        {name: name for name in _EXPERTS} | {"moe_dtype": "dtype", "kernel_source": "kernel"},
        {"moe_tp_size": 1, "distribution": "balanced"},
    ),
    _Source(
        "comm/nccl",
        "nccl_perf",
        {"op_name": "op_name", "num_gpus": "num_gpus", "message_size": "bytes"},
        {"nccl_dtype": "half"},
    ),
)


def tables(gpu: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """(description, table) of every family that the package has for a GPU, in microseconds; the
    largest of versions.

    Raises ValueError if the package is not installed or does not know the GPU.
    """
    if util.find_spec(PACKAGE) is None:
        raise ValueError(
            f"{PREFIX}{gpu} needs the package aiconfigurator-core; pip install 'simdep[aiconfigurator]'"
        )
    root = Path(str(resources.files(PACKAGE))) / "systems" / "data"
    known = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    folder = next(
        (name for name in known if gpu.lower() in (name, name.removesuffix("_sxm"))), None
    )
    if folder is None:
        raise ValueError(
            f"{PREFIX}{gpu}: aiconfigurator-core has no tables of it; it has those of {', '.join(known)}"
        )
    version = metadata.version("aiconfigurator-core")
    for source in SOURCES:
        files = list((root / folder / source.folder).glob(f"*/{source.file}.parquet"))
        if files:
            largest = max(files, key=lambda file: file.stat().st_size)
            found = f"aiconfigurator-core {version}: {largest.relative_to(root)}"
            yield found, _table(source, pd.read_parquet(largest))


def _table(source: _Source, raw: pd.DataFrame) -> pd.DataFrame:
    for column, value in source.where.items():
        if column in raw:
            raw = raw[raw[column] == value]
    table = (
        raw[list(source.columns)]
        .rename(columns=source.columns)
        .assign(us=raw["latency"] * 1e3, **source.extra)
    )
    if source.cached:
        table["kv_len"] = table.pop("isl") + raw["step"]
    if "dtype" in table:
        table["dtype"] = table["dtype"].replace(DTYPE_NAMES)
    for column, most in _MOST.items():
        if column in table:
            table = table[table[column] <= most]
    if "message_size" in source.columns:
        table["bytes"] *= 2  # the package counts elements of 2 bytes
    return table.reset_index(drop=True)
