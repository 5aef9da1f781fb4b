"""Precedence: which task runs on which stream, in which order, after which others, by name alone.

It is what a schedule keeps when the work of its tasks changes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from simdep.checks import InputError

_MAX_NAMES = 8  # of a cycle that an error lists
_AROUND = 2  # steps shown before and after a marked one


class CycleError(InputError):
    """A schedule can never finish: its tasks wait for each other in a circle.

    `cycle` names them, each waiting for the next, the first again at the end; `grid` shows the
    steps around them, each marked.
    """

    def __init__(self, cycle: tuple[str, ...], grid: str, place: object = "") -> None:
        waits = " waits for ".join(_abridged(cycle))
        super().__init__(f"the schedule can never finish: {waits}", place)
        self.cycle, self.grid = cycle, grid

    def at(self, place: object) -> CycleError:
        """The same error with the file at fault."""
        return CycleError(self.cycle, self.grid, place)

    def __reduce__(self) -> tuple[type[CycleError], tuple[tuple[str, ...], str, str]]:
        return CycleError, (self.cycle, self.grid, self.place)


@dataclass(frozen=True)
class Precedence:
    """Streams of task names, and the names that each task waits for besides the one before it in
    its stream.

    Raises InputError for a task that appears twice, or waits for one that does not exist.
    """

    streams: Mapping[str, tuple[str, ...]]
    after: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        if len(self.stream_of) < sum(map(len, self.streams.values())):
            raise InputError(
                f"{self._repeated()} appears twice in the schedule; every task has one place"
            )
        for name, needed in self.after.items():
            for other in needed:
                if other not in self.stream_of:
                    raise InputError(f"{name} waits for {other}, which is not in the schedule")

    def _repeated(self) -> str:
        seen: set[str] = set()
        for names in self.streams.values():
            for name in names:
                if name in seen:
                    return name
                seen.add(name)
        raise AssertionError("no task appears twice")

    @cached_property
    def stream_of(self) -> dict[str, str]:
        """Task -> its stream."""
        return {name: stream for stream, names in self.streams.items() for name in names}

    @cached_property
    def predecessors(self) -> dict[str, tuple[str, ...]]:
        """Task -> the tasks that must have ended: those it waits for, then the one before it in its
        stream."""
        predecessors = {}
        for names in self.streams.values():
            before: tuple[str, ...] = ()
            for name in names:
                needed = self.after[name]
                predecessors[name] = tuple(dict.fromkeys(needed + before)) if needed else before
                before = (name,)
        return predecessors

    @cached_property
    def order(self) -> tuple[str, ...]:
        """All tasks, every task after its predecessors; the same order in every process.

        Raises CycleError when streams and dependencies wait for each other.
        """
        waiting = {name: len(before) for name, before in self.predecessors.items()}
        successors: dict[str, list[str]] = {name: [] for name in waiting}
        for name, before in self.predecessors.items():
            for needed in before:
                successors[needed].append(name)
        ready = deque(name for name, count in waiting.items() if count == 0)
        order = []
        while ready:
            name = ready.popleft()
            order.append(name)
            for successor in successors[name]:
                waiting[successor] -= 1
                if waiting[successor] == 0:
                    ready.append(successor)
        if len(order) < len(waiting):
            cycle = self._cycle({name for name, count in waiting.items() if count})
            raise CycleError(cycle, self.grid(cycle))
        return tuple(order)

    def _cycle(self, stuck: Collection[str]) -> tuple[str, ...]:
        name = next(name for name in self.stream_of if name in stuck)
        path: dict[str, None] = {}
        while name not in path:
            path[name] = None
            name = next(needed for needed in self.predecessors[name] if needed in stuck)
        names = list(path)
        return (*names[names.index(name) :], name)

    def grid(self, marked: Iterable[str] = ()) -> str:
        """The streams side by side, a line a step; marked tasks stand between > and <.

        With marked tasks, only the steps around them; `...` stands for the others.
        """
        names = set(marked)
        steps = max(map(len, self.streams.values()), default=0)
        columns = [_column("step", [str(step) for step in range(steps)], steps)]
        for stream, tasks in self.streams.items():
            cells = [f">{task}<" if task in names else task for task in tasks]
            columns.append(_column(stream, cells, steps))
        header, *lines = ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]
        if not names:
            return "\n".join((header, *lines))
        shown = [header]
        near = self._steps_near(names)
        for step, line in enumerate(lines):
            if step in near:
                shown.append(line)
            elif shown[-1] != "...":
                shown.append("...")
        return "\n".join(shown)

    def _steps_near(self, marked: Collection[str]) -> set[int]:
        near: set[int] = set()
        for tasks in self.streams.values():
            for step, task in enumerate(tasks):
                if task in marked:
                    near |= set(range(step - _AROUND, step + _AROUND + 1))
        return near


def _column(title: str, cells: Sequence[str], steps: int) -> list[str]:
    """A title and cells of one width, empty ones for the steps that are missing."""
    filled = [title, *cells, *("" for _ in range(steps - len(cells)))]
    width = max(map(len, filled))
    return [cell.ljust(width) for cell in filled]


def _abridged(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) <= _MAX_NAMES:
        return names
    middle = f"{len(names) - _MAX_NAMES + 1} more tasks"
    return (*names[: _MAX_NAMES - 2], middle, names[-1])
