"""What is served: the shapes of a mixture-of-experts model. Widths in elements, work in
multiply-accumulates (MACs)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from simdep import checks, files
from simdep.checks import InputError, shown
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

    def span(self, layer: int, context: int) -> int:
        """The tokens, of `context`, that the last one attends to."""
        return context

    def projections(self, hidden: int) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of every projection of one token."""
        return (
            *_query_projections(hidden, self.q_rank, self.heads * self.k_dim),
            (hidden, self.kv_rank + self.rope_dim),
            (self.kv_rank, self.heads * (self.nope_dim + self.v_dim)),
            (self.heads * self.v_dim, hidden),
        )

    def scaled(self, factor: float) -> MLA:
        """The same form with heads and low ranks times a factor."""
        return replace(
            self,
            heads=_count(self.heads, factor),
            q_rank=_rank(self.q_rank, factor),
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
            raise InputError(f"kv_heads={self.kv_heads} does not divide heads={self.heads}")

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

    def span(self, layer: int, context: int) -> int:
        """The tokens, of `context`, that the last one attends to in a layer, counted from 0."""
        full = self.window is None or (layer + 1) % self.full_every == 0
        return context if full else min(context, self.window or context)

    def projections(self, hidden: int) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of every projection of one token."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        queries = _query_projections(hidden, self.q_rank, q)
        return (*queries, (hidden, kv), (hidden, kv), (q, hidden))

    def scaled(self, factor: float) -> GQA:
        """The same form with heads and low ranks times a factor; its KV heads divide the heads."""
        heads, kv_heads = _count(self.heads, factor), _count(self.kv_heads, factor)
        while heads % kv_heads:
            kv_heads -= 1
        rank = _rank(self.q_rank, factor)
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
            raise InputError(
                f"top_k={self.top_k} of model {self.name} exceeds its {self.experts} experts"
            )
        if self.dense_layers >= self.layers:
            raise InputError(f"model {self.name} has no layer with experts")
        if self.moe_every > 1 and self.dense_layers != self.layers - self.layers // self.moe_every:
            rule = f"experts in every {self.moe_every}th of {self.layers} layers"
            raise InputError(
                f"dense_layers={self.dense_layers} of model {self.name} does not fit {rule}"
            )

    @property
    def has_shared(self) -> bool:
        return self.shared_hidden > 0

    @property
    def moe_layers(self) -> int:
        return self.layers - self.dense_layers

    def local_experts(self, eg: int) -> int:
        """Experts of one of `eg` GPUs; of the fullest where they do not divide evenly."""
        return -(-self.experts // eg)

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
        router_and_shared = self.hidden * self.experts + 3 * self.hidden * self.shared_hidden
        attention = self.ag_params - router_and_shared
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
            raise InputError(
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


def _query_projections(hidden: int, rank: int | None, outputs: int) -> tuple[tuple[int, int], ...]:
    """(inputs, outputs) of the projection of queries, which is cut in two by a low rank."""
    if rank is None:
        return ((hidden, outputs),)
    return ((hidden, rank), (rank, outputs))


def _rank(rank: int | None, factor: float) -> int | None:
    return None if rank is None else _width(rank, factor)


def _width(width: int, factor: float) -> int:
    """A width times the factor, to the next multiple of 8 (0 stays 0)."""
    return max(8, 8 * round(width * factor / 8)) if width else 0


def _count(count: int, factor: float) -> int:
    """A count times the factor, at least 1."""
    return max(1, round(count * factor))


@cache
def builtin_models() -> Mapping[str, ModelSpec]:
    """The models that ship with simdep, by name; read once."""
    data = json.loads((resources.files("simdep") / "data" / "models.json").read_text())
    return MappingProxyType({name: _from_table(name, row) for name, row in data.items()})


def load_model(name: str) -> ModelSpec:
    """A model by its name, or from a HuggingFace config.json (the file, or the folder that holds
    it).

    Raises InputError for an unknown name or a config that lacks a field.
    """
    path = Path(name)
    if os.path.isdir(name):
        path = path / "config.json"
    if path.name == "config.json" or files.names_file(name):
        config = files.read_json(path, MOE_CONFIG)
        with files.context(path, MOE_CONFIG):
            return from_hf_config(config, path.parent.resolve().name, str(path))
    models = builtin_models()
    return models[checks.known(name.lower(), models, "model")]


def from_hf_config(config: Any, name: str, source: str) -> ModelSpec:
    """A model from the content of a HuggingFace config.json.

    Raises InputError naming a missing or wrong field.
    """
    if not isinstance(config, Mapping):
        raise InputError("a config.json holds one JSON object")
    if isinstance(config.get("text_config"), Mapping):
        config = config["text_config"]  # the language part of a multi-modal model
    fields = _ConfigFields(config)
    layers = fields.integer("num_hidden_layers")
    dense_layers, moe_every = _dense_layers(fields, layers)
    width = fields.integer("intermediate_size")
    expert_hidden = fields.integer("moe_intermediate_size", default=width)
    is_llama4 = str(config.get("model_type", "")).startswith("llama4")
    shared_experts = fields.integer("n_shared_experts", default=int(is_llama4), low=0)
    shared_hidden = fields.integer(
        "shared_expert_intermediate_size",
        "shared_intermediate_size",
        "share_expert_dim",
        default=shared_experts * expert_hidden,
        low=0,
    )
    return ModelSpec(
        name=name,
        layers=layers,
        dense_layers=dense_layers,
        hidden=fields.integer("hidden_size"),
        # Llama 4: intermediate_size is that of its experts
        dense_hidden=fields.integer("intermediate_size_mlp", default=width),
        experts=fields.integer(
            "n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts"
        ),
        top_k=fields.integer("num_experts_per_tok", "experts_per_token", "moe_top_k"),
        expert_hidden=expert_hidden,
        shared_experts=shared_experts or int(shared_hidden > 0),
        shared_hidden=shared_hidden,
        norm_topk=bool(config.get("norm_topk_prob", False)),
        attention=_attention(fields, layers),
        source=source,
        vocab=fields.integer("vocab_size", default=0),
        moe_every=moe_every,
    )


@dataclass(frozen=True)
class _ConfigFields:
    """The fields of a config.json, which has a dialect for each family of models."""

    config: Mapping[str, Any]

    def integer(self, *names: str, default: int | None = None, low: int = 1) -> int:
        """The first of the names that the config has; raises InputError if it has none and there is
        no default."""
        for name in names:
            if self.config.get(name) is not None:
                return checks.integer(self.config[name], name, low)
        if default is None:
            raise InputError(f"{' or '.join(names)} is missing")
        return default


def _attention(fields: _ConfigFields, layers: int) -> MLA | GQA:
    heads = fields.integer("num_attention_heads")
    if fields.config.get("kv_lora_rank") is not None:
        return MLA(
            heads=heads,
            q_rank=fields.integer("q_lora_rank", default=0, low=0) or None,
            kv_rank=fields.integer("kv_lora_rank"),
            nope_dim=fields.integer("qk_nope_head_dim"),
            rope_dim=fields.integer("qk_rope_head_dim"),
            v_dim=fields.integer("v_head_dim"),
        )
    kv_heads = fields.integer("num_key_value_heads", "num_attention_groups", default=heads)
    if heads % kv_heads:
        raise InputError(f"num_key_value_heads={kv_heads} does not divide {heads} attention heads")
    head_dim = fields.integer("head_dim", default=max(1, fields.integer("hidden_size") // heads))
    q_rank = fields.integer("share_q_dim", default=0, low=0) or None
    full_every = _full_every(fields.config.get("layer_types"), layers)
    window = fields.integer("sliding_window") if full_every > 1 else None
    return GQA(heads, kv_heads, head_dim, q_rank, window, full_every)


def _full_every(kinds: Any, layers: int) -> int:
    """n of layer types with attention to everything in every n-th layer; 1 without layer types.

    Raises InputError for other layer types.
    """
    if not kinds:
        return 1
    if not isinstance(kinds, list) or len(kinds) != layers:
        raise InputError(f"layer_types={shown(kinds)}; expected one for each of {layers} layers")
    full = [layer for layer, kind in enumerate(kinds, 1) if kind == "full_attention"]
    every = full[0] if full else 1
    if full != list(range(every, layers + 1, every)):
        rule = "attention over everything in every n-th layer, for some n"
        raise InputError(
            f"layer_types has full attention in layers {shown(full)} of {layers}; {rule}"
        )
    return every


def _dense_layers(fields: _ConfigFields, layers: int) -> tuple[int, int]:
    """How many layers have no experts, and n if experts stand in every n-th layer."""
    listed = fields.config.get("moe_layers_enum")
    if listed is not None:
        return layers - len(str(listed).split(",")), 1
    first = fields.integer("first_k_dense_replace", default=0, low=0)
    for name in ("decoder_sparse_step", "moe_layer_freq", "interleave_moe_layer_step"):
        every = fields.integer(name, default=1)
        if every != 1 and first:
            raise InputError(f"{name}={every} beside {first} leading dense layers is not known")
        if every != 1:
            return layers - layers // every, every
    only = fields.config.get("mlp_only_layers")
    if only:
        rule = "only leading or alternating dense layers are known"
        raise InputError(f"mlp_only_layers={shown(only)}; {rule}")
    return first, 1


def _from_table(name: str, row: Mapping[str, Any]) -> ModelSpec:
    attention = dict(row["attention"])
    form = {"mla": MLA, "gqa": GQA}[attention.pop("form")]
    return ModelSpec(**{**row, "name": name, "attention": form(**attention)})
