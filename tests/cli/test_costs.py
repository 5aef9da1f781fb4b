"""The commands about costs: JSON for machines, tables for people, one sentence for bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli import one_sentence, run
from samples import events, gemms, saved


def told(command: str, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, object]:
    assert run(command, *more, "--json") == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_hardware_is_listed_with_the_labels_of_its_values(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = {row["name"]: row for row in told("simdep hardware list", capsys)["hardware"]}  # type: ignore[attr-defined]
    assert rows["a6000"]["published"] == rows["a6000"]["costs"] == 5
    assert rows["h100"]["measured"] == rows["h100"]["kernels"] > 20
    assert rows["a10"]["assumed"] == rows["a10"]["kernels"]
    assert run("simdep hardware list") == 0
    assert "measured" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a6000", "h20", "v100", "epyc-2-cores"])
def test_a_profile_is_shown_with_the_source_of_every_value(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = told(f"simdep hardware show {name}", capsys)
    values = [*profile["costs"], *profile["kernels"]]  # type: ignore[misc]
    assert all(value["label"] and value["source"] for value in values)
    assert run(f"simdep hardware show {name}") == 0
    assert "source" in capsys.readouterr().out


def test_measurements_become_a_profile_that_prices_a_scenario(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, profile = saved(gemms(), tmp_path), tmp_path / "mine.json"
    (row,) = told("simdep fit --gpu h100 --out", capsys, str(profile), str(data))["kernels"]  # type: ignore[misc]
    assert row["held_out"]["mape_pct"] < row["linear"]["mape_pct"]
    result = told("simdep costs evaluate --hardware", capsys, str(profile), str(data))
    assert set(result["by_operation"]["gemm"]) >= {
        "n",
        "mape_pct",
        "p50_pct",
        "p95_pct",
        "bias_pct",
    }  # type: ignore[index]
    assert run("simdep costs evaluate --anchors 5 --hardware", str(profile), str(data)) == 0
    assert "worst rows" in capsys.readouterr().out


def test_a_kernel_used_beyond_its_range_is_a_note_on_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (
        run("simdep simulate --model deepseek-v2 --hardware h100 --ag 4 --eg 4 --layers 1 --json")
        == 0
    )
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert result["makespan_us"] > 0
    assert {"gemm bf16", "mla_prefill"} <= {
        row["cost"] for row in result["costs"] if row["p95_pct"]
    }
    assert (
        "simdep: note: gemm: n=24576 to 32768 is out of the measured range 512 to 16384" in said.err
    )


def test_a_reproduction_is_rows_and_a_summary_and_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    result = told("simdep reproduce fastafd --html", capsys, str(page))
    assert len(result["rows"]) == 12  # type: ignore[arg-type]
    assert {"model", "attention_nodes", "step_ms", "predicted", "unit", "role", "reason"} <= set(
        result["rows"][0]
    )  # type: ignore[index]
    text = page.read_text()
    assert text.count("plotly.js v") == 1
    for word in ("FastAFD", "calibrated", "checks", "parameters", "GB200"):
        assert word in text
    assert run("simdep reproduce fastafd --html", str(page)) == 0
    assert "Checks" in capsys.readouterr().out


def test_a_reproduction_writes_a_file_only_where_html_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("simdep reproduce fastafd --json") == 0
    assert list(tmp_path.iterdir()) == []


def test_a_replay_says_what_was_measured_and_predicted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = saved(events(), tmp_path, "events.csv")
    result = told("simdep replay", capsys, str(file))
    assert {"predicted_us", "measured_us", "host_gap_us", "error_pct", "tasks"} <= set(result)
    assert run("simdep replay", str(file)) == 0
    assert "host gap" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("simdep hardware show h1000", "unknown hardware 'h1000'; did you mean 'h100'?"),
        (
            "simdep fit nothing.csv --out x.json",
            "nothing.csv: the file can't be read: no such file",
        ),
        ("simdep fit nothing.csv --out x.txt", "--out x.txt: a profile is a .json file"),
        ("simdep fit nothing.csv", "the following arguments are required: --out"),
        (
            "simdep costs evaluate nothing.csv --hardware h100",
            "nothing.csv: the file can't be read: no such file",
        ),
        (
            "simdep costs evaluate FILE --hardware a6000",
            "FILE: it has no rows of a6000; it has those of h100",
        ),
        (
            "simdep costs evaluate FILE --hardware h100 --anchors 0",
            "--anchors=0; expected an integer >= 1",
        ),
        ("simdep fit FILE --form spline --out x.json", "unknown form 'spline'"),
        ("simdep fit aiconfigurator:abacus --out x.json", "aiconfigurator:abacus"),
        ("simdep reproduce everything", "unknown reproduction 'everything'"),
        (
            "simdep reproduce findep --measured FILE",
            "it looks like measurements of operations; expected a table of published figures",
        ),
        ("simdep replay FILE", "expected events of a real run"),
        ("simdep", "the following arguments are required: COMMAND"),
    ],
)
def test_bad_input_gives_one_sentence_and_exit_code_2(
    command: str,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(gemms(), tmp_path, "FILE")
    assert run(command) == 2
    one_sentence(capsys, sentence)
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]
