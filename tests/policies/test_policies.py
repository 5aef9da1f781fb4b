"""Policies: AG orders, the dependencies of FinDEP's Eq. 5, chunks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli import one_sentence, run
from hypothesis import given
from hypothesis import strategies as st
from places import ROOT
from schedules import dep_streams, findep, naive, pppipe
from strategies import ag_orders, degrees, jobs, layers, shapes, with_shared

from simdep.costs import StageTimes
from simdep.policies import (
    BUILTIN,
    POLICIES,
    Job,
    build,
    chunk_tokens,
    find,
    load_policy,
    lookahead,
    parse_order,
    register,
    schedule_for,
)
from simdep.scenario.spec import Scenario
from simdep.schedule import STREAMS, Kind, Schedule, Task
from simdep.simulation.closed_form import pingpong
from simdep.simulation.longest_path import longest_path_us


def ag(schedule: Schedule) -> str:
    return " ".join(task.name for task in schedule.streams["AG"])


def words(order: str, r1: int) -> str:
    return " ".join(f"{kind.value}{mb}" for kind, mb in parse_order(order, r1))


# Orders


@pytest.mark.parametrize(
    ("order", "steps"),
    [
        ("asas", "A0 S0 A1 S1 A2 S2"),
        ("AASS", "A0 A1 A2 S0 S1 S2"),
        ("a0 a1 s1 s0 a2 s2", "A0 A1 S1 S0 A2 S2"),
        ("  A2 S2\tA1 S1\n A0 S0 ", "A2 S2 A1 S1 A0 S0"),
    ],
)
def test_an_order_reads_as_its_steps(order: str, steps: str) -> None:
    assert words(order, 3) == steps


@given(degrees.flatmap(lambda r1: st.tuples(st.just(r1), ag_orders[r1])))
def test_every_order_with_each_s_after_its_a_is_accepted(case: tuple[int, str]) -> None:
    """parse_order keeps the steps of any list that holds every A and S once, each S after its A."""
    r1, order = case
    assert words(order, r1) == order


@pytest.mark.parametrize(
    ("order", "r1", "message"),
    [
        ("asas", 0, "r1=0: the AG works on at least 1 micro-batch"),
        ("asa", 1, "order 'asa': 'ASA' is no step; use asas, aass or a list such as 'A0 A1 S0 S1'"),
        (
            "A0 E0",
            1,
            "order 'A0 E0': 'E0' is no step; use asas, aass or a list such as 'A0 A1 S0 S1'",
        ),
        (
            "A0,S0",
            1,
            "order 'A0,S0': 'A0,S0' is no step; use asas, aass or a list such as 'A0 A1 S0 S1'",
        ),
        ("A0 S0 A0", 1, "order 'A0 S0 A0': A0 appears twice"),
        ("A0 S0 S00", 1, "order 'A0 S0 S00': S00 appears twice"),
        ("A0 S0 A1 S1", 1, "order 'A0 S0 A1 S1': A1 is beyond the last of r1=1 micro-batches, A0"),
        ("A0 S1 A1 S0", 2, "order 'A0 S1 A1 S0': S1 stands before A1, whose result it needs"),
        ("A0 S0", 2, "order 'A0 S0': A1 is missing for r1=2"),
        ("A0 A1 S1", 2, "order 'A0 A1 S1': S0 is missing for r1=2"),
        ("", 1, "order '': A0 is missing for r1=1"),
    ],
)
def test_a_wrong_order_is_refused_by_its_step(order: str, r1: int, message: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_order(order, r1)
    assert str(error.value) == message


def test_the_ag_follows_the_order_in_every_layer() -> None:
    schedule = findep(2, 2, 1, "A1 A0 S0 S1")
    assert ag(schedule) == "A[0.1] A[0.0] S[0.0] S[0.1] A[1.1] A[1.0] S[1.0] S[1.1]"


def test_the_links_and_the_experts_follow_the_attention_order() -> None:
    schedule = findep(1, 2, 2, "A1 A0 S0 S1")
    served = [[task.name for task in schedule.streams[stream]] for stream in STREAMS[1:]]
    assert served == [
        [f"{s}[0.1.0]", f"{s}[0.1.1]", f"{s}[0.0.0]", f"{s}[0.0.1]"] for s in ("A2E", "E", "E2A")
    ]


# Dependencies


@given(layers, degrees, degrees, st.booleans(), st.data())
def test_dependencies_are_those_of_eq_5(
    T: int, r1: int, r2: int, shared: bool, data: st.DataObject
) -> None:
    """findep: S and A2E wait for A; E for A2E; E2A for E; the next A for every E2A, and for S if
    there is one."""
    order = data.draw(ag_orders[r1])
    schedule = findep(T, r1, r2, order, shared=shared)
    expected: dict[str, set[str]] = {}
    for t in range(T):
        for i in range(r1):
            returned = {f"E2A[{t - 1}.{i}.{j}]" for j in range(r2)} | (
                {f"S[{t - 1}.{i}]"} if shared else set()
            )
            expected[f"A[{t}.{i}]"] = returned if t else set()
            if shared:
                expected[f"S[{t}.{i}]"] = {f"A[{t}.{i}]"}
            for j in range(r2):
                expected[f"A2E[{t}.{i}.{j}]"] = {f"A[{t}.{i}]"}
                expected[f"E[{t}.{i}.{j}]"] = {f"A2E[{t}.{i}.{j}]"}
                expected[f"E2A[{t}.{i}.{j}]"] = {f"E[{t}.{i}.{j}]"}
    assert {task.name: set(task.after) for task in schedule} == expected


@pytest.mark.parametrize("schedule", [naive(2), pppipe(2, 3)], ids=str)
def test_a2e_waits_for_the_shared_experts_in_pppipe_and_naive(schedule: Schedule) -> None:
    assert {task.after for task in schedule.streams["A2E"]} == {
        (f"S[{layer}.{mb}]",) for layer in range(2) for mb in range(schedule.r1)
    }


@pytest.mark.parametrize("order", ["asas", "aass", "A0 A1 S1 S0"])
def test_a2e_does_not_wait_for_the_shared_experts_in_findep(order: str) -> None:
    assert [task.after for task in findep(1, 2, 1, order).streams["A2E"]] == [
        ("A[0.0]",),
        ("A[0.1]",),
    ]


@pytest.mark.parametrize(
    "schedule",
    [naive(2, shared=False), pppipe(2, 2, shared=False), findep(2, 2, 2, "aass", shared=False)],
    ids=str,
)
def test_without_shared_experts_there_is_no_shared_task(schedule: Schedule) -> None:
    assert not [task for task in schedule if task.kind is Kind.SHARED]
    assert {task.after for task in schedule.streams["A2E"]} == {
        (task.name,) for task in schedule.streams["AG"]
    }


@given(layers, degrees, degrees)
def test_without_shared_experts_the_two_orders_are_one(T: int, r1: int, r2: int) -> None:
    """ASAS and AASS differ only in where S stands."""
    assert (
        findep(T, r1, r2, "asas", shared=False).streams
        == findep(T, r1, r2, "aass", shared=False).streams
    )


def test_naive_is_pppipe_with_one_micro_batch() -> None:
    assert naive(3, tokens=5).streams == pppipe(3, 1, tokens=5).streams


@given(layers, degrees, degrees, st.sampled_from(["asas", "aass"]), st.booleans())
def test_every_kind_runs_on_its_own_stream(
    T: int, r1: int, r2: int, order: str, shared: bool
) -> None:
    """Attention and shared experts on AG, experts on EG, transfers on the link of their
    direction."""
    schedule = findep(T, r1, r2, order, shared=shared)
    assert tuple(schedule.streams) == STREAMS
    assert all(schedule.stream_of[task.name] == task.kind.stream for task in schedule)
    assert len(schedule) == T * r1 * (1 + shared + 3 * r2)


# Chunks


@given(
    st.integers(1, 500).flatmap(lambda tokens: st.tuples(st.just(tokens), st.integers(1, tokens)))
)
def test_chunks_hold_all_tokens_of_the_micro_batch(case: tuple[int, int]) -> None:
    """r2 chunks add up to the micro-batch and differ by at most one token, longer ones first."""
    tokens, r2 = case
    chunks = chunk_tokens(tokens, r2)
    assert sum(chunks) == tokens and len(chunks) == r2
    assert max(chunks) - min(chunks) <= 1
    assert list(chunks) == sorted(chunks, reverse=True)


@pytest.mark.parametrize(("tokens", "r2"), [(3, 4), (3, 0), (1, 2)])
def test_a_chunk_has_at_least_one_token(tokens: int, r2: int) -> None:
    with pytest.raises(ValueError) as error:
        chunk_tokens(tokens, r2)
    assert (
        str(error.value)
        == f"r2={r2} does not fit the {tokens} tokens of a micro-batch; use 1 to {tokens}"
    )


@given(degrees, degrees, st.integers(0, 9))
def test_every_stage_handles_all_tokens_of_a_micro_batch(r1: int, r2: int, more: int) -> None:
    """A and S hold the micro-batch; the chunks of A2E, of E and of E2A each add up to it."""
    schedule = findep(1, r1, r2, tokens=r2 + more)
    for kind in (Kind.ATTENTION, Kind.SHARED, Kind.A2E, Kind.EXPERT, Kind.E2A):
        for mb in range(r1):
            assert (
                sum(task.tokens for task in schedule if task.kind is kind and task.mb == mb)
                == r2 + more
            )


def test_findep_without_tokens_has_one_token_a_chunk() -> None:
    assert {task.tokens for task in findep(1, 1, 5).streams["EG"]} == {1}


# By name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"policy": "pppip"}, "unknown policy 'pppip'; did you mean 'pppipe'?"),
        (
            {"policy": "naive", "r1": 2},
            "r1=2: policy naive has one micro-batch; use r1=1, or policy pppipe",
        ),
        (
            {"policy": "naive", "r2": 2},
            "r2=2: policy naive does not divide micro-batches; use r2=1, or policy findep",
        ),
        (
            {"policy": "pppipe", "r2": 3},
            "r2=3: policy pppipe does not divide micro-batches; use r2=1, or policy findep",
        ),
        (
            {"policy": "pppipe", "order": "aass"},
            "order 'aass': policy pppipe has no order to choose; leave it out, or use findep",
        ),
        ({"policy": "findep", "layers": 0}, "layers=0: a schedule has at least 1 layer"),
        ({"policy": "findep", "r1": 0}, "r1=0: the AG works on at least 1 micro-batch"),
        ({"policy": "pppipe", "r1": -1}, "r1=-1: the AG works on at least 1 micro-batch"),
        (
            {"policy": "findep", "r2": 3, "tokens": 2},
            "r2=3 does not fit the 2 tokens of a micro-batch; use 1 to 2",
        ),
    ],
)
def test_a_degree_that_a_policy_does_not_have_is_refused(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as error:
        build(**{"layers": 1} | arguments)
    assert str(error.value) == message


def test_a_policy_by_name_is_the_policy() -> None:
    assert build("naive", 2, tokens=3) == naive(2, tokens=3)
    assert build("pppipe", 2, 3, tokens=3) == pppipe(2, 3, tokens=3)
    assert build("findep", 2, 3, 2, "aass", tokens=3) == findep(2, 3, 2, "aass", tokens=3)


def test_a_scenario_asks_for_its_policy_degrees_and_tokens() -> None:
    scenario = Scenario.from_dict(
        {
            "model": "deepseek-v2",
            "layers": 2,
            "deployment": {"hardware": "a6000", "ag": 4, "eg": 4},
            "workload": {"seq_len": 100, "samples": 4},
            "schedule": {"policy": "findep", "order": "aass", "r1": 2, "r2": 3},
        }
    )
    assert schedule_for(scenario) == findep(2, 2, 3, "aass", tokens=200)


def test_a_model_without_shared_experts_has_no_shared_task() -> None:
    deployment = {"hardware": "a6000", "ag": 4, "eg": 4}
    scenario = Scenario.from_dict({"model": "qwen3-30b-a3b", "layers": 1, "deployment": deployment})
    assert ag(schedule_for(scenario)) == "A[0.0]"


# Any sequence of the AG


def test_shared_experts_may_slip_past_the_attention_of_another_layer() -> None:
    """A sequence over all layers: S(0,1) after A(1,0), which no order within a layer allows."""
    A, S = Kind.ATTENTION, Kind.SHARED
    sequence = (
        (A, 0, 0),
        (A, 0, 1),
        (S, 0, 0),
        (A, 1, 0),
        (S, 0, 1),
        (A, 1, 1),
        (S, 1, 0),
        (S, 1, 1),
    )
    schedule = dep_streams(
        "slip", sequence, ((1, 2), (3,)), layers=2, shared=True, wait_for_shared=False
    )
    assert ag(schedule) == "A[0.0] A[0.1] S[0.0] A[1.0] S[0.1] A[1.1] S[1.0] S[1.1]"
    assert [(task.name, task.tokens) for task in schedule.streams["EG"]][:3] == [
        ("E[0.0.0]", 1),
        ("E[0.0.1]", 2),
        ("E[0.1.0]", 3),
    ]
    assert schedule["A[1.1]"].after == ("E2A[0.1.0]", "S[0.1]")


def test_a_sequence_that_can_never_finish_is_found() -> None:
    sequence = (
        (Kind.ATTENTION, 0, 0),
        (Kind.ATTENTION, 1, 0),
        (Kind.SHARED, 0, 0),
        (Kind.SHARED, 1, 0),
    )
    schedule = dep_streams("late", sequence, ((1,),), layers=2, shared=True, wait_for_shared=False)
    with pytest.raises(ValueError, match=r"can never finish: .*S\[0.0\]"):
        _ = schedule.in_order
    with pytest.raises(
        ValueError, match=r"A\[1.0\] waits for S\[0.0\], which is not in the schedule"
    ):
        dep_streams("lost", sequence[:2], ((1,),), layers=2, shared=True, wait_for_shared=False)


def test_shared_experts_on_the_eg_wait_for_every_chunk_and_return_with_the_last() -> None:
    schedule = find("findep").schedule(Job(2, ((1, 1),), shared_on="eg"))
    assert ag(schedule) == "A[0.0] A[1.0]"
    assert [task.name for task in schedule.streams["EG"]][:3] == ["E[0.0.0]", "S[0.0]", "E[0.0.1]"]
    assert schedule["S[0.0]"].after == ("A2E[0.0.0]", "A2E[0.0.1]")
    assert schedule["E2A[0.0.1]"].after == ("E[0.0.1]", "S[0.0]")
    assert schedule["A[1.0]"].after == ("E2A[0.0.0]", "E2A[0.0.1]")


@given(shapes, with_shared)
def test_three_stages_take_the_ping_pong_of_their_times(
    shape: tuple[int, int, int], times: StageTimes
) -> None:
    """step3, any number of micro-batches: shared experts are part of the experts' stage."""
    T, r1, _ = shape
    makespan = longest_path_us(build("step3", T, r1), times)
    assert makespan == pingpong(
        StageTimes(times.attention, times.expert + times.shared, times.a2e, times.e2a), T, r1
    )


