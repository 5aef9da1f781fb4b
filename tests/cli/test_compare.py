"""Policies side by side: what `simdep compare` prints is what each of them gives alone, on as many
GPUs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cli import one_sentence, run

from simdep.analysis.metrics import timeline_summary
from simdep.hardware.extrapolation import Extrapolation, assumption_sentences
from simdep.planning.choice import Choice, simulate_choice
from simdep.planning.problem import Problem
from simdep.planning.solver import solve
from simdep.policies import POLICIES, schedule_for
from simdep.prediction import simulate
from simdep.scenario.spec import Scenario
from simdep.scenario.task_costs import ScenarioCosts
from simdep.schedule import Kind
from simdep.simulation.engine import simulate_schedule

FLAGS = "--model deepseek-v2-lite --hardware h20 --ag 3 --eg 5 --layers 3 --seq-len 256 --samples 8"
POLICY_OF_A_USER = '''
from simdep.policies import in_every_layer, on_groups, parse_order, register


@register(source="mine", parameters=("r1",))
def backwards(job):
    """Ping-pong pipeline that starts with the last micro-batch."""
    steps = parse_order("ASAS", job.r1)
    turned = tuple((kind, job.r1 - 1 - mb) for kind, mb in steps)
    streams = in_every_layer(turned, job.layers)
    return on_groups(job, job.label("backwards", "r1"), streams, wait_for_shared=True)
'''


def scenario(**schedule: Any) -> Scenario:
    data = {
        "model": "deepseek-v2-lite",
        "layers": 3,
        "deployment": {"hardware": "h20", "ag": 3, "eg": 5},
    }
    return Scenario.from_dict(
        data | {"workload": {"seq_len": 256, "samples": 8}, "schedule": schedule}
    )


def compared(words: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    assert run(f"simdep compare {words} --json") == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["policies"]
    return rows


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("findep", Choice("findep")),
        ("findep:r1=2,r2=4,order=aass", Choice("findep", "aass", 2, 4)),
        ("findep: order = A0 A1 S0 S1 , r1 = 2", Choice("findep", "A0 A1 S0 S1", 2)),
        ("pppipe:r1=3", Choice("pppipe", None, 3)),
    ],
)
def test_a_policy_carries_its_degrees(text: str, choice: Choice) -> None:
    assert Choice.parse(text) == choice
    assert Choice.parse(str(choice)) == choice


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("findepp", "unknown policy 'findepp'; did you mean 'findep'?"),
        ("findep:r3=2", "unknown parameter in policy 'findep:r3=2': 'r3'"),
        ("findep:r1", "policy 'findep:r1': write each parameter once, as r1=VALUE"),
        ("findep:r1=2,r1=3", "write each parameter once, as r1=VALUE"),
        ("findep:r1=two", "r1='two'; expected an integer >= 1"),
        ("findep:r1=0", "r1=0; expected an integer >= 1"),
    ],
)
def test_a_policy_that_says_nothing_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError) as error:
        Choice.parse(text)
    assert complaint in str(error.value)


def test_degrees_that_are_not_given_are_those_of_the_scenario_where_the_policy_has_them() -> None:
    base = scenario(r1=2, r2=4, order="aass")
    cuts = {
        word: Choice.parse(word).of(base).scenario
        for word in ("findep", "pppipe", "naive", "findep:r2=1")
    }
    assert {word: (s.order.upper(), s.r1, s.r2) for word, s in cuts.items()} == {
        "findep": ("AASS", 2, 4),
        "pppipe": ("ASAS", 2, 1),
        "naive": ("ASAS", 1, 1),
        "findep:r2=1": ("AASS", 2, 1),
    }
    assert {s.workload.samples for s in cuts.values()} == {8}


def test_an_r1_that_does_not_divide_the_samples_is_refused_rather_than_the_work_changed() -> None:
    with pytest.raises(ValueError, match="r1=3 does not divide the 8 samples"):
        Choice("findep", r1=3).of(scenario())


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_a_prediction_is_what_the_engine_gives(policy: str) -> None:
    """Every row of the timeline, to the last bit, in the same order."""
    found = simulate_choice(Choice(policy), scenario(r1=2, r2=2))
    costs = ScenarioCosts(found.scenario)
    expected = simulate_schedule(schedule_for(found.scenario), costs, costs.host)
    assert found.timeline.equals(expected.rows)
    told = timeline_summary(expected, expected.schedule.tokens * found.scenario.deployment.ag)
    row = found.results
    assert row["throughput_tokens_per_s"] == told["throughput_tokens_per_s"]
    assert row["exposed_communication_us"] == told["exposed_communication_us"]


def test_every_distinct_task_is_estimated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention of the first layer and of the later ones, S, A2E, E and E2A."""
    asked: list[Kind] = []
    costs = ScenarioCosts(scenario(policy="findep", r1=4, r2=4))
    monkeypatch.setattr(costs, "us", lambda kind, *work: asked.append(kind) or 1.0)
    assert {costs(task) for task in schedule_for(costs.scenario)} == {1.0}
    assert Counter(asked) == {
        Kind.ATTENTION: 2,
        Kind.SHARED: 1,
        Kind.A2E: 1,
        Kind.EXPERT: 1,
        Kind.E2A: 1,
    }


