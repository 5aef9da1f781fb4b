"""What a file or a flag states wins; the set-up of a policy fills what is left open, in every
command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli import one_sentence, run

from simdep.planning.axes import Axis
from simdep.planning.choice import Choice, simulate_choice
from simdep.planning.sweep import Sweep
from simdep.planning.sweep_rows import sweep_rows as rows_of
from simdep.policies import adapted, set_up
from simdep.prediction import simulate
from simdep.scenario.spec import Scenario

STATED_US = 577_450.8039160025  # 577,853.6 us in compare before, which overwrote the dispatch
TWO_BATCH_US = 540_806.0793530853  # refused by simulate before


def data(policy: str, where: dict[str, Any] | None = None, **workload: Any) -> dict[str, Any]:
    return {
        "model": "deepseek-v2",
        "layers": 8,
        "deployment": {"hardware": "h20"} | (where or {"ag": 3, "eg": 5}),
        "workload": {"seq_len": 2048} | workload,
        "schedule": {"policy": policy},
    }


STEP3 = data("step3", {"ag": 3, "eg": 5, "dispatch": "per-gpu"}, samples=12)
TWO_BATCH = data("two-batch-prefill", {"gpus": 8}, samples=4)


def toml(tables: dict[str, Any]) -> str:
    """One line a key; a table becomes an inline one."""
    lines = []
    for key, value in tables.items():
        if isinstance(value, dict):
            inner = ", ".join(f"{name} = {json.dumps(each)}" for name, each in value.items())
            lines.append(f"{key} = {{ {inner} }}")
        else:
            lines.append(f"{key} = {json.dumps(value)}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("tables", "makespan"), [(STEP3, STATED_US), (TWO_BATCH, TWO_BATCH_US)], ids=["step3", "two"]
)
def test_one_file_has_one_answer(
    tables: dict[str, Any],
    makespan: float,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """simulate, compare, explain, sweep over anything, and Python."""
    file = tmp_path / "scenario.toml"
    file.write_text(toml(tables))
    policy = tables["schedule"]["policy"]
    answers = [simulate(Scenario.from_dict(tables)).makespan_us]
    for command in (f"simulate {file}", f"compare {policy} {file}", f"explain {file}"):
        assert run(f"simdep {command} --json") == 0
        result = json.loads(capsys.readouterr().out)
        answers.append(result.get("policies", [result])[0]["makespan_us"])
    for axis in ("layers=8", f"policy={policy}"):
        assert run(f"simdep sweep {file} --vary {axis} --json") == 0
        answers.append(json.loads(capsys.readouterr().out)["rows"][0]["makespan_us"])
    assert answers == pytest.approx([makespan] * len(answers), rel=1e-12)


def test_a_set_up_fills_only_what_is_open() -> None:
    found = set_up(Scenario.from_dict(STEP3))
    where = found.scenario.deployment
    assert (found.scenario.r1, where.shared_on, where.dispatch, where.a2e_dtype) == (
        3,
        "eg",
        "per-gpu",
        "fp8",
    )
    assert found.assumptions == (
        "policy step3, as its paper has it: r1=3, shared_on=eg, a2e_dtype=fp8",
    )
    assert set_up(found.scenario).filled == ()


def test_a_stated_default_is_stated() -> None:
    """comm_sms = 0 and r1 = 1 are answers of the file, not places that it leaves open."""
    tables = data("two-batch-prefill", {"gpus": 8, "comm_sms": 0}, samples=4)
    assert set_up(Scenario.from_dict(tables)).scenario.deployment.comm_sms == 0
    assert set_up(Scenario.from_dict(TWO_BATCH)).scenario.deployment.comm_sms == 24
    one = data("step3", samples=12)
    one["schedule"]["r1"] = 1
    assert set_up(Scenario.from_dict(one)).scenario.r1 == 1


@pytest.mark.parametrize(
    ("workload", "samples"), [({}, 2), ({"m_a": 3}, 6), ({"samples": 8}, 8)], ids=str
)
def test_samples_that_are_not_stated_follow_the_r1_of_the_policy(
    workload: dict[str, int], samples: int
) -> None:
    found = set_up(Scenario.from_dict(data("two-batch-prefill", {"gpus": 8}, **workload))).scenario
    assert (found.r1, found.workload.samples) == (2, samples)
    other = Scenario.from_dict(data("ep", {"gpus": 8}, **workload))
    beside = adapted(other, "two-batch-prefill").scenario
    assert (beside.r1, beside.workload) == (found.r1, found.workload)


def test_stated_samples_that_the_r1_of_a_policy_does_not_divide_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    served = "--model deepseek-v2 --hardware h20 --samples 5"
    assert run(f"simdep simulate {served} --ag 3 --eg 5 --policy step3") == 2
    one_sentence(
        capsys,
        "samples=5: policy step3 has r1=3 micro-batches, which does not divide them; "
        "use a multiple of 3, or give r1",
    )
    assert run(f"simdep simulate {served} --gpus 8 --policy two-batch-decode") == 2
    one_sentence(capsys, "does not divide them; use a multiple of 2")


def test_another_policy_is_compared_on_what_the_scenario_states() -> None:
    """Its set-up fills the rest, r1 and samples are adapted, and the changes are listed."""
    scenario = Scenario.from_dict(data("findep", {"ag": 3, "eg": 5, "dispatch": "per-gpu"}, m_a=4))
    found = simulate_choice(Choice("step3"), scenario)
    assert found.scenario.deployment.dispatch == "per-gpu"
    assert found.changes == (
        "12 samples in all became 36, 12 on each GPU with attention",
        "shared_on=ag became eg",
        "a2e_dtype=that of the workload became fp8",
    )
    assert found.makespan_us == pytest.approx(STATED_US, rel=1e-12)


def test_a_policy_that_is_left_leaves_its_set_up_behind() -> None:
    step3 = Scenario.from_dict(STEP3)
    found = adapted(step3, "pppipe").scenario
    assert found.deployment == step3.deployment
    assert (found.r1, found.workload.samples) == (3, 12)


@pytest.mark.parametrize("policy", ["eps-moe", "single-batch"])
def test_a_stated_split_is_not_replaced(policy: str) -> None:
    tables = data(policy, {"gpus": 8}, samples=4)
    assert set_up(Scenario.from_dict(tables)).scenario.split == "expert"
    tables["schedule"]["split"] = "token"
    with pytest.raises(ValueError, match=f"split='token': policy {policy} cuts chunks by expert"):
        simulate(Scenario.from_dict(tables))


def power_law(**schedule: int) -> dict[str, Any]:
    tables = data("findep", samples=12)
    tables["schedule"] |= schedule
    return tables | {"layers": 2, "ranks": {"routing": "power-law:1.2"}}


def test_a_law_draws_the_routing_of_the_chunks_that_are_simulated() -> None:
    """Loads of a power law depend on the tokens of a chunk, whoever states its size."""
    alone = simulate(Scenario.from_dict(power_law(r1=3, r2=4))).makespan_us
    base: Scenario = Scenario.from_dict(power_law())
    beside = simulate_choice(Choice("findep", r1=3, r2=4), base).makespan_us
    [[point]] = rows_of(Sweep(power_law(), (Axis.parse("r1=3"), Axis.parse("r2=4"))))
    assert alone == beside == point["makespan_us"]
