"""Memory of a GPU of each group, against the published rule and counts by hand; what would make a
scenario fit."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cli import run
from hypothesis import given, settings
from hypothesis import strategies as st

from simdep.planning.memory_fixes import SHOWN, alternatives, explanation
from simdep.scenario.memory import RESERVE_BYTES, UNLIMITED, Footprint, largest_r1, memory
from simdep.scenario.spec import Scenario

MODELS = (
    "deepseek-v2",
    "qwen3-235b-a22b",
    "mixtral-8x7b",
    "gpt-oss-120b",
    "llama-4-maverick",
    "step-3",
)
EG = {"mixtral-8x7b": 4}  # GPUs of the EG, at most as many as experts


def scenario(
    model: str = "deepseek-v2",
    ag: int = 3,
    eg: int = 5,
    layers: int = 16,
    hardware: str = "h20",
    **other: Any,
) -> Scenario:
    load = {key: other.pop(key) for key in ("seq_len", "m_a", "phase", "dtype") if key in other}
    cut = {
        key: other.pop(key)
        for key in ("r1", "r2", "policy", "merge_last", "micro_batches", "chunks")
        if key in other
    }
    where = {"hardware": hardware, **({} if "gpus" in other else {"ag": ag, "eg": eg}), **other}
    return Scenario.from_dict(
        {"model": model, "layers": layers, "deployment": where, "workload": load, "schedule": cut}
    )


def part(found: Scenario, group: str, name: str) -> int:
    return next(each for each in memory(found).groups if each.name == group).parts[name]


def with_room(found: Scenario, size: int) -> Scenario:
    """The scenario on GPUs that have exactly `size` bytes for it."""
    return replace(found, deployment=replace(found.deployment, memory_gbytes=size / 1e9))


def test_weights_and_kv_cache_are_those_of_megascales_rule() -> None:
    """4 m b_a s h L / g + 2 P_a < C_a in bf16: keys and values of m micro-batches of b_a samples,
    weights of the AG.

    Mixtral-8x22B: hidden 6144, 48 heads in groups of g = 6 that share keys and values, 56 layers.
    """
    m, b_a, s, h, layers, g = 3, 8, 1024, 6144, 56, 6
    found = scenario("mixtral-8x22b", eg=8, layers=layers, seq_len=s, m_a=b_a, r1=m)
    assert part(found, "AG", "kv cache") == 4 * m * b_a * s * h * layers // g
    attention = 6144 * 6144 * 2 + 2 * 6144 * 1024
    assert part(found, "AG", "attention weights") == 2 * layers * attention


def test_every_weight_of_a_model_lies_in_exactly_one_group() -> None:
    """With one GPU a group, the parts that are weights sum to the model's parameters."""
    for model in MODELS:
        whole = scenario(model, ag=1, eg=1, layers=1)
        whole = replace(whole, layers=whole.model.moe_layers)
        parts = {
            name: size
            for group in memory(whole).groups
            for name, size in group.parts.items()
            if "weights" in name
        }
        assert sum(parts.values()) == 2 * whole.model.params


