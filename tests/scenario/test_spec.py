"""Specs: models, hardware profiles, scenarios, and what is refused at the border."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simdep import checks
from simdep.files import read_toml
from simdep.hardware.profile import (
    COST_OPERATIONS,
    LABELS,
    Cost,
    HardwareProfile,
    LineFit,
    load_hardware,
    profile_from_dict,
)
from simdep.scenario.fields import override
from simdep.scenario.models import GQA, MLA, ModelSpec, builtin_models, from_hf_config, load_model
from simdep.scenario.reference import EXAMPLE
from simdep.scenario.spec import Scenario

MODELS = builtin_models()
PROFILE_FILES = (resources.files("simdep") / "data" / "hardware").iterdir()
PROFILES = [
    load_hardware(name)
    for name in sorted(file.name.removesuffix(".json") for file in PROFILE_FILES)
]


# Checks


def test_an_unknown_word_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ValueError, match=r"^unknown fruit 'aple'; did you mean 'apple'\?$"):
        checks.known("aple", ("pear", "apple"), "fruit")


def test_a_word_like_no_other_is_refused_with_all_of_them() -> None:
    with pytest.raises(ValueError, match=r"^unknown fruit 'xyz'; use apple, pear$"):
        checks.known("xyz", ("pear", "apple"), "fruit")


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", True, None])
def test_a_whole_number_is_an_int_of_at_least_its_lowest(value: Any) -> None:
    with pytest.raises(ValueError) as error:
        checks.integer(value, "r1")
    assert str(error.value) == f"r1={value!r}; expected an integer >= 1"


@pytest.mark.parametrize("value", [-0.5, math.nan, math.inf, -math.inf, "1", True, None])
def test_a_number_is_finite_and_not_negative(value: Any) -> None:
    with pytest.raises(ValueError) as error:
        checks.number(value, "alpha_us")
    assert str(error.value) == f"alpha_us={value!r}; expected a finite number >= 0"


def test_a_number_above_zero_is_not_zero() -> None:
    assert checks.number(0, "x") == 0
    with pytest.raises(ValueError, match=r"^x=0; expected a finite number > 0$"):
        checks.number(0, "x", above=0)


# Models


@pytest.mark.parametrize(
    ("name", "layers", "moe_layers", "experts", "top_k"),
    [
        ("deepseek-v2", 60, 59, 160, 6),
        ("deepseek-v2-lite", 27, 26, 64, 6),
        ("qwen3-235b-a22b", 94, 94, 128, 8),
        ("qwen3-30b-a3b", 48, 48, 128, 8),
    ],
)
def test_a_built_in_model_has_its_published_layers_and_experts(
    name: str, layers: int, moe_layers: int, experts: int, top_k: int
) -> None:
    model = MODELS[name]
    assert (model.layers, model.moe_layers, model.experts, model.top_k) == (
        layers,
        moe_layers,
        experts,
        top_k,
    )


@pytest.mark.parametrize(
    ("name", "projections"),
    [
        ("deepseek-v2", [(5120, 1536), (1536, 24576), (5120, 576), (512, 32768), (16384, 5120)]),
        ("deepseek-v2-lite", [(2048, 3072), (2048, 576), (512, 4096), (2048, 2048)]),
        ("qwen3-235b-a22b", [(4096, 8192), (4096, 512), (4096, 512), (8192, 4096)]),
        ("qwen3-30b-a3b", [(2048, 4096), (2048, 512), (2048, 512), (4096, 2048)]),
    ],
)
def test_attention_has_the_projections_of_its_form(
    name: str, projections: list[tuple[int, int]]
) -> None:
    model = MODELS[name]
    assert list(model.attention.projections(model.hidden)) == projections


@pytest.mark.parametrize(
    ("name", "expert_params", "ag_params"),
    [
        # 3 * 5120 * 1536; 149,225,472 in projections + 5120 * 160 in the router + 3 * 5120 * 3072
        # in shared experts
        ("deepseek-v2", 23_592_960, 197_230_592),
        ("deepseek-v2-lite", 8_650_752, 13_762_560 + 131_072 + 17_301_504),
        ("qwen3-235b-a22b", 18_874_368, 71_303_168 + 524_288),
        ("qwen3-30b-a3b", 4_718_592, 18_874_368 + 262_144),
    ],
)
def test_weights_are_those_computed_by_hand(name: str, expert_params: int, ag_params: int) -> None:
    assert (MODELS[name].expert_params, MODELS[name].ag_params) == (expert_params, ag_params)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("deepseek-v2", 236e9),
        ("deepseek-v2-lite", 15.7e9),
        ("qwen3-235b-a22b", 235e9),
        ("qwen3-30b-a3b", 30.5e9),
    ],
)
def test_the_expert_layers_hold_all_published_weights_but_embeddings_and_dense_layers(
    name: str, published: float
) -> None:
    model = MODELS[name]
    assert (
        0.96
        < model.moe_layers * (model.ag_params + model.experts * model.expert_params) / published
        < 1
    )


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_every_built_in_model_names_its_source(model: ModelSpec) -> None:
    assert model.source.startswith("config.json of ")
    assert model.has_shared == (model.shared_experts > 0)


def test_a_model_is_found_by_its_name_in_any_case() -> None:
    assert load_model("DeepSeek-V2") == MODELS["deepseek-v2"]


def test_an_unknown_model_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(
        ValueError, match=r"^unknown model 'deepsek-v2'; did you mean 'deepseek-v2'\?$"
    ):
        load_model("deepsek-v2")


# Scaled models


def test_scaling_shrinks_the_widths_and_keeps_the_counts_that_shape_the_traffic() -> None:
    small = MODELS["deepseek-v2"].scaled(0.125)
    assert small.name == "deepseek-v2@0.125"
    assert (small.hidden, small.expert_hidden, small.shared_hidden, small.dense_hidden) == (
        640,
        192,
        384,
        1536,
    )
    assert small.attention == MLA(
        heads=16, q_rank=192, kv_rank=64, nope_dim=128, rope_dim=64, v_dim=128
    )
    assert (small.experts, small.top_k, small.layers, small.shared_experts) == (160, 6, 60, 2)


def test_scaling_by_one_changes_nothing() -> None:
    assert MODELS["deepseek-v2"].scaled(1) is MODELS["deepseek-v2"]


@given(st.sampled_from(list(MODELS.values())), st.floats(0.001, 1))
def test_a_scaled_model_has_widths_of_8_and_heads_that_share_evenly(
    model: ModelSpec, factor: float
) -> None:
    """Any factor gives a valid model: widths are multiples of 8, absent parts stay absent, kv_heads
    divides heads."""
    small = model.scaled(factor)
    assert all(
        w % 8 == 0
        for w in (small.hidden, small.expert_hidden, small.shared_hidden, small.dense_hidden)
    )
    assert 8 <= small.hidden <= model.hidden
    assert small.has_shared == model.has_shared
    if isinstance(small.attention, MLA) and isinstance(model.attention, MLA):
        assert (small.attention.q_rank is None) == (model.attention.q_rank is None)
    if isinstance(small.attention, GQA):
        assert small.attention.heads % small.attention.kv_heads == 0


@pytest.mark.parametrize("factor", [0, -0.5, 1.5, math.nan])
def test_a_scale_is_more_than_0_and_at_most_1(factor: float) -> None:
    with pytest.raises(
        ValueError, match=rf"^scale={factor}; a factor on widths, more than 0 and at most 1"
    ):
        MODELS["qwen3-30b-a3b"].scaled(factor)


# HuggingFace configs

LITE = {
    "hidden_size": 2048,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_experts_per_tok": 6,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "norm_topk_prob": False,
    "q_lora_rank": None,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": 102400,
}
QWEN = {
    "hidden_size": 2048,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "vocab_size": 151936,
}


def written(folder: Path, config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(("name", "config"), [("deepseek-v2-lite", LITE), ("qwen3-30b-a3b", QWEN)])
def test_a_config_json_reads_as_the_built_in_model(
    tmp_path: Path, name: str, config: dict[str, Any]
) -> None:
    folder = written(tmp_path / name, config)
    read = load_model(str(folder))
    assert read == load_model(str(folder / "config.json"))
    assert read.source == str(folder / "config.json")
    assert {**vars(read), "source": ""} == {**vars(MODELS[name]), "source": ""}


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (LITE, field)
        for field in (
            "hidden_size",
            "num_attention_heads",
            "num_hidden_layers",
            "intermediate_size",
        )
    ]
    + [(LITE, field) for field in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")],
)
def test_a_config_that_lacks_a_field_is_refused_by_its_file_and_the_field(
    tmp_path: Path, config: dict[str, Any], field: str
) -> None:
    folder = written(tmp_path, {key: value for key, value in config.items() if key != field})
    with pytest.raises(ValueError) as error:
        load_model(str(folder))
    assert str(error.value) == f"{folder / 'config.json'}: {field} is missing"


def test_a_config_without_experts_is_refused_by_every_name_that_they_have() -> None:
    with pytest.raises(ValueError) as error:
        from_hf_config(
            {key: value for key, value in QWEN.items() if key != "num_experts"}, "m", "m.json"
        )
    assert (
        str(error.value)
        == "n_routed_experts or num_experts or num_local_experts or moe_num_experts is missing"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"hidden_size": "2048"},
            "hidden_size='2048'; expected an integer >= 1",
        ),
        ({"num_experts": 0}, "num_experts=0; expected an integer >= 1"),
        ({"num_experts_per_tok": 129}, "top_k=129 of model m exceeds its 128 experts"),
        ({"first_k_dense_replace": 48}, "model m has no layer with experts"),
        ({"num_key_value_heads": 5}, "num_key_value_heads=5 does not divide 32 attention heads"),
        (
            {"decoder_sparse_step": 2, "first_k_dense_replace": 1},
            "decoder_sparse_step=2 beside 1 leading dense layers",
        ),
        (
            {"mlp_only_layers": [3]},
            "mlp_only_layers=[3]; only leading or alternating dense layers are known",
        ),
        (
            {"layer_types": ["full_attention"] * 2},
            "expected one for each of 48 layers",
        ),
    ],
)
def test_a_config_with_a_wrong_field_is_refused_by_its_value(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as error:
        from_hf_config(QWEN | change, "m", "m.json")
    assert message in str(error.value)


def test_a_config_that_is_no_json_is_refused_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError) as error:
        load_model(str(tmp_path))
    assert str(error.value).startswith(f"{tmp_path / 'config.json'}: ")


def test_a_config_that_is_no_object_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"config\.json: it looks like a routing; expected the config.json of an MoE model$",
    ):
        load_model(str(written(tmp_path, [1])))


def test_a_config_that_is_not_there_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        load_model(str(tmp_path / "none.json"))
    assert str(error.value).startswith(f"{tmp_path / 'none.json'}: ")


# Hardware profiles

FIT = LineFit((1.0, 2.0), (3.0, 4.0), 0.99, 2.5, 12, (8.0, 512.0))
PROFILE = HardwareProfile(
    name="box",
    description="a box",
    costs=(
        Cost("gemm", 5.0, 2e-6, "measured", "here", fit=FIT),
        Cost(
            "stage.expert",
            1.0,
            2.0,
            "measured",
            "here",
            2,
            3,
            "m prefill",
            points=((1.0, 3.0), (4.0, 9.0)),
        ),
        Cost("a2e", 7.0, 0.5, "assumed", "guess", 2, 3),
        Cost("link", 8.0, 0.25, "datasheet", "sheet"),
    ),
    gpu="a100",
    environment={"torch": "2.9"},
)


def as_json(profile: HardwareProfile = PROFILE) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(json.dumps(profile.to_dict()))
    return data


@pytest.mark.parametrize("profile", [PROFILE, *PROFILES], ids=lambda profile: profile.name)
def test_a_profile_equals_itself_read_back(tmp_path: Path, profile: HardwareProfile) -> None:
    path = tmp_path / "profile.json"
    profile.save(path)
    assert load_hardware(str(path)) == profile


def cost_row(**change: Any) -> dict[str, Any]:
    return {**as_json(), "costs": [{**as_json()["costs"][0], **change}]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            [],
            "profile=[]; expected a table of format, name, description, costs, kernels, gpu, "
            "speed_factor, environment",
        ),
        ({**as_json(), "nmae": "x"}, "unknown key of profile 'nmae'; did you mean 'name'?"),
        (
            {**as_json(), "format": 3},
            "profile format 3 is not known; expected 1 or 2",
        ),
        ({**as_json(), "name": ""}, "name=''; expected a text"),
        (
            {**as_json(), "costs": []},
            "costs and kernels are missing; a profile lists at least one cost or kernel",
        ),
        ({**as_json(), "costs": [3]}, "costs[0]=3; expected a table of op, alpha_us"),
        ({**as_json(), "speed_factor": 0}, "speed_factor=0; expected a finite number > 0"),
        (cost_row(op="gem"), "unknown costs[0].op 'gem'; did you mean 'gemm'?"),
        (cost_row(alpha=1), "unknown key of costs[0] 'alpha'; did you mean 'alpha_us'?"),
        (cost_row(alpha_us=math.nan), "costs[0].alpha_us=nan; expected a finite number >= 0"),
        (cost_row(beta_us=-1), "costs[0].beta_us=-1; expected a finite number >= 0"),
        (cost_row(beta_us=math.inf), "costs[0].beta_us=inf; expected a finite number >= 0"),
        (cost_row(beta_us="1"), "costs[0].beta_us='1'; expected a finite number >= 0"),
        (cost_row(label="guessed"), "unknown costs[0].label 'guessed'; "),
        (cost_row(source=""), "costs[0].source=''; expected a text"),
        (cost_row(ag=-1), "costs[0].ag=-1; expected an integer >= 0"),
        (cost_row(eg=0.5), "costs[0].eg=0.5; expected an integer >= 0"),
        (cost_row(fit={"r2": 1}), "costs[0].fit.alpha_ci_us is missing"),
        (cost_row(fit={"mape": 1}), "unknown key of costs[0].fit 'mape'; did you mean 'mape_pct'?"),
        (
            cost_row(points=[1, 2]),
            "costs[0].points: 1; expected a pair [work, microseconds]",
        ),
        (
            cost_row(points=[[1, 2], [1, 3]]),
            "costs[0].points: work does not increase from point to point",
        ),
        (cost_row(points=[[0, 2]]), "costs[0].points=0; expected a finite number > 0"),
        (
            cost_row(points=[[1, math.nan]]),
            "costs[0].points=nan; expected a finite number > 0",
        ),
    ],
)
def test_a_malformed_profile_is_refused_by_the_field_at_fault(data: Any, message: str) -> None:
    with pytest.raises(ValueError) as error:
        profile_from_dict(data)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("key", ["op", "alpha_us", "beta_us", "label", "source"])
def test_a_cost_without_its_number_its_label_or_its_source_is_refused(key: str) -> None:
    data = as_json()
    del data["costs"][1][key]
    with pytest.raises(ValueError) as error:
        profile_from_dict(data)
    assert str(error.value) == f"costs[1].{key} is missing"


def test_a_malformed_profile_file_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "box.json"
    path.write_text(json.dumps(cost_row(alpha_us=-1)))
    with pytest.raises(ValueError) as error:
        load_hardware(str(path))
    assert str(error.value) == f"{path}: costs[0].alpha_us=-1; expected a finite number >= 0"


def test_an_unknown_profile_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"^unknown hardware 'a600'; did you mean 'a6000'\?$"):
        load_hardware("a600")


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_every_cost_of_a_built_in_profile_has_a_label_and_a_source(
    profile: HardwareProfile,
) -> None:
    for cost in profile.costs:
        assert cost.op in COST_OPERATIONS
        assert cost.label in LABELS
        assert len(cost.source) > 10


def test_the_a6000_has_the_constants_that_the_paper_prints() -> None:
    """Printed in milliseconds, communication per element of 2 bytes; ours are microseconds and
    bytes."""
    a6000 = load_hardware("a6000")
    printed = {
        ("gemm", 0, 0): (0.17, 8.59e-11),
        ("attention", 0, 0): (0.15, 1.54e-11),
        ("link", 1, 7): (0.10, 9.61e-7 / 2),
        ("link", 2, 6): (0.01, 1.28e-6 / 2),
        ("link", 4, 4): (0.37, 2.55e-6 / 2),
    }
    assert {(c.op, c.ag, c.eg): (c.alpha_us, c.beta_us) for c in a6000.costs} == {
        key: pytest.approx((1000 * alpha, 1000 * beta), rel=1e-12)
        for key, (alpha, beta) in printed.items()
    }
    assert {cost.label for cost in a6000.costs} == {"published"}


def test_the_most_specific_cost_is_found() -> None:
    def profile_cost(ag: int, eg: int, shape: str) -> Cost:
        return Cost("stage.expert", 1, 1, "assumed", "test", ag, eg, shape)

    both, shape, split, any_ = (
        profile_cost(*at) for at in ((2, 3, "s"), (0, 0, "s"), (2, 3, ""), (0, 0, ""))
    )
    profile = HardwareProfile("box", "", (any_, split, shape, both))
    assert profile.find("stage.expert", ag=2, eg=3, shape="s") is both
    assert profile.find("stage.expert", ag=9, eg=9, shape="s") is shape
    assert profile.find("stage.expert", ag=2, eg=3, shape="other") is split
    assert profile.find("stage.expert", ag=9, eg=9) is any_
    assert profile.find("gemm") is None


def test_a_cost_is_a_line_in_the_work() -> None:
    assert Cost("gemm", 5, 2, "assumed", "test")(10) == 25


def test_a_line_pays_its_start_up_in_the_proportion_asked_for() -> None:
    assert Cost("expert", 8, 2, "assumed", "test")(10, 0.25) == 22


def test_a_cost_with_points_goes_through_them() -> None:
    cost = Cost("stage.expert", 0, 1, "measured", "test", points=((1, 10), (4, 20), (16, 80)))
    assert [cost(work) for work in (1, 4, 16)] == pytest.approx([10, 20, 80])


def test_between_points_a_cost_is_straight_on_logarithmic_axes() -> None:
    cost = Cost("stage.expert", 0, 1, "measured", "test", points=((1, 10), (4, 20), (16, 80)))
    assert [cost(work) for work in (2, 8)] == pytest.approx([10 * math.sqrt(2), 40])


def test_beyond_its_points_a_cost_goes_on_along_its_line_and_never_below_zero() -> None:
    cost = Cost("stage.expert", 0, 5, "measured", "test", points=((4, 10), (16, 80)))
    assert [cost(work) for work in (18, 3, 1)] == [90, 5, 0]


def test_one_point_moves_the_line() -> None:
    cost = Cost("stage.expert", 99, 5, "measured", "test", points=((4, 30),))
    assert [cost(work) for work in (2, 4, 6)] == [20, 30, 40]


# Scenarios

TOML = EXAMPLE.replace("seq_len = 2048", "seq_len = 1024")


def scenario(**change: Any) -> Scenario:
    data = {"model": "deepseek-v2", "deployment": {"hardware": "a6000", "ag": 3, "eg": 5}}
    return Scenario.from_dict(override(data, change))


def read(tmp_path: Path, text: str = TOML) -> dict[str, Any]:
    path = tmp_path / "scenario.toml"
    path.write_text(text)
    return read_toml(path)


def test_a_toml_file_reads_as_its_scenario(tmp_path: Path) -> None:
    asked = Scenario.from_dict(read(tmp_path))
    assert (asked.model, asked.layers, asked.policy, asked.order) == (
        MODELS["deepseek-v2"],
        8,
        "findep",
        "aass",
    )
    assert (asked.deployment.ag, asked.deployment.eg, asked.deployment.hardware) == (
        3,
        5,
        load_hardware("a6000"),
    )
    assert (asked.workload.phase, asked.workload.seq_len, asked.workload.dtype) == (
        "prefill",
        1024,
        "bf16",
    )
    assert (asked.r1, asked.r2, asked.m_a, asked.tokens) == (2, 4, 2, 2048)


def test_the_link_of_a_scenario_is_given_in_gigabytes_a_second(tmp_path: Path) -> None:
    link = Scenario.from_dict(read(tmp_path)).deployment.link
    assert link is not None
    assert link(25_000) == pytest.approx(20 + 1)  # 25 GB/s move 25,000 bytes in a microsecond
    assert link.label == "assumed"


def test_what_is_left_out_of_a_scenario_has_a_default() -> None:
    asked = scenario()
    assert (asked.layers, asked.policy, asked.r1, asked.r2, asked.m_a) == (59, "findep", 1, 1, 1)
    assert (asked.workload.phase, asked.workload.seq_len, asked.workload.element_bytes) == (
        "prefill",
        2048,
        2,
    )


def test_decode_computes_one_token_a_sample() -> None:
    asked = scenario(phase="decode", seq_len=4096, m_a=8, r1=2)
    assert (asked.workload.samples, asked.tokens) == (16, 8)


def test_a_scale_shrinks_the_model() -> None:
    assert scenario(scale=0.5).model == MODELS["deepseek-v2"].scaled(0.5)


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    flags = {"order": "asas", "ag": 4, "eg": 4, "layers": 2, "seq_len": 512, "r2": None}
    asked = Scenario.from_dict(override(read(tmp_path), flags))
    assert (asked.order, asked.deployment.ag, asked.deployment.eg, asked.layers) == (
        "asas",
        4,
        4,
        2,
    )
    assert (asked.workload.seq_len, asked.workload.samples, asked.r2) == (512, 4, 4)


def test_m_a_as_a_flag_replaces_the_samples_of_the_file(tmp_path: Path) -> None:
    asked = Scenario.from_dict(override(read(tmp_path), {"m_a": 5}))
    assert (asked.m_a, asked.workload.samples) == (5, 10)


def test_flags_alone_make_a_scenario() -> None:
    flags = {
        "model": "qwen3-30b-a3b",
        "hardware": "a6000",
        "ag": 1,
        "eg": 7,
        "policy": "naive",
        "dtype": "fp8",
    }
    asked = Scenario.from_dict(override({}, flags))
    assert (asked.model.name, asked.policy, asked.workload.element_bytes) == (
        "qwen3-30b-a3b",
        "naive",
        1,
    )


def test_flags_leave_the_tables_of_the_file_as_they_were(tmp_path: Path) -> None:
    data = read(tmp_path)
    override(data, {"ag": 9, "m_a": 5, "order": "asas", "policy": "naive"})
    assert data == read(tmp_path)


def test_a_scenario_names_the_fields_that_file_and_flags_stated(tmp_path: Path) -> None:
    stated = Scenario.from_dict(override(read(tmp_path), {"m_a": 5, "r2": None})).given
    assert stated == {
        *("model", "layers", "hardware", "ag", "eg", "link.alpha_us", "link.gbytes_per_s"),
        *("seq_len", "m_a", "order", "r1", "r2"),
    }


def test_what_was_stated_stays_with_a_changed_scenario_and_tells_no_two_apart() -> None:
    stated, changed = scenario(r2=2), replace(scenario(), r2=2)
    assert replace(stated, order="AASS").given == {"model", "hardware", "ag", "eg", "r2"}
    assert stated == changed
    assert stated.given != changed.given


def test_a_profile_just_measured_stands_in_for_the_one_named() -> None:
    data = {"model": "deepseek-v2", "deployment": {"ag": 1, "eg": 1}}
    assert Scenario.from_dict(data, hardware=PROFILE).deployment.hardware is PROFILE


def test_the_shape_of_a_scenario_is_what_a_measured_stage_depends_on() -> None:
    assert scenario(scale=0.125, seq_len=64).shape == "deepseek-v2@0.125 prefill seq_len=64 bf16"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"model": "deepsek-v2"}, "unknown model 'deepsek-v2'; did you mean 'deepseek-v2'?"),
        ({"hardware": "b2000"}, "unknown hardware 'b2000'; "),
        ({"ag": 0}, "ag=0; expected an integer >= 1"),
        ({"eg": "4"}, "eg='4'; expected an integer >= 1"),
        ({"eg": 161}, "eg=161: model deepseek-v2 has only 160 experts"),
        ({"phase": "training"}, "unknown phase 'training'; use decode, prefill"),
        ({"dtype": "bf61"}, "unknown dtype 'bf61'; did you mean 'bf16'?"),
        ({"seq_len": 0}, "seq_len=0; expected an integer >= 1"),
        (
            {"samples": 16, "r1": 3},
            "r1=3 does not divide the 16 samples of an AG GPU; use 1, 2, 4, 8 or 16",
        ),
        ({"samples": 1, "r1": 2}, "r1=2 does not divide the 1 samples of an AG GPU; use 1"),
        ({"r1": True}, "r1=True; expected an integer >= 1"),
        ({"r2": 0}, "r2=0; expected an integer >= 1"),
        ({"layers": 1.5}, "layers=1.5; expected an integer >= 1"),
        ({"scale": 2}, "scale=2; expected a number > 0 and <= 1"),
        ({"policy": ""}, "policy=''; expected a text"),
        (
            {"link": {"gbytes_per_s": 0}},
            "link.gbytes_per_s=0; expected a finite number > 0",
        ),
        ({"link": {"alpha_us": 3}}, "link.alpha_us=3 needs a speed: give link.gbytes_per_s too"),
        (
            {"link": {"gbytes_per_s": 1, "alpha_us": math.nan}},
            "link.alpha_us=nan; expected a finite number",
        ),
        ({"link": {"gb_per_s": 9}}, "unknown key of link 'gb_per_s'; did you mean 'gbytes_per_s'?"),
    ],
)
def test_a_wrong_value_in_a_scenario_is_refused_by_its_key(
    flags: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as error:
        scenario(**flags)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "model is missing; a scenario has a model, hardware, ag and eg"),
        ({"model": "deepseek-v2"}, "ag is missing; a scenario has a model, hardware, ag and eg"),
        (
            {"model": "deepseek-v2", "deployment": {"ag": 1, "eg": 1}},
            "hardware is missing; name a profile or give the path of one",
        ),
        ({"model": 3, "deployment": {"ag": 1, "eg": 1}}, "model=3; expected a text"),
        ({"modle": "deepseek-v2"}, "unknown key of scenario 'modle'; did you mean 'model'?"),
        ({"deployment": 3}, "deployment=3; expected a table of hardware, ag, eg, gpus, link"),
        ({"workload": {"seqlen": 3}}, "unknown key of workload 'seqlen'; did you mean 'seq_len'?"),
        (
            {"schedule": {"r3": 3}},
            "unknown key of schedule 'r3'; use chunks, merge_last, micro_batches, order, "
            "policy, r1, r2, split",
        ),
        ([], "scenario=[]; expected a table of model"),
    ],
)
def test_a_malformed_scenario_is_refused_by_its_key(data: Any, message: str) -> None:
    with pytest.raises(ValueError) as error:
        Scenario.from_dict(data)
    assert str(error.value).startswith(message)


def test_samples_and_m_a_are_not_given_together() -> None:
    deployment = {"hardware": "a6000", "ag": 1, "eg": 1}
    data = {"model": "deepseek-v2", "deployment": deployment, "workload": {"samples": 4, "m_a": 2}}
    with pytest.raises(
        ValueError,
        match=r"^samples and m_a are both given; give one of them: samples = r1 \* m_a$",
    ):
        Scenario.from_dict(data)


@pytest.mark.parametrize("content", [b"model = ", b"\xff"])
def test_a_file_that_is_no_toml_is_refused_by_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "scenario.toml"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        read_toml(path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_scenario_file_that_is_not_there_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        read_toml(tmp_path / "none.toml")
    assert str(error.value).startswith(f"{tmp_path / 'none.toml'}: ")