# Look-ahead


@given(shapes, with_shared)
def test_looking_ahead_is_no_slower_than_either_order(
    shape: tuple[int, int, int], times: StageTimes
) -> None:
    T, r1, r2 = shape
    best = min(longest_path_us(findep(T, r1, r2, order), times) for order in ("asas", "aass"))
    assert longest_path_us(build("lookahead", T, r1, r2, costs=times), times) <= best


@given(with_shared.flatmap(lambda times: st.tuples(st.just(times), jobs(find("lookahead"), times))))
def test_looking_ahead_is_no_slower_on_any_cut(case: tuple[StageTimes, Job]) -> None:
    """Uneven micro-batches and chunks, groups of experts, an uncut last layer, shared experts on
    either group."""
    times, job = case

    def us(task: Task) -> float:
        return times(task) * task.tokens

    job = replace(job, costs=us)
    orders = [find("findep").schedule(replace(job, order=order)) for order in ("asas", "aass")]
    best = min(longest_path_us(schedule, us) for schedule in orders)
    assert longest_path_us(find("lookahead").schedule(job), us) <= best


def test_looking_ahead_needs_costs() -> None:
    with pytest.raises(
        ValueError, match="looks at the costs of its tasks; give a scenario or stage times"
    ):
        build("lookahead", 1)


