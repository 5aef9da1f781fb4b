"""Which schedules a real run can execute."""

from __future__ import annotations

from dataclasses import replace

from simdep.checks import InputError
from simdep.completeness import check_complete
from simdep.schedule import Kind, Schedule, Task

# What a task of a stream may wait for: a rank knows the end of its own computation and of what
# arrives, nothing else.
_VISIBLE = {"AG": {"AG", "E2A"}, "A2E": {"AG"}, "EG": {"EG", "A2E"}, "E2A": {"EG"}}


def check_executable(schedule: Schedule) -> None:
    """Raise ValueError unless the schedule has DEP's four streams, every layer has the same work,
    and every task waits for its data."""
    if set(schedule.streams) != set(_VISIBLE):
        raise InputError(
            f"realrun runs the streams {', '.join(_VISIBLE)}; "
            f"this schedule has {', '.join(schedule.streams)}"
        )
    for task in schedule:
        _check_task(task, schedule)
    _check_layers(schedule)
    check_complete(schedule)


def _check_task(task: Task, schedule: Schedule) -> None:
    stream = schedule.stream_of[task.name]
    if stream != task.kind.stream:
        raise InputError(f"{task} stands in stream {stream}; realrun runs it in {task.kind.stream}")
    if task.kind in (Kind.PROJECTION, Kind.CORE):
        raise InputError(f"{task}: realrun computes attention as one task, A[layer.mb]")
    if task.groups > 1:
        raise InputError(
            f"{task} is one of {task.groups} groups of experts; realrun cuts chunks by token"
        )
    for needed in task.after:
        if schedule.stream_of[needed] not in _VISIBLE[stream]:
            raise InputError(
                f"{task} waits for {needed}, whose end its rank can't see in a real run"
            )


def _check_layers(schedule: Schedule) -> None:
    """Every layer has every micro-batch, whole, in chunks that go and come back."""
    tokens = {task.mb: task.tokens for task in schedule if task.kind is Kind.ATTENTION}
    has_shared = any(task.kind is Kind.SHARED for task in schedule)
    chunks: dict[tuple[int, int], list[Task]] = {}
    for task in schedule.streams["A2E"]:
        chunks.setdefault((task.layer, task.mb), []).append(task)
    for layer in range(schedule.layers):
        for mb, count in tokens.items():
            _check_tokens(schedule, Task(Kind.ATTENTION, layer, mb, tokens=count))
            if has_shared:
                _check_tokens(schedule, Task(Kind.SHARED, layer, mb, tokens=count))
            _check_chunks(schedule, chunks.get((layer, mb), []), f"A[{layer}.{mb}]", count)


def _check_chunks(schedule: Schedule, chunks: list[Task], whole: str, tokens: int) -> None:
    chunk_tokens = sum(chunk.tokens for chunk in chunks)
    if chunk_tokens != tokens:
        raise InputError(f"the chunks of {whole} hold {chunk_tokens} tokens; it has {tokens}")
    for number, chunk in enumerate(sorted(chunks, key=lambda task: task.chunk or 0)):
        if chunk.chunk != number:
            raise InputError(f"{chunk}: the chunks of {whole} are not numbered from 0")
        for kind in (Kind.EXPERT, Kind.E2A):
            _check_tokens(schedule, replace(chunk, kind=kind))


def _check_tokens(schedule: Schedule, expected: Task) -> None:
    """Whether a task is there, with as many tokens as its micro-batch or chunk has."""
    if expected.name not in schedule.stream_of:
        raise InputError(f"{expected} is missing; every layer has every micro-batch")
    tokens = schedule[expected.name].tokens
    if tokens != expected.tokens:
        raise InputError(f"{expected}: tokens={tokens}; expected {expected.tokens}")
