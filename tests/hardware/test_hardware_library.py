"""The profiles that ship: every value has a label and a source, and every GPU that people plan with
is there."""

from __future__ import annotations

import pytest
from places import ROOT

from simdep.costs import IDEAL, StageTimes
from simdep.hardware.gpus import gpus
from simdep.hardware.kernels import LABELS
from simdep.hardware.links import link_cost
from simdep.hardware.profile import HardwareProfile, hardware_names, load_hardware
from simdep.policies import schedule_for
from simdep.scenario.models import load_model
from simdep.scenario.spec import Deployment, Scenario, Workload
from simdep.scenario.task_costs import ScenarioCosts
from simdep.schedule import Kind
from simdep.simulation.engine import simulated_makespan_us

PROFILES = [load_hardware(name) for name in hardware_names()]
WANTED = {
    "a100",
    "h100",
    "h200",
    "b200",
    "gb200",
    "l40s",
    "a6000",
    "h20",
    "a10",
    "h800",
    "a800",
    "l20",
    "v100",
}
MEASURED = {"a100", "h100", "h200", "b200", "gb200", "l40s", "h20"}


def test_every_gpu_that_people_plan_with_has_a_profile_and_so_has_a_cpu() -> None:
    assert WANTED | {"epyc-2-cores"} <= set(hardware_names())


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_every_value_of_a_profile_has_a_label_and_a_source(profile: HardwareProfile) -> None:
    assert profile.costs or profile.kernels
    for value in (*profile.costs, *profile.kernels):
        assert value.label in LABELS
        assert len(value.source) > 3, value
    figures = profile.machine.figures if profile.machine else {}
    for name, figure in figures.items():
        assert figure.label in ("datasheet", "published"), name
        assert figure.source, name
        assert figure.unit, name
        assert figure.value > 0, name


def test_every_gpu_has_the_figures_that_a_data_sheet_profile_needs() -> None:
    for gpu in gpus().values():
        assert {"sms", "memory", "memory_bandwidth", "bf16_dense", "gpu_link"} <= set(gpu.figures)


@pytest.mark.parametrize("name", sorted(MEASURED))
def test_measured_kernels_carry_the_errors_of_their_fit(name: str) -> None:
    found = [kernel for kernel in load_hardware(name).kernels if kernel.label == "measured"]
    assert found
    for kernel in found:
        assert kernel.fit is not None
        assert kernel.fit.n >= 15
        assert kernel.ranges


@pytest.mark.parametrize("name", sorted(WANTED))
@pytest.mark.parametrize(
    ("model", "phase", "samples"),
    [("deepseek-v2", "prefill", 2), ("qwen3-235b-a22b", "decode", 64)],
)
def test_every_gpu_prices_every_task_of_prefill_and_decode(
    name: str, model: str, phase: str, samples: int
) -> None:
    data = {
        "model": model,
        "layers": 2,
        "deployment": {"hardware": name, "ag": 4, "eg": 4},
        "workload": {"phase": phase, "seq_len": 2048, "samples": samples},
        "schedule": {"r1": 2, "r2": 2},
    }
    scenario = Scenario.from_dict(data)
    costs = ScenarioCosts(scenario)
    schedule = schedule_for(scenario)
    assert all(0 < costs(task) < 1e7 for task in schedule)


def test_a_newer_gpu_of_the_same_line_is_faster() -> None:
    def us(name: str) -> float:
        scenario = Scenario(
            load_model("deepseek-v3"),
            Deployment(8, 8, load_hardware(name)),
            Workload("prefill", 4096, 2),
            4,
            r1=2,
        )
        return simulated_makespan_us(schedule_for(scenario), ScenarioCosts(scenario))

    times = [us(name) for name in ("a100", "h100", "b200")]
    assert times == sorted(times, reverse=True)


def test_beyond_its_measurements_a_profile_says_so() -> None:
    scenario = Scenario(
        load_model("deepseek-v2"),
        Deployment(1, 8, load_hardware("h100")),
        Workload("prefill", 64, 1),
        1,
    )
    costs = ScenarioCosts(scenario)
    costs.attention(64)
    sentence = "gemm: n=24576 is out of the measured range 512 to 16384"
    assert any(str(record).startswith(sentence) for record in costs.evidence.extrapolations)


# With every extra term off, the paper's model


def test_a_profile_of_lines_alone_is_findeps_model_exactly() -> None:
    """t_a, t_s, t_e and t_c of Eq. 1-4, simulated, against the same sums written out."""
    scenario = Scenario(
        load_model("deepseek-v2"),
        Deployment(4, 4, load_hardware("a6000")),
        Workload("prefill", 1024, 2),
        3,
        r1=2,
        r2=2,
    )
    costs = ScenarioCosts(scenario)
    assert costs.host == IDEAL
    gemm, core, link = 170, 150, 370
    beta, core_beta, link_beta = 8.59e-8, 1.54e-8, 0.001275
    tokens, copies = 1024, 512 * 4 * 6
    shapes = [(5120, 1536), (1536, 128 * 192), (5120, 576), (512, 128 * 256), (128 * 128, 5120)]
    z = copies / 4 * 5120 * 2
    us = StageTimes(
        attention=sum(gemm + beta * tokens * k * n for k, n in shapes)
        + core
        + core_beta * 1024**2 * 128 * 320,
        shared=6 * (gemm + beta * tokens * 5120 * 1536),
        expert=40 * 3 * (gemm + beta * copies / 160 * 5120 * 1536),
        a2e=link + link_beta * z,
        e2a=link + link_beta * z,
    )
    schedule = schedule_for(scenario)
    assert simulated_makespan_us(schedule, costs) == pytest.approx(
        simulated_makespan_us(schedule, us), rel=1e-12
    )


