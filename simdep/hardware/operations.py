"""Operations that are measured on GPUs: the columns that describe one, and the amounts of work that
follow from them.

The columns are those of the CSV files that `simdep fit` and `simdep costs evaluate` read. Numbers
say how large an operation is, words (data type, kernel, library) which kernel runs it; a *shape* is
what stays the same in a series of measurements, so that errors on shapes left out of a fit say how
well it carries over. Work is counted in multiply-accumulates (MACs), bytes and plain counts; `one`
is 1 for every row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdep import checks
from simdep.hardware.expert_load import busiest_rank, power_law
from simdep.hardware.forms import Array, Work

Rows = Mapping[str, NDArray[Any]]  # columns by name, equally long

DTYPE_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "fp8_block": 1.0, "int8": 1.0}
DTYPE_NAMES = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "float32": "fp32",
    "float": "fp32",
}  # also used
QUERY_TILE = 128  # queries of a head that one SM attends with at a time
TILE = (256, 128)  # rows and columns of the output that one SM computes at a time in a large GEMM
DEEPEP_RANKS = 8  # of the node that the DeepEP tables were measured on


@dataclass(frozen=True)
class Operation:
    """One kind of measured operation.

    `numbers` and `words` are its columns; of the words, those in `needs` have to be there. Rows
    belong to it where the columns of `where` have one of the given values. `adds` and `races` are
    the work that its roofline sums up and lets race (see `forms.Terms`), `wave_races` what races
    where the number of SMs is known. `main` is the work of its linear form, `axis` the number along
    which a table is measured in slices.
    """

    name: str
    numbers: tuple[str, ...]
    words: tuple[str, ...]
    shape: tuple[str, ...]
    work: Callable[[Rows], Work]
    adds: tuple[str, ...]
    races: tuple[str, ...]
    main: str
    axis: str
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    wave_races: tuple[str, ...] = ()
    is_transfer: bool = False
    needs: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Those by which a table of it is known."""
        return (*self.numbers, *self.where)


def element_bytes(dtypes: NDArray[Any]) -> Array:
    """Bytes of an element of every row; raises ValueError for a data type that is not known."""
    known = {
        word: DTYPE_BYTES[checks.known(str(word), DTYPE_BYTES, "dtype")]
        for word in set(dtypes.tolist())
    }
    return np.array([known[word] for word in dtypes.tolist()])


def experts_touched(tokens: Array, top_k: Array, experts: Array) -> Array:
    """Expected number of `experts` that get a token, balanced routing: E (1 - (1 - k/E)^n)
    (EPS-MoE, section 3)."""
    return experts * -np.expm1(tokens * np.log1p(-np.minimum(top_k / experts, 1 - 1e-12)))


def _numbers(rows: Rows, *names: str) -> tuple[Array, ...]:
    return tuple(np.asarray(rows[name], float) for name in names)


def _gemm(rows: Rows) -> Work:
    m, n, k = _numbers(rows, "m", "n", "k")
    macs = m * n * k
    moved = (m * k + k * n + m * n) * element_bytes(rows["dtype"])
    work = {"one": np.ones_like(m), "m": m, "n": n, "k": k, "macs": macs, "bytes": moved}
    if "gpu_sms" in rows:
        tiles, sms = np.ceil(m / TILE[0]) * np.ceil(n / TILE[1]), np.asarray(rows["gpu_sms"], float)
        waves = np.ceil(tiles / sms) * sms / tiles  # below 3/4 of a wave the kernel cuts k instead
        work["wave_macs"] = macs * np.where(tiles >= 0.75 * sms, waves, 1)
    return work


def _attention_prefill(rows: Rows) -> Work:
    batch, seq, heads, kv, dim = _numbers(
        rows, "batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim"
    )
    return {
        "one": np.ones_like(seq),
        "isl": seq,
        "batch_size": batch,
        "num_heads": heads,
        "num_key_value_heads": kv,
        "query_tiles": batch * heads * np.ceil(seq / QUERY_TILE),
        "macs": batch * heads * seq**2 * dim,  # two products, half of each under the causal mask
        "bytes": 2 * batch * seq * dim * (2 * heads + 2 * kv),
    }


