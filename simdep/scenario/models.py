"""What is served: the shapes of a mixture-of-experts model. Widths in elements, work in
multiply-accumulates (MACs)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from simdep import checks, files
from simdep.file_kinds import MOE_CONFIG


@dataclass(frozen=True)
class MLA:
    """Multi-head latent attention (DeepSeek-V2): low-rank queries (unless q_rank is None), keys and
    values."""

    heads: int
    q_rank: int | None
    kv_rank: int
    nope_dim: int
    rope_dim: int
    v_dim: int

    @property
    def k_dim(self) -> int:
        return self.nope_dim + self.rope_dim

    @property
    def kv_elements(self) -> int:
        """Elements of the KV cache a token and layer: the compressed ones and the shared rotary
        key."""
        return self.kv_rank + self.rope_dim

    def reach(self, layer: int, context: int) -> int:
        """The tokens, of `context`, that the last one attends to."""
        return context

    def projections(self, hidden: int) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of every projection of one token."""
        q_in = hidden if self.q_rank is None else self.q_rank
        down = () if self.q_rank is None else ((hidden, self.q_rank),)
        return (
            *down,
            (q_in, self.heads * self.k_dim),
            (hidden, self.kv_rank + self.rope_dim),
            (self.kv_rank, self.heads * (self.nope_dim + self.v_dim)),
            (self.heads * self.v_dim, hidden),
        )

    def scaled(self, factor: float) -> MLA:
        rank = None if self.q_rank is None else _width(self.q_rank, factor)
        return replace(
            self,
            heads=_count(self.heads, factor),
            q_rank=rank,
            kv_rank=_width(self.kv_rank, factor),
        )


@dataclass(frozen=True)
class GQA:
    """Grouped-query attention: `heads` queries share `kv_heads` keys and values.

    `q_rank` makes queries low-rank (Step-3's multi-matrix factorisation). With a `window`, only
    every `full_every`-th layer, counted from 1, attends to everything; the others to the last
    `window` tokens.
    """

    heads: int
    kv_heads: int
    head_dim: int
    q_rank: int | None = None
    window: int | None = None
    full_every: int = 1

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads={self.kv_heads} does not divide heads={self.heads}")

    @property
    def k_dim(self) -> int:
        return self.head_dim

    @property
    def v_dim(self) -> int:
        return self.head_dim

    @property
    def kv_elements(self) -> int:
        """Elements of the KV cache a token and layer."""
        return 2 * self.kv_heads * self.head_dim

    def reach(self, layer: int, context: int) -> int:
        """The tokens, of `context`, that the last one attends to in a layer, counted from 0."""
        full = self.window is None or (layer + 1) % self.full_every == 0
        return context if full else min(context, self.window or context)

    def projections(self, hidden: int) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of every projection of one token."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        queries = (
            ((hidden, q),) if self.q_rank is None else ((hidden, self.q_rank), (self.q_rank, q))
        )
        return (*queries, (hidden, kv), (hidden, kv), (q, hidden))

    def scaled(self, factor: float) -> GQA:
        heads = _count(self.heads, factor)
        kv_heads = max(n for n in range(1, _count(self.kv_heads, factor) + 1) if heads % n == 0)
        rank = None if self.q_rank is None else _width(self.q_rank, factor)
        return replace(self, heads=heads, kv_heads=kv_heads, q_rank=rank)


