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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from simdep import files
from simdep.checks import InputError, integer, shown, shown_text, string
from simdep.file_kinds import SCHEDULE
from simdep.precedence import CycleError, Precedence

FORMAT = 1  # version of the JSON form
MAX_INDEX = 1_000_000  # of a layer, micro-batch, chunk or rank in a file
_TASK_KEYS = ("task", "tokens", "after", "groups")


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
    def symbol(self) -> str:
        """What stands for it in the name of a task."""
        return self.value

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
# An entry of the AG's order of a layer: attention or shared experts, and the micro-batch
Step = tuple[Kind, int]
Sequenced = tuple[Kind, int, int]  # an entry of the AG's whole stream: kind, layer, micro-batch
Place = tuple[Kind, int, int, int | None]  # of any stream: kind, layer, micro-batch, chunk
_NAME = re.compile(
    rf"({'|'.join(kind.value for kind in Kind)})"
    r"\[(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?(?:@(\d{1,9}))?\]"
)


def track(stream: str) -> tuple[str, int]:
    """A stream's name as (resource, rank): `EG@3` is rank 3 of EG, a name without a rank stands for
    rank 0."""
    resource, _, rank = stream.partition("@")
    return resource, int(rank or 0)


def task_name(kind: Kind, layer: int, mb: int, chunk: int | None = None) -> str:
    """The name of a task of all ranks."""
    return (
        f"{kind.symbol}[{layer}.{mb}]" if chunk is None else f"{kind.symbol}[{layer}.{mb}.{chunk}]"
    )


@dataclass(frozen=True)
class DataFlow:
    """Whose results a task needs, by the data alone (FinDEP, Eq. 5).

    Micro-batch i of layer t is opened by A(t,i) (or by P(t,i), and then C(t,i) ends its attention),
    which needs what layer t-1 returned: every E2A(t-1,i,*) and S(t-1,i). S(t,i) and A2E(t,i,j) need
    attention, E(t,i,j) its A2E, E2A(t,i,j) its E. Where the shared experts are on the EG, S(t,i)
    needs every A2E(t,i,*), and the last E2A(t,i,*) carries its result back.

    `chunks` counts those of a micro-batch in a layer, 0 where the layer has no experts;
    `shared_on` is the group of the shared experts, None without them; `halved` holds the (layer,
    micro-batch) whose attention is cut in two; with `one_dispatch`, one A2E carries all chunks.
    """

    chunks: Callable[[int, int], int]
    shared_on: Literal["ag", "eg"] | None = None
    halved: Collection[tuple[int, int]] = ()
    one_dispatch: bool = False

    def needs(self, kind: Kind, layer: int, mb: int, chunk: int | None) -> tuple[str, ...]:
        """The names of the tasks whose results a task needs."""
        if kind.opens_layer:
            return self._returned(layer - 1, mb) if layer else ()
        if kind is Kind.CORE:
            return (task_name(Kind.PROJECTION, layer, mb),)
        if kind is Kind.SHARED and self.shared_on == "eg":
            return self._every(Kind.A2E, layer, mb)
        if kind in (Kind.SHARED, Kind.A2E):
            attends = Kind.CORE if (layer, mb) in self.halved else Kind.ATTENTION
            return (task_name(attends, layer, mb),)
        if kind is Kind.EXPERT:
            return (task_name(Kind.A2E, layer, mb, 0 if self.one_dispatch else chunk),)
        return self._carried(layer, mb, chunk)

    def _carried(self, layer: int, mb: int, chunk: int | None) -> tuple[str, ...]:
        """What an E2A carries back."""
        computed = (task_name(Kind.EXPERT, layer, mb, chunk),)
        if self.shared_on == "eg" and chunk == self.chunks(layer, mb) - 1:
            return (*computed, task_name(Kind.SHARED, layer, mb))
        return computed

    def _returned(self, layer: int, mb: int) -> tuple[str, ...]:
        routed = self._every(Kind.E2A, layer, mb)
        if self.shared_on == "ag":
            return (*routed, task_name(Kind.SHARED, layer, mb))
        return routed

    def _every(self, kind: Kind, layer: int, mb: int) -> tuple[str, ...]:
        return tuple(task_name(kind, layer, mb, chunk) for chunk in range(self.chunks(layer, mb)))


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
        if self.kind.is_chunked is (self.chunk is None):
            rule = "needs" if self.kind.is_chunked else "has no"
            raise InputError(f"{self.name}: a task of kind {self.kind.label} {rule} chunk number")
        if self.layer < 0 or self.mb < 0 or (self.chunk or 0) < 0 or (self.rank or 0) < 0:
            raise InputError(f"{self.name}: layer, micro-batch, chunk and rank count from 0")
        if self.tokens < 1:
            raise InputError(f"{self.name}: tokens={self.tokens}; a task handles at least 1 token")
        if self.groups != 1 and (self.groups < 1 or not self.kind.is_chunked):
            raise InputError(
                f"{self.name}: groups={self.groups}; a chunk is one of at least 1 group of experts"
            )

    @cached_property
    def name(self) -> str:
        """`A|P|C|S[layer.mb]` or `A2E|E|E2A[layer.mb.chunk]`, with `@rank` before the bracket where
        ranks differ."""
        chunk = "" if self.chunk is None else f".{self.chunk}"
        rank = "" if self.rank is None else f"@{self.rank}"
        return f"{self.kind.symbol}[{self.layer}.{self.mb}{chunk}{rank}]"

    def __str__(self) -> str:
        return self.name

    def with_tokens(self, tokens: int) -> Task:
        """The same task with other work; several times as fast as `dataclasses.replace`."""
        return Task(
            self.kind,
            self.layer,
            self.mb,
            self.chunk,
            tokens,
            self.after,
            self.groups,
            self.rank,
        )

    @classmethod
    def parse(
        cls, name: str, tokens: int = 1, after: tuple[str, ...] = (), groups: int = 1
    ) -> Task:
        """The task that `name` stands for; raises InputError for a text that is no task name."""
        match = _NAME.fullmatch(name)
        if not match:
            raise InputError(
                f"{shown(name)} is not a task name;"
                " write A[layer.mb], S[layer.mb] or E[layer.mb.chunk]"
            )
        symbol, layer, mb, *others = match.groups()
        chunk, rank = (None if number is None else int(number) for number in others)
        return cls(Kind(symbol), int(layer), int(mb), chunk, tokens, after, groups, rank)


