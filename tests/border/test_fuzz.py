"""Every reader under fuzz by its grammar: valid files, parts replaced, left out, doubled or cut.

Whatever a file holds, its command ends with a result, or with one sentence that names the file.
SIMDEP_FUZZ_EXAMPLES sets how many files each reader gets; without it they are the same 300 in every
run.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli import RAW, run
from foreign import (
    CASES,
    EVENTS,
    GEMM,
    MOE,
    PROFILE,
    PUBLISHED,
    ROUTING,
    SCENARIO,
    SCHEDULE,
    STAGES,
    TIMELINE,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from realrun.cases import load_cases
from realrun.plan import Plan
from simdep import files
from simdep.checks import InputError
from simdep.schedule import Schedule
from simdep.traces.table import read_timeline

EXAMPLES = os.environ.get("SIMDEP_FUZZ_EXAMPLES")
FUZZ = settings(
    max_examples=int(EXAMPLES or 300),
    derandomize=EXAMPLES is None,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
SERVED = "--model deepseek-v2-lite --hardware h20 --ag 3 --eg 5 --layers 2 --samples 2 --seq-len 8"
KERNEL = {
    "op": "gemm",
    "variant": {"dtype": "bf16"},
    "label": "measured",
    "source": "a test",
    "ranges": {"m": [1, 64]},
    "form": {
        "form": "table",
        "base": {"form": "terms", "adds": {"one": 1.0, "macs": 1e-9}, "races": {"bytes": 1e-3}},
        "axis": "m",
        "others": ["n", "k"],
        "points": [[1, 512, 512, 1.0], [64, 512, 512, 1.0]],
    },
}
KNEE = {"form": "knee", "work": "macs", "floor_us": 1.0, "alpha_us": 1.0, "beta_us": 1e-9}
SEQUENCES: dict[str, Any] = {
    "layer_types": ["sliding_attention", "full_attention"],
    "sliding_window": 8,
    "head_dim": 16,
    "moe_layer_freq": 1,
    "norm_topk_prob": True,
}
PLAN = {"ag": 1, "eg": 1, "cases": {}, "jobs": [{"job": "run", "case": "0"}], "backend": "auto"}
SCENARIO_TABLES: dict[str, Any] = {
    "model": "deepseek-v2-lite",
    "layers": 2,
    "scale": 0.5,
    "deployment": {
        "hardware": "h20",
        "ag": 3,
        "eg": 5,
        "link": {"alpha_us": 20, "gbytes_per_s": 25},
        "dispatch": "per-gpu",
        "a2e_dtype": "bf16",
        "comm_sms": 4,
        "contention": 0.1,
        "duplex": "half",
        "memory_gbytes": 79,
    },
    "workload": {"phase": "decode", "seq_len": 128, "dtype": "bf16", "samples": 4},
    "schedule": {
        "policy": "findep",
        "order": "aass",
        "micro_batches": [3, 1],
        "chunks": [[1, 3], [2, 2]],
        "split": "token",
        "merge_last": True,
    },
    "ranks": {"routing": "zipf:1.2", "batches": [4, 4, 2], "stragglers": {"AG.1": 1.5}},
}

names = st.sampled_from(
    ["a", "", "model", "x" * 200, "\x1b[31m", "é", "A[0.0]", "NaN", "macs", "m"]
)
numbers = st.one_of(
    st.integers(-2, 9),
    st.sampled_from([10**9, 10**10, 10**20, 10**40, -1e-9, 0.5, 1e30, 1e300, 1e-300]),
    st.sampled_from([float("nan"), float("inf"), -float("inf")]),
    st.floats(-1e6, 1e6),
)
values = st.recursive(
    st.none() | st.booleans() | numbers | names | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
cells = st.one_of(
    names,
    numbers.map(str),
    st.sampled_from(
        ["", " ", '"', '"1', "1,2", "1e5", "1e999", "-0", "0x1", "nan", "#", "\0", "1\r2"]
    ),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all parts of a JSON value."""
    yield path
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in keys:
        yield from places(value[key], (*path, key))


@st.composite
def changed(draw: st.DrawFn, base: Any) -> Any:
    """A JSON value with one to three of its parts replaced, left out, renamed or doubled."""
    value = [copy.deepcopy(base)]
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from(list(places(value))[1:]))
        parent: Any = value
        for key in path:
            parent = parent[key]
        action = draw(st.sampled_from(["replace", "replace", "remove", "rename", "double"]))
        if action == "replace" or parent is value:
            parent[last] = draw(values)
        elif action == "remove":
            del parent[last]
        elif isinstance(parent, dict):
            parent[draw(names)] = parent[last]
        else:
            parent.append(parent[last])
    return value[0]


@st.composite
def text_of(draw: st.DrawFn, text: str) -> str:
    """A text cut, doubled, or with a piece of another put in."""
    low, high = sorted(draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    return text[:low] + draw(cells | st.just("") | st.just(text[low:high] * 2)) + text[high:]


def json_of(base: Any) -> st.SearchStrategy[str]:
    return changed(base).map(json.dumps) | text_of(json.dumps(base))


@st.composite
def csv_of(draw: st.DrawFn, text: str) -> str:
    """A table with some cells replaced, or columns and rows left out, doubled or added."""
    rows = [line.split(",") for line in text.splitlines()]
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.integers(0, len(rows) - 1))
        column = draw(st.integers(0, len(rows[row]) - 1)) if rows[row] else 0
        action = draw(st.sampled_from(["cell", "cell", "short", "row", "column", "drop"]))
        if action == "cell" and rows[row]:
            rows[row][column] = draw(cells)
        elif action == "short":
            rows[row] = rows[row][:column]
        elif action == "row":
            rows.append(list(rows[row]))
        elif action == "column":
            rows = [[*cells_, draw(cells)] for cells_ in rows]
        elif len(rows) > 1:
            rows = [cells_[:column] + cells_[column + 1 :] for cells_ in rows]
    return "\n".join(",".join(row) for row in rows) + draw(st.sampled_from(["\n", ""]))


