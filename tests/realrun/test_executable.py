"""Which schedules a real run can execute."""

from __future__ import annotations

from itertools import chain

import pytest

pytest.importorskip("torch")

from cases import small_case
from schedules import findep

from realrun.runtime.executable import check_executable
from simdep.policies import Job, build, find
from simdep.schedule import Schedule, Task


def test_a_schedule_that_forgets_a_dependency_is_not_executable() -> None:
    schedule = findep(1, 1, 1)
    expert = Task.parse("E[0.0.0]")
    broken = Schedule({**schedule.streams, "EG": (expert,)})
    with pytest.raises(
        ValueError, match=r"E\[0\.0\.0\] does not wait for A2E\[0\.0\.0\], whose result it needs"
    ):
        check_executable(broken)


def test_a_schedule_may_not_wait_for_what_its_rank_cannot_see() -> None:
    schedule = findep(1, 2, 1)
    second = Task.parse("A[0.1]", after=("E[0.0.0]",))
    broken = Schedule(
        {**schedule.streams, "AG": (schedule["A[0.0]"], second, *schedule.streams["AG"][1::2])}
    )
    with pytest.raises(
        ValueError, match=r"A\[0\.1\] waits for E\[0\.0\.0\], whose end its rank can't see"
    ):
        check_executable(broken)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (build("ep", 1), "realrun runs the streams AG, A2E, EG, E2A; this schedule has GPU, COMM"),
        (build("step3", 1, 3), "S[0.0] stands in stream EG; realrun runs it in AG"),
        (
            find("findep").schedule(Job(1, ((4, 0),), split="expert")),
            "A2E[0.0.0] is one of 2 groups of experts; realrun cuts chunks by token",
        ),
    ],
)
def test_what_is_not_run_is_refused_in_a_sentence(schedule: Schedule, message: str) -> None:
    with pytest.raises(ValueError) as error:
        check_executable(schedule)
    assert str(error.value) == message


@pytest.mark.parametrize("policy", ["naive", "pppipe", "findep"])
def test_the_policies_are_executable(policy: str) -> None:
    check_executable(build(policy, 3, 1 if policy == "naive" else 3, 1, tokens=5))


@pytest.mark.parametrize(
    ("stream", "task", "tokens", "message"),
    [
        ("AG", "A[0.0]", None, "A[0.0] is missing; every layer has every micro-batch"),
        ("AG", "S[1.1]", None, "S[1.1] is missing; every layer has every micro-batch"),
        ("AG", "A[1.0]", 16, "A[0.0]: tokens=32; expected 16"),
        ("A2E", "A2E[1.0.1]", None, "the chunks of A[1.0] hold 16 tokens; it has 32"),
        ("EG", "E[0.1.0]", 8, "E[0.1.0]: tokens=8; expected 16"),
        ("E2A", "E2A[1.1.1]", None, "E2A[1.1.1] is missing; every layer has every micro-batch"),
    ],
)
def test_a_schedule_of_ones_own_has_the_same_work_in_every_layer(
    stream: str, task: str, tokens: int | None, message: str
) -> None:
    schedule = findep(2, 2, 2, tokens=32).to_dict()
    rows = schedule["streams"][stream]
    (row,) = (row for row in rows if row["task"] == task)
    if tokens is None:
        rows.remove(row)
        for other in chain.from_iterable(schedule["streams"].values()):
            other["after"] = [name for name in other["after"] if name != task]
    else:
        row["tokens"] = tokens
    with pytest.raises(ValueError) as error:
        check_executable(Schedule.from_dict(schedule))
    assert str(error.value) == message


def test_attention_is_one_task_in_a_real_run() -> None:
    case = small_case(seq_len=16)
    tasks = [
        {"task": "P[0.0]", "tokens": 16},
        {"task": "C[0.0]", "tokens": 16, "after": ["P[0.0]"]},
        {"task": "S[0.0]", "tokens": 16, "after": ["C[0.0]"]},
    ]
    after = {"A2E": "C[0.0]", "E": "A2E[0.0.0]", "E2A": "E[0.0.0]"}
    streams = {"AG": tasks}
    for symbol, stream in (("A2E", "A2E"), ("E", "EG"), ("E2A", "E2A")):
        name = f"{symbol}[0.0.0]"
        streams[stream] = [{"task": name, "tokens": 16, "after": [after[symbol]]}]
    halved = Schedule.from_dict({"format": 1, "streams": streams})
    with pytest.raises(ValueError, match=r"P\[0\.0\]: realrun computes attention as one task"):
        case.with_schedule(halved)
