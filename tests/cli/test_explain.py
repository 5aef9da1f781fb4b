"""The command `explain`: its parts sum, and its page and text say the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli import one_sentence, run

SCENARIO = (
    "--model deepseek-v2 --hardware a6000 --ag 3 --eg 5 --layers 2 --seq-len 512 --m-a 2 "
    "--r1 2 --r2 2"
)


def explained(capsys: pytest.CaptureFixture[str], flags: str) -> dict[str, Any]:
    assert run(f"simdep explain {flags} --json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_explain_prints_one_json_object_whose_parts_sum(capsys: pytest.CaptureFixture[str]) -> None:
    told = explained(capsys, f"{SCENARIO} --against pppipe")
    makespan = told["makespan_us"]
    assert sum(share["us"] for share in told["critical_path"]) == pytest.approx(makespan, rel=1e-12)
    for stream, causes in told["idle_us"].items():
        assert sum(causes.values()) == pytest.approx(told["bubble_us"][stream], abs=1e-6)
    assert told["lower_bound_us"] <= makespan
    assert {row["name"] for row in told["sensitivities"]} == {
        "attention",
        "shared",
        "a2e",
        "expert",
        "e2a",
        "link start-up",
        "link bandwidth",
    }
    changes = sum(row["change_us"] for row in told["difference"]["critical_path"])
    assert changes == pytest.approx(makespan - told["difference"]["against_makespan_us"], abs=1e-6)
    assert told["optimum"] is None


def test_explain_proves_how_far_from_the_optimum_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    bare = "--stage-times attention=3,shared=8,a2e=9,expert=7,e2a=1 --layers 3 --r1 2 --exact"
    told = explained(capsys, bare)
    assert (told["makespan_us"], told["optimum"]["makespan_us"]) == (75, 73)
    assert told["optimum"]["verdict"] == "within 2.7 %"
    assert told["optimum"]["found_verdict"] == "optimal"
    assert explained(capsys, bare.replace("--r1 2", "--r1 1"))["optimum"]["verdict"] == "optimal"


def test_the_optimum_of_a_policy_that_waits_for_shared_experts_does_not_wait(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bare = "--stage-times attention=3,shared=8,a2e=9,expert=7,e2a=1 --layers 3 --r1 2 --exact"
    assert explained(capsys, f"{bare} --policy pppipe")["optimum"]["makespan_us"] == 73


def test_explain_works_for_colocated_groups_and_for_every_rank(
    capsys: pytest.CaptureFixture[str],
) -> None:
    both = "--model qwen3-30b-a3b --hardware h100 --layers 2"
    told = explained(
        capsys, f"{both} --gpus 4 --policy two-batch-prefill --r1 2 --m-a 2 --against ep"
    )
    assert set(told["idle_us"]) == {"GPU", "COMM"}
    told = explained(capsys, f"{both} --ag 2 --eg 2 --r1 2 --straggler EG.1=1.5")
    assert {"AG@0", "AG@1", "EG@0", "EG@1"} <= set(told["idle_us"])
    assert told["idle_us"]["AG@0"]["another rank"] > 0


def test_explain_reads_as_text_and_as_a_page(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "why.html"
    assert run(f"simdep explain {SCENARIO} --against naive --exact --html {page}") == 0
    said = capsys.readouterr().out
    for words in (
        "proven optimal",
        "Critical path",
        "Idle time",
        "one percent",
        "Findings",
        "Against naive",
    ):
        assert words in said
    assert "Critical path" in page.read_text()


def test_explain_compares_with_another_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = tmp_path / "other.toml"
    other.write_text(
        'model = "deepseek-v2"\nlayers = 2\n[deployment]\nhardware = "h20"\nag = 3\neg = 5\n'
        "[workload]\nseq_len = 512\nm_a = 4\n[schedule]\nr1 = 2\nr2 = 2\n"
    )
    told = explained(capsys, f"{SCENARIO} --against {other}")
    assert any("times the throughput" in words for words in told["difference"]["words"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("", "nothing to explain"),
        (f"{SCENARIO} --against nobody", "unknown policy 'nobody'"),
        (f"{SCENARIO} --exact --time-limit 0", "--time-limit=0"),
        (f"{SCENARIO} --exact --workers 0", "--workers=0"),
    ],
)
def test_what_explain_can_not_do_is_said_in_a_sentence(
    flags: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(f"simdep explain {flags}") == 2
    one_sentence(capsys, said)
