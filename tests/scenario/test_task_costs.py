"""Costs: stage times from a text, and a scenario priced as in the paper's Eq. 1-4, written out
again here."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simdep.costs import StageTimes
from simdep.hardware.datasheet import datasheet_kernels
from simdep.hardware.links import link_cost, port_cost
from simdep.hardware.profile import Cost, HardwareProfile, load_hardware
from simdep.policies import schedule_for
from simdep.scenario import work
from simdep.scenario.fields import override
from simdep.scenario.models import load_model
from simdep.scenario.spec import Scenario
from simdep.scenario.task_costs import ScenarioCosts
from simdep.schedule import Kind, Task

# Stage times


def test_stage_times_read_from_a_text() -> None:
    times = StageTimes.parse("attention=1000,shared=300, a2e=50,expert=200.5,e2a=5e1")
    assert times == StageTimes(attention=1000, shared=300, a2e=50, expert=200.5, e2a=50.0)


def test_whole_stage_times_stay_whole() -> None:
    times = StageTimes.parse("attention=1,a2e=2,expert=3,e2a=4")
    assert [type(value) for value in vars(times).values()] == [int] * 5
    assert times.shared == 0


times_texts = st.lists(st.integers(0, 10**9) | st.floats(0, 1e9), min_size=5, max_size=5)


@given(times_texts, st.permutations(range(5)))
def test_stage_times_may_stand_in_any_order(values: list[float], order: list[int]) -> None:
    """parse reads back every number that it was given."""
    names = ("attention", "expert", "a2e", "e2a", "shared")
    text = ",".join(f"{names[at]}={values[at]!r}" for at in order)
    assert StageTimes.parse(text) == StageTimes(*values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown stage ''; use a2e, attention, core, e2a, expert, projection, shared"),
        ("attn=1", "unknown stage 'attn'; did you mean 'attention'?"),
        ("attention", "stage times 'attention': write each stage once, as attention=MICROSECONDS"),
        ("a2e=1,a2e=2", "stage times 'a2e=1,a2e=2': write each stage once, as a2e=MICROSECONDS"),
        ("a2e=", "stage time a2e=''; expected a finite number >= 0"),
        ("a2e=fast", "stage time a2e='fast'; expected a finite number >= 0"),
        ("a2e=-1", "stage time a2e='-1'; expected a finite number >= 0"),
        ("a2e=nan", "stage time a2e='nan'; expected a finite number >= 0"),
        ("a2e=inf", "stage time a2e='inf'; expected a finite number >= 0"),
        (
            "attention=1,a2e=1,e2a=1",
            "stage times: expert is missing; only shared may be left out",
        ),
    ],
)
def test_wrong_stage_times_are_refused_by_their_part(text: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        StageTimes.parse(text)
    assert str(error.value).startswith(message)


def test_stage_times_price_a_task_by_its_kind() -> None:
    times = StageTimes(attention=1, expert=2, a2e=3, e2a=4, shared=5)
    tasks = [
        Task.parse(name, tokens=9)
        for name in ("A[0.0]", "E[0.0.0]", "A2E[0.0.0]", "E2A[0.0.0]", "S[7.0]")
    ]
    assert [times(task) for task in tasks] == [1, 2, 3, 4, 5]


# The paper's equations

BASE = {"model": "deepseek-v2", "layers": 2, "deployment": {"hardware": "a6000", "ag": 4, "eg": 4}}


def costs(**flags: Any) -> ScenarioCosts:
    return ScenarioCosts(Scenario.from_dict(override(BASE, flags)))


def paper_ms(m_a: int, S: int, r2: int, ag: int = 4, eg: int = 4) -> dict[Kind, float]:
    """FinDEP's Eq. 1-4 for DeepSeek-V2 on Testbed A split 4:4, in milliseconds as printed."""
    M, H, E, top_k, N_shared = 5120, 1536, 160, 6, 2
    n_h, d_nope, d_rope, d_v, q_rank, kv_rank = 128, 128, 64, 128, 1536, 512
    d_k = d_nope + d_rope
    m_e = m_a * ag * top_k * S / (r2 * E)  # conservation of tokens

    def t_gm(macs: float) -> float:
        return 0.17 + 8.59e-11 * macs

    def t_attn(y: float) -> float:
        return 0.15 + 1.54e-11 * y

    def t_c(z: float) -> float:
        return 0.37 + 2.55e-6 * z

    tokens = m_a * S
    down_q, up_q = t_gm(tokens * M * q_rank), t_gm(tokens * q_rank * n_h * d_k)
    down_kv, up_kv = (
        t_gm(tokens * M * (kv_rank + d_rope)),
        t_gm(tokens * kv_rank * n_h * (d_nope + d_v)),
    )
    out = t_gm(tokens * n_h * d_v * M)
    t_a = down_q + up_q + down_kv + up_kv + out + t_attn(n_h * m_a * S**2 * (d_k + d_v))
    t_s = 3 * N_shared * t_gm(tokens * M * H)
    t_e = 3 * (E / eg) * t_gm(m_e * M * H)
    link = t_c(E / eg * m_e * M)
    return {Kind.ATTENTION: t_a, Kind.SHARED: t_s, Kind.EXPERT: t_e, Kind.A2E: link, Kind.E2A: link}


