"""One scenario has one answer: simulate, compare, explain, sweep, the page and Python agree.

Random scenarios over all policies, granularities, placements and costs; where one refuses a
scenario, all do.
"""

from __future__ import annotations

import io
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dashboard.answers
import simdep
from dashboard.answers import answer, question_of
from simdep.analysis.metrics import METRICS
from simdep.cli.run import main
from simdep.policies import BUILTIN, Policy, find
from simdep.scenario.fields import override

Answer = dict[str, Any] | str  # the results, or the sentence that refuses the scenario
TIMELINES_ALONE = {"exposed_communication_us", "hidden_communication_pct"}  # not in sweeps
FOLDER = Path(tempfile.mkdtemp())
STAGES = {"projection": 6, "core": 4, "shared": 3, "a2e": 2.5, "expert": 5, "e2a": 3}
TIMES = {f"costs.{stage}": time for stage, time in STAGES.items()}


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


@st.composite
def scenarios(draw: st.DrawFn) -> dict[str, Any]:
    """The fields of a scenario by name; what is left out is left open."""
    policy = find(draw(st.sampled_from(BUILTIN)))
    fields: dict[str, Any] = {"policy": policy.name, "layers": draw(st.integers(1, 2))}
    fields |= draw(granularities(policy))
    costs = draw(st.integers(0, 9))
    if costs == 0:  # stage times alone
        allowed = ("policy", "layers", "r1", "r2", "order")
        return TIMES | {name: value for name, value in fields.items() if name in allowed}
    fields |= draw(machines(policy))
    if costs == 1:
        fields |= TIMES
    return {name: value for name, value in fields.items() if value is not None}


@st.composite
def granularities(draw: st.DrawFn, policy: Policy) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if "r1" in policy.parameters or draw(st.booleans()):
        fields["r1"] = draw(maybe(st.integers(1, 3)))
    if "r2" in policy.parameters:
        fields["r2"] = draw(maybe(st.integers(1, 3)))
    if "order" in policy.parameters:
        fields["order"] = draw(maybe(st.sampled_from(["asas", "aass", "lookahead"])))
        fields["merge_last"] = draw(maybe(st.booleans()))
        fields["split"] = draw(maybe(st.sampled_from(["token", "expert"])))
        if draw(st.integers(0, 4)) == 0:
            fields |= {"r1": None, "r2": None, "split": None}
            fields |= {"micro_batches": [2, 1], "chunks": [[1, 3], [2, 2]]}
    return {name: value for name, value in fields.items() if value is not None}


@st.composite
def machines(draw: st.DrawFn, policy: Policy) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "model": draw(st.sampled_from(["deepseek-v2-lite", "qwen3-30b-a3b"])),
        "hardware": draw(st.sampled_from(["h20", "a6000", "h100"])),
        "phase": draw(maybe(st.just("decode"))),
        "seq_len": draw(st.sampled_from([64, 200])),
        "dispatch": draw(maybe(st.sampled_from(["per-expert", "per-gpu"]))),
        "a2e_dtype": draw(maybe(st.sampled_from(["bf16", "fp8"]))),
        "comm_sms": draw(maybe(st.sampled_from([0, 8]))),
        "link.gbytes_per_s": draw(maybe(st.just(25))),
    }
    fields |= draw(st.sampled_from([{}, {"samples": 6}, {"m_a": 2}, {"samples": 4}]))
    if policy.colocated:
        return fields | {"gpus": draw(st.sampled_from([1, 4]))}
    fields |= draw(st.sampled_from([{"ag": 1, "eg": 1}, {"ag": 2, "eg": 3}, {"ag": 3, "eg": 2}]))
    fields["shared_on"] = draw(maybe(st.sampled_from(["ag", "eg"])))
    fields["duplex"] = draw(maybe(st.just("half")))
    ranks = [{}, {}, {"routing": "zipf:1.2"}, {"routing": "power-law:1.2", "per_rank": True}]
    return fields | draw(st.sampled_from([*ranks, {"stragglers": {"EG.0": 1.5}}]))