@dataclass(frozen=True)
class Schedule:
    """Streams of tasks. Raises InputError for a task that appears twice or waits for one that does
    not exist.

    A stream is a resource of the deployment, such as AG, or that of one of its ranks: `AG@0`,
    `AG@1`. A schedule that can never finish is found by `in_order`, and so by `from_dict`.
    `known` is the precedence of its tasks, where it is known already.
    """

    streams: Mapping[str, tuple[Task, ...]]
    label: str = ""
    known: InitVar[Precedence | None] = None
    precedence: Precedence = field(init=False, repr=False, compare=False)

    def __post_init__(self, known: Precedence | None) -> None:
        precedence = _precedence(self.streams) if known is None else known
        object.__setattr__(self, "precedence", precedence)

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

    @property
    def stream_of(self) -> dict[str, str]:
        """Task name -> name of its stream."""
        return self.precedence.stream_of

    @property
    def predecessors(self) -> dict[str, tuple[str, ...]]:
        """Task name -> the tasks that must have ended: those in `after`, then the one before it in
        its stream."""
        return self.precedence.predecessors

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

        Raises CycleError when the streams and dependencies wait for each other.
        """
        return tuple(self[name] for name in self.precedence.order)

    @cached_property
    def data_flow(self) -> DataFlow:
        """Whose results its tasks need; for a schedule whose tasks have no ranks."""
        chunks: dict[tuple[int, int], int] = {}
        dispatches: dict[tuple[int, int], int] = {}
        halved: set[tuple[int, int]] = set()
        for task in self:
            place = (task.layer, task.mb)
            if task.kind is Kind.E2A:
                chunks[place] = max(chunks.get(place, 0), 1 + (task.chunk or 0))
            elif task.kind is Kind.A2E:
                dispatches[place] = dispatches.get(place, 0) + 1
            elif task.kind is Kind.CORE:
                halved.add(place)
        groups = {self.stream_of[task.name] for task in self if task.kind is Kind.SHARED}
        shared_on: Literal["ag", "eg"] | None = None
        if groups:
            shared_on = "eg" if groups == {"EG"} else "ag"
        return DataFlow(
            chunks=lambda layer, mb: chunks.get((layer, mb), 0),
            shared_on=shared_on,
            halved=halved,
            one_dispatch=any(dispatches.get(place, 0) < count for place, count in chunks.items()),
        )

    def data_of(self, task: Task) -> tuple[str, ...]:
        """The names of the tasks whose results a task needs, whatever it waits for."""
        return self.data_flow.needs(task.kind, task.layer, task.mb, task.chunk)

    @cached_property
    def posts_after(self) -> dict[str, tuple[Task, ...]]:
        """Computation -> the transfers that its host posts right after it, in order.

        A host posts the transfers of a stream in order, each once all of its `after` has ended and
        those before it are posted. Nobody posts a transfer that waits for anything but computation
        of that one stream, nor those behind it: they start on their own.
        """
        computed = {
            task.name: (stream, position)
            for stream, tasks in self.streams.items()
            for position, task in enumerate(tasks)
            if not task.kind.is_transfer
        }
        posts: dict[str, list[Task]] = {}
        for tasks in self.streams.values():
            last: tuple[str, int] | None = None
            for task in tasks:
                needed = [computed.get(name) for name in task.after]
                if last is not None:
                    needed.append(last)
                last = _last_of_one_stream(needed)
                if not task.kind.is_transfer or last is None:
                    break
                stream, position = last
                posts.setdefault(self.streams[stream][position].name, []).append(task)
        return {name: tuple(transfers) for name, transfers in posts.items()}

    def grid(self, marked: Iterable[str] = ()) -> str:
        """The streams side by side, as `Precedence.grid` shows them."""
        return self.precedence.grid(marked)

    def with_tokens(self, tokens: Callable[[Task], int]) -> Schedule:
        """The same streams and dependencies, which are not checked and sorted again, with other
        amounts of work."""
        streams = {}
        for stream, tasks in self.streams.items():
            streams[stream] = tuple(task.with_tokens(tokens(task)) for task in tasks)
        return Schedule(streams, self.label, self.precedence)

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
        """A checked schedule from its JSON form; raises InputError naming the task or field at
        fault."""
        schedule = _schedule(data)
        _ = schedule.in_order  # raises for a cycle
        return schedule

    def save(self, path: Path) -> None:
        """Write the JSON form; `load` reads it."""
        files.write(path, json.dumps(self.to_dict()) + "\n")

    @classmethod
    def load(cls, path: Path) -> Schedule:
        """Read a schedule from a JSON file; raises InputError that begins with the file's name."""
        data = files.read_json(path, SCHEDULE)
        with files.context(path, SCHEDULE):
            schedule = _schedule(data)
        try:
            _ = schedule.in_order
        except CycleError as error:
            raise error.at(files.shown_path(path)) from None
        return schedule


