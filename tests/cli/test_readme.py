"""The README: every command of simdep that it shows runs as it stands there, on small files of its
own."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from places import ROOT
from samples import events, gemms, saved

from simdep.cli.run import main

ELSEWHERE = ("profile.json",)  # what realrun measures first


def block(language: str) -> str:
    """The first fenced block of a language."""
    found = re.search(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert found
    return found[1]


def commands() -> list[str]:
    """The command lines of simdep in fenced blocks, without their remarks."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    lines = [
        part.strip() for block in blocks for line in block.splitlines() for part in line.split("&&")
    ]
    found = [line.partition("   #")[0].strip() for line in lines if line.startswith("simdep ")]
    return [line for line in found if not any(word in line for word in ELSEWHERE)]


def test_the_readme_shows_every_command() -> None:
    shown = {line.split()[1] for line in commands()}
    assert shown >= {
        "simulate",
        "compare",
        "sweep",
        "solve",
        "explain",
        "reproduce",
        "replay",
        "fit",
        "costs",
        "hardware",
    }


@pytest.mark.parametrize("line", commands())
def test_a_command_of_the_readme_runs(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scenario.toml").write_text(block("toml"))
    saved(gemms(), tmp_path)
    saved(events(), tmp_path, "events.csv")
    if "--hardware mine.json" in line:
        assert main(["fit", "gemm.csv", "--out", "mine.json"]) == 0
    assert main(shlex.split(line)[1:]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out