@pytest.mark.parametrize(
    ("m_a", "seq_len", "r1", "r2"), [(1, 2048, 1, 1), (2, 1024, 3, 4), (3, 4096, 1, 16)]
)
def test_deepseek_v2_on_the_a6000_is_priced_by_the_papers_equations(
    m_a: int, seq_len: int, r1: int, r2: int
) -> None:
    price = costs(m_a=m_a, seq_len=seq_len, r1=r1, r2=r2)
    expected = paper_ms(m_a, seq_len, r2)
    for task in schedule_for(price.scenario):
        assert price(task) == pytest.approx(1000 * expected[task.kind], rel=1e-12), task.name


def test_grouped_query_attention_has_four_projections() -> None:
    price = costs(model="qwen3-235b-a22b", seq_len=1000, m_a=2)
    wide, narrow = 2000 * 4096 * 8192, 2000 * 4096 * 512
    expected = 4 * 170 + 8.59e-8 * 2 * (wide + narrow) + 150 + 1.54e-8 * 64 * 2 * 1000**2 * 256
    assert price.attention(2000) == pytest.approx(expected, rel=1e-12)


def test_decode_attends_to_the_whole_context_with_one_token_a_sample() -> None:
    price = costs(phase="decode", seq_len=4096, m_a=8)
    projections = sum(
        170 + 8.59e-8 * 8 * k * n for k, n in load_model("deepseek-v2").attention.projections(5120)
    )
    absorbed = (
        576 + 512
    )  # keys and values of absorbed MLA: the compressed cache, with and without its rotary part
    assert price.attention(8) == pytest.approx(
        projections + 150 + 1.54e-8 * 8 * 4096 * 128 * absorbed, rel=1e-12
    )


def test_tokens_are_conserved_between_the_groups() -> None:
    """m_a ag top_k S = m_e r2 E."""
    price = costs(m_a=2, seq_len=512, r2=4)
    chunks = [task.tokens for task in schedule_for(price.scenario).streams["EG"] if task.layer == 0]
    rows = [work.transfer(price.scenario.model, size, 4, 4).tokens_per_eg for size in chunks]
    assert 4 * sum(rows) == 2 * 4 * 6 * 512


def test_an_eg_gpu_with_a_part_of_the_last_experts_is_as_slow_as_a_full_one() -> None:
    assert costs(ag=3, eg=3).expert(64) == pytest.approx(
        54 * 3 * (170 + 8.59e-8 * 64 * 3 * 6 / 160 * 5120 * 1536)
    )


def test_a_link_given_in_the_scenario_replaces_that_of_the_profile() -> None:
    price = costs(link={"alpha_us": 20, "gbytes_per_s": 25})
    load = 1024 * 4 * 6 * 5120 * 2 / 4  # bytes of an EG GPU
    assert price.transfer(Kind.A2E, 1024) == pytest.approx(20 + load / 25e3)
    assert price.transfer_bytes(1024) == load