def _last_of_one_stream(places: Sequence[tuple[str, int] | None]) -> tuple[str, int] | None:
    """The last of some places in a stream; None if there is none, or if not all are in one."""
    streams = {place and place[0] for place in places}
    if len(streams) != 1 or None in streams:
        return None
    return max(place for place in places if place is not None)


def _precedence(streams: Mapping[str, tuple[Task, ...]]) -> Precedence:
    names = {stream: tuple(task.name for task in tasks) for stream, tasks in streams.items()}
    after = {task.name: task.after for tasks in streams.values() for task in tasks}
    return Precedence(names, after)


def _schedule(data: Any) -> Schedule:
    """The schedule of a JSON form, whose tasks may still wait for each other."""
    if not isinstance(data, dict) or not isinstance(data.get("streams"), dict):
        raise InputError('a schedule is a JSON object with the key "streams"')
    if data.get("format") != FORMAT:
        raise InputError(
            f"schedule format {shown(data.get('format'))} is not known;"
            f" this version reads format {FORMAT}"
        )
    streams = {}
    for stream, tasks in data["streams"].items():
        if not re.fullmatch(r"[^@]+(@\d+)?", str(stream)):
            raise InputError(
                f"stream {shown(stream)} is no name of a stream; write AG, or AG@0 for a rank"
            )
        if not isinstance(tasks, list):
            raise InputError(
                f"stream {shown_text(str(stream))}: {shown(tasks)} is not a list of tasks"
            )
        streams[str(stream)] = tuple(map(_task, tasks))
    if not any(streams.values()):
        raise InputError("there is no task in it; a schedule has at least one")
    label = data.get("label") or ""
    return Schedule(streams, label and string(label, "label"))


def _task(entry: Any) -> Task:
    if not isinstance(entry, dict) or not isinstance(entry.get("task"), str):
        raise InputError(
            f'{shown(entry)} is not a task; write {{"task": "A[0.0]", "tokens": 1, "after": []}}'
        )
    name = shown_text(entry["task"])
    for key in entry:
        if key not in _TASK_KEYS:
            raise InputError(
                f"{name}: unknown key {shown(key)}; a task has task, tokens, after and groups"
            )
    tokens = integer(entry.get("tokens", 1), f"{name}: tokens")
    groups = integer(entry.get("groups", 1), f"{name}: groups")
    after = entry.get("after", [])
    if not isinstance(after, list) or not all(isinstance(needed, str) for needed in after):
        raise InputError(f"{name}: after={shown(after)} is not a list of task names")
    task = Task.parse(entry["task"], tokens, tuple(after), groups)
    if max(task.layer, task.mb, task.chunk or 0, task.rank or 0) > MAX_INDEX:
        raise InputError(f"{name}: expected layer, micro-batch, chunk and rank <= {MAX_INDEX:,}")
    return task