def _attention_decode(rows: Rows) -> Work:
    batch, kv_len, heads, kv, dim = _numbers(
        rows, "batch_size", "kv_len", "num_heads", "num_key_value_heads", "head_dim"
    )
    group = np.ceil(heads / kv / 8) * 8  # queries of a KV head fill tensor-core tiles of 8
    return {
        "one": np.ones_like(kv_len),
        "kv_len": kv_len,
        "batch_size": batch,
        "num_heads": heads,
        "num_key_value_heads": kv,
        "query_rows": batch * heads,
        "kv_rows": batch * kv,
        "kv_bytes": 2 * 2 * batch * kv_len * kv * dim,
        "macs": 2 * batch * kv * group * kv_len * dim,
    }


def _mla_prefill(rows: Rows) -> Work:
    batch, seq, heads = _numbers(rows, "batch_size", "isl", "num_heads")
    return {
        "one": np.ones_like(seq),
        "isl": seq,
        "batch_size": batch,
        "num_heads": heads,
        "query_tiles": batch * heads * np.ceil(seq / QUERY_TILE),
        "macs": batch * heads * seq**2 * (192 + 128) / 2,
        "bytes": 2 * batch * seq * heads * (2 * 192 + 2 * 128),
    }


def _mla_decode(rows: Rows) -> Work:
    batch, kv_len, heads = _numbers(rows, "batch_size", "kv_len", "num_heads")
    return {
        "one": np.ones_like(kv_len),
        "kv_len": kv_len,
        "batch_size": batch,
        "num_heads": heads,
        "query_rows": batch * heads,
        "kv_bytes": 2 * batch * kv_len * 576,
        "macs": batch * np.ceil(heads / 16) * 16 * kv_len * (576 + 512),
    }


def _moe_experts(rows: Rows) -> Work:
    """Work of the busiest rank: as balanced routing has it, or a power law, or the columns `copies`
    and `touched`."""
    tokens, hidden, inter, top_k, experts, ranks = _numbers(
        rows, "num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_ep_size"
    )
    kernel = rows.get("kernel", np.full(len(tokens), ""))
    matrices = np.where(np.char.find(kernel.astype(str), "nongated") >= 0, 2, 3)
    copies, touched = _rank_load(rows, tokens, top_k, experts, ranks)
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
        "macs": copies * weights,
        "weight_bytes": touched * weights * element_bytes(rows["dtype"]),
        "copy_bytes": 2 * copies * (2 * hidden + matrices * inter),
        "token_bytes": 2 * tokens * hidden,
    }


def _rank_load(
    rows: Rows, tokens: Array, top_k: Array, experts: Array, ranks: Array
) -> tuple[Array, Array]:
    """Copies of tokens and experts touched of the rank that every row is about."""
    copies, touched = tokens * top_k / ranks, experts_touched(tokens, top_k, experts) / ranks
    words = np.asarray(rows.get("distribution", np.full(len(tokens), ""))).astype(str)
    for word in np.unique(words):
        alpha = power_law(word)
        if alpha is None:
            continue
        for at in np.flatnonzero(words == word):
            sizes = (max(1, round(float(each[at]))) for each in (tokens, top_k, experts, ranks))
            copies[at], touched[at] = busiest_rank(*sizes, alpha)
    given = {name: np.asarray(rows[name], float) for name in ("copies", "touched") if name in rows}
    return given.get("copies", copies), given.get("touched", touched)


def _deepep(rows: Rows) -> Work:
    tokens, hidden, top_k, experts, sms = _numbers(
        rows, "tokens_per_rank", "hidden_size", "topk", "num_experts", "sms"
    )
    peers = DEEPEP_RANKS * (1 - (1 - 1 / DEEPEP_RANKS) ** top_k)  # ranks that a token reaches
    sent = tokens * hidden * peers
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