def toml(tables: Any) -> str:
    """TOML of nested tables, inline; what TOML can't hold is written as JSON has it."""
    if not isinstance(tables, dict):
        return json.dumps(tables)
    return "".join(f"{key_of(key)} = {inline(value)}\n" for key, value in tables.items())


def inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key_of(k)} = {inline(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return json.dumps(value).replace("Infinity", "inf").replace("NaN", "nan")


def key_of(key: str) -> str:
    return key if key.isidentifier() and key.isascii() else json.dumps(key)


COMMANDS: dict[str, tuple[str, str, st.SearchStrategy[str]]] = {  # command, ending, content
    "scenario": (
        "simdep simulate FILE",
        ".toml",
        changed(SCENARIO_TABLES).map(toml) | text_of(SCENARIO),
    ),
    "schedule": (
        "simdep simulate --stage-times attention=9,a2e=1,expert=5,e2a=1 --schedule FILE",
        ".json",
        json_of(SCHEDULE),
    ),
    "model": (f"simdep simulate {SERVED} --model FILE", ".json", json_of(MOE | SEQUENCES)),
    "profile": (
        f"simdep simulate {SERVED} --hardware FILE",
        ".json",
        json_of(PROFILE | {"kernels": [KERNEL, {**KERNEL, "form": KNEE}]}),
    ),
    "routing": (
        "simdep simulate --model MODEL --hardware h20 --ag 1 --eg 2 --routing FILE",
        ".csv",
        csv_of(ROUTING),
    ),
    "routing lists": (
        "simdep simulate --model MODEL --hardware h20 --ag 1 --eg 2 --routing FILE",
        ".json",
        json_of([[3, 1, 2, 2], [1, 1, 1, 1]]),
    ),
    "measurements": ("simdep fit FILE --form linear --out out.json", ".csv", csv_of(GEMM)),
    "evaluated": ("simdep costs evaluate FILE --hardware h100", ".csv", csv_of(GEMM)),
    "events": ("simdep replay FILE", ".csv", csv_of(EVENTS)),
    "published": ("simdep reproduce fastafd --measured FILE", ".csv", csv_of(PUBLISHED)),
    "stages": (
        "simdep solve --max-r1 2 --max-r2 2 --stage-times-model FILE",
        ".toml",
        text_of(STAGES),
    ),
    "stages in JSON": (
        "simdep solve --max-r1 2 --max-r2 2 --stage-times-model FILE",
        ".json",
        json_of(
            {
                "attention": {"alpha_us": 10, "beta_us": 1},
                "shared": {"alpha_us": 10},
                "expert": {"alpha_us": 10, "beta_us": 1},
                "link": {"alpha_us": 10, "beta_us": 1},
                "layers": 2,
                "samples": 2,
            }
        ),
    ),
}
TABLE = "r1,m_a_samples,makespan_us,memory_fits\n1,2,5.5,True\n2,1,4.5,True\n"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A working folder that no test writes to twice under one name by chance."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        Path("MODEL.json").write_text(json.dumps(MOE))
        yield Path(name)
        os.chdir(before)


@pytest.mark.parametrize("reader", COMMANDS)
def test_a_command_takes_a_file_or_refuses_it_by_its_name(reader: str, folder: Path) -> None:
    """Exit code 0, 2 or 3; and 2 with one printable sentence that names the file."""
    command, suffix, contents = COMMANDS[reader]
    path = folder / f"given{suffix}"
    line = command.replace("MODEL", "./MODEL.json").replace("FILE", path.name)

    @FUZZ
    @given(contents)
    def attempt(content: str) -> None:
        path.write_text(content, newline="", errors="surrogatepass")
        printed, said = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
            code = run(line)
        sentence = said.getvalue().removesuffix("\n")
        assert code in (0, 2, 3), sentence
        if code == 2:
            assert path.name in sentence or ": --" in sentence  # or the flag that does not fit it
            assert sentence.isprintable()
            assert len(sentence) <= 300
            assert not any(raw in sentence for raw in RAW)

    attempt()


def timeline(path: Path) -> object:
    return read_timeline(path, Schedule.from_dict(SCHEDULE), "sim")


LOADERS: dict[str, tuple[Callable[[Path], object], str, st.SearchStrategy[str]]] = {
    "cases": (load_cases, ".json", json_of(CASES)),
    "plan": (Plan.load, ".json", json_of(PLAN)),
    "timeline": (timeline, ".csv", csv_of(TIMELINE.replace("A[0.0],x", "A[0.0],attention"))),
    "JSON lines": (
        lambda path: list(files.read_json_lines(path)),
        ".jsonl",
        text_of('{"index": 0, "ranks": [1]}\n' * 2),
    ),
}


@pytest.mark.parametrize("reader", LOADERS)
def test_a_file_is_read_or_refused_by_its_name(reader: str, folder: Path) -> None:
    load, suffix, contents = LOADERS[reader]
    path = folder / f"loaded{suffix}"

    @FUZZ
    @given(contents)
    def attempt(content: str) -> None:
        path.write_text(content, newline="", errors="surrogatepass")
        try:
            load(path)
        except InputError as error:
            assert path.name in str(error)

    attempt()