@pytest.mark.parametrize(("dtype", "size"), [("fp32", 4), ("bf16", 2), ("fp8", 1)])
def test_a_transfer_moves_elements_of_the_workloads_type(dtype: str, size: int) -> None:
    assert costs(dtype=dtype).transfer_bytes(1) == 6 * 5120 * size


# The most specific cost


def on(hardware: HardwareProfile) -> ScenarioCosts:
    scenario = costs().scenario
    return ScenarioCosts(
        replace(scenario, deployment=replace(scenario.deployment, hardware=hardware))
    )


def with_costs(*rows: Cost) -> ScenarioCosts:
    a6000 = load_hardware("a6000")
    return on(replace(a6000, costs=(*a6000.costs, *rows)))


SHAPE = costs().scenario.shape


@pytest.mark.parametrize("kind", ["attention", "shared", "expert"])
def test_a_stage_measured_for_this_shape_is_taken_before_the_equations(kind: str) -> None:
    price = with_costs(Cost(f"stage.{kind}", 7, 2, "measured", "test", shape=SHAPE))
    name = {"attention": "A[0.0]", "shared": "S[0.0]", "expert": "E[0.0.0]"}[kind]
    assert price(Task.parse(name, tokens=10)) == 27


def test_a_stage_measured_for_another_shape_is_not_taken() -> None:
    price = with_costs(Cost("stage.expert", 7, 2, "measured", "test", shape=f"{SHAPE} other"))
    assert price.expert(10) == costs().expert(10)


def test_a_stage_measured_for_this_split_is_taken_before_the_one_for_any() -> None:
    for_any = Cost("stage.expert", 7, 2, "measured", "test", shape=SHAPE)
    price = with_costs(for_any, replace(for_any, alpha_us=1, ag=4, eg=4))
    assert price.expert(10) == 21


def test_a_measured_combine_delays_attention_in_every_layer_but_the_first() -> None:
    price = with_costs(
        Cost("stage.attention", 7, 2, "measured", "test", shape=SHAPE),
        Cost("stage.combine", 1, 3, "measured", "test", shape=SHAPE),
    )
    assert price(Task.parse("A[0.0]", tokens=10)) == 27
    assert price(Task.parse("A[1.0]", tokens=10)) == 27 + 31


def test_a_measured_expert_is_taken_before_matrix_products() -> None:
    """Forty local experts, each with its rows, paying the start-up in the share of experts that get
    a token."""
    price = with_costs(Cost("expert", 100, 1e-6, "measured", "test"))
    rows, touched = 2 * 4 * 6 / 160, 1 - (1 - 6 / 160) ** 8
    assert price.expert(2) == pytest.approx(
        40 * (100 * touched + 1e-6 * rows * 3 * 5120 * 1536), rel=1e-12
    )


def test_nearly_all_experts_are_touched_by_many_tokens() -> None:
    model = costs().scenario.model
    assert work.activated_share(model, 4) == pytest.approx(1 - (154 / 160) ** 4)
    assert work.activated_share(model, 4000) == pytest.approx(1)


@pytest.mark.parametrize(("kept", "missing"), [("attention", "gemm"), ("gemm", "attention")])
def test_a_profile_without_a_needed_cost_is_refused_by_its_name(kept: str, missing: str) -> None:
    bare = HardwareProfile("bare", "", (Cost(kept, 1, 1, "assumed", "test"),))
    price = on(bare)
    with pytest.raises(
        ValueError, match=f"^hardware bare has no cost for {missing} in bf16, which model"
    ):
        price(Task(Kind.ATTENTION, 0, 0))


# Links


def link(ag: int, eg: int, alpha: float, beta: float, op: str = "link") -> Cost:
    return Cost(op, alpha, beta, "measured", "test", ag, eg)


BOX = HardwareProfile("box", "", (link(1, 3, 10, 1), link(2, 2, 20, 3), link(3, 1, 60, 2)))


def test_a_split_with_a_figure_of_its_own_takes_it() -> None:
    assert link_cost(BOX, Kind.A2E, 2, 2) is BOX.costs[1]


