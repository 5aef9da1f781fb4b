"""Sweeps: every point as the engine has it, points without an answer told, a table that goes on
where it was left."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cli import one_sentence, run

from simdep.planning.axes import Axis
from simdep.planning.problem import Problem
from simdep.planning.solver import solve
from simdep.planning.sweep import Sweep
from simdep.planning.sweep_rows import prediction_row, sweep_rows
from simdep.policies import schedule_for
from simdep.prediction import Prediction, simulate
from simdep.scenario.spec import Scenario
from simdep.scenario.task_costs import ScenarioCosts
from simdep.simulation.engine import simulated_makespan_us

BASE: dict[str, Any] = {
    "model": "deepseek-v2-lite",
    "layers": 3,
    "deployment": {"hardware": "h20", "ag": 3, "eg": 5},
    "workload": {"seq_len": 256, "samples": 4},
    "schedule": {"r1": 2, "r2": 2},
}
FLAGS = "--model deepseek-v2-lite --hardware h20 --ag 3 --eg 5 --layers 2 --seq-len 256 --samples 4"


def sweep(*texts: str, **changes: Any) -> Sweep:
    return Sweep(BASE | changes, tuple(map(Axis.parse, texts)))


def rows_of(asked: Sweep, points: Any = None) -> list[dict[str, Any]]:
    return [row for block in sweep_rows(asked, points) for row in block]


def differing(row: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """The columns whose values differ: numbers by more than 1e-9 of them."""
    return [name for name, value in expected.items() if not _same(row[name], value)]


def _same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == pytest.approx(other, rel=1e-9)
    return one == other


def by_engine(scenario: Scenario) -> float:
    """The reference: one event after the other."""
    costs = ScenarioCosts(scenario)
    return simulated_makespan_us(schedule_for(scenario), costs, costs.host)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("r1=1,2,4", (1, 2, 4)),
        ("ag=1..4", (1, 2, 3, 4)),
        ("r2=1..9:4", (1, 5, 9)),
        ("seq_len=log:128..2048:5", (128, 256, 512, 1024, 2048)),
        ("link.alpha_us=lin:0..10:3", (0.0, 5.0, 10.0)),
        ("link.gbytes_per_s=log:10..1000:3", (10.0, 100.0, 1000.0)),
        ("order=asas,A0 A1 S1 S0", ("asas", "A0 A1 S1 S0")),
        ("ag:eg=1:7,4:4", ("1:7", "4:4")),
        ("ag:eg=1:3..3:1", ("1:3", "2:2", "3:1")),
        ("scale=0.25,0.5", (0.25, 0.5)),
    ],
)
def test_values_are_lists_or_ranges(text: str, values: tuple[Any, ...]) -> None:
    assert Axis.parse(text).values == values


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("seqlen=1,2", "unknown parameter to vary 'seqlen'; did you mean 'seq_len'?"),
        ("r1", "--vary 'r1': write NAME=VALUES"),
        ("r1=", "--vary 'r1=': write NAME=VALUES"),
        ("r1=1,x", "--vary r1='x'; expected an integer"),
        ("r1=1,1", "--vary 'r1=1,1': a value appears twice"),
        ("r1=4..1", "'4..1' runs from its smaller end to its larger"),
        ("r1=1..4:0", "has a step of 0"),
        ("scale=0.1..0.5", "say how many, at least 2, as lin:0.1..0.5:9"),
        ("link.alpha_us=lin:0..5", "say how many, at least 2, as lin:0..5:9"),
        (
            "link.alpha_us=log:0..5:3",
            "'log:0..5:3' runs from its smaller end, above 0, to its larger",
        ),
        ("scale=nan", "--vary scale=nan; expected a finite number"),
        ("ag:eg=8", "'8' is no split; write AG:EG, such as 3:5"),
        ("ag:eg=1:7..4:5", "the first and the last split of as many GPUs"),
        ("order=asas,", "--vary order: a value is empty"),
    ],
)
def test_values_that_say_nothing_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError) as error:
        Axis.parse(text)
    assert complaint in str(error.value)


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        (("r1=1", "r1=2"), "--vary r1 is given twice"),
        (("ag:eg=1:1", "ag=2"), "--vary ag:eg and --vary ag contradict each other"),
        (("m_a=1", "samples=2"), "--vary m_a and --vary samples contradict each other"),
        (("seq_len=1..100000", "r1=1..100"), "10,000,000 points; a sweep has at most 1,000,000"),
    ],
)
def test_axes_that_contradict_each_other_are_refused(
    texts: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(ValueError) as error:
        sweep(*texts)
    assert complaint in str(error.value)


def test_the_last_axis_varies_fastest() -> None:
    assert [
        (row["r1"], row["seq_len_tokens"]) for row in rows_of(sweep("r1=1,2", "seq_len=64,128"))
    ] == [(1, 64), (1, 128), (2, 64), (2, 128)]


WIDE = (
    (
        "seq_len=100,256,777",
        "m_a=1..6",
        "r1=1..3",
        "r2=1,2,3,7",
        "order=asas,aass",
        "link.gbytes_per_s=log:1..400:4",
    ),
    (
        "ag:eg=1:7..7:1",
        "m_a=1,3",
        "r1=1,2",
        "r2=1..4",
        "policy=findep,pppipe,naive",
        "dtype=bf16,fp8",
    ),
    (
        "model=qwen3-30b-a3b,gpt-oss-120b,glm-4.5",
        "hardware=h100,a100",
        "phase=prefill,decode",
        "layers=1,2,5",
        "m_a=2,9",
        "r1=1,2,4",
        "r2=1,2",
        "seq_len=64,300",
    ),
)


@pytest.mark.parametrize("number", range(len(WIDE)))
def test_every_point_is_what_the_engine_gives(number: int) -> None:
    """Up to 700 points of each of 3 sweeps, drawn at random; a reason is the engine's too."""
    asked = sweep(*WIDE[number], workload={"seq_len": 256})
    rows = rows_of(asked)
    points = list(asked.points())
    assert len(rows) == len(asked)
    for at in random.Random(number).sample(range(len(rows)), min(700, len(rows))):
        try:
            expected = by_engine(asked.scenario(points[at]))
        except ValueError as error:
            assert rows[at]["reason"] == str(error)
        else:
            assert rows[at]["makespan_us"] == pytest.approx(expected, rel=1e-9)


