"""Work of tasks: against brute force over pairs, routings and draws, and against identities."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simdep.scenario import work
from simdep.scenario.fields import DISPATCH
from simdep.scenario.models import GQA, ModelSpec, builtin_models

MODELS = builtin_models()
models = st.sampled_from(list(MODELS.values()))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_causal_pairs_are_those_counted_one_by_one(queries: int, past: int, window: int) -> None:
    context = past + queries
    core = work.Core(1, queries, context, min(window, context), 1, 1, 1, 1)
    assert core.pairs == sum(min(past + query + 1, window) for query in range(queries))


@given(models, st.integers(1, 4), st.integers(2, 4096))
def test_the_mask_saves_about_half_of_a_prefill_and_nothing_of_a_decode(
    model: ModelSpec, samples: int, context: int
) -> None:
    full = model.attention.span(model.layers - 1, context) == context
    prefill = work.core(model, samples * context, context, model.layers - 1)
    decode = work.core(model, samples, context, model.layers - 1, decode=True)
    assert not full or prefill.pairs / context**2 == pytest.approx((1 + 1 / context) / 2)
    assert decode.pairs == decode.span


def test_absorbed_mla_attends_with_one_latent_head_of_keys() -> None:
    core = work.core(MODELS["deepseek-v3"], 32, 4096, decode=True)
    assert core.kv_heads == 1
    assert core.unmasked_macs == 32 * 128 * 4096 * (576 + 512)


def test_a_window_bounds_what_a_decode_attends_to() -> None:
    model = MODELS["gpt-oss-120b"]
    assert [work.core(model, 8, 4096, layer, decode=True).span for layer in (0, 1)] == [128, 4096]


def macs(products: list[work.Product]) -> float:
    return sum(p.count * p.m * p.k * p.n for p in products)


@given(models, st.integers(1, 4096))
def test_products_of_a_token_are_the_weights_that_it_meets(model: ModelSpec, tokens: int) -> None:
    """MACs a token = weights, whether the products are fused or not; router aside."""
    for fused in (False, True):
        products = [*work.projections(model, tokens), *work.shared(model, tokens, fused=fused)]
        assert macs(products) == pytest.approx(
            tokens * (model.ag_params - model.hidden * model.experts)
        )
        dense = work.dense(model, tokens, fused=fused)
        assert macs(dense) == tokens * 3 * model.hidden * model.dense_hidden


@given(models, st.integers(1, 10_000))
def test_experts_multiply_every_routed_token_with_their_weights(
    model: ModelSpec, tokens: int
) -> None:
    assert macs(work.expert_products(model, tokens)) == tokens * model.expert_params


def test_the_expected_activated_experts_are_those_of_random_routings() -> None:
    model, tokens = MODELS["deepseek-v2"], 20
    rng = np.random.default_rng(0)
    activated = []
    for _ in range(300):
        choices = [rng.choice(model.experts, model.top_k, replace=False) for _ in range(tokens)]
        activated.append(len(np.unique(choices)))
    share = work.activated_share(model, tokens)
    assert model.experts * share == pytest.approx(np.mean(activated), rel=0.01)


def test_the_gpus_that_a_token_reaches_are_those_of_all_choices_of_experts() -> None:
    tiny = ModelSpec("tiny", 1, 0, 8, 8, 8, 3, 8, 0, 0, True, GQA(1, 1, 8), "test")
    choices = list(combinations(range(8), 3))
    reached = sum(len({expert // 2 for expert in choice}) for choice in choices) / len(choices)
    assert work.gpus_reached(tiny, 4) == pytest.approx(reached)


def test_deepseek_v2_on_8_gpus_sends_three_quarters_when_each_gpu_gets_a_token_once() -> None:
    assert work.gpus_reached(MODELS["deepseek-v2"], 8) / 6 == pytest.approx(0.74, abs=0.005)


@given(
    models,
    st.integers(1, 512),
    st.integers(1, 8),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from(DISPATCH),
)
def test_what_the_ag_sends_the_eg_receives(
    model: ModelSpec, tokens: int, ag: int, eg: int, dispatch: str
) -> None:
    sent = work.transfer(model, tokens, ag, eg, dispatch)
    assert ag * sent.ag_bytes(2) == pytest.approx(eg * sent.eg_bytes(2))


@given(models, st.integers(1, 512), st.sampled_from([1, 2, 4, 8]))
def test_sending_a_token_once_a_gpu_costs_no_more_than_copies_or_broadcast(
    model: ModelSpec, tokens: int, eg: int
) -> None:
    once = work.transfer(model, tokens, 1, eg, "per-gpu").tokens_per_eg
    assert once <= work.transfer(model, tokens, 1, eg, "per-expert").tokens_per_eg * (1 + 1e-9)
    assert once <= work.transfer(model, tokens, 1, eg, "broadcast").tokens_per_eg * (1 + 1e-9)
