"""Why a schedule takes as long as it does: pure functions of its timeline, and of its costs where
these would change.

Every split is complete: the parts of the critical path sum to the makespan, the causes of a
stream's idle time to its bubble. Times are microseconds.

Idle time of a stream, at any moment, has the first of these causes that holds:

    warm-up         its first task has not started yet
    drain           its last task has ended
    order           a later task of the stream has all it needs, but the FIFO's next one has not
    another rank    of several ranks that the next task waits for, some are done and the slowest, another one, is not
    KIND            a task of that kind runs on the chain that decides when the next one starts: waiting for it
    host            nothing runs on that chain: gaps, postings and receives of hosts, a medium that is taken
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from simdep.analysis import summary as report
from simdep.costs import Costs
from simdep.scenario.memory import Memory
from simdep.schedule import STREAMS, Kind, Schedule, Task, track
from simdep.simulation.batch import Batch
from simdep.simulation.bounds import makespan_bounds
from simdep.timeline import Timeline
from simdep.units import human_bytes, human_us

WARM_UP, DRAIN, ORDER, OTHER_RANK, HOST = "warm-up", "drain", "order", "another rank", "host"
HIDDEN, DOMINANT = (
    0.02,
    0.5,
)  # exposed share of the makespan that counts as none; share of start-up that counts as most
Times = Mapping[str, tuple[float, float]]  # task -> (start, end)


@dataclass(frozen=True)
class Share:
    """What tasks of a kind on a stream, ranks joined, take of the critical path; kind and stream
    `host`: no task."""

    kind: str
    stream: str
    tasks: int
    us: float
    fraction: float


@dataclass(frozen=True)
class Difference:
    """Two timelines: what kinds take of both critical paths, idle time by stream and cause, and
    both in words."""

    path: tuple[dict[str, Any], ...]
    idle: tuple[dict[str, Any], ...]
    words: tuple[str, ...]


@dataclass(frozen=True)
class Diagnosis:
    """A sign to look for, whether it is there, and the numbers that show it."""

    name: str
    found: bool
    text: str
    numbers: dict[str, Any] = field(default_factory=dict)


def summary(timeline: Timeline) -> dict[str, Any]:
    """What a timeline alone says, ready for JSON: its critical path by kind and stream, bubbles,
    idle time by cause."""
    found = idle(timeline)
    return {
        "critical_path": [asdict(share) for share in attribution(timeline)],
        "bubble_us": {stream: sum(causes.values()) for stream, causes in found.items()},
        "idle_us": found,
    }


def attribution(timeline: Timeline) -> list[Share]:
    """The critical path by kind and stream, largest first; the sum is the makespan."""
    times, spent = _times(timeline), dict[tuple[str, str], list[float]]()
    now = timeline.rows["start_us"].min() if len(timeline.rows) else 0
    for name in report.critical_path(timeline) if len(timeline.rows) else ():
        start, end = times[name]
        where = (timeline.schedule[name].kind.label, track(timeline.schedule.stream_of[name])[0])
        if start > now:
            spent.setdefault((HOST, HOST), []).append(start - now)
        spent.setdefault(where, []).append(max(0, end - max(start, now)))
        now = max(now, end)
    total = sum(map(sum, spent.values()))
    shares = [
        Share(
            kind, stream, len(each), _plain(sum(each)), float(sum(each) / total) if total else 0.0
        )
        for (kind, stream), each in spent.items()
    ]
    return sorted(shares, key=lambda share: -share.us)


def idle(timeline: Timeline) -> dict[str, dict[str, float]]:
    """Stream (of a rank, where there are several) -> cause -> idle time; the sum is the bubble of
    the stream."""
    times, chain = _times(timeline), _Chain(timeline)
    begin, end = (_plain(timeline.rows["start_us"].min()), _plain(timeline.rows["end_us"].max()))
    lanes = timeline.tracks()
    found: dict[str, dict[str, float]] = {}
    for resource, rank in lanes:
        several = sum(each[0] == resource for each in lanes) > 1
        causes = found.setdefault(f"{resource}@{rank}" if several else resource, {})
        own = timeline.rows[(timeline.rows["stream"] == resource) & (timeline.rows["rank"] == rank)]
        spans = {
            name: (_plain(a), _plain(b))
            for name, a, b in own[["task", "start_us", "end_us"]].itertuples(index=False)
        }
        served = [name for name in chain.fifo(resource, rank) if name in spans]
        ready = _soonest(timeline.schedule, served, spans, times)
        free = begin
        for at, name in enumerate(served):
            start, stop = spans[name]
            if start > free:
                parts = (
                    [(WARM_UP, free, start)]
                    if at == 0
                    else chain.causes(name, free, start, ready[at])
                )
                for cause, low, high in parts:
                    if high > low:
                        causes[cause] = causes.get(cause, 0) + (high - low)
            free = max(free, stop)
        if end > free:
            causes[DRAIN if served else WARM_UP] = end - free
    return found


class _Chain:
    """The chains that decide when tasks start."""

    def __init__(self, timeline: Timeline) -> None:
        self.schedule, self.times = timeline.schedule, _times(timeline)
        firsts = timeline.rows.groupby("task", sort=False)["end_us"].min()
        self.first_end = {str(name): _plain(us) for name, us in firsts.items()}
        self.by_lane: dict[tuple[str, int], list[str]] = {}
        self.shared_lanes: dict[str, list[str]] = {}  # streams without a rank of their own
        for stream, tasks in timeline.schedule.streams.items():
            names = [task.name for task in tasks]
            if "@" in stream:
                self.by_lane[track(stream)] = names
            else:
                self.shared_lanes[stream] = names

    def fifo(self, resource: str, rank: int) -> list[str]:
        own = self.by_lane.get((resource, rank))
        return self.shared_lanes.get(resource, []) if own is None else own

    def whose(self, name: str) -> tuple[bool, int | None]:
        """The rank that does a task, or whose port does: whether of the AG, and its number."""
        return track(self.schedule.stream_of[name])[0] == "AG", self.schedule[name].rank

    def causes(
        self, head: str, low: float, high: float, ready: float
    ) -> Iterator[tuple[str, float, float]]:
        """(cause, from, to) of the idle time before `head`; from `ready` on, a later task of the
        stream could run."""
        until = min(high, max(low, ready))
        yield ORDER, until, high
        waits: list[tuple[float, float]] = []  # from the first to the last end over ranks
        at, task = high, head
        while at > low and (before := self.schedule.predecessors[task]):
            last = max(before, key=lambda name: self.times[name][1])
            start, stop = self.times[last]
            if stop < at:
                yield HOST, max(low, stop), min(at, until)
                at = stop
            if self.schedule[last].rank is None or self.whose(last) != self.whose(head):
                first = min(
                    self.first_end[name]
                    for name in before
                    if _same(self.schedule[name], self.schedule[last])
                )
                waits.append((first, stop))
            begins = max(low, min(start, at))
            for a, b, slowest in _cut(begins, min(at, until), waits):
                yield OTHER_RANK if slowest else self.schedule[last].kind.label, a, b
            at, task = min(at, start), last
        yield HOST, low, min(at, until)


def difference(one: Timeline, other: Timeline) -> Difference:
    """What makes `other` slower or faster than `one`; differences are those of `other` against
    `one`."""
    shares = [
        {(share.kind, share.stream): share.us for share in attribution(each)}
        for each in (one, other)
    ]
    path = _rows(shares, ("kind", "stream"))
    spent = [
        {
            (stream, cause): us
            for stream, causes in idle(each).items()
            for cause, us in causes.items()
        }
        for each in (one, other)
    ]
    causes = _rows(spent, ("stream", "cause"))
    return Difference(tuple(path), tuple(causes), tuple(_words(one, other, path, causes)))


def start_up_shares(schedule: Schedule, costs: Costs) -> dict[str, float]:
    """Kind -> the share of its time that cutting its tasks in two would add; for a line, its
    start-up alpha.

    Tasks of one token, and groups of experts, can't be cut and are left out.
    """
    known: dict[tuple[object, ...], tuple[float, float]] = {}
    total: dict[str, list[float]] = {}
    for task in schedule:
        if task.tokens < 2 or task.groups > 1:
            continue
        key = (task.kind, None if task.kind.is_chunked else task.layer, task.tokens, task.rank)
        if key not in known:
            halves = (task.tokens // 2, task.tokens - task.tokens // 2)
            known[key] = (
                sum(costs(replace(task, tokens=half)) for half in halves) - costs(task),
                costs(task),
            )
        for at, us in enumerate(known[key]):
            total.setdefault(task.kind.label, [0, 0])[at] += us
    return {
        kind: min(1.0, max(0.0, float(added / us))) for kind, (added, us) in total.items() if us
    }


def diagnoses(
    timeline: Timeline,
    *,
    start_up: Mapping[str, float] | None = None,
    needed: Memory | None = None,
    out_of_range: Sequence[str] = (),
) -> list[Diagnosis]:
    """The signs that FinDEP's gains fail or that a prediction can't be trusted, each with its
    numbers.

    `start_up` as from `start_up_shares` (None where costs do not depend on sizes), `needed` the
    memory of the scenario, `out_of_range` what was said about costs asked beyond their
    measurements.
    """
    found = []
    if start_up is not None:
        path = {share.kind: share.fraction for share in attribution(timeline)}
        paid = sum(share * start_up.get(kind, 0.0) for kind, share in path.items())
        shares = (
            ", ".join(f"{kind} {100 * share:.0f} %" for kind, share in start_up.items())
            or "none is known"
        )
        text = f"{100 * paid:.0f} % of the critical path is start-up, which cutting finer pays more often ({shares})"
        told = {"critical_path_fraction": paid, "fraction_by_kind": dict(start_up)}
        found.append(Diagnosis("start-up cost dominates", paid >= DOMINANT, text, told))
    if needed is not None:
        missing = (
            f"{human_bytes(needed.missing_bytes)} are missing"
            if not needed.fits
            else "everything fits"
        )
        text = f"{missing}: {'; '.join(map(str, needed.groups))}"
        found.append(Diagnosis("memory infeasible", not needed.fits, text, needed.to_dict()))
    exposed, covered = report.communication(timeline)
    makespan = timeline.makespan_us
    share = float(exposed / makespan) if makespan else 0.0
    busiest, stream = max(
        ((each["busy_fraction"], name) for name, each in report.streams(timeline).items()),
        default=(0.0, ""),
    )
    there = any(task.kind.is_transfer for task in timeline.schedule) and share <= HIDDEN
    text = (
        f"{human_us(exposed)} of communication ({100 * share:.1f} % of the makespan) is exposed, "
    )
    text += f"{100 * covered:.0f} % of transfers are hidden; {stream} is busiest, {100 * busiest:.0f} % of the time"
    numbers = {
        "exposed_us": exposed,
        "exposed_fraction": share,
        "busiest": stream,
        "busy_fraction": busiest,
    }
    found.append(Diagnosis("communication already hidden", there, text, numbers))
    text = "; ".join(out_of_range) or "no cost was asked beyond its measurements"
    found.append(
        Diagnosis("costs out of range", bool(out_of_range), text, {"costs": len(out_of_range)})
    )
    return found


def lower_bound_us(schedule: Schedule, costs: Costs) -> float:
    """What no order of the streams can beat: the work of a stream with the least before and after
    it, the longest chain of what waits for what, and for equal micro-batches on AG, A2E, EG and E2A
    the bounds of `simdep.simulation.bounds`."""
    alone = Schedule({task.name: (task,) for task in schedule})
    us = {task.name: costs(task) for task in schedule}
    head: dict[str, float] = {}
    tail = dict.fromkeys(us, 0.0)
    for task in alone.in_order:
        head[task.name] = max((head[needed] + us[needed] for needed in task.after), default=0)
    for task in reversed(alone.in_order):
        for needed in task.after:
            tail[needed] = max(tail[needed], us[task.name] + tail[task.name])
    found = [head[name] + us[name] + tail[name] for name in us]
    for tasks in schedule.streams.values():
        names = [task.name for task in tasks]
        if names:
            least = min(map(head.__getitem__, names)) + min(map(tail.__getitem__, names))
            found.append(least + sum(us[name] for name in names))
    batch = _regular(schedule, us)
    if batch is not None:
        found.append(float(makespan_bounds(batch, schedule.layers, schedule.r1)[0]))
    return max(found, default=0)


def _regular(schedule: Schedule, us: Mapping[str, float]) -> Batch | None:
    """The stage times of equal micro-batches that are cut alike in every layer, None for any other
    schedule."""
    layers, r1 = schedule.layers, schedule.r1
    if set(schedule.streams) != set(STREAMS) or any(
        schedule.stream_of[task.name] != task.kind.stream
        or not (task.kind.is_chunked or task.kind in _WHOLE)
        for task in schedule
    ):
        return None
    chunks = range(schedule.r2)
    shared = "S[0.0]" in us
    try:
        attention = [us[f"A[{layer}.0]"] for layer in range(layers)]
        runs = [[us[f"{kind}[0.0.{chunk}]"] for chunk in chunks] for kind in ("A2E", "E", "E2A")]
        for layer in range(layers):
            for mb in range(r1):
                own = [
                    [us[f"{kind}[{layer}.{mb}.{chunk}]"] for chunk in chunks]
                    for kind in ("A2E", "E", "E2A")
                ]
                alike = own == runs and us[f"A[{layer}.{mb}]"] == attention[layer]
                if not alike or (shared and us[f"S[{layer}.{mb}]"] != us["S[0.0]"]):
                    return None
    except KeyError:
        return None
    a2e, expert, e2a = (np.array(each, float)[:, None] for each in runs)
    own_shared = np.array([us["S[0.0]"] if shared else 0.0])
    return Batch(
        np.array(attention, float)[:, None], own_shared, np.ones((len(chunks), 1)), a2e, expert, e2a
    )


_WHOLE = (Kind.ATTENTION, Kind.SHARED)


def _times(timeline: Timeline) -> dict[str, tuple[float, float]]:
    rows = timeline.by_task()[["start_us", "end_us"]]
    return {str(name): (_plain(start), _plain(end)) for name, start, end in rows.itertuples()}


def _plain(value: Any) -> float:
    return value.item() if isinstance(value, np.generic) else value  # type: ignore[no-any-return]


def _soonest(schedule: Schedule, served: Sequence[str], spans: Times, times: Times) -> list[float]:
    """For each task of a stream, when the first of those after it, of any length, has all it
    needs."""
    found, soonest = [0.0] * len(served), math.inf
    for at in range(len(served) - 1, -1, -1):
        found[at] = soonest
        if spans[served[at]][1] > spans[served[at]][0]:
            soonest = min(
                soonest,
                max((times[needed][1] for needed in schedule[served[at]].after), default=-math.inf),
            )
    return found


def _same(one: Task, other: Task) -> bool:
    """Whether two tasks are the same one of different ranks."""
    return (one.kind, one.layer, one.mb, one.chunk) == (
        other.kind,
        other.layer,
        other.mb,
        other.chunk,
    )


def _cut(
    low: float, high: float, waits: Iterable[tuple[float, float]]
) -> Iterator[tuple[float, float, bool]]:
    """An interval in pieces, each with whether it lies within one of `waits`."""
    inner = [(max(low, a), min(high, b)) for a, b in waits if min(high, b) > max(low, a)]
    edges = sorted({low, high, *(edge for pair in inner for edge in pair)}) if high > low else []
    for a, b in pairwise(edges):
        yield a, b, any(start <= a and b <= end for start, end in inner)


def _rows(
    sides: Sequence[Mapping[tuple[str, str], float]], columns: tuple[str, str]
) -> list[dict[str, Any]]:
    keys = dict.fromkeys(key for side in sides for key in side)
    rows = []
    for key in keys:
        one, other = (side.get(key, 0) for side in sides)
        rows.append(
            dict(zip(columns, key, strict=True))
            | {"one_us": one, "other_us": other, "change_us": other - one}
        )
    return sorted(rows, key=lambda row: -abs(row["change_us"]))


def _words(
    one: Timeline,
    other: Timeline,
    path: Sequence[Mapping[str, Any]],
    causes: Sequence[Mapping[str, Any]],
) -> Iterator[str]:
    change = other.makespan_us - one.makespan_us
    names = [f"{each.schedule.label or 'the schedule'}" for each in (one, other)]
    if not change:
        yield f"{names[1]} takes as long as {names[0]}: {human_us(one.makespan_us)}"
        return
    share = f" ({100 * abs(change) / one.makespan_us:.1f} %)" if one.makespan_us else ""
    yield f"{names[1]} takes {human_us(abs(change))}{share} {_more(change)} than {names[0]}"
    told = [
        f"{human_us(abs(row['change_us']))} {_more(row['change_us'])} of {row['kind']}"
        for row in path
        if row["change_us"]
    ]
    yield "on its critical path are " + ", ".join(told) if told else "the critical paths are alike"
    shown = [row for row in causes if abs(row["change_us"]) >= 0.01 * abs(change)][:4]
    for row in shown:
        reason = _REASONS.get(row["cause"], f"waiting for {row['cause']}")
        yield f"{row['stream']} is idle {human_us(abs(row['change_us']))} {_more(row['change_us'])}: {reason}"


def _more(change: float) -> str:
    return "more" if change > 0 else "less"


_REASONS = {
    WARM_UP: "warm-up",
    DRAIN: "drain",
    ORDER: "for its order",
    OTHER_RANK: "waiting for another rank",
    HOST: "for what hosts add",
}
