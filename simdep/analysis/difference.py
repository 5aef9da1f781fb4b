"""What makes one schedule slower or faster than another: critical paths and idle times, compared.

Times are microseconds; a change is that of the other timeline against the first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from simdep.analysis.idle import DRAIN, HOST, ORDER, OTHER_RANK, WARM_UP, attribution, idle_by_cause
from simdep.timeline import Timeline
from simdep.units import human_us

_REASONS = {  # why a stream is idle; any other cause is a kind of task
    WARM_UP: "warm-up",
    DRAIN: "drain",
    ORDER: "for its order",
    OTHER_RANK: "waiting for another rank",
    HOST: "for host overheads",
}
_MAX_IDLE_SENTENCES = 4
_SMALL = 0.01  # share of the change of the makespan below which no sentence tells of idle time


@dataclass(frozen=True)
class PathChange:
    """What a kind of task on a stream takes of both critical paths."""

    kind: str
    stream: str
    one_us: float
    other_us: float
    change_us: float


@dataclass(frozen=True)
class IdleChange:
    """The idle time of a stream by one cause in both timelines."""

    stream: str
    cause: str
    one_us: float
    other_us: float
    change_us: float


@dataclass(frozen=True)
class Difference:
    """Two timelines side by side, the largest change first, and their differences in sentences."""

    path: tuple[PathChange, ...]
    idle: tuple[IdleChange, ...]
    sentences: tuple[str, ...]


def difference(one: Timeline, other: Timeline) -> Difference:
    """What makes `other` slower or faster than `one`; the changes sum to those of the makespan and
    of the bubbles."""
    path = [
        PathChange(kind, stream, *times)
        for (kind, stream), times in _changes(_path_us(one), _path_us(other)).items()
    ]
    idle = [
        IdleChange(stream, cause, *times)
        for (stream, cause), times in _changes(_idle_us(one), _idle_us(other)).items()
    ]
    path.sort(key=lambda change: -abs(change.change_us))
    idle.sort(key=lambda change: -abs(change.change_us))
    return Difference(tuple(path), tuple(idle), tuple(_sentences(one, other, path, idle)))


def _path_us(timeline: Timeline) -> dict[tuple[str, str], float]:
    return {(share.kind, share.stream): share.us for share in attribution(timeline)}


def _idle_us(timeline: Timeline) -> dict[tuple[str, str], float]:
    times = {}
    for stream, causes in idle_by_cause(timeline).items():
        for cause, us in causes.items():
            times[stream, cause] = us
    return times


def _changes(
    one: Mapping[tuple[str, str], float], other: Mapping[tuple[str, str], float]
) -> dict[tuple[str, str], tuple[float, float, float]]:
    """(one, other, change) for every key of either."""
    changes = {}
    for key in [*one, *(key for key in other if key not in one)]:
        before, after = one.get(key, 0), other.get(key, 0)
        changes[key] = before, after, after - before
    return changes


def _sentences(
    one: Timeline, other: Timeline, path: Sequence[PathChange], idle: Sequence[IdleChange]
) -> Iterator[str]:
    change = other.makespan_us - one.makespan_us
    one_label, other_label = (
        timeline.schedule.label or "the schedule" for timeline in (one, other)
    )
    if not change:
        yield f"{other_label} takes as long as {one_label}: {human_us(one.makespan_us)}"
        return
    share = f" ({100 * abs(change) / one.makespan_us:.1f} %)" if one.makespan_us else ""
    yield f"{other_label} takes {human_us(abs(change))}{share} {_more(change)} than {one_label}"
    kinds = [f"{_amount(part.change_us)} of {part.kind}" for part in path if part.change_us]
    if kinds:
        yield f"on its critical path are {', '.join(kinds)}"
    else:
        yield "the critical paths are alike"
    large = [part for part in idle if abs(part.change_us) >= _SMALL * abs(change)]
    for part in large[:_MAX_IDLE_SENTENCES]:
        reason = _REASONS.get(part.cause, f"waiting for {part.cause}")
        yield f"{part.stream} is idle {_amount(part.change_us)}: {reason}"


def _amount(change_us: float) -> str:
    return f"{human_us(abs(change_us))} {_more(change_us)}"


def _more(change: float) -> str:
    return "more" if change > 0 else "less"
