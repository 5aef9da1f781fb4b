"""`simdep solve`: bare problems and scenarios in, one JSON object or a table out, errors in one
sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli import one_sentence, run

from simdep.costs import StageCosts
from simdep.policies.lookahead import best_order, order_makespan
from simdep.simulation.stage_table import StageTable

COSTS = "attention=100+50,shared=30+20,expert=20+0.5,link=10+0.2"
SIZES = ["--layers", "6", "--samples", "6", "--tokens-per-sample", "8"]
SERVED = (
    "simdep solve --model deepseek-v2 --hardware h20 --layers 3 --seq-len 32 --max-r1 4 --max-r2 4"
)


def told(capsys: pytest.CaptureFixture[str], command: str, *more: str) -> Any:
    assert run(command, *more, "--json") == 0
    return json.loads(capsys.readouterr().out)


def times_of(costs: StageCosts, best: Any) -> str:
    """What `--stage-times` takes, of the cut that was found."""
    times = costs.times(best["m_a"], best["r2"])
    return ",".join(f"{name}={value!r}" for name, value in vars(times).items())


def test_a_bare_problem_is_solved_to_what_simulate_gives_for_its_best(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Policy, order, r1 and r2 are flags of `simdep simulate`, look-ahead orders included."""
    for shared in ("30+20", "200+90", "0+60"):
        text = f"attention=100+50,shared={shared},expert=20+6,link=10+5"
        found = told(capsys, "simdep solve", "--stage-costs", text, *SIZES)
        best = found["best"]
        costs = StageCosts.parse(text, tokens_per_sample=8)
        cut = ["--r1", str(best["r1"]), "--r2", str(best["r2"]), "--layers", "6"]
        order = ["--policy", best["policy"], "--order", best["order"]]
        run("simdep simulate --json", "--stage-times", times_of(costs, best), *cut, *order)
        assert json.loads(capsys.readouterr().out)["makespan_us"] == pytest.approx(
            found["makespan_us"], rel=1e-9
        )
        assert best["r1"] * best["m_a"] == 6
        assert best["m_e"] == best["m_a"] * 8 / best["r2"]


def test_the_json_has_what_the_interface_promises(capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, "simdep solve", "--stage-costs", COSTS, *SIZES)
    assert set(found) >= {
        "best",
        "makespan_us",
        "throughput_tokens_per_s",
        "lower_bound_us",
        "gap_pct",
        "evaluated",
        "solve_ms",
        "method",
        "runner_up",
    }
    assert found["method"] == "exact"
    assert found["lower_bound_us"] <= found["makespan_us"] == found["best"]["makespan_us"]
    assert all(found["makespan_us"] <= other["makespan_us"] for other in found["runner_up"])


def test_the_order_lookahead_is_a_word_that_simulate_takes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    costs = StageCosts.parse(COSTS, tokens_per_sample=8)
    times = costs.times(2, 2)
    flags = "--r1 3 --r2 2 --layers 6 --json"
    word = times_of(costs, {"m_a": 2, "r2": 2})
    spans = []
    for order in (
        "--order lookahead",
        "--policy lookahead",
        "--policy lookahead --order lookahead",
    ):
        assert run(f"simdep simulate {flags} {order}", "--stage-times", word) == 0
        spans.append(json.loads(capsys.readouterr().out)["makespan_us"])
    stages = StageTable.of([times], [2])
    assert spans == [pytest.approx(order_makespan(stages, best_order(stages, 6, 3), 3))] * 3