@dataclass(frozen=True)
class ModelSpec:
    """A mixture-of-experts transformer: `layers` in all, of which `dense_layers` have no experts.

    Dense layers come first, or, where `moe_every` exceeds 1, before each layer with experts:
    experts in every `moe_every`-th layer. `shared_hidden` is the total width of the shared experts;
    `norm_topk` says whether the router's top-k weights are made to sum to 1; `vocab` is 0 where it
    is not known. `name` ends in `@factor` for a model scaled by `scaled`.
    """

    name: str
    layers: int
    dense_layers: int
    hidden: int
    dense_hidden: int
    experts: int
    top_k: int
    expert_hidden: int
    shared_experts: int
    shared_hidden: int
    norm_topk: bool
    attention: MLA | GQA
    source: str
    vocab: int = 0
    moe_every: int = 1

    def __post_init__(self) -> None:
        if self.top_k > self.experts:
            raise ValueError(
                f"top_k={self.top_k} of model {self.name} exceeds its {self.experts} experts"
            )
        if self.dense_layers >= self.layers:
            raise ValueError(f"model {self.name} has no layer with experts")
        if self.moe_every > 1 and self.dense_layers != self.layers - self.layers // self.moe_every:
            rule = f"experts in every {self.moe_every}th of {self.layers} layers"
            raise ValueError(
                f"dense_layers={self.dense_layers} of model {self.name} does not fit {rule}"
            )

    @property
    def has_shared(self) -> bool:
        return self.shared_hidden > 0

    @property
    def moe_layers(self) -> int:
        return self.layers - self.dense_layers

    @property
    def expert_params(self) -> int:
        """Weights of one routed expert (gate, up and down), which are also its MACs a token."""
        return 3 * self.hidden * self.expert_hidden

    @property
    def ag_params(self) -> int:
        """Weights of one layer that an AG GPU holds: attention projections, router, shared
        experts."""
        projections = sum(k * n for k, n in self.attention.projections(self.hidden))
        return projections + self.hidden * self.experts + 3 * self.hidden * self.shared_hidden

    @property
    def params(self) -> int:
        """Weights of the whole model: embeddings (in and out, untied) and layers; norms and biases
        left out."""
        return self._params(self.experts)

    @property
    def active_params(self) -> int:
        """Weights that one token meets: as `params`, with the top-k experts of each layer."""
        return self._params(self.top_k)

    def _params(self, experts: int) -> int:
        attention = (
            self.ag_params - self.hidden * self.experts - 3 * self.hidden * self.shared_hidden
        )
        dense = attention + 3 * self.hidden * self.dense_hidden
        moe = self.ag_params + experts * self.expert_params
        return 2 * self.vocab * self.hidden + self.dense_layers * dense + self.moe_layers * moe

    def scaled(self, factor: float) -> ModelSpec:
        """The same layer with every width times `factor`: hidden, expert, shared and dense widths,
        low ranks, heads.

        Counts that shape the traffic (experts, top-k, layers, head dimensions) stay. Raises
        ValueError outside (0, 1].
        """
        if not 0 < factor <= 1:
            raise ValueError(
                f"scale={factor!r}; a factor on widths, more than 0 and at most 1, such as 0.125"
            )
        if factor == 1:
            return self
        return replace(
            self,
            name=f"{self.name}@{factor:g}",
            hidden=_width(self.hidden, factor),
            dense_hidden=_width(self.dense_hidden, factor),
            expert_hidden=_width(self.expert_hidden, factor),
            shared_hidden=_width(self.shared_hidden, factor),
            attention=self.attention.scaled(factor),
        )


def _width(width: int, factor: float) -> int:
    """A width times the factor, to the next multiple of 8 (0 stays 0)."""
    return max(8, 8 * round(width * factor / 8)) if width else 0


def _count(count: int, factor: float) -> int:
    return max(1, round(count * factor))


@cache
def builtin_models() -> Mapping[str, ModelSpec]:
    """The models that ship with simdep, by name; read once."""
    data = json.loads((resources.files("simdep") / "data" / "models.json").read_text())
    return MappingProxyType({name: _from_table(name, row) for name, row in data.items()})


def load_model(name: str) -> ModelSpec:
    """A model by its name, or from a HuggingFace config.json (the file, or the folder that holds
    it).

    Raises ValueError for an unknown name or a config that lacks a field.
    """
    path = Path(name)
    if path.is_dir():
        path = path / "config.json"
    if path.suffix == ".json":
        config = files.read_json(path, MOE_CONFIG)
        with files.context(path, MOE_CONFIG):
            return from_hf_config(config, path.parent.resolve().name, str(path))
    models = builtin_models()
    return models[checks.known(name.lower(), models, "model")]


