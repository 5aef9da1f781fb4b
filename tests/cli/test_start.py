"""The package and its commands start at once: they load what they run only when it runs."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

HEAVY = {
    *("numpy", "pandas", "scipy", "simpy", "pyarrow", "tqdm"),
    *("torch", "plotly", "streamlit", "ortools"),
}
STARTS = {
    "import": "import simdep",
    "help": "from simdep.cli.run import main\nmain(['--help'])",
    "help of a command": "from simdep.cli.run import main\nmain(['simulate', '--help'])",
}
LIMIT_S = {"import": 0.25, "help": 0.4, "help of a command": 0.4}


def run_python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_a_start_loads_none_of_the_heavy_packages(start: str) -> None:
    body = "\n    ".join(start.splitlines())
    code = f"import sys\ntry:\n    {body}\nexcept SystemExit:\n    pass\n"
    output = run_python(code + f"print(sorted({HEAVY!r} & set(sys.modules)))")
    assert output.splitlines()[-1] == "[]"


@pytest.mark.bench
@pytest.mark.parametrize("name", STARTS)
def test_a_start_takes_less_than_its_limit(name: str) -> None:
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        run_python(STARTS[name])
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < LIMIT_S[name]
