"""Routing: loads of ranks by hand, what the two power laws mean, published imbalances, files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simdep.hardware.expert_load import DRAWS
from simdep.hardware.profile import load_hardware
from simdep.scenario import routing
from simdep.scenario.models import ModelSpec, load_model
from simdep.scenario.routing import Routing, power_law

# Loads of ranks


def test_the_load_of_a_rank_is_its_rows_over_the_mean() -> None:
    found = routing.from_counts([4, 0, 1, 3])
    assert found.loads(2).tolist() == [[[1, 1]]]
    assert found.loads(4).tolist() == [[[2, 0, 0.5, 1.5]]]
    assert found.imbalance(4).tolist() == [2]


def test_experts_that_ranks_do_not_divide_are_spread_as_evenly_as_whole_ones_allow() -> None:
    """7 experts on 3 ranks: 2, 2 and 3, as `realrun` places them."""
    assert routing.expert_bounds(7, 3).tolist() == [0, 2, 4, 7]
    assert routing.balanced(7).loads(3).tolist() == [[[6 / 7, 6 / 7, 9 / 7]]]


@given(st.integers(1, 400), st.integers(1, 60), st.integers(1, 4))
def test_every_expert_has_one_place(experts: int, eg: int, groups: int) -> None:
    """Bounds rise from 0 to the number of experts; ranks differ by at most one expert, so do the
    groups of a rank."""
    if eg * groups > experts:
        return
    ends = routing.expert_bounds(experts, eg, groups)
    assert ends[0] == 0
    assert ends[-1] == experts
    assert np.diff(ends).min() >= 1
    of_ranks = np.diff(ends[::groups])
    assert of_ranks.max() - of_ranks.min() <= 1
    assert routing.expert_bounds(experts, eg).tolist() == ends[::groups].tolist()


@given(st.integers(1, 40), st.integers(1, 20))
def test_equal_rows_give_every_rank_a_load_of_exactly_1(local: int, eg: int) -> None:
    assert (routing.balanced(local * eg).loads(eg) == 1).all()


def test_groups_of_the_experts_of_a_rank_stand_one_after_the_other() -> None:
    """Experts 0-3 on rank 0, 4-7 on rank 1; the first group of each is its first half."""
    assert routing.from_counts([1, 1, 2, 2, 3, 3, 4, 4]).loads(2, 2).tolist() == [
        [[0.4, 0.8, 1.2, 1.6]]
    ]


def test_every_source_and_layer_has_loads_of_its_own() -> None:
    found = routing.from_counts([[[3, 1], [0, 2]], [[1, 1], [1, 3]]])
    assert found.loads(2).tolist() == [[[1.5, 0.5], [0, 2]], [[1, 1], [0.5, 1.5]]]
    assert (found.layers, found.sources, found.experts) == (2, 2, 2)


# The two power laws


def test_zipf_popularity_falls_with_the_rank_among_experts() -> None:
    rows = np.sort(routing.zipf(64, 1.2).routed_tokens[0, 0])[::-1]
    assert rows / rows[0] == pytest.approx(np.arange(1, 65) ** -1.2)


def test_a_seed_draws_which_expert_is_popular_and_each_layer_its_own() -> None:
    one, same, other = (
        routing.zipf(64, 1.2, layers=3, seed=seed).routed_tokens for seed in (1, 1, 2)
    )
    assert (one == same).all()
    assert not (one == other).all()
    assert len({row.argmax() for row in one[:, 0]}) > 1


@given(st.integers(2, 200), st.floats(0, 3), st.integers(1, 8))
def test_no_expert_gets_a_token_twice(experts: int, exponent: float, top_k: int) -> None:
    """At most 1 / top_k of all rows go to one expert: a token is there once."""
    top_k = min(top_k, experts)
    rows = routing.zipf(experts, exponent, top_k=top_k).routed_tokens[0, 0]
    assert rows.sum() == pytest.approx(1)
    assert rows.max() <= (1 + 1e-9) / top_k


def test_power_law_loads_are_those_that_price_skewed_kernels() -> None:
    found = routing.power_law(64, 1.2, top_k=4, tokens=1000, layers=DRAWS + 1)
    assert found.routed_tokens.sum(axis=2) == pytest.approx(4000)
    assert found.routed_tokens.max() <= 1000
    assert (found.routed_tokens[0] == found.routed_tokens[DRAWS]).all()  # the draws repeat
    seeded = routing.power_law(64, 1.2, top_k=4, tokens=1000, layers=2, seed=1)
    assert (seeded.routed_tokens[0] == found.routed_tokens[1]).all()


# Time of the most loaded rank of H200s over that of a balanced one, power law 1.2, above 128 tokens
# an expert: medians over the shapes and sizes of a published table.
H200 = {1: 1.17, 4: 1.51, 8: 1.78, 16: 2.15, 32: 2.8}
SHAPES = [(name, rows) for name in ("qwen3-235b-a22b", "deepseek-v3") for rows in (128, 256, 512)]


def power_law_of(name: str, rows: int) -> tuple[ModelSpec, int, Routing]:
    """A model, the tokens that give an expert `rows` rows, and where they go in every draw."""
    model = load_model(name)
    tokens = rows * model.experts // model.top_k
    return (
        model,
        tokens,
        power_law(model.experts, 1.2, top_k=model.top_k, tokens=tokens, layers=DRAWS),
    )


def test_imbalance_of_rows_is_that_of_published_times_at_four_ranks_and_above_them_beyond() -> None:
    """EP4 to 7 %. Beyond, times have parts that do not grow with rows, so rows lie above them, by
    half at most; nothing of the 17 % on one rank, where experts are unequal but ranks are not, is a
    matter of the rows of ranks."""
    for eg, published in H200.items():
        imbalance = np.mean([power_law_of(*shape)[2].imbalance(eg).mean() for shape in SHAPES])
        if eg <= 4:
            assert imbalance == pytest.approx(published if eg == 4 else 1, rel=0.07)
        else:
            assert 1.03 * published < imbalance < 1.5 * published, eg


def priced(eg: int, shapes: list[tuple[str, int]]) -> float:
    """Time of the most loaded rank over a balanced one: its rows at the price of the H200 kernel of
    experts."""
    kernel = load_hardware("h200").kernel("moe_experts", dtype="bf16")
    assert kernel is not None
    ratios = []
    for model, tokens, law in (power_law_of(*shape) for shape in shapes):
        numbers = np.array([1, *law.imbalance(eg)]) * tokens
        columns = {
            "num_tokens": numbers,
            "hidden_size": model.hidden,
            "inter_size": model.expert_hidden,
            "topk": model.top_k,
            "num_experts": model.experts,
            "moe_ep_size": eg,
        }
        us = kernel.predict(
            {word: np.full(len(numbers), value, float) for word, value in columns.items()}
        )
        ratios.append(us[1:].mean() / us[0])
    return float(np.mean(ratios))


def test_priced_by_the_kernel_of_experts_the_imbalance_is_near_the_published_times() -> None:
    """-15, -9, 0 and +10 % at EP4, 8, 16 and 32.

    It is low where ranks are few: the experts of a rank are unequal too, which costs 17 % on one
    rank and is no load.
    """
    for eg in (4, 8, 16, 32):
        assert priced(eg, SHAPES) == pytest.approx(H200[eg], rel=0.16), eg


def test_below_16_rows_an_expert_skew_costs_next_to_nothing() -> None:
    """As published: the time is that of weights, which a rank reads whatever its rows."""
    for eg in (4, 8, 16, 32):
        assert priced(eg, [("qwen3-235b-a22b", 8), ("deepseek-v3", 8)]) == pytest.approx(
            1, abs=0.05
        )


# Words and files


def test_words_name_a_routing_with_exponent_and_seed() -> None:
    given = {"top_k": 2, "tokens": 100, "layers": 2}
    assert routing.parse_law("balanced", 8, **given).label == "balanced"
    assert (
        routing.parse_law("zipf:1.5:3", 8, **given).routed_tokens
        == routing.zipf(8, 1.5, top_k=2, layers=2, seed=3).routed_tokens
    ).all()
    law = routing.power_law(8, 1.2, top_k=2, tokens=100, layers=2)
    assert (routing.parse_law("power-law:1.2", 8, **given).routed_tokens == law.routed_tokens).all()


@pytest.mark.parametrize(
    "text", ["zipf", "zipf:x", "zipf:1:2:3", "zipf:-1", "zipf:1:0.5", "balanced:1", "power-law"]
)
def test_a_word_that_is_not_whole_is_refused_with_its_form(text: str) -> None:
    with pytest.raises(ValueError, match=r"write balanced, zipf:EXPONENT"):
        routing.parse_law(text, 8, top_k=2, tokens=100, layers=1)


def test_an_unknown_word_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ValueError, match="did you mean 'zipf'"):
        routing.parse_law("zip:1", 8, top_k=2, tokens=100, layers=1)


def test_a_table_lists_rows_by_layer_rank_and_expert(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("layer,rank,expert,rows\n0,0,1,5\n0,1,0,2\n1,0,0,1\n1,1,1,4\n")
    assert routing.read_routing(path).routed_tokens.tolist() == [[[0, 5], [2, 0]], [[1, 0], [0, 4]]]
    path.write_text("expert,rows\n0,3\n2,1.5\n")
    assert routing.read_routing(path).routed_tokens.tolist() == [[[3, 0, 1.5]]]


@settings(max_examples=50)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.integers(0, 2**32))
def test_lists_of_any_depth_are_read_back(
    layers: int, sources: int, experts: int, seed: int
) -> None:
    rows = np.random.default_rng(seed).integers(1, 9, (layers, sources, experts)).astype(float)
    assert (routing.from_counts(json.loads(json.dumps(rows.tolist()))).routed_tokens == rows).all()
    assert (routing.from_counts(rows[:, 0].tolist()).routed_tokens == rows[:, :1]).all()
    assert (routing.from_counts(rows[0, 0].tolist()).routed_tokens == rows[:1, :1]).all()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("expert,tokens\n0,1\n", "unknown column 'tokens'|did you mean|use"),
        ("layer,rows\n0,1\n", "column expert is missing"),
        ("expert,rows\n0,x\n", "line 2: 0,x; expected numbers"),
        ("expert,rows\n0,1\n0,2\n", "line 3: layer 0, rank 0, expert 0 is there already"),
        ("expert,rows\n-1,1\n", "line 2: expert=-1; expected an integer >= 0"),
        ("expert,rows\n", "there are no rows"),
        ("expert,rows\n0,-1\n", "line 2: rows=-1.0"),
        ("layer,expert,rows\n0,0,1\n1,0,0\n", "layer 1 has no rows"),
    ],
)
def test_a_faulty_table_is_refused_with_its_name_and_the_place(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=said) as error:
        routing.read_routing(path)
    assert str(error.value).startswith(f"{path}: ")


def test_rows_that_are_no_grid_of_numbers_are_refused() -> None:
    for counts in ([[1, 2], [3]], "many", [], [[[[1]]]], [float("nan")]):
        with pytest.raises(ValueError, match=r"rows|numbers"):
            routing.from_counts(counts)


def test_more_ranks_than_experts_are_refused() -> None:
    with pytest.raises(ValueError, match="eg=9: routing balanced has only 8 experts"):
        routing.balanced(8).loads(9)
