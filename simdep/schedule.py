"""A schedule: which task runs on which stream, in which order, after which others. Never a time.

The one rule is CUDA's stream-and-event model: a stream is a FIFO, and a task starts when the task
before it in its stream has ended and every task named in its `after` has ended. Work is counted in
tokens of one AG rank.

    >>> print(Schedule({"AG": (Task(Kind.ATTENTION, 0, 0),),
    ...                 "A2E": (Task(Kind.A2E, 0, 0, 0, after=("A[0.0]",)),)}))
    AG: A[0.0]
    A2E: A2E[0.0.0]
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

from simdep import files
from simdep.file_kinds import SCHEDULE

FORMAT = 1  # version of the JSON form


class Kind(Enum):
    """What a task does; the value is the symbol in its name.

    Where attention is cut in two, PROJECTION is what precedes its core, and CORE is the core, the
    output projection and the gate: together they are ATTENTION. A2E and E2A are dispatch and
    combine where groups are colocated.
    """

    ATTENTION = "A"
    PROJECTION = "P"
    CORE = "C"
    SHARED = "S"
    A2E = "A2E"
    EXPERT = "E"
    E2A = "E2A"

    @cached_property
    def label(self) -> str:
        """The word used in flags, tables and cost models: attention, projection, core, shared, a2e,
        expert, e2a."""
        return self.name.lower()

    @cached_property
    def stream(self) -> str:
        """The stream that serves this kind in a disaggregated deployment: AG, A2E, EG or E2A."""
        return {"E": "EG", "A2E": "A2E", "E2A": "E2A"}.get(self.value, "AG")

    @cached_property
    def is_transfer(self) -> bool:
        return self in (Kind.A2E, Kind.E2A)

    @cached_property
    def is_chunked(self) -> bool:
        """Whether tasks of this kind handle one chunk of a micro-batch rather than all of it."""
        return self.is_transfer or self is Kind.EXPERT

    @cached_property
    def opens_layer(self) -> bool:
        """Whether a micro-batch begins its layer with a task of this kind."""
        return self in (Kind.ATTENTION, Kind.PROJECTION)


STREAMS = ("AG", "A2E", "EG", "E2A")
Step = tuple[
    Kind, int
]  # an entry of the AG's order of a layer: attention or shared experts, and the micro-batch
Sequenced = tuple[Kind, int, int]  # an entry of the AG's whole stream: kind, layer, micro-batch
_NAME = re.compile(
    rf"({'|'.join(kind.value for kind in Kind)})\[(\d+)\.(\d+)(?:\.(\d+))?(?:@(\d+))?\]"
)


def track(stream: str) -> tuple[str, int]:
    """A stream's name as (resource, rank): `EG@3` is rank 3 of EG, a name without a rank stands for
    rank 0."""
    resource, _, rank = stream.partition("@")
    return resource, int(rank or 0)


@dataclass(frozen=True)
class Task:
    """One operation of one layer on one micro-batch, or on one chunk of it.

    `tokens` is the work, counted in tokens of one AG rank; `after` names the tasks that must have
    ended. A chunk is cut by token, or by expert: then it is one of `groups` groups of experts and
    the rows that these get of all its tokens. `rank` is the rank that works, where ranks of a group
    differ.
    """

    kind: Kind
    layer: int
    mb: int
    chunk: int | None = None
    tokens: int = 1
    after: tuple[str, ...] = ()
    groups: int = 1
    rank: int | None = None

    def __post_init__(self) -> None:
        if self.kind.is_chunked != (self.chunk is not None):
            rule = "needs" if self.kind.is_chunked else "has no"
            raise ValueError(f"{self.name}: a task of kind {self.kind.label} {rule} chunk number")
        if min(self.layer, self.mb, self.chunk or 0, self.rank or 0) < 0:
            raise ValueError(f"{self.name}: layer, micro-batch, chunk and rank count from 0")
        if self.tokens < 1:
            raise ValueError(f"{self.name}: tokens={self.tokens}; a task handles at least 1 token")
        if self.groups < 1 or (self.groups > 1 and not self.kind.is_chunked):
            raise ValueError(
                f"{self.name}: groups={self.groups}; a chunk is one of at least 1 group of experts"
            )

    @cached_property
    def name(self) -> str:
        """`A|P|C|S[layer.mb]` or `A2E|E|E2A[layer.mb.chunk]`, with `@rank` before the bracket where
        ranks differ."""
        chunk = "" if self.chunk is None else f".{self.chunk}"
        rank = "" if self.rank is None else f"@{self.rank}"
        return f"{self.kind.value}[{self.layer}.{self.mb}{chunk}{rank}]"

    def __str__(self) -> str:
        return self.name

    @classmethod
    def parse(
        cls, name: str, tokens: int = 1, after: tuple[str, ...] = (), groups: int = 1
    ) -> Task:
        """The task that `name` stands for; raises ValueError for a text that is no task name."""
        match = _NAME.fullmatch(name)
        if not match:
            raise ValueError(
                f"{name!r} is not a task name; write A[layer.mb], S[layer.mb] or E[layer.mb.chunk]"
            )
        symbol, layer, mb, *others = match.groups()
        chunk, rank = (None if number is None else int(number) for number in others)
        return cls(Kind(symbol), int(layer), int(mb), chunk, tokens, after, groups, rank)


@dataclass(frozen=True)
class Schedule:
    """Streams of tasks. Raises ValueError for a task that appears twice or waits for one that does
    not exist.

    A stream is a resource of the deployment, such as AG, or that of one of its ranks: `AG@0`,
    `AG@1`.

    A schedule that can never finish is found by `in_order` (and so by `from_dict`): it names the
    circle.
    """

    streams: Mapping[str, tuple[Task, ...]]
    label: str = ""

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for task in self:
            if task.name in seen:
                raise ValueError(
                    f"{task.name} appears twice in the schedule; every task has one place"
                )
            seen.add(task.name)
        for task in self:
            for needed in task.after:
                if needed not in seen:
                    raise ValueError(
                        f"{task.name} waits for {needed}, which is not in the schedule"
                    )

    def __iter__(self) -> Iterator[Task]:
        """All tasks, stream by stream, each in FIFO order."""
        for tasks in self.streams.values():
            yield from tasks

    def __len__(self) -> int:
        return sum(map(len, self.streams.values()))

    def __getitem__(self, name: str) -> Task:
        return self._by_name[name]

    def __str__(self) -> str:
        return "\n".join(
            f"{stream}: {' '.join(t.name for t in tasks)}" for stream, tasks in self.streams.items()
        )

    @cached_property
    def _by_name(self) -> dict[str, Task]:
        return {task.name: task for task in self}

    @cached_property
    def stream_of(self) -> dict[str, str]:
        """Task name -> name of its stream."""
        return {task.name: stream for stream, tasks in self.streams.items() for task in tasks}

    @cached_property
    def predecessors(self) -> dict[str, tuple[str, ...]]:
        """Task name -> the tasks that must have ended: those in `after`, then the one before it in
        its stream."""
        found = {}
        for tasks in self.streams.values():
            before: tuple[str, ...] = ()
            for task in tasks:
                found[task.name] = tuple(dict.fromkeys(task.after + before))
                before = (task.name,)
        return found

    @cached_property
    def resources(self) -> tuple[str, ...]:
        """The names of the streams, those of the ranks of one resource as one."""
        return tuple(dict.fromkeys(track(stream)[0] for stream in self.streams))

    @property
    def layers(self) -> int:
        return 1 + max((task.layer for task in self), default=-1)

    @property
    def r1(self) -> int:
        """Micro-batches on the AG."""
        return 1 + max((task.mb for task in self), default=-1)

    @property
    def r2(self) -> int:
        """Chunks of the most finely cut micro-batch."""
        return 1 + max((task.chunk or 0 for task in self), default=-1)

    @property
    def tokens(self) -> int:
        """Tokens of one AG rank that pass through every layer; those of all AG ranks where the
        schedule has ranks."""
        return sum(task.tokens for task in self if task.kind.opens_layer and task.layer == 0)

    @cached_property
    def in_order(self) -> tuple[Task, ...]:
        """All tasks, every task after its predecessors; the same order in every process.

        Raises ValueError, naming the circle, when the streams and dependencies wait for each other.
        """
        waiting = {name: len(before) for name, before in self.predecessors.items()}
        successors: dict[str, list[str]] = {name: [] for name in waiting}
        for name, before in self.predecessors.items():
            for needed in before:
                successors[needed].append(name)
        ready = deque(name for name, count in waiting.items() if count == 0)
        ordered = []
        while ready:
            name = ready.popleft()
            ordered.append(self[name])
            for successor in successors[name]:
                waiting[successor] -= 1
                if waiting[successor] == 0:
                    ready.append(successor)
        if len(ordered) < len(waiting):
            raise ValueError(
                f"the schedule can never finish: {' waits for '.join(self._circle(waiting))}"
            )
        return tuple(ordered)

    def _circle(self, waiting: dict[str, int]) -> list[str]:
        name = next(name for name, count in waiting.items() if count)
        path: list[str] = []
        while name not in path:
            path.append(name)
            name = next(needed for needed in self.predecessors[name] if waiting[needed])
        return [*path[path.index(name) :], name]

    def with_tokens(self, tokens: Callable[[Task], int]) -> Schedule:
        """The same streams and dependencies with other amounts of work, in a tenth of the time of
        building them anew.

        What has been checked and sorted stays: only the tokens of the tasks are others, each at
        least 1.
        """
        others = {}
        for task in self.in_order:
            other = others[task.name] = object.__new__(Task)
            other.__dict__.update(task.__dict__, tokens=tokens(task))
            assert other.tokens >= 1, f"{task.name}: tokens={other.tokens}"
        found = object.__new__(Schedule)
        found.__dict__.update(
            streams={
                stream: tuple(others[task.name] for task in tasks)
                for stream, tasks in self.streams.items()
            },
            label=self.label,
            _by_name=others,
            in_order=tuple(others.values()),
            stream_of=self.stream_of,
            predecessors=self.predecessors,
            resources=self.resources,
        )
        return found

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; `from_dict` reads it back to an equal schedule."""
        streams = {
            stream: [
                {"task": t.name, "tokens": t.tokens, "after": list(t.after)}
                | ({"groups": t.groups} if t.groups > 1 else {})
                for t in tasks
            ]
            for stream, tasks in self.streams.items()
        }
        return {"format": FORMAT, "label": self.label, "streams": streams}

    @classmethod
    def from_dict(cls, data: Any) -> Schedule:
        """A checked schedule from its JSON form; raises ValueError naming the task or field at
        fault."""
        if not isinstance(data, dict) or not isinstance(data.get("streams"), dict):
            raise ValueError('a schedule is a JSON object with the key "streams"')
        if data.get("format") != FORMAT:
            raise ValueError(
                f"schedule format {data.get('format')!r} is not known; this version reads format {FORMAT}"
            )
        for stream, rows in data["streams"].items():
            if not re.fullmatch(r"[^@]+(@\d+)?", str(stream)):
                raise ValueError(
                    f"stream {stream!r} is no name of a stream; write AG, or AG@0 for that of a rank"
                )
            if not isinstance(rows, list):
                raise ValueError(f"stream {stream}: {rows!r} is not a list of tasks")
        streams = {str(stream): tuple(map(_task, rows)) for stream, rows in data["streams"].items()}
        if not any(streams.values()):
            raise ValueError("there is no task in it; a schedule has at least one")
        schedule = cls(streams, str(data.get("label", "")))
        _ = schedule.in_order  # raises on a circle
        return schedule

    def save(self, path: Path) -> None:
        """Write the JSON form; `load` reads it."""
        files.write(path, json.dumps(self.to_dict()) + "\n")

    @classmethod
    def load(cls, path: Path) -> Schedule:
        """Read a schedule from a JSON file; raises ValueError that begins with the file's name."""
        data = files.read_json(path, SCHEDULE)
        with files.context(path, SCHEDULE):
            return cls.from_dict(data)


def _task(row: Any) -> Task:
    if not isinstance(row, dict) or not isinstance(row.get("task"), str):
        raise ValueError(
            f'{row!r} is not a task; write {{"task": "A[0.0]", "tokens": 1, "after": []}}'
        )
    if unknown := set(row) - {"task", "tokens", "after", "groups"}:
        raise ValueError(
            f"{row['task']}: unknown key {min(unknown)!r}; a task has task, tokens, after and groups"
        )
    tokens, after, groups = row.get("tokens", 1), row.get("after", []), row.get("groups", 1)
    for key, value in (("tokens", tokens), ("groups", groups)):
        if type(value) is not int:
            raise ValueError(f"{row['task']}: {key}={value!r} is not a whole number")
    if not isinstance(after, list) or not all(isinstance(name, str) for name in after):
        raise ValueError(f"{row['task']}: after={after!r} is not a list of task names")
    return Task.parse(row["task"], tokens, tuple(after), groups)