def test_a_point_has_the_same_numbers_alone_and_among_others() -> None:
    asked = sweep("r1=1,2,4", "r2=1,3", "model=deepseek-v2-lite,gpt-oss-120b")
    for point, row in zip(asked.points(), rows_of(asked), strict=True):
        alone = prediction_row(simulate(asked.scenario(point)))
        assert not differing(row, alone)


@pytest.mark.parametrize(
    "texts",
    [
        ("order=asas,lookahead", "r1=1,2,4", "r2=1,3"),
        ("dispatch=per-expert,per-gpu,broadcast", "a2e_dtype=fp8,bf16", "e2a_dtype=fp8,bf16"),
        ("comm_sms=0,8", "expert_gemm=grouped,plain,cheaper", "dtype=bf16,fp8"),
        ("memory_gbytes=1,10", "layers=1,2,5", "model=deepseek-v2-lite,gpt-oss-120b"),
        ("contention=0,0.1", "link.alpha_us=1,5", "link.gbytes_per_s=20,40"),
        ("hardware=h20,h100,epyc-2-cores", "phase=prefill,decode", "scale=0.25,0.5"),
    ],
)
def test_points_that_share_costs_have_only_those_that_are_theirs(texts: tuple[str, ...]) -> None:
    """Every field that a cost depends on tells two points apart."""
    asked = sweep(*texts, schedule={"r2": 2})
    rows = rows_of(asked)
    for point, row in zip(asked.points(), rows, strict=True):
        try:
            expected = prediction_row(simulate(asked.scenario(point)))
        except ValueError as error:
            assert row["reason"] == str(error)
        else:
            assert not differing(row, expected)
    assert len({str(list(row.values())[len(texts) :]) for row in rows}) > len(rows) / 2