def test_the_look_ahead_of_a_scenario_sees_its_costs() -> None:
    data = {
        "model": "deepseek-v2",
        "layers": 2,
        "deployment": {"hardware": "a6000", "ag": 3, "eg": 5},
        "workload": {"seq_len": 256, "m_a": 2},
        "schedule": {"policy": "lookahead", "r1": 2, "r2": 2},
    }
    scenario = Scenario.from_dict(data)
    job = Job.of(scenario)
    steps = [(task.kind, task.layer, task.mb) for task in schedule_for(scenario).streams["AG"]]
    assert tuple(steps) == lookahead.lookahead_order(job.times, 2, 2, 2)
    assert job.costs is not None
    assert (job.times.attention, job.times.expert) == (
        job.costs(schedule_for(scenario)["A[1.0]"]),
        job.costs(schedule_for(scenario)["E[1.0.0]"]),
    )


# The registry


@pytest.fixture
def registry() -> Iterator[None]:
    """Policies that a test registers are gone after it."""
    before = dict(POLICIES)
    yield
    POLICIES.clear()
    POLICIES.update(before)


def documented_policy() -> str:
    text = (ROOT / "simdep" / "docs" / "schedules.md").read_text()
    found = re.search(r"```python\n# my_policy.py\n(.+?)```", text, re.S)
    assert found
    return found[1]


