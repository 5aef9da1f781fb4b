"""Ctrl-C ends every command with one line and exit code 130, and what is finished is kept."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cli import run
from foreign import EVENTS, GEMM, SCENARIO
from places import ROOT

SERVED = "--model deepseek-v2-lite --hardware h20 --ag 3 --eg 5 --layers 2 --samples 2 --seq-len 8"
COMMANDS = {  # what Ctrl-C interrupts -> the command
    "simdep.simulation.engine.simulate_schedule": f"simdep simulate {SERVED}",
    "simdep.simulation.rank_times.simulate_ranks": f"simdep simulate {SERVED} --per-rank",
    "simdep.schedule.Schedule.load": "simdep simulate --schedule x.json",
    "simdep.planning.solver.solve": f"simdep solve {SERVED}",
    "simdep.policies.load": f"simdep compare naive {SERVED}",
    "simdep.files.read_toml": "simdep explain scenario.toml",
    "simdep.calibration.accuracy.fit_profile": "simdep fit gemm.csv --out out.json",
    "simdep.calibration.sources.load_measurements": "simdep costs evaluate gemm.csv --hardware h100",
    "simdep.hardware.profile.load_hardware": "simdep hardware show h20",
    "simdep.validation.replay.read_events": "simdep replay events.csv",
    "simdep.validation.reproduce.result.read_measured": "simdep reproduce --measured gemm.csv",
    "simdep.policies.find": "simdep policies naive",
    "realrun.validation.campaign.measure": "realrun run --rounds 1",
    "realrun.cases.load_cases": "realrun validate --schedules gemm.csv",
    "realrun.validation.campaign.spawn": "realrun calibrate --out out.json",
}


def interrupted(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize("place", COMMANDS)
def test_ctrl_c_ends_a_command_with_one_line(
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in (("scenario.toml", SCENARIO), ("gemm.csv", GEMM), ("events.csv", EVENTS)):
        Path(name).write_text(content)
    monkeypatch.setattr(place, interrupted)
    command = COMMANDS[place]
    assert run(command) == 130
    last = capsys.readouterr().err.splitlines()[-1]  # a progress bar may stand before it
    assert last == f"{command.split()[0]}: interrupted"
    assert not Path("out.json").exists()


def started(command: str, folder: Path) -> subprocess.Popen[str]:
    program, *words = command.split()
    return subprocess.Popen(
        [sys.executable, "-m", program, *words],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


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
    (tmp_path / "policies.py").write_text(SLOW)
    words = "sweep scenario.toml --vary r1=1,2 --vary r2=1..64 --vary seq_len=64..2048:2"
    program = started(f"simdep {words} --out table.csv", tmp_path)
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
    program = started("simdep simulate scenario.toml --policy slow.py:any", tmp_path)
    wait_for(tmp_path / "started")
    assert end(program) == ["simdep: interrupted"]


def test_a_reader_that_has_seen_enough_ends_a_command_quietly(tmp_path: Path) -> None:
    program = started("simdep hardware show h20", tmp_path)
    assert program.stdout is not None
    program.stdout.close()
    assert program.stderr is not None
    assert program.stderr.read() == ""
    program.stderr.close()
    program.wait(30)