def toml(tables: Mapping[str, Any], prefix: str = "") -> str:
    """Tables in the form of a file; their texts need no escapes."""
    lines, inner = [], []
    for key, value in tables.items():
        name = json.dumps(key) if "." in key else key
        if isinstance(value, Mapping):
            inner.append(f"[{prefix}{name}]\n{toml(value, f'{prefix}{name}.')}")
        else:
            lines.append(f"{name} = {json.dumps(value)}")
    return "\n".join([*lines, *inner])


def printed(command: str, *more: str) -> Answer:
    """What a command prints with --json, or the sentence with which it refuses."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([command, *more, "--json"])
    if code == 0:
        result: dict[str, Any] = json.loads(out.getvalue())
        return result
    assert code == 2, err.getvalue()
    return err.getvalue()


def answers(fields: dict[str, Any]) -> dict[str, Answer]:
    """The results of a scenario by every way to ask for it."""
    file = FOLDER / "scenario.toml"
    tables = override({}, fields)
    file.write_text(toml(tables))
    policy = str(fields["policy"])
    found: dict[str, Answer] = {
        "simulate": printed("simulate", str(file)),
        "explain": printed("explain", str(file)),
    }
    compared = printed("compare", policy, str(file))
    found["compare"] = compared if isinstance(compared, str) else compared["policies"][0]
    swept = printed("sweep", str(file), "--vary", f"layers={fields['layers']}")
    found["sweep"] = swept if isinstance(swept, str) else swept["rows"][0]
    try:
        found["python"] = simdep.simulate(simdep.Scenario.load(file)).metrics
    except ValueError as error:
        found["python"] = str(error)
    try:
        question = dashboard.answers.question_of(fields)
        found["page"] = dashboard.answers.answer(question, policy).results
    except ValueError as error:
        found["page"] = str(error)
    return found


def of_scenarios(test: Callable[..., None]) -> Callable[[], None]:
    """The same scenarios in every run."""
    slow = [HealthCheck.too_slow]
    options = settings(
        max_examples=50, derandomize=True, deadline=None, database=None, suppress_health_check=slow
    )
    return options(given(scenarios())(test))


@of_scenarios
def test_a_scenario_has_one_answer(fields: dict[str, Any]) -> None:
    """The same makespan and the same metrics under the same keys, or the same refusal."""
    found = answers(fields)
    expected = found["python"]
    for way, result in found.items():
        if isinstance(expected, str):
            assert isinstance(result, str), f"{way} answers what Python refuses: {expected}"
            assert _rule(expected) in result, way
            continue
        assert isinstance(result, dict), f"{way} refuses: {result}"
        keys = METRICS.keys() - (TIMELINES_ALONE if way == "sweep" else set())
        assert not _differing(result, expected, keys), way


@of_scenarios
def test_a_policy_on_the_command_line_is_that_of_compare_and_page(fields: dict[str, Any]) -> None:
    """What `simulate --policy P` answers is what `compare P` gives for a file without a policy, and
    the page for a form without one."""
    file = FOLDER / "open.toml"
    policy = str(fields["policy"])
    rest = {name: value for name, value in fields.items() if name != "policy"}
    file.write_text(toml(override({}, rest)))
    alone = printed("simulate", str(file), "--policy", policy)
    if isinstance(alone, str):
        return
    compared = printed("compare", policy, str(file))
    assert isinstance(compared, dict), compared
    assert not _differing(compared["policies"][0], alone, METRICS)
    assert not _differing(answer(question_of(rest), policy).results, alone, METRICS)


def _differing(one: Answer, other: Answer, keys: Iterable[str]) -> dict[str, Any]:
    """The metrics that differ, with both values."""
    assert isinstance(one, dict) and isinstance(other, dict)
    return {key: (one[key], other[key]) for key in keys if not _same(one[key], other[key])}


def _same(one: object, other: object) -> bool:
    """Texts and integers exactly, other numbers to 9 digits."""
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    return one == other


def _rule(sentence: str) -> str:
    """An error without the place that it begins with."""
    return sentence.rpartition(".toml: ")[2][:60]
