"""Whatever its streams are, a command ends as it should; what it reads is not written over."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from cli import refused, run
from foreign import GEMM, PROFILE, SCENARIO, SCHEDULE
from places import ROOT

STAGES = "--stage-times attention=9,a2e=1,expert=5,e2a=1"
SERVED = "--model deepseek-v2-lite --ag 3 --eg 5 --layers 2 --samples 2 --seq-len 8"


def ended(
    command: str, streams: str, folder: Path, **more: str
) -> subprocess.CompletedProcess[str]:
    """A program whose streams a shell redirects, such as `>&-`."""
    program, *words = command.split()
    line = shlex.join([sys.executable, "-m", program, *words])
    return subprocess.run(
        ["sh", "-c", f"{line} {streams}"],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", **more},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_full_disk_below_stdout_is_told_in_one_sentence(tmp_path: Path) -> None:
    done = ended("simdep policies", ">/dev/full", tmp_path)
    assert done.returncode == 1
    assert done.stderr == "simdep: the output can't be written: no space left on device\n"


def test_a_full_disk_below_stderr_leaves_the_exit_code(tmp_path: Path) -> None:
    done = ended("simdep simulate none.toml", "2>/dev/full", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("streams", [">&-", "<&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_leads_nowhere(streams: str, tmp_path: Path) -> None:
    """Files do not take its place: the trace holds no word of stdout, and stdout none of stderr."""
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    command = "simdep simulate scenario.toml --json --trace trace.json"
    done = ended(command, streams, tmp_path)
    assert done.returncode == 0
    assert "traceEvents" in json.loads((tmp_path / "trace.json").read_text())
    if ">&-" not in streams.split():
        assert json.loads(done.stdout)["policy"] == "findep"
    assert "Traceback" not in done.stderr


def test_letters_that_a_terminal_does_not_know_are_escaped(tmp_path: Path) -> None:
    (tmp_path / "schedule.json").write_text(json.dumps({**SCHEDULE, "label": "für"}))
    command = f"simdep simulate {STAGES} --schedule schedule.json"
    done = ended(command, "", tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout.startswith("f\\xfcr")


OVERWRITING = [  # commands that write what they read, or one file twice; and what the sentence says
    ("fit input.json --out input.json", "--out input.json: the file to read is that file"),
    ("fit gemm.csv --out ./link.json", "--out link.json: the file to read is that file"),
    (
        f"simulate {SERVED} --hardware profile.json --trace profile.json",
        "--trace profile.json: --hardware is that file",
    ),
    (
        f"simulate {STAGES} --schedule schedule.json --save-schedule schedule.json",
        "--save-schedule schedule.json: --schedule is that file",
    ),
    (
        f"simulate {SERVED} --hardware h20 --trace a.json --save-schedule ./a.json",
        "--trace a.json: --save-schedule is that file",
    ),
]


@pytest.mark.parametrize(("command", "rule"), OVERWRITING)
def test_what_a_command_reads_is_not_written_over(
    command: str,
    rule: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gemm.csv").write_text(GEMM)
    Path("input.json").write_text(GEMM)
    os.link("gemm.csv", "link.json")
    Path("profile.json").write_text(json.dumps(PROFILE))
    Path("schedule.json").write_text(json.dumps(SCHEDULE))
    before = {path: path.read_bytes() for path in Path().iterdir()}
    assert rule in refused(capsys, f"simdep {command}")
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_two_outputs_may_go_to_one_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.json", "b.json"):
        Path(name).symlink_to("/dev/null")
    command = f"simdep simulate {SERVED} --hardware h20 --trace a.json --save-schedule b.json"
    assert run(command) == 0
