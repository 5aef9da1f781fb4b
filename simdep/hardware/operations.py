"""Operations that are measured on GPUs: the columns that describe one, and the amounts of work that
follow from them.

The columns are those of the CSV files that `simdep fit` and `simdep costs evaluate` read. Features
say how large an operation is, attributes (data type, kernel, library) which kernel runs it. A
*shape* is what stays the same in a series of measurements, so that errors on shapes left out of a
fit say how well it carries over. Work is counted in multiply-accumulates (MACs), bytes and plain
counts; `one` is 1 for every row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdep import checks
from simdep.arrays import Array
from simdep.hardware.expert_load import busiest_rank, power_law_exponent
from simdep.hardware.forms import Quantities

OperationColumns = Mapping[str, NDArray[Any]]  # columns of a table by name, equally long

DTYPE_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "fp8_block": 1.0, "int8": 1.0}
DTYPE_NAMES = {  # other names that measurements use
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "float32": "fp32",
    "float": "fp32",
}
_QUERY_TILE = 128  # queries of a head that one SM attends with at a time
_TILE = (256, 128)  # rows and columns of the output that one SM computes at a time in a large GEMM
_WAVE_FROM = 0.75  # of the SMs; with fewer tiles the kernel cuts k instead
_GPUS_PER_NODE = 8  # of the nodes that the DeepEP tables were measured on
_KEY_DIM, _VALUE_DIM, _ROPE_DIM, _LATENT_DIM = 192, 128, 64, 512  # of MLA, as in DeepSeek


@dataclass(frozen=True)
class Operation:
    """One kind of measured operation.

    `features` and `attributes` are its columns; the attributes in `required` have to be there. Rows
    belong to it where the columns of `selects` have one of the given values. `additive` and
    `overlapping` name the work of its roofline (see `forms.Terms`), `wave_overlapping` what
    overlaps where the number of SMs is known. `main` is the work of its linear form, `axis` the
    feature along which a table is measured in slices.
    """

    name: str
    features: tuple[str, ...]
    attributes: tuple[str, ...]
    shape: tuple[str, ...]
    work: Callable[[OperationColumns], Quantities]
    additive: tuple[str, ...]
    overlapping: tuple[str, ...]
    main: str
    axis: str
    selects: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    wave_overlapping: tuple[str, ...] = ()
    is_transfer: bool = False
    required: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Those by which a table of it is known."""
        return (*self.features, *self.selects)

    @cached_property
    def quantities(self) -> frozenset[str]:
        """The names of its work, on a GPU whose SMs are known too."""
        one: dict[str, NDArray[Any]] = {name: np.ones(1) for name in (*self.features, "gpu_sms")}
        return frozenset(self.work(one | {"dtype": np.array(["bf16"])}))


def element_bytes(dtypes: NDArray[Any]) -> Array:
    """Bytes of an element of every row; raises InputError for a data type that is not known."""
    names = dtypes.tolist()
    sizes = {}
    for name in set(names):
        sizes[name] = DTYPE_BYTES[checks.known(str(name), DTYPE_BYTES, "dtype")]
    return np.array([sizes[name] for name in names])


def activated_experts(tokens: Array, top_k: Array, experts: Array) -> Array:
    """Expected number of `experts` that get a token, balanced routing: E (1 - (1 - k/E)^n)
    (EPS-MoE, section 3)."""
    return experts * -np.expm1(tokens * np.log1p(-np.minimum(top_k / experts, 1 - 1e-12)))


def _features(columns: OperationColumns, *names: str) -> tuple[Array, ...]:
    return tuple(np.asarray(columns[name], float) for name in names)


def _gemm(columns: OperationColumns) -> Quantities:
    m, n, k = _features(columns, "m", "n", "k")
    macs = m * n * k
    moved = (m * k + k * n + m * n) * element_bytes(columns["dtype"])
    work = {"one": np.ones_like(m), "m": m, "n": n, "k": k, "macs": macs, "bytes": moved}
    if "gpu_sms" in columns:
        work["wave_macs"] = macs * _wave_factor(m, n, np.asarray(columns["gpu_sms"], float))
    return work


def _wave_factor(m: Array, n: Array, sms: Array) -> Array:
    """SMs of all waves of tiles over the tiles: at least 1, as the last wave is seldom full."""
    tiles = np.ceil(m / _TILE[0]) * np.ceil(n / _TILE[1])
    waves = np.ceil(tiles / sms) * sms / tiles
    return np.where(tiles >= _WAVE_FROM * sms, waves, 1)


def _attention_prefill(columns: OperationColumns) -> Quantities:
    batch, length, heads, kv_heads, dim = _features(
        columns, "batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim"
    )
    work = _core_work(columns, length)
    work["num_key_value_heads"] = kv_heads
    work["query_tiles"] = batch * heads * np.ceil(length / _QUERY_TILE)
    work["macs"] = batch * heads * length**2 * dim  # two products, half of each under the mask
    work["bytes"] = 2 * batch * length * dim * (2 * heads + 2 * kv_heads)
    return work | {"isl": length}


