"""Cases: which scenarios a real run takes, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from cases import small_case
from schedules import findep

from realrun.backends.shared_memory import LinkSpeed
from realrun.cases import Case, load_cases
from realrun.limits import check_link_time, check_memory, rank_bytes
from realrun.validation.case_sets import standard_cases
from simdep.checks import InfeasibleError
from simdep.policies import build

FLAT = {
    "model": "deepseek-v2-lite",
    "layers": 2,
    "seq_len": 64,
    "m_a": 2,
    "ag": 1,
    "eg": 1,
    "policy": "findep",
    "order": "aass",
    "r1": 2,
    "r2": 2,
    "scale": 0.125,
    "link_mbytes_per_s": 300,
    "link_alpha_us": 20,
}
TABLES: dict[str, Any] = {
    "model": "deepseek-v2-lite",
    "layers": 2,
    "scale": 0.125,
    "deployment": {"ag": 1, "eg": 1, "link": {"gbytes_per_s": 0.3, "alpha_us": 20}},
    "workload": {"seq_len": 64, "samples": 4},
    "schedule": {"policy": "findep", "order": "aass", "r1": 2, "r2": 2},
}


def test_an_entry_by_names_and_one_in_tables_are_the_same_case() -> None:
    assert Case.from_dict(FLAT) == Case.from_dict(TABLES)
    assert Case.from_dict(FLAT).speed == LinkSpeed(20, 300)


def test_the_links_own_keys_go_before_the_link_of_the_scenario() -> None:
    assert Case.from_dict(TABLES | {"link_mbytes_per_s": 100}).speed == LinkSpeed(20, 100)


def test_a_case_says_what_it_was_made_from() -> None:
    assert Case.from_dict(FLAT).to_dict() == FLAT
    assert Case.from_dict(Case.from_dict(TABLES).to_dict()) == Case.from_dict(TABLES)


def test_an_entry_takes_uneven_granularity() -> None:
    uneven = {"micro_batches": [3, 1], "chunks": [[1, 3], [1, 1]], "merge_last": True}
    entry = {key: value for key, value in FLAT.items() if key not in ("m_a", "r1", "r2")}
    case = Case.from_dict(entry | uneven)
    assert case.samples == [3, 1]
    sizes = [task.tokens for task in case.schedule.streams["A2E"] if task.layer == 0]
    assert sizes == [48, 144, 32, 32]
    assert case.to_dict()["micro_batches"] == (3, 1)


def test_fields_that_are_left_out_are_those_of_the_scenario() -> None:
    case = Case.from_dict({"model": "deepseek-v2-lite", "scale": 0.0625, "ag": 1, "eg": 2})
    assert (case.scenario.layers, case.seq_len, case.scenario.policy) == (26, 2048, "findep")
    assert case.speed == LinkSpeed()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"phase": "decode"}, "phase='decode': realrun runs phase='prefill' only"),
        ({"dispatch": "per-gpu"}, "dispatch='per-gpu': realrun runs dispatch='per-expert' only"),
        ({"shared_on": "eg"}, "shared_on='eg': realrun runs shared_on='ag' only"),
        ({"duplex": "half"}, "duplex='half': realrun runs duplex='full' only"),
        ({"split": "expert"}, "split='expert': realrun runs split='token' only"),
        ({"link": "inter-node"}, "link='inter-node': realrun runs link='intra-node' only"),
        ({"comm_sms": 20}, "comm_sms=20: realrun runs comm_sms=0 only"),
        ({"expert_gemm": "plain"}, "expert_gemm='plain': realrun runs expert_gemm='grouped' only"),
        ({"a2e_dtype": "fp8"}, "a2e_dtype='fp8': realrun runs a2e_dtype='fp32' only"),
        ({"contention": 0.1}, "contention=0.1: a real run has that of the machine; leave it out"),
        (
            {"ranks": {"routing": "zipf:1.2"}},
            "ranks: in a real run ranks differ as they do; leave the table out",
        ),
        (
            {"policy": "two-batch-prefill"},
            "policy='two-batch-prefill' is for colocated GPUs; realrun runs an AG and an EG",
        ),
        ({"model": "gpt-oss-120b"}, "model='gpt-oss-120b@0.125' has a sliding window"),
    ],
)
def test_what_a_real_run_does_not_do_is_refused_by_its_field(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as error:
        Case.from_dict(FLAT | fields)
    assert str(error.value).startswith(message)
    assert len(str(error.value)) <= 300


def test_colocated_gpus_are_refused() -> None:
    entry = {key: value for key, value in FLAT.items() if key not in ("ag", "eg")}
    with pytest.raises(ValueError, match="gpus=2: realrun runs an AG and an EG; give ag and eg"):
        Case.from_dict(entry | {"gpus": 2})


def test_a_field_stands_once_in_an_entry() -> None:
    with pytest.raises(ValueError, match="ag is given twice, in its table and by name"):
        Case.from_dict(TABLES | {"ag": 2})


def test_hardware_and_memory_are_those_of_the_machine() -> None:
    tables = {**TABLES, "deployment": {**TABLES["deployment"], "hardware": "no-such-machine"}}
    assert Case.from_dict(tables) == Case.from_dict(TABLES)


def test_a_data_type_that_is_stated_is_not_replaced() -> None:
    assert Case.from_dict(FLAT).on_backend("bf16", "nccl").scenario.workload.dtype == "bf16"
    stated = Case.from_dict(FLAT | {"dtype": "bf16"})
    with pytest.raises(ValueError, match="dtype='bf16': the ranks of this machine compute in fp32"):
        stated.on_backend("fp32", "shm")


def test_a_schedules_file_names_the_entry_at_fault(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps([FLAT, {**FLAT, "r1": 0}]))
    with pytest.raises(ValueError, match=r"mine.json: schedule 1: r1=0; expected an integer >= 1"):
        load_cases(path)
    path.write_text(json.dumps([FLAT, {**FLAT, "modle": "x"}]))
    with pytest.raises(ValueError, match=r"schedule 1: .*'modle'; did you mean 'model'"):
        load_cases(path)


def test_a_schedule_of_ones_own_runs_on_whole_samples() -> None:
    case = small_case(layers=2, seq_len=16)
    assert case.with_schedule(findep(3, 2, 2, tokens=32)).scenario.layers == 3
    with pytest.raises(ValueError, match=r"A\[0\.0\]: tokens=5; expected whole samples of seq_len"):
        case.with_schedule(findep(2, 1, 1, tokens=5))


def test_a_schedule_of_ones_own_has_shared_experts_where_the_model_does() -> None:
    case = small_case(seq_len=16)
    with pytest.raises(ValueError, match=r"no tasks of shared experts; model \S+ has shared"):
        case.with_schedule(build("findep", 1, 1, 1, tokens=16, shared=False))


def test_a_case_that_does_not_fit_says_how_many_bytes_it_needs() -> None:
    whole = small_case(model="deepseek-v2", scale=1, layers=60, seq_len=2048)
    with pytest.raises(InfeasibleError, match=r"need [0-9,]+ bytes of memory on this host"):
        check_memory([whole])
    assert rank_bytes(whole)[1] > 900e9  # 60 layers of 160 experts in float32


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layers": 10**5}, "layers * r1 * r2 = 400,000 messages"),
        ({"ag": 10**6}, "ag + eg = 1,000,001 ranks; one host runs at most 256"),
    ],
)
def test_what_one_host_can_not_run_is_refused_before_it_is_laid_out(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as error:
        Case.from_dict(FLAT | fields)
    assert str(error.value).startswith(message)


def test_a_link_that_takes_hours_is_refused() -> None:
    """1,536 routed tokens of 128 floats each are 786,432 bytes in one direction."""
    case = small_case(seq_len=256, link_mbytes_per_s=0.001)
    with pytest.raises(InfeasibleError, match=r"take 786 s over a link of 0.001 MB/s"):
        check_link_time([case])
    check_link_time([replace(case, speed=LinkSpeed(50, 0.01))])


def test_cases_of_one_workload_do_the_same_work() -> None:
    small, other = small_case(m_a=4), small_case(m_a=2, r1=2)
    assert small.workload == other.workload
    assert small.workload != replace(other, speed=LinkSpeed(50, 1)).workload


def test_the_standard_schedules_are_those_of_before() -> None:
    """Counts and ends of the lists that the recorded validation ran."""
    assert [len(standard_cases(size)) for size in ("quick", "default")] == [24, 78]
    assert standard_cases("quick")[0].schedule.label == "naive"
