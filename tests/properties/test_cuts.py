"""Granularity beyond the paper: uneven micro-batches and chunks, groups of experts, a last layer
that is not cut."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli import one_sentence, run
from hypothesis import given
from hypothesis import strategies as st
from strategies import policy_schedules

from simdep.hardware.profile import load_hardware
from simdep.policies import schedule_for, share_out
from simdep.scenario.fields import override
from simdep.scenario.models import load_model
from simdep.scenario.spec import Deployment, Scenario, Workload
from simdep.scenario.task_costs import ScenarioCosts
from simdep.schedule import Kind, Schedule
from simdep.simulation.engine import simulate_schedule, simulated_makespan_us
from simdep.traces.export import save_timelines
from simdep.traces.perfetto import chrome_trace
from simdep.traces.table import read_timeline


def asked(schedule: dict[str, Any], **workload: Any) -> Scenario:
    """DeepSeek-V2 on 4+4 A6000, 2 layers, samples of 100 tokens."""
    data = {
        "model": "deepseek-v2",
        "layers": 2,
        "deployment": {"hardware": "a6000", "ag": 4, "eg": 4},
        "workload": {"seq_len": 100, **workload},
        "schedule": schedule,
    }
    return Scenario.from_dict(data)


def sizes(schedule: Schedule, kind: Kind = Kind.EXPERT, layer: int = 0) -> list[list[int]]:
    """Tokens of the tasks of a kind in a layer, micro-batch by micro-batch."""
    found: dict[int, list[int]] = {}
    for task in schedule:
        if task.kind is kind and task.layer == layer:
            found.setdefault(task.mb, []).append(task.tokens)
    return [found[mb] for mb in sorted(found)]


# Shares


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(0, 300))
def test_shares_hold_all_tokens_in_proportion(shares: list[int], more: int) -> None:
    """The chunks add up, each within a token of its share; shares that add up to the tokens are
    these."""
    tokens = sum(shares) + more
    chunks = share_out(tokens, shares)
    assert sum(chunks) == tokens
    assert all(
        abs(chunk - tokens * share / sum(shares)) < 1
        for chunk, share in zip(chunks, shares, strict=True)
    )
    assert share_out(sum(shares), shares) == tuple(shares)


def test_a_chunk_without_a_token_is_refused() -> None:
    with pytest.raises(ValueError) as error:
        share_out(10, (1, 99))
    assert str(error.value) == "chunks=1,99: of 10 tokens, chunk 0 gets none; use larger shares"


# Scenarios


def test_micro_batches_hold_their_samples() -> None:
    scenario = asked({"micro_batches": [3, 1]})
    assert (scenario.r1, scenario.workload.samples, scenario.m_a, scenario.tokens) == (2, 4, 3, 300)
    schedule = schedule_for(scenario)
    assert (
        sizes(schedule, Kind.ATTENTION)
        == sizes(schedule, Kind.SHARED)
        == sizes(schedule)
        == [[300], [100]]
    )
    assert schedule.tokens == 400


def test_chunks_are_shares_of_each_micro_batch() -> None:
    scenario = asked({"r1": 2, "chunks": [[1, 3], [2, 1, 1]]}, m_a=2)
    assert scenario.r2 == 3
    assert sizes(schedule_for(scenario)) == [[50, 150], [100, 50, 50]]


def test_one_list_of_chunks_stands_for_every_micro_batch() -> None:
    assert sizes(schedule_for(asked({"micro_batches": "2,1", "chunks": [1, 4]}))) == [
        [40, 160],
        [20, 80],
    ]


def test_r2_may_differ_between_micro_batches() -> None:
    schedule = schedule_for(asked({"r1": 2, "chunks": "1,1,1,1/1,1"}))
    assert sizes(schedule) == [[25] * 4, [50] * 2]
    assert schedule["A[1.1]"].after == ("E2A[0.1.0]", "E2A[0.1.1]", "S[0.1]")


def test_the_last_layer_may_be_left_uncut() -> None:
    schedule = schedule_for(asked({"r2": 4, "merge_last": True}))
    assert [sizes(schedule, layer=layer) for layer in (0, 1)] == [[[25] * 4], [[100]]]
    assert schedule.label == "findep ASAS r1=1 r2=4 last layer uncut"


def test_groups_of_experts_hold_all_tokens_of_the_micro_batch() -> None:
    schedule = schedule_for(asked({"r2": 4, "split": "expert"}))
    assert {(task.tokens, task.groups) for task in schedule if task.kind.is_chunked} == {(100, 4)}
    assert schedule.label == "findep ASAS r1=1 r2=4 by expert"


def test_what_is_not_regular_stands_in_the_label() -> None:
    label = schedule_for(asked({"micro_batches": [3, 1], "chunks": [[1, 3], [2, 2]]})).label
    assert label == "findep ASAS r1=2 r2=2 micro-batches 300,100 chunks 75,225;50,50"


@pytest.mark.parametrize(
    ("schedule", "workload", "message"),
    [
        ({"micro_batches": [3, 0]}, {}, "micro_batches=0; expected an integer >= 1"),
        ({"micro_batches": "3;1"}, {}, "micro_batches='3;1'; expected an integer >= 1"),
        (
            {"micro_batches": 4},
            {},
            "micro_batches=4; expected integers such as [3, 1]",
        ),
        (
            {"micro_batches": [3, 1], "r1": 3},
            {},
            "r1=3, but micro_batches lists 2; give one of them",
        ),
        (
            {"micro_batches": [3, 1]},
            {"samples": 5},
            "micro_batches=3,1; expected integers >= 1 that sum to the 5 samples of an AG GPU",
        ),
        (
            {"micro_batches": [3, 1]},
            {"m_a": 2},
            "m_a and micro_batches are both given; micro_batches lists the samples of each",
        ),
        ({"chunks": [[1, 3], [2, 2]]}, {}, "chunks are given for 2 micro-batches, not for r1=1"),
        ({"chunks": "1,x"}, {}, "chunks='x'; expected an integer >= 1"),
        (
            {"chunks": []},
            {},
            "chunks=[]; expected shares such as [1, 3] or [[1, 3], [2, 2]]",
        ),
        (
            {"chunks": [1, 3], "r2": 4},
            {},
            "r2=4, but chunks lists 2 for a micro-batch; give one of them",
        ),
        (
            {"chunks": [1, 3], "split": "expert"},
            {},
            'chunks and split="expert": groups of experts are equal; give r2 in place of chunks',
        ),
        ({"split": "layer"}, {}, "unknown split 'layer'; use expert, token"),
        ({"merge_last": 1}, {}, "merge_last=1; expected true or false"),
        (
            {"r2": 3, "split": "expert"},
            {},
            "r2=3 groups do not divide the 40 experts of a GPU; use 1, 2, 4, 5, 8, 10, 20, 40",
        ),
        (
            {"policy": "pppipe", "split": "expert"},
            {},
            "split='expert': policy pppipe cuts chunks by token",
        ),
        (
            {"policy": "naive", "merge_last": True},
            {},
            "merge_last: policy naive has no chunks of the last layer to merge; leave it out",
        ),
        (
            {"policy": "naive", "micro_batches": [1, 1]},
            {},
            "r1=2: policy naive has one micro-batch; use r1=1, or policy pppipe",
        ),
    ],
)
def test_a_cut_that_does_not_fit_is_refused(
    schedule: dict[str, Any], workload: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as error:
        schedule_for(asked(schedule, **workload))
    assert str(error.value) == message


def test_flags_take_the_place_of_what_they_contradict() -> None:
    file = {
        "deployment": {"ag": 3, "eg": 5},
        "workload": {"samples": 6},
        "schedule": {"r1": 3, "r2": 2},
    }
    assert override(file, {"micro_batches": "3,1"}) == {
        "deployment": {"ag": 3, "eg": 5},
        "workload": {},
        "schedule": {"r2": 2, "micro_batches": "3,1"},
    }
    assert override(file, {"chunks": "1,3"})["schedule"] == {"r1": 3, "chunks": "1,3"}
    assert override(file, {"gpus": 8})["deployment"] == {"gpus": 8}
    assert override(file, {"r1": 2, "micro_batches": "3,1"})["schedule"]["r1"] == 2


# Costs


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_groups_of_experts_share_out_work_and_bytes(groups: int) -> None:
    """On the paper's costs a group is its share of the experts, and of the bytes of a copy for each
    (token, expert)."""
    costs = ScenarioCosts(asked({"r2": groups, "split": "expert"}))
    assert groups * costs.expert(100, groups) == pytest.approx(costs.expert(100))
    assert groups * costs.transfer_bytes(100, groups=groups) == pytest.approx(
        costs.transfer_bytes(100)
    )


def test_a_token_for_two_groups_of_a_gpu_travels_twice() -> None:
    base = asked({"r2": 4, "split": "expert"})
    costs = ScenarioCosts(replace(base, deployment=replace(base.deployment, dispatch="per-gpu")))
    all_groups = 4 * costs.transfer_bytes(100, groups=4)
    copies = ScenarioCosts(base).transfer_bytes(100)
    assert costs.transfer_bytes(100) < all_groups < copies


def test_weights_are_read_once_where_chunks_are_cut_by_expert() -> None:
    """Decode on H100 is bound by weights: four chunks by token read them four times, four groups of
    experts once."""
    where = Deployment(4, 4, load_hardware("h100"))
    scenario = Scenario(load_model("qwen3-235b-a22b"), where, Workload("decode", 1024, 64), 2, r2=4)
    by_token, by_expert = ScenarioCosts(scenario), ScenarioCosts(replace(scenario, split="expert"))
    assert 4 * by_token.expert(16) > 2 * by_expert.expert(64)
    assert 4 * by_expert.expert(64, groups=4) < 1.5 * by_expert.expert(64)


# Every path


def test_an_uneven_cut_is_simulated_by_its_sizes() -> None:
    """One micro-batch, one layer, chunks of 1 and 3 parts, a link that decides: the second E2A ends
    last."""
    schedule = schedule_for(replace(asked({"chunks": [1, 3]}), layers=1))
    per_token = {Kind.A2E: 2, Kind.EXPERT: 1, Kind.E2A: 2}

    def us(task: Any) -> int:
        return int(per_token.get(task.kind, 0) * task.tokens)

    assert (
        simulated_makespan_us(schedule, us) == 2 * 25 + 2 * 75 + 75 + 2 * 75
    )  # both A2E, then the long chunk alone


@given(policy_schedules())
def test_every_token_passes_every_stage_of_every_layer_once(schedule: Schedule) -> None:
    """Chunks by token add up to the micro-batch, groups of experts are all there once with all its
    tokens."""
    whole = {task.mb: task.tokens for task in schedule if task.kind.opens_layer}
    for layer in range(schedule.layers):
        for mb, tokens in whole.items():
            here = [task for task in schedule if (task.layer, task.mb) == (layer, mb)]
            halves = Counter(task.kind for task in here if not task.kind.is_chunked)
            assert halves[Kind.ATTENTION] + halves[Kind.PROJECTION] == 1
            assert halves[Kind.CORE] == halves[Kind.PROJECTION]
            for kind in (Kind.A2E, Kind.EXPERT, Kind.E2A):
                chunks = [task for task in here if task.kind is kind]
                assert sorted(task.chunk or 0 for task in chunks) == list(range(len(chunks)))
                assert sum(task.tokens / task.groups for task in chunks) == pytest.approx(tokens)
                assert {task.groups for task in chunks} <= {1, len(chunks)}


@given(policy_schedules())
def test_every_task_comes_after_the_data_that_it_needs(schedule: Schedule) -> None:
    """By dependencies and streams: attention, dispatch, experts, combine, and all of it before the
    next layer."""
    before: dict[str, set[str]] = {}
    for task in schedule.in_order:
        direct = schedule.predecessors[task.name]
        before[task.name] = set(direct).union(*(before[name] for name in direct))
    for task in schedule:
        same = {t.name for t in schedule if (t.layer, t.mb) == (task.layer, task.mb)}
        last = {t.name for t in schedule if (t.layer, t.mb) == (task.layer - 1, task.mb)}
        chunks = {t.name for t in schedule if t.name in same and t.kind is Kind.A2E}
        if task.kind.opens_layer:
            assert last <= before[task.name]
        elif task.kind is Kind.EXPERT:
            own = {f"A2E[{task.layer}.{task.mb}.{task.chunk}]"}
            assert (own if own <= chunks else chunks) <= before[task.name]
        elif task.kind is Kind.E2A:
            assert f"E[{task.layer}.{task.mb}.{task.chunk}]" in before[task.name]
        else:
            assert {name for name in same if name[0] in "P" or name.startswith("A[")} <= before[
                task.name
            ]


@given(policy_schedules())
def test_a_trace_of_every_policy_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, schedule: Schedule
) -> None:
    """As a table, and as Chrome JSON with a slice for every task."""
    timeline = simulate_schedule(schedule, lambda task: task.tokens)
    path = tmp_path_factory.mktemp("trace") / "t.csv"
    save_timelines(path, timeline)
    assert read_timeline(path, schedule, "sim").rows.equals(timeline.rows)
    slices = [event for event in chrome_trace(timeline)["traceEvents"] if event["ph"] == "X"]
    assert sorted(each["name"] for each in slices) == sorted(task.name for task in schedule)


# Commands

SIMULATE = (
    "simdep simulate --model deepseek-v2 --hardware a6000 --ag 4 --eg 4 --layers 2 --seq-len 100"
)


def test_a_cut_is_written_in_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(SIMULATE, "--micro-batches", "3,1", "--chunks", "1,3/2,2", "--merge-last", "--json")
        == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert (
        result["schedule"]
        == "findep ASAS r1=2 r2=2 micro-batches 300,100 chunks 75,225;50,50 last layer uncut"
    )


def test_a_scenario_file_holds_a_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cut.toml"
    file.write_text(
        'model = "deepseek-v2"\nlayers = 2\n[deployment]\nhardware = "a6000"\nag = 4\neg = 4\n'
        "[workload]\nseq_len = 100\n[schedule]\nmicro_batches = [3, 1]\nchunks = [[1, 3], [2, 2]]\n"
    )
    assert run(f"simdep simulate {file}") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("findep ASAS r1=2 r2=2 micro-batches 300,100 chunks 75,225;50,50: ")
    assert run(f"simdep simulate {file}", "--split", "expert", "--r2", "4", "--json") == 0
    assert json.loads(capsys.readouterr().out)["schedule"].endswith(
        "r1=2 r2=4 micro-batches 300,100 by expert"
    )


def test_an_uneven_schedule_is_saved_and_simulated_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.json"
    assert (
        run(SIMULATE, "--micro-batches", "3,1", "--r2", "2", "--save-schedule", str(file), "--json")
        == 0
    )
    first = json.loads(capsys.readouterr().out)
    assert run(SIMULATE, "--m-a", "4", "--schedule", str(file), "--json") == 0
    assert json.loads(capsys.readouterr().out) == first


def test_stage_times_say_nothing_of_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    times = "simdep simulate --stage-times attention=1,a2e=1,expert=1,e2a=1"
    assert run(times, "--chunks", "1,3") == 2
    one_sentence(capsys, "--chunks: --stage-times say nothing of sizes; give a model and hardware")