def test_a_file_says_the_same_as_the_flags(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """In TOML and in JSON; flags override its sizes."""
    lines = {"attention": (100, 50), "shared": (30, 20), "expert": (20, 0.5), "link": (10, 0.2)}
    data: dict[str, Any] = {name: {"alpha_us": a, "beta_us": b} for name, (a, b) in lines.items()}
    data |= {"layers": 6, "samples": 3, "tokens_per_sample": 8}
    (tmp_path / "lines.json").write_text(json.dumps(data))
    toml = [f"{key} = {value}" for key, value in data.items() if not isinstance(value, dict)]
    toml += [f"[{key}]\nalpha_us = {a}\nbeta_us = {b}" for key, (a, b) in lines.items()]
    (tmp_path / "lines.toml").write_text("\n".join(toml))
    wanted = told(capsys, "simdep solve", "--stage-costs", COSTS, *SIZES)
    for name in ("lines.json", "lines.toml"):
        found = told(capsys, "simdep solve --samples 6 --stage-times-model", str(tmp_path / name))
        assert found["best"] == wanted["best"]


def test_text_shows_the_best_the_bound_and_the_runners_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("simdep solve", "--stage-costs", COSTS, *SIZES) == 0
    said = capsys.readouterr().out
    assert "lower bound" in said
    assert "runners-up" in said
    assert "simulated" in said


def test_algorithm_1_is_not_faster(capsys: pytest.CaptureFixture[str]) -> None:
    exact = told(capsys, "simdep solve", "--stage-costs", COSTS, *SIZES)
    found = told(capsys, "simdep solve --method algorithm1", "--stage-costs", COSTS, *SIZES)
    assert found["method"] == "algorithm1"
    assert found["makespan_us"] >= exact["makespan_us"]


def test_a_scenario_is_solved_for_its_samples(capsys: pytest.CaptureFixture[str]) -> None:
    best = told(capsys, f"{SERVED} --ag 3 --eg 5 --samples 4")["best"]
    assert best["m_a"] * best["r1"] == 4
    assert (best["ag"], best["eg"]) == (3, 5)


def test_gpus_are_split_between_the_groups_in_the_best_way(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No given split is better than the one that is found."""
    found = told(capsys, f"{SERVED} --gpus 4 --samples 4")
    assert found["best"]["ag"] + found["best"]["eg"] == 4
    rates = [
        told(capsys, f"{SERVED} --ag {ag} --eg {4 - ag} --samples 4")["throughput_tokens_per_s"]
        for ag in (1, 2, 3)
    ]
    assert found["throughput_tokens_per_s"] == pytest.approx(max(rates))


def test_what_does_not_fit_ends_with_3_and_says_what_would(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("simdep solve --model deepseek-v2 --hardware h20 --ag 6 --eg 2") == 3
    said = capsys.readouterr()
    assert not said.out
    assert "are missing" in said.err
    assert "it fits with eg = 5" in said.err


@pytest.mark.parametrize(
    ("words", "holds"),
    [
        (["--stage-costs", "attention=1+1"], "expert is missing"),
        (["--stage-costs", COSTS, "--model", "deepseek-v2"], "leave out --model"),
        (
            ["--stage-costs", COSTS, "--samples", "0"],
            "samples=0; expected an integer >= 1",
        ),
        (["--stage-costs", COSTS, "--max-r2", "0"], "--max-r2=0; expected an integer >= 1"),
        (["--stage-costs", COSTS, "--method", "best"], "unknown method 'best'"),
        (["--stage-costs", "attention=1+-1,expert=1,link=1"], "it is ALPHA+BETA"),
        (["--stage-times-model", "nowhere.toml"], "nowhere.toml"),
        ([], "nothing to solve"),
    ],
)
def test_bad_input_ends_with_2_and_one_sentence(
    capsys: pytest.CaptureFixture[str], words: list[str], holds: str
) -> None:
    assert run("simdep solve", *words) == 2
    one_sentence(capsys, holds)


def test_a_problem_that_takes_no_time_has_no_throughput(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run("simdep solve --stage-costs attention=0+0,expert=0+0,link=0+0 --samples 3 --json") == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert result["makespan_us"] == result["gap_pct"] == 0
    assert result["throughput_tokens_per_s"] is None


def test_splits_are_proven_and_ranked_together(capsys: pytest.CaptureFixture[str]) -> None:
    """The bound is the most of any split, and the next best cut may be one of another split."""
    served = (
        "--model deepseek-v2-lite --hardware h20 --layers 3 --seq-len 1024 --samples 2 "
        "--max-r1 2 --max-r2 3"
    )
    every = [told(capsys, f"simdep solve {served} --ag {ag} --eg {8 - ag}") for ag in range(1, 8)]
    found = told(capsys, f"simdep solve {served} --gpus 8")
    rates = [each["throughput_tokens_per_s"] for each in every]
    assert found["throughput_tokens_per_s"] == max(rates)
    listed = [
        choice["throughput_tokens_per_s"]
        for each in every
        for choice in (each["best"], *each["runner_up"])
    ]
    next_best = sorted(listed, reverse=True)[1:5]
    assert [choice["throughput_tokens_per_s"] for choice in found["runner_up"]] == next_best
    assert {choice["ag"] + choice["eg"] for choice in found["runner_up"]} == {8}
    most = max(
        each["throughput_tokens_per_s"] * each["makespan_us"] / each["lower_bound_us"]
        for each in every
    )
    assert found["throughput_tokens_per_s"] * (1 + found["gap_pct"] / 100) == pytest.approx(most)
    assert found["evaluated"] <= sum(each["evaluated"] for each in every)