@pytest.mark.parametrize(
    "texts",
    [
        ("policy=ep,eps-moe,two-batch-prefill,findep",),
        ("shared_on=ag,eg", "r2=1,2"),
        ("duplex=full,half", "r2=1,2"),
        ("routing=balanced,zipf:1.2", "r2=1,2"),
        ("gpus=4,8", "policy=ep,chunked"),
    ],
)
def test_what_is_not_regular_is_simulated_on_its_own(texts: tuple[str, ...]) -> None:
    asked = sweep(*texts)
    rows = rows_of(asked)
    assert [row.get("reason") for row in rows] == [None] * len(rows)
    expected = [simulate(asked.scenario(point)).makespan_us for point in asked.points()]
    assert [row["makespan_us"] for row in rows] == pytest.approx(expected, rel=1e-9)
    assert len(set(expected)) > 1


def test_a_row_names_its_policy_and_its_schedule() -> None:
    asked = sweep("policy=naive,findep,ep", schedule={"r1": 2, "r2": 3})
    rows = rows_of(asked)
    assert [row["policy"] for row in rows] == ["naive", "findep", "ep"]
    assert [row["schedule"] for row in rows] == ["naive", "findep ASAS r1=2 r2=3", "ep"]


def test_a_split_keeps_the_number_of_gpus() -> None:
    asked = sweep("ag:eg=1:7..7:1")
    assert {asked.scenario(point).deployment.gpus for point in asked.points()} == {8}


def test_columns_say_their_units() -> None:
    (row,) = rows_of(
        sweep("seq_len=128", "link.gbytes_per_s=10", "link.alpha_us=2", "ag=2", "samples=2")
    )
    assert list(row)[:5] == [
        "seq_len_tokens",
        "link_gbytes_per_s",
        "link_alpha_us",
        "ag_gpus",
        "samples_per_ag_gpu",
    ]
    assert {
        "makespan_us",
        "throughput_tokens_per_s",
        "throughput_tokens_per_s_per_gpu",
        "ag_bubble_pct",
    } <= set(row)


def test_points_without_an_answer_are_rows_with_their_reason() -> None:
    rows = rows_of(sweep("r1=1,3", "eg=5,1000", "policy=naive"))
    assert [row.get("reason", "") for row in rows] == [
        "",
        "eg=1000: model deepseek-v2-lite has only 64 experts",
        "r1=3 does not divide the 4 samples of an AG GPU; use 1, 2 or 4",
        "r1=3 does not divide the 4 samples of an AG GPU; use 1, 2 or 4",
    ]


def test_a_sweep_takes_any_of_its_points() -> None:
    asked = sweep("r1=1,2,4", "r2=1..5")
    assert rows_of(asked, list(asked.points())[7:]) == rows_of(asked)[7:]


def test_solving_finds_the_best_cut_of_every_point() -> None:
    asked = Sweep(BASE, (Axis.parse("ag:eg=2:6,3:5"), Axis.parse("samples=2,4")), solve=True)
    for point, row in zip(asked.points(), rows_of(asked), strict=True):
        scenario = asked.scenario(point)
        found = solve(Problem.of(scenario, scenario.workload.samples))
        assert (row["r1"], row["r2"], row["order"]) == (
            found.best.r1,
            found.best.r2,
            found.best.order,
        )
        assert (row["makespan_us"], row["gap_pct"]) == (found.best.makespan_us, found.gap_pct)
        grid = rows_of(Sweep(asked.base | {"schedule": {}}, (*_points(point), *CUT)))
        assert row["makespan_us"] <= min(
            each["makespan_us"] for each in grid if "makespan_us" in each
        ) * (1 + 1e-9)


CUT = (Axis.parse("r1=1,2,4"), Axis.parse("r2=1..32"), Axis.parse("order=asas,aass"))


def _points(point: dict[str, Any]) -> list[Axis]:
    return [Axis(name, (value,)) for name, value in point.items()]