def _bytes(rows: Rows) -> Work:
    (size,) = _numbers(rows, "bytes")
    return {"one": np.ones_like(size), "bytes": size, "root_bytes": np.sqrt(size)}


_DEEPEP_COLUMNS = ("tokens_per_rank", "hidden_size", "topk", "num_experts", "sms")
OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation(
            "gemm",
            ("m", "n", "k"),
            ("dtype",),
            ("n", "k"),
            _gemm,
            ("one", "k"),
            ("macs", "bytes"),
            "macs",
            "m",
            wave_races=("wave_macs", "bytes"),
            needs=("dtype",),
        ),
        Operation(
            "attention_prefill",
            ("batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim"),
            ("fw",),
            ("num_heads", "num_key_value_heads"),
            _attention_prefill,
            ("one", "isl"),
            ("query_tiles", "macs", "bytes"),
            "macs",
            "isl",
        ),
        Operation(
            "attention_decode",
            ("batch_size", "kv_len", "num_heads", "num_key_value_heads", "head_dim"),
            ("fw", "queries"),
            ("num_heads", "num_key_value_heads"),
            _attention_decode,
            ("one", "kv_len", "query_rows"),
            ("kv_rows", "kv_bytes", "macs"),
            "kv_bytes",
            "kv_len",
        ),
        Operation(
            "mla_prefill",
            ("batch_size", "isl", "num_heads"),
            (),
            ("num_heads",),
            _mla_prefill,
            ("one", "isl"),
            ("query_tiles", "macs", "bytes"),
            "macs",
            "isl",
            where={"phase": ("context", "prefill")},
        ),
        Operation(
            "mla_decode",
            ("batch_size", "kv_len", "num_heads"),
            (),
            ("num_heads",),
            _mla_decode,
            ("one", "kv_len", "query_rows"),
            ("kv_bytes", "macs"),
            "kv_bytes",
            "kv_len",
            where={"phase": ("generation", "decode")},
        ),
        Operation(
            "moe_experts",
            ("num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_ep_size"),
            ("dtype", "distribution", "fw", "kernel"),
            ("hidden_size", "inter_size", "topk", "num_experts"),
            _moe_experts,
            ("one", "copy_bytes", "local_experts", "token_bytes"),
            ("macs", "weight_bytes"),
            "macs",
            "num_tokens",
            needs=("dtype",),
        ),
        Operation(
            "deepep",
            _DEEPEP_COLUMNS,
            ("phase",),
            ("hidden_size", "topk", "num_experts"),
            _deepep,
            ("one", "hidden_size", "tokens_per_sm", "token_elements"),
            ("sent_per_sm", "sent_elements"),
            "token_elements",
            "tokens_per_rank",
            where={"mode": ("normal",)},
            is_transfer=True,
        ),
        Operation(
            "deepep_low_latency",
            _DEEPEP_COLUMNS,
            ("phase",),
            ("hidden_size", "topk", "num_experts"),
            _deepep,
            ("one", "num_experts"),
            ("copy_elements", "copies_per_expert"),
            "token_elements",
            "tokens_per_rank",
            where={"mode": ("low_latency",)},
            is_transfer=True,
        ),
        Operation(
            "p2p",
            ("bytes",),
            ("link",),
            (),
            _bytes,
            ("one", "root_bytes"),
            ("one", "bytes"),
            "bytes",
            "bytes",
            is_transfer=True,
        ),
        Operation(
            "nccl",
            ("bytes",),
            ("op_name", "num_gpus"),
            (),
            _bytes,
            ("one", "root_bytes"),
            ("one", "bytes"),
            "bytes",
            "bytes",
            is_transfer=True,
            needs=("op_name",),
        ),
    )
}


def words_that_follow(operation: Operation, rows: Rows) -> dict[str, NDArray[Any]]:
    """Words that the numbers decide: whether every query head has keys of its own (mha) or shares
    them (gqa)."""
    if "queries" not in operation.words:
        return {}
    return {"queries": np.where(rows["num_heads"] == rows["num_key_value_heads"], "mha", "gqa")}
