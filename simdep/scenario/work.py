"""Work of every task of a layer, from the model's shapes alone: multiply-accumulates (MACs), bytes,
experts touched.

Nothing here knows a machine or a time. Tokens are those of one AG GPU unless said; bytes follow
from the data type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

from simdep import checks
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

    @property
    def macs(self) -> float:
        return self.count * self.m * self.k * self.n

    def weight_bytes(self, element_bytes: float) -> float:
        return self.count * self.k * self.n * element_bytes

    def activation_bytes(self, element_bytes: float) -> float:
        """Bytes read and written besides weights."""
        return self.count * self.m * (self.k + self.n) * element_bytes


@dataclass(frozen=True)
class Core:
    """The attention core of a layer: `batch` samples of `queries` new tokens, the last of
    `context`.

    `reach` is the context that a token attends to at most (a sliding window). Absorbed MLA is one
    KV head of latent keys and values that all heads share.
    """

    batch: float
    queries: int
    context: int
    reach: int
    heads: int
    kv_heads: int
    k_dim: int
    v_dim: int
    kv_elements: int

    @property
    def pairs(self) -> float:
        """(query, key) pairs of a head and sample under the causal mask."""
        first, window = self.context - self.queries, self.reach
        growing = max(
            0, min(self.context, window) - first
        )  # queries whose context is still within the window
        return growing * (2 * first + growing + 1) / 2 + (self.queries - growing) * window

    @property
    def macs(self) -> float:
        """Multiply-accumulates of scores and values, masked ones left out."""
        return self.batch * self.heads * self.pairs * (self.k_dim + self.v_dim)

    @property
    def unmasked_macs(self) -> float:
        """As if every query met all its context: y = n_h B S^2 (d_k + d_v), what FinDEP prices (Eq.
        2)."""
        return self.batch * self.heads * self.queries * self.reach * (self.k_dim + self.v_dim)

    def kv_bytes(self, element_bytes: float) -> float:
        """Bytes of keys and values that are read."""
        return self.batch * self.reach * self.kv_elements * element_bytes


@dataclass(frozen=True)
class Experts:
    """What one EG GPU computes for a chunk: `copies` rows over `local` experts, of which `touched`
    get any."""

    copies: float
    local: float
    touched: float
    hidden: int
    width: int

    @property
    def macs(self) -> float:
        return self.copies * WEIGHTS * self.hidden * self.width

    def weight_bytes(self, element_bytes: float) -> float:
        """Bytes of the weights that are read: those of experts touched."""
        return self.touched * WEIGHTS * self.hidden * self.width * element_bytes

    def activation_bytes(self, element_bytes: float) -> float:
        """Bytes of rows in and out, and of what the three products write and read between them."""
        return self.copies * (2 * self.hidden + WEIGHTS * self.width) * element_bytes


@dataclass(frozen=True)
class Transfer:
    """One direction between the groups for a chunk: rows of `hidden` elements that one GPU of each
    end handles."""

    rows_per_ag: float
    rows_per_eg: float
    messages: int
    hidden: int

    def ag_bytes(self, element_bytes: float) -> float:
        return self.rows_per_ag * self.hidden * element_bytes

    def eg_bytes(self, element_bytes: float) -> float:
        return self.rows_per_eg * self.hidden * element_bytes


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
    batch, reach = tokens / queries, form.reach(layer, context)
    if isinstance(form, MLA) and decode:
        latent = form.kv_rank + form.rope_dim
        return Core(batch, 1, context, reach, form.heads, 1, latent, form.kv_rank, form.kv_elements)
    kv_heads = form.kv_heads if isinstance(form, GQA) else form.heads
    elements = form.kv_elements if isinstance(form, GQA) else form.heads * (form.k_dim + form.v_dim)
    return Core(
        batch, queries, context, reach, form.heads, kv_heads, form.k_dim, form.v_dim, elements
    )


def shared(model: ModelSpec, tokens: float, *, fused: bool = False) -> list[Product]:
    """The three products of every shared expert; none without them. `fused`: as engines launch
    them, two in all."""
    if not model.has_shared:
        return []
    return _gated(model.hidden, model.shared_hidden, model.shared_experts, tokens, fused)


def dense(model: ModelSpec, tokens: float, *, fused: bool = False) -> list[Product]:
    """The three products of the feed-forward network of a layer without experts."""
    return _gated(model.hidden, model.dense_hidden, 1, tokens, fused)


def experts(
    model: ModelSpec, tokens: float, eg: int, histogram: Sequence[float] | None = None
) -> Experts:
    """What one of `eg` GPUs computes for a chunk of `tokens` tokens of the whole AG.

    Balanced routing touches E (1 - (1 - k/E)^n) experts; `histogram` gives instead the rows of each
    local expert.
    """
    hidden, width = model.hidden, model.expert_hidden
    if histogram is not None:
        rows = [checks.number(count, "histogram") for count in histogram]
        return Experts(sum(rows), len(rows), sum(count > 0 for count in rows), hidden, width)
    local = model.experts / eg
    return Experts(
        tokens * model.top_k / eg, local, local * touched_share(model, tokens), hidden, width
    )


def expert_products(model: ModelSpec, rows: float) -> list[Product]:
    """The three products of one routed expert on `rows` rows."""
    return _gated(model.hidden, model.expert_hidden, 1, rows, fused=False)


def touched_share(model: ModelSpec, tokens: float) -> float:
    """Expected share of the experts that get at least one of `tokens` tokens, balanced routing: 1 -
    (1 - k/E)^n."""
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

    `per-expert` sends a row for each (token, expert), as FinDEP counts z; `per-gpu` one for each
    EG GPU that a token reaches; `broadcast` every token to every EG GPU. Cut by expert, it is the
    rows for one of `groups` groups of the experts of every GPU: a token for two groups of a GPU
    travels twice. Raises ValueError for another word, and for a broadcast by groups, which there is
    none of.
    """
    checks.known(dispatch, DISPATCH, "dispatch")
    if dispatch == "broadcast" and groups > 1:
        raise ValueError(
            "dispatch=broadcast brings every token to every expert at once; cut chunks by token"
        )
    reached = gpus_reached(model, eg * groups) if dispatch == "per-gpu" else 0.0
    rows = {"per-expert": float(model.top_k), "per-gpu": reached, "broadcast": float(eg)}[
        dispatch
    ] / groups
    return Transfer(tokens * rows, tokens * rows * ag / eg, ag, model.hidden)


def _gated(hidden: int, width: int, parts: int, tokens: float, fused: bool) -> list[Product]:
    if fused:
        return [Product(tokens, hidden, 2 * width), Product(tokens, width, hidden)]
    each = width // parts
    return [Product(tokens, hidden, each, 2 * parts), Product(tokens, each, hidden, parts)]