def test_what_does_not_fit_into_memory_is_a_row_of_a_solved_sweep() -> None:
    small = BASE | {"deployment": BASE["deployment"] | {"memory_gbytes": 1}}
    (row,) = rows_of(Sweep(small, (Axis.parse("samples=4"),), solve=True))
    assert row["reason"].startswith("no configuration of 4 samples fits 3+5 GPUs; a GPU of the ")
    (row,) = rows_of(Sweep(small, (Axis.parse("samples=4"),)))
    assert not row["memory_fits"]


def test_a_sweep_that_solves_chooses_the_cut_by_itself() -> None:
    with pytest.raises(ValueError, match="--solve chooses r1 by itself; do not vary it"):
        Sweep(BASE, (Axis.parse("r1=1,2"),), solve=True)


def test_the_command_prints_the_best_point_and_what_has_no_answer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(f"simdep sweep {FLAGS} --vary r1=1,2,3 --vary r2=1,2") == 0
    said = capsys.readouterr()
    assert said.out.startswith("6 of 6 points, simulated in")
    assert "Points without an answer: 2" in said.out
    assert "r1=3 does not divide the 4 samples" in said.out
    assert "Best by throughput_tokens_per_s_per_gpu" in said.out
    assert "simdep: note: " in said.err


def test_json_is_one_object_with_a_row_a_point(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"simdep sweep {FLAGS} --vary r1=1,2,3 --json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["points"], told["done"], told["vary"]) == (3, 3, {"r1": [1, 2, 3]})
    assert [row["r1"] for row in told["rows"]] == [1, 2, 3]
    assert "makespan_us" not in told["rows"][2]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_stopped_sweep_goes_on_where_it_was_left(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"simdep sweep {FLAGS} --vary r1=1,2,3 --vary r2=1..4 --json"
    assert run(words) == 0
    expected = json.loads(capsys.readouterr().out)["rows"]

    def interrupted(asked: Sweep, points: Any, notes: dict[str, None]) -> Any:
        yield rows_of(asked)[:5]
        raise KeyboardInterrupt

    out = tmp_path / f"table.{suffix}"
    with monkeypatch.context() as patch:
        patch.setattr("simdep.planning.sweep_rows.sweep_rows", interrupted)
        assert run(f"{words} --out {out}") == 130
    assert "stopped at 5 of 12 points; the same command goes on" in capsys.readouterr().err
    assert run(f"{words} --out {out}") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["taken_from_out"], told["done"]) == (5, 12)
    assert told["rows"] == expected
    read = pd.read_csv(out) if suffix == "csv" else pd.read_parquet(out)
    assert len(read) == 12
    assert list(read["reason"].dropna().unique()) == [
        "r1=3 does not divide the 4 samples of an AG GPU; use 1, 2 or 4"
    ]


def test_a_finished_sweep_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"simdep sweep {FLAGS} --vary r1=1,2 --json --out {tmp_path / 'table.csv'}"
    assert run(words) == 0
    first = json.loads(capsys.readouterr().out)["rows"]
    monkeypatch.setattr(
        "simdep.planning.sweep_rows.sweep_rows",
        lambda asked, points, notes: iter([[{"r1": 0}] * len(points)]),
    )
    assert run(words) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == first


@pytest.mark.parametrize("change", ["sorted", "cut", "edited"])
def test_a_table_that_was_changed_is_taken_by_its_points(
    change: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The points that are missing, or there twice, are computed; rows of other points are not."""
    out = tmp_path / "table.csv"
    words = f"simdep sweep {FLAGS} --vary r1=1,2 --vary r2=1,2 --json --out {out}"
    assert run(words) == 0
    first = json.loads(capsys.readouterr().out)["rows"]
    whole = out.read_bytes()
    table = pd.read_csv(out, dtype=str)
    changed = {
        "sorted": table.sort_values("makespan_us"),
        "cut": table.iloc[[3, 1]],
        "edited": pd.concat([table.iloc[[0, 2, 2]], table.iloc[[3]].assign(r1="7")]),
    }
    changed[change].to_csv(out, index=False)
    assert run(words) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert (result["rows"], out.read_bytes()) == (first, whole)
    assert result["taken_from_out"] == {"sorted": 4, "cut": 2, "edited": 1}[change]
    said = ["1 rows are of no point", "1 points have several rows", "first r1=2, r2=1"]
    assert all(text in printed.err for text in said) == (change == "edited")


def test_a_table_of_something_else_is_not_overwritten_unless_forced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "table.csv"
    out.write_text("mine\n")
    assert run(f"simdep sweep {FLAGS} --vary r1=1,2 --out {out}") == 2
    one_sentence(
        capsys, f"--out {out} holds something else; give another name, or --force to begin again"
    )
    assert out.read_text() == "mine\n"
    assert run(f"simdep sweep {FLAGS} --vary r1=1,2 --out {out} --force") == 0
    assert run(f"simdep sweep {FLAGS} --vary r1=1,4 --out {out}") == 2
    assert len(pd.read_csv(out)) == 2


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (f"{FLAGS}", "nothing varies: give --vary NAME=VALUES"),
        ("--vary r1=1", "nothing to sweep: give SCENARIO.toml, or --model"),
        (
            f"{FLAGS} --vary r1=1 --out table.txt",
            "--out table.txt: write a table as .csv or .parquet",
        ),
        (
            f"{FLAGS} --vary r1=1 --out nowhere/table.csv",
            "nowhere/table.csv: there is no folder nowhere",
        ),
        (f"{FLAGS} --vary r1=1 --value speed", "unknown column to plot 'speed'"),
        (f"{FLAGS} --vary r4=1", "unknown parameter to vary 'r4'"),
    ],
)
def test_a_bad_command_is_told_in_one_sentence(
    words: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(f"simdep sweep {words}") == 2
    one_sentence(capsys, complaint)


@pytest.mark.parametrize(
    ("vary", "kinds", "headings"),
    [
        ("--vary r1=1,2,4", ["scatter"], ["throughput_tokens_per_s_per_gpu"]),
        ("--vary r1=1,2,4 --vary r2=1,2,3", ["heatmap"], ["throughput_tokens_per_s_per_gpu"]),
        (
            "--vary policy=naive,findep --vary r2=1,2",
            ["scatter", "scatter"],
            ["throughput_tokens_per_s_per_gpu"],
        ),
        (
            "--vary r1=1,2,4 --vary r2=1,2,3 --vary ag=1,2",
            ["heatmap"] * 2,
            ["ag_gpus 1", "ag_gpus 2"],
        ),
        (
            "--vary r1=1,2,4 --vary r2=1,2,3 --vary eg=5,1000",
            ["heatmap"],
            ["eg_gpus 5", "eg_gpus 1000"],
        ),
    ],
)
def test_the_plot_suits_what_was_varied(
    vary: str, kinds: list[str], headings: list[str], tmp_path: Path
) -> None:
    page = tmp_path / "sweep.html"
    assert run(f"simdep sweep {FLAGS} {vary} --html {page}") == 0
    text = page.read_text()
    body = text[text.rindex("plotly.js v") :] if "plotly.js v" in text else text
    assert [body.count(f'"type":"{kind}"') >= kinds.count(kind) for kind in kinds] == [True] * len(
        kinds
    )
    for heading in headings:
        assert f"<h2>{heading}</h2>" in text


def test_progress_is_for_terminals(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"simdep sweep {FLAGS} --vary r1=1,2 --json") == 0
    assert "sweep:" not in capsys.readouterr().err


def test_ranks_that_differ_take_the_makespan_of_every_rank() -> None:
    asked = sweep("r2=1,2", ranks={"routing": "zipf:1.2"})
    rows = rows_of(asked)
    for point, row in zip(asked.points(), rows, strict=True):
        found: Prediction = simulate(asked.scenario(point))
        assert row["makespan_us"] == found.makespan_us
        assert found.timeline["rank"].max() > 0
