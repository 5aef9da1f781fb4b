"""Every flag of every command meets values that it can't mean: one sentence, exit code 2, before
anything is started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bad_inputs import FLAGS, VALUES, WORDS, may_mean
from cli import refused, run
from foreign import EVENTS, GEMM


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("gemm.csv").write_text(GEMM)
    Path("events.csv").write_text(EVENTS)
    Path("folder").mkdir()
    os.mkfifo("pipe")
    return tmp_path


@pytest.mark.parametrize(("command", "flag"), FLAGS)
def test_a_value_that_a_flag_can_not_mean_is_refused(
    command: str,
    flag: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("realrun.runtime.launch.spawn", None)  # nothing is started
    before = sorted(folder.iterdir())
    for value in VALUES:
        if not may_mean(flag, value):
            line = f"{command} {WORDS.get(command, '')}"
            assert len(refused(capsys, line, f"{flag}={value}")) > len("simdep: ")
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("command", WORDS)
def test_a_flag_that_nobody_knows_is_refused(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--nothing" in refused(capsys, f"{command} {WORDS[command]} --nothing")


def test_the_commands_are_right_without_the_flag(folder: Path) -> None:
    """Else a refusal of the flag would say nothing."""
    for command, words in WORDS.items():
        if command.startswith("simdep"):
            assert run(f"{command} {words}") == 0
