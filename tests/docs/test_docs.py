"""README, docs and examples: every command and snippet runs, every link leads somewhere."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import ROOT
from samples import events, gemms, saved

import simdep
from realrun.cli import realrun_parser
from simdep.cli.run import main
from simdep.policies import POLICIES

DOCS = ROOT / "simdep" / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
SCENARIO = re.search(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
OWN_POLICY = re.search(
    r"```python\n(# my_policy.py.*?)```", (DOCS / "schedules.md").read_text(), re.S
)
MEASURED_FIRST = "profile.json"  # realrun makes it


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)


def commands(program: str) -> list[str]:
    """Every command line of a program in the fenced blocks of all pages, without its remark."""
    shown = []
    for page in PAGES:
        for line in "".join(blocks(page, "bash")).splitlines():
            for part in line.split("&&"):
                command = re.split(r"\s+# ", part.strip())[0].strip()
                if command.startswith(f"{program} "):
                    shown.append(command)
    return list(dict.fromkeys(shown))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the files that the pages speak of."""
    assert SCENARIO and OWN_POLICY
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scenario.toml").write_text(SCENARIO[1])
    (tmp_path / "my_policy.py").write_text(OWN_POLICY[1])
    saved(gemms(), tmp_path)
    saved(events(), tmp_path, "events.csv")
    before = dict(POLICIES)
    yield tmp_path
    POLICIES.clear()  # the commands run a policy of their own
    POLICIES.update(before)


def test_the_pages_show_every_command_of_simdep() -> None:
    shown = {line.split()[1] for line in commands("simdep")}
    everything = {
        "simulate", "compare", "sweep", "solve", "explain", "policies", "reproduce", "replay",
        "fit", "costs", "hardware",
    }  # fmt: skip
    assert shown >= everything


@pytest.mark.parametrize(
    "line", [line for line in commands("simdep") if MEASURED_FIRST not in line]
)
def test_a_command_of_simdep_runs(
    line: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "--hardware mine.json" in line:
        assert main(["fit", "gemm.csv", "--out", "mine.json"]) == 0
    if "--schedule mine.json" in line:
        assert main(["simulate", "scenario.toml", "--save-schedule", "mine.json"]) == 0
    capsys.readouterr()
    assert main(shlex.split(line)[1:]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out


@pytest.mark.parametrize("line", commands("realrun"))
def test_a_command_of_realrun_has_flags_that_exist(line: str) -> None:
    """Real runs take minutes; tests/realrun executes small ones."""
    assert realrun_parser().parse_args(shlex.split(line)[1:])


def test_the_five_lines_of_python_run(workplace: Path) -> None:
    (snippet,) = blocks(ROOT / "README.md", "python")
    ran = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=workplace,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert "<Prediction findep ASAS r1=2 r2=4:" in ran.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_relative_link_leads_to_a_file_or_a_folder(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    inside = [target for target in targets if "://" not in target]
    assert not [target for target in inside if not (page.parent / target).exists()]


def test_the_names_of_the_package_exist_and_are_few() -> None:
    assert 20 <= len(simdep.__all__) <= 30
    for name in simdep.__all__:
        assert getattr(simdep, name) is not None


def test_every_python_name_that_the_pages_use_is_exported() -> None:
    for page in PAGES:
        for name in re.findall(r"\bsimdep\.([A-Za-z_]\w*)", "".join(blocks(page, "python"))):
            known = name in simdep.__all__ or importlib.util.find_spec(f"simdep.{name}")
            assert known, f"{page.name}: simdep.{name}"


@pytest.mark.parametrize("example", ["what_if.py", "own_policy.py"])
def test_an_example_runs(example: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(DOCS / "examples" / example)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert len(ran.stdout.splitlines()) > 3


def test_the_example_that_validates_really_runs_its_schedules(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(DOCS / "examples" / "calibrate_and_validate.py"), str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert ran.stdout.count("predicted") == 2