@pytest.mark.usefixtures("registry")
def test_the_policy_of_the_docs_runs_by_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "my_policy.py"
    file.write_text(documented_policy())
    times = "simdep simulate --stage-times attention=9,shared=1,a2e=1,expert=5,e2a=1 --r1 3 --json"
    assert run(times, "--policy", f"{file}:backwards") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["schedule"] == "backwards r1=3"
    assert result["critical_path"][0] == "A[0.2]"
    assert run(times, "--policy", f"{file}:backwards") == 0  # a second time, as in one session
    capsys.readouterr()
    scenario = "--model deepseek-v2-lite --hardware a6000 --ag 1 --eg 1 --layers 1 --r1 2 --json"
    assert run(f"simdep simulate {scenario}", "--policy", f"{file}:backwards") == 0
    assert json.loads(capsys.readouterr().out)["schedule"] == "backwards r1=2"


@pytest.mark.usefixtures("registry")
def test_a_scenario_file_runs_no_module(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    deployment = {"hardware": "a6000", "ag": 1, "eg": 1}
    data = {
        "model": "deepseek-v2-lite",
        "deployment": deployment,
        "schedule": {"policy": f"{tmp_path}/evil.py:x"},
    }
    with pytest.raises(ValueError, match="unknown policy"):
        schedule_for(Scenario.from_dict(data))


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (None, "x", "there is no file"),
        ("x = 1\n", "x", "registers no policy 'x'"),
        (
            "import nothing_of_that_name\n",
            "x",
            "does not run: ModuleNotFoundError: No module named 'nothing_of_that",
        ),
        ("def f(:\n", "x", "does not run: SyntaxError"),
    ],
)
def test_a_module_without_the_policy_is_refused(
    text: str | None, name: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_policy(f"{file}:{name}")


@pytest.mark.usefixtures("registry")
def test_what_is_registered_is_checked() -> None:
    def bare(job: Job) -> Schedule:
        return find("naive").schedule(job)

    def told(job: Job) -> Schedule:
        """One line."""
        return find("naive").schedule(job)

    with pytest.raises(ValueError, match="policy bare has no docstring"):
        register(source="test")(bare)
    with pytest.raises(ValueError, match="unknown parameter 'r3'"):
        register(source="test", parameters=("r3",))
    with pytest.raises(
        ValueError, match=r"policy naive exists already, from simdep\.policies\.disaggregated"
    ):
        register(source="test", name="naive")(told)
    register(source="test", name="mine")(told)
    assert (POLICIES["mine"].summary, POLICIES["mine"].source) == ("One line.", "test")


def test_the_policies_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("simdep policies --json") == 0
    listed = json.loads(capsys.readouterr().out)["policies"]
    assert {each["policy"] for each in listed} == set(BUILTIN)
    assert all(each["summary"] and each["source"] for each in listed)
    assert run("simdep policies") == 0
    shown = capsys.readouterr().out
    assert all(f"\n{name} " in shown for name in BUILTIN)


@pytest.mark.parametrize("name", BUILTIN)
def test_every_policy_shows_a_small_schedule(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"simdep policies {name} --json") == 0
    example = Schedule.from_dict(json.loads(capsys.readouterr().out)["example"])
    assert example.layers == 2
    assert ("GPU" in example.streams) == POLICIES[name].colocated


def test_an_unknown_policy_is_refused_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("simdep policies pppip") == 2
    one_sentence(capsys, "unknown policy 'pppip'; did you mean 'pppipe'?")