def _mla_prefill(columns: OperationColumns) -> Quantities:
    batch, length, heads = _features(columns, "batch_size", "isl", "num_heads")
    work = _core_work(columns, length)
    work["query_tiles"] = batch * heads * np.ceil(length / _QUERY_TILE)
    work["macs"] = batch * heads * length**2 * (_KEY_DIM + _VALUE_DIM) / 2
    work["bytes"] = 2 * batch * length * heads * (2 * _KEY_DIM + 2 * _VALUE_DIM)
    return work | {"isl": length}


def _attention_decode(columns: OperationColumns) -> Quantities:
    batch, length, heads, kv_heads, dim = _features(
        columns, "batch_size", "kv_len", "num_heads", "num_key_value_heads", "head_dim"
    )
    group = np.ceil(heads / kv_heads / 8) * 8  # queries of a KV head fill tensor-core tiles of 8
    work = _core_work(columns, length)
    work["num_key_value_heads"] = kv_heads
    work["query_rows"] = batch * heads
    work["kv_rows"] = batch * kv_heads
    work["kv_bytes"] = 2 * 2 * batch * length * kv_heads * dim
    work["macs"] = 2 * batch * kv_heads * group * length * dim
    return work | {"kv_len": length}


def _mla_decode(columns: OperationColumns) -> Quantities:
    batch, length, heads = _features(columns, "batch_size", "kv_len", "num_heads")
    key = _LATENT_DIM + _ROPE_DIM
    work = _core_work(columns, length)
    work["query_rows"] = batch * heads
    work["kv_bytes"] = 2 * batch * length * key
    work["macs"] = batch * np.ceil(heads / 16) * 16 * length * (key + _LATENT_DIM)
    return work | {"kv_len": length}


def _core_work(columns: OperationColumns, length: Array) -> dict[str, Array]:
    """What attention cores of any form have in common."""
    batch, heads = _features(columns, "batch_size", "num_heads")
    return {"one": np.ones_like(length), "batch_size": batch, "num_heads": heads}


def _moe_experts(columns: OperationColumns) -> Quantities:
    """Work of the busiest rank: under balanced routing or a power law, or as the columns `copies`
    (routed tokens) and `touched` (activated experts) say."""
    tokens, hidden, inter, top_k, experts, ranks = _features(
        columns, "num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_ep_size"
    )
    kernel = columns.get("kernel", np.full(len(tokens), "")).astype(str)
    matrices = np.where(np.char.find(kernel, "nongated") >= 0, 2, 3)
    routed_tokens, activated = _rank_load(columns, tokens, top_k, experts, ranks)
    weights = matrices * hidden * inter
    return {
        "one": np.ones_like(tokens),
        "num_tokens": tokens,
        "hidden_size": hidden,
        "inter_size": inter,
        "topk": top_k,
        "num_experts": experts,
        "moe_ep_size": ranks,
        "local_experts": experts / ranks,
        "macs": routed_tokens * weights,
        "weight_bytes": activated * weights * element_bytes(columns["dtype"]),
        "copy_bytes": 2 * routed_tokens * (2 * hidden + matrices * inter),
        "token_bytes": 2 * tokens * hidden,
    }


def _rank_load(
    columns: OperationColumns, tokens: Array, top_k: Array, experts: Array, ranks: Array
) -> tuple[Array, Array]:
    """Routed tokens and activated experts of the rank that every row is about."""
    routed_tokens = tokens * top_k / ranks
    activated = activated_experts(tokens, top_k, experts) / ranks
    distributions = columns.get("distribution", np.full(len(tokens), "")).astype(str)
    for distribution in np.unique(distributions):
        exponent = power_law_exponent(distribution)
        if exponent is None:
            continue
        for row in np.flatnonzero(distributions == distribution):
            sizes = [
                max(1, round(float(column[row]))) for column in (tokens, top_k, experts, ranks)
            ]
            routed_tokens[row], activated[row] = busiest_rank(*sizes, exponent)
    if "copies" in columns:
        routed_tokens = np.asarray(columns["copies"], float)
    if "touched" in columns:
        activated = np.asarray(columns["touched"], float)
    return routed_tokens, activated


def _deepep(columns: OperationColumns) -> Quantities:
    tokens, hidden, top_k, experts, sms = _features(
        columns, "tokens_per_rank", "hidden_size", "topk", "num_experts", "sms"
    )
    ranks = _GPUS_PER_NODE * _nodes(columns, len(tokens))
    reached = ranks * (1 - (1 - 1 / ranks) ** top_k)  # ranks that a token goes to
    sent = tokens * hidden * reached
    shared = np.maximum(sms, 1)
    return {
        "one": np.ones_like(tokens),
        "tokens_per_rank": tokens,
        "hidden_size": hidden,
        "topk": top_k,
        "num_experts": experts,
        "sms": shared,
        "tokens_per_sm": tokens / shared,
        "token_elements": tokens * hidden,
        "sent_elements": sent,
        "sent_per_sm": sent / shared,
        "copy_elements": tokens * hidden * top_k,
        "copies_per_expert": tokens * hidden * top_k / experts,
    }