def test_a_split_between_two_figures_is_interpolated_over_the_share_of_the_ag() -> None:
    cost = link_cost(BOX, Kind.E2A, 5, 3)  # a share of 5/8, half-way from 2:2 to 3:1
    assert (cost.alpha_us, cost.beta_us) == (40, 2.5)
    assert cost.op == "e2a"
    assert cost.label == "assumed"
    assert cost.source == "link of box at 5:3 assumed from its figures at 2:2 and 3:1 (measured)"


def test_a_split_with_the_share_of_a_figure_takes_its_numbers_but_labels_them_assumed() -> None:
    cost = link_cost(BOX, Kind.A2E, 4, 4)
    assert (cost.alpha_us, cost.beta_us, cost.label) == (20, 3, "assumed")
    assert cost.source == "link of box at 4:4 assumed from its figure at 2:2 (measured)"


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_order_of_the_figures_in_a_profile_is_no_matter(order: tuple[int, ...]) -> None:
    shuffled = replace(BOX, costs=tuple(BOX.costs[position] for position in order))
    for ag, eg in ((1, 9), (3, 5), (5, 3), (9, 1)):
        assert link_cost(shuffled, Kind.A2E, ag, eg) == link_cost(BOX, Kind.A2E, ag, eg)


def test_a_port_beyond_its_table_goes_on_as_its_kernel_does() -> None:
    """The table ends at 1 GiB."""
    profile = HardwareProfile("h20", "", ())
    port = port_cost(profile, Kind.A2E, "intra-node")
    assert profile.machine is not None
    [kernel] = [
        kernel
        for kernel in datasheet_kernels(profile.machine)
        if kernel.op == "p2p" and kernel.matches({"link": "intra-node"})
    ]
    for size in (2**30, 2**32, 2**35):
        assert port(size) == pytest.approx(kernel.us(bytes=size), rel=1e-6)


@pytest.mark.parametrize(("ag", "eg", "alpha", "nearest"), [(1, 9, 10, "1:3"), (9, 1, 60, "3:1")])
def test_a_split_beyond_all_figures_takes_the_nearest(
    ag: int, eg: int, alpha: float, nearest: str
) -> None:
    cost = link_cost(BOX, Kind.A2E, ag, eg)
    assert (cost.alpha_us, cost.label) == (alpha, "assumed")
    assert f"figure at {nearest} (" in cost.source


@given(st.integers(1, 12), st.integers(1, 12))
def test_a_link_of_any_split_lies_within_the_figures_of_the_profile(ag: int, eg: int) -> None:
    """alpha and beta between the smallest and the largest given, for both directions alike."""
    cost = link_cost(BOX, Kind.A2E, ag, eg)
    assert 10 <= cost.alpha_us <= 60
    assert 1 <= cost.beta_us <= 3
    assert cost(1000) == link_cost(BOX, Kind.E2A, ag, eg)(1000)


def test_a_direction_with_a_figure_of_its_own_takes_it_before_the_link_of_both() -> None:
    profile = replace(BOX, costs=(*BOX.costs, link(2, 2, 5, 5, "e2a")))
    assert link_cost(profile, Kind.E2A, 2, 2).alpha_us == 5
    assert link_cost(profile, Kind.A2E, 2, 2).alpha_us == 20


def test_a_link_for_any_split_is_no_assumption() -> None:
    profile = HardwareProfile("box", "", (Cost("link", 5, 5, "datasheet", "test"),))
    assert link_cost(profile, Kind.A2E, 3, 7) is profile.costs[0]


def test_a_profile_without_a_link_is_refused_with_what_to_give() -> None:
    bare = HardwareProfile("bare", "", (Cost("gemm", 1, 1, "assumed", "test"),))
    message = (
        r"^hardware bare has no cost for a2e or link, and no intra-node kernel; give one as "
        r"deployment\.link$"
    )
    with pytest.raises(ValueError, match=message):
        link_cost(bare, Kind.A2E, 1, 1)


def test_notes_tell_once_what_was_assumed() -> None:
    assert costs().links.assumptions == []
    (note,) = costs(ag=3, eg=5).links.assumptions
    assert note == "link of a6000 at 3:5 assumed from its figures at 2:6 and 4:4 (published)"
