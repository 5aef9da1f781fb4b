"""The arithmetic of MoE layers, divided as a disaggregated deployment divides it.

One layer of a sample is

    u = h + attention(norm(h));  x = norm(u);  h' = u + shared(x) + sum_k w_k expert_k(x).

The AG computes attention, router and shared experts and adds everything up; the EG computes routed
experts on tokens that arrive sorted by expert. Weights are drawn from a seed per matrix: every
rank, whatever the number of ranks, holds the same ones. Norms have unit weights; the residual
stream and the router are in the run's dtype. Tensors are [tokens, hidden] where nothing else is
stated.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from simdep.scenario.models import GQA, MLA, ModelSpec

ROPE_BASE = 10_000.0


@dataclass(frozen=True)
class Numerics:
    """Where and in which precision a rank computes, and the seed of all weights and inputs."""

    device: torch.device
    dtype: torch.dtype
    seed: int = 0

    def weight(self, rows: int, columns: int, name: str) -> Tensor:
        """The matrix [rows, columns] called `name`, scaled so that outputs have the size of
        inputs."""
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed}/{name}".encode()))
        bound = (3.0 / columns) ** 0.5
        matrix = torch.empty(rows, columns).uniform_(-bound, bound, generator=generator)
        return matrix.to(self.device, self.dtype)

    def inputs(self, rank: int, samples: int, seq_len: int, hidden: int) -> Tensor:
        """Embedded samples [samples, seq_len, hidden] of one AG rank."""
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed}/input/{rank}".encode()))
        samples_of_rank = torch.randn(samples, seq_len, hidden, generator=generator)
        return samples_of_rank.to(self.device, self.dtype)


@dataclass(frozen=True)
class RoutedTokens:
    """The routed tokens of a micro-batch, sorted by chunk, then by expert.

    `token` [routed tokens] is the row of the token, `weight` [routed tokens] its share in the sum,
    `counts` [chunks, experts] the number of routed tokens of each chunk for each expert.
    """

    token: Tensor
    weight: Tensor
    counts: Tensor


class AttentionLayer:
    """What an AG rank holds of one layer: attention, router, shared experts."""

    def __init__(self, model: ModelSpec, layer: int, numerics: Numerics) -> None:
        self.model = model

        def weight(rows: int, columns: int, name: str) -> Tensor:
            return numerics.weight(rows, columns, f"{layer}/{name}")

        hidden, form = model.hidden, model.attention
        if isinstance(form, MLA):
            q_in = form.q_rank or hidden
            self.q_down = weight(form.q_rank, hidden, "q_down") if form.q_rank else None
            self.q = weight(form.heads * form.k_dim, q_in, "q")
            self.kv_down = weight(form.kv_rank + form.rope_dim, hidden, "kv_down")
            self.kv_up = weight(form.heads * (form.nope_dim + form.v_dim), form.kv_rank, "kv_up")
        else:
            self.q = weight(form.heads * form.head_dim, hidden, "q")
            self.k = weight(form.kv_heads * form.head_dim, hidden, "k")
            self.v = weight(form.kv_heads * form.head_dim, hidden, "v")
        self.out = weight(hidden, form.heads * form.v_dim, "out")
        self.router = weight(model.experts, hidden, "router")
        self.shared: Expert | None = None
        if model.has_shared:
            self.shared = Expert(hidden, model.shared_hidden, numerics, f"{layer}/shared")

    def attention(self, h: Tensor) -> Tensor:
        """h + attention(norm(h)) for samples h [samples, seq_len, hidden], causal."""
        form = self.model.attention
        x = norm(h)
        q, k, v = self._mla(x, form) if isinstance(form, MLA) else self._gqa(x, form)
        grouped = k.shape[1] != q.shape[1]
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        return h + F.linear(mixed.transpose(1, 2).flatten(2), self.out)

    def _gqa(self, x: Tensor, form: GQA) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (
            F.linear(x, w).unflatten(-1, (-1, form.head_dim)).transpose(1, 2)
            for w in (self.q, self.k, self.v)
        )
        return rotate(q), rotate(k), v

    def _mla(self, x: Tensor, form: MLA) -> tuple[Tensor, Tensor, Tensor]:
        latent = x if self.q_down is None else norm(F.linear(x, self.q_down))
        q = F.linear(latent, self.q).unflatten(-1, (form.heads, form.k_dim)).transpose(1, 2)
        q_nope, q_rope = q.split([form.nope_dim, form.rope_dim], dim=-1)
        compressed, k_rope = F.linear(x, self.kv_down).split([form.kv_rank, form.rope_dim], dim=-1)
        up = F.linear(norm(compressed), self.kv_up).unflatten(
            -1, (form.heads, form.nope_dim + form.v_dim)
        )
        k_nope, v = up.transpose(1, 2).split([form.nope_dim, form.v_dim], dim=-1)
        k_rope = rotate(k_rope.unsqueeze(1)).expand(-1, form.heads, -1, -1)
        return torch.cat([q_nope, rotate(q_rope)], dim=-1), torch.cat([k_nope, k_rope], dim=-1), v

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(experts, weights) [tokens, top_k] of the tokens x: softmax over all experts, the top k
        of them."""
        weights, experts = F.linear(x, self.router).softmax(dim=-1).topk(self.model.top_k, dim=-1)
        if self.model.norm_topk:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return experts, weights


