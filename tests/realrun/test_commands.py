"""The command line of realrun: scenario files, flags, and how a command ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from places import ROOT

pytest.importorskip("torch")

from schedules import findep

from realrun.backends import registry
from realrun.calibration.points import PointKey, new_points
from realrun.cli import main
from realrun.validation import campaign
from simdep.hardware.profile import Cost, HardwareProfile

SCENARIO = """
model = "deepseek-v2-lite"
deployment = { hardware = "h20", ag = 1, eg = 1, link = { gbytes_per_s = 0.5, alpha_us = 20 } }
workload = { seq_len = 16, samples = 4 }
schedule = { policy = "findep", r1 = 2, r2 = 2 }
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "scenario.toml"
    path.write_text(SCENARIO)
    return path


def error_of(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a refused command prints."""
    try:
        code = main(command)
    except SystemExit as end:
        code = int(str(end.code))
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_scenario_file_is_run_and_flags_override_it(
    scenario: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    flags = ["--layers", "1", "--scale", "0.0625", "--r2", "3", "--rounds", "1"]
    assert (
        main(["run", str(scenario), *flags, "--backend", "gloo", "--out", str(out), "--json"]) == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert result["tasks"] == 2 * (2 + 3 * 3)
    assert result["schedule"] == "findep ASAS r1=2 r2=3"
    plan = json.loads((out / "ranks-1+1" / "plan.json").read_text())
    assert plan["cases"]["0"]["speed"] == {"alpha_us": 20, "mbytes_per_s": 500}
    assert plan["cases"]["0"]["seq_len"] == 16


@pytest.mark.parametrize("command", ["run", "calibrate", "validate", "experiment orders"])
def test_a_command_measures_at_least_one_round(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = error_of([*command.split(), "--rounds", "0"], capsys)
    assert line == "realrun: --rounds=0; expected an integer >= 1"


def test_a_field_of_the_file_that_is_not_run_is_named(
    scenario: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario.write_text(SCENARIO.replace("seq_len = 16", 'phase = "decode"'))
    line = error_of(["run", str(scenario)], capsys)
    assert line == f"realrun: {scenario}: phase='decode': realrun runs phase='prefill' only"


def test_a_link_as_fast_as_it_goes_has_no_speed_to_choose(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = error_of(["run", "--backend=gloo", "--link=lo", "--link-mbytes-per-s=9"], capsys)
    assert line == "realrun: --link-mbytes-per-s 9: the link lo is as fast as it goes"


def test_gpus_have_the_link_that_they_have(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "usable_gpus", lambda: 8)
    line = error_of(["run", "--link", "shm"], capsys)
    assert line == "realrun: --link shm: it is between CPU ranks; GPUs are linked by NCCL"
    line = error_of(["run", "--link-alpha-us", "5"], capsys)
    assert line == "realrun: --link-alpha-us 5: the link nccl is as fast as it goes"


def test_a_calibration_leaves_its_profile_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    points = new_points()
    for work in (1e6, 2e6, 4e6):
        points[PointKey("gemm")][work] += [work / 1e3] * 4
    measured = campaign.CampaignMeasurements(points=points)
    monkeypatch.setattr(campaign, "measure", lambda *args: measured)
    monkeypatch.chdir(tmp_path)
    assert main(["calibrate", "--backend=gloo", "--scale=0.0625", "--out=mine.json", "--json"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine.json"]
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "mine.json").read_text())


def test_a_campaign_of_too_many_runs_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    line = error_of(["run", "--backend=gloo", "--scale=0.0625", "--rounds=1000000"], capsys)
    assert line == "realrun: --rounds=1000000: 1,000,000 runs; a campaign has at most 100,000"


def test_what_a_validation_can_not_predict_is_refused_before_it_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = error_of(["validate", "--quick", "--backend=gloo", "--in-situ=20"], capsys)
    assert "--in-situ=20 leaves none of the" in line
    empty = tmp_path / "empty.json"
    HardwareProfile("empty", "", (Cost("gemm", 1, 0, "assumed", "test"),)).save(empty)
    line = error_of(["validate", "--quick", "--backend=gloo", f"--profile={empty}"], capsys)
    assert "empty" in line


def test_too_few_gpus_for_the_ranks_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "usable_gpus", lambda: 1)
    with pytest.warns(UserWarning, match="2 ranks and 1 GPUs: the ranks run on CPUs"):
        assert registry.choose_backend("auto", 2) == "gloo"
    assert registry.choose_backend("auto", 1) == "nccl"


def test_a_rank_that_does_not_know_the_others_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    line = error_of(["run", "--backend=gloo", "--scale=0.0625"], capsys)
    assert line == "realrun: RANK is set and WORLD_SIZE is not; torchrun sets both"


def test_a_schedule_that_can_not_run_is_named_with_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule = tmp_path / "mine.json"
    findep(2, 1, 1, tokens=7).save(schedule)
    line = error_of(["run", "--scale=0.0625", "--backend=gloo", f"--schedule={schedule}"], capsys)
    assert line.startswith(f"realrun: {schedule}: A[0.0]: tokens=7; expected whole samples")


def test_sets_of_schedules_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    line = error_of(["validate", "--quick", "--full"], capsys)
    assert "argument --full: not allowed with argument --quick" in line


def test_a_run_folder_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("")
    line = error_of(["run", "--backend", "gloo", "--scale", "0.0625", "--out", str(file)], capsys)
    assert line == f"realrun: --out {file}: it is a file; name a folder"


def test_ctrl_c_ends_a_run_with_one_line(scenario: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "realrun", "run", str(scenario), "--out", str(out)]
    command += ["--layers=1", "--scale=0.0625", "--rounds=100000", "--backend=gloo"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    results = out / "ranks-1+1" / "results.jsonl"
    deadline = time.monotonic() + 120
    while not results.exists():
        assert time.monotonic() < deadline, "the run did not start"
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=30)
    assert process.returncode == 130
    assert messages.splitlines()[-1] == "realrun: interrupted"
    assert "Traceback" not in messages


@pytest.mark.parametrize("command", ["", "run", "calibrate", "validate", "experiment"])
def test_help_does_not_load_torch(command: str) -> None:
    code = (
        "import sys\nfrom realrun.cli import main\n"
        "try:\n    main([*sys.argv[1:], '--help'])\n"
        "finally:\n    print(sorted({'torch', 'numpy', 'pandas', 'plotly'} & set(sys.modules)))\n"
    )
    words = [sys.executable, "-c", code, *command.split()]
    run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"
