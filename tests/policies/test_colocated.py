"""Colocated policies: their orders, closed forms, costs on the same GPUs, and scenarios made from
one another."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from cli import one_sentence, run
from hypothesis import given, settings
from hypothesis import strategies as st

from simdep.costs import HalvedTimes, StageTimes
from simdep.hardware.profile import load_hardware
from simdep.policies import adapted, build, schedule_for
from simdep.scenario.models import load_model
from simdep.scenario.spec import Deployment, Scenario, Workload
from simdep.scenario.task_costs import ScenarioCosts
from simdep.schedule import Kind, Schedule
from simdep.simulation.engine import simulate_schedule, simulated_makespan_us

us = st.integers(0, 30)
some = st.integers(1, 4)


def line(schedule: Schedule, stream: str) -> str:
    return " ".join(task.name for task in schedule.streams[stream])


# Orders


def test_deepseek_s_decode_overlaps_five_stages() -> None:
    """SHARED(0) ATTN-0(1) | MLP(0) | ATTN-1(1) | SHARED(1) ATTN-0(0) | MLP(1) | ATTN-1(0), of layer
    1."""
    schedule = build("two-batch-decode", 3, 2)
    assert "S[1.0] P[1.1] E[1.0.0] C[1.1] S[1.1] P[2.0] E[1.1.0] C[2.0] S[2.0]" in line(
        schedule, "GPU"
    )  # the next layer begins for micro-batch 0 while 1 is still in this one
    assert line(schedule, "COMM").startswith(
        "A2E[0.0.0] E2A[0.0.0] A2E[0.1.0] E2A[0.1.0] A2E[1.0.0]"
    )
    assert line(schedule, "GPU").startswith("P[0.0] C[0.0] S[0.0] P[0.1] E[0.0.0] C[0.1]")


def test_deepseek_s_prefill_overlaps_whole_attention() -> None:
    """ATTN(1) SHARED(0) ATTN(0) MLP(1) MLP(0) SHARED(1); COMBINE(0) DISPATCH(1) DISPATCH(0)
    COMBINE(1), of layer 1."""
    schedule = build("two-batch-prefill", 3, 2)
    assert "A[1.1] S[0.0] A[1.0] E[1.1.0] E[1.0.0] S[1.1] A[2.1] S[1.0]" in line(schedule, "GPU")
    assert "E2A[0.0.0] A2E[1.1.0] A2E[1.0.0] E2A[1.1.0] E2A[1.0.0]" in line(schedule, "COMM")


def test_chunks_are_dispatched_one_ahead_of_the_combine() -> None:
    for policy in ("chunked", "eps-moe"):
        schedule = build(policy, 1, 1, 3)
        assert (
            line(schedule, "COMM")
            == "A2E[0.0.0] A2E[0.0.1] E2A[0.0.0] A2E[0.0.2] E2A[0.0.1] E2A[0.0.2]"
        )
        assert line(schedule, "GPU") == "A[0.0] S[0.0] E[0.0.0] E[0.0.1] E[0.0.2]"


def test_eps_moe_cuts_by_expert_and_chunked_by_token() -> None:
    by_expert, by_token = (build(policy, 1, 1, 4, tokens=8) for policy in ("eps-moe", "chunked"))
    assert {(t.tokens, t.groups) for t in by_expert if t.kind.is_chunked} == {(8, 4)}
    assert {(t.tokens, t.groups) for t in by_token if t.kind.is_chunked} == {(2, 1)}


def test_a_single_batch_combines_while_the_product_down_runs() -> None:
    """Of six slices, gate and up are the first four; the combines of a slice's groups wait for
    it."""
    schedule = build("single-batch", 1, 1, 6)
    waits = [task.after[0] for task in schedule.streams["COMM"] if task.kind is Kind.E2A]
    assert waits == ["E[0.0.4]"] * 3 + ["E[0.0.5]"] * 3
    assert [task.name for task in schedule if task.kind is Kind.A2E] == ["A2E[0.0.0]"]
    assert schedule["S[0.0]"].after == schedule["A2E[0.0.0]"].after == ("A[0.0]",)
    times = StageTimes(attention=4, expert=1, a2e=3, e2a=1, shared=2)
    assert (
        simulated_makespan_us(schedule, times) == 4 + 3 + 5 + 6
    )  # attention, dispatch, five slices, six combines


# Closed forms


@given(some, us, us, us, us, us)
def test_nothing_overlaps_in_plain_expert_parallelism(
    T: int, a: int, s: int, e: int, d: int, c: int
) -> None:
    """`ep` takes the sum of its stages in every layer, and all its communication is exposed."""
    assert simulated_makespan_us(build("ep", T), StageTimes(a, e, d, c, s)) == T * (
        a + s + e + d + c
    )


@given(some, st.integers(1, 6), us, us, us, st.integers(1, 30))
def test_a_pipeline_that_computes_longer_shows_its_first_dispatch_and_its_last_combine(
    T: int, n: int, a: int, s: int, half: int, more: int
) -> None:
    """With products of a chunk at least as long as its dispatch and combine: T (a + s + d + n e +
    c)."""
    expert = 2 * half + more
    for policy in ("chunked", "eps-moe"):
        makespan = simulated_makespan_us(
            build(policy, T, 1, n), StageTimes(a, expert, half, half, s)
        )
        assert makespan == T * (a + s + half + n * expert + half)


@settings(max_examples=300)
@given(some, us, us, us, us, us, us)
def test_decode_in_two_batches_hides_what_fits(
    T: int, p: int, core: int, s: int, e: int, d: int, c: int
) -> None:
    """A dispatch within S + P and a combine within the core cost nothing but at the end, where no
    layer follows."""
    d, c = min(d, s + p), min(c, core)
    times = HalvedTimes(p + core, e, d, c, s, projection=p, core=core)
    computed = 2 * T * (p + core + s + e)
    assert (
        simulated_makespan_us(build("two-batch-decode", T, 2), times)
        == computed + max(0, d - s) + c
    )


@settings(max_examples=300)
@given(some, us, us, us, us, us)
def test_prefill_in_two_batches_hides_what_fits(
    T: int, a: int, s: int, e: int, d: int, c: int
) -> None:
    """Dispatches within attention and within the experts, combines within attention: only the last
    one may show."""
    d, c = min(d, a, e), min(c, a, e + s)
    end = max(0, c - e) + c - 2 * s  # both combines of the last layer, under its shared experts
    computed = 2 * T * (a + s + e)
    assert simulated_makespan_us(
        build("two-batch-prefill", T, 2), StageTimes(a, e, d, c, s)
    ) == computed + max(0, end)


# Costs


def served(gpus: int = 8, hardware: str = "h800", phase: str = "decode", **more: Any) -> Scenario:
    where = Deployment(gpus, gpus, load_hardware(hardware), colocated=True, **more)
    return Scenario(
        load_model("deepseek-v3"), where, Workload(phase, 1024, 16, "bf16"), 2, policy="ep"
    )


@pytest.mark.parametrize("hardware", ["h100", "h20", "a6000"])
@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("model", ["deepseek-v3", "qwen3-30b-a3b", "llama-4-maverick"])
def test_the_halves_of_attention_are_attention(hardware: str, phase: str, model: str) -> None:
    workload = Workload(phase, 1024, 16)
    where = Deployment(8, 8, load_hardware(hardware), colocated=True)
    costs = ScenarioCosts(Scenario(load_model(model), where, workload, 2, policy="ep"))
    tokens = 16 * workload.tokens_per_sample
    for layer in (0, 1):
        core = costs.us(Kind.CORE, tokens, layer)
        halves = costs.us(Kind.PROJECTION, tokens, layer) + core
        assert halves == pytest.approx(costs.attention(tokens, layer), rel=1e-12)
        assert core > 0


def test_a_gpu_keeps_the_rows_of_its_own_experts() -> None:
    for gpus in (2, 8, 32):
        here = ScenarioCosts(served(gpus))
        apart = replace(here.scenario.deployment, colocated=False)
        whole = ScenarioCosts(replace(here.scenario, deployment=apart, policy="naive"))
        assert here.transfer_bytes(64) == pytest.approx(
            whole.transfer_bytes(64) * (gpus - 1) / gpus
        )
        assert here.expert(64) == whole.expert(64)
    assert ScenarioCosts(served(1)).transfer(Kind.A2E, 64) == 0


def test_communication_takes_its_sms_from_everything_that_a_colocated_gpu_computes() -> None:
    free, beside = (ScenarioCosts(served(phase="prefill", comm_sms=sms)) for sms in (0, 33))
    for part in ("attention", "shared", "expert"):
        assert getattr(beside, part)(4096) == pytest.approx(getattr(free, part)(4096) * 132 / 99)


@pytest.mark.parametrize("gemm", ["grouped", "plain"])
def test_communication_beside_experts_alone_takes_its_sms_from_them(gemm: str) -> None:
    """The SM budget of EPS-MoE: attention and shared experts run while nothing is sent."""
    free, beside = (
        ScenarioCosts(
            served(phase="prefill", comm_sms=sms, comm_sms_from="experts", expert_gemm=gemm)
        )
        for sms in (0, 33)
    )
    assert beside.expert(4096) == pytest.approx(free.expert(4096) * 132 / 99)
    assert (beside.attention(4096), beside.shared(4096)) == (
        free.attention(4096),
        free.shared(4096),
    )


def test_an_ag_gives_sms_away_and_an_eg_none() -> None:
    free, beside = (
        ScenarioCosts(
            replace(
                served(phase="prefill"),
                deployment=Deployment(
                    8, 8, load_hardware("h800"), comm_sms=sms, expert_gemm="plain"
                ),
                policy="naive",
            )
        )
        for sms in (0, 33)
    )
    assert beside.shared(4096) == pytest.approx(free.shared(4096) * 132 / 99)
    assert beside.expert(4096) == free.expert(4096)


def test_the_scenario_may_state_the_contention_of_its_streams() -> None:
    assert ScenarioCosts(served()).host.contention == 0
    assert ScenarioCosts(served(contention=0.15)).host.contention == 0.15


def test_experts_are_computed_by_the_cheaper_of_grouped_and_plain_products() -> None:
    """Few rows an expert: one grouped kernel. Many: plain products, one an expert (EPS-MoE's choice
    of a GEMM)."""
    grouped, plain, cheaper = (
        ScenarioCosts(served(phase="prefill", expert_gemm=word))
        for word in ("grouped", "plain", "cheaper")
    )
    for tokens in (64, 4096, 32768):
        for groups in (1, 4):
            both = grouped.expert(tokens, groups), plain.expert(tokens, groups)
            assert cheaper.expert(tokens, groups) == min(both)
    assert grouped.expert(64) < plain.expert(64)
    assert plain.expert(32768) < grouped.expert(32768)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (
            {"gpus": 8, "ag": 4, "eg": 4},
            "gpus and ag are both given; give gpus for colocated GPUs, else ag and eg",
        ),
        ({"gpus": 0}, "gpus=0; expected an integer >= 1"),
        (
            {"gpus": 8, "shared_on": "eg"},
            "shared_on='eg': colocated, there is one group; leave it out",
        ),
        (
            {"gpus": 8, "contention": 0.5},
            "contention=0.5; expected a number >= 0 and < 0.5",
        ),
        (
            {"gpus": 8, "expert_gemm": "dense"},
            "unknown expert_gemm 'dense'; use cheaper, grouped, plain",
        ),
        (
            {"ag": 4, "eg": 4, "comm_sms_from": "experts"},
            "comm_sms_from='experts': it is for colocated GPUs; leave it out",
        ),
        ({"gpus": 8}, "policy findep is for ag and eg, not gpus"),
        (
            {"ag": 4, "eg": 4, "policy": "ep"},
            "policy ep is colocated: give deployment.gpus in place of ag and eg",
        ),
    ],
)
def test_a_colocated_deployment_is_checked(where: dict[str, Any], message: str) -> None:
    schedule = {"policy": where.pop("policy", "findep")}
    data = {
        "model": "deepseek-v2",
        "layers": 2,
        "deployment": {"hardware": "h20", **where},
        "schedule": schedule,
    }
    with pytest.raises(ValueError) as error:
        schedule_for(Scenario.from_dict(data))
    assert str(error.value) == message


# From one scenario to another


@pytest.fixture
def apart() -> Scenario:
    where = Deployment(3, 5, load_hardware("h20"))
    return Scenario(
        load_model("deepseek-v2"), where, Workload("prefill", 1024, 8), 2, "findep", "aass", 2, 4
    )


def test_a_scenario_of_its_own_policy_stays_as_it_is(apart: Scenario) -> None:
    assert adapted(apart, "findep").scenario == apart
    assert adapted(apart, "findep").changes == ()


def test_two_groups_become_as_many_colocated_gpus_with_the_same_samples(apart: Scenario) -> None:
    found = adapted(apart, "two-batch-decode")
    assert found.scenario.deployment.gpus == 8
    assert (
        found.scenario.workload.samples * 8 == 8 * 3 + 8
    )  # 3 on each GPU would not make two micro-batches
    assert found.changes == (
        "3+5 GPUs became 8 colocated GPUs",
        "24 samples in all became 32, 4 on each GPU with attention",
        "r2=4 became 1",
    )
    assert adapted(apart, "ep").scenario.workload.samples == 3


def test_colocated_gpus_become_two_groups(apart: Scenario) -> None:
    together = adapted(apart, "ep").scenario
    assert adapted(together, "pppipe", r1=3).scenario.deployment.ag == 4
    back = adapted(together, "findep", split=(3, 5), r1=2, r2=4, order="aass").scenario
    assert back == apart
    for split in ((4, 5), (8, 0)):
        with pytest.raises(ValueError, match=f"{split[0]}:{split[1]} does not split 8 GPUs"):
            adapted(together, "findep", split=split)


@pytest.mark.parametrize(
    "policy",
    [
        "naive",
        "pppipe",
        "findep",
        "lookahead",
        "step3",
        "ep",
        "chunked",
        "eps-moe",
        "two-batch-prefill",
        "two-batch-decode",
        "single-batch",
    ],
)
def test_every_policy_has_a_scenario_on_the_same_gpus(apart: Scenario, policy: str) -> None:
    found = adapted(apart, policy).scenario
    assert found.deployment.gpus == apart.deployment.gpus
    costs = ScenarioCosts(found)
    timeline = simulate_schedule(schedule_for(found), costs, costs.host)
    assert timeline.schedule.tokens == found.workload.samples * 1024
    assert 0 < timeline.makespan_us < 1e7
    assert adapted(found, policy).scenario == found


def test_step_3_brings_its_deployment_along(apart: Scenario) -> None:
    found = adapted(apart, "step3").scenario
    where = found.deployment
    assert (found.r1, where.shared_on, where.dispatch, where.a2e_dtype) == (
        3,
        "eg",
        "broadcast",
        "fp8",
    )
    with pytest.raises(ValueError, match="policy step3 computes the shared experts on the EG"):
        schedule_for(replace(apart, policy="step3", order="asas", r2=1))
    with pytest.raises(
        ValueError, match="dispatch=broadcast brings every token to every expert at once"
    ):
        ScenarioCosts(found).transfer(Kind.A2E, 8, groups=2)


def test_sms_of_communication_are_taken_only_where_a_gpu_is_known(apart: Scenario) -> None:
    unknown = replace(apart.deployment.hardware, name="mine", gpu="")
    assert adapted(apart, "eps-moe").scenario.deployment.comm_sms == 16
    other = replace(apart, deployment=replace(apart.deployment, hardware=unknown))
    assert adapted(other, "eps-moe").scenario.deployment.comm_sms == 0


def test_a_colocated_scenario_is_written_in_flags(capsys: pytest.CaptureFixture[str]) -> None:
    command = (
        "simdep simulate --model qwen3-235b-a22b --hardware h100 --phase decode --layers 2 "
        "--gpus 8 --samples 64"
    )
    assert run(command, "--policy", "two-batch-decode", "--r1", "2", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["schedule"], list(result["streams"])) == ("two-batch-decode", ["GPU", "COMM"])
    assert result["throughput_tokens_per_s"] == pytest.approx(1e6 * 8 * 64 / result["makespan_us"])
    assert run(command, "--policy", "two-batch-decode", "--r1", "1") == 2
    one_sentence(capsys, "r1=1: policy two-batch-decode has 2 micro-batches; use r1=2")
    assert run(command, "--policy", "eps-moe", "--r2", "3") == 2
    one_sentence(capsys, "r2=3 groups do not divide the 16 experts of a GPU; use 1, 2, 4, 8, 16")
