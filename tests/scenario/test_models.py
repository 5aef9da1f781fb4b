"""The models of the field: parameter sums as published, config.json in every dialect, attention of
every form."""

from __future__ import annotations

from typing import Any

import pytest

from simdep.scenario.models import GQA, ModelSpec, builtin_models, from_hf_config

MODELS = builtin_models()

# Total and active parameters in billions, as published for each model
PUBLISHED = {
    "deepseek-v2": (235.7, 21.4),
    "deepseek-v2-lite": (15.7, 2.7),
    "deepseek-v3": (671.0, 37.6),
    "qwen3-235b-a22b": (235.1, 22.2),
    "qwen3-30b-a3b": (30.5, 3.3),
    "mixtral-8x7b": (46.7, 12.9),
    "mixtral-8x22b": (140.6, 39.2),
    "gpt-oss-120b": (116.8, 5.7),
    "kimi-k2": (1026.4, 32.9),
    "step-3": (316.3, 38.8),
    "glm-4.5": (352.8, 33.6),
    "minimax-m2.5": (228.7, 11.0),
    "llama-4-maverick": (400.7, 17.2),
}
KV_ELEMENTS = {
    "deepseek-v2": 576,
    "deepseek-v3": 576,
    "qwen3-235b-a22b": 1024,
    "mixtral-8x7b": 2048,
    "gpt-oss-120b": 1024,
    "kimi-k2": 576,
    "step-3": 512,
    "glm-4.5": 2048,
    "minimax-m2.5": 2048,
    "llama-4-maverick": 2048,
}


def test_every_built_in_model_is_checked_against_its_published_sums() -> None:
    assert set(PUBLISHED) == set(MODELS)


@pytest.mark.parametrize(("name", "billions"), PUBLISHED.items())
def test_parameters_add_up_to_the_published_sums(name: str, billions: tuple[float, float]) -> None:
    model = MODELS[name]
    assert model.params / 1e9 == pytest.approx(billions[0], abs=0.06)
    assert model.active_params / 1e9 == pytest.approx(billions[1], abs=0.06)


@pytest.mark.parametrize(("name", "elements"), KV_ELEMENTS.items())
def test_the_kv_cache_holds_the_published_elements_a_token_and_layer(
    name: str, elements: int
) -> None:
    assert MODELS[name].attention.kv_elements == elements


def test_every_second_layer_of_gpt_oss_attends_to_a_window() -> None:
    attention = MODELS["gpt-oss-120b"].attention
    assert [attention.span(layer, 4096) for layer in range(4)] == [128, 4096, 128, 4096]
    assert attention.span(0, 100) == 100


def test_dense_layers_that_do_not_alternate_as_said_are_refused() -> None:
    maverick = vars(MODELS["llama-4-maverick"])
    with pytest.raises(
        ValueError,
        match="dense_layers=20 of model llama-4-maverick does not fit experts in every 2th",
    ):
        ModelSpec(**{**maverick, "dense_layers": 20})


# The fields of each model's own config.json that say its shape
CONFIGS: dict[str, dict[str, Any]] = {
    "mixtral-8x7b": {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "sliding_window": None,
        "vocab_size": 32000,
    },
    "gpt-oss-120b": {
        "hidden_size": 2880,
        "num_hidden_layers": 36,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "intermediate_size": 2880,
        "num_local_experts": 128,
        "experts_per_token": 4,
        "sliding_window": 128,
        "layer_types": ["sliding_attention", "full_attention"] * 18,
        "vocab_size": 201088,
    },
    "kimi-k2": {
        "hidden_size": 7168,
        "num_hidden_layers": 61,
        "num_attention_heads": 64,
        "num_key_value_heads": 64,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "n_routed_experts": 384,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "first_k_dense_replace": 1,
        "moe_layer_freq": 1,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "vocab_size": 163840,
    },
    "step-3": {
        "text_config": {
            "hidden_size": 7168,
            "num_hidden_layers": 61,
            "num_attention_heads": 64,
            "num_attention_groups": 1,
            "head_dim": 256,
            "share_q_dim": 2048,
            "intermediate_size": 18432,
            "moe_intermediate_size": 5120,
            "moe_num_experts": 48,
            "moe_top_k": 3,
            "share_expert_dim": 5120,
            "vocab_size": 128815,
            "moe_layers_enum": ",".join(map(str, range(4, 60))),
        }
    },
    "minimax-m2.5": {
        "hidden_size": 3072,
        "num_hidden_layers": 62,
        "num_attention_heads": 48,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 1536,
        "num_local_experts": 256,
        "num_experts_per_tok": 8,
        "shared_intermediate_size": 0,
        "vocab_size": 200064,
    },
    "llama-4-maverick": {
        "text_config": {
            "model_type": "llama4_text",
            "hidden_size": 5120,
            "num_hidden_layers": 48,
            "num_attention_heads": 40,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": 8192,
            "intermediate_size_mlp": 16384,
            "num_local_experts": 128,
            "num_experts_per_tok": 1,
            "interleave_moe_layer_step": 2,
            "vocab_size": 202048,
        }
    },
}


@pytest.mark.parametrize(("name", "config"), CONFIGS.items())
def test_the_config_of_a_model_reads_as_the_built_in_one(name: str, config: dict[str, Any]) -> None:
    read, known = from_hf_config(config, name, "config.json"), MODELS[name]
    same = {"source": "", "norm_topk": known.norm_topk}
    assert {**vars(read), **same} == {**vars(known), **same}


def test_a_window_without_a_layer_of_full_attention_is_refused() -> None:
    config = CONFIGS["gpt-oss-120b"] | {"layer_types": ["sliding_attention"] * 36}
    with pytest.raises(ValueError, match=r"layer_types has full attention in layers \[\] of 36"):
        from_hf_config(config, "m", "m.json")


def test_low_rank_queries_have_a_projection_down_and_one_up() -> None:
    form = GQA(heads=64, kv_heads=1, head_dim=256, q_rank=2048)
    assert form.projections(7168) == (
        (7168, 2048),
        (2048, 16384),
        (7168, 256),
        (7168, 256),
        (16384, 7168),
    )