def test_the_parts_of_deepseek_v2_counted_by_hand() -> None:
    """16 layers of experts behind 1 dense layer, 160 experts over 5 GPUs, r1 = 2, m_a = 4, seq_len
    1024, r2 = 4."""
    found = scenario(m_a=4, r1=2, r2=4, seq_len=1024)
    tokens, samples = 1024, 8
    mla = 5120 * 1536 + 1536 * 128 * 192 + 5120 * 576 + 512 * 128 * 256 + 128 * 128 * 5120
    [ag, eg] = memory(found).groups
    assert ag.parts == {
        "attention weights": 2 * 17 * mla,
        "router weights": 2 * 16 * 5120 * 160,
        "dense layer weights": 2 * 3 * 5120 * 12288,
        "embedding weights": 2 * 2 * 102400 * 5120,
        "shared expert weights": 2 * 16 * 3 * 5120 * 3072,
        "activations": 2 * 4 * tokens * 2 * 128 * (192 + 128),
        "kv cache": 2 * samples * tokens * 17 * 576,
        "streams": 2 * samples * tokens * 3 * 5120,
        "send and receive buffers": 2 * 2 * samples * tokens * 6 * 5120,
    }
    rows = 4 * tokens // 4 * 3 * 6 / 5  # of a chunk, on one of 5 EG GPUs
    assert eg.parts == {
        "expert weights": 2 * 16 * 32 * 3 * 5120 * 1536,
        "chunk activations": 2 * -int(-rows * (2 * 5120 + 3 * 1536) // 1),
        "send and receive buffers": 2 * samples * -int(-2 * tokens * 6 * 3 / 5 * 5120 // 1),
    }
    assert (ag.available_bytes, eg.available_bytes) == (96 * 10**9 - RESERVE_BYTES,) * 2


@pytest.mark.parametrize(
    ("model", "width"),
    [("deepseek-v2-lite", 10944), ("glm-4.5", 12288), ("llama-4-maverick", 16384)],
)
def test_activations_are_those_of_a_dense_layer_where_it_is_the_widest(
    model: str, width: int
) -> None:
    """Gate, up and their product, of the layers without experts that the AG holds too."""
    tokens = 4 * 1024
    widest = part(scenario(model, eg=4, layers=2, m_a=4, seq_len=1024), "AG", "activations")
    assert widest == 2 * tokens * 3 * width


def test_a_model_without_dense_layers_has_no_activations_of_them() -> None:
    """Mixtral-8x7b: queries, results, keys and values of 32 and 8 heads of 128."""
    widest = part(scenario("mixtral-8x7b", eg=4, m_a=4, seq_len=1024), "AG", "activations")
    assert widest == 2 * 4 * 1024 * (2 * 32 + 2 * 8) * 128


def test_a_window_caps_what_is_cached_and_decode_caches_its_new_token() -> None:
    """GPT-OSS: every other layer attends to 128 tokens; 2 * 8 KV heads of 64 elements in bf16."""
    found = scenario("gpt-oss-120b", eg=4, layers=36, phase="decode", seq_len=4096, m_a=1)
    assert part(found, "AG", "kv cache") == 2 * (18 * 4097 + 18 * 128) * 2 * 8 * 64


def test_experts_that_do_not_divide_count_on_the_fullest_gpu() -> None:
    assert (
        part(scenario(eg=7), "EG", "expert weights") == 2 * 16 * 23 * 3 * 5120 * 1536
    )  # ceil(160 / 7)


def test_shared_experts_move_with_their_group() -> None:
    own, moved = scenario(), scenario(shared_on="eg")
    assert part(own, "AG", "shared expert weights") == part(moved, "EG", "shared expert weights")
    assert "shared expert weights" not in memory(moved).groups[0].parts
    assert part(moved, "AG", "streams") < part(own, "AG", "streams")


def test_colocated_gpus_hold_what_both_groups_would() -> None:
    [both] = memory(scenario(gpus=8)).groups
    [ag, eg] = memory(scenario(ag=8, eg=8)).groups
    assert (both.name, both.gpus) == ("GPU", 8)
    assert both.needed_bytes == ag.needed_bytes + eg.needed_bytes


def test_uneven_micro_batches_need_the_room_of_the_largest() -> None:
    uneven = scenario(micro_batches=[6, 2])
    assert part(uneven, "AG", "activations") == part(scenario(m_a=6, r1=1), "AG", "activations")
    assert part(uneven, "AG", "kv cache") == part(scenario(m_a=4, r1=2), "AG", "kv cache")


def test_a_large_first_chunk_and_an_uncut_last_layer_need_more_for_a_chunk() -> None:
    even, uneven, merged = (
        part(scenario(m_a=4, r1=2, **cut), "EG", "chunk activations")
        for cut in ({"r2": 2}, {"chunks": [3, 1]}, {"r2": 2, "merge_last": True})
    )
    assert uneven == pytest.approx(1.5 * even, abs=4)  # to whole elements
    assert merged == pytest.approx(2 * even, abs=4)


@settings(max_examples=200)
@given(
    st.sampled_from(MODELS),
    st.integers(1, 6),
    st.integers(1, 8),
    st.integers(1, 9),
    st.sampled_from(["prefill", "decode"]),
    st.integers(1, 10),
    st.booleans(),
)
def test_the_largest_r1_fits_and_one_more_does_not(
    model: str, ag: int, eg: int, m_a: int, phase: str, share: int, once: bool
) -> None:
    eg = min(eg, EG.get(model, eg))
    dispatch = "per-gpu" if once else "per-expert"
    one = scenario(
        model, ag=ag, eg=eg, layers=8, m_a=m_a, phase=phase, seq_len=512, dispatch=dispatch
    )
    need = max(group.needed_bytes for group in memory(one).groups)
    tight = with_room(one, need + need * share // 20)
    most = largest_r1(tight, m_a)
    assert most >= 1

    def fits(r1: int) -> bool:
        return memory(
            replace(tight, r1=r1, workload=replace(tight.workload, samples=r1 * m_a))
        ).fits

    assert fits(most)
    assert not fits(most + 1)


@settings(max_examples=200)
@given(
    st.sampled_from(MODELS),
    st.integers(1, 6),
    st.integers(1, 8),
    st.sampled_from(["ag", "eg", "colocated"]),
    st.sampled_from(["per-expert", "per-gpu", "broadcast"]),
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 12)), min_size=1, max_size=6),
    st.integers(10, 60),
)
def test_many_questions_at_once_have_the_answers_of_each_to_the_byte(
    model: str,
    ag: int,
    eg: int,
    shared_on: str,
    dispatch: str,
    sizes: list[tuple[int, int]],
    share: int,
) -> None:
    """`Footprint.largest_r1` of arrays, against the parts of `memory` added up one by one."""
    where: dict[str, Any] = {"ag": ag, "eg": min(eg, EG.get(model, eg)), "shared_on": shared_on}
    if shared_on == "colocated":
        where = {"gpus": where["eg"]}
    one = scenario(model, layers=8, phase="prefill", seq_len=100, dispatch=dispatch, **where)
    largest = replace(one, workload=replace(one.workload, samples=40))
    need = max(group.needed_bytes for group in memory(largest).groups)
    tight = with_room(one, need * share // 20)
    m_a, r2 = np.array(sizes).T
    counts = Footprint.of(tight).largest_r1(m_a, r2)
    for samples, chunks, r1 in zip(*map(np.ndarray.tolist, (m_a, r2, counts)), strict=True):

        def fits(r1: int, samples: int = samples, chunks: int = chunks) -> bool:
            load = replace(tight.workload, samples=r1 * samples)
            return memory(replace(tight, r1=r1, r2=chunks, workload=load)).fits

        assert r1 == 0 or fits(r1)
        assert not fits(r1 + 1)
        assert largest_r1(tight, samples, chunks) == r1


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_the_largest_m_a_fits_and_one_more_sample_does_not(phase: str) -> None:
    footprint = Footprint.of(scenario(layers=59, phase=phase, seq_len=512))
    m_a = footprint.largest_m_a(4)
    assert footprint.largest_r1(np.array([m_a, m_a + 1]), np.array([4, 4])).tolist() == [1, 0]


def test_numbers_beyond_64_bits_do_not_fit() -> None:
    """A billion samples of a billion tokens."""
    one = scenario(layers=59, seq_len=10**9)
    assert largest_r1(one, 10**9, 1) == 0


@settings(max_examples=150)
@given(
    st.sampled_from(MODELS),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from([95, 97, 99, 100]),
)
def test_tight_cases_fit_and_one_byte_less_than_needed_does_not(
    model: str, r1: int, m_a: int, percent: int
) -> None:
    found = scenario(model, eg=EG.get(model, 8), layers=4, r1=r1, m_a=m_a, seq_len=512)
    need = max(group.needed_bytes for group in memory(found).groups)
    tight = with_room(found, need * 100 // percent)
    assert memory(tight).fits
    assert alternatives(tight) == ()
    least = replace(tight, r1=1, workload=replace(tight.workload, samples=m_a))
    short = with_room(least, max(group.needed_bytes for group in memory(least).groups) - 1)
    assert largest_r1(short, m_a) == 0
    assert memory(short).missing_bytes == 1
    assert "1 bytes are missing" in "; ".join(explanation(short))


@settings(max_examples=100)
@given(
    st.sampled_from(MODELS),
    st.integers(1, 4),
    st.integers(1, 8),
    st.integers(20, 99),
    st.booleans(),
)
def test_every_alternative_fits(
    model: str, r1: int, m_a: int, percent: int, colocated: bool
) -> None:
    where: dict[str, Any] = {"gpus" if colocated else "eg": EG.get(model, 8)}
    found = scenario(model, layers=4, r1=r1, m_a=m_a, **where)
    short = with_room(
        found, max(group.needed_bytes for group in memory(found).groups) * percent // 100
    )
    proposed = alternatives(short)
    assert proposed
    assert all(memory(each.scenario).fits for each in proposed)
    assert all(each.change in "; ".join(explanation(short)) for each in proposed[:SHOWN])
    shares = [each.share for each in proposed]
    assert shares == sorted(shares)


def test_the_least_change_of_a_setting_is_proposed() -> None:
    found = scenario(layers=8, m_a=8, r1=8, hardware="a6000", seq_len=4096)
    changed = {each.change: each.scenario for each in alternatives(found)}
    [fewer] = [change for change in changed if change.startswith("r1 = ")]
    r1 = changed[fewer].r1
    assert fewer == f"r1 = {r1} in place of 8 ({8 * r1} samples on an AG GPU)"
    assert r1 == largest_r1(found, 8)


def test_the_explanation_says_by_how_much_and_what_would_fit() -> None:
    found = scenario(layers=59, eg=4)
    told = "; ".join(explanation(found))
    assert "a GPU of the EG needs 111.8 GB" in told
    assert "of 95 GB available: 16.8" in told
    assert "eg = 5 in place of 4" in told
    assert "dtype fp8 in place of bf16" in told
    assert "GPUs of 141 GB, such as h200" in told
    assert "a GPU of the AG" not in told  # which fits


def test_two_changes_are_proposed_where_no_single_one_is_enough() -> None:
    found = scenario(layers=59, eg=4, hardware="h200", m_a=128, r1=8, dtype="fp8")
    small = with_room(found, 28 * 10**9)
    assert all(" and " in each.change for each in alternatives(small))
    assert alternatives(small)


def test_a_policy_of_a_fixed_number_of_micro_batches_keeps_it() -> None:
    found = scenario(
        layers=8, m_a=16, r1=3, hardware="a6000", seq_len=8192, policy="step3", shared_on="eg"
    )
    assert alternatives(found)
    assert {each.scenario.r1 for each in alternatives(found)} == {3}
    assert {each.scenario.r2 for each in alternatives(found)} == {1}


def test_unknown_memory_is_no_limit() -> None:
    found = scenario(hardware="epyc-2-cores", m_a=10**6)
    assert memory(found).fits
    assert largest_r1(found, 1) == UNLIMITED
    assert "not known and so no limit" in "; ".join(explanation(found))


def test_every_published_run_of_findep_fits() -> None:
    """Tables 3 and 4 on H20s, the longest prompts: 4 samples of 4096 tokens."""
    for ag, eg in ((3, 5), (8, 24)):
        assert memory(scenario(ag=ag, eg=eg, layers=2, m_a=4, seq_len=4096)).fits
    assert memory(
        scenario(layers=59, m_a=1)
    ).fits  # 5 GPUs of 96 GB hold the experts of DeepSeek-V2


def test_the_json_form_is_plain() -> None:
    told = json.loads(json.dumps(memory(scenario()).to_dict()))
    assert told["fits"] is True
    assert sum(told["groups"]["AG"]["parts_bytes"].values()) == told["groups"]["AG"]["needed_bytes"]


SERVED = "simdep simulate --model deepseek-v2 --hardware h20 --ag 3 --m-a 1 --layers 59 --json"


def test_simulate_notes_that_memory_is_missing_and_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(f"{SERVED} --eg 4") == 0
    said = capsys.readouterr()
    assert "does not fit into memory" in said.err
    assert any("eg = 5 in place of 4" in note for note in json.loads(said.out)["assumptions"])


def test_simulate_says_nothing_of_memory_where_it_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"{SERVED} --eg 5") == 0
    assert "memory" not in capsys.readouterr().err
