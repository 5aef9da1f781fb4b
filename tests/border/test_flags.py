"""Every flag of every command meets values that it can't mean: one sentence, exit code 2, before
anything is started."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cli import refused, run
from foreign import EVENTS, GEMM

from realrun.cli import command_parser as realrun_parser
from simdep.cli.run import command_parser as simdep_parser

SCENARIO = (
    "--model deepseek-v2-lite --hardware h20 --ag 3 --eg 5 --layers 2 --samples 2 --seq-len 8"
)
SMALL = "--model deepseek-v2-lite --scale 0.0625 --layers 1 --seq-len 16 --m-a 1 --ag 1 --eg 1"
WORDS = {  # of a command that is right without the flag
    "simdep simulate": SCENARIO,
    "simdep compare": f"naive findep {SCENARIO}",
    "simdep explain": SCENARIO,
    "simdep sweep": f"{SCENARIO} --vary r1=1,2",
    "simdep solve": SCENARIO,
    "simdep policies": "naive",
    "simdep hardware show": "h20",
    "simdep fit": "gemm.csv --form linear --out out.json",
    "simdep costs evaluate": "gemm.csv --hardware h100",
    "simdep replay": "events.csv",
    "simdep reproduce": "fastafd",
    "realrun run": SMALL,
    "realrun calibrate": SMALL,
    "realrun validate": "--quick",
    "realrun experiment": "orders",
}
VALUES = (
    "x",
    "nan",
    "-1",
    "-0.5",
    "1e309",
    "9" * 30,
    "a\0b",
    "w" * 10_000,
    "\x1b[31m",
    "[x]",
    "{}",
    "=",
    "1,x",
    "folder",
    "nowhere.json",
    "pipe",
    "/dev/zero",
)
FREE = {"--name", "--source"}  # any text
NEW_FILES = {"--out", "--html", "--trace", "--save-schedule"}
LARGE = {  # any number above 0
    "--link-gbytes-per-s",
    "--link-mbytes-per-s",
    "--link-alpha-us",
    "--memory-gbytes",
    "--tolerance",
}


def commands(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, Any]]:
    """The commands of a program, with their parsers."""
    inner: Mapping[str, Any] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            inner = action.choices
    for word, command in inner.items():
        yield from commands(command, f"{name} {word}")
    if not inner:
        yield name, parser


def flags() -> Iterator[tuple[str, str]]:
    """Every flag that takes a value, with its command."""
    for program, parser in (("simdep", simdep_parser()), ("realrun", realrun_parser())):
        for command, of_command in commands(parser, program):
            for action in of_command._actions:
                if action.option_strings and action.nargs != 0:
                    yield command, action.option_strings[-1]


FLAGS = list(flags())


def may_mean(flag: str, value: str) -> bool:
    """Whether a value is one that the flag takes."""
    if flag in FREE:
        return value.isprintable()
    if flag in NEW_FILES:
        return value.isprintable() and not value.startswith("/dev/") and value != "pipe"
    return flag in LARGE and value == "9" * 30


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
