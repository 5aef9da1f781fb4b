"""Golden outputs: what every command printed before the code was laid out anew, number by number.

`pytest tests/test_golden.py --golden-write` records them again, for changes that are meant; the
diff shows each number.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from simdep.cli.run import main

FOLDER = Path(__file__).parent / "golden"
TIMED = ("solve_ms", "solve_s", "seconds")  # what a clock says
LINES = [
    line for line in (FOLDER / "commands.txt").read_text().splitlines() if not line.startswith("#")
]
COMMANDS = dict(re.split(r"\s+", line, maxsplit=1) for line in LINES)


def output(command: str, capsys: pytest.CaptureFixture[str]) -> Any:
    """What a command prints with --json, without what a clock says."""
    words = shlex.split(command)[1:]
    assert main([*words, "--json"]) == 0, capsys.readouterr().err
    return _untimed(json.loads(capsys.readouterr().out))


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _untimed(part) for key, part in value.items() if key not in TIMED}
    if isinstance(value, list):
        return [_untimed(part) for part in value]
    return value


def differences(golden: Any, now: Any, place: str = "") -> Iterator[str]:
    """Every place where two outputs differ: numbers to 12 digits, all else exactly."""
    if isinstance(golden, dict) and isinstance(now, dict):
        for key in [*golden, *(key for key in now if key not in golden)]:
            if key in golden and key in now:
                yield from differences(golden[key], now[key], f"{place}.{key}")
            else:
                yield f"{place}.{key}: {'gone' if key in golden else 'new'}"
    elif isinstance(golden, list) and isinstance(now, list) and len(golden) == len(now):
        for at, (one, other) in enumerate(zip(golden, now, strict=True)):
            yield from differences(one, other, f"{place}[{at}]")
    elif isinstance(golden, float) and isinstance(now, float):
        if not math.isclose(golden, now, rel_tol=1e-12, abs_tol=1e-12):
            yield f"{place}: {golden!r} became {now!r}"
    elif golden != now or type(golden) is not type(now):
        yield f"{place}: {golden!r} became {now!r}"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_prints_what_it_printed_before(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    shutil.copytree(FOLDER / "inputs", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    _compare(name, output(COMMANDS[name], capsys), request)


def test_the_recorded_runs_score_as_before(request: pytest.FixtureRequest) -> None:
    pytest.importorskip("torch")
    from recorded import load_recorded

    from realrun.validation.decomposition import power, structural_error_pct

    trials = load_recorded()
    structural = [structural_error_pct(trial.model, trial.runs) for trial in trials]
    makespans = [list(map(float, trial.makespans_us)) for trial in trials]
    now = {
        "makespans_us": makespans,
        "structural": [list(map(float, np.ravel(each))) for each in structural],
    }
    _compare("recorded", now | {"power": _records(power(trials))}, request)


def _records(table: pd.DataFrame) -> Any:
    return json.loads(table.to_json(orient="records", double_precision=15))


def _compare(name: str, now: Any, request: pytest.FixtureRequest) -> None:
    kept = FOLDER / "outputs" / f"{name}.json"
    if request.config.getoption("--golden-write"):
        kept.write_text(json.dumps(now, indent=1) + "\n")
    found = list(differences(json.loads(kept.read_text()), now))
    assert not found, "\n".join(found[:20])
