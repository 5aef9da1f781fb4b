"""Work of every task of a layer, from the model's shapes alone: products, attention cores, bytes,
activated experts.

Nothing here knows a machine or a time. Tokens are those of one AG GPU unless stated; bytes follow
from the data type.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

from simdep import checks
from simdep.checks import InputError
from simdep.scenario.fields import DISPATCH
from simdep.scenario.models import GQA, MLA, ModelSpec

WEIGHTS = 3  # matrices of a gated feed-forward network: gate, up, down


@dataclass(frozen=True)
class Product:
    """A matrix product [m, k] x [k, n], done `count` times with different weights."""

    m: float
    k: int
    n: int
    count: int = 1


@dataclass(frozen=True)
class Core:
    """The attention core of a layer: `batch` samples of `queries` new tokens, the last of
    `context`.

    `span` is the context that a token attends to at most (a sliding window). Absorbed MLA is one
    KV head of latent keys and values that all heads share.
    """

    batch: float
    queries: int
    context: int
    span: int
    heads: int
    kv_heads: int
    k_dim: int
    v_dim: int

    @property
    def pairs(self) -> float:
        """(query, key) pairs of a head and sample under the causal mask."""
        first = self.context - self.queries
        # queries whose context is still within the window
        growing = max(0, min(self.context, self.span) - first)
        return growing * (2 * first + growing + 1) / 2 + (self.queries - growing) * self.span

    @property
    def unmasked_macs(self) -> float:
        """Multiply-accumulates without the mask: y = n_h B S^2 (d_k + d_v) of FinDEP (Eq. 2)."""
        return self.batch * self.heads * self.queries * self.span * (self.k_dim + self.v_dim)


@dataclass(frozen=True)
class Transfer:
    """One direction between the groups for a chunk: routed tokens of `hidden` elements that one GPU
    of each end handles."""

    tokens_per_ag: float
    tokens_per_eg: float
    hidden: int

    def ag_bytes(self, element_bytes: float) -> float:
        """Bytes of one AG GPU."""
        return self.tokens_per_ag * self.hidden * element_bytes

    def eg_bytes(self, element_bytes: float) -> float:
        """Bytes of one EG GPU."""
        return self.tokens_per_eg * self.hidden * element_bytes


def projections(model: ModelSpec, tokens: float) -> list[Product]:
    """The products before and after the attention core. Absorbed MLA does the same ones, a head at
    a time."""
    return [Product(tokens, k, n) for k, n in model.attention.projections(model.hidden)]


def core(
    model: ModelSpec, tokens: float, context: int, layer: int = 0, *, decode: bool = False
) -> Core:
    """The attention core of `tokens` new tokens, in whole samples of `context` (decode: of one new
    token each)."""
    form, queries = model.attention, 1 if decode else context
    batch, span = tokens / queries, form.span(layer, context)
    if isinstance(form, MLA) and decode:
        latent = form.kv_rank + form.rope_dim
        return Core(batch, 1, context, span, form.heads, 1, latent, form.kv_rank)
    kv_heads = form.kv_heads if isinstance(form, GQA) else form.heads
    return Core(batch, queries, context, span, form.heads, kv_heads, form.k_dim, form.v_dim)


def shared(model: ModelSpec, tokens: float, *, fused: bool = False) -> list[Product]:
    """The three products of every shared expert; none without them. `fused`: as engines launch
    them, two in all."""
    if not model.has_shared:
        return []
    return _gated(model.hidden, model.shared_hidden, model.shared_experts, tokens, fused)


def dense(model: ModelSpec, tokens: float, *, fused: bool = False) -> list[Product]:
    """The three products of the feed-forward network of a layer without experts."""
    return _gated(model.hidden, model.dense_hidden, 1, tokens, fused)


def expert_products(model: ModelSpec, tokens: float) -> list[Product]:
    """The three products of one routed expert on the tokens routed to it."""
    return _gated(model.hidden, model.expert_hidden, 1, tokens, fused=False)


def activated_share(model: ModelSpec, tokens: float) -> float:
    """Expected share of the experts that `tokens` tokens activate, balanced routing: 1 - (1 -
    k/E)^n."""
    missed: float = (1 - model.top_k / model.experts) ** tokens
    return 1 - missed


def gpus_reached(model: ModelSpec, eg: int) -> float:
    """Expected EG GPUs that the top-k experts of a token lie on: N (1 - C(E - E/N, k) / C(E,
    k))."""
    local = round(model.experts / eg)
    return eg * (1 - comb(model.experts - local, model.top_k) / comb(model.experts, model.top_k))


def transfer(
    model: ModelSpec, tokens: float, ag: int, eg: int, dispatch: str = "per-expert", groups: int = 1
) -> Transfer:
    """One direction for a chunk of `tokens` tokens of every AG GPU, balanced routing.

    `per-expert` sends a token to each of its experts, as FinDEP counts z; `per-gpu` once to each EG
    GPU that it reaches; `broadcast` to every EG GPU. With `groups`, it is the part for one group of
    the experts of every GPU: a token for two groups of a GPU travels twice. Raises InputError for
    another dispatch, and for a broadcast by groups, which there is none of.
    """
    checks.known(dispatch, DISPATCH, "dispatch")
    if dispatch == "broadcast" and groups > 1:
        raise InputError(
            "dispatch=broadcast brings every token to every expert at once; cut chunks by token"
        )
    copies = float(model.top_k)  # of a token
    if dispatch == "per-gpu":
        copies = gpus_reached(model, eg * groups)
    elif dispatch == "broadcast":
        copies = float(eg)
    sent = tokens * (copies / groups)
    return Transfer(sent, sent * ag / eg, model.hidden)


def _gated(hidden: int, width: int, parts: int, tokens: float, fused: bool) -> list[Product]:
    if fused:
        return [Product(tokens, hidden, 2 * width), Product(tokens, width, hidden)]
    part = width // parts
    return [Product(tokens, hidden, part, 2 * parts), Product(tokens, part, hidden, parts)]
