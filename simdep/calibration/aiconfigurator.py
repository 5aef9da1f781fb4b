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

from simdep.calibration.measurements import MeasuredTable
from simdep.checks import InputError, listed
from simdep.hardware.operations import DTYPE_NAMES

PREFIX = "aiconfigurator:"
_PACKAGE = "aiconfigurator_core"
_GEMM_LIMITS = {
    "m": 32768,
    "n": 16384,
    "k": 16384,
}  # of an inference step; the tables go far beyond
_ELEMENT_BYTES = 2  # of the elements that the package counts messages in


@dataclass(frozen=True)
class _Family:
    """Where a family of operations stands in the package.

    `columns` are their names there and here, `selects` the rows that are meant, `constants` columns
    that it does not have. `is_cached` tells that `kv_len` is the sum of two of its columns.
    """

    folder: str
    file: str
    columns: Mapping[str, str]
    selects: Mapping[str, object] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    is_cached: bool = False


def _same(*names: str) -> dict[str, str]:
    """OperationColumns that have the same names there and here."""
    return {name: name for name in names}


_HEADS = _same("batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim")
_MLA = _same("batch_size", "isl", "num_heads")
_EXPERTS = _same("num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_ep_size")
_IN_BF16 = {
    "window_size": 0,
    "beam_width": 1,
    "attn_dtype": "bfloat16",
    "kv_cache_dtype": "bfloat16",
}
_MLA_IN_BF16 = {"mla_dtype": "bfloat16", "kv_cache_dtype": "bfloat16"}
_FAMILIES = (
    _Family("gemm/trtllm", "gemm_perf", {"gemm_dtype": "dtype", **_same("m", "n", "k")}),
    _Family(
        "attention/trtllm",
        "context_attention_perf",
        _HEADS,
        {**_IN_BF16, "step": 0},
        {"fw": "trtllm"},
    ),
    _Family(
        "attention/trtllm",
        "generation_attention_perf",
        _HEADS,
        _IN_BF16,
        {"fw": "trtllm"},
        is_cached=True,
    ),
    _Family("mla/trtllm", "context_mla_perf", _MLA, _MLA_IN_BF16, {"phase": "context"}),
    _Family(
        "mla/trtllm",
        "generation_mla_perf",
        _MLA,
        _MLA_IN_BF16,
        {"phase": "generation"},
        is_cached=True,
    ),
    _Family(
        "moe/trtllm",
        "moe_perf",
        {**_EXPERTS, **_same("distribution"), "moe_dtype": "dtype", "kernel_source": "kernel"},
        {"moe_tp_size": 1, "distribution": "balanced"},
    ),
    _Family(
        "comm/nccl",
        "nccl_perf",
        {**_same("op_name", "num_gpus"), "message_size": "bytes"},
        {"nccl_dtype": "half"},
    ),
)


def packaged_measurements(gpu: str) -> Iterator[MeasuredTable]:
    """The measurements of every family that the package has for a GPU; the largest of versions.

    Raises InputError if the package is not installed or does not know the GPU.
    """
    if util.find_spec(_PACKAGE) is None:
        hint = "pip install 'simdep[aiconfigurator]'"
        raise InputError(f"{PREFIX}{gpu} needs the package aiconfigurator-core; {hint}")
    root = Path(str(resources.files(_PACKAGE))) / "systems" / "data"
    folder = _folder(root, gpu)
    version = metadata.version("aiconfigurator-core")
    for family in _FAMILIES:
        files = list((folder / family.folder).glob(f"*/{family.file}.parquet"))
        if files:
            largest = max(files, key=lambda file: file.stat().st_size)
            origin = f"aiconfigurator-core {version}: {largest.relative_to(root)}"
            yield MeasuredTable(origin, _table(family, pd.read_parquet(largest)))


def _folder(root: Path, gpu: str) -> Path:
    known = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    for name in known:
        if gpu.lower() in (name, name.removesuffix("_sxm")):
            return root / name
    raise InputError(f"{PREFIX}{gpu}: the package has no tables of it; use {listed(known)}")


def _table(family: _Family, packaged: pd.DataFrame) -> pd.DataFrame:
    """The rows of a family that are meant, in microseconds and in the columns of its operation."""
    for column, value in family.selects.items():
        if column in packaged:
            packaged = packaged[packaged[column] == value]
    table = packaged[list(family.columns)].rename(columns=dict(family.columns))
    table = table.assign(us=packaged["latency"] * 1e3, **family.constants)
    if family.is_cached:
        table["kv_len"] = table.pop("isl") + packaged["step"]
    if "dtype" in table:
        table["dtype"] = table["dtype"].replace(DTYPE_NAMES)
    for column, limit in _GEMM_LIMITS.items():
        if column in table:
            table = table[table[column] <= limit]
    if "message_size" in family.columns:
        table["bytes"] *= _ELEMENT_BYTES
    return table.reset_index(drop=True)