def from_hf_config(config: Any, name: str, where: str) -> ModelSpec:
    """A ModelSpec from the content of a HuggingFace config.json; raises ValueError naming a missing
    or wrong field."""
    if not isinstance(config, Mapping):
        raise ValueError("a config.json holds one JSON object")
    if isinstance(config.get("text_config"), Mapping):
        config = config["text_config"]  # the language part of a multi-modal model

    def field(*keys: str, default: int | None = None, low: int = 1) -> int:
        for key in keys:
            if config.get(key) is not None:
                return checks.integer(config[key], f"{key}", low)
        if default is None:
            raise ValueError(f"{' or '.join(keys)} is missing")
        return default

    hidden, _, layers = (
        field("hidden_size"),
        field("num_attention_heads"),
        field("num_hidden_layers"),
    )
    dense_layers, moe_every = _dense_layers(config, layers, where)
    width = field("intermediate_size")
    dense_hidden = field(
        "intermediate_size_mlp", default=width
    )  # Llama 4: intermediate_size is that of its experts
    expert_hidden = field("moe_intermediate_size", default=width)
    llama4 = str(config.get("model_type", "")).startswith("llama4")
    shared = field("n_shared_experts", default=int(llama4), low=0)
    shared_hidden = field(
        "shared_expert_intermediate_size",
        "shared_intermediate_size",
        "share_expert_dim",
        default=shared * expert_hidden,
        low=0,
    )
    return ModelSpec(
        name=name,
        layers=layers,
        dense_layers=dense_layers,
        hidden=hidden,
        dense_hidden=dense_hidden,
        experts=field("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts"),
        top_k=field("num_experts_per_tok", "experts_per_token", "moe_top_k"),
        expert_hidden=expert_hidden,
        shared_experts=shared or int(shared_hidden > 0),
        shared_hidden=shared_hidden,
        norm_topk=bool(config.get("norm_topk_prob", False)),
        attention=_attention(config, field, layers, where),
        source=where,
        vocab=field("vocab_size", default=0),
        moe_every=moe_every,
    )


def _attention(
    config: Mapping[str, Any], field: Callable[..., int], layers: int, where: str
) -> MLA | GQA:
    heads = field("num_attention_heads")
    if config.get("kv_lora_rank") is not None:
        return MLA(
            heads=heads,
            q_rank=field("q_lora_rank", default=0, low=0) or None,
            kv_rank=field("kv_lora_rank"),
            nope_dim=field("qk_nope_head_dim"),
            rope_dim=field("qk_rope_head_dim"),
            v_dim=field("v_head_dim"),
        )
    kv_heads = field("num_key_value_heads", "num_attention_groups", default=heads)
    if heads % kv_heads:
        raise ValueError(f"num_key_value_heads={kv_heads} does not divide {heads} attention heads")
    head_dim = field("head_dim", default=max(1, field("hidden_size") // heads))
    q_rank = field("share_q_dim", default=0, low=0) or None
    kinds = config.get("layer_types") or ["full_attention"] * layers
    full = [layer for layer, kind in enumerate(kinds, 1) if kind == "full_attention"]
    every = full[0] if full else 1
    if len(kinds) != layers or full != list(range(every, layers + 1, every)):
        rule = "attention over everything in every n-th layer, for some n"
        raise ValueError(f"layer_types has full attention in layers {full} of {layers}; {rule}")
    window = field("sliding_window") if every > 1 else None
    return GQA(heads, kv_heads, head_dim, q_rank, window, every)


def _dense_layers(config: Mapping[str, Any], layers: int, where: str) -> tuple[int, int]:
    """How many layers have no experts, and n if experts stand in every n-th layer."""
    listed = config.get("moe_layers_enum")
    if listed is not None:
        return layers - len(str(listed).split(",")), 1
    first = config.get("first_k_dense_replace") or 0
    checks.integer(first, "first_k_dense_replace", 0)
    for key in ("decoder_sparse_step", "moe_layer_freq", "interleave_moe_layer_step"):
        every = config.get(key)
        if every not in (None, 1):
            checks.integer(every, f"{key}")
            if first:
                raise ValueError(f"{key}={every} beside {first} leading dense layers is not known")
            return layers - layers // every, every
    if config.get("mlp_only_layers"):
        raise ValueError(
            f"mlp_only_layers={config['mlp_only_layers']}; only leading or alternating "
            "dense layers are known"
        )
    return first, 1


def _from_table(name: str, row: dict[str, Any]) -> ModelSpec:
    attention = dict(row["attention"])
    form = {"mla": MLA, "gqa": GQA}[attention.pop("form")]
    return ModelSpec(**{**row, "name": name, "attention": form(**attention)})