def test_extrapolations_of_one_attribute_become_one_sentence() -> None:
    uses = [
        Extrapolation("gemm", name, value, 1, 64, "source")
        for name, value in (("m", 100.0), ("m", 70.0), ("n", 9e1))
    ]
    where = " is out of the measured range 1 to 64 (source)"
    assert assumption_sentences([uses[0], "other", *uses, "other"]) == [
        "gemm: m=70 to 100" + where,
        "other",
        "gemm: n=90" + where,
    ]


def test_policies_stand_side_by_side_with_what_each_gives_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = compared(f"naive pppipe:r1=2 findep:r1=2,r2=4,order=aass {FLAGS}", capsys)
    alone = [
        simulate(scenario(policy="naive")),
        simulate(scenario(policy="pppipe", r1=2)),
        simulate(scenario(policy="findep", r1=2, r2=4, order="aass")),
    ]
    for row, expected in zip(rows, alone, strict=True):
        assert {name: row[name] for name in expected.results} == expected.results
        assert row["gpus"] == "3+5"
        assert row["speedup"] == pytest.approx(alone[0].makespan_us / expected.makespan_us)
        assert row["memory_fits"]


def test_colocated_policies_stand_in_the_same_table_on_as_many_gpus(
    capsys: pytest.CaptureFixture[str],
) -> None:
    groups, together = compared(f"findep:r1=2 ep {FLAGS}", capsys)
    assert (groups["gpus"], together["gpus"]) == ("3+5", "8")
    assert together["changes"] == ["3+5 GPUs became 8 colocated GPUs"]
    assert (groups["samples_per_ag_gpu"], together["samples_per_ag_gpu"]) == (8, 3)
    expected = together["throughput_tokens_per_s"] / groups["throughput_tokens_per_s"]
    assert together["speedup"] == expected
    assert together["ag_bubble_pct"] == together["eg_bubble_pct"]


def test_the_scenario_may_be_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text(
        'model = "deepseek-v2-lite"\nlayers = 3\n[deployment]\nhardware = "h20"\nag = 3\neg = 5\n'
        "[workload]\nseq_len = 256\nsamples = 8\n[schedule]\nr1 = 4\nr2 = 2\n"
    )
    rows = compared(f"naive findep {file}", capsys)
    assert [row["schedule"] for row in rows] == ["naive", "findep ASAS r1=4 r2=2"]
    assert rows == compared(f"naive findep {FLAGS} --r1 4 --r2 2", capsys)


def test_best_is_what_the_solver_finds(capsys: pytest.CaptureFixture[str]) -> None:
    _, best = compared(f"naive best {FLAGS}", capsys)
    found = solve(Problem.of(scenario(), 8))
    assert best["makespan_us"] == pytest.approx(found.best.makespan_us, rel=1e-9)
    assert (best["r1"], best["r2"], best["policy"]) == (
        found.best.r1,
        found.best.r2,
        found.best.policy,
    )
    assert best["speedup"] > 1