def _nodes(columns: OperationColumns, length: int) -> Array:
    """Nodes of the attribute `node_num`, 1 where a table does not have it."""
    if "node_num" not in columns:
        return np.ones(length)
    names, index = np.unique(columns["node_num"].astype(str), return_inverse=True)
    counts = [_node_count(str(name)) for name in names]
    return np.array(counts, float)[index]


def _node_count(name: str) -> int:
    if not name.isdecimal():
        raise checks.InputError(f"node_num={checks.shown(name)}; expected an integer >= 1")
    return checks.integer(int(name), "node_num")


def _bytes(columns: OperationColumns) -> Quantities:
    (size,) = _features(columns, "bytes")
    return {"one": np.ones_like(size), "bytes": size, "root_bytes": np.sqrt(size)}


_ATTENTION_FEATURES = ("num_heads", "num_key_value_heads", "head_dim")
_ATTENTION_SHAPE = ("num_heads", "num_key_value_heads")
_MOE_SHAPE = ("hidden_size", "inter_size", "topk", "num_experts")
_DEEPEP = Operation(
    "deepep",
    features=("tokens_per_rank", "hidden_size", "topk", "num_experts", "sms"),
    attributes=("phase", "node_num"),
    shape=("hidden_size", "topk", "num_experts"),
    work=_deepep,
    additive=("one", "hidden_size", "tokens_per_sm", "token_elements"),
    overlapping=("sent_per_sm", "sent_elements"),
    main="token_elements",
    axis="tokens_per_rank",
    selects={"mode": ("normal",)},
    is_transfer=True,
)
_P2P = Operation(
    "p2p",
    features=("bytes",),
    attributes=("link",),
    shape=(),
    work=_bytes,
    additive=("one", "root_bytes"),
    overlapping=("one", "bytes"),
    main="bytes",
    axis="bytes",
    is_transfer=True,
)
_OPERATIONS = (
    Operation(
        "gemm",
        features=("m", "n", "k"),
        attributes=("dtype",),
        shape=("n", "k"),
        work=_gemm,
        additive=("one", "k"),
        overlapping=("macs", "bytes"),
        main="macs",
        axis="m",
        wave_overlapping=("wave_macs", "bytes"),
        required=("dtype",),
    ),
    Operation(
        "attention_prefill",
        features=("batch_size", "isl", *_ATTENTION_FEATURES),
        attributes=("fw",),
        shape=_ATTENTION_SHAPE,
        work=_attention_prefill,
        additive=("one", "isl"),
        overlapping=("query_tiles", "macs", "bytes"),
        main="macs",
        axis="isl",
    ),
    Operation(
        "attention_decode",
        features=("batch_size", "kv_len", *_ATTENTION_FEATURES),
        attributes=("fw", "queries"),
        shape=_ATTENTION_SHAPE,
        work=_attention_decode,
        additive=("one", "kv_len", "query_rows"),
        overlapping=("kv_rows", "kv_bytes", "macs"),
        main="kv_bytes",
        axis="kv_len",
    ),
    Operation(
        "mla_prefill",
        features=("batch_size", "isl", "num_heads"),
        attributes=(),
        shape=("num_heads",),
        work=_mla_prefill,
        additive=("one", "isl"),
        overlapping=("query_tiles", "macs", "bytes"),
        main="macs",
        axis="isl",
        selects={"phase": ("context", "prefill")},
    ),
    Operation(
        "mla_decode",
        features=("batch_size", "kv_len", "num_heads"),
        attributes=(),
        shape=("num_heads",),
        work=_mla_decode,
        additive=("one", "kv_len", "query_rows"),
        overlapping=("kv_bytes", "macs"),
        main="kv_bytes",
        axis="kv_len",
        selects={"phase": ("generation", "decode")},
    ),
    Operation(
        "moe_experts",
        features=("num_tokens", *_MOE_SHAPE, "moe_ep_size"),
        attributes=("dtype", "distribution", "fw", "kernel"),
        shape=_MOE_SHAPE,
        work=_moe_experts,
        additive=("one", "copy_bytes", "local_experts", "token_bytes"),
        overlapping=("macs", "weight_bytes"),
        main="macs",
        axis="num_tokens",
        required=("dtype",),
    ),
    _DEEPEP,
    replace(
        _DEEPEP,
        name="deepep_low_latency",
        additive=("one", "num_experts"),
        overlapping=("copy_elements", "copies_per_expert"),
        selects={"mode": ("low_latency",)},
    ),
    _P2P,
    replace(_P2P, name="nccl", attributes=("op_name", "num_gpus"), required=("op_name",)),
)
OPERATIONS = {operation.name: operation for operation in _OPERATIONS}


def implied_attributes(operation: Operation, columns: OperationColumns) -> dict[str, NDArray[Any]]:
    """Attributes that follow from features: whether every query head has keys of its own (mha) or
    shares them (gqa)."""
    if "queries" not in operation.attributes:
        return {}
    is_mha = columns["num_heads"] == columns["num_key_value_heads"]
    return {"queries": np.where(is_mha, "mha", "gqa")}
