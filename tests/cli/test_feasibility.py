"""Where memory does not suffice, every command says so first, with the ways out; the best is never
such a point."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli import run

MISSING = "--model deepseek-v2 --hardware h20 --ag 3 --eg 2 --seq-len 512 --samples 4"
SENTENCE = "it does not fit into memory: a GPU of the EG needs "


@pytest.mark.parametrize(
    ("command", "label"),
    [
        (f"simulate {MISSING} --policy naive", ""),
        (f"explain {MISSING} --policy naive", ""),
        (f"compare naive pppipe:r1=2 {MISSING}", "naive: "),
    ],
)
def test_it_is_said_above_the_answer(
    command: str, label: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    assert run(f"simdep {command} --html {page}") == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{label}{SENTENCE}")
    assert "; it fits with eg = " in said.out.splitlines()[0]
    assert SENTENCE not in said.err
    text = page.read_text()
    assert SENTENCE in text
    assert text.index(SENTENCE) < text.index("Plotly.newPlot(")


def test_with_json_it_is_said_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("simulate", "explain", "compare naive"):
        assert run(f"simdep {command} {MISSING} --json") == 0
        said = capsys.readouterr()
        json.loads(said.out)
        assert SENTENCE in said.err.splitlines()[0]


def test_the_best_point_of_a_sweep_fits(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Splits with fewer GPUs for experts do not."""
    command = "simdep sweep --model deepseek-v2 --hardware h20 --seq-len 512 --samples 4"
    assert run(f"{command} --vary ag:eg=6:2,5:3,3:5 --html {tmp_path / 'page.html'}") == 0
    out = capsys.readouterr().out
    assert "Points that do not fit into memory, none of them the best: 2 of 3" in out
    best = out.partition("Best by ")[2].splitlines()[2]
    assert best.split()[0] == "3:5"
