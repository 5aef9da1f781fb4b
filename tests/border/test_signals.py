"""Ctrl-C ends every command with one line and exit code 130, and what is finished is kept."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pandas as pd
import pytest
from cli import run, started
from foreign import EVENTS, GEMM, SCENARIO

from simdep.entry import INTERRUPTED

SERVED = "--model deepseek-v2-lite --hardware h20 --ag 3 --eg 5 --layers 2 --samples 2 --seq-len 8"
COMMANDS = (
    f"simdep simulate {SERVED} --json",
    f"simdep simulate {SERVED} --per-rank --trace trace.json",
    f"simdep explain {SERVED} --against pppipe",
    f"simdep compare naive findep {SERVED}",
    f"simdep sweep {SERVED} --vary r1=1,2 --out table.csv",
    f"simdep solve {SERVED}",
    "simdep policies naive",
    "simdep hardware show h20",
    "simdep fit gemm.csv --form linear --out out.json",
    "simdep costs evaluate gemm.csv --hardware h100",
    "simdep replay events.csv",
    "simdep reproduce fastafd",
)
SHARES = (0.01, 0.1, 0.3, 0.6, 0.9)  # of the function calls of a command, when Ctrl-C comes


class Calls:
    """Counts the calls of functions, and raises KeyboardInterrupt at one of them."""

    def __init__(self, last: float = math.inf) -> None:
        self.count, self.last = 0, last

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        self.count += event == "call"
        if self.count >= self.last:
            sys.setprofile(None)
            raise KeyboardInterrupt

    def of(self, command: str) -> int:
        """The exit code of a command, in what `simdep.entry` puts around it."""
        sys.setprofile(self)
        try:
            return run(command)
        except KeyboardInterrupt:  # before the command or after it
            print("simdep: interrupted", file=sys.stderr)
            return INTERRUPTED
        finally:
            sys.setprofile(None)


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_at_any_moment_ends_a_command_with_one_line(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Written files are whole; what was there before stays, or the new one is complete."""
    monkeypatch.chdir(tmp_path)
    for name, content in (("gemm.csv", GEMM), ("events.csv", EVENTS)):
        Path(name).write_text(content)
    assert run(command) == 0  # loads what is loaded once
    whole = {path: path.read_bytes() for path in Path().iterdir()}
    calls = Calls()
    calls.of(command)
    for share in SHARES:
        capsys.readouterr()
        assert Calls(share * calls.count).of(command) == 130
        said = [line for line in capsys.readouterr().err.splitlines() if ": note: " not in line]
        assert len(said) == 1
        assert said[0].startswith(("simdep: interrupted", "simdep: stopped at "))
        assert {path for path in Path().iterdir() if path.suffix == ".part"} == set()
    for path, content in whole.items():
        assert len(path.read_bytes()) == len(content)


def end(program: subprocess.Popen[str]) -> Sequence[str]:
    """Send Ctrl-C; the lines on stderr of a program that ends as it should."""
    program.send_signal(signal.SIGINT)
    _, said = program.communicate(timeout=30)
    assert program.returncode == 130, said
    return said.splitlines()


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{path} does not appear")


def test_a_sweep_keeps_its_finished_points(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    words = "sweep scenario.toml --vary r1=1,2 --vary r2=1..64 --vary seq_len=64..2048:2"
    program = started(f"simdep {words} --out table.csv".split(), tmp_path)
    time.sleep(6)
    (line,) = end(program)
    assert line.startswith("simdep: stopped at ")
    assert line.endswith("the same command goes on with table.csv")
    done = len(pd.read_csv(tmp_path / "table.csv"))
    assert f"stopped at {done:,} of " in line


SLOW = """
import pathlib, time
pathlib.Path("started").write_text("")
time.sleep(60)
"""


def test_ctrl_c_ends_an_import_that_would_catch_it(tmp_path: Path) -> None:
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    (tmp_path / "slow.py").write_text(
        f"try:\n{'    '.join(SLOW.splitlines(True))}except BaseException: pass\n"
    )
    program = started(["simdep", "simulate", "scenario.toml", "--policy", "slow.py:any"], tmp_path)
    wait_for(tmp_path / "started")
    assert end(program) == ["simdep: interrupted"]


def test_a_reader_that_has_seen_enough_ends_a_command_quietly(tmp_path: Path) -> None:
    program = started(["simdep", "hardware", "show", "h20"], tmp_path)
    assert program.stdout is not None
    program.stdout.close()
    assert program.stderr is not None
    assert program.stderr.read() == ""
    program.stderr.close()
    program.wait(30)