class Expert:
    """A SwiGLU feed-forward network: down(silu(gate x) * up x)."""

    def __init__(self, hidden: int, width: int, numerics: Numerics, name: str) -> None:
        self.gate_up = numerics.weight(2 * width, hidden, f"{name}/gate_up")
        self.down = numerics.weight(hidden, width, f"{name}/down")

    def __call__(self, x: Tensor) -> Tensor:
        gate, up = F.linear(x, self.gate_up).chunk(2, dim=-1)
        return F.linear(F.silu(gate) * up, self.down)


class ExpertLayer:
    """What an EG rank holds of one layer: the experts `mine`."""

    def __init__(self, model: ModelSpec, layer: int, mine: range, numerics: Numerics) -> None:
        self.experts = [
            Expert(model.hidden, model.expert_hidden, numerics, f"{layer}/expert/{e}") for e in mine
        ]

    def __call__(
        self, arrived: Sequence[Tensor], counts: Sequence[Sequence[int]], out: Sequence[Tensor]
    ) -> None:
        """Run every expert on its routed tokens of all sources.

        `arrived[g]` [routed tokens, hidden] of AG rank g are sorted by expert, `counts[g]` says how
        many each expert has; results go to the same rows of `out[g]`.
        """
        starts = [0] * len(arrived)
        for index, expert in enumerate(self.experts):
            ends = [start + of_rank[index] for start, of_rank in zip(starts, counts, strict=True)]
            ranks = [rank for rank in range(len(arrived)) if ends[rank] > starts[rank]]
            if ranks:
                inputs = [arrived[rank][starts[rank] : ends[rank]] for rank in ranks]
                results = expert(inputs[0] if len(inputs) == 1 else torch.cat(inputs))
                parts = results.split([ends[rank] - starts[rank] for rank in ranks])
                for rank, part in zip(ranks, parts, strict=True):
                    out[rank][starts[rank] : ends[rank]] = part
            starts = ends


def dispatch(
    experts: Tensor, weights: Tensor, chunk_tokens: Sequence[int], total: int
) -> RoutedTokens:
    """The routing of tokens with `experts` and `weights` [tokens, top_k], in consecutive chunks, to
    `total` experts."""
    chunk = torch.arange(len(chunk_tokens), device=experts.device)
    chunk = chunk.repeat_interleave(
        torch.tensor(chunk_tokens, device=experts.device), output_size=len(experts)
    )
    key = (experts + total * chunk.unsqueeze(-1)).flatten()
    order = key.argsort(stable=True)
    # scatter_add, not bincount: bincount would make the host wait for a GPU
    counts = torch.zeros(len(chunk_tokens) * total, dtype=torch.int64, device=key.device)
    counts.scatter_add_(0, key, torch.ones_like(key))
    return RoutedTokens(order // experts.shape[1], weights.flatten()[order], counts.view(-1, total))


def combine(into: Tensor, returned: Tensor, routing: RoutedTokens) -> None:
    """Add the weighted results of routed tokens, in the order of `routing`, to `into`."""
    into.index_add_(0, routing.token, returned * routing.weight.unsqueeze(-1))


def norm(x: Tensor) -> Tensor:
    """Root-mean-square norm with unit weights."""
    return F.rms_norm(x, x.shape[-1:])


def rotate(x: Tensor) -> Tensor:
    """Rotary position embedding of x [..., seq_len, dim], halves paired."""
    seq_len, dim = x.shape[-2:]
    rates = ROPE_BASE ** (-torch.arange(0, dim, 2, device=x.device, dtype=torch.float32) / dim)
    angles = torch.outer(torch.arange(seq_len, device=x.device, dtype=torch.float32), rates)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    left, right = x.chunk(2, dim=-1)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)
