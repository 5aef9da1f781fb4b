"""Schedules: names, the JSON form, what is refused, the order of work."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import findep, naive
from strategies import policy_schedules, random_schedules, tasks

from simdep.policies import build
from simdep.precedence import CycleError
from simdep.schedule import Kind, Schedule, Task


def attention(mb: int, *after: str) -> Task:
    return Task(Kind.ATTENTION, 0, mb, after=after)


# Names


@given(tasks())
def test_a_name_parses_to_the_task_that_prints_it(task: Task) -> None:
    """parse(name(task)) == task, for every kind and number."""
    assert Task.parse(task.name) == task
    assert str(task) == task.name


@given(
    st.sampled_from(["A", "S", "A2E", "E", "E2A"]),
    st.lists(st.integers(0, 999), min_size=2, max_size=3),
)
def test_a_task_name_prints_as_it_was_read(symbol: str, numbers: list[int]) -> None:
    """name(parse(text)) == text, where text has as many numbers as its kind needs."""
    wanted = 2 if symbol in ("A", "S") else 3
    text = f"{symbol}[{'.'.join(map(str, [*numbers, 0][:wanted]))}]"
    assert Task.parse(text).name == text


@pytest.mark.parametrize(
    "text", ["", "A", "A[0]", "A[0,1]", "A[-1.0]", "X[0.0]", "A[0.0] ", "A[0.0]\n", "E[0.0.0.0]"]
)
def test_a_text_that_is_no_name_is_refused_by_its_text(text: str) -> None:
    with pytest.raises(ValueError) as error:
        Task.parse(text)
    assert str(error.value).startswith(f"{text!r} is not a task name")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("A[0.0.0]", "A[0.0.0]: a task of kind attention has no chunk number"),
        ("S[1.2.3]", "S[1.2.3]: a task of kind shared has no chunk number"),
        ("E[0.0]", "E[0.0]: a task of kind expert needs chunk number"),
        ("A2E[0.0]", "A2E[0.0]: a task of kind a2e needs chunk number"),
    ],
)
def test_attention_and_shared_experts_have_no_chunk_and_the_others_need_one(
    name: str, rule: str
) -> None:
    with pytest.raises(ValueError) as error:
        Task.parse(name)
    assert str(error.value) == rule


def test_numbers_count_from_zero() -> None:
    with pytest.raises(
        ValueError, match=r"^A\[0\.-1\]: layer, micro-batch, chunk and rank count from 0$"
    ):
        Task(Kind.ATTENTION, 0, -1)


def test_a_task_handles_at_least_one_token() -> None:
    with pytest.raises(ValueError, match=r"^A\[2\.1\]: tokens=0; a task handles at least 1 token$"):
        Task(Kind.ATTENTION, 2, 1, tokens=0)


def test_kinds_know_their_stream_and_their_word() -> None:
    assert [kind.stream for kind in Kind] == ["AG", "AG", "AG", "AG", "A2E", "EG", "E2A"]
    assert [kind.label for kind in Kind] == [
        "attention",
        "projection",
        "core",
        "shared",
        "a2e",
        "expert",
        "e2a",
    ]
    assert [kind.label for kind in Kind if kind.is_transfer] == ["a2e", "e2a"]
    assert [kind.label for kind in Kind if kind.is_chunked] == ["a2e", "expert", "e2a"]


# The JSON form


@given(policy_schedules())
def test_a_schedule_equals_itself_read_back(schedule: Schedule) -> None:
    """from_dict(to_dict(s)) == s, through JSON text and through a file, with the streams in the
    same order."""
    read = Schedule.from_dict(json.loads(json.dumps(schedule.to_dict())))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "schedule.json"
        schedule.save(path)
        loaded = Schedule.load(path)
    assert read == loaded == schedule
    assert str(read) == str(loaded) == str(schedule)


@given(random_schedules())
def test_a_schedule_of_any_shape_equals_itself_read_back(schedule: Schedule) -> None:
    """from_dict(to_dict(s)) == s also for streams and dependencies that no policy makes."""
    assert Schedule.from_dict(json.loads(json.dumps(schedule.to_dict()))) == schedule


def test_tokens_and_dependencies_may_be_left_out_of_the_json() -> None:
    data = {"format": 1, "streams": {"AG": [{"task": "A[0.0]"}]}}
    assert Schedule.from_dict(data) == Schedule({"AG": (attention(0),)})


def streams(*rows: Any) -> dict[str, Any]:
    return {"format": 1, "streams": {"AG": list(rows)}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], 'a schedule is a JSON object with the key "streams"'),
        ({"format": 1}, 'a schedule is a JSON object with the key "streams"'),
        ({"format": 1, "streams": []}, 'a schedule is a JSON object with the key "streams"'),
        ({"streams": {}}, "schedule format None is not known; this version reads format 1"),
        (
            {"format": 2, "streams": {}},
            "schedule format 2 is not known; this version reads format 1",
        ),
        (streams("A[0.0]"), "'A[0.0]' is not a task; write"),
        (streams({"tokens": 3}), "{'tokens': 3} is not a task; write"),
        (streams({"task": "B[0.0]"}), "'B[0.0]' is not a task name"),
        (
            streams({"task": "A[0.1]", "cost": 3}),
            "A[0.1]: unknown key 'cost'; a task has task, tokens, after and groups",
        ),
        (
            streams({"task": "A[0.1]", "tokens": 2.5}),
            "A[0.1]: tokens=2.5; expected an integer >= 1",
        ),
        (
            streams({"task": "A[0.1]", "tokens": True}),
            "A[0.1]: tokens=True; expected an integer >= 1",
        ),
        (
            streams({"task": "A[0.1]", "tokens": 0}),
            "A[0.1]: tokens=0; expected an integer >= 1",
        ),
        (
            streams({"task": "A[0.1]", "after": "A[0.0]"}),
            "A[0.1]: after='A[0.0]' is not a list of task names",
        ),
        (
            streams({"task": "A[0.1]", "after": [0]}),
            "A[0.1]: after=[0] is not a list of task names",
        ),
        (
            streams({"task": "A[0.1]", "after": ["A[0.0]"]}),
            "A[0.1] waits for A[0.0], which is not in the schedule",
        ),
        (streams({"task": "A[0.1]"}, {"task": "A[0.1]"}), "A[0.1] appears twice in the schedule"),
        (
            streams({"task": "A[0.1]", "after": ["A[0.1]"]}),
            "the schedule can never finish: A[0.1] waits for A[0.1]",
        ),
    ],
)
def test_malformed_json_is_refused_by_the_task_or_field_at_fault(data: Any, message: str) -> None:
    with pytest.raises(ValueError) as error:
        Schedule.from_dict(data)
    assert str(error.value).startswith(message)


def test_a_file_that_is_no_json_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text("{")
    with pytest.raises(ValueError) as error:
        Schedule.load(path)
    assert str(error.value).startswith(f"{path}: line 1, column 2: expected JSON")


def test_a_file_that_is_not_there_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        Schedule.load(tmp_path / "none.json")
    assert str(error.value).startswith(f"{tmp_path / 'none.json'}: ")


def test_a_malformed_file_is_refused_by_its_name_and_its_task(tmp_path: Path) -> None:
    path = tmp_path / "circle.json"
    path.write_text(
        json.dumps(streams({"task": "A[0.0]", "after": ["A[0.1]"]}, {"task": "A[0.1]"}))
    )
    with pytest.raises(ValueError) as error:
        Schedule.load(path)
    message = "the schedule can never finish: A[0.0] waits for A[0.1] waits for A[0.0]"
    assert str(error.value) == f"{path}: {message}"


# What is refused


def test_a_task_has_one_place() -> None:
    with pytest.raises(
        ValueError, match=r"^A\[0\.1\] appears twice in the schedule; every task has one place$"
    ):
        Schedule({"X": (attention(0), attention(1)), "Y": (attention(1),)})


def test_a_dependency_has_to_exist() -> None:
    with pytest.raises(
        ValueError, match=r"^A\[0\.0\] waits for S\[9\.9\], which is not in the schedule$"
    ):
        Schedule({"X": (attention(0, "S[9.9]"),)})


def test_a_circle_over_streams_and_dependencies_is_named() -> None:
    schedule = Schedule(
        {"X": (attention(0, "A[0.3]"), attention(1)), "Y": (attention(2, "A[0.1]"), attention(3))}
    )
    with pytest.raises(ValueError) as error:
        _ = schedule.in_order
    circle = "A[0.0] waits for A[0.3] waits for A[0.2] waits for A[0.1] waits for A[0.0]"
    assert str(error.value) == f"the schedule can never finish: {circle}"


def test_a_circle_is_named_without_the_tasks_that_only_wait_for_it() -> None:
    schedule = Schedule(
        {
            "X": (attention(0, "A[0.1]"),),
            "Y": (attention(1, "A[0.2]"),),
            "Z": (attention(2, "A[0.1]"),),
        }
    )
    with pytest.raises(
        ValueError, match=r"finish: A\[0\.1\] waits for A\[0\.2\] waits for A\[0\.1\]$"
    ):
        _ = schedule.in_order


def test_a_cycle_shows_the_steps_around_it_with_its_tasks_marked() -> None:
    long = tuple(attention(mb) for mb in range(200))
    stuck = (*long[:120], attention(120, "A[0.501]"), *long[121:])
    schedule = Schedule({"X": stuck, "Y": (attention(500, "A[0.150]"), attention(501))})
    with pytest.raises(CycleError) as error:
        _ = schedule.in_order
    assert error.value.cycle[0] == error.value.cycle[-1] == "A[0.120]"
    assert set(error.value.cycle) >= {"A[0.501]", "A[0.500]", "A[0.150]"}
    lines = error.value.grid.splitlines()
    assert lines[0].split() == ["step", "X", "Y"]
    assert lines[1].split() == ["0", "A[0.0]", ">A[0.500]<"]
    assert "120   >A[0.120]<" in lines
    assert len(lines) < 45
    assert lines.count("...") == 2


def test_a_long_cycle_is_one_sentence_of_300_letters() -> None:
    waits = [attention(mb, f"A[0.{(mb + 1) % 99}]") for mb in range(99)]
    with pytest.raises(CycleError, match="waits for 93 more tasks waits for") as error:
        _ = Schedule({f"X@{mb}": (task,) for mb, task in enumerate(waits)}).in_order
    assert len(str(error.value)) < 300
    assert len(error.value.cycle) == 100


def test_a_file_with_a_cycle_keeps_its_grid(tmp_path: Path) -> None:
    path = tmp_path / "cycle.json"
    path.write_text(json.dumps(streams({"task": "A[0.0]", "after": ["A[0.0]"]})))
    with pytest.raises(CycleError, match=f"^{path}: the schedule can never finish") as error:
        Schedule.load(path)
    assert error.value.grid == "step  AG\n0     >A[0.0]<"


def test_a_grid_has_a_line_a_step_and_a_column_a_stream() -> None:
    assert naive(1).grid().splitlines() == [
        "step  AG      A2E         EG        E2A",
        "0     A[0.0]  A2E[0.0.0]  E[0.0.0]  E2A[0.0.0]",
        "1     S[0.0]",
    ]


# Whose data a task needs


@settings(max_examples=300)
@given(policy_schedules())
def test_every_task_of_a_policy_waits_for_its_data(schedule: Schedule) -> None:
    """What a task needs by its data stands before it, through streams and dependencies."""
    ancestors: dict[str, set[str]] = {}
    for task in schedule.in_order:
        direct = schedule.predecessors[task.name]
        ancestors[task.name] = set(direct).union(*(ancestors[name] for name in direct))
        assert ancestors[task.name].issuperset(schedule.data_of(task))


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("A[0.0]", ()),
        ("A[1.0]", ("E2A[0.0.0]", "E2A[0.0.1]", "S[0.0]")),
        ("S[1.0]", ("A[1.0]",)),
        ("A2E[1.0.1]", ("A[1.0]",)),
        ("E[1.0.1]", ("A2E[1.0.1]",)),
        ("E2A[1.0.1]", ("E[1.0.1]",)),
    ],
)
def test_data_of_a_task_follows_eq_5(name: str, needed: tuple[str, ...]) -> None:
    schedule = findep(2, 1, 2)
    assert schedule.data_of(schedule[name]) == needed


def test_shared_experts_on_the_eg_return_with_the_last_chunk() -> None:
    schedule = build("step3", 2, 1)
    assert schedule.data_of(schedule["S[0.0]"]) == ("A2E[0.0.0]",)
    assert schedule.data_of(schedule["E2A[0.0.0]"]) == ("E[0.0.0]", "S[0.0]")
    assert schedule.data_of(schedule["A[1.0]"]) == ("E2A[0.0.0]",)


# The order of work


def comes_after_its_predecessors(schedule: Schedule) -> bool:
    position = {task.name: place for place, task in enumerate(schedule.in_order)}
    fifo = all(
        position[before.name] < position[task.name]
        for served in schedule.streams.values()
        for before, task in pairwise(served)
    )
    return fifo and all(
        position[needed] < position[task.name] for task in schedule for needed in task.after
    )


@settings(max_examples=500)
@given(random_schedules() | policy_schedules())
def test_in_order_is_a_topological_order_of_all_tasks(schedule: Schedule) -> None:
    """in_order holds every task once, after the one before it in its stream and after all that it
    waits for."""
    assert sorted(task.name for task in schedule.in_order) == sorted(task.name for task in schedule)
    assert comes_after_its_predecessors(schedule)


def test_predecessors_are_the_dependencies_and_the_task_before_in_the_stream() -> None:
    schedule = Schedule(
        {"X": (attention(0), attention(1, "A[0.2]"), attention(3, "A[0.1]")), "Y": (attention(2),)}
    )
    assert schedule.predecessors == {
        "A[0.0]": (),
        "A[0.1]": ("A[0.2]", "A[0.0]"),
        "A[0.3]": ("A[0.1]",),
        "A[0.2]": (),
    }


# Degrees


def test_degrees_are_read_off_the_tasks() -> None:
    schedule = findep(4, 3, 2, tokens=7)
    assert (schedule.layers, schedule.r1, schedule.r2, schedule.tokens, len(schedule)) == (
        4,
        3,
        2,
        21,
        4 * 3 * 8,
    )


def test_r2_is_that_of_the_most_finely_cut_micro_batch() -> None:
    chunks = (
        Task(Kind.EXPERT, 0, 0, 0, tokens=5),
        *(Task(Kind.EXPERT, 0, 1, chunk) for chunk in range(3)),
    )
    assert Schedule({"EG": chunks}).r2 == 3


def test_chunks_of_unequal_length_survive_the_json_form() -> None:
    schedule = findep(1, 1, 3, tokens=8)
    read = Schedule.from_dict(schedule.to_dict())
    assert [task.tokens for task in read.streams["EG"]] == [3, 3, 2]


def test_an_empty_schedule_has_no_layers() -> None:
    empty = Schedule({})
    assert (empty.layers, empty.r1, empty.r2, empty.tokens, empty.in_order) == (0, 0, 0, 0, ())


def test_a_schedule_prints_one_line_a_stream() -> None:
    assert str(naive(1)) == "AG: A[0.0] S[0.0]\nA2E: A2E[0.0.0]\nEG: E[0.0.0]\nE2A: E2A[0.0.0]"


def test_a_task_is_found_by_its_name_and_knows_its_stream() -> None:
    schedule = naive(2)
    assert schedule["E[1.0.0]"].kind is Kind.EXPERT
    assert schedule.stream_of["S[1.0]"] == "AG"


@given(policy_schedules(), st.integers(1, 9))
def test_other_tokens_leave_streams_and_dependencies_as_they_are(
    schedule: Schedule, factor: int
) -> None:
    """Equal to a schedule built from such tasks, with everything that follows from them."""
    other = schedule.with_tokens(lambda task: factor * task.tokens + task.layer)
    streams = {
        stream: tuple(replace(task, tokens=factor * task.tokens + task.layer) for task in tasks)
        for stream, tasks in schedule.streams.items()
    }
    built = Schedule(streams, schedule.label)
    assert other == built
    assert (other.in_order, other.predecessors, other.tokens) == (
        built.in_order,
        built.predecessors,
        built.tokens,
    )
    assert {task.name: other[task.name] for task in other} == {task.name: task for task in built}
    assert str(other) == str(schedule)