# Switches


def test_a_speed_factor_multiplies_computation_alone() -> None:
    fast = load_hardware("h200")
    slow = HardwareProfile(**{**vars(fast), "speed_factor": 1.25})
    one, other = (
        ScenarioCosts(
            Scenario(
                load_model("glm-4.5"), Deployment(4, 4, hardware), Workload("prefill", 1024, 1), 1
            )
        )
        for hardware in (fast, slow)
    )
    assert other.attention(1024) == pytest.approx(1.25 * one.attention(1024))
    assert other.expert(1024) == pytest.approx(1.25 * one.expert(1024))
    assert other.transfer(Kind.A2E, 1024) == one.transfer(Kind.A2E, 1024)


def test_sms_that_communicate_slow_products_by_their_share_and_leave_the_attention_core() -> None:
    def costs(comm_sms: int) -> ScenarioCosts:
        where = Deployment(4, 4, load_hardware("h100"), comm_sms=comm_sms)
        return ScenarioCosts(
            Scenario(load_model("deepseek-v2"), where, Workload("prefill", 1024, 1), 1)
        )

    assert costs(20).shared(1024) == pytest.approx(132 / 112 * costs(0).shared(1024))
    assert (
        costs(0).attention(1024) < costs(20).attention(1024) < 132 / 112 * costs(0).attention(1024)
    )
    with pytest.raises(ValueError, match="comm_sms=132: the GPU of hardware h100 has 132 SMs"):
        costs(132).shared(1024)


def test_a_dense_layer_before_each_layer_with_experts_is_part_of_its_attention() -> None:
    model = load_model("llama-4-maverick")
    only = ScenarioCosts(
        Scenario(model, Deployment(4, 4, load_hardware("h100")), Workload("prefill", 1024, 1), 1)
    )
    assert only.attention(1024) > 2 * only.shared(1024)
    leading = load_model("deepseek-v3")
    assert (leading.moe_every, model.moe_every) == (1, 2)


def test_layers_with_a_window_cost_less_than_those_without() -> None:
    where = Deployment(4, 4, load_hardware("h100"))
    for phase, tokens in (("prefill", 8192), ("decode", 64)):
        costs = ScenarioCosts(
            Scenario(load_model("gpt-oss-120b"), where, Workload(phase, 8192, 64), 1)
        )
        assert costs.attention(tokens, layer=0) < costs.attention(tokens, layer=1)
        assert costs.attention(tokens, layer=0) == costs.attention(tokens, layer=2)


def test_a_port_charges_the_busier_end_and_a_line_the_experts_side() -> None:
    profile, line = load_hardware("h100"), load_hardware("a6000")
    for hardware, bound in ((profile, 6 * 1024), (line, 6 * 1024 / 4)):
        costs = ScenarioCosts(
            Scenario(
                load_model("deepseek-v2"), Deployment(1, 4, hardware), Workload("prefill", 64, 1), 1
            )
        )
        link = costs.link(Kind.A2E)
        assert costs.transfer(Kind.A2E, 1024) == pytest.approx(link(bound * 5120 * 2))


def test_a_port_is_that_of_the_link_class() -> None:
    profile = load_hardware("h100")
    near, far = (
        link_cost(profile, Kind.A2E, 4, 4, link_class=word) for word in ("intra-node", "inter-node")
    )
    assert 5 < far(1e8) / near(1e8) < 20
    assert "DGX-H100" in far.source
    with pytest.raises(ValueError, match="no inter-node kernel"):
        link_cost(load_hardware("l40s"), Kind.A2E, 4, 4, link_class="inter-node")


def test_fp8_out_and_bf16_back_send_half_the_bytes_out() -> None:
    data = {
        "model": "deepseek-v3",
        "deployment": {
            "hardware": "h200",
            "ag": 4,
            "eg": 4,
            "a2e_dtype": "fp8",
            "dispatch": "per-gpu",
        },
        "workload": {"seq_len": 512},
    }
    costs = ScenarioCosts(Scenario.from_dict(data))
    assert 2 * costs.transfer_bytes(64, Kind.A2E) == costs.transfer_bytes(64, Kind.E2A)


def test_committed_data_is_small() -> None:
    files = [path for path in (ROOT / "simdep" / "data").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_000_000


def test_costs_tell_what_they_rest_on_and_how_far_off_it_is_known_to_be() -> None:
    scenario = Scenario(
        load_model("deepseek-v2"),
        Deployment(4, 4, load_hardware("h200")),
        Workload("prefill", 1024, 2),
        2,
    )
    costs = ScenarioCosts(scenario)
    for task in schedule_for(scenario):
        costs(task)
    basis = {each.cost.split()[0]: each for each in costs.basis}
    assert set(basis) == {"gemm", "mla_prefill", "moe_experts", "p2p"}
    for name in ("gemm", "mla_prefill", "moe_experts"):
        mape, p95 = basis[name].mape_pct, basis[name].p95_pct
        assert mape is not None and p95 is not None
        assert basis[name].label == "measured"
        assert 0 < mape < p95
    assert basis["p2p"].label == "assumed"
    assert all(each.source for each in basis.values())


def test_the_notice_names_the_origin_of_every_value_that_was_measured_or_published() -> None:
    notice = (ROOT / "NOTICE").read_text()
    known = (
        "aiconfigurator-core",
        "InferSim",
        "vidur",
        "FinDEP",
        "EPS-MoE",
        "FastAFD",
        "MegaScale-Infer",
    )
    assert all(name in notice for name in known)
    for profile in PROFILES:
        for value in (*profile.costs, *profile.kernels):
            if value.label in ("measured", "published"):
                assert any(name in value.source for name in (*known, "realrun calibrate")), (
                    value.source
                )
