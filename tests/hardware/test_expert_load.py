"""Skewed routing: copies are conserved, the busiest rank has more than its part, and a kernel
counts with it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simdep.hardware.expert_load import DRAWS, busiest_rank, drawn_loads, power_law_exponent
from simdep.hardware.operations import OPERATIONS


@given(st.integers(1, 5000), st.integers(1, 8), st.sampled_from([8, 60, 256]), st.floats(1, 2))
@settings(max_examples=40, deadline=None)
def test_every_draw_gives_each_copy_to_one_expert_and_no_expert_a_token_twice(
    tokens: int, top_k: int, experts: int, alpha: float
) -> None:
    loads = drawn_loads(tokens, top_k, experts, alpha)
    assert loads.shape == (DRAWS, experts)
    assert loads.sum(axis=1) == pytest.approx(tokens * top_k)
    assert (loads >= 0).all()
    assert (loads <= tokens * (1 + 1e-9)).all()


@given(st.integers(1, 5000), st.sampled_from([1, 2, 8, 40]))
@settings(max_examples=30, deadline=None)
def test_the_busiest_rank_has_at_least_its_part_and_at_most_its_experts(
    tokens: int, ranks: int
) -> None:
    copies, touched = busiest_rank(tokens, 6, 160, ranks, 1.2)
    assert tokens * 6 / ranks * (1 - 1e-9) <= copies <= tokens * 6 * (1 + 1e-9)
    assert touched <= min(160 / ranks, copies + 1e-9)


def test_one_rank_has_everything() -> None:
    assert busiest_rank(1000, 8, 256, 1, 1.2)[0] == pytest.approx(8000)


def test_a_last_rank_may_hold_fewer_experts() -> None:
    copies, touched = busiest_rank(100, 2, 10, 4, 1.2)
    assert 50 <= copies <= 200
    assert touched <= 3


@pytest.mark.parametrize(
    ("word", "alpha"),
    [
        ("power_law_1.2", 1.2),
        ("power_law_2", 2),
        ("balanced", None),
        ("power_law_sampled_1.9", None),
    ],
)
def test_a_power_law_is_known_by_its_name(word: str, alpha: float | None) -> None:
    assert power_law_exponent(word) == alpha


def test_experts_are_priced_by_the_load_of_their_rank() -> None:
    """Balanced and unknown words count an equal part; a power law its busiest rank; columns count
    what they say."""
    numbers = {
        "num_tokens": 4096,
        "hidden_size": 4096,
        "inter_size": 1536,
        "topk": 8,
        "num_experts": 128,
        "moe_ep_size": 8,
    }
    rows = {name: np.full(4, float(value)) for name, value in numbers.items()} | {
        "dtype": np.full(4, "bf16")
    }
    rows["distribution"] = np.array(["balanced", "hot", "power_law_1.2", "power_law_1.01"])
    macs = OPERATIONS["moe_experts"].work(rows)["macs"]
    equal = 4096 * 8 / 8 * 3 * 4096 * 1536
    assert macs[:2].tolist() == [equal, equal]
    assert 1.3 < macs[2] / equal < 2.2
    assert macs[3] > equal
    told = OPERATIONS["moe_experts"].work(
        rows | {"copies": np.full(4, 10.0), "touched": np.full(4, 5.0)}
    )
    assert told["macs"].tolist() == [10 * 3 * 4096 * 1536] * 4
    assert told["weight_bytes"].tolist() == [5 * 3 * 4096 * 1536 * 2] * 4