def test_memory_that_is_missing_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = compared(f"naive {FLAGS} --memory-gbytes 0.1", capsys)
    assert not row["memory_fits"]
    assert row["memory_missing_bytes"] > 0
    assert run(f"simdep compare naive {FLAGS} --memory-gbytes 0.1") == 0
    assert " missing" in capsys.readouterr().out


def test_a_policy_of_a_users_own_takes_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = tmp_path / "mine.py"
    module.write_text(POLICY_OF_A_USER)
    try:
        rows = compared(f"pppipe:r1=2 {module}:backwards:r1=2 {FLAGS}", capsys)
    finally:
        POLICIES.pop("backwards", None)
    assert [row["schedule"] for row in rows] == ["pppipe r1=2", "backwards r1=2"]
    assert rows[0]["makespan_us"] == rows[1]["makespan_us"]  # micro-batches are alike


def test_stage_times_alone_are_compared_by_their_makespans(
    capsys: pytest.CaptureFixture[str],
) -> None:
    times = "--stage-times attention=4,a2e=1,expert=2,e2a=1 --layers 2 --r1 2 --json"
    rows = {}
    for row in compared(f"naive findep {times}", capsys):
        rows[row["policy"]] = row
    assert run(f"simdep simulate --policy findep {times}") == 0
    alone = json.loads(capsys.readouterr().out)
    assert rows["findep"]["makespan_us"] == alone["makespan_us"]
    unknown = [rows["naive"][key] for key in ("gpus", "memory", "memory_fits", "speedup")]
    assert unknown == [None] * 4


def test_the_table_is_readable_and_notes_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"simdep compare naive ep {FLAGS}") == 0
    said = capsys.readouterr()
    assert said.out.startswith(
        "Simulated. Speed-up is that of the throughput over the first policy."
    )
    assert "ep: 3+5 GPUs became 8 colocated GPUs" in said.out
    assert "simdep: note: " in said.err
    assert "makespan (us)" in said.out


def test_the_page_has_the_table_and_the_timelines_under_each_other(tmp_path: Path) -> None:
    page = tmp_path / "compare.html"
    assert run(f"simdep compare naive pppipe:r1=2 {FLAGS} --html {page}") == 0
    text = page.read_text()
    assert "<h2>Policies side by side</h2>" in text
    assert text.index("<h2>naive, simulated</h2>") < text.index("<h2>pppipe r1=2, simulated</h2>")
    assert text.count("Plotly.newPlot(") == 2


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("naive", "nothing to compare: give SCENARIO.toml, or --model"),
        (f"nave {FLAGS}", "nave: unknown policy 'nave'; did you mean 'naive'?"),
        (f"naive:r1=2 {FLAGS}", "naive:r1=2: r1=2: policy naive has one micro-batch"),
        (f"pppipe:r1=3 {FLAGS}", "pppipe:r1=3: r1=3 does not divide the 8 samples of an AG GPU"),
        (
            f"naive {FLAGS} --policy findep",
            "--policy findep: compare names its policies first; leave it out",
        ),
        ("scenario.toml", "nothing to compare: name one policy or more"),
    ],
)
def test_a_bad_command_is_told_in_one_sentence(
    words: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(f"simdep compare {words}") == 2
    one_sentence(capsys, complaint)


def test_a_scenario_with_ranks_is_predicted_rank_by_rank() -> None:
    """64 balanced experts on 4 GPUs are 16 each: every rank is the group."""
    data = {
        "model": "deepseek-v2-lite",
        "layers": 3,
        "deployment": {"hardware": "h20", "ag": 2, "eg": 4},
        "workload": {"seq_len": 256, "samples": 8},
        "schedule": {"r1": 2, "r2": 2},
    }
    ranks, group = (
        simulate(Scenario.from_dict(data | more))
        for more in ({"ranks": {"routing": "balanced"}}, {})
    )
    assert ranks.tokens == group.tokens
    assert ranks.makespan_us == pytest.approx(group.makespan_us, rel=1e-9)
    assert ranks.timeline["rank"].max() == 3
